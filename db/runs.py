"""Runs of jobs: what a worker that has claimed a job may write, and how a dead worker's job is taken back.

Each write is one guarded update that carries the claim's fence: once the job has been cancelled, paused or claimed
by another worker, nothing that an old run writes counts.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update

from core.errors import JobErrorCode, JobFailure
from core.event import EventType
from core.job import JobKind, JobStage, JobState, LogLevel, Progress
from db import job_files, job_logs, jobs, weight_sets
from db.engine import Database, WriteSession
from db.job_files import FileProgress
from db.job_logs import NewLogLine
from db.tables import Job, QueueState
from db.types import db_now

MAX_DELIVERIES_WITHOUT_PROGRESS = 5


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job: its writes count only while the row still carries this fence."""

    job_id: UUID
    fence: int

    @property
    def guard(self) -> tuple[ColumnElement[bool], ...]:
        """The condition of every write that a worker makes."""
        return (Job.id == self.job_id, Job.state == JobState.RUNNING, Job.fence == self.fence)


class LostClaimError(Exception):
    """The job has been cancelled, or belongs to another run by now: this run must end and publish nothing."""


async def claim(
    database: Database, job_id: UUID, *, kinds: Iterable[JobKind], worker_id: str, lease_seconds: float
) -> Job | None:
    """Take a dispatched job, or None when it is not to be had (any more) or of an unknown kind.

    Order: the row is RUNNING, with a fence that no earlier run had, before the first byte.
    """
    async with database.write() as session:
        job: Job | None = await session.scalar(
            update(Job)
            .where(
                Job.id == job_id,
                Job.state == JobState.QUEUED,
                Job.dispatched_at.is_not(None),
                Job.kind.in_(tuple(kinds)),
            )
            .values(
                state=JobState.RUNNING,
                fence=Job.fence + 1,
                deliveries=Job.deliveries + 1,
                lease_until=db_now(plus_seconds=lease_seconds),
                worker_id=worker_id,
                waiting_for=None,
                started_at=func.coalesce(Job.started_at, db_now()),
                updated_at=db_now(),
            )
            .returning(Job)
        )
        if job is None:
            return None
        await job_logs.write(session, job.id, NewLogLine(message=f"Started by {worker_id}, run {job.fence}"))
        await session.commit_with(jobs.event_of(job, EventType.JOB_STARTED, actor=worker_id))
    return job


async def take_back(database: Database, job_id: UUID) -> None:
    """Undo the dispatch of a job that nobody has claimed, so that its message is sent again at once."""
    async with database.write() as session:
        await session.execute(
            update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED).values(dispatched_at=None, dispatches=0)
        )
        await session.commit()


async def renew(database: Database, claims: Collection[Claim], *, lease_seconds: float) -> set[Claim]:
    """Prolong leases on the database's clock; return the claims that still hold."""
    async with database.write() as session:
        held = set()
        for held_claim in claims:
            changed = await session.scalar(
                update(Job)
                .where(*held_claim.guard)
                .values(lease_until=db_now(plus_seconds=lease_seconds))
                .returning(Job.id)
            )
            if changed is not None:
                held.add(held_claim)
        await session.commit()
    return held


async def states_of(database: Database, claims: Collection[Claim]) -> dict[Claim, JobState]:
    """Look, without writing, at the jobs that nobody has claimed since: how a run learns what became of its own."""
    async with database.read() as session:
        statement = select(Job.id, Job.fence, Job.state).where(Job.id.in_([one.job_id for one in claims]))
        found = {Claim(job_id, fence): state for job_id, fence, state in (await session.execute(statement)).all()}
    return {claim: found[claim] for claim in claims if claim in found}


async def report(
    database: Database,
    claimed: Claim,
    *,
    progress: Progress,
    stage: JobStage,
    message: str | None,
    files: Iterable[FileProgress] = (),
    lines: Iterable[NewLogLine] = (),
    has_advanced: bool = False,
) -> None:
    """Write how far a run is.

    has_advanced: bytes have arrived since the last report: earlier errors and crashes are forgiven.
    Raises: LostClaimError.
    """
    forgiven: dict[str, Any] = {"deliveries": 1, "fruitless_runs": 0} if has_advanced else {}
    async with database.write() as session:
        await hold(session, claimed, **asdict(progress), stage=stage, message=message, **forgiven)
        await job_files.move(session, claimed.job_id, files)
        await job_logs.write(session, claimed.job_id, *lines)
        await session.commit()


async def hold(session: WriteSession, claimed: Claim, **values: Any) -> Job:
    """Change a running job in a worker's transaction.

    Raises: LostClaimError when the claim no longer holds; nothing is changed then.
    """
    job: Job | None = await session.scalar(
        update(Job).where(*claimed.guard).values(updated_at=db_now(), **values).returning(Job)
    )
    if job is None:
        raise LostClaimError
    return job


