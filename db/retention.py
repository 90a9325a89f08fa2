"""Deleting what has been kept long enough: at most a batch in each transaction, so that nobody waits long."""

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.sql.dml import ReturningDelete

from core.job import TERMINAL_STATES
from db.admission import IDEMPOTENCY_SECONDS
from db.engine import Database
from db.tables import Event, Job, JobLogLine
from db.types import db_now

BATCH = 500
DAY_SECONDS = 86_400


async def delete_jobs(database: Database, *, older_than_days: int, limit: int = BATCH) -> int:
    """Delete jobs that ended longer ago, with their files and logs; tell how many.

    A job that an idempotency key still stands for is kept: the key would make a new one. The conditions are asked
    again of each row that is deleted: it may be retried just now.
    """
    has_living_key = Job.idempotency_key.is_not(None) & (Job.created_at > db_now(plus_seconds=-IDEMPOTENCY_SECONDS))
    old = select(Job.id).where(*_ended(older_than_days), ~has_living_key).limit(limit)
    return await _deleted(database, delete(Job).where(Job.id.in_(old), *_ended(older_than_days)).returning(Job.id))


async def delete_log_lines(database: Database, *, older_than_days: int, limit: int = BATCH) -> int:
    """Delete the logs of jobs that ended longer ago; tell how many lines went. A job that goes on keeps its own."""
    old = (
        select(JobLogLine.number)
        .join(Job, Job.id == JobLogLine.job_id)
        .where(*_ended(older_than_days))
        .order_by(JobLogLine.number)
        .limit(limit)
    )
    return await _deleted(database, delete(JobLogLine).where(JobLogLine.number.in_(old)).returning(JobLogLine.number))


async def delete_events(database: Database, *, older_than_days: int, limit: int = BATCH) -> int:
    """Delete the journal's oldest events; tell how many.

    Only what lies before the first event that is young enough, so that no gap comes to be; never the last one.
    """
    last = select(func.max(Event.position)).scalar_subquery()
    young = Event.at >= _ago(older_than_days)
    first_kept = select(func.coalesce(func.min(Event.position), last)).where(young).scalar_subquery()
    old = select(Event.position).where(Event.position < first_kept).order_by(Event.position).limit(limit)
    return await _deleted(database, delete(Event).where(Event.position.in_(old)).returning(Event.position))


def _ago(days: int) -> db_now:
    """An instant on the database's clock."""
    return db_now(plus_seconds=-days * DAY_SECONDS)


def _ended(older_than_days: int) -> tuple[ColumnElement[bool], ...]:
    """The conditions of a job that ended longer ago; one that was retried since has not."""
    return (Job.state.in_(TERMINAL_STATES), Job.ended_at < _ago(older_than_days))


async def _deleted(database: Database, statement: ReturningDelete[tuple[object]]) -> int:
    """Delete in a transaction and count."""
    async with database.write() as session:
        found = len((await session.execute(statement)).all())
        await session.commit()
    return found
