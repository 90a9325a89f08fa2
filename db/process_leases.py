"""Duties that one process has at a time, by a lease on the database's clock."""

from sqlalchemy import or_, update

from db.engine import Database
from db.tables import ProcessLease
from db.types import db_now


async def hold(database: Database, duty: str, *, holder: str, lease_seconds: float) -> bool:
    """Take a duty that is free, or keep one that is ours; tell whether it is ours until the lease ends."""
    async with database.write() as session:
        found = await session.scalar(
            update(ProcessLease)
            .where(
                ProcessLease.duty == duty,
                or_(
                    ProcessLease.holder == holder,
                    ProcessLease.lease_until.is_(None),
                    ProcessLease.lease_until < db_now(),
                ),
            )
            .values(holder=holder, lease_until=db_now(plus_seconds=lease_seconds))
            .returning(ProcessLease.duty)
        )
        await session.commit()
    return found is not None


async def let_go(database: Database, duty: str, *, holder: str) -> None:
    """Give a duty back, so that another process takes it at once."""
    async with database.write() as session:
        await session.execute(
            update(ProcessLease)
            .where(ProcessLease.duty == duty, ProcessLease.holder == holder)
            .values(holder=None, lease_until=None)
        )
        await session.commit()
