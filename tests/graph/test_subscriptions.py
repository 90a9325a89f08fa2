"""What can be watched, over real sockets: what is first, then what changes, and nothing lost in between."""

import asyncio

from core.bus import Bus, job_topic
from core.errors import JobErrorCode, JobFailure
from core.job import JobStage, Progress
from core.token import Scope
from db import job_logs, jobs, runs
from db.runs import Claim
from tests.graph import world
from tests.graph.api import RunningApi, Socket
from tests.graph.watching import LOG, PROGRESS, UNKNOWN_JOB, bytes_of, refusal_of, report, tell
from tests.graph.world import job_id

# ---------------------------------------------------------------- jobProgress


async def test_a_job_is_shown_first_and_progress_of_the_bus_follows(api: RunningApi, socket: Socket, bus: Bus) -> None:
    job, claim = await world.running(api.database)

    await socket.subscribe(PROGRESS, id=job_id(job))
    first = await socket.next()
    tell(bus, claim, 256, bytes_per_second=10.0)
    second = await socket.next()

    nothing = {"bytesDone": 0, "bytesTotal": 1024, "fraction": 0.0, "bytesPerSecond": None, "lastByteAt": None}
    assert first["jobProgress"] == {
        "state": "RUNNING",
        "stage": None,
        "message": "Queued",
        "attempt": 0,
        "progress": nothing,
    }
    assert second["jobProgress"] == {
        "state": "RUNNING",
        "stage": "DOWNLOADING",
        "message": "Downloading",
        "attempt": 0,
        "progress": {
            "bytesDone": 256,
            "bytesTotal": 1024,
            "fraction": 0.25,
            "bytesPerSecond": 10.0,
            "lastByteAt": "2026-01-02T00:00:00.000Z",
        },
    }


async def test_progress_never_goes_back_and_the_end_is_told(api: RunningApi, socket: Socket, bus: Bus) -> None:
    job, claim = await world.running(api.database)
    await socket.subscribe(PROGRESS, id=job_id(job))
    seen = [await bytes_of(socket)]

    tell(bus, claim, 700)
    seen.append(await bytes_of(socket))
    await report(api.database, claim, 500)  # The row is behind the bus.
    bus.publish(job_topic(job.id))
    seen.append(await bytes_of(socket))
    tell(bus, Claim(job.id, claim.fence - 1), 100)  # An earlier run that is still talking.
    tell(bus, claim, 800)
    seen.append(await bytes_of(socket))
    await world.succeeded(api.database, claim, world.request_for("acme/tiny"))
    bus.publish(job_topic(job.id))
    seen.append(await bytes_of(socket))

    assert seen == [("RUNNING", 0), ("RUNNING", 700), ("RUNNING", 700), ("RUNNING", 800), ("SUCCEEDED", 1024)]
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_a_run_that_crashed_and_goes_on_does_not_show_less(api: RunningApi, socket: Socket, bus: Bus) -> None:
    job, claim = await world.running(api.database)
    await report(api.database, claim, 500)
    await socket.subscribe(PROGRESS, id=job_id(job))
    seen = [await bytes_of(socket)]
    tell(bus, claim, 700)
    seen.append(await bytes_of(socket))

    await runs.release(api.database, claim, why="The worker stops")
    bus.publish(job_topic(job.id))
    seen.append(await bytes_of(socket))
    _, again = await world.begun(api.database, job)
    tell(bus, again, 600)  # Its start is known from this message alone.
    seen.append(await bytes_of(socket))
    tell(bus, again, 900)
    while seen[-1][1] < 900:
        seen.append(await bytes_of(socket))

    assert [state for state, _ in seen[:4]] == ["RUNNING", "RUNNING", "QUEUED", "RUNNING"]
    assert [count for _, count in seen] == sorted(count for _, count in seen)


async def test_a_state_that_changed_is_not_lost_behind_progress(api: RunningApi, socket: Socket, bus: Bus) -> None:
    job, claim = await world.running(api.database)
    await socket.subscribe(PROGRESS, id=job_id(job))
    assert await bytes_of(socket) == ("RUNNING", 0)

    await jobs.cancel(api.database, job.id, actor="anna")
    bus.publish(job_topic(job.id))
    tell(bus, claim, 900)  # The run does not know it yet, and its message comes right behind.

    assert (await bytes_of(socket))[0] == "CANCELLED"
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_every_state_on_the_way_arrives(api: RunningApi, socket: Socket, bus: Bus) -> None:
    job = await world.queued(api.database)
    await socket.subscribe(PROGRESS, id=job_id(job))
    seen = [(await socket.next())["jobProgress"]["state"]]

    async def next_state() -> str:
        bus.publish(job_topic(job.id))
        found: str = (await socket.next())["jobProgress"]["state"]
        return found

    _, claim = await world.begun(api.database, job)
    seen.append(await next_state())
    failure = JobFailure(JobErrorCode.HUB_UNAVAILABLE, "away", retryable=True)
    await runs.fail(api.database, claim, failure, back_off_seconds=0.0)
    seen.append(await next_state())
    _, claim = await world.begun(api.database, job)
    seen.append(await next_state())
    await runs.fail(api.database, claim, failure, back_off_seconds=None)
    seen.append(await next_state())

    assert seen == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "FAILED"]
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_what_the_api_itself_changes_is_told(api: RunningApi, socket: Socket) -> None:
    job = await world.queued(api.database)
    await socket.subscribe(PROGRESS, id=job_id(job))
    assert await bytes_of(socket) == ("QUEUED", 0)

    await api.data(f'mutation {{ cancelJob(input: {{jobId: "{job_id(job)}"}}) {{ userErrors {{ code }} }} }}')

    assert await bytes_of(socket) == ("CANCELLED", 0)
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_a_job_that_has_ended_is_shown_once(api: RunningApi, socket: Socket) -> None:
    job = await world.ready(api.database)

    await socket.subscribe(PROGRESS, id=job_id(job))

    assert await bytes_of(socket) == ("SUCCEEDED", 1024)
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_unknown_jobs_and_ids_that_are_none_end_in_one_error(api: RunningApi) -> None:
    for query in (PROGRESS, LOG):
        for given, code in (
            (UNKNOWN_JOB, "NOT_FOUND"),
            ("Job:x", "INVALID"),
            ("WeightSet:a", "INVALID"),
            ("", "INVALID"),
        ):
            async with api.socket() as socket:
                await socket.subscribe(query, id=given)

                error = await refusal_of(socket)

            assert error["extensions"]["code"] == code, (given, error)
            assert error["message"]
            assert api.api.sockets.operation_count == 0


