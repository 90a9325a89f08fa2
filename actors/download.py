"""Fetch one file of a commit: resumed where an earlier run stopped, verified before it counts.

A file grows as a part with a note beside it (commit, digest, the server's ETag, and up to where the bytes are on
disk). Its digest is computed while it arrives; a resumed part is hashed again from its start. Nothing that this
module has not verified ever leaves the parts.
Source: RFC 9110, section 14 (ranges) and 13.1.5 (If-Range); Hub API "resolve" endpoint.
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import orjson
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError

from actors.control import RunControl, StopReason
from actors.source import FileSource, RestartNeeded, TryLater
from core.errors import JobErrorCode, JobFailure
from core.names import is_plain_text
from core.repository import Hasher, RepositoryFile
from core.storage import WeightsVolume

CHUNK_BYTES = 1 << 20
SYNC_EVERY_BYTES = 32 << 20
MAX_FRUITLESS_TRIES = 5
MAX_RESTARTS = 1
MIN_PAUSE_SECONDS = 0.1

logger = logging.getLogger(__name__)


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


@dataclass
class Counter:
    """How far a file is, for whoever looks from another thread. Sizes in bytes.

    done: on the volume, hashed. received: came over the network, also in vain; only ever rises.
    """

    done: int = 0
    received: int = 0
    last_byte_at: float | None = None
    is_verified: bool = False


@dataclass
class Part:
    """A file that is under way: its descriptor, its running digest, and how much of it is safe on disk."""

    descriptor: int
    hasher: Hasher
    offset: int = 0
    synced: int = 0
    etag: str | None = None


@dataclass(kw_only=True)
class FileTransfer:
    """One file on its way from a source to a job's staging. `run` blocks; one thread per transfer."""

    volume: WeightsVolume
    source: FileSource
    job_id: UUID
    number: int
    file: RepositoryFile
    commit: str
    control: RunControl
    log: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)
    counter: Counter = field(default_factory=Counter)
    sync_every_bytes: int = SYNC_EVERY_BYTES

    @property
    def part_name(self) -> str:
        """Its name among the parts; paths of the repository never are."""
        return f"{self.number:06d}.part"

    def run(self) -> Self:
        """Bring the file to the job's whole files, whatever is there of it already.

        Raises: JobFailure (retryable or final), RunStopped.
        Safe to repeat: a whole file is kept, a part is gone on with.
        """
        try:
            if self.volume.finished_size(self.job_id, self.file.path) == self.file.size_bytes:
                self.counter.done = self.file.size_bytes
                self.counter.is_verified = True
            else:
                self._fetch_verified()
        except OSError as error:
            raise volume_failure(error) from error
        return self

    def _fetch_verified(self) -> None:
        """Fetch until the digest is right: twice at most."""
        for is_last in (False, True):
            found = self._fetch_whole()
            if found == self.file.digest.value:
                self.control.check()
                self.volume.finish_part(self.job_id, self.part_name, self.file.path)
                self.counter.is_verified = True
                self.log(f"{self.file.path}: {self.file.size_bytes:,} bytes, {self.file.digest.kind} matches")
                return
            wrong = f"{self.file.path}: {self.file.digest.kind} {self.file.digest.value} was wanted and {found} came"
            self._forget_note()
            if is_last:
                raise JobFailure(
                    JobErrorCode.CORRUPT, wrong, hint="The source sends wrong bytes; ask whoever runs it, then retry."
                )
            self.log(f"{wrong}; fetching it once more")

    def _fetch_whole(self) -> str:
        """Fetch what is missing of the file and return the digest of all of it."""
        part = self._open()
        try:
            fruitless = restarts = 0
            while part.offset < self.file.size_bytes:
                before = part.offset
                try:
                    self._fetch_some(part)
                except RestartNeeded as why:
                    restarts += 1
                    if restarts > MAX_RESTARTS:
                        raise JobFailure(
                            JobErrorCode.UPSTREAM_CHANGED, f"{self.file.path}: {why}", hint="Retry the install."
                        ) from None
                    self.log(f"{self.file.path}: {why}; starting this file again")
                    self._restart(part)
                except (TryLater, HTTPError) as error:
                    fruitless = 0 if part.offset > before else fruitless + 1
                    self._wait(error, fruitless)
            self._sync(part)
            return part.hasher.hexdigest()
        finally:
            try:
                if part.synced < part.offset < self.file.size_bytes and self.control.reason is not StopReason.LOST:
                    self._sync(part)
            finally:
                os.close(part.descriptor)

    def _fetch_some(self, part: Part) -> None:
        """Make one request and take what it gives."""
        with self.control.interruptible(self.source.interrupt):
            try:
                response, etag = self.source.open(self.file, offset=part.offset, etag=part.etag, patience=self.patience)
                try:
                    if etag != part.etag:
                        part.etag = etag
                        self._note(part)
                    self._drain(part, response)
                finally:
                    response.close()
            except HTTPError:
                self.control.check()
                raise
        if part.offset < self.file.size_bytes:
            raise TryLater("the connection ended early")

    def _drain(self, part: Part, response: BaseHTTPResponse) -> None:
        """Write and hash what arrives, until the file is whole or the connection ends."""
        window_began, window_offset = time.monotonic(), part.offset
        while part.offset < self.file.size_bytes:
            chunk = response.read1(min(CHUNK_BYTES, self.file.size_bytes - part.offset))
            self.control.check()
            if not chunk:
                return
            self.counter.received += len(chunk)
            self.counter.last_byte_at = time.time()
            _write_all(part.descriptor, chunk, part.offset)
            part.hasher.update(chunk)
            part.offset += len(chunk)
            self.counter.done = part.offset
            if part.offset - part.synced >= self.sync_every_bytes:
                self._sync(part)
            now = time.monotonic()
            if now - window_began >= self.patience.slow_seconds:
                if part.offset - window_offset < self.patience.slow_bytes_per_second * self.patience.slow_seconds:
                    raise TryLater("it came too slowly; connecting anew")
                window_began, window_offset = now, part.offset

    def _wait(self, error: Exception, fruitless: int) -> None:
        """Wait before the next request, longer each time that nothing came; as long as the source asked for.

        Raises: JobFailure HUB_UNAVAILABLE when it has been in vain too often, RunStopped.
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
        self.control.sleep(seconds)

    # ------------------------------------------------------------ the part on disk

    def _open(self) -> Part:
        """Open the part, keeping what an earlier run left, as far as it is of this content and safe on disk."""
        descriptor = self.volume.open_part(self.job_id, self.part_name)
        try:
            part = Part(descriptor, self.file.digest.hasher(size_bytes=self.file.size_bytes))
            note = self._read_note()
            if note is not None:
                self._rehash(part, upto=min(note[0], os.fstat(descriptor).st_size, self.file.size_bytes))
                part.etag = note[1]
            os.ftruncate(descriptor, part.offset)
        except BaseException:
            os.close(descriptor)
            raise
        return part

    def _rehash(self, part: Part, *, upto: int) -> None:
        """Bring the digest up to where the part goes on."""
        while part.offset < upto:
            self.control.check()
            chunk = os.pread(part.descriptor, min(CHUNK_BYTES, upto - part.offset), part.offset)
            if not chunk:
                break
            part.hasher.update(chunk)
            part.offset += len(chunk)
            self.counter.done = part.offset
        part.synced = part.offset
        if part.offset:
            self.log(f"{self.file.path}: going on at byte {part.offset:,} of {self.file.size_bytes:,}")

    def _restart(self, part: Part) -> None:
        """Throw away what is there and begin at zero."""
        os.ftruncate(part.descriptor, 0)
        part.hasher = self.file.digest.hasher(size_bytes=self.file.size_bytes)
        part.offset = part.synced = self.counter.done = 0
        part.etag = None
        self._note(part)

    def _sync(self, part: Part) -> None:
        """Get the part's bytes onto the disk, then note how many there are."""
        os.fsync(part.descriptor)
        part.synced = part.offset
        self._note(part)

    def _note(self, part: Part) -> None:
        """Write the note beside the part."""
        note = {
            "commit": self.commit,
            "digest": self.file.digest.value,
            "offset": part.synced,
            "etag": part.etag,
        }
        self.volume.write_note(self.job_id, f"{self.part_name}.json", orjson.dumps(note))

    def _forget_note(self) -> None:
        """Make the next run begin this file at zero."""
        self.counter.done = 0
        self.volume.write_note(self.job_id, f"{self.part_name}.json", b"{}")

    def _read_note(self) -> tuple[int, str | None] | None:
        """Read how far the part is safe and its ETag; None when there is no note, or one of another content."""
        try:
            note = orjson.loads(self.volume.read_note(self.job_id, f"{self.part_name}.json") or b"{}")
            if (note["commit"], note["digest"]) == (self.commit, self.file.digest.value):
                etag = note["etag"]
                is_usable = isinstance(etag, str) and etag.isascii() and is_plain_text(etag)
                return int(note["offset"]), etag if is_usable else None
        except (ValueError, KeyError, TypeError):
            logger.debug("a part's note is not usable; the file begins at zero", extra={"job": str(self.job_id)})
        return None


def _reason_of(error: Exception) -> str:
    """Say in words why a request ended."""
    if isinstance(error, ReadTimeoutError):
        return "nothing came for too long"
    return str(error) if isinstance(error, TryLater) else f"the connection failed ({type(error).__name__})"


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all bytes at an offset; a short write is gone on with."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def volume_failure(error: OSError) -> JobFailure:
    """Say what an error of the volume means for the job."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return JobFailure(
            JobErrorCode.INSUFFICIENT_STORAGE,
            "The volume is full",
            hint="Delete a weight set; the install goes on by itself when there is room.",
            retryable=True,
        )
    return JobFailure(
        JobErrorCode.VOLUME_ERROR,
        f"The volume refused: {errno.errorcode.get(error.errno or 0, 'error')}, {os.strerror(error.errno or 0)}",
        hint="Look at the volume: is it mounted, writable and healthy? Then retry.",
    )
