"""Delete what has been kept long enough: ended jobs, their logs, events. Once an hour, in `sync`."""

import asyncio
import logging

from core.runtime_settings import RuntimeSettings
from db import retention, runtime_settings
from db.engine import Database

INTERVAL_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class Retention:
    """The one that deletes. defaults: what holds while nobody has changed anything."""

    def __init__(
        self, database: Database, *, defaults: RuntimeSettings, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Delete at intervals, for ever."""
        while True:
            try:
                await self.clean_up()
            except Exception as error:  # noqa: BLE001 - the loop outlives every outage
                logger.warning("old rows could not be deleted", extra={"reason": type(error).__name__})
            await asyncio.sleep(self._interval_seconds)

    async def clean_up(self) -> None:
        """Delete everything that is older than its days, each batch in a transaction of its own."""
        async with self._database.read() as session:
            settings = await runtime_settings.read(session, defaults=self._defaults)
        for what, delete_batch, days in (
            ("lines of logs", retention.delete_log_lines, settings.log_days),
            ("jobs", retention.delete_jobs, settings.job_days),
            ("events", retention.delete_events, settings.event_days),
        ):
            deleted = 0
            while batch := await delete_batch(self._database, older_than_days=days):
                deleted += batch
            if deleted:
                logger.info("deleted what was old", extra={"what": what, "count": deleted, "days": days})
