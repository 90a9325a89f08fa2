"""Jobs: reading them, and every change of state that an API call or a worker may make.

Each change is one guarded update: it names the state (and, for a worker, the fence) that it starts from, and
changes nothing when that no longer holds. Nothing here reads first and writes later.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import DomainError, ErrorCode, JobErrorCode, JobFailure
from core.ids import NodeType, global_id
from core.job import TERMINAL_STATES, JobKind, JobStage, JobState, LogLevel, Progress
from db import job_files, job_logs, weight_sets
from db.engine import Database, NewEvent, WriteSession
from db.job_files import FileProgress
from db.job_logs import NewLogLine
from db.paging import Keyset, Page, PageRequest, fetch_page
from db.tables import Job, QueueState
from db.types import db_now

MAX_ATTEMPTS = 5
MAX_DELIVERIES_WITHOUT_PROGRESS = 5


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


# ---------------------------------------------------------------- what a worker does


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
        await session.commit_with(event_of(job, "job.started", actor=worker_id))
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


async def still_held(database: Database, claims: Collection[Claim]) -> set[Claim]:
    """Look, without writing, which claims hold: how a run learns of its cancellation."""
    async with database.read() as session:
        statement = select(Job.id, Job.fence).where(
            Job.id.in_([one.job_id for one in claims]), Job.state == JobState.RUNNING
        )
        found = {Claim(job_id, fence) for job_id, fence in (await session.execute(statement)).all()}
    return found & set(claims)


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
        **_NO_ERROR,
        **values,
    )
    await job_logs.write(session, job.id, NewLogLine(message=message))
    return job


_NO_ERROR: dict[str, Any] = {
    "error_code": None,
    "error_message": None,
    "error_hint": None,
    "error_retryable": None,
}
_REQUEUED: dict[str, Any] = {
    "state": JobState.QUEUED,
    "dispatched_at": None,
    "dispatches": 0,
    "lease_until": None,
    "worker_id": None,
    "bytes_per_second": None,
    "eta_seconds": None,
}


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
            happened = event_of(job, "job.failed", message=str(failure), data={"error": failure.code})
        else:
            due = db_now(plus_seconds=back_off_seconds)
            job = await hold(session, claimed, **_REQUEUED, **error, next_attempt_at=due, message=str(failure))
            happened = event_of(
                job, "job.queued", message=f"Again in {back_off_seconds:.0f} s: {failure}", data={"error": failure.code}
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
            session, claimed, **_REQUEUED, deliveries=Job.deliveries - 1, next_attempt_at=due, message=why, **values
        )
        await job_logs.write(session, job.id, NewLogLine(message=why, level=LogLevel.WARNING))
        await session.commit_with(event_of(job, "job.queued", message=why))
    return job


# ---------------------------------------------------------------- what sync does


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
        events = [event_of(job, "job.failed", actor=actor, data={"error": failure.code}) for job in crashed]
        why = "Its worker is gone; queued again"
        requeued = await session.scalars(
            update(Job).where(*expired).values(**_REQUEUED, message=why, updated_at=db_now()).returning(Job)
        )
        found = list(requeued)
        await session.execute(update(QueueState).values(synced_at=db_now()))
        events += [event_of(job, "job.queued", actor=actor, message=why) for job in found]
        if not events:
            await session.commit()
            return []
        for job in found:
            await job_logs.write(session, job.id, NewLogLine(message=why, level=LogLevel.WARNING))
        for happened in events[: len(events) - len(found)]:
            await weight_sets.let_go(session, UUID(happened.data["jobId"]))
        await session.commit_with(*events)
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
        await session.commit_with(event_of(job, "job.cancelled", actor=actor))
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
                **_REQUEUED,
                **_NO_ERROR,
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
        await session.commit_with(event_of(job, "job.retried", actor=actor))
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
    event_type: str,
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
