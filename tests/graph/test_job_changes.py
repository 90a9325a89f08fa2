"""The subscription to all jobs: those that have not ended, then each change, and where to go on after a cut."""

import base64
from typing import Any

import orjson
from sqlalchemy import update

from core.bus import Bus, job_topic
from db import jobs, runs
from db.engine import Database
from db.tables import Job, Journal
from tests.graph import world
from tests.graph.api import RunningApi, Socket
from tests.graph.watching import JOBS, refusal_of, report, tell
from tests.graph.world import job_id

Seen = tuple[str, str, bool]


async def changes(socket: Socket, count: int) -> list[dict[str, Any]]:
    return [(await socket.next())["jobs"] for _ in range(count)]


async def change(socket: Socket) -> Seen:
    """The id, the state and the match of the next change."""
    (found,) = await changes(socket, 1)
    return seen(found)


def seen(found: dict[str, Any]) -> Seen:
    return found["job"]["id"], found["job"]["state"], found["matches"]


async def cancel(database: Database, job: Job, bus: Bus | None = None) -> None:
    await jobs.cancel(database, job.id, actor="anna")
    if bus is not None:
        bus.publish(job_topic(job.id))


async def test_unended_jobs_come_first_oldest_first_and_each_change_follows(
    api: RunningApi, socket: Socket, bus: Bus
) -> None:
    await world.ready(api.database, "acme/done")
    moving, claim = await world.running(api.database, "acme/moving")
    waiting = await world.queued(api.database, "acme/waiting")
    await socket.subscribe(JOBS)
    first = [await change(socket), await change(socket)]

    tell(bus, claim, 512)
    (progress,) = await changes(socket, 1)
    await world.succeeded(api.database, claim, world.request_for("acme/moving"))
    bus.publish(job_topic(moving.id))
    ended = await change(socket)
    new = await world.queued(api.database, "acme/new")
    bus.publish(job_topic(new.id))
    appeared = await change(socket)

    assert first == [(job_id(moving), "RUNNING", True), (job_id(waiting), "QUEUED", True)]
    assert (seen(progress), progress["job"]["progress"]) == ((job_id(moving), "RUNNING", True), {"bytesDone": 512})
    assert ended == (job_id(moving), "SUCCEEDED", True)
    assert appeared == (job_id(new), "QUEUED", True)
    assert await socket.silent()


async def test_a_job_that_leaves_the_filter_is_told_of_once_more(api: RunningApi, socket: Socket, bus: Bus) -> None:
    one = await world.queued(api.database, "acme/one")
    other, claim = await world.running(api.database, "acme/other")
    await socket.subscribe(JOBS, filter={"states": ["QUEUED"]})
    first = await change(socket)

    tell(bus, claim, 100)
    _, begun = await world.begun(api.database, one)
    bus.publish(job_topic(one.id))
    left = await change(socket)
    tell(bus, begun, 10)
    await cancel(api.database, one, bus)
    await runs.release(api.database, claim, why="The worker stops")
    bus.publish(job_topic(other.id))
    came = await change(socket)

    assert (first, left) == ((job_id(one), "QUEUED", True), (job_id(one), "RUNNING", False))
    assert came == (job_id(other), "QUEUED", True)
    assert await socket.silent()


async def test_progress_of_all_jobs_never_goes_back(api: RunningApi, socket: Socket, bus: Bus) -> None:
    job, claim = await world.running(api.database)
    await socket.subscribe(JOBS)
    done = [(await changes(socket, 1))[0]["job"]["progress"]["bytesDone"]]

    for told, written in ((100, 50), (400, 300), (900, 600)):
        tell(bus, claim, told)
        done.append((await changes(socket, 1))[0]["job"]["progress"]["bytesDone"])
        await report(api.database, claim, written)
        bus.publish(job_topic(job.id))
        done.append((await changes(socket, 1))[0]["job"]["progress"]["bytesDone"])

    assert done == [0, 100, 100, 400, 400, 900, 900]


