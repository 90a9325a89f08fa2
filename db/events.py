"""The journal, read: pages of it, what lies behind a cursor, and where it stands."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, String, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import DomainError, ErrorCode
from db.paging import Keyset, Page, PageRequest, decode_cursor, encode_cursor, fetch_page
from db.tables import Event, Journal

STREAM = "journal"


@dataclass(frozen=True)
class JournalPosition:
    """A place in the journal. epoch: changes when positions begin anew."""

    epoch: str
    position: int


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events; None means any."""

    types: Collection[str] | None = None
    subject_id: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Say it in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.types is not None:
            found.append(Event.type.in_(self.types))
        if self.subject_id is not None:
            found.append(Event.subject_id == self.subject_id)
        if self.actor is not None:
            found.append(Event.actor == self.actor)
        if self.since is not None:
            found.append(Event.at >= self.since)
        if self.until is not None:
            found.append(Event.at < self.until)
        return found


async def head(session: AsyncSession) -> JournalPosition:
    """Read where the journal stands now."""
    journal = await session.get(Journal, 1)
    assert journal is not None, "the migrations write this row"
    return JournalPosition(journal.epoch, journal.position)


async def first_position(session: AsyncSession) -> int:
    """Read the oldest position that is still kept; one behind the head when none is."""
    found = await session.scalar(select(func.min(Event.position)))
    return found if found is not None else (await head(session)).position + 1


async def get(session: AsyncSession, position: int) -> Event | None:
    """Read one event."""
    return await session.get(Event, position)


async def page(session: AsyncSession, event_filter: EventFilter, request: PageRequest) -> Page[Event]:
    """Read a page of the journal, newest first. Its cursors are those of the feed.

    Raises: DomainError INVALID, also for a cursor of another epoch.
    """
    epoch = (await head(session)).epoch
    for name, cursor in (("after", request.after), ("before", request.before)):
        if cursor is not None and place_of(cursor, path=(name,)).epoch != epoch:
            raise DomainError(ErrorCode.INVALID, "This cursor is of a journal that is no more", path=(name,))
    keyset = Keyset(stream=STREAM, columns=(literal(epoch, String()), Event.position), descending=True)
    statement = select(Event).where(*event_filter.conditions())
    return await fetch_page(session, statement, keyset=keyset, request=request)


async def count(session: AsyncSession, event_filter: EventFilter) -> int:
    """Count events."""
    statement = select(func.count()).select_from(Event).where(*event_filter.conditions())
    return await session.scalar(statement) or 0


async def between(
    session: AsyncSession, *, after: int, upto: int, event_filter: EventFilter, limit: int
) -> Sequence[Event]:
    """Read what lies behind one position up to another, oldest first."""
    statement = (
        select(Event)
        .where(Event.position > after, Event.position <= upto, *event_filter.conditions())
        .order_by(Event.position)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def jobs_changed_after(session: AsyncSession, position: int) -> set[UUID]:
    """Name the jobs that the journal tells of behind a position."""
    statement = (
        select(Event.subject_id).where(Event.position > position, Event.subject_id.startswith("Job:")).distinct()
    )
    return {UUID(subject.removeprefix("Job:")) for subject in await session.scalars(statement) if subject}


def cursor_of(place: JournalPosition) -> str:
    """Write a place as an opaque cursor."""
    return encode_cursor(STREAM, (place.epoch, place.position))


def place_of(cursor: str, *, path: tuple[str, ...] = ("after",)) -> JournalPosition:
    """Read a cursor.

    Raises: DomainError INVALID.
    """
    epoch, position = decode_cursor(STREAM, cursor, kinds=[str, int], path=path)
    return JournalPosition(epoch, position)
