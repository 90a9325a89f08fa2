"""Identifiers: time-ordered UUIDs in the database, readable ids in the API (`Job:0192…`)."""

from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

from core.errors import DomainError, ErrorCode
from core.names import is_plain_text


class NodeType(StrEnum):
    """The types that have a global id."""

    JOB = "Job"
    WEIGHT_SET = "WeightSet"
    EVENT = "Event"
    API_TOKEN = "ApiToken"  # noqa: S105 - a name, not a secret


def new_id() -> UUID:
    """Make a version 7 UUID: unique, and later ones sort after earlier ones (RFC 9562)."""
    return uuid7()


def global_id(node_type: NodeType, key: object) -> str:
    """Write the id that the API shows."""
    return f"{node_type}:{key}"


def parse_global_id(value: str, *, path: tuple[str, ...]) -> tuple[NodeType, str]:
    """Read an id of the API: its type and the key behind the colon.

    Raises: DomainError INVALID for what is no id.
    """
    type_name, colon, key = value.partition(":")
    if not colon or not key or not is_plain_text(key) or type_name not in NodeType.__members__.values():
        expected = ", ".join(f"{name}:…" for name in NodeType)
        raise DomainError(ErrorCode.INVALID, f"This is not an id of this server; ids look like {expected}", path=path)
    return NodeType(type_name), key


def key_of(value: str, node_type: NodeType, *, path: tuple[str, ...]) -> str:
    """Read the key of an id that must be of one type.

    Raises: DomainError INVALID for an id of another type or none.
    """
    found, key = parse_global_id(value, path=path)
    if found != node_type:
        raise DomainError(ErrorCode.INVALID, f"This is the id of a {found}; a {node_type} id is needed", path=path)
    return key


def job_key(value: str, *, path: tuple[str, ...]) -> UUID:
    """Read the key of a job's id.

    Raises: DomainError INVALID when it is not a job's id.
    """
    return _uuid_of(value, NodeType.JOB, noun="job", path=path)


def token_key(value: str, *, path: tuple[str, ...]) -> UUID:
    """Read the key of a token's id.

    Raises: DomainError INVALID when it is not a token's id.
    """
    return _uuid_of(value, NodeType.API_TOKEN, noun="token", path=path)


def _uuid_of(value: str, node_type: NodeType, *, noun: str, path: tuple[str, ...]) -> UUID:
    """Read a key that is a UUID in its usual form. Raises: DomainError INVALID."""
    key = key_of(value, node_type, path=path)
    try:
        parsed = UUID(key)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != key:
        raise DomainError(ErrorCode.INVALID, f"A {noun}'s id looks like {node_type}:01930f6e-….", path=path)
    return parsed
