"""Jobs: reading them, and every change of state that an API call may make; a worker's are in `db/runs.py`.

Each change is one guarded update: it names the states that it starts from, and changes nothing when that no longer
holds. Nothing here reads first and writes later.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import DomainError, ErrorCode
from core.event import EventType
from core.ids import NodeType, global_id
from core.job import PAUSABLE_KINDS, TERMINAL_STATES, JobKind, JobPriority, JobState, LogLevel, Progress
from db import job_files, job_logs, weight_sets
from db.engine import Database, NewEvent
from db.job_logs import NewLogLine
from db.paging import Keyset, Page, PageRequest, fetch_page
from db.tables import Job
from db.types import db_now

MAX_ATTEMPTS = 5
NO_ERROR: dict[str, Any] = {
    "error_code": None,
    "error_message": None,
    "error_hint": None,
    "error_retryable": None,
}
REQUEUED: dict[str, Any] = {
    "state": JobState.QUEUED,
    "dispatched_at": None,
    "dispatches": 0,
    "lease_until": None,
    "worker_id": None,
    "bytes_per_second": None,
    "eta_seconds": None,
}


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs; None means any."""

    kinds: Collection[JobKind] | None = None
    states: Collection[JobState] | None = None
    subject_id: str | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Say the same in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.kinds is not None:
            found.append(Job.kind.in_(self.kinds))
        if self.states is not None:
            found.append(Job.state.in_(self.states))
        if self.subject_id is not None:
            found.append(Job.subject_id == self.subject_id)
        if self.created_since is not None:
            found.append(Job.created_at >= self.created_since)
        if self.created_until is not None:
            found.append(Job.created_at < self.created_until)
        return found

    def matches(self, job: Job) -> bool:
        """Say the same of a row that is already here."""
        return (
            (self.kinds is None or job.kind in self.kinds)
            and (self.states is None or job.state in self.states)
            and (self.subject_id is None or job.subject_id == self.subject_id)
            and (self.created_since is None or job.created_at >= self.created_since)
            and (self.created_until is None or job.created_at < self.created_until)
        )


# ---------------------------------------------------------------- reading


async def get(session: AsyncSession, job_id: UUID) -> Job | None:
    """Read a job."""
    return await session.get(Job, job_id)


async def get_many(session: AsyncSession, job_ids: Collection[UUID]) -> dict[UUID, Job]:
    """Read several jobs in one statement."""
    found = await session.scalars(select(Job).where(Job.id.in_(job_ids)))
    return {job.id: job for job in found}


async def page(session: AsyncSession, job_filter: JobFilter, request: PageRequest) -> Page[Job]:
    """Read a page of jobs, newest first."""
    keyset = Keyset(stream="jobs", columns=(Job.created_at, Job.id), descending=True)
    statement = select(Job).where(*job_filter.conditions())
    return await fetch_page(session, statement, keyset=keyset, request=request)


async def count(session: AsyncSession, job_filter: JobFilter) -> int:
    """Count jobs."""
    statement = select(func.count()).select_from(Job).where(*job_filter.conditions())
    return await session.scalar(statement) or 0


async def unended(session: AsyncSession) -> Sequence[Job]:
    """Read every job that has not ended, oldest first."""
    statement = select(Job).where(Job.state.not_in(TERMINAL_STATES)).order_by(Job.created_at, Job.id)
    return (await session.scalars(statement)).all()


async def count_by_state(session: AsyncSession) -> Mapping[JobState, int]:
    """Count the jobs that have not ended, and those that failed in the last day."""
    failed_lately = (Job.state == JobState.FAILED) & (Job.ended_at > db_now(plus_seconds=-86_400))
    statement = (
        select(Job.state, func.count()).where(Job.state.not_in(TERMINAL_STATES) | failed_lately).group_by(Job.state)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


async def oldest_queued_at(session: AsyncSession) -> datetime | None:
    """When the job was made that waits longest."""
    found: datetime | None = await session.scalar(
        select(Job.created_at).where(Job.state == JobState.QUEUED).order_by(Job.created_at).limit(1)
    )
    return found


# ---------------------------------------------------------------- what the API does


async def cancel(database: Database, job_id: UUID, *, actor: str) -> Job:
    """End a job for good, whatever its worker does later.

    Raises: DomainError NOT_FOUND, CONFLICT when it has already ended.
    """
    async with database.write() as session:
        job: Job | None = await session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state.not_in(TERMINAL_STATES))
            .values(
                state=JobState.CANCELLED,
                stage=None,
                message=f"Cancelled by {actor}",
                waiting_for=None,
                lease_until=None,
                bytes_per_second=None,
                eta_seconds=None,
                ended_at=db_now(),
                updated_at=db_now(),
            )
            .returning(Job)
        )
        if job is None:
            raise await _refusal(session, job_id, "cancelled: it has ended")
        await job_logs.write(session, job.id, NewLogLine(message=f"Cancelled by {actor}", level=LogLevel.WARNING))
        await weight_sets.let_go(session, job.id)
        await session.commit_with(event_of(job, EventType.JOB_CANCELLED, actor=actor))
    return job


