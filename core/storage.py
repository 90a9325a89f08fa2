"""The weights volume: staging, publishing and removing sets, without ever following a symlink.

Everything is reached by walking directory descriptors with O_NOFOLLOW from the root, so a link that somebody
puts into the tree leads nowhere. What is published appears by one rename; before that nobody sees it.

Layout: `<root>/<set name>/…` are the sets; `<root>/.model-manager/staging/<job>/` holds `files/` (whole and
verified) and `parts/` (under way); `<root>/.model-manager/trash/` is on its way out.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from core.crashpoints import CrashPoint, reached
from core.errors import JobErrorCode, JobFailure
from core.exchange import exchange
from core.ids import new_id
from core.manifest import MAX_MANIFEST_BYTES, Manifest, decode, encode
from core.names import MANIFEST_NAME, MAX_SEGMENTS

HIDDEN = ".model-manager"
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILES = "files"
PARTS = "parts"
MAX_NOTE_BYTES = 1 << 16
PLACE_TRIES = 20
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})

logger = logging.getLogger(__name__)


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
        """Read a small file among a job's parts; None when it is not there.

        Raises: ValueError when it is no such file.
        """
        with suppress(FileNotFoundError), self._opened(HIDDEN, "staging", str(job_id), PARTS) as parts:
            return _read(parts, name, limit=MAX_NOTE_BYTES)
        return None

    def write_note(self, job_id: UUID, name: str, data: bytes) -> None:
        """Replace a small file among a job's parts, whole or not at all, on disk when this returns."""
        with self._opened(HIDDEN, "staging", str(job_id), PARTS, create=True) as parts:
            _write_whole(parts, name, data)

    def finish_part(self, job_id: UUID, name: str, path: str) -> None:
        """Move a verified part to its path among the whole files; drop its note."""
        *above, last = _parts_of(path)
        with (
            self._opened(HIDDEN, "staging", str(job_id), PARTS) as parts,
            self._opened(HIDDEN, "staging", str(job_id), FILES, *above, create=True) as directory,
        ):
            os.rename(name, last, src_dir_fd=parts, dst_dir_fd=directory)
            os.fsync(directory)
            with suppress(FileNotFoundError):
                os.unlink(f"{name}.json", dir_fd=parts)

    def finished_size(self, job_id: UUID, path: str) -> int | None:
        """Return the size of a file that is already whole in a job's staging; None when it is not."""
        *directories, name = _parts_of(path)
        try:
            with self._opened(HIDDEN, "staging", str(job_id), FILES, *directories) as directory:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None
            raise
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def link_file(self, job_id: UUID, path: str, *, of_set: str, of_path: str, size_bytes: int) -> bool:
        """Put a set's file among a job's whole files by a second name: its bytes are neither fetched nor copied.

        False when there is no regular file of that size in a set of that name, or the volume cannot link it.
        """
        *above, last = _parts_of(path)
        *above_source, source = _parts_of(of_path)
        try:
            with self._opened(*_parts_of(of_set)) as directory:
                if not _mode(directory, MANIFEST_NAME, of=stat.S_ISREG):
                    return False
            with (
                self._opened(*_parts_of(of_set), *above_source) as origin,
                self._opened(HIDDEN, "staging", str(job_id), FILES, *above, create=True) as directory,
            ):
                return _link(origin, source, directory, last, size_bytes=size_bytes)
        except TargetTaken:
            return False
        except OSError as error:
            if error.errno in NO_LINK | NOT_THERE:
                return False
            raise

    def staged_jobs(self) -> list[UUID]:
        """List the jobs that have something in staging."""
        found = []
        with suppress(FileNotFoundError), self._opened(HIDDEN, "staging") as staging:
            for entry in os.listdir(staging):
                with suppress(ValueError):
                    job_id = UUID(entry)
                    found += [job_id] if str(job_id) == entry else []
        return found

    def drop_staging(self, job_id: UUID) -> None:
        """Remove all that a job has fetched."""
        with suppress(FileNotFoundError), self._opened(HIDDEN, "staging") as staging:
            _remove(staging, str(job_id))

    # ------------------------------------------------------------ sets

    def check_target(self, name: str, *, replace: bool) -> None:
        """Make sure that a set can be published under a name.

        Raises: TargetTaken when something is there, it would lie inside a set, or a set inside it.
        """
        parts = _parts_of(name)
        with suppress(FileNotFoundError):
            for depth in range(1, len(parts)):
                self._check_above("/".join(parts[:depth]), name)
            with self._opened(*parts[:-1]) as parent:
                _check_free(parent, parts[-1], name, replace=replace)

    def _check_above(self, above: str, name: str) -> None:
        """Make sure that what a set would lie in is a plain directory.

        Raises: TargetTaken when it is not, FileNotFoundError when it is not there yet.
        """
        try:
            with self._opened(*above.split("/")) as directory:
                if _is_set(directory):
                    raise TargetTaken(f"{name} would lie inside the set {above}")
        except NotADirectoryError as error:
            raise TargetTaken(f"{above} on the volume is a file") from error

    def read_manifest(self, name: str) -> Manifest | None:
        """Read a set's manifest; None when there is no set of that name.

        Raises: ValueError for a broken one, TargetTaken for a symbolic link on the way.
        """
        with suppress(FileNotFoundError, NotADirectoryError), self._opened(*_parts_of(name)) as directory:
            data = _read(directory, MANIFEST_NAME, limit=MAX_MANIFEST_BYTES)
            return decode(data) if data is not None else None
        return None

    def publish(self, job_id: UUID, name: str, manifest: Manifest, *, replace: bool) -> None:
        """Let a set appear under its name: the manifest last, then one rename, each on disk before the next.

        A set that is there changes places with the new one in one step, when `replace` is given, so that one of them
        is there at every moment. Where the volume cannot do that, it is moved to the trash just before, and back
        again when the new one cannot take its place.
        Raises: TargetTaken; JobFailure VOLUME_ERROR when staging does not hold what the manifest says.
        """
        self.check_target(name, replace=replace)
        gone = [file.path for file in manifest.files if self.finished_size(job_id, file.path) != file.size_bytes]
        if gone:
            raise JobFailure(
                JobErrorCode.VOLUME_ERROR,
                f"{len(gone)} of {len(manifest.files)} files are not in staging any more, {gone[0]} for one",
                hint="They are fetched again.",
                retryable=True,
            )
        for tries_left in reversed(range(PLACE_TRIES)):
            try:
                self._place(job_id, name, manifest, replace=replace)
                break
            except FileNotFoundError:  # the owner's directory went with its last set just now
                if not tries_left:
                    raise
        self.drop_staging(job_id)
        self.empty_trash()

    def _place(self, job_id: UUID, name: str, manifest: Manifest, *, replace: bool) -> None:
        """Write the manifest, and rename what is in staging to its place."""
        *above, last = _parts_of(name)
        with (
            self._opened(HIDDEN, "staging", str(job_id)) as staging,
            self._opened(HIDDEN, "staging", str(job_id), FILES, create=True) as files,
            self._opened(*above, create=True) as parent,
            self._opened(HIDDEN, "trash", create=True) as trash,
        ):
            _write_whole(files, MANIFEST_NAME, encode(manifest))
            reached(CrashPoint.MANIFEST_WRITTEN)
            _check_free(parent, last, name, replace=replace)
            if not (replace and _exchanged(staging, parent, last, trash)):
                with _moved_aside(parent, last, trash) if replace else nullcontext():
                    os.rename(FILES, last, src_dir_fd=staging, dst_dir_fd=parent)
            reached(CrashPoint.SET_RENAMED)
            os.fsync(parent)

    def remove(self, name: str) -> None:
        """Take a set away: one rename to the trash, then its files. What is gone already is fine.

        Raises: TargetTaken when other sets lie inside: they would go with it.
        """
        *above, last = _parts_of(name)
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            self._opened(*above) as parent,
            self._opened(HIDDEN, "trash", create=True) as trash,
        ):
            _check_alone(parent, last, name)
            os.rename(last, f"{new_id()}", src_dir_fd=parent, dst_dir_fd=trash)
            os.fsync(parent)
        self._prune_empty(above)
        self.empty_trash()

    def empty_trash(self) -> None:
        """Delete what was moved to the trash."""
        with self._opened(HIDDEN, "trash", create=True) as trash:
            for entry in os.listdir(trash):
                _remove(trash, entry)

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
        """Open a directory below the root, one step after the other, following no link.

        Raises: TargetTaken when a symbolic link is in the way.
        """
        current = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if create:
                    _make_directory(current, part)
                below = _open_directory(current, part)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)


