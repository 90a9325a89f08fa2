"""Worker processes that are alive."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Database
from db.tables import Worker
from db.types import db_now

SEEN_SECONDS = 60.0
FORGOTTEN_SECONDS = 3600.0


async def beat(
    database: Database, worker_id: str, *, host: str, version: str, lanes: Sequence[str], running_jobs: int
) -> None:
    """Say that a worker is alive; the first time, introduce it and forget those that are long gone."""
    async with database.write() as session:
        known = await session.scalar(
            update(Worker)
            .where(Worker.id == worker_id)
            .values(seen_at=db_now(), running_jobs=running_jobs)
            .returning(Worker.id)
        )
        if known is None:
            await session.execute(delete(Worker).where(Worker.seen_at < db_now(plus_seconds=-FORGOTTEN_SECONDS)))
            await session.execute(
                insert(Worker).values(
                    id=worker_id,
                    host=host,
                    version=version,
                    lanes=list(lanes),
                    running_jobs=running_jobs,
                    started_at=db_now(),
                    seen_at=db_now(),
                )
            )
        await session.commit()


async def leave(database: Database, worker_id: str) -> None:
    """Take a worker off the list when it stops."""
    async with database.write() as session:
        await session.execute(delete(Worker).where(Worker.id == worker_id))
        await session.commit()


async def seen_lately(session: AsyncSession, *, limit: int = 100) -> Sequence[Worker]:
    """Read the workers that were alive in the last minute."""
    statement = (
        select(Worker)
        .where(Worker.seen_at > db_now(plus_seconds=-SEEN_SECONDS))
        .order_by(Worker.started_at, Worker.id)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()
