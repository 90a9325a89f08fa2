"""What the fields about the journal do: its pages and its feed."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from core.bus import ALL_JOBS, JOURNAL
from core.errors import DomainError, ErrorCode
from core.names import is_plain_text
from db import events
from db.events import EventFilter, JournalPosition
from db.paging import Page, PageRequest
from db.tables import Event
from resolvers.context import Context

FEED_BATCH = 200
PROGRESS_SECONDS = 0.5
MAX_TYPES = 50
MAX_NAME_LENGTH = 512
EVENT_TYPE = re.compile(r"[a-z_]{1,40}(\.[a-z_]{1,40}){0,4}")


class ResyncReason(StrEnum):
    """Why a feed cannot go on from a cursor."""

    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    EPOCH_CHANGED = "EPOCH_CHANGED"


@dataclass(frozen=True)
class FeedEntry:
    """An event and its cursor."""

    cursor: str
    event: Event


@dataclass(frozen=True)
class FeedLive:
    """The replay has ended: what follows happens now."""

    cursor: str


@dataclass(frozen=True)
class FeedResync:
    """What lies between is gone; the reader reads the state anew and goes on from the cursor."""

    reason: ResyncReason
    cursor: str


@dataclass(frozen=True)
class JobMoved:
    """The newest progress of a running job; nothing of it is kept."""

    job_id: str
    data: dict[str, Any]


FeedItem = FeedEntry | FeedLive | FeedResync


def event_filter(
    *,
    types: Sequence[str] | None,
    subject_id: str | None,
    actor: str | None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> EventFilter:
    """Check which events are asked for. Raises: DomainError INVALID."""
    if types is not None and (len(types) > MAX_TYPES or not all(EVENT_TYPE.fullmatch(name) for name in types)):
        raise DomainError(
            ErrorCode.INVALID, f"Types are at most {MAX_TYPES} dotted names such as job.completed", path=("types",)
        )
    for name, value in (("subjectId", subject_id), ("actor", actor)):
        if value is not None and (len(value) > MAX_NAME_LENGTH or not is_plain_text(value)):
            raise DomainError(
                ErrorCode.INVALID, f"`{name}` has at most {MAX_NAME_LENGTH} printable characters", path=(name,)
            )
    return EventFilter(
        types=frozenset(types) if types is not None else None,
        subject_id=subject_id,
        actor=actor,
        since=since,
        until=until,
    )


async def get(ctx: Context, *, position: str) -> Event | None:
    """Find one event by its position. Raises: DomainError INVALID."""
    if not position.isascii() or not position.isdigit() or len(position) > 18:
        raise DomainError(ErrorCode.INVALID, "An event's id looks like Event:42", path=("id",))
    async with ctx.services.database.read() as session:
        return await events.get(session, int(position))


async def page(ctx: Context, *, event_filter: EventFilter, request: PageRequest) -> Page[Event]:
    """Read a page of the journal, newest first."""
    async with ctx.services.database.read() as session:
        return await events.page(session, event_filter, request)


async def count(ctx: Context, *, event_filter: EventFilter) -> int:
    """Count events."""
    async with ctx.services.database.read() as session:
        return await events.count(session, event_filter)


async def feed(ctx: Context, *, after: str | None, event_filter: EventFilter) -> AsyncIterator[FeedItem]:
    """Give the journal from a cursor on (without one: from now on), each event once and in order, for ever.

    Order: register on the bus, then read; a wake-up that comes in between only means one look more.
    Raises: DomainError INVALID for what is no cursor.
    """
    place = events.place_of(after) if after is not None else None
    with ctx.services.bus.subscribe(JOURNAL) as subscription:
        head, resync = await _begin(ctx, place)
        if resync is not None:
            yield resync
        position = place.position if place is not None and resync is None else head.position
        is_live = False
        while True:
            async with ctx.services.database.read() as session:
                head = await events.head(session)
                found = await events.between(
                    session, after=position, upto=head.position, event_filter=event_filter, limit=FEED_BATCH
                )
            for event in found:
                position = event.position
                yield FeedEntry(events.cursor_of(JournalPosition(head.epoch, position)), event)
            if len(found) == FEED_BATCH:
                continue
            position = head.position
            if not is_live:
                is_live = True
                yield FeedLive(events.cursor_of(head))
            await subscription.next()


async def _begin(ctx: Context, place: JournalPosition | None) -> tuple[JournalPosition, FeedResync | None]:
    """Look where the journal stands, and whether all behind a place is still there."""
    async with ctx.services.database.read() as session:
        head = await events.head(session)
        first = await events.first_position(session)
    if place is None:
        return head, None
    if place.epoch != head.epoch or place.position > head.position:
        return head, FeedResync(ResyncReason.EPOCH_CHANGED, events.cursor_of(head))
    if place.position + 1 < first:
        return head, FeedResync(ResyncReason.CURSOR_EXPIRED, events.cursor_of(head))
    return head, None


async def progress(ctx: Context) -> AsyncIterator[JobMoved]:
    """Give the newest progress of every running job, each at most twice a second, for ever."""
    with ctx.services.bus.subscribe(ALL_JOBS) as subscription:
        while True:
            changes = await subscription.next()
            for topic, data in changes.newest.items():
                if data:
                    yield JobMoved(topic.removeprefix("job:"), _told(data))
            await asyncio.sleep(PROGRESS_SECONDS)


def _told(data: dict[str, Any]) -> dict[str, Any]:
    """Show a progress message with the names that the API uses."""
    moved = {_camel(name): value for name, value in data["progress"].items()}
    return {"stage": data["stage"], "message": data["message"], "progress": moved}


def _camel(name: str) -> str:
    """Write bytes_done as bytesDone."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def check_cursor(cursor: str) -> None:
    """Refuse what is no cursor of the journal. Raises: DomainError INVALID."""
    events.place_of(cursor)
