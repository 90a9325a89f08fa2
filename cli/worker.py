"""`model-manager worker`."""

from actors.worker import running_worker
from cli.process import run_until_stopped
from core.settings import Settings


def run(settings: Settings) -> int:
    """Run a worker process until it is asked to stop."""
    return run_until_stopped(settings, running_worker(settings))
