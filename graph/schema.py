"""The schema: its types put together, its limits, and its text."""

import strawberry
from graphql import GraphQLError
from strawberry.extensions import MaxTokensLimiter, ParserCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext

from graph.limits import CACHED_DOCUMENTS, MAX_TOKENS, LimitedValidation
from graph.mutations import Mutation
from graph.queries import Query
from graph.scalars import SCALARS
from graph.subscriptions import Subscription
from graph.types.event import Event
from graph.types.job import Job
from graph.types.token import ApiToken
from graph.types.weight_set import WeightSet


class Schema(strawberry.Schema):
    """Strawberry's schema, which leaves the telling and logging of errors to `graph/errors.py`."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing here: errors are told, logged and masked where the answer is written."""


def build() -> Schema:
    """Put the schema together."""
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[ApiToken, Event, Job, WeightSet],
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
        extensions=[
            lambda: MaxTokensLimiter(MAX_TOKENS),
            lambda: ParserCache(maxsize=CACHED_DOCUMENTS),
            LimitedValidation,
        ],
    )


def text(schema: Schema) -> str:
    """Write the schema down, as `schema.graphql` has it."""
    return f"{schema.as_str()}\n"
