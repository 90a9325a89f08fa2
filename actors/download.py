"""Fetch one file of a commit: resumed where an earlier run stopped, verified before it counts.

How the parts fit. `FileTransfer` (here) brings one file from a source to a job's whole files. `streams.py` holds its
requests: one for a small file, several ranges at once for a large one, within what `room.py` and `bandwidth.py` allow
the process. `source.py` makes a request and refuses what is not just the bytes that were asked for. `part.py` takes
the bytes at their offsets, gives out what is still missing (`ranges.py`) and keeps the note of what is safe on disk.
`hashing.py` takes the digest in order while later ranges arrive; a resumed part is hashed again from its start.
Nothing that has not been verified ever leaves the parts.
Source: RFC 9110, section 14 (ranges) and 13.1.5 (If-Range); Hub API "resolve" endpoint.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from actors.bandwidth import Bandwidth
from actors.control import RunControl, StopReason
from actors.hashing import ArrivingDigest
from actors.part import SYNC_EVERY_BYTES, Counter, Part
from actors.room import ConnectionRoom, InstallRoom
from actors.source import FileSource, RangesIgnored, RestartNeeded
from actors.streams import Patience, Streams
from core.crashpoints import CrashPoint, reached
from core.errors import JobErrorCode, JobFailure
from core.repository import RepositoryFile
from core.storage import WeightsVolume

__all__ = ["Counter", "FileTransfer", "Patience", "volume_failure"]

RANGE_BYTES = 16 << 20
MAX_RESTARTS = 1
DIGEST_WAIT_SECONDS = 0.1


@dataclass(kw_only=True)
class FileTransfer:
    """One file on its way from a source to a job's staging. `run` blocks; one thread per transfer.

    room, bandwidth: the process's connections, and its bytes per second.
    range_bytes: a larger file is fetched in ranges of this size.
    """

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
    room: ConnectionRoom | InstallRoom = field(default_factory=ConnectionRoom)
    bandwidth: Bandwidth = field(default_factory=Bandwidth)
    sync_every_bytes: int = SYNC_EVERY_BYTES
    range_bytes: int = RANGE_BYTES

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
                reached(CrashPoint.FILE_VERIFIED)
                self.volume.finish_part(self.job_id, self.part_name, self.file.path)
                reached(CrashPoint.FILE_MOVED)
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
        part = Part(
            self.volume,
            job_id=self.job_id,
            name=self.part_name,
            file=self.file,
            commit=self.commit,
            counter=self.counter,
            sync_every_bytes=self.sync_every_bytes,
        )
        with part.opened():
            if part.total:
                self.log(f"{self.file.path}: going on with {part.total:,} of {self.file.size_bytes:,} bytes")
            try:
                return self._fetch_with_restarts(part)
            finally:
                part.revoke()
                if not part.is_complete and self.control.reason is not StopReason.LOST:
                    part.sync()

    def _fetch_with_restarts(self, part: Part) -> str:
        """Fetch; begin at zero when the source has other content or cannot go on where we are."""
        range_bytes = self.range_bytes if self.file.size_bytes > self.range_bytes else None
        restarts = 0
        while True:
            try:
                return self._fetch_once(part, range_bytes)
            except RestartNeeded as why:
                if isinstance(why, RangesIgnored) and range_bytes is not None:
                    range_bytes = None
                else:
                    restarts += 1
                if restarts > MAX_RESTARTS:
                    raise JobFailure(
                        JobErrorCode.UPSTREAM_CHANGED, f"{self.file.path}: {why}", hint="Retry the install."
                    ) from None
                self.log(f"{self.file.path}: {why}; starting this file again")
                part.restart()

    def _fetch_once(self, part: Part, range_bytes: int | None) -> str:
        """Fetch what is missing, hash all of it meanwhile, and get it onto the disk; return the digest."""
        hasher = self.file.digest.hasher(size_bytes=self.file.size_bytes)
        with ArrivingDigest(part, hasher, size_bytes=self.file.size_bytes) as digest:
            if not part.is_complete:
                Streams(
                    source=self.source,
                    file=self.file,
                    part=part,
                    control=self.control,
                    log=self.log,
                    patience=self.patience,
                    counter=self.counter,
                    room=self.room,
                    bandwidth=self.bandwidth,
                    range_bytes=range_bytes,
                ).run()
            part.flush()
            while not digest.is_done(DIGEST_WAIT_SECONDS):
                self.control.check()
            return digest.hexdigest()

    def _forget_note(self) -> None:
        """Make the next run begin this file at zero."""
        self.counter.done = 0
        self.volume.write_note(self.job_id, f"{self.part_name}.json", b"{}")


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
