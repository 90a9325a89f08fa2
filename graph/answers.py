"""What operations answer: a request is executed, and each of its results is encoded once.

Nothing here knows who listens, nor how many: an answer needs but the id of an operation in front to be a message.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import strawberry
from graphql import GraphQLError
from strawberry.types.execution import ExecutionResult, PreExecutionError

logger = logging.getLogger(__name__)

ContextT = TypeVar("ContextT")
FormatErrors = Callable[[Sequence[GraphQLError], ContextT], list[dict[str, object]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be executed: all that a result depends on, besides the context."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One message of an operation but for its id, encoded once for however many sockets are to have it.

    type: `next`; or `error` or `complete`, which are the last.
    payload: JSON; nothing for `complete`.
    """

    type: str
    payload: str


COMPLETE = Answer(type="complete", payload="")


async def answers(
    schema: strawberry.Schema, *, request: Request, context: ContextT, format_errors: FormatErrors[ContextT]
) -> AsyncGenerator[Answer, None]:
    """Execute a request, and encode each result.

    Order: one `error` and nothing else when the request is refused, before or at its start; after the first
    result a failure is one more `next`, without data.
    """
    is_started = False
    try:
        results = await schema.stream(
            request.query,
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
            operation_extensions=request.extensions,
        )
        async with aclosing(results):
            async for result in results:
                if not isinstance(result, ExecutionResult):
                    raise TypeError("incremental delivery is not served")  # noqa: TRY301
                if not is_started and _is_refusal(result):
                    yield failure(format_errors(result.errors or [], context), is_started=False)
                    return
                errors = format_errors(result.errors, context) if result.errors else []
                yield _encode(result, errors=errors)
                is_started = True
    except Exception as error:
        logger.exception("An operation ended in an exception")
        errors = format_errors([GraphQLError(str(error), original_error=error)], context)
        yield failure(errors, is_started=is_started)


def _is_refusal(result: ExecutionResult) -> bool:
    """Tell a first result that says the request was not executed, or that its source never began.

    Errors of fields have a path; those of a document, of its variables and of a source's first step have none.
    """
    if isinstance(result, PreExecutionError):
        return True
    return result.data is None and not any(error.path for error in result.errors or [])


def _encode(result: ExecutionResult, *, errors: list[dict[str, object]]) -> Answer:
    payload: dict[str, object] = {"data": result.data}
    if errors:
        payload["errors"] = errors
    if result.extensions:
        payload["extensions"] = result.extensions
    return Answer(type="next", payload=orjson.dumps(payload).decode())


def failure(errors: list[dict[str, object]], *, is_started: bool) -> Answer:
    """Tell errors that end an operation."""
    if not is_started:
        return Answer(type="error", payload=orjson.dumps(errors).decode())
    return Answer(type="next", payload=orjson.dumps({"data": None, "errors": errors}).decode())
