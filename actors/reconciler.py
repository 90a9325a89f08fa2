"""Take jobs back from workers that died: every five seconds, in `sync`."""

import asyncio
import logging

from core.bus import Bus, job_topic
from core.job import JobState
from core.metrics import QUEUE_DEPTH
from db import jobs, runs
from db.engine import Database

logger = logging.getLogger(__name__)


class Reconciler:
    """The one that looks for expired leases."""

    def __init__(self, database: Database, bus: Bus, *, interval_seconds: float = 5.0) -> None:
        self._database = database
        self._bus = bus
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Look at intervals, for ever."""
        while True:
            try:
                await self.reconcile()
            except Exception as error:  # noqa: BLE001 - the loop outlives every outage
                logger.warning("leases could not be looked at", extra={"reason": type(error).__name__})
            await asyncio.sleep(self._interval_seconds)

    async def reconcile(self) -> None:
        """Queue again what was left behind."""
        for job in await runs.reconcile(self._database, actor="sync"):
            logger.warning("a worker is gone; its job is queued again", extra={"job": str(job.id)})
            self._bus.publish(job_topic(job.id))
        async with self._database.read() as session:
            counts = await jobs.count_by_state(session)
        QUEUE_DEPTH.set(counts.get(JobState.QUEUED, 0))
