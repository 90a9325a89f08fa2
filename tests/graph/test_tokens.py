"""Access tokens over the API: made, listed, ended, and by ADMIN alone."""

import asyncio
from typing import Any

import pytest

from core.settings import Settings
from core.token import Scope
from db.engine import Database
from tests.graph.api import RunningApi, make_tokens, serving, settings_for
from tests.servers.valkey import ValkeyServer

CREATE = """
mutation ($input: CreateTokenInput!) {
  done: createToken(input: $input) {
    token { id name prefix scope createdBy expiresAt lastUsedAt revokedAt } secret userErrors { code path }
  }
}
"""
REVOKE = """
mutation ($id: ID!) {
  done: revokeToken(input: {tokenId: $id}) { token { id name revokedAt } userErrors { code message path } }
}
"""
TOKENS = """
query ($first: Int, $after: String) {
  tokens(first: $first, after: $after) { nodes { id name scope } pageInfo { hasNextPage endCursor } totalCount }
}
"""
VIEWER = "{ viewer { name scope } }"
UNKNOWN = "ApiToken:01930f6e-0000-7000-8000-000000000000"


async def done(api: RunningApi, query: str, **variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(query, variables, api.tokens[Scope.ADMIN]))["done"]
    return found


async def token_ids(api: RunningApi) -> dict[str, str]:
    page = (await api.data(TOKENS, {}, api.tokens[Scope.ADMIN]))["tokens"]
    return {node["name"]: node["id"] for node in page["nodes"]}


async def test_a_made_token_opens_what_its_scope_reaches_and_its_secret_is_never_shown_again(api: RunningApi) -> None:
    made = await done(api, CREATE, input={"name": "ci", "scope": "READ", "expiresInDays": 7})

    viewer = (await api.data(VIEWER, token=made["secret"]))["viewer"]

    token = made["token"]
    assert viewer == {"name": "ci", "scope": "READ"}
    assert (token["name"], token["scope"], token["createdBy"], token["revokedAt"]) == ("ci", "READ", "admin", None)
    assert token["expiresAt"] is not None
    assert made["secret"].startswith(f"mm_{token['prefix']}_")
    shown = await api.data(
        "{ tokens { nodes { id name prefix } } events { nodes { message data } } }", {}, api.tokens[Scope.ADMIN]
    )
    assert made["secret"].rpartition("_")[2] not in str(shown)


async def test_tokens_are_listed_newest_first_in_pages(api: RunningApi) -> None:
    await done(api, CREATE, input={"name": "ci", "scope": "READ"})

    first = (await api.data(TOKENS, {"first": 1}, api.tokens[Scope.ADMIN]))["tokens"]
    cursor = first["pageInfo"]["endCursor"]
    rest = (await api.data(TOKENS, {"first": 9, "after": cursor}, api.tokens[Scope.ADMIN]))["tokens"]

    assert [node["name"] for node in first["nodes"]] == ["ci"]
    assert first["totalCount"] == 4
    assert {node["name"] for node in rest["nodes"]} == {"read", "operate", "admin"}
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)


