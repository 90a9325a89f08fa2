"""The overview: everything in one, first as it is and then whole after each change."""

import asyncio
import time
from itertools import pairwise
from typing import Any

from core.runtime_settings import RuntimeSettings, SettingName
from core.token import Scope
from db import runtime_settings, volumes, workers
from tests.graph import world
from tests.graph.api import RunningApi, Socket

FIELDS = """
id observedAt needsAttention queue { queued running failedLastDay workers { id } }
volume { capacityBytes usedBytes reservedBytes } components { name state }
"""
OVERVIEW = f"{{ overview {{ {FIELDS} }} }}"
WATCH = f"subscription {{ overview {{ {FIELDS} }} }}"
GIB = 1 << 30


async def read(api: RunningApi) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(OVERVIEW, token=api.tokens[Scope.READ]))["overview"]
    return found


async def told(socket: Socket) -> dict[str, Any]:
    found: dict[str, Any] = (await socket.next())["overview"]
    return found


async def appear(api: RunningApi) -> None:
    """A worker says that it is alive."""
    await workers.beat(api.database, "w1", host="here", version="1", lanes=["tasks"], running_jobs=0)


async def test_everything_is_in_one_answer(api: RunningApi, socket: Socket) -> None:
    await appear(api)
    await volumes.observe(api.database, path="/weights", capacity_bytes=100 * GIB, free_bytes=60 * GIB)
    await world.failed(api.database, "acme/bad")
    await world.queued(api.database, "acme/tiny")

    found = await read(api)

    assert found.pop("observedAt").endswith("Z")
    assert found == {
        "id": "Overview:server",
        "needsAttention": 1,
        "queue": {"queued": 1, "running": 0, "failedLastDay": 1, "workers": [{"id": "Worker:w1"}]},
        "volume": {"capacityBytes": 100 * GIB, "usedBytes": 40 * GIB, "reservedBytes": 1075},
        "components": [{"name": name, "state": "OK"} for name in ("DATABASE", "REDIS", "WORKERS")],
    }


async def test_a_missing_worker_and_a_full_volume_need_attention(api: RunningApi, socket: Socket) -> None:
    without_worker = await read(api)
    await appear(api)
    well = await read(api)
    await volumes.observe(api.database, path="/weights", capacity_bytes=100, free_bytes=15)
    full = await read(api)
    change = {SettingName.VOLUME_ALERT_PERCENT: 86}
    await runtime_settings.change(api.database, change, defaults=RuntimeSettings(), actor="anna")
    not_full = await read(api)

    found = [one["needsAttention"] for one in (without_worker, well, full, not_full)]
    assert (without_worker["volume"], found) == (None, [1, 0, 1, 0])


async def test_a_watcher_is_told_at_first_and_after_a_change_and_not_without_one(
    api: RunningApi, socket: Socket
) -> None:
    await appear(api)
    await socket.subscribe(WATCH)
    first = await told(socket)
    is_silent = await socket.silent(for_seconds=1.5)

    await world.queued(api.database)
    second = await told(socket)

    assert is_silent
    assert (first["queue"]["queued"], second["queue"]["queued"]) == (0, 1)
    assert first.keys() == second.keys()


async def test_many_changes_are_told_at_most_once_a_second_and_the_last_one_arrives(
    api: RunningApi, socket: Socket
) -> None:
    await socket.subscribe(WATCH)
    await told(socket)
    times = [time.monotonic()]

    async def make() -> None:
        for number in range(30):
            await world.queued(api.database, f"acme/n{number}")
            await asyncio.sleep(0.08)

    making = asyncio.create_task(make())
    queued = 0
    while queued < 30:
        queued = (await told(socket))["queue"]["queued"]
        times.append(time.monotonic())
    await making

    assert all(after - before > 0.8 for before, after in pairwise(times))
    assert len(times) <= 7


async def test_what_changes_without_a_word_is_found_by_looking(api: RunningApi, socket: Socket) -> None:
    await socket.subscribe(WATCH)
    first = await told(socket)

    await appear(api)
    second = await told(socket)

    states = [one["components"][2] for one in (first, second)]
    assert [part["state"] for part in states] == ["DOWN", "OK"]
