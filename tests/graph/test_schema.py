"""The schema as a contract: every word of it is described, every door has a lock, every list has a bound."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    get_nullable_type,
    is_specified_scalar_type,
)

from core.token import Scope
from graph.errors import Scoped
from graph.schema import build, text
from tests.graph.api import RunningApi

SCHEMA: GraphQLSchema = build()._schema
ADMIN_QUERIES = {"tokens"}
ADMIN_MUTATIONS = {"createToken", "revokeToken", "updateSettings"}
ROOT = Path(__file__).parent.parent.parent
ROOTS = {"Query", "Mutation", "Subscription"}


def named_types() -> Iterator[GraphQLNamedType]:
    for name, found in SCHEMA.type_map.items():
        if not name.startswith("__") and not (isinstance(found, GraphQLScalarType) and is_specified_scalar_type(found)):
            yield found


def described() -> Iterator[tuple[str, str | None]]:
    """Everything that has a name, with what is said of it."""
    for found in named_types():
        yield found.name, found.description
        if isinstance(found, GraphQLEnumType):
            for name, value in found.values.items():
                yield f"{found.name}.{name}", value.description
        if isinstance(found, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in found.fields.items():
                yield f"{found.name}.{name}", field.description
                for argument_name, argument in field.args.items():
                    yield f"{found.name}.{name}({argument_name})", argument.description
        if isinstance(found, GraphQLInputObjectType):
            for name, input_field in found.fields.items():
                yield f"{found.name}.{name}", input_field.description


def test_everything_has_a_description_that_is_not_its_name_again() -> None:
    def words_of(value: str) -> set[str]:
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", value)
        return set(re.findall(r"[a-z0-9]+", spaced.lower())) - {"the", "a", "an", "its", "of", "this"}

    empty, repeating, unended = [], [], []
    for name, description in described():
        own_name = name.rstrip(")").replace("(", ".").rpartition(".")[2]
        if not description or not description.strip():
            empty.append(name)
        elif words_of(description) <= words_of(own_name):
            repeating.append((name, description))
        elif not description.rstrip().endswith((".", ')."', '".')):
            unended.append((name, description))

    assert (empty, repeating, unended) == ([], [], [])


def test_numbers_tell_their_unit() -> None:
    unit = re.compile(
        r"byte|second|day|percent|per cent|millisecond|how many|files|jobs|runs|attempt|errors|rows|lines"
        r"|1 to 100|0 to 1",
        re.IGNORECASE,
    )
    silent = [
        f"{found.name}.{name}"
        for found in named_types()
        if isinstance(found, GraphQLObjectType)
        for name, field in found.fields.items()
        if get_named_type(field.type).name in {"Int", "Float", "Bytes", "BigInt"}
        and not unit.search(field.description or "")
    ]

    assert silent == []


def test_the_written_schema_is_that_of_the_code() -> None:
    written = (ROOT / "schema.graphql").read_text()

    assert written == text(build())


def fields_of(root: str) -> dict[str, Any]:
    found = SCHEMA.type_map[root]
    assert isinstance(found, GraphQLObjectType)
    return dict(found.fields)


def test_every_mutation_takes_one_input_of_its_own_and_gives_one_payload_of_its_own() -> None:
    for name, field in fields_of("Mutation").items():
        own = name[0].upper() + name[1:]

        assert not isinstance(field.type, GraphQLNonNull), name
        assert str(field.type) == f"{own}Payload", name
        assert {argument: str(found.type) for argument, found in field.args.items()} == {"input": f"{own}Input!"}, name
        payload = SCHEMA.type_map[f"{own}Payload"]
        assert isinstance(payload, GraphQLObjectType)
        nullable = {key: str(value.type) for key, value in payload.fields.items()}
        assert nullable.pop("userErrors") == "[UserError!]!", name
        assert [value for value in nullable.values() if value.endswith("!")] == [], name


def test_every_list_is_a_connection_or_tells_its_bound() -> None:
    parts_of_connections = {"edges", "nodes"}
    unbounded = []
    for found in named_types():
        if not isinstance(found, GraphQLObjectType):
            continue
        for name, field in found.fields.items():
            is_part = found.name.endswith("Connection") and name in parts_of_connections
            if not isinstance(get_nullable_type(field.type), GraphQLList) or is_part:
                continue
            if not re.search(r"at most [\d,]+|e\.g\. \[", field.description or ""):
                unbounded.append(f"{found.name}.{name}")

    assert unbounded == []


def test_connections_are_relays() -> None:
    shapes = {
        found.name: {name: str(field.type) for name, field in found.fields.items()}
        for found in named_types()
        if isinstance(found, GraphQLObjectType) and found.name.endswith("Connection")
    }

    assert sorted(shapes) == [
        "ApiTokenConnection",
        "EventConnection",
        "JobConnection",
        "JobFileConnection",
        "LogLineConnection",
        "PlannedFileConnection",
        "WeightFileConnection",
        "WeightSetConnection",
    ]
    for name, shape in shapes.items():
        node = name.removesuffix("Connection")
        assert shape == {
            "edges": f"[{node}Edge!]!",
            "nodes": f"[{node}!]!",
            "pageInfo": "PageInfo!",
            "totalCount": "Int",
        }


def test_what_a_subscription_pushes_has_an_id_or_a_cursor() -> None:
    for name, field in fields_of("Subscription").items():
        found = get_named_type(field.type)
        for pushed in found.types if isinstance(found, GraphQLUnionType) else [found]:
            assert isinstance(pushed, GraphQLObjectType)
            assert {"id", "cursor"} & set(pushed.fields), name


def test_every_root_field_demands_its_scope() -> None:
    definitions = {root: _strawberry_fields(root) for root in ("Query", "Mutation")}
    scopes = {
        root: {
            name: [extension.scope for extension in extensions if isinstance(extension, Scoped)]
            for name, extensions in fields.items()
        }
        for root, fields in definitions.items()
    }

    assert scopes == {
        "Query": {name: [Scope.ADMIN if name in ADMIN_QUERIES else Scope.READ] for name in fields_of("Query")},
        "Mutation": {
            name: [Scope.ADMIN if name in ADMIN_MUTATIONS else Scope.OPERATE] for name in fields_of("Mutation")
        },
    }


def _strawberry_fields(root: str) -> dict[str, list[Any]]:
    """The extensions of each field of a root, by the field's GraphQL name."""
    definition = build().get_type_by_name(root)
    assert definition is not None
    return {
        re.sub(r"_([a-z])", lambda match: match[1].upper(), field.name): list(field.extensions)
        for field in definition.fields  # type: ignore[union-attr]
    }


