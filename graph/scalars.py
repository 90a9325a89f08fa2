"""Scalars: sizes and counts that pass 32 bits, instants in UTC, JSON that belongs to somebody else."""

from datetime import UTC, datetime
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

MAX_SAFE_INTEGER = 2**53 - 1

Bytes = NewType("Bytes", int)
JSON = NewType("JSON", object)


def _parse_bytes(value: Any) -> Bytes:
    """Take an exact, positive integer and nothing that only looks like one."""
    if type(value) is not int or not 0 <= value <= MAX_SAFE_INTEGER:
        raise GraphQLError(f"Bytes is a JSON integer, 0 to {MAX_SAFE_INTEGER}")
    return Bytes(value)


def _parse_instant(value: Any) -> datetime:
    """Take an RFC 3339 instant with its offset."""
    try:
        instant = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        instant = None
    if instant is None or instant.tzinfo is None:
        raise GraphQLError("DateTime is an RFC 3339 instant with an offset, e.g. 2026-11-25T12:00:00Z")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise GraphQLError("DateTime lies outside the years 1 to 9999") from None


def _write_instant(value: datetime) -> str:
    """Write an instant in UTC, to the millisecond."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


SCALARS: dict[object, ScalarDefinition] = {
    Bytes: strawberry.scalar(
        name="Bytes",
        description="A size in bytes: a JSON integer, 0 to 2^53 - 1. Booleans, fractions, strings and negatives are"
        " refused.",
        serialize=int,
        parse_value=_parse_bytes,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant, RFC 3339, always UTC in answers; an input needs its offset.",
        serialize=_write_instant,
        parse_value=_parse_instant,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value; only where the shape belongs to somebody else or differs by kind.",
        serialize=lambda value: value,
        parse_value=lambda value: value,
    ),
}
