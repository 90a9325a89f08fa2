"""Everything beside GraphQL: health, readiness, pages, the headers on them, and how answers are counted."""

import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from db import workers
from db.engine import Database
from tests.graph.api import RunningApi, make_tokens, postgresql_only, serving, settings_for, sqlite_only
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer

WHOM = "{ viewer { name } }"


@sqlite_only
async def test_every_answer_carries_the_headers_that_protect_pages(api: RunningApi) -> None:
    paths = ["/", "/graphiql/", "/healthz", "/health", "/readyz", "/nothing", "/graphql", "/../etc/passwd", "/%00"]

    for path in paths:
        response = await api.http.get(path)

        assert response.headers["X-Content-Type-Options"] == "nosniff", path
        assert response.headers["X-Frame-Options"] == "DENY", path
        assert response.headers["Referrer-Policy"] == "no-referrer", path
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy, path
        assert "frame-ancestors 'none'" in policy, path
        assert re.fullmatch(r"[0-9a-f-]{36}", response.headers["X-Request-Id"]), path
        assert "server" not in response.headers, path


@sqlite_only
async def test_pages_answer_without_a_token_and_unknown_paths_are_404(api: RunningApi) -> None:
    async def status(path: str) -> int:
        return (await api.http.get(path)).status_code

    assert [await status(path) for path in ("/", "/healthz", "/health", "/readyz")] == [200] * 4
    assert await status("/graphiql/") in {200, 404}  # 404, and says why, where it was not built
    assert [
        await status(path) for path in ("/nothing", "/graphql/x", "/metrics", "/events/x", "/schema.graphql", "/a%00b")
    ] == [404] * 6
    assert (await api.http.get("/")).headers["Content-Type"] == "text/html; charset=utf-8"
    assert (await api.http.get("/healthz")).text == "ok\n"


@sqlite_only
async def test_a_path_that_leaves_the_page_gives_nothing_away(api: RunningApi) -> None:
    for path in ("/graphiql/../../pyproject.toml", "/graphiql/%2e%2e/%2e%2e/pyproject.toml", "/graphiql/..%5c..%5cx"):
        response = await api.http.get(path)

        assert response.status_code == 404, path
        assert "model-manager" not in response.text, path


async def test_readiness_tells_how_each_part_is(api: RunningApi) -> None:
    without = await api.http.get("/readyz")
    await workers.beat(api.database, "w1", host="h", version="1", lanes=["tasks"], running_jobs=0)

    with_worker = await api.http.get("/readyz")

    parts = {"status": "ready", "database": "ok", "redis": "ok"}
    assert (without.status_code, without.json()) == (200, {**parts, "workers": "down"})
    assert (with_worker.status_code, with_worker.json()) == (200, {**parts, "workers": "ok"})


@postgresql_only
async def test_without_its_database_the_process_lives_and_is_not_ready(
    api: RunningApi, postgres: PostgresServer, database_url: str
) -> None:
    name = database_url.rpartition("/")[2]
    postgres.drop_database(name)

    ready, healthy = await api.http.get("/readyz"), await api.http.get("/healthz")
    postgres.run(f"CREATE DATABASE {name} TEMPLATE migrated")

    assert (ready.status_code, healthy.status_code) == (503, 200)
    assert ready.json() == {"status": "not ready", "database": "down", "redis": "ok", "workers": "down"}
    assert (await api.http.get("/readyz")).status_code == 200


@pytest.fixture
async def api_with_own_valkey(
    database_url: str, database: Database, own_valkey: ValkeyServer
) -> AsyncIterator[RunningApi]:
    secrets = await make_tokens(database)
    async with serving(settings_for(database_url, own_valkey.url), secrets=secrets) as running:
        yield running


@sqlite_only
async def test_without_redis_it_answers_and_says_so(api_with_own_valkey: RunningApi, own_valkey: ValkeyServer) -> None:
    api = api_with_own_valkey
    own_valkey.kill()

    ready = await api.http.get("/readyz")
    answer = await api.data("{ viewer { name } server { components { name state message } } }")

    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "database": "ok", "redis": "down", "workers": "down"},
    )
    told = {part["name"]: (part["state"], part["message"]) for part in answer["server"]["components"]}
    assert told["DATABASE"] == ("OK", None)
    assert told["REDIS"][0] == "DOWN"
    assert told["REDIS"][1].startswith("Redis does not answer: changes arrive late")


@sqlite_only
async def test_answers_are_counted_under_names_of_a_closed_list(api: RunningApi) -> None:
    def counted() -> dict[tuple[str, str, str], float]:
        family = next(one for one in REGISTRY.collect() if one.name == "model_manager_http_requests")
        return {
            (one.labels["method"], one.labels["route"], one.labels["status"]): one.value
            for one in family.samples
            if one.name.endswith("_total")
        }

    before = counted()
    for method, path in (
        ("GET", "/one-of-a-million"),
        ("GET", "/another-of-a-million"),
        ("PURGE", "/healthz"),
        ("GET", "/health?x=1"),
        ("GET", "/graphiql/assets/nothing.js"),
    ):
        await api.http.request(method, path)
    await api.data(WHOM)

    more = {key: value - before.get(key, 0) for key, value in counted().items() if value != before.get(key, 0)}
    assert more == {
        ("GET", "other", "404"): 2,
        ("other", "healthz", "405"): 1,
        ("GET", "healthz", "200"): 1,
        ("GET", "graphiql", "404"): 1,
        ("POST", "graphql", "200"): 1,
    }
