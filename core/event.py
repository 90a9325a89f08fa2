"""The names of the journal's events; `docs/events.md` shows each with an example. Pure."""

from enum import StrEnum


class EventType(StrEnum):
    """What may happen. A name, once used, keeps its meaning."""

    JOB_QUEUED = "job.queued"
    JOB_STARTED = "job.started"
    JOB_PAUSED = "job.paused"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"
    WEIGHTS_INSTALLED = "weights.installed"
    WEIGHTS_DELETED = "weights.deleted"
    WEIGHTS_PINNED = "weights.pinned"
    WEIGHTS_UNPINNED = "weights.unpinned"
    SETTINGS_CHANGED = "settings.changed"
    TOKEN_CREATED = "token.created"  # noqa: S105 - a name, not a secret
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - as above
