"""What one process does for all: send what was not sent, and take back what was left behind.

Several may run; the one that holds the lease is active, and another takes over in under 15 s when it dies.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from actors import broker as lanes
from actors.dispatcher import Dispatcher
from actors.leases import RENEWALS_PER_LEASE
from actors.reconciler import Reconciler
from actors.retention import Retention
from core.bus import JOURNAL, Bus
from core.runtime_settings import defaults_of
from core.settings import Settings
from db import process_leases
from db.engine import Database

DUTY = "sync"
DUTY_LEASE_SECONDS = 10.0
DISPATCH_SECONDS = 1.0

logger = logging.getLogger(__name__)


@asynccontextmanager
async def running_sync(settings: Settings, *, duty_lease_seconds: float = DUTY_LEASE_SECONDS) -> AsyncIterator[None]:
    """Run what `sync` does, while this process is the active one, for the length of a block."""
    async with AsyncExitStack() as opened:
        database = Database(settings.database)
        opened.push_async_callback(database.close)
        bus = await opened.enter_async_context(Bus(settings.redis).running())
        database.after_events = partial(bus.publish, JOURNAL)
        defaults = defaults_of(settings)
        broker = lanes.build(settings.redis)
        dispatcher = Dispatcher(database, broker, interval_seconds=DISPATCH_SECONDS, defaults=defaults)
        reconciler = Reconciler(database, bus, interval_seconds=settings.lease_seconds / RENEWALS_PER_LEASE)
        retention = Retention(database, defaults=defaults)
        works = [dispatcher.run, reconciler.run, retention.run]
        holder = f"{socket.gethostname()}:{os.getpid()}:{time.monotonic_ns()}"
        duty = Duty(database, works, holder=holder, lease_seconds=duty_lease_seconds)
        task = asyncio.create_task(duty.run(), name="duty")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await duty.stop()


class Duty:
    """Loops that run only while this process holds a lease. works: functions that run for ever."""

    def __init__(
        self,
        database: Database,
        works: Sequence[Callable[[], Coroutine[None, None, None]]],
        *,
        holder: str,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._works = works
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._held_until = 0.0

    @property
    def is_active(self) -> bool:
        """Whether this process has the duty now."""
        return bool(self._tasks)

    async def run(self) -> None:
        """Ask for the lease four times in its length, for ever; work while it is ours and not a moment longer."""
        while True:
            asked_at = time.monotonic()
            try:
                async with asyncio.timeout(self._lease_seconds / 2):
                    is_ours = await process_leases.hold(
                        self._database, DUTY, holder=self._holder, lease_seconds=self._lease_seconds
                    )
                if is_ours:
                    self._held_until = asked_at + self._lease_seconds
            except Exception as error:  # noqa: BLE001 - the loop outlives every outage
                is_ours = time.monotonic() < self._held_until - self._lease_seconds / 4
                logger.warning("the sync lease could not be asked for", extra={"reason": type(error).__name__})
            if is_ours and not self._tasks:
                logger.info("this sync process is the active one")
                self._tasks = [asyncio.create_task(work()) for work in self._works]
            elif not is_ours and self._tasks:
                logger.warning("this sync process is no longer the active one")
                await self._rest()
            await asyncio.sleep(self._lease_seconds / RENEWALS_PER_LEASE)

    async def stop(self) -> None:
        """End the loops and give the lease back."""
        was_active = self.is_active
        await self._rest()
        if was_active:
            with suppress(Exception):
                async with asyncio.timeout(2):
                    await process_leases.let_go(self._database, DUTY, holder=self._holder)

    async def _rest(self) -> None:
        """End the loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
