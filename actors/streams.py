"""The streams that bring one file's missing bytes: one at least, several where the file is large.

The first stream belongs to the file: it waits and asks again when the source fails. Helpers join once the first
answer has shown that the source gives ranges, as far as the process has connections to spare; one that comes back
empty-handed leaves. The calling thread watches: it makes bytes safe, adds helpers, and ends all when one fails.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError

from actors.bandwidth import Bandwidth
from actors.control import RunControl
from actors.part import Claim, Counter, Part, Revoked
from actors.room import ConnectionRoom, InstallRoom
from actors.source import FileSource, TryLater
from core.crashpoints import CrashPoint, reached
from core.errors import JobErrorCode, JobFailure
from core.repository import RepositoryFile

MAX_FRUITLESS_TRIES = 5
MIN_PAUSE_SECONDS = 0.1
HELPER_PAUSE_SECONDS = 2.0
WATCH_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a transfer waits for what, in seconds; slow_bytes_per_second over slow_seconds means reconnect."""

    connect_seconds: float = 10.0
    header_seconds: float = 20.0
    stall_seconds: float = 30.0
    slow_seconds: float = 300.0
    slow_bytes_per_second: float = 10_000.0
    min_back_off_seconds: float = 1.0
    max_back_off_seconds: float = 300.0


