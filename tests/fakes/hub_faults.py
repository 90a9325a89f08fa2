"""Faults of the fake Hub: what can be made to go wrong, for which requests, and how often.

A fault counts only where it shows: a stall after 1,000 bytes leaves shorter answers alone.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Literal, TypedDict, Unpack

Place = Literal["api", "resolve", "raw", "cdn", "page"]


class Fault(StrEnum):
    """What goes wrong; the options a fault reads stand behind it."""

    API_DOWN = "api_down"
    """503 for everything under /api."""
    UNAVAILABLE = "unavailable"
    """503 (retry_after)."""
    TOO_MANY_REQUESTS = "too_many_requests"
    """429 (retry_after, rate_limit_reset_seconds)."""
    BAD_TOKEN = "bad_token"
    """401 for any request that carries a token."""
    GATED = "gated"
    """The repository is closed to everybody, whatever its own gate says."""
    DELAY = "delay"
    """Silence before the headers (seconds)."""
    REDIRECT_LOOP = "redirect_loop"
    """302 to itself, again and again."""
    REDIRECT = "redirect"
    """302 to elsewhere (location; unset: the same file under another name of this host)."""
    THROTTLE = "throttle"
    """The body trickles (bytes_per_second, may be changed meanwhile)."""
    STALL = "stall"
    """The body stops (after_bytes) until released."""
    EARLY_CLOSE = "early_close"
    """The connection ends inside the body (after_bytes)."""
    TRUNCATE = "truncate"
    """A complete answer, but short (after_bytes)."""
    LONGER = "longer"
    """A complete answer, but with zeros appended (extra_bytes)."""
    FLIP_BYTE = "flip_byte"
    """Right size, one byte wrong (offset in the file)."""
    CHANGED = "changed"
    """Other content of the same size under another ETag (skip says from which answer on)."""
    IGNORE_RANGE = "ignore_range"
    """200 with the whole body where a range was asked for."""
    WRONG_CONTENT_RANGE = "wrong_content_range"
    """206 whose Content-Range is one byte off."""
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    """416 where a range was asked for."""
    EXPIRED_URL = "expired_url"
    """403 by the CDN, as for a signed URL that ran out."""


class FaultOptions(TypedDict, total=False):
    """Which requests a fault is for, how often it strikes, and how."""

    repo_id: str | None
    path: str | None
    at: Place | None
    method: str | None
    times: int | None
    skip: int
    after_bytes: int
    offset: int
    extra_bytes: int
    seconds: float
    bytes_per_second: float
    retry_after: int | str | datetime | None
    rate_limit_reset_seconds: int | None
    location: str | None


@dataclass(frozen=True)
class Target:
    """Where a request is aimed; file and repository are None where it names none."""

    at: Place
    method: str
    repo_id: str | None = None
    path: str | None = None


@dataclass(eq=False)
class Injection:
    """One fault that was added; the test keeps it to count hits, to release or to change it."""

    kind: Fault
    number: int
    repo_id: str | None = None
    """None: every repository."""
    path: str | None = None
    """A file of the repository, wildcards allowed; None: every request."""
    at: Place | None = None
    """None: wherever it can show."""
    method: str | None = None
    times: int | None = None
    """How many answers it spoils; None: all of them."""
    skip: int = 0
    """How many answers it leaves alone first."""
    after_bytes: int = 0
    """Counted in this answer's body, not in the file."""
    offset: int = 0
    extra_bytes: int = 1
    seconds: float = 1.0
    bytes_per_second: float = 64 * 1024
    retry_after: int | str | datetime | None = None
    rate_limit_reset_seconds: int | None = None
    location: str | None = None
    hits: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let go of what is stalled or delayed, for good."""
        self.released.set()

    @property
    def retry_after_header(self) -> dict[str, str]:
        """Retry-After as it goes out: seconds, an HTTP date, or nothing."""
        if self.retry_after is None:
            return {}
        if isinstance(self.retry_after, datetime):
            return {"Retry-After": format_datetime(self.retry_after, usegmt=True)}
        return {"Retry-After": str(self.retry_after)}

    def matches(self, target: Target) -> bool:
        """Say whether this fault is meant for such a request."""
        return (
            (self.repo_id is None or self.repo_id == target.repo_id)
            and (self.path is None or (target.path is not None and fnmatchcase(target.path, self.path)))
            and self.at in (None, target.at)
            and self.method in (None, target.method)
        )

    def described(self) -> dict[str, Any]:
        """Return what the control endpoint tells of it."""
        return {
            "id": self.number,
            "kind": self.kind.value,
            "repo_id": self.repo_id,
            "path": self.path,
            "times": self.times,
            "hits": self.hits,
        }


class Faults:
    """The faults of one hub; safe to use from any thread while requests run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._injections: list[Injection] = []
        self._last_number = 0

    def add(self, kind: Fault, **options: Unpack[FaultOptions]) -> Injection:
        """Make something go wrong from the next matching request on."""
        with self._lock:
            self._last_number += 1
            injection = Injection(kind, self._last_number, **options)
            self._injections.append(injection)
            return injection

    def remove(self, injection: Injection) -> None:
        """Take one fault away and release what it holds."""
        with self._lock:
            self._injections = [other for other in self._injections if other is not injection]
        injection.release()

    def clear(self) -> None:
        """Take every fault away and release what they hold."""
        with self._lock:
            injections, self._injections = self._injections, []
        for injection in injections:
            injection.release()

    def release(self) -> None:
        """Let go of everything that is stalled or delayed, for good."""
        for injection in self.active():
            injection.release()

    def active(self) -> list[Injection]:
        """Return the faults that were added and not taken away."""
        with self._lock:
            return list(self._injections)

    def take(
        self, kind: Fault, target: Target, *, shows: Callable[[Injection], bool] | None = None
    ) -> Injection | None:
        """Return the first fault of this kind that strikes and shows in this answer, and count the hit."""
        with self._lock:
            for injection in self._injections:
                if injection.kind is not kind or not injection.matches(target):
                    continue
                if (shows is None or shows(injection)) and _strikes(injection):
                    injection.hits += 1
                    return injection
        return None


def _strikes(injection: Injection) -> bool:
    if injection.times is not None and injection.hits >= injection.times:
        return False
    if injection.skip > 0:
        injection.skip -= 1
        return False
    return True
