"""What the fields about the queue and its workers do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.job import JobState
from db import jobs, workers
from db.tables import Worker
from resolvers.context import Context


@dataclass(frozen=True, kw_only=True)
class QueueReport:
    """How the queue is."""

    queued: int
    running: int
    paused: int
    failed_last_day: int
    oldest_queued_at: datetime | None
    workers: Sequence[Worker]


async def report(ctx: Context) -> QueueReport:
    """Count the jobs and list the workers."""
    async with ctx.services.database.read() as session:
        counts = await jobs.count_by_state(session)
        return QueueReport(
            queued=counts.get(JobState.QUEUED, 0),
            running=counts.get(JobState.RUNNING, 0),
            paused=counts.get(JobState.PAUSED, 0),
            failed_last_day=counts.get(JobState.FAILED, 0),
            oldest_queued_at=await jobs.oldest_queued_at(session),
            workers=await workers.seen_lately(session),
        )
