"""What may go wrong, in two families.

A `DomainError` refuses a request: it is raised where the fault is found and told to the caller in words.
A `JobFailure` ends a run of a job: it becomes the job's state and is never thrown at a reader.
"""

from collections.abc import Sequence
from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a request was refused; the names of the API's `ErrorCode`."""

    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CONFLICT = "CONFLICT"
    IN_USE = "IN_USE"
    POLICY_DENIED = "POLICY_DENIED"
    HUB_ACCESS_DENIED = "HUB_ACCESS_DENIED"
    HUB_UNAVAILABLE = "HUB_UNAVAILABLE"
    INSUFFICIENT_STORAGE = "INSUFFICIENT_STORAGE"
    PLAN_CHANGED = "PLAN_CHANGED"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"


class DomainError(Exception):
    """A request that was understood and refused; its message is safe to show.

    code: what kind of refusal.
    path: the input field at fault, e.g. ("input", "revision"); () when it is about the whole.
    """

    def __init__(self, code: ErrorCode, message: str, *, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.path = path


class Refusals(Exception):  # noqa: N818 - several refusals, each with its own code
    """A request that was refused for several reasons, each of which is to be told."""

    def __init__(self, refusals: Sequence[DomainError]) -> None:
        super().__init__("; ".join(str(refusal) for refusal in refusals))
        self.refusals = tuple(refusals)


class AccessError(Exception):
    """A request that may not be answered; becomes a top-level error with `extensions.code`."""

    code = "FORBIDDEN"


class UnauthenticatedError(AccessError):
    """No token came, or one that is not good (any more)."""

    code = "UNAUTHENTICATED"


class ForbiddenError(AccessError):
    """The token is good and its scope does not reach."""


class RateLimitedError(AccessError):
    """Too many wrong tokens came from this address. retry_after_seconds: when it may come again."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SettingsError(Exception):
    """A process cannot start as it is configured; the message says what would be right."""


class JobErrorCode(StrEnum):
    """Why a job failed; the names of the API's `JobErrorCode`."""

    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    HUB_ACCESS_DENIED = "HUB_ACCESS_DENIED"
    HUB_UNAVAILABLE = "HUB_UNAVAILABLE"
    UPSTREAM_CHANGED = "UPSTREAM_CHANGED"
    CORRUPT = "CORRUPT"
    INSUFFICIENT_STORAGE = "INSUFFICIENT_STORAGE"
    VOLUME_ERROR = "VOLUME_ERROR"
    WORKER_CRASHED = "WORKER_CRASHED"
    INTERNAL = "INTERNAL"


class JobFailure(Exception):  # noqa: N818 - a failure is the job's state, told by its code
    """A run that ended in an error.

    code: what kind of failure.
    hint: what to do about it, where something can be done.
    retryable: whether the same again may succeed; such a run is tried again by itself.
    retry_after_seconds: how long the other side asked us to wait; None when it did not say.
    """

    def __init__(
        self,
        code: JobErrorCode,
        message: str,
        *,
        hint: str | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