@dataclass(kw_only=True)
class Streams:
    """All requests for one part. range_bytes: the longest stretch of one request; None means all that is missing."""

    source: FileSource
    file: RepositoryFile
    part: Part
    control: RunControl
    log: Callable[[str], None]
    patience: Patience
    counter: Counter
    room: ConnectionRoom | InstallRoom
    bandwidth: Bandwidth
    range_bytes: int | None
    _address: str | None = None
    _is_open: bool = False
    _helpers_from: float = 0.0
    _failure: BaseException | None = None
    _answers: set[BaseHTTPResponse] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Bring all that is missing.

        Raises: RestartNeeded, JobFailure, RunStopped, OSError. Nobody writes to the part behind any of them.
        """
        try:
            with self.control.interruptible(self._interrupt):
                self.room.take(self.control.check)
                self._start(self._persist)
                self._watch()
        finally:
            self._end()

    def _watch(self) -> None:
        """Look after the streams until every byte is there."""
        while not self.part.is_complete:
            if self._failure is not None:
                raise self._failure
            self.control.check()
            if self.part.needs_sync:
                self.part.sync()
            elif self._has_work_for_helpers() and self.room.take_another():
                self._start(self._help)
            else:
                self.part.wait(WATCH_SECONDS)
        self.control.check()

    def _has_work_for_helpers(self) -> bool:
        """Tell whether another stream would find something to do."""
        is_time = self._is_open and self.range_bytes is not None and time.monotonic() >= self._helpers_from
        return is_time and self.part.has_gap

    def _interrupt(self) -> None:
        """Wake every stream: the run must end."""
        self.source.interrupt()
        self._over.set()

    def _end(self) -> None:
        """Let nobody write any more; wake who still reads or waits."""
        self._over.set()
        self.part.revoke()
        with self._lock:
            for answer in self._answers:
                self.source.cut(answer)

    # ------------------------------------------------------------ one stream

    def _start(self, work: Callable[[], None]) -> None:
        """Let a stream run in a thread of its own; its connection is given back when it ends."""
        threading.Thread(target=self._run, args=(work,), name=f"stream-{self.file.path}", daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        """Work, and keep the first failure for the watching thread."""
        try:
            work()
        except Revoked:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again in the watching thread
            self._failure = self._failure or error
        finally:
            self.room.give_back()
            self.part.notify()

    def _persist(self) -> None:
        """Fetch for as long as something is missing, asking again when the source fails."""
        fruitless = 0
        while not self.part.is_complete:
            before = self.part.total
            claim = self._claim()
            if claim is None:
                self.part.wait(WATCH_SECONDS)
                continue
            try:
                self._fetch(claim)
            except (TryLater, HTTPError) as error:
                fruitless = 0 if self.part.total > before else fruitless + 1
                self._wait(error, fruitless)

    def _help(self) -> None:
        """Fetch while there is something to fetch and connections are not scarce."""
        while not self.room.is_crowded and (claim := self._claim()) is not None:
            began = claim.position
            try:
                self._fetch(claim)
            except (TryLater, HTTPError) as error:
                if claim.position == began:
                    asked = error.retry_after_seconds if isinstance(error, TryLater) else None
                    self._helpers_from = time.monotonic() + (asked or HELPER_PAUSE_SECONDS)
                    self.room.ease()
                    return
                self._pause(MIN_PAUSE_SECONDS)

    def _claim(self) -> Claim | None:
        """Take what one request may ask for; None when there is nothing just now. Raises: Revoked."""
        if self._over.is_set():
            raise Revoked
        return self.part.claim(self.range_bytes if self.range_bytes is not None else self.file.size_bytes)

    def _fetch(self, claim: Claim) -> None:
        """Make one request and take what it gives.

        Raises: TryLater, RestartNeeded, JobFailure, RunStopped, Revoked, urllib3's HTTPError, OSError.
        """
        try:
            answer = self.source.open(
                self.file,
                start=claim.position,
                end=claim.end,
                etag=self.part.etag,
                patience=self.patience,
                address=self._address,
            )
            with self._lock:
                self._answers.add(answer.response)
            try:
                self.part.etag = answer.etag
                self._address = answer.address if self.range_bytes is not None else None
                if not self._is_open:
                    self._is_open = True
                    self.part.notify()
                self._drain(claim, answer.response)
            finally:
                with self._lock:
                    self._answers.discard(answer.response)
                answer.response.close()
        except (TryLater, HTTPError):
            self._address = None
            self.control.check()
            raise
        finally:
            self.part.give_back(claim)

    def _drain(self, claim: Claim, response: BaseHTTPResponse) -> None:
        """Write what arrives, until the claim is done. Raises: TryLater when the source ends before, or dawdles."""
        window_began, window_position = time.monotonic(), claim.position
        longest = self.part.chunk_bytes
        while claim.position < claim.end:
            chunk = response.read1(self.bandwidth.piece_of(min(longest, claim.end - claim.position)))
            self.control.check()
            if not chunk:
                raise TryLater("the connection ended early")
            self.counter.received += len(chunk)
            self.room.count(len(chunk))
            self.part.write(claim, chunk)
            reached(CrashPoint.BYTES_WRITTEN)
            window_began += self.bandwidth.take(len(chunk), self._pause)
            now = time.monotonic()
            if now - window_began >= self.patience.slow_seconds:
                if claim.position - window_position < self.patience.slow_bytes_per_second * self.patience.slow_seconds:
                    raise TryLater("it came too slowly; connecting anew")
                window_began, window_position = now, claim.position

    # ------------------------------------------------------------ waiting

    def _wait(self, error: Exception, fruitless: int) -> None:
        """Wait before the next request, longer each time that nothing came; as long as the source asked for.

        Raises: JobFailure HUB_UNAVAILABLE when it has been in vain too often, RunStopped, Revoked.
        """
        reason = _reason_of(error)
        asked = error.retry_after_seconds if isinstance(error, TryLater) else None
        if fruitless >= MAX_FRUITLESS_TRIES:
            raise JobFailure(
                JobErrorCode.HUB_UNAVAILABLE,
                f"{self.file.path}: {reason}, {fruitless} times in a row without a byte",
                hint="It is tried again by itself.",
                retryable=True,
                retry_after_seconds=asked,
            ) from error
        back_off = self.patience.min_back_off_seconds * 2 ** max(0, fruitless - 1) if fruitless else MIN_PAUSE_SECONDS
        seconds = min(asked if asked is not None else back_off, self.patience.max_back_off_seconds)
        self.log(f"{self.file.path}: {reason} at byte {self.counter.done:,}; going on in {seconds:.0f} s")
        self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        """Wait, but not after all has ended. Raises: RunStopped, Revoked."""
        is_over = self._over.wait(seconds)
        self.control.check()
        if is_over:
            raise Revoked


def _reason_of(error: Exception) -> str:
    """Say in words why a request ended."""
    if isinstance(error, ReadTimeoutError):
        return "nothing came for too long"
    return str(error) if isinstance(error, TryLater) else f"the connection failed ({type(error).__name__})"
