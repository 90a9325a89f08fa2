"""The weights volume as workers see it, and the space that accepted jobs will still need on it."""

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.job import TERMINAL_STATES, JobKind
from db.engine import Database
from db.tables import Job, Volume
from db.types import db_now

MARGIN = 1.05
"""What is reserved for each byte: file systems need some room of their own."""


async def observe(database: Database, *, path: str, capacity_bytes: int, free_bytes: int) -> None:
    """Write down what a worker saw."""
    seen = {"path": path, "capacity_bytes": capacity_bytes, "free_bytes": free_bytes, "observed_at": db_now()}
    async with database.write() as session:
        known = await session.scalar(update(Volume).where(Volume.id == 1).values(**seen).returning(Volume.id))
        if known is None:
            await session.execute(insert(Volume).values(id=1, **seen))
        await session.commit()


async def get(session: AsyncSession) -> Volume | None:
    """Read the volume; None while no worker has reported."""
    return await session.get(Volume, 1)


async def reserved_bytes(session: AsyncSession) -> int:
    """Sum up what the accepted installs have still to fetch, with the margin."""
    there = case((Job.reused_bytes > Job.bytes_done, Job.reused_bytes), else_=Job.bytes_done)
    remaining = case((Job.bytes_total > there, Job.bytes_total - there), else_=0)
    statement = select(func.coalesce(func.sum(remaining), 0)).where(
        Job.kind == JobKind.INSTALL_WEIGHTS, Job.state.not_in(TERMINAL_STATES)
    )
    return int(int(await session.scalar(statement) or 0) * MARGIN)
