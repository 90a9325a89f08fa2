"""The API as its tests meet it: real servers around it, and a Hub that is a fake."""

from collections.abc import AsyncIterator

import pytest

from db.engine import Database
from tests.fakes.hub import FakeHub
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401
from tests.graph.api import RunningApi, make_tokens, serving, settings_for
from tests.servers.valkey import ValkeyServer


@pytest.fixture
async def api(
    database_url: str, database: Database, valkey: ValkeyServer, hub: FakeHub
) -> AsyncIterator[RunningApi]:
    """The API on a fresh database, with the shared Valkey and a Hub of its own."""
    secrets = await make_tokens(database)
    async with serving(settings_for(database_url, valkey.url, hub_endpoint=hub.url), secrets=secrets) as running:
        yield running
