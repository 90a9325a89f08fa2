"""What the fields about jobs do, live ones included."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.bus import ALL_JOBS, Subscription, job_topic
from core.errors import DomainError, ErrorCode
from core.ids import job_key
from core.job import TERMINAL_STATES, FileState, JobPriority, JobStage, JobState, Progress
from db import events, job_files, job_logs, jobs
from db.jobs import JobFilter
from db.paging import Page, PageRequest
from db.tables import Job, JobFile, JobLogLine
from resolvers.context import Context

LOG_BATCH = 200


@dataclass(frozen=True)
class JobSnapshot:
    """A job's row and, while it runs, what is newer than the row."""

    row: Job
    stage: JobStage | None
    message: str | None
    progress: Progress


@dataclass(frozen=True)
class JobChange:
    """A job that has changed. matches: False once, when it has just left the filter. cursor: where to go on."""

    cursor: str
    matches: bool
    job: JobSnapshot

    @property
    def is_current(self) -> bool:
        """Tell whether somebody who begins to watch just now would be told of the job."""
        return self.matches and self.job.row.state not in TERMINAL_STATES


def snapshot(row: Job) -> JobSnapshot:
    """Show a row as it is."""
    return JobSnapshot(
        row,
        row.stage,
        row.message,
        Progress(
            bytes_done=row.bytes_done,
            bytes_total=row.bytes_total,
            verified_bytes=row.verified_bytes,
            reused_bytes=row.reused_bytes,
            files_done=row.files_done,
            files_total=row.files_total,
            bytes_per_second=row.bytes_per_second,
            eta_seconds=row.eta_seconds,
            last_byte_at=row.last_byte_at,
        ),
    )


async def get(ctx: Context, *, job_id: str) -> JobSnapshot | None:
    """Find a job by its id. Raises: DomainError INVALID."""
    async with ctx.services.database.read() as session:
        row = await jobs.get(session, job_key(job_id, path=("id",)))
    return snapshot(row) if row is not None else None


async def get_many(ctx: Context, *, job_ids: Sequence[UUID]) -> dict[UUID, JobSnapshot]:
    """Find several jobs in one statement."""
    async with ctx.services.database.read() as session:
        return {key: snapshot(row) for key, row in (await jobs.get_many(session, job_ids)).items()}


async def page(ctx: Context, *, job_filter: JobFilter, request: PageRequest) -> Page[Job]:
    """Read a page of jobs, newest first."""
    async with ctx.services.database.read() as session:
        return await jobs.page(session, job_filter, request)


async def count(ctx: Context, *, job_filter: JobFilter) -> int:
    """Count jobs."""
    async with ctx.services.database.read() as session:
        return await jobs.count(session, job_filter)


async def files(
    ctx: Context, *, job_id: UUID, request: PageRequest, states: Collection[FileState] | None
) -> Page[JobFile]:
    """Read a page of a job's files."""
    async with ctx.services.database.read() as session:
        return await job_files.page(session, job_id, request, states=states)


async def count_files(ctx: Context, *, job_id: UUID, states: Collection[FileState] | None) -> int:
    """Count a job's files."""
    async with ctx.services.database.read() as session:
        return await job_files.count(session, job_id, states=states)


async def log(ctx: Context, *, job_id: UUID, request: PageRequest) -> Page[JobLogLine]:
    """Read a page of a job's log."""
    async with ctx.services.database.read() as session:
        return await job_logs.page(session, job_id, request)


async def count_log(ctx: Context, *, job_id: UUID) -> int:
    """Count the lines of a job's log."""
    async with ctx.services.database.read() as session:
        return await job_logs.count(session, job_id)


async def cancel(ctx: Context, *, job_id: str) -> JobSnapshot:
    """End a job for good. Raises: DomainError."""
    key = job_key(job_id, path=("input", "jobId"))
    row = await jobs.cancel(ctx.services.database, key, actor=ctx.viewer.name)
    _announce(ctx, key)
    return snapshot(row)


async def retry(ctx: Context, *, job_id: str) -> JobSnapshot:
    """Queue a job again. Raises: DomainError."""
    key = job_key(job_id, path=("input", "jobId"))
    row = await jobs.retry(ctx.services.database, key, actor=ctx.viewer.name)
    _announce(ctx, key)
    return snapshot(row)


