"""What the api, worker and sync processes have in common: how they begin and how they end."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from cli import lifeline
from core import bus
from core.errors import SettingsError
from core.metrics import MetricsServer
from core.settings import Settings
from db.engine import Database
from db.migrate import is_current


async def check_surroundings(settings: Settings) -> None:
    """Make sure that database and Redis are there before anything starts.

    Raises: SettingsError in a sentence.
    """
    database = Database(settings.database)
    try:
        await database.check()
        if not await is_current(database):
            raise SettingsError("The database's tables are not those of this version: run `model-manager migrate`")
    finally:
        await database.close()
    await bus.check(settings.redis)


def run_until_stopped(settings: Settings, block: AbstractAsyncContextManager[None]) -> int:
    """Run a block of a process until SIGTERM or SIGINT asks it to stop."""
    return run_async(_run(settings, block))


def run_async(coroutine: Coroutine[Any, Any, int]) -> int:
    """Run a process's main coroutine on the fast event loop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run(coroutine)
    return int(uvloop.run(coroutine))


async def _run(settings: Settings, block: AbstractAsyncContextManager[None]) -> int:
    """Wait for a signal inside the block."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    watch_lifeline()
    await check_surroundings(settings)
    with MetricsServer(host=settings.host, port=settings.metrics_port):
        async with block:
            await stopped.wait()
    return 0


def watch_lifeline() -> None:
    """End with the process that started this one, where that is `serve`."""
    if os.environ.get(lifeline.VARIABLE):
        lifeline.watch()
