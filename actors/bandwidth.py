"""How many bytes a second all transfers of a process may take together; can be changed while they run.

A bucket that fills at the allowed rate. What has arrived is taken out of it, one piece at a time, and while it is
empty whoever comes with more has to wait: the source is slowed down because we read no faster.
"""

import threading
import time
from collections.abc import Callable

LOOK_SECONDS = 0.2
PIECES_A_SECOND = 8
LEAST_PIECE_BYTES = 4096


class Bandwidth:
    """The process's limit, shared by its transfers. Safe to use from any thread.

    bytes_per_second: None means as fast as it goes.
    """

    def __init__(self, bytes_per_second: int | None = None) -> None:
        self._lock = threading.Lock()
        self._rate = _checked(bytes_per_second)
        self._balance = 0.0
        self._filled_at = time.monotonic()

    @property
    def bytes_per_second(self) -> int | None:
        """The limit; None when there is none."""
        return self._rate

    def set(self, bytes_per_second: int | None) -> None:
        """Change the limit; who waits under the old one notices within a fifth of a second. Raises: ValueError."""
        rate = _checked(bytes_per_second)
        with self._lock:
            self._rate, self._balance, self._filled_at = rate, 0.0, time.monotonic()

    def piece_of(self, size: int) -> int:
        """Return how much of so many bytes to read at once, so that a low limit makes a trickle and not spurts."""
        rate = self._rate
        return size if rate is None else min(size, max(LEAST_PIECE_BYTES, rate // PIECES_A_SECOND))

    def take(self, size: int, pause: Callable[[float], None]) -> float:
        """Count bytes that have come, waiting for as long as the limit asks; return the seconds that took.

        pause: waits; may raise to end the wait.
        """
        began = time.monotonic()
        while (wait := self._ask(size)) > 0:
            pause(min(wait, LOOK_SECONDS))
        return time.monotonic() - began

    def _ask(self, size: int) -> float:
        """Take the bytes out and return 0; where the bucket is empty, return how long until it is not."""
        with self._lock:
            if self._rate is None:
                return 0.0
            now = time.monotonic()
            self._balance = min(self._balance + (now - self._filled_at) * self._rate, self._rate / PIECES_A_SECOND)
            self._filled_at = now
            if self._balance < 0:
                return -self._balance / self._rate
            self._balance -= size
            return 0.0


def _checked(bytes_per_second: int | None) -> int | None:
    """Return a limit that makes sense. Raises: ValueError."""
    if bytes_per_second is not None and bytes_per_second <= 0:
        raise ValueError("a limit is more than 0 bytes a second; None means there is none")
    return bytes_per_second
