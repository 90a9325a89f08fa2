"""The journal, read: where it stands, and which jobs it tells of behind a cursor."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db.paging import decode_cursor, encode_cursor
from db.tables import Event, Journal


@dataclass(frozen=True)
class JournalPosition:
    """A place in the journal. epoch: changes when positions begin anew."""

    epoch: str
    position: int


async def head(session: AsyncSession) -> JournalPosition:
    """Read where the journal stands now."""
    journal = await session.get(Journal, 1)
    assert journal is not None, "the migrations write this row"
    return JournalPosition(journal.epoch, journal.position)


async def jobs_changed_after(session: AsyncSession, position: int) -> set[UUID]:
    """Name the jobs that the journal tells of behind a position."""
    statement = (
        select(Event.subject_id).where(Event.position > position, Event.subject_id.startswith("Job:")).distinct()
    )
    return {UUID(subject.removeprefix("Job:")) for subject in await session.scalars(statement) if subject}


def cursor_of(place: JournalPosition) -> str:
    """Write a place as an opaque cursor."""
    return encode_cursor("journal", (place.epoch, place.position))


def place_of(cursor: str) -> JournalPosition:
    """Read a cursor.

    Raises: DomainError INVALID.
    """
    epoch, position = decode_cursor("journal", cursor, kinds=[str, int], path=("after",))
    return JournalPosition(epoch, position)
