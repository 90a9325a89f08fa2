"""Lines of jobs' logs.

Lines are written only in transactions that hold the job's row, so their numbers are in commit order per job and
a reader that goes on from a number misses none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.job import LogLevel
from db.engine import WriteSession
from db.paging import Keyset, Page, PageRequest, decode_cursor, encode_cursor, fetch_page
from db.tables import JobLogLine
from db.types import db_now

MAX_MESSAGE_LENGTH = 2000


@dataclass(frozen=True, kw_only=True)
class NewLogLine:
    """A line to be written. source: what said it, e.g. a file's path."""

    message: str
    level: LogLevel = LogLevel.INFO
    source: str | None = None


async def write(session: WriteSession, job_id: UUID, *lines: NewLogLine) -> None:
    """Append lines to a job's log; the session must have updated the job's row before."""
    if lines:
        await session.execute(
            insert(JobLogLine).values(at=db_now()),
            [
                {
                    "job_id": job_id,
                    "level": line.level,
                    "source": line.source,
                    "message": line.message[:MAX_MESSAGE_LENGTH],
                }
                for line in lines
            ],
        )


async def page(session: AsyncSession, job_id: UUID, request: PageRequest) -> Page[JobLogLine]:
    """Read a page of a job's log, oldest line first."""
    statement = select(JobLogLine).where(JobLogLine.job_id == job_id)
    return await fetch_page(session, statement, keyset=_keyset(job_id), request=request)


async def count(session: AsyncSession, job_id: UUID) -> int:
    """Count the lines of a job's log."""
    statement = select(func.count()).select_from(JobLogLine).where(JobLogLine.job_id == job_id)
    return await session.scalar(statement) or 0


async def after(session: AsyncSession, job_id: UUID, *, number: int, limit: int) -> Sequence[JobLogLine]:
    """Read the lines behind a number."""
    statement = (
        select(JobLogLine)
        .where(JobLogLine.job_id == job_id, JobLogLine.number > number)
        .order_by(JobLogLine.number)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


def cursor_of(line: JobLogLine) -> str:
    """Write the cursor of a line; the same for the query and the subscription."""
    return encode_cursor(_keyset(line.job_id).stream, (line.number,))


def number_of(job_id: UUID, cursor: str) -> int:
    """Read a cursor of this job's log.

    Raises: DomainError INVALID.
    """
    number: int = decode_cursor(_keyset(job_id).stream, cursor, kinds=[int], path=("after",))[0]
    return number


def _keyset(job_id: UUID) -> Keyset:
    """One stream a job."""
    return Keyset(stream=f"log:{job_id}", columns=(JobLogLine.number,))
