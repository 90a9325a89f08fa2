"""A worker process: one Dramatiq worker a lane, the runner that they hand jobs to, leases and signs of life.

Dramatiq's threads only wait: every job is a coroutine on the process's one event loop, and its blocking parts have
threads of their own.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import UUID

from dramatiq import Worker as LaneWorker

from actors import broker as lanes
from actors.dispatcher import Dispatcher
from actors.leases import LeaseKeeper
from actors.presence import Presence
from actors.runner import Runner
from actors.settings_watch import SettingsWatch
from actors.tools import InForce, Tools
from core.bus import JOURNAL, Bus
from core.hub import Hub
from core.job import Lane
from core.runtime_settings import defaults_of
from core.settings import Settings
from core.storage import WeightsVolume
from db.engine import Database

THREADS: dict[Lane, int] = {Lane.TRANSFERS: 4, Lane.DEPLOYS: 8, Lane.TASKS: 4}
POLL_MILLISECONDS = 50
STOP_SECONDS = 8.0

logger = logging.getLogger(__name__)


@asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[None]:
    """Run a worker for the length of a block; at its end every running job is given back."""
    async with AsyncExitStack() as opened:
        database = Database(settings.database)
        opened.push_async_callback(database.close)
        bus = await opened.enter_async_context(Bus(settings.redis).running())
        database.after_events = partial(bus.publish, JOURNAL)
        defaults = defaults_of(settings)
        volume = WeightsVolume(settings.weights)
        await asyncio.to_thread(volume.prepare)
        tools = Tools(
            database=database,
            bus=bus,
            hub=Hub(endpoint=settings.hub_endpoint, token=settings.hub_secret()),
            volume=volume,
            in_force=InForce(defaults),
        )
        worker_id = f"{socket.gethostname()}:{os.getpid()}:{int(time.time())}"
        leases = LeaseKeeper(settings.database, lease_seconds=settings.lease_seconds)
        loop = asyncio.get_running_loop()
        dispatcher = Dispatcher(database, lanes.build(settings.redis), interval_seconds=None, defaults=defaults)
        runner = Runner(tools, worker_id=worker_id, leases=leases, after_each=dispatcher.wake)
        presence = Presence(tools, worker_id=worker_id, lanes=list(THREADS), leases=leases)
        watch = SettingsWatch(tools, leases, defaults=defaults)
        tasks = [asyncio.create_task(work) for work in (presence.run(), dispatcher.run(), watch.run())]
        leases.start()
        workers = await asyncio.to_thread(_start_lanes, settings.redis, partial(_hand_over, runner=runner, loop=loop))
        logger.info("worker ready", extra={"worker": worker_id, "weights": str(settings.weights)})
        try:
            yield
        finally:
            await _stop(runner, leases, presence, workers, tasks)


def _hand_over(job_id: str, *, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
    """Run a job on the process's loop and wait, in a lane's thread, until it has ended."""
    try:
        parsed = UUID(job_id)
    except ValueError:
        logger.warning("a message holds no job's id; it is dropped")
        return
    try:
        asyncio.run_coroutine_threadsafe(runner.run(parsed), loop).result()
    except Exception:
        logger.exception("a run ended in an error; its lease will run out", extra={"job": job_id})


def _start_lanes(redis_url: str, run: Callable[[str], None]) -> list[LaneWorker]:
    """Start a Dramatiq worker per lane, each with a broker of its own: two workers on one disturb each other.

    Each takes as many messages as it has threads: by default a busy worker hoards messages that others could run.
    """
    workers = []
    for lane, threads in THREADS.items():
        broker = lanes.build(redis_url, run, served=[lane])
        worker = LaneWorker(broker, worker_timeout=POLL_MILLISECONDS, worker_threads=threads)
        worker.queue_prefetch = threads
        worker.start()
        workers.append(worker)
    return workers


async def _stop(
    runner: Runner,
    leases: LeaseKeeper,
    presence: Presence,
    workers: list[LaneWorker],
    tasks: list[asyncio.Task[None]],
) -> None:
    """Give the jobs back first, then end the threads."""
    await runner.stop(within_seconds=STOP_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(asyncio.to_thread(worker.stop, timeout=1000) for worker in workers), return_exceptions=True)
    leases.stop()
    try:
        async with asyncio.timeout(2):
            await presence.leave()
    except Exception as error:  # noqa: BLE001 - the list forgets it in a minute anyway
        logger.warning("the worker could not be signed off", extra={"reason": type(error).__name__})
