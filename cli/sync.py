"""`model-manager sync`."""

from actors.sync import running_sync
from cli.process import run_until_stopped
from core.settings import Settings


def run(settings: Settings) -> int:
    """Run the sync process until it is asked to stop."""
    return run_until_stopped(settings, running_sync(settings))
