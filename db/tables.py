"""The tables. Rows travel between rooms as these classes, detached and read-only by custom.

Sizes are in bytes; instants are UTC; what a column means when it is NULL stands beside it.
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, MetaData, Uuid, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.job import FileState, JobKind, JobPriority, JobStage, JobState, LogLevel, WaitReason
from core.repository import Digest, DigestKind
from core.selection import FileFormat
from core.token import Scope
from core.weight_set import WeightSetState
from db.types import Json, Ranks, RisingId, UtcDateTime, words


class Base(DeclarativeBase):
    """What every table shares: constraint names that migrations can rely on, and column types by annotation."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: Uuid(),
        datetime: UtcDateTime(),
        dict[str, Any]: Json,
        list[str]: Json,
        JobKind: words(JobKind),
        JobState: words(JobState),
        JobStage: words(JobStage),
        JobPriority: Ranks(JobPriority),
        WaitReason: words(WaitReason),
        FileState: words(FileState),
        LogLevel: words(LogLevel),
        DigestKind: words(DigestKind),
        FileFormat: words(FileFormat),
        Scope: Ranks(Scope),
        WeightSetState: words(WeightSetState),
    }


class Job(Base):
    """One unit of background work. The row is the truth; the message that wakes a worker is a hint."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "ix_jobs_admission",
            "priority",
            "created_at",
            "id",
            sqlite_where=text("state = 'QUEUED'"),
            postgresql_where=text("state = 'QUEUED'"),
        ),
        Index("ix_jobs_state_kind", "state", "kind"),
        Index("ix_jobs_created", "created_at", "id"),
        Index("ix_jobs_subject", "subject_id", "created_at"),
        Index("uq_jobs_idempotency", "created_by", "idempotency_key", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[JobKind]
    state: Mapped[JobState]
    stage: Mapped[JobStage | None]
    message: Mapped[str | None]
    priority: Mapped[JobPriority]
    waiting_for: Mapped[WaitReason | None]
    subject_id: Mapped[str]
    """Global id of what it works on; two jobs of one subject never run at once."""
    input: Mapped[dict[str, Any]]
    """What was asked for, without secrets."""
    input_digest: Mapped[str]
    """sha256 of `input`, to tell whether a repeated idempotency key asks for the same."""
    commit: Mapped[str | None]
    """The revision's commit, once resolved; the files of `job_files` are of this commit."""

    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_total: Mapped[int | None] = mapped_column(BigInteger)
    verified_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    reused_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """What of the files is on the volume already: expected before the first byte, then counted."""
    files_done: Mapped[int] = mapped_column(default=0)
    files_total: Mapped[int | None]
    bytes_per_second: Mapped[float | None]
    eta_seconds: Mapped[float | None]
    last_byte_at: Mapped[datetime | None]

    attempt: Mapped[int] = mapped_column(default=0)
    """Runs that ended in an error, and manual retries."""
    fruitless_runs: Mapped[int] = mapped_column(default=0)
    """Runs that ended in an error since bytes last arrived; `max_attempts` bounds these."""
    max_attempts: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    """When admission last let it go; NULL while it waits."""
    dispatches: Mapped[int] = mapped_column(default=0)
    """Messages sent for it since it was last queued."""
    deliveries: Mapped[int] = mapped_column(default=0)
    """Claims without a byte of progress between them."""
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Rises with each claim; a worker's write counts only with the fence it claimed."""
    lease_until: Mapped[datetime | None]
    worker_id: Mapped[str | None]

    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_hint: Mapped[str | None]
    error_retryable: Mapped[bool | None]

    created_by: Mapped[str]
    idempotency_key: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]

    @property
    def remaining_bytes(self) -> int:
        """What has still to come onto the volume; 0 while that is not known."""
        return max(0, (self.bytes_total or 0) - max(self.bytes_done, self.reused_bytes))