def _parts_of(path: str) -> list[str]:
    """Split a path below a directory of ours. Names are checked long before; this is the last door.

    Raises: ValueError when it would lead out of it.
    """
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(f"{path!r} is no path below a directory")
    return parts


def _make_directory(above: int, name: str) -> None:
    """Make a directory unless it is there; its entry is on disk when this returns."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=above)
        os.fsync(above)


def _open_directory(above: int, name: str) -> int:
    """Open one directory inside another.

    Raises: TargetTaken when it is a symbolic link.
    """
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=above)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and _mode(above, name, of=stat.S_ISLNK):
            raise TargetTaken(f"{name} on the volume is a symbolic link: it is not followed") from error
        raise


@contextmanager
def _directory(above: int, name: str) -> Iterator[int]:
    """Open one directory inside another for the length of a block."""
    descriptor = _open_directory(above, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mode(directory: int, name: str, *, of: Callable[[int], bool]) -> bool:
    """Tell whether an entry is there and of a kind itself, e.g. stat.S_ISDIR: what a link leads to does not count."""
    try:
        return of(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_set(directory: int) -> bool:
    """Tell whether a directory is a set: it has a manifest, or the marker of an earlier kind of set."""
    return _mode(directory, MANIFEST_NAME, of=lambda _: True) or _mode(directory, HIDDEN, of=stat.S_ISREG)


def _set_inside(directory: int, *, levels: int = MAX_SEGMENTS) -> str | None:
    """Find a set below a directory, so many levels down; None when there is none."""
    for entry in sorted(os.listdir(directory)):
        if levels and _mode(directory, entry, of=stat.S_ISDIR):
            with _directory(directory, entry) as below:
                if _is_set(below):
                    return entry
                if (deeper := _set_inside(below, levels=levels - 1)) is not None:
                    return f"{entry}/{deeper}"
    return None


def _check_alone(parent: int, entry: str, name: str) -> None:
    """Make sure that a directory that is no set itself has none inside.

    Raises: TargetTaken.
    """
    if _mode(parent, entry, of=stat.S_ISDIR):
        with _directory(parent, entry) as target:
            if not _is_set(target) and (inside := _set_inside(target)) is not None:
                raise TargetTaken(f"{name} on the volume has the set {name}/{inside} inside")


def _check_free(parent: int, entry: str, name: str, *, replace: bool) -> None:
    """Make sure that nothing is at a set's place but an empty directory, or a set that may be replaced.

    Raises: TargetTaken.
    """
    if not _mode(parent, entry, of=lambda _: True):
        return
    if not _mode(parent, entry, of=stat.S_ISDIR):
        is_link = _mode(parent, entry, of=stat.S_ISLNK)
        raise TargetTaken(
            f"{name} on the volume is " + ("a symbolic link: it is not followed" if is_link else "a file")
        )
    _check_alone(parent, entry, name)
    with _directory(parent, entry) as target:
        is_set = _mode(target, MANIFEST_NAME, of=stat.S_ISREG)
        if not is_set and os.listdir(target):
            raise TargetTaken(f"{name} on the volume is a directory that this server did not install")
    if is_set and not replace:
        raise TargetTaken(f"{name} on the volume is a set already")


def _link(origin: int, source: str, directory: int, name: str, *, size_bytes: int) -> bool:
    """Give a regular file of this size a second name, and make sure that it is that file's; False when it is none."""
    wanted = os.stat(source, dir_fd=origin, follow_symlinks=False)
    if not stat.S_ISREG(wanted.st_mode) or wanted.st_size != size_bytes:
        return False
    with suppress(FileExistsError):
        os.link(source, name, src_dir_fd=origin, dst_dir_fd=directory, follow_symlinks=False)
        os.fsync(directory)
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if os.path.samestat(wanted, found):
        return True
    if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
        _remove(directory, name)
    return False


