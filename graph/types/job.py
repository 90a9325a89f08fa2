"""The job."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import strawberry

from core.ids import NodeType, global_id, key_of
from core.job import PAUSABLE_KINDS, TERMINAL_STATES
from db import job_logs
from db.tables import Job as JobRow
from db.tables import JobFile as JobFileRow
from db.tables import JobLogLine
from graph.context import Info
from graph.enums import (
    FileState,
    JobErrorCode,
    JobKind,
    JobPriority,
    JobStage,
    JobState,
    LogLevel,
    WaitReason,
)
from graph.relay import After, Before, Connection, First, Last, Node, connection, page_request
from graph.scalars import JSON, Bytes
from resolvers import jobs
from resolvers.jobs import JobSnapshot

if TYPE_CHECKING:
    from graph.types.weight_set import WeightSet

LazyWeightSet = Annotated["WeightSet", strawberry.lazy("graph.types.weight_set")]


@strawberry.type(description="How far a job is. While it runs this is newer than the row of a list.")
class JobProgress:
    """How far a job is."""

    fraction: float | None = strawberry.field(
        description="0 to 1, never going backwards within an attempt; null when there is nothing to measure against."
    )
    bytes_done: Bytes = strawberry.field(description="Bytes on the volume, whenever they were fetched.")
    bytes_total: Bytes | None = strawberry.field(description="Bytes in all; null until the files are known.")
    verified_bytes: Bytes = strawberry.field(description="Bytes of files whose digest was right.")
    reused_bytes: Bytes = strawberry.field(
        description="Reused from what is already on the volume: part of bytesDone, never downloaded."
    )
    files_done: int = strawberry.field(description="Files that are whole and verified.")
    files_total: int | None = strawberry.field(description="Files in all; null until they are known.")
    bytes_per_second: float | None = strawberry.field(
        description="Bytes a second over the last five seconds; null while nothing is transferred."
    )
    eta_seconds: float | None = strawberry.field(description="Seconds to the end at that speed.")
    last_byte_at: datetime | None = strawberry.field(description="When the last byte arrived; tells slow from stuck.")


@strawberry.type(description="One file that a job fetches.")
class JobFile:
    """One file that a job fetches."""

    path: str = strawberry.field(description="Its path in the repository and in the set.")
    bytes_done: Bytes = strawberry.field(description="Bytes of it on the volume.")
    bytes_total: Bytes | None = strawberry.field(description="Its size in bytes.")
    state: FileState = strawberry.field(description="Where it is.")

    @classmethod
    def from_row(cls, row: JobFileRow) -> JobFile:
        """Show a row."""
        return cls(path=row.path, bytes_done=Bytes(row.bytes_done), bytes_total=Bytes(row.size_bytes), state=row.state)


@strawberry.type(description="What a job's run had to say at one moment.")
class LogLine:
    """A line of a log."""

    cursor: str = strawberry.field(description="Its place, to go on from.")
    at: datetime = strawberry.field(description="When it was written.")
    level: LogLevel = strawberry.field(description="How loud it is.")
    source: str | None = strawberry.field(description="What said it, where that is known.")
    message: str = strawberry.field(description="What was said; at most 2,000 characters.")
    dropped: int = strawberry.field(
        description="Lines left out before this one because the reader was too slow; 0 for jobs, whose logs wait."
    )

    @classmethod
    def from_row(cls, row: JobLogLine) -> LogLine:
        """Show a row."""
        return cls(
            cursor=job_logs.cursor_of(row),
            at=row.at,
            level=row.level,
            source=row.source,
            message=row.message,
            dropped=0,
        )


@strawberry.type(description="Why a job failed, or failed last time.")
class JobError:
    """Why a job failed."""

    code: JobErrorCode = strawberry.field(description="What kind of failure it is.")
    message: str = strawberry.field(description="What went wrong, in a sentence.")
    hint: str | None = strawberry.field(description="What to do about it.")
    retryable: bool = strawberry.field(description="Whether the same again may succeed; such a run is tried again.")


@strawberry.type(description="One unit of background work.")
class Job(Node):
    """One unit of background work."""

    kind: JobKind = strawberry.field(description="What it does.")
    state: JobState = strawberry.field(description="Where it is in its life.")
    stage: JobStage | None = strawberry.field(description="What it is doing just now; null when it is not running.")
    message: str | None = strawberry.field(description='One line for a list: "Downloading model-00002.safetensors".')
    progress: JobProgress = strawberry.field(description="How far it is.")
    priority: JobPriority = strawberry.field(description="Who goes first while it waits.")
    waiting_for: WaitReason | None = strawberry.field(description="Why it is not moving although it is queued.")
    subject_id: strawberry.ID | None = strawberry.field(description="The id of what it works on.")
    input: JSON = strawberry.field(description="What was asked for, secrets left out.")
    error: JobError | None = strawberry.field(
        description="Why it failed; while it is queued again, why it failed last time."
    )
    attempt: int = strawberry.field(
        description="Runs that ended in an error, and manual retries; not deliveries, shutdowns or lost leases."
    )
    max_attempts: int = strawberry.field(description="How many errors it may have before it fails for good.")
    next_attempt_at: datetime | None = strawberry.field(description="When it is tried again; null when nothing is due.")
    cancellable: bool = strawberry.field(description="Whether cancelJob would be accepted now.")
    pausable: bool = strawberry.field(description="Whether pauseJob would be accepted now.")
    retryable: bool = strawberry.field(description="Whether retryJob would be accepted now.")
    created_by: str | None = strawberry.field(description="The token that asked for it.")
    created_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker first took it.")
    ended_at: datetime | None = strawberry.field(description="When it ended.")
    updated_at: datetime = strawberry.field(description="When its row was last written.")
    key: strawberry.Private[UUID]

    @strawberry.field(description="What it works on; null when that is not there (any more).")
    async def subject(self, info: Info) -> Node | None:
        """Find the set."""
        return await _weight_set(info, self.subject_id)

    @strawberry.field(description="The weight set that it brings or removes; null when it is not there.")
    async def weight_set(self, info: Info) -> LazyWeightSet | None:
        """Find the set."""
        return await _weight_set(info, self.subject_id)

    @strawberry.field(description="Its files, in the plan's order; empty for jobs that fetch none.")
    async def files(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        states: Annotated[
            list[FileState] | None, strawberry.argument(description="Only files in these states.")
        ] = None,
    ) -> Connection[JobFile] | None:
        """Read a page of files."""
        wanted = frozenset(states) if states is not None else None
        page = await jobs.files(info.context, job_id=self.key, request=page_request(first, after), states=wanted)
        count = partial(jobs.count_files, info.context, job_id=self.key, states=wanted)
        return connection(page, JobFile.from_row, count=count)

    @strawberry.field(description="Its log, oldest line first.")
    async def log(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[LogLine] | None:
        """Read a page of the log."""
        request = page_request(first, after, last, before)
        page = await jobs.log(info.context, job_id=self.key, request=request)
        return connection(page, LogLine.from_row, count=partial(jobs.count_log, info.context, job_id=self.key))

    @classmethod
    def from_row(cls, row: JobRow) -> Job:
        """Show a row."""
        return cls.from_snapshot(jobs.snapshot(row))

    @classmethod
    def from_snapshot(cls, snapshot: JobSnapshot) -> Job:
        """Show a row and what is newer than it."""
        row = snapshot.row
        return cls(
            key=row.id,
            id=strawberry.ID(global_id(NodeType.JOB, row.id)),
            kind=row.kind,
            state=row.state,
            stage=snapshot.stage,
            message=snapshot.message,
            progress=_progress(snapshot),
            priority=row.priority,
            waiting_for=row.waiting_for,
            subject_id=strawberry.ID(row.subject_id),
            input=JSON(row.input),
            error=_error(row),
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            next_attempt_at=row.next_attempt_at,
            cancellable=row.state not in TERMINAL_STATES,
            pausable=row.kind in PAUSABLE_KINDS and row.state in {JobState.QUEUED, JobState.RUNNING},
            retryable=row.state in {JobState.FAILED, JobState.CANCELLED},
            created_by=row.created_by,
            created_at=row.created_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            updated_at=row.updated_at,
        )


async def _weight_set(info: Info, subject_id: str | None) -> WeightSet | None:
    """Find the set that a job works on, together with those of the list's other jobs."""
    from graph.types.weight_set import WeightSet  # noqa: PLC0415 - the two types know each other

    name = key_of(subject_id or "", NodeType.WEIGHT_SET, path=())
    row = await info.context.weight_set_loader.load(name)
    return WeightSet.from_row(row, settings=info.context.services.settings) if row is not None else None


