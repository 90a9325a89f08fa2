"""What clients say in the sub-protocol graphql-transport-ws: frames of text become messages, or a reason to close.

Pure functions; what is done about a message is left to `graph.ws`.

Source: PROTOCOL.md of the npm package graphql-ws 6.4; RFC 6455, sections 5.5.1 and 7.4 (close frames, their codes).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

from graph.answers import Request

REASON_BYTES = 123


class CloseCode(IntEnum):
    """Why a socket was closed; clients reconnect after 1012, 1013, 4008, 4403 and 4408, never after the others."""

    POLICY_VIOLATION = 1008
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    NOT_KEEPING_UP = 4008
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INITIALISATION_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITIALISATIONS = 4429
    INTERNAL_ERROR = 4500


class SocketClosing(Exception):  # noqa: N818 - an order, not a fault of ours
    """The socket is to be closed with a code and a reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")


def bad(reason: str) -> SocketClosing:
    """Close because of a message that the protocol does not know."""
    return SocketClosing(CloseCode.BAD_REQUEST, reason)


@dataclass(frozen=True, slots=True)
class Init:
    """The client asks to begin; token: the bearer token that it showed."""

    token: str | None


@dataclass(frozen=True, slots=True)
class Ping:
    """The client asks whether we are there; payload: to be sent back."""

    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Pong:
    """The client is there."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The client has heard enough of an operation."""

    id: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The client wants an operation of any type to run."""

    id: str
    request: Request


Message = Init | Ping | Pong | Complete | Subscribe


def read_message(text: str, *, frame_bytes: int, id_length: int) -> Message:
    """Understand one frame.

    Raises: SocketClosing (4400) with what would be right.
    """
    fields = _read_fields(text, frame_bytes=frame_bytes)
    match fields.get("type"):
        case "connection_init":
            return Init(token=_bearer_token(_optional_object(fields, "payload")))
        case "ping":
            return Ping(payload=_optional_object(fields, "payload"))
        case "pong":
            _optional_object(fields, "payload")
            return Pong()
        case "subscribe":
            return Subscribe(id=_read_id(fields, id_length=id_length), request=_read_request(fields))
        case "complete":
            return Complete(id=_read_id(fields, id_length=id_length))
        case _:
            raise bad("type must be connection_init, subscribe, complete, ping or pong")


def _read_fields(text: str, *, frame_bytes: int) -> dict[str, Any]:
    if len(text) > frame_bytes or len(text.encode(errors="replace")) > frame_bytes:
        raise bad(f"a message must be no larger than {frame_bytes} bytes")
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad("a message must be JSON") from error
    if not isinstance(fields, dict):
        raise bad("a message must be a JSON object")
    return fields


def _read_id(fields: dict[str, Any], *, id_length: int) -> str:
    operation_id = fields.get("id")
    if not isinstance(operation_id, str) or not 0 < len(operation_id) <= id_length:
        raise bad(f"id must be a string of 1 to {id_length} characters")
    return operation_id


def _read_request(fields: dict[str, Any]) -> Request:
    payload = fields.get("payload")
    if not isinstance(payload, dict):
        raise bad("payload must be an object")
    query, operation_name = payload.get("query"), payload.get("operationName")
    if not isinstance(query, str):
        raise bad("payload.query must be a string")
    if not isinstance(operation_name, str | None):
        raise bad("payload.operationName must be a string or null")
    return Request(
        query=query,
        variables=_optional_object(payload, "variables", inside="payload."),
        operation_name=operation_name,
        extensions=_optional_object(payload, "extensions", inside="payload."),
    )


def _optional_object(fields: dict[str, Any], name: str, *, inside: str = "") -> dict[str, Any] | None:
    value = fields.get(name)
    if not isinstance(value, dict | None):
        raise bad(f"{inside}{name} must be an object or null")
    return value


def _bearer_token(params: dict[str, Any] | None) -> str | None:
    """Find the token in the connection's parameters; None when there is none, or not in this form."""
    authorization = (params or {}).get("authorization")
    if not isinstance(authorization, str):
        return None
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def write_pong(ping: Ping) -> str:
    """Answer a ping with what it carried."""
    if ping.payload is None:
        return '{"type":"pong"}'
    try:
        return orjson.dumps({"type": "pong", "payload": ping.payload}).decode()
    except orjson.JSONEncodeError as error:
        raise bad("payload must not be nested deeper than 250 levels") from error
