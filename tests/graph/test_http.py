"""GraphQL over HTTP as a stranger's client meets it: status codes, media types, and refusals in words."""

import json
from typing import Any

import pytest
from graphql import get_introspection_query
from sqlalchemy import text, update

from core.token import Scope
from db.tables import Token
from db.types import db_now
from tests.graph.api import (
    GRAPHQL_JSON,
    RunningApi,
    error_of,
    serving,
    settings_for,
    sqlite_only,
)
from tests.servers.valkey import ValkeyServer

WHOM = "{ viewer { name } }"
NOT_JSON = 'The body must be JSON: {"query": "…", "variables": {…}}'
NOT_AN_OBJECT = "The body must be one JSON object; batches are not taken"
NO_QUERY = "`query` must be a GraphQL document"
BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, NOT_JSON),
    (b"null", 400, NOT_AN_OBJECT),
    (b'"x"', 400, NOT_AN_OBJECT),
    (b"1", 400, NOT_AN_OBJECT),
    (b"[]", 400, NOT_AN_OBJECT),
    (b'[{"query": "{ viewer { name } }"}]', 400, NOT_AN_OBJECT),
    (b"{}", 400, NO_QUERY),
    (b"\xff\xfe{", 400, NOT_JSON),
    (b'{"query": "\xff"}', 400, NOT_JSON),
    (b"[" * 100_000, 400, NOT_JSON),
    (b"[" * 100_000 + b"]" * 100_000, 400, NOT_JSON),
    (b'{"query": "{ viewer { name } }", "variables": {"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}", 400, NOT_JSON),
    (b'{"query": "{ viewer { name } }", "variables": {"a": NaN}}', 400, NOT_JSON),
    (b'{"query": "{ viewer { name } }", "variables": {"a": 1e999}}', 400, NOT_JSON),
    (b'{"query": "\\ud800"}', 400, NOT_JSON),
    (b'{"query": "{ viewer { name } }", "variables": {"a": "\\udfff"}}', 400, NOT_JSON),
    (b'{"query": "{ viewer { name } }"} {}', 400, NOT_JSON),
    (b'{"query": null}', 400, NO_QUERY),
    (b'{"query": 1}', 400, NO_QUERY),
    (b'{"query": ["{ viewer { name } }"]}', 400, NO_QUERY),
    (b'{"query": "  "}', 400, NO_QUERY),
    (b'{"query": "{ viewer { name } }", "variables": []}', 400, "`variables` must be an object"),
    (b'{"query": "{ viewer { name } }", "variables": "{}"}', 400, "`variables` must be an object"),
    (b'{"query": "{ viewer { name } }", "operationName": 1}', 400, "`operationName` must be a string"),
    (b'{"query": "{ viewer { name } }", "extensions": "x"}', 400, "`extensions` must be an object"),
    (b'{"query": "' + b"x" * (300 << 10) + b'"}', 413, "The body must be no larger than 262144 bytes"),
    (b'{"query": "' + b" " * (17 << 10) + b'{}"}', 413, "The document must be no larger than 16384 bytes"),
    (b'{"query": "\\u0000"}', 400, "Syntax Error: Unexpected character: U+0000."),
    (b'{"query": "# only a comment"}', 400, "Syntax Error: Unexpected <EOF>."),
]


# ---------------------------------------------------------------- requests


@sqlite_only
async def test_every_bad_body_is_refused_in_words_and_the_process_lives_on(api: RunningApi) -> None:
    for content, status, message in BAD_BODIES:
        for accept in (GRAPHQL_JSON, "*/*"):
            response = await api.post(content, Accept=accept)

            expected = status if accept == GRAPHQL_JSON or not message.startswith("Syntax") else 200
            error = error_of(response)
            assert (response.status_code, error["message"]) == (expected, message), content[:80]
            assert error["extensions"] == {"code": "BAD_REQUEST"}, content[:80]

    assert await api.data(WHOM) == {"viewer": {"name": "operate"}}


@sqlite_only
@pytest.mark.parametrize("kind", ["", "text/plain", "application/graphql", "multipart/form-data", "application/jsonx"])
async def test_another_content_type_is_415(api: RunningApi, kind: str) -> None:
    response = await api.post(json.dumps({"query": WHOM}).encode(), **{"Content-Type": kind})

    assert response.status_code == 415
    assert error_of(response)["message"] == "Send the operation as application/json"


@sqlite_only
async def test_a_content_type_with_parameters_and_in_capitals_is_taken(api: RunningApi) -> None:
    response = await api.post(
        json.dumps({"query": WHOM}).encode(), **{"Content-Type": "Application/JSON;charset=utf-8"}
    )

    assert response.json() == {"data": {"viewer": {"name": "operate"}}}


@sqlite_only
async def test_other_methods_are_405_and_run_nothing(api: RunningApi) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"):
        response = await api.http.request(method, f"/graphql?query={WHOM}", headers=api.headers())

        assert (response.status_code, response.headers["Allow"]) == (405, "POST"), method


