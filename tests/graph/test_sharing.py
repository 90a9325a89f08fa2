"""Who shares an execution with whom at the real API, what newcomers see of it, and sockets that end with a token."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import update

from core.bus import Bus
from core.job import TERMINAL_STATES, JobState
from core.token import Scope, Viewer
from db import jobs, tokens
from db.tables import Token
from db.types import db_now
from graph.answers import Request
from graph.context import GraphContext
from graph.sharing import share
from tests.graph import world
from tests.graph.api import RunningApi, Socket
from tests.graph.test_events import FEED
from tests.graph.watching import JOBS, LOG, PROGRESS, bytes_of, report, tell, until_live
from tests.graph.ws_endpoint import until

ENDED = {state.value for state in TERMINAL_STATES}


async def rest_of(socket: Socket, field: str) -> list[dict[str, Any]]:
    """Everything that an operation still says, up to its end."""
    found: list[dict[str, Any]] = []
    while (message := await socket.receive())["type"] == "next":
        assert "errors" not in message["payload"], message
        found.append(message["payload"]["data"][field])
    assert message["type"] == "complete", message
    return found


async def test_twenty_watchers_of_one_job_cost_one_query_and_one_execution(api: RunningApi, bus: Bus) -> None:
    await until_live(api.api.services.bus)
    job, claim = await world.running(api.database)

    with api.counting() as statements:
        async with AsyncExitStack() as opened:
            sockets = [await opened.enter_async_context(api.socket()) for _ in range(20)]
            for socket in sockets:
                await socket.subscribe(PROGRESS, id=world.job_id(job))
                assert await bytes_of(socket) == ("RUNNING", 0)
            for number in (100, 200):
                tell(bus, claim, number)
                assert [await bytes_of(socket) for socket in sockets] == [("RUNNING", number)] * 20

            assert api.api.sockets.groups.count == 1
    assert len([statement for statement in statements if "FROM jobs" in statement]) == 1
    await until(lambda: api.api.sockets.groups.count == 0)


async def test_viewers_of_different_scope_never_share_and_those_of_the_same_do(api: RunningApi) -> None:
    job, _ = await world.running(api.database)
    other = await tokens.create(api.database, name="other", scope=Scope.READ, created_by="test")

    async with AsyncExitStack() as opened:
        for token in (*api.tokens.values(), other.secret):
            socket = await opened.enter_async_context(api.socket(token=token))
            await socket.subscribe(PROGRESS, id=world.job_id(job))
            assert (await bytes_of(socket))[0] == "RUNNING"

        assert api.api.sockets.groups.count == len(Scope)
        assert api.api.sockets.operation_count == len(Scope) + 1


async def test_nothing_of_a_viewer_but_the_scope_is_in_a_shared_context(api: RunningApi) -> None:
    services, request = api.api.services, Request(PROGRESS, {"id": "Job:1"}, None, None)
    given = [
        GraphContext(services=services, viewer=Viewer(name=name, scope=Scope.READ), request_id=name)
        for name in ("anna", "ben")
    ]

    found = [share(request, context) for context in given]

    assert found[0] is not None
    assert found[1] is not None
    assert found[0].key == found[1].key
    for sharing, context in zip(found, given, strict=True):
        assert sharing is not None
        assert sharing.context.services is services
        assert sharing.context.viewer == Viewer(name="shared", scope=Scope.READ)
        assert sharing.context.viewer.token_id is None
        assert sharing.context.request_id != context.request_id
        assert set(vars(sharing.context)) == {"services", "viewer", "request_id", "telling"}


@pytest.mark.parametrize(
    ("query", "variables", "is_shared"),
    [
        (PROGRESS, {"id": "Job:1"}, True),
        (JOBS, {}, True),
        (JOBS, {"after": None}, True),
        (JOBS, {"after": "c"}, False),
        ('subscription { jobs(after: "c") { cursor } }', {}, False),
        ("subscription { jobs(after: null) { cursor } }", {}, True),
        ('subscription ($a: String = "c") { jobs(after: $a) { cursor } }', {}, False),
        ('subscription ($a: String = "c") { jobs(after: $a) { cursor } }', {"a": None}, True),
        (LOG, {"id": "Job:1"}, False),
        (FEED, {}, False),
        ("subscription { ...S } fragment S on Subscription { jobs { cursor } }", {}, False),
        ("subscription { jobs { cursor } jobProgress(jobId: 1) { id } }", {}, False),
        ("{ jobs { totalCount } }", {}, False),
        ("mutation { jobs }", {}, False),
        ("subscription { jobs { cursor", {}, False),
        ("subscription A { jobs { cursor } } subscription B { jobs { cursor } }", {}, False),
        ("", {}, False),
    ],
)
def test_shared_is_what_begins_with_a_state(query: str, variables: dict[str, Any], is_shared: bool) -> None:
    context = GraphContext(services=None, viewer=Viewer(name="anna", scope=Scope.READ), request_id="1")  # type: ignore[arg-type]

    assert (share(Request(query, variables, None, None), context) is not None) is is_shared


def test_the_order_of_variables_does_not_matter_but_their_values_do() -> None:
    context = GraphContext(services=None, viewer=Viewer(name="anna", scope=Scope.READ), request_id="1")  # type: ignore[arg-type]
    given: list[dict[str, Any]] = [{"a": 1, "id": "x"}, {"id": "x", "a": 1}, {"id": "x", "a": 2}, {"id": "x"}]

    one, same, *others = [share(Request(PROGRESS, each, None, None), context) for each in given]

    assert one is not None
    assert same is not None
    assert one.key == same.key
    assert not {one.key} & {other.key for other in others if other is not None}


async def test_an_unknown_job_is_one_error_for_each_and_leaves_nothing(api: RunningApi, socket: Socket) -> None:
    for key in ("1", "2"):
        await socket.subscribe(PROGRESS, key=key, id="Job:01930f6e-0000-7000-8000-000000000000")
    answers = [await socket.receive() for _ in range(2)]

    assert sorted((one["id"], one["type"], one["payload"][0]["extensions"]["code"]) for one in answers) == [
        ("1", "error", "NOT_FOUND"),
        ("2", "error", "NOT_FOUND"),
    ]
    await until(lambda: api.api.sockets.groups.count == 0)
    assert api.api.sockets.operation_count == 0


async def test_newcomers_during_a_burst_see_progress_that_rises_to_the_end(api: RunningApi, bus: Bus) -> None:
    await until_live(api.api.services.bus)
    async with AsyncExitStack() as opened:
        sockets = [await opened.enter_async_context(api.socket()) for _ in range(12)]
        for seed in range(20):
            rng = random.Random(seed)
            job, claim = await world.running(api.database, f"acme/n{seed}")
            waiting, watching = list(sockets), []
            for number in range(1, 60):
                if waiting and rng.random() < 0.3:
                    watching.append(waiting.pop())
                    await watching[-1].subscribe(PROGRESS, key=str(seed), id=world.job_id(job))
                tell(bus, claim, number)
                if rng.random() < 0.1:
                    await report(api.database, claim, number)
                await asyncio.sleep(rng.choice((0, 0, 0.001, 0.003)))
            await jobs.cancel(api.database, job.id, actor="anna")
            bus.publish(f"job:{job.id}")

            for socket in watching:
                found = await rest_of(socket, "jobProgress")
                heard = [one["progress"]["bytesDone"] for one in found]
                assert (seed, heard) == (seed, sorted(heard))
                assert [one["state"] in ENDED for one in found] == [False] * (len(found) - 1) + [True]
            await until(lambda: api.api.sockets.groups.count == 0)


async def test_newcomers_to_all_jobs_see_each_of_them_rise_to_its_end(api: RunningApi, bus: Bus) -> None:
    await until_live(api.api.services.bus)
    async with AsyncExitStack() as opened:
        sockets = [await opened.enter_async_context(api.socket()) for _ in range(8)]
        rng = random.Random(7)
        begun = [await world.running(api.database, f"acme/n{number}") for number in range(3)]
        joined: dict[int, set[str]] = {}
        for number in range(1, 80):
            if len(joined) < len(sockets) and rng.random() < 0.2:
                await sockets[len(joined)].subscribe(JOBS)
                joined[len(joined)] = {world.job_id(job) for job, _ in begun}
            for _, claim in begun:
                tell(bus, claim, number)
            if number == 50:
                gone, _ = begun.pop()
                await jobs.cancel(api.database, gone.id, actor="anna")
                bus.publish(f"job:{gone.id}")
            await asyncio.sleep(rng.choice((0, 0.001, 0.003)))
        assert api.api.sockets.groups.count == 1
        for job, _ in begun:
            await jobs.cancel(api.database, job.id, actor="anna")
            bus.publish(f"job:{job.id}")

        for number, known in joined.items():
            ended: set[str] = set()
            heard: dict[str, list[int]] = {}
            while not known <= ended:
                found = (await sockets[number].next())["jobs"]["job"]
                assert found["id"] not in ended, "an end is final"
                heard.setdefault(found["id"], []).append(found["progress"]["bytesDone"])
                if found["state"] == JobState.CANCELLED:
                    ended.add(found["id"])
            assert all(values == sorted(values) for values in heard.values())


async def test_a_job_that_ended_before_is_not_told_to_a_newcomer(api: RunningApi) -> None:
    one, _ = await world.running(api.database, "acme/one")
    other, _ = await world.running(api.database, "acme/two")

    async with api.socket() as first, api.socket() as late:
        await first.subscribe(JOBS)
        assert {(await first.next())["jobs"]["job"]["id"] for _ in range(2)} == {world.job_id(one), world.job_id(other)}
        await jobs.cancel(api.database, one.id, actor="anna")
        api.api.services.bus.publish(f"job:{one.id}")
        assert (await first.next())["jobs"]["job"] == {
            "id": world.job_id(one),
            "state": "CANCELLED",
            "progress": {"bytesDone": 0},
        }
        await late.subscribe(JOBS)

        assert (await late.next())["jobs"]["job"]["id"] == world.job_id(other)
        assert await late.silent()


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("how", ["revoked_at", "expires_at"])
async def test_the_sockets_of_a_token_that_ends_are_closed_with_4403_and_the_others_stay(
    api: RunningApi, how: str
) -> None:
    async with api.socket(token=api.tokens[Scope.OPERATE]) as ends, api.socket() as stays:
        await ends.subscribe(FEED)
        assert (await ends.next())["events"]["__typename"] == "EventFeedLive"
        async with api.database.write() as session:
            await session.execute(update(Token).where(Token.name == "operate").values({how: db_now()}))
            await session.commit()

        with api.counting() as statements:
            assert await ends.closing() == 4403
        await stays.subscribe(FEED)
        assert (await stays.next())["events"]["__typename"] == "EventFeedLive"
        await until(lambda: api.api.sockets.open_count == 1)
        assert len([one for one in statements if "FROM tokens" in one]) <= 3, "one look for all sockets"


async def test_a_token_may_have_twenty_sockets_and_one_that_goes_makes_room(api: RunningApi) -> None:
    init = {"type": "connection_init", "payload": {"authorization": f"Bearer {api.tokens[Scope.READ]}"}}
    async with AsyncExitStack() as opened:
        sockets = [await opened.enter_async_context(api.socket()) for _ in range(20)]
        async with api.raw_socket() as one_more:
            await one_more.send(init)
            assert await one_more.closing() == 1013
            assert one_more.connection.close_reason == "A token may have 20 sockets open at once"
        async with api.socket(token=api.tokens[Scope.OPERATE]):
            pass
        await sockets[0].connection.close()
        await until(lambda: api.api.sockets.open_count == 19)

        async with api.socket():
            assert api.api.sockets.open_count == 20
