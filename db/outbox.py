"""Messages that admission has decided on: written with the decision, sent after its commit, deleted when sent."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.job import Lane
from db.engine import Database, WriteSession
from db.tables import OutboxMessage


async def put(session: WriteSession, job_id: UUID, *, lane: Lane) -> None:
    """Leave a message to be sent, in place of an older one that still waits.

    The old one goes, not the new one: it may be on its way just now, and be dropped when it is sent.
    """
    await session.execute(delete(OutboxMessage).where(OutboxMessage.job_id == job_id))
    await session.execute(insert(OutboxMessage).values(job_id=job_id, lane=lane))


async def waiting(session: AsyncSession, *, limit: int = 100) -> Sequence[OutboxMessage]:
    """Read the messages that have not been sent, oldest first."""
    return (await session.scalars(select(OutboxMessage).order_by(OutboxMessage.number).limit(limit))).all()


async def drop(database: Database, numbers: Sequence[int]) -> None:
    """Delete what has been sent."""
    if numbers:
        async with database.write() as session:
            await session.execute(delete(OutboxMessage).where(OutboxMessage.number.in_(numbers)))
            await session.commit()
