"""A file under way: its bytes on the volume, who fetches which of them, and the note that a later run goes on from.

Several streams write at their own offsets, each within a claim that nobody else has. What was written becomes safe
by `sync`: bytes to the disk first, then the note. Writers wait before more is unsafe than a new run may have to
fetch again. The part is not preallocated: where a file system cannot do that, the C library writes the file twice.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import orjson

from actors.ranges import Ranges
from core.crashpoints import CrashPoint, reached
from core.names import is_plain_text
from core.repository import RepositoryFile
from core.storage import WeightsVolume

SYNC_EVERY_BYTES = 32 << 20
MAX_RANGES = 10_000

logger = logging.getLogger(__name__)


class Revoked(Exception):  # noqa: N818 - an instruction, not an error
    """This claim is over: what it would still bring is not wanted any more."""


@dataclass
class Counter:
    """How far a file is, for whoever looks from another thread. Sizes in bytes.

    done: on the volume. received: came over the network, also in vain; only ever rises.
    is_reused: the bytes are another set's, by a link; none were fetched.
    """

    done: int = 0
    received: int = 0
    last_byte_at: float | None = None
    is_verified: bool = False
    is_reused: bool = False


@dataclass(eq=False)
class Claim:
    """A stretch that one stream fetches: where it is, and where it ends."""

    position: int
    end: int


class Part:
    """One file's bytes so far. Safe to use from several threads.

    etag: what the host of the bytes calls the content; None while it is not known, or the host does not say.
    sync_every_bytes: how much may be written and not safe.
    """

    def __init__(
        self,
        volume: WeightsVolume,
        *,
        job_id: UUID,
        name: str,
        file: RepositoryFile,
        commit: str,
        counter: Counter,
        sync_every_bytes: int = SYNC_EVERY_BYTES,
    ) -> None:
        self.name = name
        self.etag: str | None = None
        self._volume = volume
        self._job_id = job_id
        self._file = file
        self._commit = commit
        self._counter = counter
        self._sync_every = sync_every_bytes
        self._descriptor = -1
        self._changed = threading.Condition()
        self._written = Ranges()
        self._safe_bytes = 0
        self._unsafe_bytes = 0
        self._claims: set[Claim] = set()
        self._writing = 0
        self._is_over = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open what an earlier run left, as far as it is of this content and safe; close it behind the last writer."""
        self._descriptor = self._volume.open_part(self._job_id, self.name)
        try:
            there = min(os.fstat(self._descriptor).st_size, self._file.size_bytes)
            safe, self.etag = self._read_note()
            self._written = safe.within(there)
            os.ftruncate(self._descriptor, self._written.end)
            self._safe_bytes = self._counter.done = self._written.total
            yield
        finally:
            self.revoke()
            os.close(self._descriptor)

    # ------------------------------------------------------------ what is there

    @property
    def chunk_bytes(self) -> int:
        """How much may be written in one piece."""
        return max(1, min(1 << 20, self._sync_every // 4))

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there; whether they are right is for the digest to say."""
        return self.total >= self._file.size_bytes

    @property
    def total(self) -> int:
        """How many bytes are there."""
        with self._changed:
            return self._written.total

    @property
    def needs_sync(self) -> bool:
        """Whether enough has been written to make it safe, before writers have to wait for that."""
        with self._changed:
            return self._written.total - self._safe_bytes >= self._sync_every // 2

    @property
    def has_gap(self) -> bool:
        """Whether something is missing that nobody fetches."""
        with self._changed:
            return not self._is_over and self._unclaimed() is not None

    def notify(self) -> None:
        """Wake who waits here."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until something changes here."""
        with self._changed:
            self._changed.wait(seconds)

    def read(self, buffer: bytearray, position: int) -> int:
        """Read what is there without a gap from a position on; 0 when nothing has come there yet."""
        with self._changed:
            there = self._written.prefix - position
        if there <= 0:
            return 0
        return os.preadv(self._descriptor, [memoryview(buffer)[:there]], position)

    # ------------------------------------------------------------ fetching

    def claim(self, longest: int) -> Claim | None:
        """Take the first stretch that nobody fetches; None when there is none just now. Raises: Revoked."""
        with self._changed:
            if self._is_over:
                raise Revoked
            gap = self._unclaimed()
            if gap is None:
                return None
            claim = Claim(gap[0], min(gap[1], gap[0] + longest))
            self._claims.add(claim)
            return claim

    def _unclaimed(self) -> tuple[int, int] | None:
        """Find the first stretch that is neither there nor claimed."""
        taken = Ranges([*self._written, *((claim.position, claim.end) for claim in self._claims)])
        return taken.first_gap(self._file.size_bytes)

    def give_back(self, claim: Claim) -> None:
        """Leave what is still missing of a claim to others."""
        with self._changed:
            self._claims.discard(claim)
            self._changed.notify_all()

    def revoke(self) -> None:
        """End every claim; when this returns nobody writes any more, however late their bytes come."""
        with self._changed:
            self._is_over = True
            self._claims.clear()
            self._changed.notify_all()
            while self._writing:
                self._changed.wait()

    def write(self, claim: Claim, data: bytes) -> None:
        """Write at a claim's position and move it on.

        Raises: Revoked, OSError.
        """
        with self._changed:
            while claim in self._claims and self._unsafe_bytes and self._unsafe_bytes + len(data) >= self._sync_every:
                self._changed.wait()
            if claim not in self._claims:
                raise Revoked
            self._writing += 1
            self._unsafe_bytes += len(data)
        position = claim.position
        try:
            _write_all(self._descriptor, data, position)
        except BaseException:
            self._wrote(claim, 0)
            raise
        self._wrote(claim, len(data))

    def _wrote(self, claim: Claim, size: int) -> None:
        """Count what a writer has done."""
        with self._changed:
            self._writing -= 1
            self._written.add(claim.position, claim.position + size)
            claim.position += size
            done = self._counter.done = self._written.total
            self._counter.last_byte_at = time.time()
            is_due = done >= self._file.size_bytes or done - self._safe_bytes >= self._sync_every // 2
            if is_due or self._is_over:  # waking everybody for each piece costs more than the piece itself
                self._changed.notify_all()

    # ------------------------------------------------------------ the note

    def flush(self) -> None:
        """Get every byte onto the disk, without a note: the whole file is renamed next."""
        os.fdatasync(self._descriptor)

    def sync(self) -> None:
        """Get the bytes onto the disk, then note which they are; nothing new needs neither."""
        with self._changed:
            written = Ranges(self._written)
            if written.total == self._safe_bytes:
                return
        os.fdatasync(self._descriptor)
        reached(CrashPoint.BYTES_SAFE)
        self._note(written)
        reached(CrashPoint.PART_NOTED)
        with self._changed:
            self._unsafe_bytes -= written.total - self._safe_bytes
            self._safe_bytes = written.total
            self._changed.notify_all()

    def restart(self) -> None:
        """Throw away what is there and begin at zero; nobody may be fetching."""
        with self._changed:
            self._is_over = False
            self._written = Ranges()
            self._safe_bytes = self._unsafe_bytes = self._counter.done = 0
        os.ftruncate(self._descriptor, 0)
        self.etag = None
        self._note(Ranges())

    def _note(self, safe: Ranges) -> None:
        """Write the note beside the part."""
        note = {
            "commit": self._commit,
            "digest": self._file.digest.value,
            "offset": safe.prefix,
            "ranges": [one for one in safe if one[0]],
            "etag": self.etag,
        }
        self._volume.write_note(self._job_id, f"{self.name}.json", orjson.dumps(note))

    def _read_note(self) -> tuple[Ranges, str | None]:
        """Read which bytes are safe, and their ETag: none when there is no note, or one of another content."""
        try:
            note = orjson.loads(self._volume.read_note(self._job_id, f"{self.name}.json") or b"{}")
            if (note["commit"], note["digest"]) == (self._commit, self._file.digest.value):
                safe = _ranges_of(int(note["offset"]), note.get("ranges", []))
                etag = note["etag"]
                is_usable = isinstance(etag, str) and etag.isascii() and is_plain_text(etag)
                return safe, etag if is_usable else None
        except (ValueError, KeyError, TypeError):
            logger.debug("a part's note is not usable; the file begins at zero", extra={"job": str(self._job_id)})
        return Ranges(), None


def _ranges_of(offset: int, listed: list[list[int]]) -> Ranges:
    """Read a note's ranges. Raises: ValueError, TypeError when they are none."""
    if offset < 0 or not isinstance(listed, list) or len(listed) > MAX_RANGES:
        raise ValueError("no ranges")
    for start, end in listed:
        if type(start) is not int or type(end) is not int or not 0 <= start < end:
            raise ValueError("no range")
    return Ranges([(0, offset), *((start, end) for start, end in listed)])


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all bytes at an offset; a short write is gone on with."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
