"""The digest of a file that is still arriving: taken in order, in a thread of its own.

Each byte is read once, from the page cache where it has just been put; hashlib lets other threads run meanwhile.
"""

import threading
from typing import Self

from actors.part import Part
from core.repository import Hasher

READ_BYTES = 1 << 20
LOOK_SECONDS = 0.01


class ArrivingDigest:
    """Follows a part from its first byte to its last. A context manager: its thread has ended behind the block."""

    def __init__(self, part: Part, hasher: Hasher, *, size_bytes: int) -> None:
        self._part = part
        self._hasher = hasher
        self._size = size_bytes
        self._is_over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="digest", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def is_done(self, seconds: float) -> bool:
        """Wait for the last byte; tell whether it has been taken in. Raises: OSError when the part cannot be read."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def hexdigest(self) -> str:
        """Return the digest of the whole file, once it is done."""
        return self._hasher.hexdigest()

    def _follow(self) -> None:
        """Take in what there is, as it comes."""
        try:
            buffer, position = bytearray(min(READ_BYTES, self._size)), 0
            while position < self._size and not self._is_over:
                size = self._part.read(buffer, position)
                if size:
                    self._hasher.update(memoryview(buffer)[:size])
                    position += size
                else:
                    self._part.wait(LOOK_SECONDS)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the digest is waited for
            self._error = error