def _exchanged(staging: int, parent: int, entry: str, trash: int) -> bool:
    """Swap the staged files with the set that is at their place, and move that to the trash; False: not done."""
    try:
        if not exchange(FILES, entry, first_directory=staging, second_directory=parent):
            logger.warning("the volume cannot exchange two directories: a set that is replaced is away for a moment")
            return False
    except FileNotFoundError:
        return False
    os.fsync(parent)
    os.rename(FILES, str(new_id()), src_dir_fd=staging, dst_dir_fd=trash)
    return True


@contextmanager
def _moved_aside(parent: int, entry: str, trash: int) -> Iterator[None]:
    """Move what is at a place to the trash, and back again when the block does not succeed."""
    aside = str(new_id())
    try:
        os.rename(entry, aside, src_dir_fd=parent, dst_dir_fd=trash)
    except FileNotFoundError:
        yield
        return
    try:
        yield
    except BaseException:
        os.rename(aside, entry, src_dir_fd=trash, dst_dir_fd=parent)
        raise


def _remove(above: int, name: str) -> None:
    """Delete an entry and all below it. What somebody else deletes meanwhile is fine, and no link is followed."""
    with suppress(FileNotFoundError):
        if not _mode(above, name, of=stat.S_ISDIR):
            os.unlink(name, dir_fd=above)
            return
        with _directory(above, name) as directory:
            for entry in os.listdir(directory):
                _remove(directory, entry)
        os.rmdir(name, dir_fd=above)


def _read(directory: int, name: str, *, limit: int) -> bytes | None:
    """Read a small file; None when it is not there.

    Raises: ValueError when it is larger than it can be, or no regular file itself.
    """
    try:
        # Without O_NONBLOCK the open of a pipe would wait for somebody to write.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{name} is a symbolic link: it is not followed") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{name} is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ValueError(f"{name} is larger than it can be")
    return data


def _write_whole(directory: int, name: str, data: bytes) -> None:
    """Replace a small file by one rename; its bytes are on disk before."""
    temporary = f".{name}.new"
    _remove(directory, temporary)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
