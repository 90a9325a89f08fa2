"""What one process does for all: send what was not sent, and take back what was left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from actors import broker as lanes
from actors.dispatcher import Dispatcher
from actors.leases import RENEWALS_PER_LEASE
from actors.reconciler import Reconciler
from core.bus import JOURNAL, Bus
from core.settings import Settings
from db.engine import Database

DISPATCH_SECONDS = 1.0


@asynccontextmanager
async def running_sync(settings: Settings) -> AsyncIterator[None]:
    """Run the dispatcher and the reconciler for the length of a block."""
    async with AsyncExitStack() as opened:
        database = Database(settings.database)
        opened.push_async_callback(database.close)
        bus = await opened.enter_async_context(Bus(settings.redis).running())
        database.after_events = partial(bus.publish, JOURNAL)
        broker = lanes.build(settings.redis)
        dispatcher = Dispatcher(database, broker, interval_seconds=DISPATCH_SECONDS)
        reconciler = Reconciler(database, bus, interval_seconds=settings.lease_seconds / RENEWALS_PER_LEASE)
        tasks = [asyncio.create_task(dispatcher.run()), asyncio.create_task(reconciler.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
