"""Keyset pages: a cursor is the sort key of a row, so a page costs the same wherever it begins."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import BigInteger, ColumnElement, Integer, Row, Select, SQLColumnExpression, literal, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import coercions, roles
from sqlalchemy.types import TypeEngine

from core.errors import DomainError, ErrorCode

RowT = TypeVar("RowT")
DEFAULT_PAGE_SIZE = 25
MAX_PAGE_SIZE = 100
MAX_CURSOR_LENGTH = 1024


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """The four arguments of a Relay connection, as they came."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None

    @property
    def size(self) -> int:
        """How many rows are wanted.

        Raises: DomainError INVALID.
        """
        if self.first is not None and self.last is not None:
            raise DomainError(ErrorCode.INVALID, "Give `first` or `last`, not both", path=("last",))
        name, wanted = ("last", self.last) if self.last is not None else ("first", self.first)
        if wanted is None:
            return DEFAULT_PAGE_SIZE
        if not 1 <= wanted <= MAX_PAGE_SIZE:
            raise DomainError(ErrorCode.INVALID, f"`{name}` is 1 to {MAX_PAGE_SIZE}", path=(name,))
        return wanted


@dataclass(frozen=True, kw_only=True)
class Page(Generic[RowT]):
    """Some rows of a list, each with its cursor, and whether there are more on either side."""

    rows: Sequence[RowT]
    cursors: Sequence[str]
    has_next: bool
    has_previous: bool


@dataclass(frozen=True, kw_only=True)
class Keyset:
    """What a list is sorted by.

    stream: names the list and its order, so that a cursor of another is refused.
    columns: together unique; all in one direction.
    """

    stream: str
    columns: tuple[SQLColumnExpression[Any], ...]
    descending: bool = False


async def fetch_page(
    session: AsyncSession, statement: Select[RowT], *, keyset: Keyset, request: PageRequest
) -> Page[RowT]:
    """Read one page of a statement that has no order and no limit of its own.

    Raises: DomainError INVALID for a bad size or cursor.
    """
    size = request.size
    is_backward = request.last is not None
    ascending = keyset.descending == is_backward
    for cursor, name, is_lower_bound in (
        (request.after, "after", not keyset.descending),
        (request.before, "before", keyset.descending),
    ):
        if cursor is not None:
            statement = statement.where(_beyond(keyset, cursor, path=(name,), is_lower_bound=is_lower_bound))
    order = [column.asc() if ascending else column.desc() for column in keyset.columns]
    found: list[Row[Any]] = list(
        (await session.execute(statement.add_columns(*keyset.columns).order_by(*order).limit(size + 1))).all()
    )
    has_more = len(found) > size
    rows = found[:size]
    if is_backward:
        rows.reverse()
    return Page(
        rows=[row[0] for row in rows],
        cursors=[encode_cursor(keyset.stream, tuple(row)[1:]) for row in rows],
        has_next=request.before is not None if is_backward else has_more,
        has_previous=has_more if is_backward else request.after is not None,
    )


def _beyond(keyset: Keyset, cursor: str, *, path: tuple[str, ...], is_lower_bound: bool) -> ColumnElement[bool]:
    """Keep the rows on one side of a cursor."""
    columns = [coercions.expect(roles.ExpressionElementRole, column) for column in keyset.columns]
    kinds = [column.type.python_type for column in columns]
    values = decode_cursor(keyset.stream, cursor, kinds=kinds, path=path)
    left = tuple_(*columns)
    right = tuple_(*(literal(value, _wide(column.type)) for value, column in zip(values, columns, strict=True)))
    return left > right if is_lower_bound else left < right


def _wide(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Take a type that holds whatever a made-up cursor says: PostgreSQL refuses what is too large for its own."""
    return BigInteger() if isinstance(kind, Integer) else kind


def encode_cursor(stream: str, values: Sequence[object]) -> str:
    """Write a cursor: opaque to clients, base64url of the stream's name and the sort key."""
    return base64.urlsafe_b64encode(orjson.dumps([stream, *values], default=str)).decode().rstrip("=")


def decode_cursor(stream: str, cursor: str, *, kinds: Sequence[type], path: tuple[str, ...]) -> list[Any]:
    """Read a cursor of this stream.

    Raises: DomainError INVALID for what is none.
    """
    refusal = DomainError(ErrorCode.INVALID, "This is not a cursor of this list and order", path=path)
    if len(cursor) > MAX_CURSOR_LENGTH:
        raise refusal
    try:
        found = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise refusal from None
    if not isinstance(found, list) or len(found) != len(kinds) + 1 or found[0] != stream:
        raise refusal
    try:
        return [_parsed(value, kind) for value, kind in zip(found[1:], kinds, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise refusal from None


def _parsed(value: Any, kind: type) -> Any:
    """Bring a JSON value back to its column's type."""
    if kind is UUID:
        return UUID(value)
    if kind is datetime:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            raise ValueError("no time zone")
        return instant.astimezone(UTC)
    if isinstance(value, str) and "\0" in value:
        raise ValueError("PostgreSQL takes no NUL")
    if type(value) is not kind or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise TypeError(f"not a {kind.__name__}")
    return value
