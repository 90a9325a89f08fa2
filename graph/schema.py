"""The schema: its types put together, its limits, and its text."""

import strawberry
from graphql import GraphQLError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, ParserCache, QueryDepthLimiter, ValidationCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext

from graph.mutations import Mutation
from graph.queries import Query
from graph.scalars import SCALARS
from graph.subscriptions import Subscription
from graph.types.job import Job
from graph.types.weight_set import WeightSet

MAX_TOKENS = 1000
MAX_ALIASES = 15
MAX_DEPTH = 12
CACHED_DOCUMENTS = 200


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
        types=[Job, WeightSet],
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
        extensions=[
            lambda: MaxTokensLimiter(MAX_TOKENS),
            lambda: MaxAliasesLimiter(MAX_ALIASES),
            lambda: QueryDepthLimiter(MAX_DEPTH),
            lambda: ParserCache(maxsize=CACHED_DOCUMENTS),
            lambda: ValidationCache(maxsize=CACHED_DOCUMENTS),
        ],
    )


def text(schema: Schema) -> str:
    """Write the schema down, as `schema.graphql` has it."""
    return f"{schema.as_str()}\n"
