"""Tell how far a run is: to the bus four times a second at most, to the database once.

What is told never goes back within an attempt: a file that begins again is caught up before the bar moves on.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from actors.control import RunControl, StopReason
from actors.download import Counter
from actors.tools import Tools
from core.bus import job_topic
from core.job import FileState, JobStage, LogLevel, Progress
from core.metrics import INSTALL_BYTES
from core.repository import RepositoryFile
from db import runs
from db.engine import is_unavailable
from db.job_files import FileProgress
from db.job_logs import NewLogLine
from db.runs import LostClaimError
from db.tables import Job

BUS_SECONDS = 0.25
DATABASE_SECONDS = 1.0
SPEED_WINDOW_SECONDS = 5.0


@dataclass
class Reporter:
    """One run's voice. `stage` and `message` are set by the run; the counters move by themselves."""

    tools: Tools
    job: Job
    control: RunControl
    stage: JobStage = JobStage.RESOLVING
    message: str | None = None
    files: Sequence[RepositoryFile] = ()
    counters: Sequence[Counter] = ()
    _lines: deque[NewLogLine] = field(default_factory=deque)
    _told: dict[int, FileProgress] = field(default_factory=dict)
    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    _highest: Progress = field(default_factory=Progress)
    _counted: int = 0
    _reported_done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._highest = Progress(
            bytes_done=self.job.bytes_done, verified_bytes=self.job.verified_bytes, files_done=self.job.files_done
        )
        self._reported_done = self.job.bytes_done

    def log(self, message: str, *, level: LogLevel = LogLevel.INFO) -> None:
        """Add a line to the job's log; from any thread."""
        with self._lock:
            self._lines.append(NewLogLine(message=message, level=level))

    def begin_files(self, files: Sequence[RepositoryFile], counters: Sequence[Counter]) -> None:
        """Say which files there are, and where their progress is counted."""
        self.files, self.counters = files, counters

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report at intervals for the length of a block, and once more at its end."""
        task = asyncio.create_task(self._run(), name=f"report-{self.job.id}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if self.control.reason not in {StopReason.LOST, StopReason.PAUSED}:
                await self.write()

    async def _run(self) -> None:
        """Look at the counters every quarter of a second."""
        written_at = 0.0
        while True:
            self._publish(self.progress())
            if time.monotonic() - written_at >= DATABASE_SECONDS:
                written_at = time.monotonic()
                await self.write()
            await asyncio.sleep(BUS_SECONDS)

    async def write(self) -> None:
        """Write how far the run is to the database; a database that is away is waited out by the lease."""
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
        progress = self.progress()
        changes = self._file_changes()
        try:
            await runs.report(
                self.tools.database,
                self.control.claim,
                progress=progress,
                stage=self.stage,
                message=self._current_message(),
                files=changes,
                lines=lines,
                has_advanced=progress.bytes_done > self._reported_done,
            )
        except LostClaimError:
            self.control.stop(StopReason.LOST)
        except Exception as error:
            if not is_unavailable(error):
                raise
            with self._lock:
                self._lines.extendleft(reversed(lines))
        else:
            self._reported_done = progress.bytes_done
            self._told.update({change.number: change for change in changes})
            if lines:
                self.tools.bus.publish(f"log:{self.job.id}")

    def progress(self) -> Progress:
        """Add up the counters."""
        now = time.monotonic()
        received = sum(counter.received for counter in self.counters)
        INSTALL_BYTES.labels(source="hub").inc(max(0, received - self._counted))
        self._counted = received
        self._samples.append((now, received))
        while self._samples[0][0] < now - SPEED_WINDOW_SECONDS:
            self._samples.popleft()
        verified = [file.size_bytes for file, counter in self._pairs() if counter.is_verified]
        done = sum(counter.done for counter in self.counters)
        total = sum(file.size_bytes for file in self.files) if self.files else self.job.bytes_total
        last = max((counter.last_byte_at for counter in self.counters if counter.last_byte_at), default=None)
        speed = self._speed()
        self._highest = Progress(
            bytes_done=max(done, self._highest.bytes_done),
            bytes_total=total,
            verified_bytes=max(sum(verified), self._highest.verified_bytes),
            reused_bytes=self._reused_bytes(),
            files_done=max(len(verified), self._highest.files_done),
            files_total=len(self.files) if self.files else self.job.files_total,
            bytes_per_second=speed,
            eta_seconds=(total - done) / speed if total is not None and speed and total >= done else None,
            last_byte_at=datetime.fromtimestamp(last, UTC) if last else self.job.last_byte_at,
        )
        return self._highest

    def _reused_bytes(self) -> int:
        """Sum up what was not fetched; before the files are begun, what was expected."""
        if not self.files:
            return self.job.reused_bytes
        return sum(file.size_bytes for file, counter in self._pairs() if counter.is_reused)

    def _current_message(self) -> str | None:
        """Name the largest file that is under way; without one, what the run says itself."""
        if self.stage is not JobStage.DOWNLOADING:
            return self.message
        under_way = [file for file, counter in self._pairs() if counter.done and not counter.is_verified]
        largest = max(under_way, key=lambda file: file.size_bytes, default=None)
        return f"Downloading {largest.path}" if largest is not None else self.message

    def _speed(self) -> float | None:
        """Bytes a second over the last seconds; None while nothing is being transferred."""
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began and last > first else None

    def _pairs(self) -> list[tuple[RepositoryFile, Counter]]:
        """Each file with its counter."""
        return list(zip(self.files, self.counters, strict=True))

    def _file_changes(self) -> list[FileProgress]:
        """List the files that have moved since they were last written."""
        changes = []
        for number, (file, counter) in enumerate(self._pairs()):
            if counter.is_verified:
                state = FileState.REUSED if counter.is_reused else FileState.DONE
            elif counter.done >= file.size_bytes > 0:
                state = FileState.VERIFYING
            else:
                state = FileState.DOWNLOADING if counter.received or counter.done else FileState.WAITING
            change = FileProgress(number, state, file.size_bytes if counter.is_verified else counter.done)
            known = self._told.get(number)
            if change != known and not (known is None and state is FileState.WAITING):
                changes.append(change)
        return changes

    def _publish(self, progress: Progress) -> None:
        """Tell whoever watches."""
        self.tools.bus.publish(
            job_topic(self.job.id),
            {
                "fence": self.control.claim.fence,
                "stage": self.stage,
                "message": self._current_message(),
                "progress": asdict(progress),
            },
        )
