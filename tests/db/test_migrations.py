"""Migrations: an empty database becomes today's, and nothing that the code knows is missing from it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from core.errors import SettingsError
from db.engine import Database
from db.migrate import is_current, upgrade
from db.tables import Base
from tests.servers.postgres import PostgresServer

ROOT = Path(__file__).parents[2]


def differences(connection: Connection) -> list[object]:
    """Ask Alembic what it would still change."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))


async def test_a_migrated_database_is_what_the_code_describes(database: Database) -> None:
    async with database.engine.connect() as connection:
        found = await connection.run_sync(differences)

    assert found == []
    assert await is_current(database)


async def test_upgrading_at_once_and_again_changes_nothing_more(tmp_path: Path, postgres: PostgresServer) -> None:
    name = postgres.create_database()
    for url in (f"sqlite+aiosqlite:///{tmp_path}/fresh.db", postgres.url(name)):
        environment = {**os.environ, "MODEL_MANAGER_DATABASE_URL": url}
        command = [sys.executable, "-m", "cli", "migrate"]
        started = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment) for _ in range(3)]
        codes = [await process.wait() for process in started]

        database = Database(url)
        await upgrade(database)
        assert codes == [0, 0, 0]
        assert await is_current(database)
        await database.close()
    postgres.drop_database(name)


async def test_an_empty_database_is_known_to_lack_its_tables(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/empty.db")

    assert not await is_current(database)
    await database.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite+aiosqlite:////nowhere/at/all.db", "The database at /nowhere/at/all.db cannot be used: unable to open"),
        ("postgresql+asyncpg://a:secret@127.0.0.1:1/x", "The database at 127.0.0.1:1/x cannot be used: "),
    ],
)
async def test_a_database_that_cannot_be_reached_is_one_sentence_without_the_password(url: str, said: str) -> None:
    database = Database(url)

    with pytest.raises(SettingsError) as refused:
        await database.check()

    assert str(refused.value).startswith(said)
    assert "secret" not in str(refused.value)
    await database.close()
    await asyncio.sleep(0.1)  # the driver's thread takes its leave from the loop
