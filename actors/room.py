"""How many connections a process may use at once: few at first, more for as long as that brings more bytes.

Each file has one connection by right, up to the hard limit; further ones of a large file come out of what is allowed
at the moment. What is allowed grows while each step makes the whole process at least a tenth faster, goes back one
step when it does not, and is tried again after a while.
"""

import threading
import time
from collections.abc import Callable

MOST = 32
FIRST = 4
WINDOW_SECONDS = 1.0
HOLD_SECONDS = 15.0
WORTH_IT = 1.1
POLL_SECONDS = 0.1


class ConnectionRoom:
    """The process's connections. Safe to use from any thread. most: never more; first: allowed to begin with."""

    def __init__(
        self,
        *,
        most: int = MOST,
        first: int = FIRST,
        window_seconds: float = WINDOW_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self.most = most
        self.allowed = min(first, most)
        self.used = 0
        self._least = self.allowed
        self._window = window_seconds
        self._hold = hold_seconds
        self._changed = threading.Condition()
        self._waiting = 0
        self._bytes = 0
        self._since = time.monotonic()
        self._best = 0.0
        self._before = self.allowed
        self._is_trying = False
        self._hold_until = 0.0

    def take(self, check: Callable[[], None]) -> None:
        """Take a connection, waiting for one if need be. check: raises when there is no use in waiting."""
        with self._changed:
            self._waiting += 1
            try:
                while self.used >= self.most:
                    check()
                    self._changed.wait(POLL_SECONDS)
                self.used += 1
            finally:
                self._waiting -= 1

    def take_another(self) -> bool:
        """Take a further connection for the same file; False when none is allowed just now."""
        with self._changed:
            if self.used >= self.allowed or self._waiting:
                return False
            self.used += 1
            return True

    def give_back(self) -> None:
        """Leave a connection to others."""
        with self._changed:
            self.used -= 1
            self._changed.notify_all()

    @property
    def is_crowded(self) -> bool:
        """Whether further connections should be given back when they come to a good place."""
        with self._changed:
            return self.used > self.allowed or self._waiting > 0

    def count(self, size: int) -> None:
        """Say that bytes have come; at the end of each window this decides how many connections are allowed."""
        with self._changed:
            self._bytes += size
            now = time.monotonic()
            if now - self._since >= self._window:
                self._judge(self._bytes / (now - self._since), now)
                self._bytes, self._since = 0, now

    def ease(self) -> None:
        """Ask for less: a source is overburdened."""
        with self._changed:
            self.allowed = max(1, min(self.allowed, self.used) * 2 // 3)
            self._is_trying, self._hold_until = False, time.monotonic() + self._hold

    def _judge(self, rate: float, now: float) -> None:
        """Look at one window's bytes per second."""
        if self.used < self.allowed:
            self._best = rate
        elif self._is_trying and rate < self._best * WORTH_IT:
            self.allowed, self._is_trying = self._before, False
            self._hold_until = now + self._hold
        elif self._is_trying or now >= self._hold_until:
            self._best, self._before, self._is_trying = rate, self.allowed, True
            self.allowed = min(self.most, self.allowed + max(2, self.allowed // 2))


class InstallRoom:
    """One install's part of the process's connections.

    at_most: how many it may use at once; asked each time, so that a change takes effect on installs that run. Each file
    that is under way keeps one connection by right.
    """

    def __init__(self, room: ConnectionRoom, *, at_most: Callable[[], int]) -> None:
        self._room = room
        self._at_most = at_most
        self._used = 0
        self._lock = threading.Lock()

    def take(self, check: Callable[[], None]) -> None:
        """Take a connection, waiting for one if need be. check: raises when there is no use in waiting."""
        self._room.take(check)
        with self._lock:
            self._used += 1

    def take_another(self) -> bool:
        """Take a further connection for the same file; False when none is allowed just now."""
        with self._lock:
            is_taken = self._used < self._at_most() and self._room.take_another()
            self._used += is_taken
        return is_taken

    def give_back(self) -> None:
        """Leave a connection to others."""
        with self._lock:
            self._used -= 1
        self._room.give_back()

    @property
    def is_crowded(self) -> bool:
        """Whether further connections should be given back when they come to a good place."""
        return self._room.is_crowded or self._used > self._at_most()

    def count(self, size: int) -> None:
        """Say that bytes have come."""
        self._room.count(size)

    def ease(self) -> None:
        """Ask for less: a source is overburdened."""
        self._room.ease()