async def test_a_bad_token_is_4403(api: RunningApi) -> None:
    for token in ("mm_abcdefgh_" + "x" * 43, "x", api.tokens[Scope.READ] + "x"):
        async with api.raw_socket() as socket:
            await socket.send({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})

            assert await socket.closing() == 4403


async def test_queries_and_mutations_run_on_a_socket_too(api: RunningApi, socket: Socket) -> None:
    await socket.subscribe("{ viewer { name } }")
    answer = [await socket.receive(), await socket.receive()]
    await socket.subscribe(f'mutation {{ cancelJob(input: {{jobId: "{UNKNOWN_JOB}"}}) {{ userErrors {{ code }} }} }}')
    (error,) = (await socket.receive())["payload"]["errors"]

    assert answer == [
        {"id": "1", "type": "next", "payload": {"data": {"viewer": {"name": "read"}}}},
        {"id": "1", "type": "complete"},
    ]
    assert (error["extensions"], error["path"]) == ({"code": "FORBIDDEN"}, ["cancelJob"])


async def test_a_hundred_watchers_leave_nothing_behind(api: RunningApi, bus: Bus) -> None:
    job, claim = await world.running(api.database)
    services = api.api.services

    async with api.socket() as one, api.socket() as two:
        for number in range(50):
            await one.subscribe(PROGRESS, key=f"{number}", id=job_id(job))
            await two.subscribe(PROGRESS, key=f"{number}", id=job_id(job))
        for socket in (one, two):
            assert {(await socket.receive())["id"] for _ in range(50)} == {f"{number}" for number in range(50)}
        with api.counting() as statements:
            tell(bus, claim, 512)
            for socket in (one, two):
                assert [await bytes_of(socket) for _ in range(50)] == [("RUNNING", 512)] * 50

    assert statements == []
    async with asyncio.timeout(5):
        while services.bus._subscriptions:  # noqa: ASYNC110 - what is waited for knows nothing of us
            await asyncio.sleep(0.01)
    assert api.api.sockets.operation_count == 0


# ---------------------------------------------------------------- jobLog


async def test_a_log_comes_from_its_first_line_and_goes_on_live_to_its_end(
    api: RunningApi, socket: Socket, bus: Bus
) -> None:
    job, claim = await world.running(api.database)
    await socket.subscribe(LOG, id=job_id(job))
    seen = [(await socket.next())["jobLog"] for _ in range(2)]

    for number in range(3):
        lines = [job_logs.NewLogLine(message=f"line {number}")]
        await runs.report(api.database, claim, progress=Progress(), stage=JobStage.DOWNLOADING, message="", lines=lines)
        bus.publish(f"log:{job.id}")
        seen.append((await socket.next())["jobLog"])
    await world.succeeded(api.database, claim, world.request_for("acme/tiny"))
    bus.publish(f"log:{job.id}")
    seen.append((await socket.next())["jobLog"])

    assert await socket.receive() == {"id": "1", "type": "complete"}
    messages = ["Asked for by anna", "Started by w1, run 1", "line 0", "line 1", "line 2", "Published"]
    assert [line["message"] for line in seen] == messages
    await socket.subscribe(LOG, id=job_id(job), after=seen[3]["cursor"])
    assert [(await socket.next())["jobLog"]["message"] for _ in range(2)] == ["line 2", "Published"]
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_a_long_log_arrives_whole_and_in_order(api: RunningApi, socket: Socket) -> None:
    job, claim = await world.running(api.database)
    lines = [job_logs.NewLogLine(message=f"{number}") for number in range(450)]
    await runs.report(api.database, claim, progress=Progress(), stage=JobStage.DOWNLOADING, message="", lines=lines)
    await jobs.cancel(api.database, job.id, actor="anna")

    await socket.subscribe(LOG, id=job_id(job))

    seen = [(await socket.next())["jobLog"]["message"] for _ in range(453)]
    assert seen[2:-1] == [f"{number}" for number in range(450)]
    assert await socket.receive() == {"id": "1", "type": "complete"}


async def test_a_cursor_of_another_log_or_none_is_an_error(api: RunningApi) -> None:
    job = await world.ready(api.database, "acme/one")
    other = await world.ready(api.database, "acme/other")
    query = f'{{ job(id: "{job_id(other)}") {{ log {{ edges {{ cursor }} }} }} }}'
    foreign = (await api.data(query))["job"]["log"]["edges"][0]["cursor"]

    for after in (foreign, "", "x", "\0", "A" * 5000):
        async with api.socket() as socket:
            await socket.subscribe(LOG, id=job_id(job), after=after)

            assert (await refusal_of(socket))["extensions"] == {"code": "INVALID", "argument": ["after"]}
