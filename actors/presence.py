"""Say that this worker is alive and how the volume is; sweep staging that no job owns. Every ten seconds."""

import asyncio
import logging
import socket
from collections.abc import Sequence

from actors.leases import LeaseKeeper
from actors.tools import Tools
from core.job import JobState
from core.version import VERSION
from db import jobs, volumes, workers

logger = logging.getLogger(__name__)


class Presence:
    """A worker process's sign of life."""

    def __init__(
        self,
        tools: Tools,
        *,
        worker_id: str,
        lanes: Sequence[str],
        leases: LeaseKeeper,
        interval_seconds: float = 10.0,
    ) -> None:
        self._tools = tools
        self._worker_id = worker_id
        self._lanes = lanes
        self._leases = leases
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Report at intervals, for ever."""
        while True:
            try:
                await self.report()
            except Exception as error:  # noqa: BLE001 - the loop outlives every outage
                logger.warning("the volume could not be reported", extra={"reason": type(error).__name__})
            await asyncio.sleep(self._interval_seconds)

    async def report(self) -> None:
        """Write down that this process is alive and what it sees."""
        await workers.beat(
            self._tools.database,
            self._worker_id,
            host=socket.gethostname(),
            version=VERSION,
            lanes=self._lanes,
            running_jobs=len(self._leases.running()),
        )
        space = await asyncio.to_thread(self._tools.volume.space)
        await volumes.observe(
            self._tools.database,
            path=str(self._tools.volume.root),
            capacity_bytes=space.capacity_bytes,
            free_bytes=space.free_bytes,
        )
        await self._sweep()

    async def leave(self) -> None:
        """Say that this process is going."""
        await workers.leave(self._tools.database, self._worker_id)

    async def _sweep(self) -> None:
        """Remove the staging of jobs that will never need it: cancelled, done, or unknown."""
        staged = await asyncio.to_thread(self._tools.volume.staged_jobs)
        if not staged:
            return
        async with self._tools.database.read() as session:
            known = await jobs.get_many(session, staged)
        for job_id in staged:
            job = known.get(job_id)
            if job is None or job.state in {JobState.CANCELLED, JobState.SUCCEEDED}:
                await asyncio.to_thread(self._tools.volume.drop_staging, job_id)
