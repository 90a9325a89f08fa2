"""One of our programs as a process of its own: started, waited for by what it prints, and ended by a signal."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Program:
    """A running program and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], *, printed: Path) -> None:
        self.process = process
        self._printed = printed

    @property
    def printed(self) -> str:
        """Everything that it has printed, on either output."""
        return self._printed.read_text()

    def find(self, pattern: str, *, within_seconds: float = 30.0) -> str:
        """Wait until it prints what matches and return the pattern's one group."""
        deadline = time.monotonic() + within_seconds
        while (found := re.search(pattern, self.printed)) is None:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.printed}"
            assert time.monotonic() < deadline, f"nothing like {pattern!r} was printed:\n{self.printed}"
            time.sleep(0.05)
        return found[1]

    def stop(self, *, number: signal.Signals = signal.SIGTERM, within_seconds: float = 20.0) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_seconds)


@contextmanager
def running_program(*arguments: str, printed: Path, settings: dict[str, str]) -> Iterator[Program]:
    """Run `python -m …` with these settings and none of the caller's; at the end of the block it is ended.

    printed: the file that takes what it prints.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODEL_MANAGER_")}
    environment = {**inherited, **{f"MODEL_MANAGER_{name}": value for name, value in settings.items()}}
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Program(process, printed=printed)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
