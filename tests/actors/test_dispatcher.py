"""Dispatching: what was decided is sent, whatever Redis does meanwhile; a duplicate message costs nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from actors import broker as lanes
from actors.dispatcher import Dispatcher
from core.job import InstallRequest, Lane
from db import admission, outbox
from db.admission import Asker
from db.engine import Database
from tests.servers.valkey import ValkeyServer

JOB_ID = UUID("01930f6e-0000-7000-8000-000000000000")
REQUEST = InstallRequest(repo_id="acme/tiny", revision="main", name="acme/tiny")


async def waiting(database: Database) -> int:
    async with database.read() as session:
        return len(await outbox.waiting(session))


def messages(valkey: ValkeyServer) -> int:
    return int(valkey.command("HLEN", "model-manager:transfers.msgs").removeprefix(b":"))


@asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator[None]:
    task = asyncio.create_task(dispatcher.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_accepted_job_is_sent_down_its_lane_once_and_leaves_the_outbox(
    database: Database, valkey: ValkeyServer
) -> None:
    dispatcher = Dispatcher(database, lanes.build(valkey.url), interval_seconds=None)
    await admission.accept_install(database, REQUEST, plan=None, asker=Asker(name="anna"))

    await dispatcher.dispatch()
    await dispatcher.dispatch()

    assert (messages(valkey), await waiting(database)) == (1, 0)


async def test_with_redis_away_messages_are_kept_and_sent_when_it_is_back(
    database: Database, own_valkey: ValkeyServer
) -> None:
    dispatcher = Dispatcher(database, lanes.build(own_valkey.url), interval_seconds=0.1)
    own_valkey.kill()
    await admission.accept_install(database, REQUEST, plan=None, asker=Asker(name="anna"))

    async with running(dispatcher):
        dispatcher.wake()
        await asyncio.sleep(0.5)
        kept = await waiting(database)
        own_valkey.start()
        async with asyncio.timeout(20):
            while await waiting(database):  # noqa: ASYNC110 - the database is what is watched
                await asyncio.sleep(0.05)

    assert kept == 1
    assert messages(own_valkey) == 1


async def test_a_lane_s_messages_go_to_its_own_queue(valkey: ValkeyServer) -> None:
    broker = lanes.build(valkey.url)

    for lane in Lane:
        lanes.send(broker, lane, JOB_ID)

    for lane in Lane:
        assert valkey.command("HLEN", f"model-manager:{lane}.msgs") == b":1\r\n"
