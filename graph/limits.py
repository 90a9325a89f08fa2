"""What a document may cost before anything of it is executed: tokens, depth, aliases, selections.

A fragment is measured once, however often it is spread: documents that double themselves with every fragment
would otherwise take for ever to be counted. Strawberry's own limiters do not do so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    validate,
)
from strawberry.extensions import SchemaExtension

MAX_TOKENS = 1000
MAX_ALIASES = 15
MAX_DEPTH = 12
MAX_NESTING = 60
MAX_SELECTIONS = 5000
CACHED_DOCUMENTS = 200


@dataclass(frozen=True)
class Measure:
    """What a selection comes to with its fragments written out.

    depth: how many fields lie above the deepest one, introspection left out (GraphiQL's is 15 deep).
    nesting: how many pairs of braces lie around the innermost field, introspection and fragments included.
    """

    depth: int = 0
    nesting: int = 0
    aliases: int = 0
    selections: int = 0

    def beside(self, other: "Measure") -> "Measure":
        """Put two selections next to each other."""
        return Measure(
            max(self.depth, other.depth),
            max(self.nesting, other.nesting),
            self.aliases + other.aliases,
            self.selections + other.selections,
        )


class _Ruler:
    """Measures the selections of one document."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._known: dict[str, Measure] = {}

    def measure(self, selection_set: SelectionSetNode | None, *, level: int = 1) -> Measure:
        """Add up a selection. Raises: GraphQLError when it is nested too deeply to go on."""
        if level > MAX_NESTING:
            raise GraphQLError(f"The document must not be nested deeper than {MAX_NESTING} levels.", selection_set)
        total = Measure()
        for selection in selection_set.selections if selection_set is not None else ():
            if isinstance(selection, FieldNode):
                found = self._field(selection, level=level)
            elif isinstance(selection, FragmentSpreadNode):
                found = self._fragment(selection.name.value, level=level)
            else:
                assert isinstance(selection, InlineFragmentNode), "there is no fourth kind of selection"
                found = self.measure(selection.selection_set, level=level + 1)
            total = total.beside(found).beside(Measure(selections=1))
        return Measure(total.depth, total.nesting + 1, total.aliases, total.selections)

    def _field(self, field: FieldNode, *, level: int) -> Measure:
        """Measure a field with what is selected of it."""
        own = Measure(aliases=int(field.alias is not None))
        if field.selection_set is None:
            return own
        inner = self.measure(field.selection_set, level=level + 1)
        depth = 0 if field.name.value.startswith("__") else inner.depth + 1
        return own.beside(Measure(depth, inner.nesting, inner.aliases, inner.selections))

    def _fragment(self, name: str, *, level: int) -> Measure:
        """Measure a fragment once; one that is not there, or contains itself, is refused by validation."""
        fragment = self._fragments.get(name)
        if fragment is None:
            return Measure()
        if name not in self._known:
            self._known[name] = Measure()
            self._known[name] = self.measure(fragment.selection_set, level=level + 1)
        return self._known[name]


def refusals(document: DocumentNode) -> list[GraphQLError]:
    """Say which limits a document breaks."""
    ruler = _Ruler(document)
    total = Measure()
    try:
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode):
                total = total.beside(ruler.measure(definition.selection_set))
    except GraphQLError as error:
        return [error]
    limits = (
        (total.depth, MAX_DEPTH, "The deepest field may have at most {} fields above it."),
        (total.nesting, MAX_NESTING, "The document must not be nested deeper than {} levels."),
        (
            total.aliases,
            MAX_ALIASES,
            "The document may hold at most {} aliases, counted wherever a fragment is spread.",
        ),
        (total.selections, MAX_SELECTIONS, "The document may select at most {} fields with its fragments written out."),
    )
    return [GraphQLError(sentence.format(limit)) for found, limit, sentence in limits if found > limit]


class LimitedValidation(SchemaExtension):
    """Refuses what is too large, then validates; both are remembered for documents that come again."""

    def on_validate(self) -> Iterator[None]:
        """Leave the errors where execution looks for them."""
        context = self.execution_context
        document = context.graphql_document
        assert document is not None, "it was parsed just before"
        errors = _checked(context.schema._schema, document, tuple(context.validation_rules))  # noqa: SLF001
        if context._provided_operation_name is None and _has_several_operations(document):  # noqa: SLF001
            errors = [*errors, GraphQLError("The document holds several operations: say which by `operationName`.")]
        context.pre_execution_errors = errors
        yield


@lru_cache(maxsize=CACHED_DOCUMENTS)
def _checked(
    schema: GraphQLSchema, document: DocumentNode, rules: tuple[type[ASTValidationRule], ...]
) -> list[GraphQLError]:
    """Measure, and validate what is not too large."""
    return refusals(document) or validate(schema, document, rules)


def _has_several_operations(document: DocumentNode) -> bool:
    """Tell whether it has to be said which operation is meant."""
    return sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions) > 1