async def pause(ctx: Context, *, job_id: str) -> JobSnapshot:
    """Hold a job. Raises: DomainError."""
    key = job_key(job_id, path=("input", "jobId"))
    row = await jobs.pause(ctx.services.database, key, actor=ctx.viewer.name)
    _announce(ctx, key)
    return snapshot(row)


async def resume(ctx: Context, *, job_id: str) -> JobSnapshot:
    """Queue a held job again. Raises: DomainError."""
    key = job_key(job_id, path=("input", "jobId"))
    row = await jobs.resume(ctx.services.database, key, actor=ctx.viewer.name)
    _announce(ctx, key)
    return snapshot(row)


async def set_priority(ctx: Context, *, job_id: str, priority: JobPriority) -> JobSnapshot:
    """Change who goes first. Raises: DomainError."""
    key = job_key(job_id, path=("input", "jobId"))
    row = await jobs.set_priority(ctx.services.database, key, priority, actor=ctx.viewer.name)
    _announce(ctx, key)
    return snapshot(row)


def _announce(ctx: Context, job_id: UUID) -> None:
    """Tell those who watch, and look at the queue."""
    ctx.services.bus.publish(job_topic(job_id))
    ctx.services.bus.publish(f"log:{job_id}")
    ctx.services.wake_dispatcher()


# ---------------------------------------------------------------- live


async def watch(ctx: Context, *, job_id: str) -> AsyncIterator[JobSnapshot]:
    """Give a job as it is, then after every change; ends when the job has ended.

    Order: register, then read the row, then go on from the changes: nothing falls in between.
    Raises: DomainError NOT_FOUND.
    """
    key = job_key(job_id, path=("jobId",))
    topic = job_topic(key)
    with ctx.services.bus.subscribe(topic) as subscription:
        last = await _read(ctx, key)
        yield last
        while last.row.state not in TERMINAL_STATES:
            changes = await subscription.next()
            data = changes.newest.get(topic)
            told = _moved(last, data) if data and not changes.must_catch_up else None
            now = _not_back(last, told or await _read(ctx, key))
            if _differs(last, now):
                last = now
                yield now


async def watch_all(ctx: Context, *, job_filter: JobFilter, after: str | None) -> AsyncIterator[JobChange]:
    """Give every job that has not ended and every one that changed behind a cursor, then each change.

    A job that leaves the filter is told of once more, with matches false.
    Raises: DomainError INVALID for a bad cursor.
    """
    with ctx.services.bus.subscribe(ALL_JOBS) as subscription:
        place = events.place_of(after) if after is not None else None
        async with ctx.services.database.read() as session:
            head = await events.head(session)
            rows = {row.id: row for row in await jobs.unended(session)}
            changed: set[UUID] = set()
            if place is not None:
                known_since = place.position if place.epoch == head.epoch else 0
                changed = await events.jobs_changed_after(session, known_since)
                rows |= await jobs.get_many(session, changed - rows.keys())
        found = [(snapshot(row), job_filter.matches(row)) for row in sorted(rows.values(), key=_age)]
        shown = {one.row.id: one for one, matches in found if matches and one.row.state not in TERMINAL_STATES}
        news = [(one, matches) for one, matches in found if matches or one.row.id in changed]
        for change in _with_cursors(news, before=after, behind=events.cursor_of(head)):
            yield change
        ended = {one.row.id: one.row.updated_at for one, _ in news if one.row.state in TERMINAL_STATES}
        async for change in _changes(ctx, job_filter, shown, subscription, since=head, ended=ended):
            yield change


async def _changes(
    ctx: Context,
    job_filter: JobFilter,
    shown: dict[UUID, JobSnapshot],
    subscription: Subscription,
    *,
    since: events.JournalPosition,
    ended: dict[UUID, datetime],
) -> AsyncIterator[JobChange]:
    """Turn what the bus tells into changes; where it may have lost some, ask the journal.

    ended: jobs whose end was told last time, and when they were written. A row may have been newer than the journal's
    head that was read just before it; the journal then names the job once more, the next time and never after.
    """
    head = since
    while True:
        changes = await subscription.next()
        moved = {UUID(topic.removeprefix("job:")): data for topic, data in changes.newest.items()}
        fresh = {key: _moved(shown[key], data) if data and key in shown else None for key, data in moved.items()}
        unread = {key for key, found in fresh.items() if found is None}
        async with ctx.services.database.read() as session:
            now = await events.head(session)
            if changes.must_catch_up or now != head:
                unread |= await events.jobs_changed_after(session, head.position)
            if changes.must_catch_up:
                unread |= shown.keys()
            rows = await jobs.get_many(session, unread) if unread else {}
        fresh |= {key: snapshot(row) for key, row in rows.items()}
        news, told_ends, ended = [], ended, {}
        for key, found in fresh.items():
            known = shown.get(key)
            if found is None or not _is_news(found, known, job_filter) or told_ends.get(key) == found.row.updated_at:
                continue
            last = _not_back(known, found) if known is not None else found
            matches = job_filter.matches(last.row)
            news.append((last, matches))
            shown[key] = last
            if not matches or last.row.state in TERMINAL_STATES:
                del shown[key]
                ended[key] = last.row.updated_at
        for change in _with_cursors(news, before=events.cursor_of(head), behind=events.cursor_of(now)):
            yield change
        head = now