async def call_every_mutation(api: RunningApi, scope: Scope) -> list[tuple[str, Any]]:
    """Call every mutation with an input that is well-formed; return what its error says."""
    inputs = {
        "installWeights": '{repoId: "acme/tiny"}',
        "deleteWeights": '{weightSetId: "WeightSet:acme/tiny"}',
        "cancelJob": '{jobId: "Job:01930f6e-0000-7000-8000-000000000000"}',
        "retryJob": '{jobId: "Job:01930f6e-0000-7000-8000-000000000000"}',
        "pauseJob": '{jobId: "Job:01930f6e-0000-7000-8000-000000000000"}',
        "resumeJob": '{jobId: "Job:01930f6e-0000-7000-8000-000000000000"}',
        "setJobPriority": '{jobId: "Job:01930f6e-0000-7000-8000-000000000000", priority: HIGH}',
        "pinWeights": '{weightSetId: "WeightSet:acme/tiny", pinned: true}',
        "createToken": '{name: "ci", scope: READ}',
        "revokeToken": '{tokenId: "ApiToken:01930f6e-0000-7000-8000-000000000000"}',
        "updateSettings": "{concurrentInstalls: 4}",
    }
    assert inputs.keys() == fields_of("Mutation").keys()
    found = []
    for name, given in inputs.items():
        status, body = await api.execute(
            f"mutation {{ {name}(input: {given}) {{ userErrors {{ code }} }} }}", token=api.tokens[scope]
        )
        assert status == 200
        found.append((name, body))
    return found


async def test_a_read_token_is_forbidden_every_mutation_with_its_path(api: RunningApi) -> None:
    answers = await call_every_mutation(api, Scope.READ)

    for name, body in answers:
        needed = Scope.ADMIN if name in ADMIN_MUTATIONS else Scope.OPERATE
        message = f"This needs a token with scope {needed.name}; yours has READ"
        (error,) = body.pop("errors")
        assert error.pop("locations")
        assert error == {"message": message, "extensions": {"code": "FORBIDDEN"}, "path": [name]}
        assert body == {"data": {name: None}}
    assert await api.data("{ jobs { totalCount } weightSets { totalCount } }") == {
        "jobs": {"totalCount": 0},
        "weightSets": {"totalCount": 0},
    }


@pytest.mark.parametrize("scope", [Scope.OPERATE, Scope.ADMIN])
async def test_higher_scopes_may_do_what_lower_ones_may(api: RunningApi, scope: Scope) -> None:
    answers = await call_every_mutation(api, scope)

    refused = sorted(name for name, body in answers if "errors" in body)
    assert refused == (sorted(ADMIN_MUTATIONS) if scope is Scope.OPERATE else [])
    assert await api.data("{ viewer { scope } }", token=api.tokens[scope]) == {"viewer": {"scope": scope.name}}


async def test_every_query_and_every_subscription_is_for_a_read_token(api: RunningApi) -> None:
    token = api.tokens[Scope.READ]
    fields = [
        'node(id: "WeightSet:a") { id }',
        "weightSets { totalCount }",
        'weightSet(name: "a") { id }',
        "volume { id }",
        'installPlan(input: {repoId: "acme/tiny"}) { access { outcome } }',
        "jobs { totalCount }",
        'job(id: "Job:01930f6e-0000-7000-8000-000000000000") { id }',
        "queue { id }",
        "events { totalCount }",
        "settings { id }",
        "overview { id }",
        "viewer { name }",
        "server { version }",
    ]

    answer = await api.data("{" + " ".join(fields) + "}", token=token)

    assert answer.keys() == fields_of("Query").keys() - ADMIN_QUERIES


PAGES = ("{ jobs(%s) { nodes { id } } }", "{ weightSets(%s) { nodes { id } } }")


async def test_bad_pages_are_invalid(api: RunningApi) -> None:
    no_cursor = "This is not a cursor of this list and order"
    for query in PAGES:
        for arguments, message, argument in (
            ("first: 0", "`first` is 1 to 100", "first"),
            ("first: 101", "`first` is 1 to 100", "first"),
            ("first: -1", "`first` is 1 to 100", "first"),
            ("last: 0", "`last` is 1 to 100", "last"),
            ("last: 2147483647", "`last` is 1 to 100", "last"),
            ("first: 1, last: 1", "Give `first` or `last`, not both", "last"),
            ('after: ""', no_cursor, "after"),
            ('before: "WyJmaWxlcyIsMV0"', no_cursor, "before"),
            ('after: "\\u0000"', no_cursor, "after"),
            (f'after: "{"A" * 5000}"', no_cursor, "after"),
        ):
            assert await api.refusal(query % arguments) == ("INVALID", [argument], message), arguments