async def test_a_revoked_token_opens_nothing_and_revoking_it_again_changes_nothing(api: RunningApi) -> None:
    made = await done(api, CREATE, input={"name": "ci", "scope": "ADMIN"})

    first = await done(api, REVOKE, id=made["token"]["id"])
    again = await done(api, REVOKE, id=made["token"]["id"])

    status, body = await api.execute(VIEWER, token=made["secret"])
    assert (status, body["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
    assert first["token"]["revokedAt"] is not None
    assert again == first
    events = (await api.data("{ events(first: 2) { nodes { type actor subjectId } } }"))["events"]["nodes"]
    subject = made["token"]["id"]
    assert events == [
        {"type": "token.revoked", "actor": "admin", "subjectId": subject},
        {"type": "token.created", "actor": "admin", "subjectId": subject},
    ]


async def test_the_last_good_admin_token_stays(api: RunningApi) -> None:
    ids = await token_ids(api)

    refused = await done(api, REVOKE, id=ids["admin"])

    assert refused["token"] is None
    assert [(error["code"], error["path"]) for error in refused["userErrors"]] == [("CONFLICT", ["input", "tokenId"])]
    assert "MODEL_MANAGER_ADMIN_TOKEN" in refused["userErrors"][0]["message"]
    assert await api.data(VIEWER, token=api.tokens[Scope.ADMIN]) == {"viewer": {"name": "admin", "scope": "ADMIN"}}


async def test_of_two_admin_tokens_that_are_revoked_at_once_one_stays(api: RunningApi) -> None:
    other = await done(api, CREATE, input={"name": "other", "scope": "ADMIN"})
    ids = await token_ids(api)

    answers = await asyncio.gather(
        *(api.data(REVOKE, {"id": ids[name]}, other["secret"]) for name in ("other", "admin")), return_exceptions=True
    )

    good = [await api.execute(VIEWER, token=secret) for secret in (other["secret"], api.tokens[Scope.ADMIN])]
    assert sorted(status for status, _ in good) == [200, 401]
    assert len(answers) == 2


async def test_with_an_admin_token_in_the_settings_the_last_of_the_database_can_go(
    database_url: str, database: Database, valkey: ValkeyServer
) -> None:
    secrets = await make_tokens(database)
    given = settings_for(database_url, valkey.url).model_dump() | {"admin_token": "an-admin-token-for-tests-only"}
    async with serving(Settings(**given), secrets=secrets) as api:
        ids = await token_ids(api)

        revoked = await done(api, REVOKE, id=ids["admin"])

        assert revoked["userErrors"] == []
        assert (await api.execute(VIEWER, token=api.tokens[Scope.ADMIN]))[0] == 401


@pytest.mark.parametrize(
    "name",
    ["", " ", "ci ", "x" * 65, "a\u202eb", "a\u200bb", "a\nb", "a\x00b", "\ud800"],
    ids=lambda name: ascii(name[:9]),
)
async def test_a_name_that_could_deceive_is_refused_and_makes_no_token(api: RunningApi, name: str) -> None:
    status, body = await api.execute(CREATE, {"input": {"name": name, "scope": "READ"}}, api.tokens[Scope.ADMIN])

    assert "\x00" not in str(body)
    if status == 200 and "errors" not in body:
        assert body["data"]["done"] == {
            "token": None,
            "secret": None,
            "userErrors": [{"code": "INVALID", "path": ["input", "name"]}],
        }
    else:
        assert status == 400
    assert len(await token_ids(api)) == 3


@pytest.mark.parametrize("days", [0, -1, 3651])
async def test_a_token_ends_after_a_day_at_least_and_ten_years_at_most(api: RunningApi, days: int) -> None:
    refused = await done(api, CREATE, input={"name": "ci", "scope": "READ", "expiresInDays": days})

    assert refused["userErrors"] == [{"code": "INVALID", "path": ["input", "expiresInDays"]}]
    assert len(await token_ids(api)) == 3


async def test_an_unknown_token_is_not_found_and_an_id_of_another_type_is_refused(api: RunningApi) -> None:
    unknown = await done(api, REVOKE, id=UNKNOWN)
    other = await done(api, REVOKE, id="WeightSet:acme/tiny")

    assert [error["code"] for error in unknown["userErrors"] + other["userErrors"]] == ["NOT_FOUND", "INVALID"]


async def test_a_token_is_a_node_for_admin_alone(api: RunningApi) -> None:
    ids = await token_ids(api)
    query = "query ($id: ID!) { node(id: $id) { id ... on ApiToken { name } } }"

    found = await api.data(query, {"id": ids["read"]}, api.tokens[Scope.ADMIN])
    missing = await api.data(query, {"id": UNKNOWN}, api.tokens[Scope.ADMIN])

    assert (found["node"], missing["node"]) == ({"id": ids["read"], "name": "read"}, None)
    assert (await api.refusal(query, {"id": ids["read"]}))[0] == "FORBIDDEN"


async def test_the_subject_of_a_token_s_event_is_shown_to_admin_alone(api: RunningApi) -> None:
    query = '{ events(filter: {types: ["token.created"]}) { nodes { subject { __typename } } } }'

    shown = {scope: (await api.data(query, {}, api.tokens[scope]))["events"]["nodes"] for scope in Scope}

    assert shown[Scope.ADMIN] == [{"subject": {"__typename": "ApiToken"}}] * 3
    assert shown[Scope.OPERATE] == shown[Scope.READ] == [{"subject": None}] * 3


@pytest.mark.parametrize("scope", [Scope.READ, Scope.OPERATE])
async def test_a_lesser_token_neither_sees_nor_makes_nor_ends_tokens(api: RunningApi, scope: Scope) -> None:
    ids = await token_ids(api)
    for query, variables in (
        (TOKENS, {}),
        (CREATE, {"input": {"name": "ci", "scope": "READ"}}),
        (REVOKE, {"id": ids["read"]}),
    ):
        _, body = await api.execute(query, variables, api.tokens[scope])
        assert body["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await token_ids(api) == ids
