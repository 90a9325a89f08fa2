"""What may enter the queue and what may leave it: two functions under one lock.

The lock is the single row `queue_state` (on SQLite the write transaction itself), so that acceptance, space and
slots are decided by one transaction at a time, whichever process asks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import insert, literal, select, update

from core.download_windows import is_open
from core.errors import DomainError, ErrorCode
from core.event import EventType
from core.ids import NodeType, global_id, new_id
from core.job import (
    LANES,
    SLOTS,
    TERMINAL_STATES,
    WINDOWED_KINDS,
    InstallRequest,
    JobKind,
    JobPriority,
    JobState,
    WaitReason,
)
from core.repository import RepositoryFile
from core.runtime_settings import RuntimeSettings
from core.weight_set import WeightSetState
from db import job_files, job_logs, jobs, outbox, runtime_settings, volumes, weight_sets
from db.engine import Database, WriteSession
from db.job_logs import NewLogLine
from db.tables import Job, OutboxMessage, QueueState, WeightSet
from db.types import db_now

IDEMPOTENCY_SECONDS = 7 * 86_400
DEFAULTS = RuntimeSettings()
REDISPATCH_SECONDS = 30.0
MAX_REDISPATCH_SECONDS = 300.0


class InstallOutcome(StrEnum):
    """What came of asking for an install."""

    STARTED = "STARTED"
    JOINED = "JOINED"
    ALREADY_INSTALLED = "ALREADY_INSTALLED"


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The answer to an accepted request. job: None when there was nothing to do."""

    outcome: InstallOutcome
    job: Job | None
    weight_set: WeightSet | None


@dataclass(frozen=True, kw_only=True)
class ResolvedPlan:
    """What a revision was when the Hub was asked: its commit and the chosen files."""

    commit: str
    files: Sequence[RepositoryFile]

    @property
    def download_bytes(self) -> int:
        """What would have to be fetched."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks, how urgently, and under which key of theirs."""

    name: str
    priority: JobPriority = JobPriority.NORMAL
    idempotency_key: str | None = None


# ---------------------------------------------------------------- in


async def accept_install(
    database: Database, request: InstallRequest, *, plan: ResolvedPlan | None, asker: Asker
) -> Accepted:
    """Accept an install, join one that is under way, or say that there is nothing to do.

    plan: None when the Hub could not be asked in time; the worker asks again then.
    Raises: DomainError IDEMPOTENCY_MISMATCH, ALREADY_EXISTS, CONFLICT, INSUFFICIENT_STORAGE.
    """
    given = input_of(request)
    async with database.write() as session:
        await _lock(session)
        known = await _known_by_key(session, asker, given) or await _under_way(session, given)
        if known is not None:
            return await _joined(session, known, request)
        found = await _check_target(session, request, plan)
        if found is not None:
            return Accepted(outcome=InstallOutcome.ALREADY_INSTALLED, job=None, weight_set=found)
        reused_bytes = 0
        if plan is not None:
            reused_bytes = await weight_sets.reusable_bytes(session, plan.files)
            await _check_space(session, plan.download_bytes - reused_bytes)
        job = await _insert(
            session, JobKind.INSTALL_WEIGHTS, request.name, given, asker=asker, plan=plan, reused_bytes=reused_bytes
        )
        await weight_sets.announce(session, job.id, request)
        await session.commit_with(jobs.event_of(job, EventType.JOB_QUEUED, actor=asker.name))
        return Accepted(
            outcome=InstallOutcome.STARTED, job=job, weight_set=await weight_sets.get(session, request.name)
        )


async def known_install(database: Database, request: InstallRequest, *, asker: Asker) -> Accepted | None:
    """Find what an idempotency key stands for; None when there is no key, or it is new.

    Raises: DomainError IDEMPOTENCY_MISMATCH.
    """
    if asker.idempotency_key is None:
        return None
    async with database.write() as session:
        known = await _known_by_key(session, asker, input_of(request))
        return await _joined(session, known, request) if known is not None else None


