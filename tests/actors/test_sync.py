"""One active `sync`: others wait, take over when it dies or stops, and never work at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.sync import Duty
from db.engine import Database

LEASE_SECONDS = 1.5


async def idle() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def candidate(database: Database, holder: str) -> AsyncIterator[tuple[Duty, asyncio.Task[None]]]:
    duty = Duty(database, [idle], holder=holder, lease_seconds=LEASE_SECONDS)
    task = asyncio.create_task(duty.run())
    try:
        yield duty, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await duty.stop()


async def until_active(duty: Duty, *, seconds: float = 5 * LEASE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not duty.is_active:  # noqa: ASYNC110 - what is watched is a property
            await asyncio.sleep(0.01)


async def test_one_is_active_and_the_other_waits(database: Database) -> None:
    async with candidate(database, "a") as (first, _):
        await until_active(first)
        async with candidate(database, "b") as (second, _):
            await asyncio.sleep(2 * LEASE_SECONDS)

            assert (first.is_active, second.is_active) == (True, False)


async def test_a_dead_one_s_duty_is_taken_over_when_its_lease_ends(database: Database) -> None:
    async with candidate(database, "a") as (first, task):
        await until_active(first)
        async with candidate(database, "b") as (second, _):
            task.cancel()  # It renews no more and gives nothing back.
            before = second.is_active
            await until_active(second)

    assert not before


async def test_one_that_stops_hands_over_without_waiting_for_the_lease(database: Database) -> None:
    async with candidate(database, "b") as (second, _):
        await until_active(second)
        duty = second
    async with candidate(database, "c") as (third, _):
        await until_active(third, seconds=LEASE_SECONDS)

    assert not duty.is_active
