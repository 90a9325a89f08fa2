"""`model-manager migrate`."""

import asyncio

from core.settings import Settings
from db.engine import Database
from db.migrate import upgrade


def run(settings: Settings) -> None:
    """Bring the database to this version's tables. Raises: SettingsError when it cannot be reached."""
    asyncio.run(_upgrade(settings))


async def _upgrade(settings: Settings) -> None:
    """Check that the database is there, then upgrade it."""
    database = Database(settings.database)
    try:
        await database.check()
        await upgrade(database)
    finally:
        await database.close()