async def accept_delete(database: Database, name: str, *, force: bool, asker: Asker) -> Accepted:
    """Accept the removal of a set: out of use at once, its files by a job.

    force: also when it is pinned. Raises: DomainError NOT_FOUND, IN_USE, CONFLICT.
    """
    path = ("input", "weightSetId")
    async with database.write() as session:
        await _lock(session)
        found = await weight_sets.get(session, name)
        if found is None:
            raise DomainError(ErrorCode.NOT_FOUND, f"There is no weight set {name!r}", path=path)
        if found.pinned and not force:
            raise DomainError(ErrorCode.IN_USE, f"{name} is pinned: unpin it, or delete it with force", path=path)
        if await _active_on(session, name) or await weight_sets.mark_deleting(session, name) is None:
            raise DomainError(
                ErrorCode.CONFLICT, f"Another job works on {name} just now: cancel it or wait for its end", path=path
            )
        given = {"name": name, "force": force}
        job = await _insert(session, JobKind.DELETE_WEIGHTS, name, given, asker=asker, plan=None)
        await session.commit_with(jobs.event_of(job, EventType.JOB_QUEUED, actor=asker.name))
        return Accepted(outcome=InstallOutcome.STARTED, job=job, weight_set=await weight_sets.get(session, name))


def input_of(request: InstallRequest) -> dict[str, Any]:
    """Write down what was asked for, as the API shows it."""
    given = asdict(request)
    return {"repoId": given.pop("repo_id"), **given}


def digest_of(given: Mapping[str, Any]) -> str:
    """Name an input, so that two can be compared."""
    return sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def _lock(session: WriteSession) -> None:
    """Take the one lock under which the queue changes."""
    await session.execute(select(QueueState).where(QueueState.id == 1).with_for_update())


async def _known_by_key(session: WriteSession, asker: Asker, given: Mapping[str, Any]) -> Job | None:
    """Find the job that this caller's key stands for.

    Raises: DomainError IDEMPOTENCY_MISMATCH when the key came with another input.
    """
    if asker.idempotency_key is None:
        return None
    mine = (Job.created_by == asker.name, Job.idempotency_key == asker.idempotency_key)
    await session.execute(
        update(Job)
        .where(*mine, Job.created_at < db_now(plus_seconds=-IDEMPOTENCY_SECONDS))
        .values(idempotency_key=None)
    )
    job: Job | None = await session.scalar(select(Job).where(*mine))
    if job is not None and job.input_digest != digest_of(given):
        raise DomainError(
            ErrorCode.IDEMPOTENCY_MISMATCH,
            f"This key stands for {global_id(NodeType.JOB, job.id)}, which was asked for with another input",
            path=("input", "idempotencyKey"),
        )
    return job


async def _under_way(session: WriteSession, given: Mapping[str, Any]) -> Job | None:
    """Find an install of the same that has not ended."""
    job: Job | None = await session.scalar(
        select(Job).where(
            Job.kind == JobKind.INSTALL_WEIGHTS,
            Job.state.not_in(TERMINAL_STATES),
            Job.input_digest == digest_of(given),
        )
    )
    return job


async def _joined(session: WriteSession, job: Job, request: InstallRequest) -> Accepted:
    """Answer with a job that is already there."""
    return Accepted(outcome=InstallOutcome.JOINED, job=job, weight_set=await weight_sets.get(session, request.name))


