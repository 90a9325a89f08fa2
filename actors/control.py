"""What a running job is told from outside: stop, and why. Polled at each chunk; wakes blocked reads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from db.runs import Claim


class StopReason(StrEnum):
    """Why a run has to end before its work is done."""

    LOST = "LOST"
    """The row is no longer ours: cancelled, or claimed by another worker."""
    PAUSED = "PAUSED"
    """The job is held; what has been fetched stays."""
    WINDOW = "WINDOW"
    """The download windows have closed; the job goes on when one opens."""
    FAILED = "FAILED"
    """Another file of the same job could not be had."""
    SHUTDOWN = "SHUTDOWN"
    """This process stops; the job goes on elsewhere."""


class RunStopped(Exception):  # noqa: N818 - an instruction, not an error
    """Ends a run at the next safe place."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class RunControl:
    """One run's flag. Safe to use from any thread.

    A lease that could not be renewed in time counts as lost here too, on the monotonic clock: a process that was
    frozen writes nothing after it wakes.
    obeys_windows: whether the run has to end when the download windows close.
    """

    def __init__(self, claim: Claim, *, lease_seconds: float, obeys_windows: bool = False) -> None:
        self.claim = claim
        self.obeys_windows = obeys_windows
        self._lease_seconds = lease_seconds
        self._lease_ends = time.monotonic() + lease_seconds
        self._reason: StopReason | None = None
        self._stopped = threading.Event()
        self._interrupts: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def reason(self) -> StopReason | None:
        """Why the run must end; None while it may go on."""
        if self._reason is None and time.monotonic() > self._lease_ends:
            self.stop(StopReason.LOST)
        return self._reason

    def prolong(self, *, asked_at: float) -> None:
        """Note that the lease was renewed. asked_at: the monotonic time before the database was asked."""
        self._lease_ends = asked_at + self._lease_seconds

    def stop(self, reason: StopReason) -> None:
        """Tell the run to end, and wake what it waits for. The first reason stands."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            interrupts = list(self._interrupts)
        self._stopped.set()
        for interrupt in interrupts:
            interrupt()

    def check(self) -> None:
        """Raise RunStopped when the run must end."""
        if (reason := self.reason) is not None:
            raise RunStopped(reason)

    def sleep(self, seconds: float) -> None:
        """Wait, but not after the run has been told to end. Raises: RunStopped."""
        self._stopped.wait(seconds)
        self.check()

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Have something called when the run must end, for the length of a block; it may be called from any thread.

        Raises: RunStopped when the run must end already.
        """
        with self._lock:
            self._interrupts.append(interrupt)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._interrupts.remove(interrupt)
