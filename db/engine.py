"""The database behind one small class: transactions that lose no update, on PostgreSQL and on SQLite.

Three rules hold everywhere and were learnt by losing updates:

- SQLite: the driver's own transaction handling is off; a writing transaction begins with BEGIN IMMEDIATE.
- A journal event is the last statement before the commit (`WriteSession.commit_with`).
- A transaction awaits nothing but the database.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, event, insert, make_url, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from core.errors import SettingsError
from core.event import EventType
from db.tables import Event, Journal
from db.types import db_now

SQLITE_BUSY_TIMEOUT_SECONDS = 15
POSTGRES_STATEMENT_TIMEOUT_MILLISECONDS = 30_000
POSTGRES_LOCK_TIMEOUT_MILLISECONDS = 15_000
POSTGRES_AWAY_CODES = ("08", "57P", "53300", "3D000")
"""SQLSTATEs of a server that is away: no connection, going down or coming up, full, no such database (yet)."""
POOL_SIZE = 10
HAS_EVENTS = "has_events"


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to be written with the change that it tells.

    subject_id: a global id. actor: a token's or process's name.
    """

    type: EventType
    message: str
    actor: str
    subject_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


class WriteSession(AsyncSession):
    """A transaction that changes something."""

    async def commit_with(self, *events: NewEvent) -> int:
        """Write events as the last statements of the transaction, commit it, and return the last position.

        The lock on the journal's row is held from here to the commit only, so positions follow the order of
        commits, without gaps, and no two transactions wait for each other's rows.
        """
        await self.flush()
        position: int | None = await self.scalar(
            update(Journal).values(position=Journal.position + len(events)).returning(Journal.position)
        )
        assert position is not None, "the migrations write the journal's row"
        await self.execute(insert(Event).values(at=db_now()), _rows(events, last_position=position))
        await self.commit()
        self.info[HAS_EVENTS] = True
        return position


def _rows(events: Sequence[NewEvent], *, last_position: int) -> list[dict[str, Any]]:
    """Lay events out as rows that end at a position."""
    first = last_position - len(events) + 1
    return [
        {
            "position": first + number,
            "type": happened.type,
            "subject_id": happened.subject_id,
            "actor": happened.actor,
            "message": happened.message,
            "data": happened.data,
        }
        for number, happened in enumerate(events)
    ]


class Database:
    """An engine and the two ways to use it. Belongs to the event loop that first used it.

    url: `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.after_events: Callable[[], None] = lambda: None
        """Called after each commit that wrote to the journal; a process on the bus tells the others."""
        self.engine = _engine(url)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite (else PostgreSQL)."""
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that only reads: one consistent view."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """Open a transaction that writes; what is not committed when the block ends is rolled back."""
        async with WriteSession(self.engine, expire_on_commit=False) as session:
            await session.connection(execution_options={"writes": True})
            yield session
        if session.info.get(HAS_EVENTS):
            self.after_events()

    async def check(self) -> None:
        """Ask the database for a sign of life.

        Raises: SettingsError in one sentence, without the password, when it does not answer.
        """
        try:
            async with self.read() as session:
                await session.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise SettingsError(f"The database at {place_of(self.url)} cannot be used: {reason_of(error)}") from error

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def place_of(url: str) -> str:
    """Name a database for a person: no password, no options."""
    parts = urlsplit(url)
    if parts.scheme.startswith("sqlite"):
        return parts.path.removeprefix("/") or "memory"
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"


def reason_of(error: BaseException) -> str:
    """Say in one line what a driver complained about."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    line = str(origin).strip().splitlines()[0] if str(origin).strip() else type(origin).__name__
    return line.rpartition(">: ")[2]


def is_unavailable(error: BaseException) -> bool:
    """Tell whether an error means that the database is away, not that the statement is wrong."""
    if isinstance(error, (OperationalError, ConnectionError, TimeoutError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or code.startswith(POSTGRES_AWAY_CODES)


def _engine(url: str) -> AsyncEngine:
    """Make the engine for either database, with its time limits and pragmas."""
    if make_url(url).get_backend_name() == "postgresql":
        return create_async_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            pool_pre_ping=True,
            connect_args={
                "timeout": 5,
                "server_settings": {
                    "application_name": "model-manager",
                    "statement_timeout": str(POSTGRES_STATEMENT_TIMEOUT_MILLISECONDS),
                    "lock_timeout": str(POSTGRES_LOCK_TIMEOUT_MILLISECONDS),
                    "jit": "off",
                },
            },
        )
    engine = create_async_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Switch off the driver's transactions; write-ahead log, foreign keys, patience."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
        f"busy_timeout = {SQLITE_BUSY_TIMEOUT_SECONDS * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Begin with the write lock where something will be written: no upgrade in the middle, no lost update."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
