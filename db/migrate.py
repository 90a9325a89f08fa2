"""Bring a database to the code's tables. One runs at a time; the others wait and find nothing left to do."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from db.engine import Database

SCRIPTS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x6D6D_6D69
"""Key of the PostgreSQL advisory lock that migrations hold."""


def config() -> Config:
    """Point Alembic at the migrations that ship with the code."""
    settings = Config()
    settings.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


async def upgrade(database: Database) -> None:
    """Apply every migration that is missing, all or nothing."""
    async with database.engine.connect() as connection:
        marked = await connection.execution_options(writes=True)
        await marked.run_sync(_upgrade)
        await marked.commit()


def _upgrade(connection: Connection) -> None:
    """Run Alembic on a connection that is already in a transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '120s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


async def is_current(database: Database) -> bool:
    """Tell whether the database has exactly the tables that this code expects."""
    async with database.engine.connect() as connection:
        return await connection.run_sync(_current_head) == ScriptDirectory.from_config(config()).get_current_head()


def _current_head(connection: Connection) -> str | None:
    """Read which migration was applied last."""
    return MigrationContext.configure(connection).get_current_revision()