def _is_news(found: JobSnapshot, known: JobSnapshot | None, job_filter: JobFilter) -> bool:
    """Tell whether a job is worth telling of: not when it neither matches nor did, or is as it was."""
    matches = job_filter.matches(found.row)
    if known is None:
        return matches
    return not matches or _differs(known, _not_back(known, found))


def _with_cursors(news: Sequence[tuple[JobSnapshot, bool]], *, before: str | None, behind: str) -> Iterator[JobChange]:
    """Give changes that were read at once their cursors: only the last one stands for all of them.

    before: where the reader stood; None when it had no place, and nothing can be lost.
    """
    for number, (job, matches) in enumerate(news, start=1):
        yield JobChange(behind if before is None or number == len(news) else before, matches, job)


def _age(row: Job) -> tuple[datetime, UUID]:
    """Sort by this to have the oldest first."""
    return (row.created_at, row.id)


async def watch_log(ctx: Context, *, job_id: str, after: str | None) -> AsyncIterator[JobLogLine]:
    """Give a job's log from its first line, or behind a cursor, then live; ends when the job has ended.

    Raises: DomainError NOT_FOUND, INVALID.
    """
    key = job_key(job_id, path=("jobId",))
    number = job_logs.number_of(key, after) if after is not None else 0
    with ctx.services.bus.subscribe(f"log:{key}") as subscription:
        while True:
            async with ctx.services.database.read() as session:
                row = await jobs.get(session, key)
                lines = await job_logs.after(session, key, number=number, limit=LOG_BATCH)
            if row is None:
                raise _unknown(job_id)
            for line in lines:
                number = line.number
                yield line
            if len(lines) == LOG_BATCH:
                continue
            if row.state in TERMINAL_STATES:
                return
            await subscription.next()


async def _read(ctx: Context, key: UUID) -> JobSnapshot:
    """Read a job that must be there. Raises: DomainError NOT_FOUND."""
    async with ctx.services.database.read() as session:
        row = await jobs.get(session, key)
    if row is None:
        raise _unknown(f"Job:{key}")
    return snapshot(row)


def _unknown(job_id: str) -> DomainError:
    """Say that there is no such job."""
    return DomainError(ErrorCode.NOT_FOUND, f"There is no job {job_id}", path=("jobId",))


def _moved(known: JobSnapshot, data: dict[str, Any]) -> JobSnapshot | None:
    """Lay a progress message over what is known; None when it is of a run that is not known yet: read the row.

    One of an earlier run changes nothing.
    """
    if data["fence"] < known.row.fence:
        return known
    if data["fence"] > known.row.fence or known.row.state is not JobState.RUNNING:
        return None
    given = dict(data["progress"])
    last_byte_at = given.pop("last_byte_at")
    progress = Progress(**given, last_byte_at=datetime.fromisoformat(last_byte_at) if last_byte_at else None)
    return JobSnapshot(known.row, JobStage(data["stage"]), data["message"], progress)


def _not_back(known: JobSnapshot, found: JobSnapshot) -> JobSnapshot:
    """Keep the further progress within an attempt: the row may be a second behind the bus."""
    if found.row.attempt <= known.row.attempt and found.progress.bytes_done < known.progress.bytes_done:
        return JobSnapshot(found.row, found.stage, found.message, known.progress)
    return found


def _differs(known: JobSnapshot, found: JobSnapshot) -> bool:
    """Tell whether there is news."""
    return (
        (known.stage, known.message, known.progress) != (found.stage, found.message, found.progress)
        or known.row.updated_at != found.row.updated_at
        or known.row.state != found.row.state
        or known.row.waiting_for != found.row.waiting_for
    )