@sqlite_only
async def test_media_types_and_their_status_codes(api: RunningApi) -> None:
    async def ask(query: str, accept: str) -> tuple[int, str]:
        response = await api.post(json.dumps({"query": query}).encode(), Accept=accept)
        return response.status_code, response.headers["Content-Type"]

    new, old = f"{GRAPHQL_JSON}; charset=utf-8", "application/json; charset=utf-8"

    assert await ask(WHOM, GRAPHQL_JSON) == (200, new)
    assert await ask(WHOM, f"{GRAPHQL_JSON}, application/json;q=0.9") == (200, new)
    assert await ask(WHOM, "application/json") == (200, old)
    assert await ask(WHOM, "*/*") == (200, old)
    assert await ask("{ nothing }", GRAPHQL_JSON) == (400, new)
    assert await ask("{ nothing }", "application/json") == (200, old)
    assert await ask('{ node(id: "x") { id } }', GRAPHQL_JSON) == (200, new)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Basic bW06bW0=",
        "mm_abcdefgh_" + "x" * 43,
        "Bearer mm_abcdefgh_" + "x" * 43,
        "Bearer mm_",
        "Bearer " + "x" * 10_000,
        "Bearer \xe9\xff",
        "Bearer mm_abcdefgh_' OR 1=1 --",
    ],
)
@sqlite_only
async def test_without_a_good_token_nothing_is_answered(api: RunningApi, header: str | None) -> None:
    headers = {"Content-Type": "application/json"} | ({"Authorization": header.encode("latin-1")} if header else {})

    response = await api.http.post("/graphql", content=b'{"query": "{ __typename }"}', headers=headers)

    error = error_of(response)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert error["extensions"] == {"code": "UNAUTHENTICATED"}
    assert "token" in error["message"]


async def test_a_wrong_secret_expired_and_revoked_tokens_are_refused(api: RunningApi) -> None:
    secret = api.tokens[Scope.READ]
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    async with api.database.write() as session:
        for scope, ended in ((Scope.READ, "expires_at"), (Scope.OPERATE, "revoked_at")):
            await session.execute(update(Token).where(Token.scope == scope).values(**{ended: db_now(plus_seconds=-1)}))
        await session.commit()

    answers = [await api.execute(WHOM, token=token) for token in (wrong, secret, api.tokens[Scope.OPERATE])]

    message = "This token is unknown, revoked or expired"
    refused = {"errors": [{"message": message, "extensions": {"code": "UNAUTHENTICATED"}}]}
    assert answers == [(401, refused)] * 3
    assert await api.execute(WHOM, token=api.tokens[Scope.ADMIN]) == (200, {"data": {"viewer": {"name": "admin"}}})


async def test_the_scheme_is_taken_in_any_case_and_use_is_noted(api: RunningApi) -> None:
    headers = {"Authorization": f"bEARER  {api.tokens[Scope.READ]}"}

    response = await api.post(json.dumps({"query": WHOM}).encode(), **headers)

    assert response.json() == {"data": {"viewer": {"name": "read"}}}
    async with api.database.read() as session:
        used = (await session.execute(text("SELECT name FROM tokens WHERE last_used_at IS NOT NULL"))).all()
    assert used == [("read",)]


@sqlite_only
async def test_the_token_of_the_settings_is_admin(database_url: str, valkey: ValkeyServer) -> None:
    token = "a-long-token-of-the-settings"
    settings = settings_for(database_url, valkey.url).model_copy(update={"admin_token": _secret(token)})

    async with serving(settings, secrets={}) as running:
        running.tokens = {Scope.OPERATE: token}
        answer = await running.data("{ viewer { name scope expiresAt } }")

    assert answer == {"viewer": {"name": "admin", "scope": "ADMIN", "expiresAt": None}}


def _secret(value: str) -> Any:
    from pydantic import SecretStr  # noqa: PLC0415 - for this one test

    return SecretStr(value)


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{", "Syntax Error: Expected Name, found <EOF>."),
        ("{ viewr { name } }", "Cannot query field 'viewr' on type 'Query'."),
        ("{ viewer { nam } }", "Cannot query field 'nam' on type 'Viewer'."),
        ("{ jobs(frst: 1) { totalCount } }", "Unknown argument 'frst' on field 'Query.jobs'."),
        ("{ viewer { name @skp(if: true) } }", "Unknown directive '@skp'."),
        ("{ ...Missing }", "Unknown fragment 'Missing'."),
        ("{ ...A } fragment A on Query { ...A }", "Cannot spread fragment 'A' within itself."),
        ("{ jobs(filter: {states: [QUEUE]}) { totalCount } }", "Value 'QUEUE' does not exist in 'JobState' enum."),
        (
            "{ jobs(filter: {state: [QUEUED]}) { totalCount } }",
            "Expected value of type 'JobFilter' not to include unknown field 'state'. Found: { state: [QUEUED] }.",
        ),
        ("query A { viewer { name } } query B { viewer { name } }", "several operations: say which by `operationName`"),
        ("fragment A on Query { viewer { name } }", "`query` must be a GraphQL document with at least one operation"),
        ("subscription { jobs { cursor } }", "Subscriptions are not answered here: send them over the WebSocket"),
        ('{ weightSet(name: "\\ud800") { id } }', "Syntax Error: Invalid Unicode escape sequence: '\\ud800'."),
        ("{" + "viewer{" * 150 + "name" + "}" * 151, "The document must not be nested deeper than 60 levels."),
    ],
)
@sqlite_only
async def test_what_is_wrong_with_a_document_is_told_without_suggestions(
    api: RunningApi, query: str, message: str
) -> None:
    status, body = await api.execute(query)

    assert status == 400
    assert set(body) == {"errors"}
    assert message in body["errors"][0]["message"]
    assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_REQUEST"}
    assert "Did you mean" not in json.dumps(body)


