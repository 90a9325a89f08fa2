"""Errors at the edge: refusals become data, everything else is told in words or masked.

A `DomainError` raised anywhere below a mutation becomes its payload's `userErrors`. What else reaches the caller
carries `extensions.code`; an error of ours is logged with its trace and shown as a request id only.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.field import StrawberryField

from core.errors import AccessError, DomainError, Refusals
from core.token import Scope
from db.engine import is_unavailable
from graph.context import GraphContext, Info
from graph.enums import ErrorCode
from resolvers.access import require

STRAWBERRY_REFUSALS = (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError)
"""What Strawberry raises for requests that it does not execute."""
MAX_USER_ERRORS = 10
SUGGESTION = re.compile(r" Did you mean (?:[^?']|'[^']*')*\?")

logger = logging.getLogger(__name__)


@strawberry.type(description="Something that the caller can mend.")
class UserError:
    """A refusal as data."""

    code: ErrorCode = strawberry.field(description="What kind of refusal it is.")
    message: str = strawberry.field(description="A sentence for a person: what is wrong and what would be right.")
    path: list[str] = strawberry.field(
        description='Where in the input, e.g. ["input", "revision"]; empty when it is about the whole.'
    )


class RefusalsAsData(FieldExtension):
    """Turns a raised `DomainError`, or several `Refusals`, into the mutation's payload: nothing but `userErrors`."""

    def apply(self, field: StrawberryField) -> None:
        """Take note of the payload's type; the mutation's field is nullable."""
        self._field = field

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        """Run the mutation."""
        try:
            return await next_(source, info, **arguments)
        except DomainError as refusal:
            return self._payload([refusal])
        except Refusals as several:
            return self._payload(several.refusals[:MAX_USER_ERRORS])

    def _payload(self, refusals: Sequence[DomainError]) -> Any:
        """Make the mutation's payload of refusals."""
        payload: Any = getattr(self._field.type, "of_type", self._field.type)
        return payload(
            user_errors=[UserError(code=one.code, message=str(one), path=list(one.path)) for one in refusals]
        )


class Scoped(FieldExtension):
    """Demands a scope before a field is resolved."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        """Refuse, or go on."""
        require(info.context, self.scope)
        return await next_(source, info, **arguments)


def format_errors(errors: Sequence[GraphQLError], context: GraphContext) -> list[dict[str, Any]]:
    """Write errors as the answer shows them: no trace, no SQL, no secret."""
    return [formatted(error, context.request_id) for error in errors]


def formatted(error: GraphQLError, request_id: str) -> dict[str, Any]:
    """Write one error."""
    message, extensions = _told(error, request_id)
    shown: dict[str, Any] = {"message": message, "extensions": extensions}
    if error.locations:
        shown["locations"] = [location.formatted for location in error.locations]
    if error.path:
        shown["path"] = error.path
    return shown


def _told(error: GraphQLError, request_id: str) -> tuple[str, dict[str, Any]]:
    """Decide what a caller may know of an error."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    if cause is None:
        return SUGGESTION.sub("", error.message), {"code": "BAD_REQUEST"}
    if isinstance(cause, STRAWBERRY_REFUSALS):
        return _refusal(cause), {"code": "BAD_REQUEST"}
    if isinstance(cause, DomainError):
        return str(cause), {"code": cause.code.value, "argument": list(cause.path)}
    if isinstance(cause, AccessError):
        return str(cause), {"code": cause.code}
    if is_unavailable(cause):
        logger.error("the database is away", extra={"request_id": request_id, "reason": type(cause).__name__})
        return "The server cannot reach its database just now: try again", {
            "code": "UNAVAILABLE",
            "requestId": request_id,
        }
    logger.error("an operation met an error that nobody foresaw", exc_info=cause, extra={"request_id": request_id})
    return "The server made a mistake; its log has the details under this request id", {
        "code": "INTERNAL",
        "requestId": request_id,
    }


def _refusal(cause: Exception) -> str:
    """Say why Strawberry does not execute a request, and what would be right."""
    if isinstance(cause, InvalidOperationTypeError):
        return "Subscriptions are not answered here: send them over the WebSocket at this address"
    if isinstance(cause, CannotGetOperationTypeError) and cause.operation_name is not None:
        return f'The document has no operation named "{cause.operation_name}": give the name of one that it has'
    return "`query` must be a GraphQL document with at least one operation"
