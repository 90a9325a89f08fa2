"""The API as its tests meet it: real servers around it, and a Hub that is a fake."""

from collections.abc import AsyncIterator

import pytest

from core.bus import Bus
from db.engine import Database
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401
from tests.graph.api import NOWHERE, RunningApi, Socket, make_tokens, serving, settings_for
from tests.graph.watching import on_bus, until_live
from tests.servers.valkey import ValkeyServer


@pytest.fixture
def hub_endpoint() -> str:
    """Where the API looks for the Hub; a module that needs one says so by a fixture of this name."""
    return NOWHERE


@pytest.fixture
async def api(
    database_url: str, database: Database, valkey: ValkeyServer, hub_endpoint: str
) -> AsyncIterator[RunningApi]:
    """The API on a fresh database, with the shared Valkey."""
    secrets = await make_tokens(database)
    async with serving(settings_for(database_url, valkey.url, hub_endpoint=hub_endpoint), secrets=secrets) as running:
        yield running


@pytest.fixture
async def bus(valkey: ValkeyServer) -> AsyncIterator[Bus]:
    """The bus as a worker has it, live."""
    async with on_bus(valkey.url) as running:
        yield running


@pytest.fixture
async def socket(api: RunningApi) -> AsyncIterator[Socket]:
    """A socket with a READ token, on an API whose bus is live."""
    await until_live(api.api.services.bus)
    async with api.socket() as opened:
        yield opened