@sqlite_only
async def test_bad_variables_are_told_without_suggestions(api: RunningApi) -> None:
    query = "query Q($filter: JobFilter) { jobs(filter: $filter) { totalCount } }"
    message = "Variable '$filter' has invalid value at .states[0]: Value 'QUEUE' does not exist in 'JobState' enum."

    status, body = await api.execute(query, {"filter": {"states": ["QUEUE"]}})

    location = {"line": 1, "column": 9}
    told = {"message": message, "extensions": {"code": "BAD_REQUEST"}, "locations": [location]}
    assert (status, body) == (400, {"errors": [told]})


@sqlite_only
async def test_an_unknown_operation_name_is_told(api: RunningApi) -> None:
    query = "query A { viewer { name } } query B { viewer { scope } }"

    unknown = await api.execute(query, operationName="C")
    known = await api.execute(query, operationName="B")

    message = 'The document has no operation named "C": give the name of one that it has'
    assert unknown == (400, {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]})
    assert known == (200, {"data": {"viewer": {"scope": "OPERATE"}}})


def aliases(count: int) -> str:
    return "{" + " ".join(f"a{number}: viewer {{ name }}" for number in range(count)) + "}"


def deep(levels: int) -> str:
    """A document whose deepest field has that many fields above it."""
    begin = '{ weightSet(name: "a") { installJob {'
    pairs = (levels - 2) // 2
    tail = "subject { id }" if levels % 2 else "id"
    return begin + "weightSet { installJob {" * pairs + tail + "} }" * pairs + "} } }"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ viewer {" + " name" * 1000 + "} }", "Syntax Error: Document contains more than 1000 tokens."),
        (aliases(16), "The document may hold at most 15 aliases, counted wherever a fragment is spread."),
        (
            "{" + " ".join("...A" for _ in range(16)) + "} fragment A on Query { a: viewer { name } }",
            "The document may hold at most 15 aliases, counted wherever a fragment is spread.",
        ),
        (deep(13), "The deepest field may have at most 12 fields above it."),
    ],
)
@sqlite_only
async def test_documents_that_are_too_large_are_refused(api: RunningApi, query: str, message: str) -> None:
    status, body = await api.execute(query)

    assert status == 400
    assert body["errors"][0]["message"].startswith(message)
    assert body["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}


@sqlite_only
async def test_documents_at_the_limits_are_answered(api: RunningApi) -> None:
    assert len((await api.data(aliases(15))).keys()) == 15
    assert await api.data(deep(12)) == {"weightSet": None}
    tokens = "{ viewer {" + " name @include(if: true)" * 124 + "} }"
    assert await api.data(tokens) == {"viewer": {"name": "operate"}}


@pytest.mark.parametrize("of_type", ["Query", "__Schema"])
@sqlite_only
async def test_fragments_that_double_themselves_are_refused_at_once(api: RunningApi, of_type: str) -> None:
    spread = "{ ...f0 }" if of_type == "Query" else "{ __schema { ...f0 } }"
    bomb = [f"fragment f{number} on {of_type} {{ ...f{number + 1} ...f{number + 1} }}" for number in range(50)]
    query = " ".join([spread, *bomb, f"fragment f50 on {of_type} {{ __typename }}"])

    status, body = await api.execute(query)

    message = "The document may select at most 5000 fields with its fragments written out."
    assert (status, body) == (400, {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]})


@sqlite_only
async def test_the_introspection_query_of_tools_is_answered(api: RunningApi) -> None:
    query = get_introspection_query(
        descriptions=True,
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )

    found = await api.data(query, token=api.tokens[Scope.READ])

    assert found["__schema"]["queryType"] == {"name": "Query"} | {
        key: found["__schema"]["queryType"][key] for key in found["__schema"]["queryType"] if key != "name"
    }
    assert {"Job", "WeightSet", "Node"} <= {one["name"] for one in found["__schema"]["types"]}
