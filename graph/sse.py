"""The journal as Server-Sent Events, for curl and scripts: `GET /events`.

Each event is a frame named by its type, with its cursor as `id:`; a client that comes back with `Last-Event-ID` (or
`?after=`) goes on there. The replay stands between `stream.seed.start` and `stream.seed.complete`. Frames of
`job.progress` carry no id, so they move no cursor; `?progress=0` leaves them out.
Source: HTML Living Standard, section 9.2 (Server-sent events).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from core.errors import DomainError, RateLimitedError, UnauthenticatedError
from core.ids import NodeType, global_id
from graph.context import GraphContext
from graph.http import bearer_token
from resolvers import events
from resolvers.events import FeedEntry, FeedItem, FeedLive, JobMoved

HEARTBEAT_SECONDS = 15.0
QUEUED_FRAMES = 16
MEDIA_TYPE = "text/event-stream; charset=utf-8"


class EventsEndpoint:
    """Answers `GET /events`. sign_in: makes the context of a bearer token, or raises AccessError."""

    def __init__(
        self,
        sign_in: Callable[[str | None], Awaitable[GraphContext]],
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._sign_in = sign_in
        self._heartbeat_seconds = heartbeat_seconds

    async def answer(self, request: Request) -> Response:
        """Begin a stream, or say in JSON why there is none."""
        query = request.query_params
        after = request.headers.get("last-event-id") or query.get("after")
        try:
            context = await self._sign_in(bearer_token(request.headers.get("authorization")))
            types = query["types"].split(",") if query.get("types") else None
            chosen = events.event_filter(types=types, subject_id=query.get("subjectId"), actor=query.get("actor"))
            if after is not None:
                events.check_cursor(after)
        except UnauthenticatedError as error:
            return _refusal(401, error.code, str(error), headers={"WWW-Authenticate": "Bearer"})
        except RateLimitedError as error:
            headers = {"Retry-After": str(error.retry_after_seconds)}
            return _refusal(429, error.code, str(error), headers=headers)
        except DomainError as error:
            return _refusal(400, error.code, str(error))
        feed = events.feed(context, after=after, event_filter=chosen)
        sources: list[AsyncIterator[FeedItem | JobMoved]] = [feed]
        if query.get("progress") != "0" and types is None:
            sources.append(events.progress(context))
        return StreamingResponse(
            self._frames(sources),
            media_type=MEDIA_TYPE,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _frames(self, sources: list[AsyncIterator[FeedItem | JobMoved]]) -> AsyncIterator[bytes]:
        """Write frames as they come, and a comment when nothing has for a while."""
        waiting: asyncio.Queue[FeedItem | JobMoved] = asyncio.Queue(QUEUED_FRAMES)
        tasks = [asyncio.create_task(_pump(source, waiting)) for source in sources]
        is_seeding = False
        try:
            while not any(task.done() for task in tasks):
                try:
                    async with asyncio.timeout(self._heartbeat_seconds):
                        item = await waiting.get()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if not is_seeding and not isinstance(item, JobMoved):
                    is_seeding = True
                    yield _frame("stream.seed.start", {})
                yield _written(item)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: AsyncIterator[FeedItem | JobMoved], waiting: "asyncio.Queue[FeedItem | JobMoved]") -> None:
    """Move what a source gives to where it is written; a slow reader slows the source."""
    async with aclosing(source) as given:  # type: ignore[type-var]  # both are generators
        async for item in given:
            await waiting.put(item)


def _written(item: FeedItem | JobMoved) -> bytes:
    """Write one item as a frame."""
    if isinstance(item, JobMoved):
        return _frame("job.progress", {"jobId": global_id(NodeType.JOB, item.job_id), **item.data})
    if isinstance(item, FeedLive):
        return _frame("stream.seed.complete", {}, cursor=item.cursor)
    if isinstance(item, FeedEntry):
        row = item.event
        content = {
            "id": global_id(NodeType.EVENT, row.position),
            "at": row.at,
            "type": row.type,
            "subjectId": row.subject_id,
            "actor": row.actor,
            "message": row.message,
            "data": row.data,
        }
        return _frame(row.type, content, cursor=item.cursor)
    return _frame("stream.resync", {"reason": item.reason}, cursor=item.cursor)


def _frame(name: str, content: dict[str, Any], *, cursor: str | None = None) -> bytes:
    """Write a frame; JSON holds no line break, so one `data:` line is enough."""
    identity = f"id: {cursor}\n" if cursor is not None else ""
    return f"event: {name}\n{identity}data: ".encode() + orjson.dumps(content) + b"\n\n"


def _refusal(status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> Response:
    """Refuse in the same form as GraphQL over HTTP."""
    body = orjson.dumps({"errors": [{"message": message, "extensions": {"code": code}}]})
    return Response(body, status_code=status, media_type="application/json", headers=headers)
