"""Subscriptions while Redis is away, and after it has come back; a database that goes away under them."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from core.bus import DEGRADED_PATIENCE_SECONDS
from db import jobs
from db.engine import Database
from tests.graph import world
from tests.graph.api import RunningApi, Socket, make_tokens, serving, settings_for
from tests.graph.watching import JOBS, LOG, PROGRESS, bytes_of, on_bus, report, tell, until_live
from tests.graph.world import job_id
from tests.servers.valkey import ValkeyServer

WAITING_LIMIT_SECONDS = 5 * DEGRADED_PATIENCE_SECONDS


@pytest.fixture
async def fragile(database_url: str, database: Database, own_valkey: ValkeyServer) -> AsyncIterator[RunningApi]:
    """An API whose Valkey the test may stop."""
    secrets = await make_tokens(database)
    async with serving(settings_for(database_url, own_valkey.url), secrets=secrets) as running:
        await until_live(running.api.services.bus)
        yield running


async def is_told_late(socket: Socket, state: str) -> bool:
    began = time.monotonic()
    while True:
        found = (await socket.next(within_seconds=WAITING_LIMIT_SECONDS))["jobProgress"]["state"]
        if found == state:
            return time.monotonic() - began < WAITING_LIMIT_SECONDS


async def test_without_redis_changes_arrive_from_the_database(fragile: RunningApi, own_valkey: ValkeyServer) -> None:
    job, claim = await world.running(fragile.database)
    async with fragile.socket() as one, fragile.socket() as all_jobs, fragile.socket() as log:
        await one.subscribe(PROGRESS, id=job_id(job))
        await all_jobs.subscribe(JOBS)
        await log.subscribe(LOG, id=job_id(job))
        assert await bytes_of(one) == ("RUNNING", 0)
        assert (await all_jobs.next())["jobs"]["job"]["state"] == "RUNNING"
        assert [(await log.next())["jobLog"]["message"] for _ in range(2)][1] == "Started by w1, run 1"

        own_valkey.kill()
        await report(fragile.database, claim, 512)
        assert await bytes_of(one) == ("RUNNING", 512)
        await world.succeeded(fragile.database, claim, world.request_for("acme/tiny"))

        assert await is_told_late(one, "SUCCEEDED")
        assert await one.receive() == {"id": "1", "type": "complete"}
        seen = (await all_jobs.next(within_seconds=WAITING_LIMIT_SECONDS))["jobs"]["job"]
        while seen["state"] != "SUCCEEDED":
            seen = (await all_jobs.next(within_seconds=WAITING_LIMIT_SECONDS))["jobs"]["job"]
        assert (await log.next(within_seconds=WAITING_LIMIT_SECONDS))["jobLog"]["message"] == "Published"
        assert await log.receive(within_seconds=WAITING_LIMIT_SECONDS) == {"id": "1", "type": "complete"}


async def test_when_redis_is_back_the_bus_is_live_again(fragile: RunningApi, own_valkey: ValkeyServer) -> None:
    job, claim = await world.running(fragile.database)
    bus = fragile.api.services.bus
    async with fragile.socket() as socket:
        await socket.subscribe(PROGRESS, id=job_id(job))
        assert await bytes_of(socket) == ("RUNNING", 0)
        own_valkey.kill()
        async with asyncio.timeout(10):
            while bus.is_live:  # noqa: ASYNC110 - what is waited for knows nothing of us
                await asyncio.sleep(0.01)

        own_valkey.start()
        await until_live(bus)
        async with on_bus(own_valkey.url) as worker:
            with fragile.counting() as statements:
                tell(worker, claim, 700)
                assert await bytes_of(socket) == ("RUNNING", 700)

    assert [statement for statement in statements if "jobs" in statement] == []


async def test_without_redis_a_mutation_succeeds_and_is_watched(fragile: RunningApi, own_valkey: ValkeyServer) -> None:
    own_valkey.kill()
    query = 'mutation { installWeights(input: {repoId: "acme/tiny"}) { outcome job { id state } } }'

    made = (await fragile.data(query))["installWeights"]
    async with fragile.socket() as socket:
        await socket.subscribe(PROGRESS, id=made["job"]["id"])
        first = await bytes_of(socket)
        async with fragile.database.read() as session:
            (row,) = await jobs.unended(session)
        await jobs.cancel(fragile.database, row.id, actor="anna")

        assert await is_told_late(socket, "CANCELLED")
    assert (made["outcome"], first[0]) == ("STARTED", "QUEUED")