async def _check_target(session: WriteSession, request: InstallRequest, plan: ResolvedPlan | None) -> WeightSet | None:
    """Look at what is at the target; the set when it is just what was asked for.

    Raises: DomainError ALREADY_EXISTS, CONFLICT.
    """
    path = ("input", "name")
    for relative in await weight_sets.relatives(session, request.name):
        raise DomainError(
            ErrorCode.CONFLICT,
            f"{request.name} and the weight set {relative.name} would lie inside one another",
            path=path,
        )
    found = await weight_sets.get(session, request.name)
    if found is None:
        return None
    if found.state is not WeightSetState.READY or await _active_on(session, request.name):
        raise DomainError(
            ErrorCode.CONFLICT,
            f"Another job works on {request.name} just now: cancel it or wait for its end",
            path=path,
        )
    if await _is_same(session, found, request, plan):
        return found
    if not request.replace:
        raise DomainError(
            ErrorCode.ALREADY_EXISTS,
            f"{request.name} holds {found.repo_id} at {(found.commit or '')[:8]}: give another name, or replace it",
            path=path,
        )
    return None


async def _is_same(session: WriteSession, found: WeightSet, request: InstallRequest, plan: ResolvedPlan | None) -> bool:
    """Tell whether a set holds the commit and files that are asked for."""
    if found.repo_id != request.repo_id:
        return False
    if plan is None:
        return found.commit == request.revision and request.include is None and not request.exclude
    have = {(file.path, file.digest) for file in await weight_sets.files_of(session, found.name)}
    return found.commit == plan.commit and have == {(file.path, file.digest) for file in plan.files}


async def _active_on(session: WriteSession, name: str) -> bool:
    """Tell whether a job that has not ended works on a set."""
    subject = global_id(NodeType.WEIGHT_SET, name)
    statement = select(Job.id).where(Job.subject_id == subject, Job.state.not_in(TERMINAL_STATES)).limit(1)
    return await session.scalar(statement) is not None


async def _check_space(session: WriteSession, needed_bytes: int) -> None:
    """Refuse what does not fit beside what is already accepted.

    Raises: DomainError INSUFFICIENT_STORAGE with the numbers.
    """
    volume = await volumes.get(session)
    if volume is None:
        return
    reserved = await volumes.reserved_bytes(session)
    wanted = int(needed_bytes * volumes.MARGIN)
    if wanted > volume.free_bytes - reserved:
        raise DomainError(
            ErrorCode.INSUFFICIENT_STORAGE,
            f"{wanted:,} bytes are needed; {volume.free_bytes:,} are free on the volume,"
            f" of which {reserved:,} are reserved for installs that are under way",
        )


async def _insert(
    session: WriteSession,
    kind: JobKind,
    name: str,
    given: Mapping[str, Any],
    *,
    asker: Asker,
    plan: ResolvedPlan | None,
    reused_bytes: int = 0,
) -> Job:
    """Write a job and, where it is known, its plan. reused_bytes: what of it will not have to be fetched."""
    job: Job | None = await session.scalar(
        insert(Job)
        .values(
            id=new_id(),
            kind=kind,
            state=JobState.QUEUED,
            message="Queued",
            priority=asker.priority,
            subject_id=global_id(NodeType.WEIGHT_SET, name),
            input=dict(given),
            input_digest=digest_of(given),
            commit=plan.commit if plan else None,
            bytes_total=plan.download_bytes if plan else None,
            files_total=len(plan.files) if plan else None,
            reused_bytes=reused_bytes,
            max_attempts=jobs.MAX_ATTEMPTS,
            created_by=asker.name,
            idempotency_key=asker.idempotency_key,
            created_at=db_now(),
            updated_at=db_now(),
        )
        .returning(Job)
    )
    assert job is not None
    if plan is not None:
        await job_files.replace(session, job.id, plan.files)
    await job_logs.write(session, job.id, NewLogLine(message=f"Asked for by {asker.name}"))
    return job


# ---------------------------------------------------------------- out


