"""Column types and SQL functions that mean the same on PostgreSQL and SQLite."""

from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Enum, Integer, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

Json = JSON().with_variant(JSONB(), "postgresql")
RisingId = BigInteger().with_variant(Integer(), "sqlite")
"""An integer key that the database hands out, rising; SQLite does so for its INTEGER PRIMARY KEY only."""


def words(enumeration: type[StrEnum]) -> Enum:
    """A column of an enumeration's values, kept as text so that a new value needs no migration."""
    return Enum(
        enumeration,
        native_enum=False,
        create_constraint=False,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class Ranks(TypeDecorator[IntEnum]):
    """A column of an ordered enumeration, kept as its number so that SQL orders by it."""

    impl = SmallInteger
    cache_ok = True

    def __init__(self, enumeration: type[IntEnum]) -> None:
        super().__init__()
        self.enumeration = enumeration

    @override
    def process_bind_param(self, value: IntEnum | None, dialect: Dialect) -> int | None:
        return int(value) if value is not None else None

    @override
    def process_result_value(self, value: int | None, dialect: Dialect) -> IntEnum | None:
        return self.enumeration(value) if value is not None else None


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, always UTC-aware in Python; `timestamptz` on PostgreSQL, ISO text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    @override
    def python_type(self) -> type[datetime]:
        return datetime

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("an instant needs its time zone")
        return value.astimezone(UTC) if value is not None else None

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, now (not the transaction's start), moved by some seconds.

    The processes' own clocks may be wrong by an hour; leases and due times are measured on this one only.
    """

    type = UtcDateTime()
    inherit_cache = False
    name = "db_now"

    def __init__(self, *, plus_seconds: float = 0.0) -> None:
        super().__init__()
        self.plus_seconds = plus_seconds


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    """Render for PostgreSQL."""
    return f"(clock_timestamp() + make_interval(secs => {element.plus_seconds:.3f}))"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    """Render for SQLite, to the microseconds' six digits that SQLAlchemy reads and writes."""
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{element.plus_seconds:+.3f} seconds')"