class JobFile(Base):
    """One file that an install fetches, and how far it is."""

    __tablename__ = "job_files"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Its place in the plan, from 0; names its part on the volume."""
    path: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    digest_kind: Mapped[DigestKind]
    digest_value: Mapped[str]
    state: Mapped[FileState]
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)

    @property
    def digest(self) -> Digest:
        """The content's name upstream."""
        return Digest(self.digest_kind, self.digest_value)


class JobLogLine(Base):
    """One line of a job's log; `number` rises without end and is the cursor."""

    __tablename__ = "job_logs"
    __table_args__ = (Index("ix_job_logs_job", "job_id", "number"),)

    number: Mapped[int] = mapped_column(RisingId, primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    level: Mapped[LogLevel]
    source: Mapped[str | None]
    message: Mapped[str]


class WeightSet(Base):
    """One directory of weights on the volume: a repository at one commit."""

    __tablename__ = "weight_sets"

    name: Mapped[str] = mapped_column(primary_key=True)
    """Its directory, relative to the volume."""
    repo_id: Mapped[str]
    requested_revision: Mapped[str]
    commit: Mapped[str | None]
    """NULL until the revision is resolved."""
    state: Mapped[WeightSetState]
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    file_count: Mapped[int] = mapped_column(default=0)
    pinned: Mapped[bool] = mapped_column(default=False)
    install_job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    """The job that brought it, or is bringing it."""
    installed_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]


class WeightFile(Base):
    """One file of a set that is READY."""

    __tablename__ = "weight_files"
    __table_args__ = (Index("ix_weight_files_digest", "digest_value", "digest_kind"),)

    set_name: Mapped[str] = mapped_column(ForeignKey("weight_sets.name", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    digest_kind: Mapped[DigestKind]
    digest_value: Mapped[str]
    format: Mapped[FileFormat]
    verified_at: Mapped[datetime | None]

    @property
    def digest(self) -> Digest:
        """The content's name upstream."""
        return Digest(self.digest_kind, self.digest_value)


class Volume(Base):
    """The weights volume as a worker last saw it; one row, with the id 1."""

    __tablename__ = "volumes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str]
    capacity_bytes: Mapped[int] = mapped_column(BigInteger)
    free_bytes: Mapped[int] = mapped_column(BigInteger)
    observed_at: Mapped[datetime]


class Worker(Base):
    """A worker process that was alive at `seen_at`."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    """host:pid:start, unique to one process."""
    host: Mapped[str]
    version: Mapped[str]
    lanes: Mapped[list[str]]
    running_jobs: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class OutboxMessage(Base):
    """A message that admission has decided on and that is still to be sent."""

    __tablename__ = "outbox"

    number: Mapped[int] = mapped_column(RisingId, primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    lane: Mapped[str]


class Event(Base):
    """One line of the journal: what happened, to what, by whom. Positions rise in commit order, without gaps."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_subject", "subject_id", "position"),)

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    type: Mapped[str]
    subject_id: Mapped[str | None]
    actor: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]


class Journal(Base):
    """The journal's last position; one row, with the id 1. Its lock orders all transactions that write events."""

    __tablename__ = "journal"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[str]
    """Changes when positions begin anew, so that old cursors are known as such."""
    position: Mapped[int] = mapped_column(BigInteger)


class QueueState(Base):
    """The lock under which admission decides; one row, with the id 1."""

    __tablename__ = "queue_state"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    synced_at: Mapped[datetime | None]
    """When a `sync` process last looked after the queue."""


class ProcessLease(Base):
    """Which process does what only one may do; one row a duty, written by the migrations."""

    __tablename__ = "process_leases"

    duty: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str | None]
    """Unique to one process; NULL when nobody has it."""
    lease_until: Mapped[datetime | None]


class Setting(Base):
    """A setting that was changed while the server ran; what has no row has its default."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(primary_key=True)
    """As the API calls it, with a dot into a group."""
    value: Mapped[Any] = mapped_column(Json, nullable=False)
    changed_by: Mapped[str]
    changed_at: Mapped[datetime]


class Token(Base):
    """An access token; its secret is not here, only the SHA-256 of it."""

    __tablename__ = "tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]
    scope: Mapped[Scope]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
