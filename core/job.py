"""The vocabulary of jobs: kinds, states, and what may follow what. Pure; the database enforces it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum


class JobKind(StrEnum):
    """What a job does."""

    INSTALL_WEIGHTS = "INSTALL_WEIGHTS"
    DELETE_WEIGHTS = "DELETE_WEIGHTS"


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class JobStage(StrEnum):
    """What a running job is doing just now."""

    RESOLVING = "RESOLVING"
    DOWNLOADING = "DOWNLOADING"
    PUBLISHING = "PUBLISHING"
    DELETING = "DELETING"


class JobPriority(IntEnum):
    """Who goes first: the smaller number."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class WaitReason(StrEnum):
    """Why a queued job is not moving."""

    SPACE = "SPACE"
    SLOT = "SLOT"
    TARGET = "TARGET"
    WINDOW = "WINDOW"
    RETRY = "RETRY"


class FileState(StrEnum):
    """Where one file of an install is."""

    WAITING = "WAITING"
    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    DONE = "DONE"
    REUSED = "REUSED"
    FAILED = "FAILED"


class LogLevel(StrEnum):
    """How loud a line of a job's log is."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Lane(StrEnum):
    """The queue that a job travels on, so that short work never waits behind long transfers."""

    TRANSFERS = "transfers"
    DEPLOYS = "deploys"
    TASKS = "tasks"


PAUSABLE_KINDS = frozenset({JobKind.INSTALL_WEIGHTS})
WINDOWED_KINDS = frozenset({JobKind.INSTALL_WEIGHTS})
"""What runs only within the download windows."""
TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LANES: dict[JobKind, Lane] = {
    JobKind.INSTALL_WEIGHTS: Lane.TRANSFERS,
    JobKind.DELETE_WEIGHTS: Lane.TASKS,
}
SLOTS: dict[JobKind, int] = {JobKind.INSTALL_WEIGHTS: 3, JobKind.DELETE_WEIGHTS: 8}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. Sizes in bytes; None means not known (yet).

    bytes_done: bytes that are on the volume, whether fetched now or by an earlier run.
    verified_bytes: bytes of files whose digest was right.
    reused_bytes: part of bytes_done that was never downloaded.
    bytes_per_second: over the last seconds; None while nothing is being transferred.
    last_byte_at: when the last byte arrived; tells slow from stuck.
    """

    bytes_done: int = 0
    bytes_total: int | None = None
    verified_bytes: int = 0
    reused_bytes: int = 0
    files_done: int = 0
    files_total: int | None = None
    bytes_per_second: float | None = None
    eta_seconds: float | None = None
    last_byte_at: datetime | None = None

    @property
    def fraction(self) -> float | None:
        """0.0 to 1.0; None when there is nothing to measure against."""
        if not self.bytes_total:
            return None
        return min(1.0, self.bytes_done / self.bytes_total)


@dataclass(frozen=True, kw_only=True)
class InstallRequest:
    """What an install was asked to do.

    name: the directory on the volume.
    include, exclude: glob patterns; None means the default choice of files.
    """

    repo_id: str
    revision: str
    name: str
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = field(default=())
    replace: bool = False
    pin: bool = False
