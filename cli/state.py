"""The state directory of `serve`: made for its owner alone, and used by one `serve` at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import SettingsError

VARIABLE = "MODEL_MANAGER_STATE_DIR"
LOCK_NAME = "serve.lock"


def prepare(state_dir: Path) -> Path:
    """Make the state directory where it is missing and return its absolute path.

    A directory that is there already keeps the mode that somebody gave it.
    Raises: SettingsError when there is no such directory to be had.
    """
    path = state_dir.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        return path.resolve(strict=True)
    except FileExistsError as error:
        raise SettingsError(
            f"{VARIABLE} is not usable: {error.filename} is a file, and it must be a directory"
        ) from None
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"{VARIABLE} is not usable: {path} cannot be made ({_reason(error)})") from None


@contextlib.contextmanager
def hold(state_dir: Path) -> Iterator[int | None]:
    """Hold the directory's lock, which the system lets go when this process ends in whatever way.

    Yields: the pid of an earlier `serve` that did not stop cleanly; None when it did or there was none.
    Raises: SettingsError when another `serve` holds it, or the directory cannot be written.
    """
    path = state_dir / LOCK_NAME
    try:
        # Python opens files so that children do not inherit them: a child that outlives us holds nothing.
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(f"{VARIABLE} is not usable: {state_dir} cannot be written ({_reason(error)})") from None
    try:
        _take(lock, state_dir=state_dir)
        left_by = _read_pid(lock)
        _write_pid(lock, pid=os.getpid())
        try:
            yield left_by
        finally:
            _write_pid(lock, pid=None)
    finally:
        os.close(lock)


def _take(lock: int, *, state_dir: Path) -> None:
    """Lock the open file or say who holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _read_pid(lock)
        holder = f"process {pid}" if pid else "another process"
        raise SettingsError(
            f"{state_dir} is in use by a `model-manager serve` that runs already ({holder}): stop it, or set"
            f" {VARIABLE} to another directory"
        ) from None
    except OSError as error:
        raise SettingsError(f"{VARIABLE} is not usable: {state_dir} cannot be locked ({_reason(error)})") from None


def _read_pid(lock: int) -> int | None:
    """Read who wrote the lock last; None when it is empty."""
    text = os.pread(lock, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _write_pid(lock: int, *, pid: int | None) -> None:
    """Write who holds the lock; None empties it.

    A full disk takes nothing away from the lock itself: the pid is only for the reader.
    """
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        if pid is not None:
            os.pwrite(lock, f"{pid}\n".encode(), 0)


def _reason(error: Exception) -> str:
    """Say what the system said, without its number and path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
