"""The bus: what one process publishes, the others learn of; and what happens while Redis does not play along."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from core import bus as bus_module
from core.bus import ALL_JOBS, CHANNEL, MAX_PENDING_TOPICS, Bus, Changes, Subscription, check, job_topic
from core.errors import SettingsError
from tests.servers.valkey import ValkeyServer

QUIET = Changes({}, must_catch_up=True)


async def until(is_so: Callable[[], bool], *, within_seconds: float = 15.0) -> None:
    async with asyncio.timeout(within_seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for knows nothing of us
            await asyncio.sleep(0.005)


@asynccontextmanager
async def live(url: str) -> AsyncIterator[Bus]:
    async with Bus(url).running() as running:
        await until(lambda: running.is_live)
        yield running


@pytest.fixture
async def ours(valkey: ValkeyServer) -> AsyncIterator[Bus]:
    async with live(valkey.url) as running:
        yield running


@pytest.fixture
async def theirs(valkey: ValkeyServer) -> AsyncIterator[Bus]:
    async with live(valkey.url) as running:
        yield running


async def next_of(subscription: Subscription, *, within_seconds: float = 5.0) -> Changes:
    async with asyncio.timeout(within_seconds):
        return await subscription.next()


async def is_silent(subscription: Subscription) -> bool:
    try:
        await next_of(subscription, within_seconds=0.2)
    except TimeoutError:
        return True
    return False


def connections(server: ValkeyServer) -> int:
    """How many clients the server has, the one that asks left out."""
    return server.command("CLIENT", "LIST").decode().count("id=") - 1


# ---------------------------------------------------------------- delivery


async def test_what_one_publishes_the_other_and_itself_learn_of(ours: Bus, theirs: Bus) -> None:
    with ours.subscribe("job:1") as here, theirs.subscribe("job:1") as there:
        ours.publish("job:1", {"bytes": 5})

        assert [await next_of(here), await next_of(there)] == [
            Changes({"job:1": {"bytes": 5}}, must_catch_up=False)
        ] * 2


async def test_a_subscriber_hears_its_topic_or_all_that_begin_alike(ours: Bus, theirs: Bus) -> None:
    with theirs.subscribe("job:1") as one, theirs.subscribe(ALL_JOBS) as every, theirs.subscribe("job:") as none:
        for topic in ("job:2", "log:1", "job:1", "jobs", "job:11"):
            ours.publish(topic, {"of": topic})
        await asyncio.sleep(0.2)

        assert (await next_of(one)).newest == {"job:1": {"of": "job:1"}}
        assert (await next_of(every)).newest == {topic: {"of": topic} for topic in ("job:2", "job:1", "job:11")}
        assert await is_silent(none)


async def test_only_the_newest_of_a_topic_is_kept(ours: Bus, theirs: Bus) -> None:
    with theirs.subscribe(ALL_JOBS) as subscription:
        for number in range(100):
            ours.publish("job:1", {"number": number})
            ours.publish("job:2", {"number": -number})
            if number % 10 == 0:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)

        newest = {"job:1": {"number": 99}, "job:2": {"number": -99}}
        assert await next_of(subscription) == Changes(newest, must_catch_up=False)
        assert await is_silent(subscription)


@pytest.mark.parametrize("pause_seconds", [0.0, 0.1])
async def test_a_call_to_read_is_not_lost_behind_progress(ours: Bus, theirs: Bus, pause_seconds: float) -> None:
    with theirs.subscribe("job:1") as subscription:
        ours.publish("job:1", {"number": 1})
        ours.publish("job:1")
        await asyncio.sleep(pause_seconds)
        ours.publish("job:1", {"number": 2})
        await asyncio.sleep(0.2)

        assert await next_of(subscription) == Changes({"job:1": {}}, must_catch_up=False)
        ours.publish("job:1", {"number": 3})
        assert (await next_of(subscription)).newest == {"job:1": {"number": 3}}


async def test_whoever_is_too_slow_is_told_to_catch_up_and_keeps_little(ours: Bus, theirs: Bus) -> None:
    with theirs.subscribe(ALL_JOBS) as slow, theirs.subscribe("job:7") as other:
        for number in range(MAX_PENDING_TOPICS + 1):
            ours.publish(job_topic(number), {"number": number})
        await asyncio.sleep(0.3)

        assert await next_of(slow) == QUIET
        assert await next_of(other) == Changes({"job:7": {"number": 7}}, must_catch_up=False)
        ours.publish(job_topic(1), {"again": True})
        assert await next_of(slow) == Changes({"job:1": {"again": True}}, must_catch_up=False)


async def test_what_none_of_ours_has_sent_is_passed_over(
    ours: Bus, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with ours.subscribe("job:1") as subscription:
        for garbage in (
            "",
            "null",
            "[]",
            "{",
            '{"topic": 1, "data": {}}',
            '{"topic": "job:1"}',
            '{"topic": "job:1", "data": 5}',
        ):
            valkey.command("PUBLISH", CHANNEL, garbage)
        ours.publish("job:1", {"number": 1})

        assert (await next_of(subscription)).newest == {"job:1": {"number": 1}}
    assert len([record for record in caplog.records if "no message of ours" in record.message]) == 7


async def test_a_subscriber_that_has_left_is_forgotten(ours: Bus) -> None:
    for _ in range(100):
        with ours.subscribe("job:1"):
            pass

    assert len(ours._subscriptions) == 0


# ---------------------------------------------------------------- Redis away


async def test_a_restart_of_redis_heals_and_wakes_everybody(own_valkey: ValkeyServer) -> None:
    async with live(own_valkey.url) as one, live(own_valkey.url) as two:
        with two.subscribe("job:1") as subscription:
            own_valkey.kill()
            await until(lambda: not (one.is_live or two.is_live))
            fallen = await next_of(subscription)
            own_valkey.start()
            await until(lambda: one.is_live and two.is_live)
            risen = await next_of(subscription)

            one.publish("job:1", {"number": 1})

            changes = await next_of(subscription)
            while not changes.newest:
                changes = await next_of(subscription)
        assert (fallen, risen) == (QUIET, QUIET)
        assert changes.newest == {"job:1": {"number": 1}}


async def test_without_redis_subscribers_are_sent_to_the_database_soon() -> None:
    async with Bus(f"redis://127.0.0.1:{closed_port()}/0").running() as alone:
        with alone.subscribe("job:1") as subscription:
            began = time.monotonic()
            alone.publish("job:1", {"number": 1})
            found = [await next_of(subscription) for _ in range(3)]

        assert found == [QUIET] * 3
        assert time.monotonic() - began < 3 * bus_module.DEGRADED_PATIENCE_SECONDS + 1
        assert not alone.is_live


async def test_a_redis_that_swallows_everything_holds_up_no_publisher() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        async with Bus(f"redis://127.0.0.1:{hole.getsockname()[1]}/0").running() as held:
            began = time.monotonic()
            for number in range(10_000):
                held.publish(job_topic(number), {"number": number})
            took_seconds = time.monotonic() - began
            lags = []
            for _ in range(20):
                at = time.monotonic()
                await asyncio.sleep(0.01)
                lags.append(time.monotonic() - at)

            assert took_seconds < 0.5
            assert max(lags) < 0.5
            assert len(held._outgoing) <= bus_module.MAX_QUEUED_MESSAGES
            began = time.monotonic()
            with pytest.raises((TimeoutError, OSError)):
                await held.ping()
            assert time.monotonic() - began < bus_module.CONNECT_TIMEOUT_SECONDS + 1


async def test_redis_that_comes_late_is_found(own_valkey: ValkeyServer) -> None:
    own_valkey.kill()
    async with Bus(own_valkey.url).running() as early:
        with early.subscribe("job:1") as subscription:
            await asyncio.sleep(0.3)
            assert not early.is_live
            own_valkey.start()
            await until(lambda: early.is_live)
            while (await next_of(subscription)) != QUIET:
                pass
            early.publish("job:1", {"number": 1})

            changes = await next_of(subscription)
            while not changes.newest:
                changes = await next_of(subscription)
        assert changes.newest == {"job:1": {"number": 1}}


async def test_the_check_before_the_start_tells_the_place_and_no_password(valkey: ValkeyServer) -> None:
    await check(valkey.url)
    port = closed_port()

    with pytest.raises(SettingsError) as refused:
        await check(f"redis://:secret@127.0.0.1:{port}/0")

    assert str(refused.value).startswith(f"Redis at 127.0.0.1:{port} cannot be used: ")
    assert "secret" not in str(refused.value)


# ---------------------------------------------------------------- the end


async def test_nothing_is_left_when_a_bus_closes(own_valkey: ValkeyServer) -> None:
    tasks, clients = asyncio.all_tasks(), connections(own_valkey)

    for _ in range(5):
        async with live(own_valkey.url) as running:
            with running.subscribe("job:1") as subscription:
                running.publish("job:1", {"number": 1})
                await next_of(subscription)
                await running.ping()

    assert asyncio.all_tasks() == tasks
    await until(lambda: connections(own_valkey) == clients)
    gc.collect()


async def test_a_bus_closes_at_once_whatever_redis_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        tasks = asyncio.all_tasks()
        began = time.monotonic()
        async with Bus(f"redis://127.0.0.1:{hole.getsockname()[1]}/0").running() as held:
            held.publish("job:1")
            await asyncio.sleep(0.1)

        assert time.monotonic() - began < 2
        assert asyncio.all_tasks() == tasks


def closed_port() -> int:
    """A port that refuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
