"""Which subscriptions of this schema are shared, and by whom.

Shared are those that begin with the state and tell changes of it: `jobProgress`, and `jobs` without `after`. What
replays a history (`events`, `jobLog`, `jobs` behind a cursor) is each subscriber's own: see docs/adr/0009.

An answer depends on the document, the variables, the operation's name, the viewer's scope, and on nothing else.
"""

from collections.abc import Mapping
from functools import lru_cache

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    NullValueNode,
    OperationDefinitionNode,
    OperationType,
    ValueNode,
    VariableNode,
    parse,
)

from core.ids import new_id
from core.token import Viewer
from graph.answers import Request
from graph.context import GraphContext
from graph.groups import Sharing, Telling
from graph.limits import CACHED_DOCUMENTS, MAX_TOKENS

STATES = frozenset({"jobProgress", "jobs"})
NOBODY = "shared"
"""The name of the viewer of shared executions, whose scope is all that may matter."""


def share(request: Request, context: GraphContext) -> Sharing[GraphContext] | None:
    """Decide whether a request is shared, and with whom; None: it is executed for its own socket."""
    if not _is_shared(request):
        return None
    try:
        rest = orjson.dumps([request.variables or {}, request.extensions or {}], option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return None
    scope = context.viewer.scope
    telling = Telling()
    return Sharing(
        key=(request.query, rest, request.operation_name, scope),
        context=GraphContext(
            services=context.services,
            viewer=Viewer(name=NOBODY, scope=scope),
            request_id=str(new_id()),
            telling=telling,
        ),
        telling=telling,
    )


def _is_shared(request: Request) -> bool:
    """Tell whether the operation is one subscription to a state, from its beginning.

    A document that is none, or selects in another way than plainly, is left to its own execution.
    """
    operation = _operation(request.query, request.operation_name)
    if operation is None or len(operation.selection_set.selections) != 1:
        return False
    field = operation.selection_set.selections[0]
    if not isinstance(field, FieldNode) or field.name.value not in STATES:
        return False
    given = [argument.value for argument in field.arguments or () if argument.name.value == "after"]
    return all(_is_null(value, operation, request.variables or {}) for value in given)


def _is_null(value: ValueNode, operation: OperationDefinitionNode, variables: Mapping[str, object]) -> bool:
    """Tell whether an argument comes to null; a default value counts as given."""
    if isinstance(value, VariableNode):
        name = value.name.value
        if name in variables:
            return variables[name] is None
        return not any(
            definition.variable.name.value == name and definition.default_value is not None
            for definition in operation.variable_definitions or ()
        )
    return isinstance(value, NullValueNode)


def _operation(query: str, operation_name: str | None) -> OperationDefinitionNode | None:
    """Find the subscription that is to be executed."""
    document = _parsed(query)
    found = [
        definition
        for definition in (document.definitions if document is not None else ())
        if isinstance(definition, OperationDefinitionNode)
        and (operation_name is None or (definition.name is not None and definition.name.value == operation_name))
    ]
    if len(found) != 1 or found[0].operation is not OperationType.SUBSCRIPTION:
        return None
    return found[0]


@lru_cache(maxsize=CACHED_DOCUMENTS)
def _parsed(query: str) -> DocumentNode | None:
    """Read a document, however often it comes only once; None when it is none: the execution says why."""
    try:
        return parse(query, no_location=True, max_tokens=MAX_TOKENS)
    except (GraphQLError, RecursionError):
        return None