async def admit(
    database: Database,
    *,
    defaults: RuntimeSettings = DEFAULTS,
    redispatch_seconds: float = REDISPATCH_SECONDS,
) -> list[UUID]:
    """Let go what may run now, in the order (priority, age); tell every other job what it waits for.

    defaults: of the settings that nobody has changed.
    A job that was let go and not claimed is let go again after 30, 60, 120 … 300 s: its message was lost.
    """
    async with database.write() as session:
        await _lock(session)
        busy = await _busy(session)
        room = await _room(session, defaults)
        admitted = []
        waiting = await session.scalars(
            select(Job)
            .where(Job.state == JobState.QUEUED, Job.dispatched_at.is_(None))
            .order_by(Job.priority, Job.created_at, Job.id)
        )
        for job in waiting:
            reason = _obstacle(job, busy=busy, room=room)
            if reason is None:
                busy.add(job)
                admitted.append(job)
            elif job.waiting_for != reason:
                await session.execute(update(Job).where(Job.id == job.id).values(waiting_for=reason))
        admitted += await _lost(session, redispatch_seconds)
        for job in admitted:
            await session.execute(
                update(Job)
                .where(Job.id == job.id)
                .values(dispatched_at=db_now(), dispatches=Job.dispatches + 1, waiting_for=None)
            )
            await outbox.put(session, job.id, lane=LANES[job.kind])
        await session.commit()
    return [job.id for job in admitted]


@dataclass(frozen=True)
class _Busy:
    """What is taken by jobs that run or were let go."""

    kinds: Counter[JobKind]
    subjects: set[str]

    def add(self, job: Job) -> None:
        """Count a job in."""
        self.kinds[job.kind] += 1
        self.subjects.add(job.subject_id)


async def _busy(session: WriteSession) -> _Busy:
    """Read what is taken."""
    statement = select(Job).where(
        (Job.state == JobState.RUNNING) | ((Job.state == JobState.QUEUED) & Job.dispatched_at.is_not(None))
    )
    busy = _Busy(Counter(), set())
    for job in await session.scalars(statement):
        busy.add(job)
    return busy


@dataclass(frozen=True, kw_only=True)
class _Room:
    """What there is room for now. free_bytes: None while no worker has reported."""

    now: datetime
    free_bytes: int | None
    slots: Mapping[JobKind, int]
    is_window_open: bool


async def _room(session: WriteSession, defaults: RuntimeSettings) -> _Room:
    """Read what there is room for, by the settings and the clock of the database."""
    settings = await runtime_settings.read(session, defaults=defaults)
    now = await runtime_settings.now(session)
    volume = await volumes.get(session)
    return _Room(
        now=now,
        free_bytes=volume.free_bytes if volume is not None else None,
        slots={**SLOTS, JobKind.INSTALL_WEIGHTS: settings.concurrent_installs},
        is_window_open=is_open(settings.download_windows, now),
    )


def _obstacle(job: Job, *, busy: _Busy, room: _Room) -> WaitReason | None:
    """Say what keeps a queued job from running; None when nothing does."""
    if job.kind in WINDOWED_KINDS and not room.is_window_open:
        return WaitReason.WINDOW
    if job.next_attempt_at is not None and job.next_attempt_at > room.now:
        return WaitReason.SPACE if job.waiting_for is WaitReason.SPACE else WaitReason.RETRY
    if job.subject_id in busy.subjects:
        return WaitReason.TARGET
    if room.free_bytes is not None and job.remaining_bytes > room.free_bytes:
        return WaitReason.SPACE
    return WaitReason.SLOT if busy.kinds[job.kind] >= room.slots[job.kind] else None


async def _lost(session: WriteSession, redispatch_seconds: float) -> list[Job]:
    """Find jobs whose message must have been lost."""
    statement = select(Job, db_now()).where(
        Job.state == JobState.QUEUED,
        Job.dispatched_at < db_now(plus_seconds=-redispatch_seconds),
        ~select(literal(1)).where(OutboxMessage.job_id == Job.id).exists(),
    )
    found = []
    for job, now in (await session.execute(statement)).all():
        patience = min(redispatch_seconds * 2 ** (job.dispatches - 1), MAX_REDISPATCH_SECONDS)
        assert job.dispatched_at is not None
        if (now - job.dispatched_at).total_seconds() > patience:
            found.append(job)
    return found
