"""What the tests of downloads share: a file on a fake Hub, a volume to fetch it to, a server that says anything."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import UUID

from actors.control import RunControl, StopReason
from actors.download import FileTransfer, Patience
from actors.source import FileSource
from core.hub import Hub
from core.ids import new_id
from core.repository import Digest, DigestKind, RepositoryFile
from core.storage import WeightsVolume
from db.runs import Claim
from tests.fakes.hub import FakeHub
from tests.fakes.repos import noise

REPO = "acme/small"
FILE = "model.safetensors"
SIZE = 3_000_000
CUT = 1_000_000
WEIGHTS = noise(SIZE, seed=8)
SYNC_EVERY = 300_000
PATIENCE = Patience(
    connect_seconds=2.0, header_seconds=2.0, stall_seconds=0.3, min_back_off_seconds=0.02, max_back_off_seconds=5.0
)


def weights(path: str = FILE, content: bytes = WEIGHTS) -> RepositoryFile:
    """Describe a file in LFS."""
    return RepositoryFile(path, len(content), Digest(DigestKind.SHA256, hashlib.sha256(content).hexdigest()))


def small(path: str, content: bytes) -> RepositoryFile:
    """Describe a file that git keeps itself."""
    named = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return RepositoryFile(path, len(content), Digest(DigestKind.GIT_SHA1, named))


@dataclass
class Staging:
    """One job's staging on a volume of its own, and the transfers into it."""

    volume: WeightsVolume
    hub: Hub
    commit: str
    job_id: UUID = field(default_factory=new_id)
    lines: list[str] = field(default_factory=list)
    sources: list[FileSource] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.volume.root / ".model-manager" / "staging" / str(self.job_id)

    @property
    def part(self) -> Path:
        return self.directory / "parts" / "000000.part"

    @property
    def note(self) -> Path:
        return self.directory / "parts" / "000000.part.json"

    @property
    def fetched(self) -> dict[str, bytes]:
        """What counts as whole, by path."""
        files = self.directory / "files"
        return {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}

    def transfer(
        self, file: RepositoryFile | None = None, *, patience: Patience = PATIENCE, lease_seconds: float = 60.0
    ) -> FileTransfer:
        """Make a transfer as a new run of the job would."""
        source = FileSource(self.hub, repo_id=REPO, commit=self.commit)
        self.sources.append(source)
        return FileTransfer(
            volume=self.volume,
            source=source,
            job_id=self.job_id,
            number=0,
            file=file or weights(),
            commit=self.commit,
            control=RunControl(Claim(self.job_id, 1), lease_seconds=lease_seconds),
            log=self.lines.append,
            patience=patience,
            sync_every_bytes=SYNC_EVERY,
        )

    def close(self) -> None:
        for source in self.sources:
            source.close()


@contextmanager
def staging_for(root: Path, *, endpoint: str, commit: str = "0" * 40, token: str | None = None) -> Iterator[Staging]:
    """Prepare a volume and close what was opened for it."""
    volume = WeightsVolume(root)
    volume.prepare()
    staging = Staging(volume, Hub(endpoint=endpoint, token=token), commit)
    try:
        yield staging
    finally:
        staging.close()


class Running:
    """A transfer in a thread of its own."""

    def __init__(self, transfer: FileTransfer) -> None:
        self.transfer = transfer
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.transfer.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def stop(self, reason: StopReason = StopReason.LOST) -> float:
        """Tell it to end; return how many seconds that took."""
        began = time.monotonic()
        self.transfer.control.stop(reason)
        self._thread.join(10)
        assert not self._thread.is_alive()
        return time.monotonic() - began


def wait_for(condition: Callable[[], bool]) -> None:
    """Return as soon as something is so."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ranges(hub: FakeHub) -> list[str | None]:
    """List the ranges that were asked of the place where the bytes are."""
    return [record.headers.get("range") for record in hub.requests if record.at == "cdn"]


class Parrot:
    """A server that gives prepared answers, one for each request, each on a connection of its own that stays open."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.requests: list[str] = []
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    break
                head += received
            self.requests.append(head.decode("latin-1"))
            connection.sendall(answer)


def head(status: str, **headers: str | int) -> bytes:
    """Write the head of an answer that ends its connection."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("latin-1")
