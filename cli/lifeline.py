"""What ties a child of `serve` to it: a pipe on standard input that ends when `serve` does, however it ends.

A process group or a session does not help against kill -9; the end of a pipe is seen on every Unix.
"""

import contextlib
import os
import signal
import threading
import time

VARIABLE = "MODEL_MANAGER_LIFELINE"
STDIN = 0


def watch(*, fd: int = STDIN, grace_seconds: float = 10.0) -> None:
    """Ask this process to stop as soon as `fd` ends, and end it hard when that takes longer than the grace."""
    threading.Thread(target=_stop_at_end, args=(fd, grace_seconds), name="lifeline", daemon=True).start()


def _stop_at_end(fd: int, grace_seconds: float) -> None:
    """Read `fd` to its end, then stop the process.

    `os.read` rather than `sys.stdin`: a daemon thread inside `sys.stdin` holds its lock while the interpreter ends.
    """
    with contextlib.suppress(OSError):
        while os.read(fd, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds)
    os._exit(1)
