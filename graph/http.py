"""GraphQL over HTTP: one POST, one operation, one answer.

Whatever the body is, the answer is a 4xx in words or a GraphQL answer, never a crash.
Source: the GraphQL-over-HTTP specification (media types and status codes).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson
from graphql import GraphQLError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from strawberry.types.execution import ExecutionResult, PreExecutionError
from strawberry.types.graphql import OperationType

from core.errors import RateLimitedError, UnauthenticatedError
from graph.context import GraphContext
from graph.errors import STRAWBERRY_REFUSALS, format_errors, formatted
from graph.schema import Schema

MAX_BODY_BYTES = 256 << 10
MAX_QUERY_BYTES = 16 << 10
BODY_SECONDS = 10.0
OPERATION_SECONDS = 10.0
GRAPHQL_JSON = "application/graphql-response+json"
ANSWERED_HERE = (OperationType.QUERY, OperationType.MUTATION)


class BadRequest(Exception):  # noqa: N818 - HTTP's own name
    """A request that is no GraphQL request. status: of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Operation:
    """What was asked for."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


class GraphQLEndpoint:
    """Answers POST requests. sign_in: makes the context of a bearer token, or raises AccessError."""

    def __init__(self, schema: Schema, sign_in: Callable[[str | None], Awaitable[GraphContext]]) -> None:
        self._schema = schema
        self._sign_in = sign_in

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        media_type = _media_type(request)
        request_id: str = request.state.request_id
        try:
            token = bearer_token(request.headers.get("authorization"))
            context = replace(await self._sign_in(token), request_id=request_id)
            operation = read_operation(await _body(request))
        except UnauthenticatedError as error:
            return _refusal(media_type, 401, str(error), code=error.code, headers={"WWW-Authenticate": "Bearer"})
        except RateLimitedError as error:
            headers = {"Retry-After": str(error.retry_after_seconds)}
            return _refusal(media_type, 429, str(error), code=error.code, headers=headers)
        except BadRequest as error:
            return _refusal(media_type, error.status, str(error), code="BAD_REQUEST")
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 - told, logged and masked like every other error
            return _failure(media_type, error, request_id=request_id)
        return await self._executed(operation, context, media_type)

    async def _executed(self, operation: Operation, context: GraphContext, media_type: str) -> Response:
        """Run an operation and write its result."""
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                result = await self._schema.execute(
                    operation.query,
                    variable_values=operation.variables,
                    context_value=context,
                    operation_name=operation.operation_name,
                    allowed_operation_types=ANSWERED_HERE,
                )
        except TimeoutError:
            return _refusal(media_type, 503, "The operation took too long: ask for less at once", code="TIMEOUT")
        except Exception as error:  # noqa: BLE001 - as above
            return _failure(media_type, error, request_id=context.request_id)
        assert isinstance(result, ExecutionResult)
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = format_errors(result.errors, context)
        errors = result.errors or []
        is_refused = isinstance(result, PreExecutionError) or (
            result.data is None and not any(error.path for error in errors)
        )
        if is_refused:
            del answer["data"]
        return _answer(media_type, 400 if is_refused and media_type == GRAPHQL_JSON else 200, answer)


def bearer_token(header: str | None) -> str | None:
    """Read a token out of `Bearer mm_…`; None when there is none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def read_operation(body: bytes) -> Operation:
    """Read a body.

    Raises: BadRequest saying what would be right.
    """
    try:
        found = orjson.loads(body)
    except ValueError:
        raise BadRequest(400, 'The body must be JSON: {"query": "…", "variables": {…}}') from None
    if not isinstance(found, dict):
        raise BadRequest(400, "The body must be one JSON object; batches are not taken")
    query, variables, name = found.get("query"), found.get("variables"), found.get("operationName")
    if not isinstance(query, str) or not query.strip():
        raise BadRequest(400, "`query` must be a GraphQL document")
    if len(query.encode("utf-8", "replace")) > MAX_QUERY_BYTES:
        raise BadRequest(413, f"The document must be no larger than {MAX_QUERY_BYTES} bytes")
    if variables is not None and not isinstance(variables, dict):
        raise BadRequest(400, "`variables` must be an object")
    if name is not None and not isinstance(name, str):
        raise BadRequest(400, "`operationName` must be a string")
    if not isinstance(found.get("extensions", {}), dict | None):
        raise BadRequest(400, "`extensions` must be an object")
    return Operation(query, variables, name or None)


async def _body(request: Request) -> bytes:
    """Read the body, within its limits of size and time. Raises: BadRequest."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest(415, "Send the operation as application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise BadRequest(413, f"The body must be no larger than {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise BadRequest(408, f"The body did not arrive within {BODY_SECONDS:.0f} s") from None
    return bytes(body)


def _media_type(request: Request) -> str:
    """Choose between the two media types by the Accept header."""
    return GRAPHQL_JSON if GRAPHQL_JSON in request.headers.get("accept", "") else "application/json"


def _refusal(
    media_type: str, status: int, message: str, *, code: str, headers: dict[str, str] | None = None
) -> Response:
    """Refuse a request before it is executed."""
    body = {"errors": [{"message": message, "extensions": {"code": code}}]}
    return _answer(media_type, status, body, headers=headers)


def _failure(media_type: str, error: Exception, *, request_id: str) -> Response:
    """Tell an exception that ended a request."""
    shown = formatted(GraphQLError(str(error), original_error=error), request_id)
    if isinstance(error, STRAWBERRY_REFUSALS):
        status = 400
    else:
        status = 503 if shown["extensions"]["code"] == "UNAVAILABLE" else 500
    return _answer(media_type, status, {"errors": [shown]})


def _answer(media_type: str, status: int, body: dict[str, Any], *, headers: dict[str, str] | None = None) -> Response:
    """Write an answer."""
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type=f"{media_type}; charset=utf-8",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