async def test_a_cursor_replays_jobs_that_ended_meanwhile(api: RunningApi) -> None:
    before = await world.queued(api.database, "acme/before")
    stays = await world.queued(api.database, "acme/stays")
    async with api.socket() as socket:
        await socket.subscribe(JOBS)
        cursor = (await changes(socket, 2))[-1]["cursor"]
    await cancel(api.database, before)
    quick = await world.queued(api.database, "acme/quick")
    await cancel(api.database, quick)

    async with api.socket() as socket:
        await socket.subscribe(JOBS, after=cursor)
        replayed = await changes(socket, 3)
        assert await socket.silent()

    assert [seen(one) for one in replayed] == [
        (job_id(before), "CANCELLED", True),
        (job_id(stays), "QUEUED", True),
        (job_id(quick), "CANCELLED", True),
    ]
    async with api.socket() as socket:
        await socket.subscribe(JOBS, after=replayed[-1]["cursor"])
        assert await change(socket) == (job_id(stays), "QUEUED", True)
        assert await socket.silent()


async def test_a_cut_in_the_middle_of_changes_that_came_at_once_loses_none(api: RunningApi) -> None:
    made = [await world.queued(api.database, f"acme/n{number}") for number in range(4)]
    async with api.socket() as socket:
        await socket.subscribe(JOBS)
        cursor = (await changes(socket, 4))[-1]["cursor"]
    for job in made:
        await cancel(api.database, job)
    ended: set[str] = set()

    for _ in range(20):
        async with api.socket() as socket:
            await socket.subscribe(JOBS, after=cursor)
            replayed = await changes(socket, 2 if len(ended) < 2 else 4)
            ended |= {one["job"]["id"] for one in replayed}
            cursor = replayed[-1]["cursor"]
        if len(ended) == 4:
            break

    assert ended == {job_id(job) for job in made}


async def test_changes_behind_a_cursor_that_do_not_match_are_told_once(
    api: RunningApi, socket: Socket, bus: Bus
) -> None:
    leaves = await world.queued(api.database, "acme/leaves")
    never, claim = await world.running(api.database, "acme/never")
    async with api.socket() as other:
        await other.subscribe(JOBS)
        cursor = (await changes(other, 2))[-1]["cursor"]
    _, began = await world.begun(api.database, leaves)

    await socket.subscribe(JOBS, after=cursor, filter={"states": ["QUEUED"]})
    told = await change(socket)
    tell(bus, claim, 100)
    tell(bus, began, 100)
    await cancel(api.database, never, bus)

    assert told == (job_id(leaves), "RUNNING", False)
    assert await socket.silent()


async def test_a_cursor_of_another_journal_starts_from_all_that_is_known(api: RunningApi, socket: Socket) -> None:
    ended = await world.queued(api.database, "acme/ended")
    async with api.socket() as other:
        await other.subscribe(JOBS)
        cursor = (await changes(other, 1))[-1]["cursor"]
    await cancel(api.database, ended)
    async with api.database.write() as session:
        await session.execute(update(Journal).values(epoch="another"))
        await session.commit()

    await socket.subscribe(JOBS, after=cursor)

    assert await change(socket) == (job_id(ended), "CANCELLED", True)


async def test_garbage_for_a_cursor_or_a_filter_is_an_error(api: RunningApi) -> None:
    def made_up(*values: Any) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")

    for after in ("", "x", "\0", made_up("jobs", "e", 1), made_up("journal", "e", "1"), made_up("journal", "e", 2**63)):
        async with api.socket() as socket:
            await socket.subscribe(JOBS, after=after)

            assert (await refusal_of(socket))["extensions"] == {"code": "INVALID", "argument": ["after"]}, after
    async with api.socket() as socket:
        await socket.subscribe(JOBS, filter={"subjectId": "\0"})

        assert (await refusal_of(socket))["extensions"] == {"code": "INVALID", "argument": ["filter", "subjectId"]}