async def succeed(session: WriteSession, claimed: Claim, *, message: str, **values: Any) -> Job:
    """Mark a run as done within the transaction that writes its result; the caller commits.

    Raises: LostClaimError.
    """
    job = await hold(
        session,
        claimed,
        state=JobState.SUCCEEDED,
        stage=None,
        message=message,
        ended_at=db_now(),
        lease_until=None,
        bytes_per_second=None,
        eta_seconds=None,
        **jobs.NO_ERROR,
        **values,
    )
    await job_logs.write(session, job.id, NewLogLine(message=message))
    return job


async def fail(database: Database, claimed: Claim, failure: JobFailure, *, back_off_seconds: float | None) -> Job:
    """End a run that went wrong: queued again after the back-off, or FAILED when that is None.

    Raises: LostClaimError.
    """
    error = {
        "error_code": failure.code,
        "error_message": str(failure),
        "error_hint": failure.hint,
        "error_retryable": failure.retryable,
        "attempt": Job.attempt + 1,
        "fruitless_runs": Job.fruitless_runs + 1,
    }
    async with database.write() as session:
        if back_off_seconds is None:
            job = await hold(session, claimed, **_FAILED, **error, message=str(failure))
            await weight_sets.let_go(session, job.id)
            happened = jobs.event_of(job, EventType.JOB_FAILED, message=str(failure), data={"error": failure.code})
        else:
            due = db_now(plus_seconds=back_off_seconds)
            job = await hold(session, claimed, **jobs.REQUEUED, **error, next_attempt_at=due, message=str(failure))
            happened = jobs.event_of(
                job,
                EventType.JOB_QUEUED,
                message=f"Again in {back_off_seconds:.0f} s: {failure}",
                data={"error": failure.code},
            )
        line = NewLogLine(
            message=happened.message, level=LogLevel.ERROR if back_off_seconds is None else LogLevel.WARNING
        )
        await job_logs.write(session, job.id, line)
        await session.commit_with(happened)
    return job


_FAILED: dict[str, Any] = {
    "state": JobState.FAILED,
    "stage": None,
    "ended_at": db_now(),
    "lease_until": None,
    "bytes_per_second": None,
    "eta_seconds": None,
}


async def release(
    database: Database, claimed: Claim, *, why: str, wait_seconds: float | None = None, **values: Any
) -> Job:
    """Give a job back without using up an attempt: shutdown, or no space.

    Raises: LostClaimError.
    """
    due = db_now(plus_seconds=wait_seconds) if wait_seconds is not None else None
    async with database.write() as session:
        job = await hold(
            session, claimed, **jobs.REQUEUED, deliveries=Job.deliveries - 1, next_attempt_at=due, message=why, **values
        )
        await job_logs.write(session, job.id, NewLogLine(message=why, level=LogLevel.WARNING))
        await session.commit_with(jobs.event_of(job, EventType.JOB_QUEUED, message=why))
    return job


async def reconcile(database: Database, *, actor: str) -> list[Job]:
    """Queue again what a dead worker left behind: every job whose lease ran out.

    A job whose worker died time after time without a byte of progress is FAILED with WORKER_CRASHED.
    """
    async with database.write() as session:
        expired = (Job.state == JobState.RUNNING, Job.lease_until < db_now())
        failure = JobFailure(
            JobErrorCode.WORKER_CRASHED,
            f"Its worker died {MAX_DELIVERIES_WITHOUT_PROGRESS} times without any progress",
            hint="Look at the worker's own log for the reason, then retry the job.",
        )
        crashed = await session.scalars(
            update(Job)
            .where(*expired, Job.deliveries >= MAX_DELIVERIES_WITHOUT_PROGRESS)
            .values(
                **_FAILED,
                error_code=failure.code,
                error_message=str(failure),
                error_hint=failure.hint,
                error_retryable=False,
                message=str(failure),
                updated_at=db_now(),
            )
            .returning(Job)
        )
        events = [
            jobs.event_of(job, EventType.JOB_FAILED, actor=actor, data={"error": failure.code}) for job in crashed
        ]
        why = "Its worker is gone; queued again"
        requeued = await session.scalars(
            update(Job).where(*expired).values(**jobs.REQUEUED, message=why, updated_at=db_now()).returning(Job)
        )
        found = list(requeued)
        await session.execute(update(QueueState).values(synced_at=db_now()))
        events += [jobs.event_of(job, EventType.JOB_QUEUED, actor=actor, message=why) for job in found]
        if not events:
            await session.commit()
            return []
        for job in found:
            await job_logs.write(session, job.id, NewLogLine(message=why, level=LogLevel.WARNING))
        for happened in events[: len(events) - len(found)]:
            await weight_sets.let_go(session, UUID(happened.data["jobId"]))
        await session.commit_with(*events)
    return found