async def pause(database: Database, job_id: UUID, *, actor: str) -> Job:
    """Hold an install, waiting or running; what it has fetched stays.

    Raises: DomainError NOT_FOUND, CONFLICT when it has ended, is held already, or is of a kind that cannot be.
    """
    async with database.write() as session:
        job: Job | None = await session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state.in_((JobState.QUEUED, JobState.RUNNING)), Job.kind.in_(PAUSABLE_KINDS))
            .values(
                state=JobState.PAUSED,
                message=f"Paused by {actor}",
                waiting_for=None,
                next_attempt_at=None,
                dispatched_at=None,
                lease_until=None,
                bytes_per_second=None,
                eta_seconds=None,
                updated_at=db_now(),
            )
            .returning(Job)
        )
        if job is None:
            raise await _refusal(session, job_id, "paused: only an install that waits or runs can be")
        await job_logs.write(session, job.id, NewLogLine(message=f"Paused by {actor}"))
        await session.commit_with(event_of(job, EventType.JOB_PAUSED, actor=actor))
    return job


async def resume(database: Database, job_id: UUID, *, actor: str) -> Job:
    """Queue a held job again; it goes on from what is there.

    Raises: DomainError NOT_FOUND, CONFLICT when it is not held.
    """
    async with database.write() as session:
        job: Job | None = await session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state == JobState.PAUSED)
            .values(**REQUEUED, deliveries=0, message=f"Resumed by {actor}", updated_at=db_now())
            .returning(Job)
        )
        if job is None:
            raise await _refusal(session, job_id, "resumed: only a job that is paused can be")
        await job_logs.write(session, job.id, NewLogLine(message=f"Resumed by {actor}"))
        await session.commit_with(event_of(job, EventType.JOB_QUEUED, actor=actor))
    return job


async def set_priority(database: Database, job_id: UUID, priority: JobPriority, *, actor: str) -> Job:
    """Change who goes first among the jobs that wait.

    Raises: DomainError NOT_FOUND, CONFLICT when the job has ended.
    """
    async with database.write() as session:
        job: Job | None = await session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state.not_in(TERMINAL_STATES))
            .values(priority=priority, updated_at=db_now())
            .returning(Job)
        )
        if job is None:
            raise await _refusal(session, job_id, "moved in the queue: it has ended")
        line = NewLogLine(message=f"Priority {priority.name}, by {actor}")
        await job_logs.write(session, job.id, line)
        await session.commit()
    return job


_FROM_ZERO: dict[str, Any] = {
    name: value
    for name, value in asdict(Progress()).items()
    if name not in {"bytes_total", "files_total", "bytes_per_second", "eta_seconds"}
}


async def retry(database: Database, job_id: UUID, *, actor: str) -> Job:
    """Queue a job again that failed (it goes on from the parts that are there) or was cancelled (from zero).

    Raises: DomainError NOT_FOUND, CONFLICT when it has not ended so, or its set belongs to another job.
    """
    async with database.write() as session:
        job: Job | None = await session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state.in_((JobState.FAILED, JobState.CANCELLED)))
            .values(
                **_FROM_ZERO,
                **REQUEUED,
                **NO_ERROR,
                attempt=Job.attempt + 1,
                fence=Job.fence + 1,
                deliveries=0,
                fruitless_runs=0,
                next_attempt_at=None,
                ended_at=None,
                message=f"Retried by {actor}",
                updated_at=db_now(),
            )
            .returning(Job)
        )
        if job is None:
            raise await _refusal(session, job_id, "retried: only a job that failed or was cancelled can be")
        await weight_sets.take_again(session, job)
        await job_files.reset(session, job.id)
        await job_logs.write(session, job.id, NewLogLine(message=f"Retried by {actor}"))
        await session.commit_with(event_of(job, EventType.JOB_RETRIED, actor=actor))
    return job


async def _refusal(session: AsyncSession, job_id: UUID, why: str) -> DomainError:
    """Say why a change did not apply."""
    job = await get(session, job_id)
    path = ("input", "jobId")
    if job is None:
        return DomainError(ErrorCode.NOT_FOUND, f"There is no job {global_id(NodeType.JOB, job_id)}", path=path)
    return DomainError(ErrorCode.CONFLICT, f"This job is {job.state} and cannot be {why}", path=path)


def event_of(
    job: Job,
    event_type: EventType,
    *,
    actor: str | None = None,
    message: str | None = None,
    data: dict[str, Any] | None = None,
) -> NewEvent:
    """Describe a change of a job for the journal. actor: None means the worker that holds it."""
    return NewEvent(
        type=event_type,
        subject_id=global_id(NodeType.JOB, job.id),
        actor=actor or job.worker_id or "sync",
        message=message or job.message or event_type,
        data={
            "jobId": str(job.id),
            "kind": job.kind,
            "state": job.state,
            "subjectId": job.subject_id,
            "attempt": job.attempt,
            **(data or {}),
        },
    )
