"""What an error of ours tells a caller: a request id that the log knows, and nothing else."""

import logging
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from core.token import Scope
from tests.graph.api import GRAPHQL_JSON, RunningApi, error_of, postgresql_only, sqlite_only
from tests.servers.postgres import PostgresServer

WHOM = "{ viewer { name } }"


def assert_masked(response: httpx2.Response, caplog: pytest.LogCaptureFixture, *, secrets: list[str]) -> None:
    """Nothing of ours is told but a request id, and that is in the log."""
    error = response.json()["errors"][0]
    request_id = error["extensions"]["requestId"]
    told = response.text + str(response.headers)
    assert response.headers["X-Request-Id"] == request_id
    assert [record.request_id for record in caplog.records if hasattr(record, "request_id")] == [request_id]
    assert [word for word in [*secrets, "Traceback", "SELECT", "sqlalchemy", "asyncpg", "sqlite"] if word in told] == []


def damage(path: Path) -> None:
    """Overwrite a SQLite file and take its log away."""
    for leftover in path.parent.glob(f"{path.name}-*"):
        leftover.unlink()
    path.write_bytes(b"this is no database" * 1000)


@postgresql_only
async def test_a_database_that_is_gone_is_told_without_its_name(
    api: RunningApi, postgres: PostgresServer, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = database_url.rpartition("/")[2]
    await api.data(WHOM)
    postgres.drop_database(name)

    response = await api.post(b'{"query": "{ jobs { nodes { id } } }"}')

    postgres.run(f"CREATE DATABASE {name} TEMPLATE migrated")
    assert response.status_code == 503
    assert_masked(response, caplog, secrets=[name, str(postgres.port), "127.0.0.1"])
    assert error_of(response)["extensions"]["code"] == "UNAVAILABLE"
    assert error_of(response)["message"] == "The server cannot reach its database just now: try again"


@sqlite_only
async def test_a_database_file_that_is_damaged_is_told_without_its_path(
    api: RunningApi, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(database_url.removeprefix("sqlite+aiosqlite:///"))
    await api.database.engine.dispose()
    damage(path)

    response = await api.post(b'{"query": "{ jobs { nodes { id } } }"}')

    assert response.status_code in {500, 503}
    assert_masked(response, caplog, secrets=[str(path), "model-manager.db", "no database"])


async def test_an_error_inside_an_operation_is_masked_under_a_request_id_of_the_log(
    api: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    async with api.database.write() as session:
        await session.execute(text("ALTER TABLE volumes RENAME TO volumes_of_yesterday"))
        await session.commit()

    response = await api.post(b'{"query": "{ viewer { name } volume { path } }"}', Accept=GRAPHQL_JSON)

    body = response.json()
    assert response.status_code == 200
    assert body["data"] == {"viewer": {"name": "operate"}, "volume": None}
    assert [error["path"] for error in body["errors"]] == [["volume"]]
    assert body["errors"][0]["extensions"]["code"] in {"INTERNAL", "UNAVAILABLE"}
    assert_masked(response, caplog, secrets=["volumes"])


async def test_nothing_of_a_token_is_in_the_log(api: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    await api.data(WHOM)
    await api.execute(WHOM, token=api.tokens[Scope.READ] + "x")

    assert [secret for secret in api.tokens.values() if secret.split("_", 2)[2] in caplog.text] == []