def _progress(snapshot: JobSnapshot) -> JobProgress:
    """Show how far a job is."""
    progress = snapshot.progress
    return JobProgress(
        fraction=progress.fraction,
        bytes_done=Bytes(progress.bytes_done),
        bytes_total=_bytes_or_none(progress.bytes_total),
        verified_bytes=Bytes(progress.verified_bytes),
        reused_bytes=Bytes(progress.reused_bytes),
        files_done=progress.files_done,
        files_total=progress.files_total,
        bytes_per_second=progress.bytes_per_second,
        eta_seconds=progress.eta_seconds,
        last_byte_at=progress.last_byte_at,
    )


def _bytes_or_none(value: int | None) -> Bytes | None:
    """Show a size that may not be known."""
    return Bytes(value) if value is not None else None


def _error(row: JobRow) -> JobError | None:
    """Show why a job failed."""
    if row.error_code is None:
        return None
    return JobError(
        code=JobErrorCode(row.error_code),
        message=row.error_message or "",
        hint=row.error_hint,
        retryable=bool(row.error_retryable),
    )


@strawberry.type(description="A job that has changed.")
class JobChange:
    """A job that has changed."""

    cursor: str = strawberry.field(description="Where to go on after a cut.")
    matches: bool = strawberry.field(description="False once, when the job has just left the filter.")
    job: Job = strawberry.field(description="The job as it is now.")

    @classmethod
    def from_change(cls, change: jobs.JobChange) -> JobChange:
        """Show a change."""
        return cls(cursor=change.cursor, matches=change.matches, job=Job.from_snapshot(change.job))
