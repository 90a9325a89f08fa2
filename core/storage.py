"""The weights volume: staging, publishing and removing sets, without ever following a symlink.

Everything is reached by walking directory descriptors with O_NOFOLLOW from the root, so a link that somebody
puts into the tree leads nowhere. What is published appears by one rename; before that nobody sees it.

Layout: `<root>/<set name>/…` are the sets; `<root>/.model-manager/staging/<job>/` holds `files/` (whole and
verified) and `parts/` (under way); `<root>/.model-manager/trash/` is on its way out.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

from core.errors import JobErrorCode, JobFailure
from core.ids import new_id
from core.manifest import MAX_MANIFEST_BYTES, Manifest, decode, encode
from core.names import MANIFEST_NAME

HIDDEN = ".model-manager"
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILES = "files"
PARTS = "parts"


@dataclass(frozen=True)
class Space:
    """How much room the volume has, in bytes."""

    capacity_bytes: int
    free_bytes: int


class TargetTaken(JobFailure):
    """Something is in the way of a set's directory."""

    def __init__(self, message: str) -> None:
        super().__init__(JobErrorCode.INVALID, message, hint="Give the set another name, or clear the way.")


class WeightsVolume:
    """The volume at one mount point. All calls block: run them in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the root and our hidden directories."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._opened(HIDDEN, "staging", create=True), self._opened(HIDDEN, "trash", create=True):
            pass

    def space(self) -> Space:
        """Measure the file system."""
        found = os.statvfs(self.root)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    # ------------------------------------------------------------ staging

    def open_part(self, job_id: UUID, name: str) -> int:
        """Open (or make) a file among a job's parts for reading and writing; return its descriptor."""
        with self._opened(HIDDEN, "staging", str(job_id), PARTS, create=True) as parts:
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parts)

    def read_note(self, job_id: UUID, name: str) -> bytes | None:
        """Read a small file among a job's parts; None when it is not there."""
        with suppress(FileNotFoundError), self._opened(HIDDEN, "staging", str(job_id), PARTS) as parts:
            return _read(parts, name, limit=1 << 16)
        return None

    def write_note(self, job_id: UUID, name: str, data: bytes) -> None:
        """Replace a small file among a job's parts, whole or not at all, on disk when this returns."""
        with self._opened(HIDDEN, "staging", str(job_id), PARTS, create=True) as parts:
            _write_whole(parts, name, data)

    def finish_part(self, job_id: UUID, name: str, path: str) -> None:
        """Move a verified part to its path among the whole files; drop its note."""
        with (
            self._opened(HIDDEN, "staging", str(job_id), PARTS) as parts,
            self._opened(HIDDEN, "staging", str(job_id), FILES, *path.split("/")[:-1], create=True) as directory,
        ):
            os.rename(name, path.rsplit("/", 1)[-1], src_dir_fd=parts, dst_dir_fd=directory)
            os.fsync(directory)
            with suppress(FileNotFoundError):
                os.unlink(f"{name}.json", dir_fd=parts)

    def finished_size(self, job_id: UUID, path: str) -> int | None:
        """Return the size of a file that is already whole in a job's staging; None when it is not."""
        *directories, name = path.split("/")
        try:
            with self._opened(HIDDEN, "staging", str(job_id), FILES, *directories) as directory:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None
            raise
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def staged_jobs(self) -> list[UUID]:
        """List the jobs that have something in staging."""
        found = []
        with suppress(FileNotFoundError), self._opened(HIDDEN, "staging") as staging:
            for entry in os.listdir(staging):
                with suppress(ValueError):
                    found.append(UUID(entry))
        return found

    def drop_staging(self, job_id: UUID) -> None:
        """Remove all that a job has fetched."""
        with suppress(FileNotFoundError), self._opened(HIDDEN, "staging") as staging:
            shutil.rmtree(str(job_id), dir_fd=staging)

    # ------------------------------------------------------------ sets

    def check_target(self, name: str, *, replace: bool) -> None:
        """Make sure that a set can be published under a name.

        Raises: TargetTaken when something is there, it would lie inside a set, or a set inside it.
        """
        parts = name.split("/")
        with ExitStack() as opened:
            above = opened.enter_context(self._opened())
            for depth, part in enumerate(parts, start=1):
                shown = "/".join(parts[:depth])
                try:
                    found = os.stat(part, dir_fd=above, follow_symlinks=False)
                except FileNotFoundError:
                    return
                if not stat.S_ISDIR(found.st_mode):
                    kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
                    raise TargetTaken(f"{shown} on the volume is {kind}: it is not followed")
                above = opened.enter_context(_directory(part, above))
                is_set = _has(above, MANIFEST_NAME)
                if is_set and depth < len(parts):
                    raise TargetTaken(f"{name} would lie inside the set {shown}")
            self._check_occupied(above, name, replace=replace)

    @staticmethod
    def _check_occupied(target: int, name: str, *, replace: bool) -> None:
        """Decide about a directory that is already at the target."""
        if not os.listdir(target):
            return
        if not _has(target, MANIFEST_NAME):
            inside = next((entry for entry in os.listdir(target) if _is_directory(target, entry)), None)
            what = f"a directory with {inside}/ inside" if inside else "a directory"
            raise TargetTaken(f"{name} on the volume is {what} that this server did not install")
        if not replace:
            raise TargetTaken(f"{name} on the volume is a set already")

    def read_manifest(self, name: str) -> Manifest | None:
        """Read a set's manifest; None when there is no set of that name. Raises: ValueError for a broken one."""
        with suppress(FileNotFoundError, NotADirectoryError), self._opened(*name.split("/")) as directory:
            data = _read(directory, MANIFEST_NAME, limit=MAX_MANIFEST_BYTES)
            return decode(data) if data is not None else None
        return None

    def publish(self, job_id: UUID, name: str, manifest: Manifest, *, replace: bool) -> None:
        """Let a set appear under its name: the manifest last, then one rename, each on disk before the next.

        A set that is there is moved to the trash in the same breath, when `replace` is given.
        Raises: TargetTaken.
        """
        self.check_target(name, replace=replace)
        *above, last = name.split("/")
        with (
            self._opened(HIDDEN, "staging", str(job_id)) as staging,
            self._opened(HIDDEN, "staging", str(job_id), FILES, create=True) as files,
            self._opened(*above, create=True) as parent,
            self._opened(HIDDEN, "trash", create=True) as trash,
        ):
            _write_whole(files, MANIFEST_NAME, encode(manifest))
            if _has(parent, last):
                os.rename(last, f"{new_id()}", src_dir_fd=parent, dst_dir_fd=trash)
            os.rename(FILES, last, src_dir_fd=staging, dst_dir_fd=parent)
            os.fsync(parent)
        self.drop_staging(job_id)
        self.empty_trash()

    def remove(self, name: str) -> None:
        """Take a set away: one rename to the trash, then its files. What is gone already is fine."""
        *above, last = name.split("/")
        with (
            suppress(FileNotFoundError),
            self._opened(*above) as parent,
            self._opened(HIDDEN, "trash", create=True) as trash,
        ):
            os.rename(last, f"{new_id()}", src_dir_fd=parent, dst_dir_fd=trash)
            os.fsync(parent)
        self._prune_empty(above)
        self.empty_trash()

    def empty_trash(self) -> None:
        """Delete what was moved to the trash."""
        with self._opened(HIDDEN, "trash", create=True) as trash:
            for entry in os.listdir(trash):
                with suppress(FileNotFoundError):
                    if _is_directory(trash, entry):
                        shutil.rmtree(entry, dir_fd=trash)
                    else:
                        os.unlink(entry, dir_fd=trash)

    def _prune_empty(self, above: list[str]) -> None:
        """Remove the owner's directory when its last set has gone."""
        for depth in range(len(above), 0, -1):
            try:
                with self._opened(*above[: depth - 1]) as parent:
                    os.rmdir(above[depth - 1], dir_fd=parent)
            except OSError:
                return

    # ------------------------------------------------------------ walking

    @contextmanager
    def _opened(self, *parts: str, create: bool = False) -> Iterator[int]:
        """Open a directory below the root, one step after the other, following no link."""
        with ExitStack() as opened:
            root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, root)
            current = root
            for part in parts:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=current)
                current = opened.enter_context(_directory(part, current))
            yield current


@contextmanager
def _directory(name: str, above: int) -> Iterator[int]:
    """Open one directory inside another.

    Raises: TargetTaken when it is a symbolic link.
    """
    try:
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and _is_link(above, name):
            raise TargetTaken(f"{name} on the volume is a symbolic link: it is not followed") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_link(directory: int, name: str) -> bool:
    """Tell whether an entry is a symbolic link."""
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _is_directory(directory: int, name: str) -> bool:
    """Tell whether an entry is a directory itself, not a link to one."""
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _has(directory: int, name: str) -> bool:
    """Tell whether an entry is there."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(directory: int, name: str, *, limit: int) -> bytes | None:
    """Read a small regular file; None when it is not there."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return _limited(file, limit)


def _limited(file: IO[bytes], limit: int) -> bytes:
    """Read a file that must not be larger than it should be."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError("the file is larger than it can be")
    return data


def _write_whole(directory: int, name: str, data: bytes) -> None:
    """Replace a small file by one rename; its bytes are on disk before."""
    temporary = f".{name}.new"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
