"""The journal: its pages and its feed, over GraphQL and as Server-Sent Events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import delete, update

from core.bus import Bus, job_topic
from core.token import Scope
from db import jobs
from db.events import JournalPosition, cursor_of
from db.tables import Event, Journal
from tests.graph import world
from tests.graph.api import PATIENCE_SECONDS, RunningApi, Socket

EVENTS = """
query ($first: Int, $after: String, $last: Int, $before: String, $filter: EventFilter) {
  events(first: $first, after: $after, last: $last, before: $before, filter: $filter) {
    edges { cursor node { id type actor subjectId subject { __typename id } data } }
    pageInfo { hasNextPage hasPreviousPage }
    totalCount
  }
}
"""
FEED = """
subscription ($after: String, $filter: EventFilter) {
  events(after: $after, filter: $filter) {
    __typename
    ... on EventFeedEntry { cursor event { id type } }
    ... on EventFeedLive { cursor }
    ... on EventFeedResync { reason cursor }
  }
}
"""


async def item(socket: Socket) -> dict[str, Any]:
    found: dict[str, Any] = (await socket.next())["events"]
    return found


async def test_the_journal_is_read_newest_first_with_its_subjects(api: RunningApi) -> None:
    job = await world.ready(api.database)

    page = (await api.data(EVENTS, {"first": 3}))["events"]

    found = [(edge["node"]["type"], edge["node"]["actor"]) for edge in page["edges"]]
    assert found == [("job.completed", "w1"), ("job.started", "w1"), ("job.queued", "anna")]
    assert page["edges"][0]["node"]["subject"] == {"__typename": "Job", "id": world.job_id(job)}
    assert page["pageInfo"] == {"hasNextPage": True, "hasPreviousPage": False}
    assert page["totalCount"] == 6


async def test_events_are_filtered_by_type_subject_and_actor(api: RunningApi) -> None:
    first = await world.queued(api.database, "acme/one")
    await world.queued(api.database, "acme/two")

    for given, expected in (
        ({"types": ["job.queued"]}, 2),
        ({"subjectId": world.job_id(first)}, 1),
        ({"actor": "test"}, 3),
        ({"actor": "nobody"}, 0),
        ({"until": "2000-01-01T00:00:00Z"}, 0),
    ):
        page = (await api.data(EVENTS, {"filter": given}))["events"]
        assert (given, page["totalCount"]) == (given, expected)


@pytest.mark.parametrize("given", [{"types": ["'; drop"]}, {"types": ["a"] * 51}, {"actor": "\u202e"}])
async def test_a_filter_that_is_none_is_refused(api: RunningApi, given: dict[str, Any]) -> None:
    code, _, _ = await api.refusal(EVENTS, {"filter": given})

    assert code == "INVALID"


async def test_an_event_is_found_by_its_id(api: RunningApi) -> None:
    await world.queued(api.database)

    found = await api.data('{ node(id: "Event:1") { id ... on Event { type } } }')
    missing = await api.data('{ node(id: "Event:999") { id } }')

    assert found["node"] == {"id": "Event:1", "type": "token.created"}
    assert missing["node"] is None
    assert (await api.refusal('{ node(id: "Event:-1") { id } }'))[0] == "INVALID"


async def test_the_feed_begins_now_with_a_mark_and_tells_each_event_once_and_in_order(
    api: RunningApi, socket: Socket
) -> None:
    await socket.subscribe(FEED)
    live = await item(socket)

    await world.ready(api.database)

    seen = [await item(socket) for _ in range(3)]
    assert live["__typename"] == "EventFeedLive"
    assert [one["event"]["id"] for one in seen] == ["Event:4", "Event:5", "Event:6"]
    assert [one["event"]["type"] for one in seen] == ["job.queued", "job.started", "job.completed"]


async def test_a_subscriber_that_is_cut_twenty_times_sees_every_event_once_and_in_order(api: RunningApi) -> None:
    seen: list[str] = []
    cursor = cursor_of(await _head(api))

    for number in range(20):
        await world.queued(api.database, f"acme/n{number}")
        async with api.socket() as socket:
            await socket.subscribe(FEED, after=cursor)
            found = await item(socket)
            seen.append(found["event"]["id"])
            cursor = found["cursor"]

    assert seen == [f"Event:{position}" for position in range(4, 24)]


async def test_the_cursors_of_the_query_are_those_of_the_feed(api: RunningApi, socket: Socket) -> None:
    await world.ready(api.database)
    edges = (await api.data(EVENTS, {"first": 3}))["events"]["edges"]

    await socket.subscribe(FEED, after=edges[2]["cursor"])

    assert [(await item(socket))["event"]["id"] for _ in range(2)] == [
        edges[1]["node"]["id"],
        edges[0]["node"]["id"],
    ]
    assert (await item(socket))["__typename"] == "EventFeedLive"


async def test_a_replay_longer_than_a_batch_is_whole(api: RunningApi, socket: Socket) -> None:
    job = await world.queued(api.database)
    for _ in range(250):
        async with api.database.write() as session:
            await session.commit_with(*(jobs.event_of(job, world.EventType.JOB_RETRIED) for _ in range(2)))

    await socket.subscribe(FEED, after=cursor_of(JournalPosition((await _head(api)).epoch, 0)))

    ids = [(await item(socket))["event"]["id"] for _ in range(504)]
    assert ids == [f"Event:{position}" for position in range(1, 505)]
    assert (await item(socket))["__typename"] == "EventFeedLive"


async def test_a_cursor_that_is_too_old_is_told_so_and_the_feed_goes_on(api: RunningApi, socket: Socket) -> None:
    await world.queued(api.database)
    head = await _head(api)
    async with api.database.write() as session:
        await session.execute(delete(Event).where(Event.position <= 3))
        await session.commit()

    await socket.subscribe(FEED, after=cursor_of(JournalPosition(head.epoch, 1)))

    assert await item(socket) == {
        "__typename": "EventFeedResync",
        "reason": "CURSOR_EXPIRED",
        "cursor": cursor_of(head),
    }
    assert (await item(socket))["__typename"] == "EventFeedLive"


async def test_a_cursor_of_another_epoch_is_told_so(api: RunningApi, socket: Socket) -> None:
    old = await _head(api)
    async with api.database.write() as session:
        await session.execute(update(Journal).values(epoch="restored"))
        await session.commit()

    await socket.subscribe(FEED, after=cursor_of(old))

    assert (await item(socket))["reason"] == "EPOCH_CHANGED"
    assert (await api.refusal(EVENTS, {"after": cursor_of(old)}))[0] == "INVALID"


async def test_a_garbage_cursor_ends_the_feed_with_one_error(api: RunningApi, socket: Socket) -> None:
    await socket.subscribe(FEED, after="garbage")

    message = await socket.receive()

    assert message["type"] == "error"
    assert message["payload"][0]["extensions"]["code"] == "INVALID"


# ---------------------------------------------------------------- Server-Sent Events


@asynccontextmanager
async def stream(
    api: RunningApi, path: str = "/events", **headers: str
) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    given = {**api.headers(Scope.READ), **headers}
    async with api.http.stream("GET", path, headers=given) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield frames(response.aiter_lines())


async def frames(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    """Read frames as a browser would: fields up to an empty line."""
    frame: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            frame[name] = value
        elif frame:
            yield frame
            frame = {}


async def take(found: AsyncIterator[dict[str, str]], number: int) -> list[dict[str, str]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [await anext(found) for _ in range(number)]


async def test_the_stream_marks_its_replay_and_each_frame_has_its_name_and_cursor(api: RunningApi) -> None:
    await world.queued(api.database)
    begin = cursor_of(JournalPosition((await _head(api)).epoch, 3))

    async with stream(api, f"/events?after={begin}") as found:
        start, queued, complete = await take(found, 3)
        await world.queued(api.database, "acme/two")
        [live] = await take(found, 1)

    assert (start["event"], start.get("id")) == ("stream.seed.start", None)
    assert (queued["event"], json.loads(queued["data"])["id"]) == ("job.queued", "Event:4")
    assert complete["event"] == "stream.seed.complete"
    assert (live["event"], json.loads(live["data"])["id"]) == ("job.queued", "Event:5")


async def test_last_event_id_goes_on_where_the_client_was(api: RunningApi) -> None:
    await world.ready(api.database)
    begin = cursor_of(JournalPosition((await _head(api)).epoch, 3))
    async with stream(api, f"/events?after={begin}") as found:
        seen = await take(found, 2)

    async with stream(api, **{"Last-Event-ID": seen[1]["id"]}) as found:
        again = await take(found, 3)

    assert [frame["event"] for frame in again] == ["stream.seed.start", "job.started", "job.completed"]


async def test_types_are_chosen_and_progress_moves_no_cursor(api: RunningApi, bus: Bus) -> None:
    job, claim = await world.running(api.database)
    message = {"fence": claim.fence, "stage": "DOWNLOADING", "message": "x", "progress": {"bytes_done": 7}}

    async with stream(api) as found:
        await take(found, 2)
        bus.publish(job_topic(job.id), message)
        [moved] = await take(found, 1)
    async with stream(api, "/events?types=job.cancelled") as found:
        await take(found, 2)
        bus.publish(job_topic(job.id), message)
        await jobs.cancel(api.database, job.id, actor="anna")
        [cancelled] = await take(found, 1)

    assert (moved["event"], moved.get("id")) == ("job.progress", None)
    assert json.loads(moved["data"]) == {
        "jobId": world.job_id(job),
        "stage": "DOWNLOADING",
        "message": "x",
        "progress": {"bytesDone": 7},
    }
    assert cancelled["event"] == "job.cancelled"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/events?after=x", 400, "INVALID"), ("/events?types=%00", 400, "INVALID")],
)
async def test_a_bad_request_for_the_stream_is_refused_in_words(
    api: RunningApi, path: str, status: int, code: str
) -> None:
    response = await api.http.get(path, headers=api.headers())

    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (status, code)


async def test_without_a_token_there_is_no_stream(api: RunningApi) -> None:
    response = await api.http.get("/events")

    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


async def _head(api: RunningApi) -> JournalPosition:
    from db import events  # noqa: PLC0415 - the module of this test has that name in its fields

    async with api.database.read() as session:
        return await events.head(session)
