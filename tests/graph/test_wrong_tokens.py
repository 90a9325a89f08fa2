"""Wrong tokens: ten a minute are answered to an address, by every door; then it waits."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from core.errors import RateLimitedError, SettingsError
from core.settings import Settings, load
from core.token import Scope
from db.engine import Database
from graph.wrong_tokens import MAX_WRONG_TOKENS, WrongTokens, client_of
from tests.graph.api import RunningApi, make_tokens, serving, settings_for
from tests.servers.valkey import ValkeyServer

WRONG = "mm_aaaaaaaa_" + "x" * 43
VIEWER = "{ viewer { name } }"
PROXY = "203.0.113.9"


async def ask(api: RunningApi, token: str | None = WRONG, **headers: str) -> httpx2.Response:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return await api.http.post("/graphql", json={"query": VIEWER}, headers=headers)


@pytest.fixture
async def behind(database_url: str, database: Database, valkey: ValkeyServer) -> AsyncIterator[RunningApi]:
    """The API where what comes from this machine comes from a trusted proxy."""
    secrets = await make_tokens(database)
    given = settings_for(database_url, valkey.url).model_dump() | {"trusted_proxies": "127.0.0.0/8, 10.0.0.0/8"}
    async with serving(Settings(**given), secrets=secrets) as running:
        yield running


async def test_the_eleventh_wrong_token_of_a_minute_has_to_wait_and_so_does_a_right_one(api: RunningApi) -> None:
    answers = [await ask(api) for _ in range(MAX_WRONG_TOKENS + 1)]
    right = await ask(api, api.tokens[Scope.READ])

    assert [answer.status_code for answer in answers] == [401] * MAX_WRONG_TOKENS + [429]
    assert answers[-1].json()["errors"][0]["extensions"] == {"code": "RATE_LIMITED"}
    assert right.status_code == 429
    assert 1 <= int(right.headers["Retry-After"]) <= 60


async def test_every_door_counts_and_every_door_is_shut(api: RunningApi) -> None:
    for _ in range(MAX_WRONG_TOKENS - 1):
        await api.http.get("/events", headers={"Authorization": f"Bearer {WRONG}"})
    async with api.raw_socket() as socket:
        await socket.send({"type": "connection_init", "payload": {"authorization": f"Bearer {WRONG}"}})
        first = await socket.closing()

    stream = await api.http.get("/events", headers=api.headers())
    async with api.raw_socket() as socket:
        await socket.send({"type": "connection_init", "payload": {"authorization": api.headers()["Authorization"]}})
        second = await socket.closing()

    assert (first, second) == (4403, 4403)
    assert (stream.status_code, "Retry-After" in stream.headers) == (429, True)
    assert (await ask(api, api.tokens[Scope.READ])).status_code == 429


async def test_right_tokens_and_none_at_all_are_not_counted(api: RunningApi) -> None:
    for _ in range(MAX_WRONG_TOKENS + 5):
        assert (await ask(api, None)).status_code == 401
        assert (await ask(api, api.tokens[Scope.READ])).status_code == 200

    assert (await ask(api)).status_code == 401


async def test_a_header_that_no_trusted_proxy_wrote_changes_nothing(api: RunningApi) -> None:
    answers = [await ask(api, **{"X-Forwarded-For": f"198.51.100.{number}"}) for number in range(MAX_WRONG_TOKENS + 1)]

    assert answers[-1].status_code == 429


async def test_behind_a_trusted_proxy_each_client_has_a_count_of_its_own(behind: RunningApi) -> None:
    guilty = {"X-Forwarded-For": "198.51.100.7, 203.0.113.5, 10.1.2.3"}
    for _ in range(MAX_WRONG_TOKENS):
        await ask(behind, **guilty)

    other = await ask(behind, behind.tokens[Scope.READ], **{"X-Forwarded-For": "198.51.100.7, 203.0.113.6"})
    again = await ask(behind, behind.tokens[Scope.READ], **{"X-Forwarded-For": "192.0.2.1, 203.0.113.5"})

    assert (other.status_code, again.status_code) == (200, 429)


def test_the_count_begins_anew_after_a_minute() -> None:
    now = 100.0
    counts = WrongTokens(clock=lambda: now)
    for _ in range(MAX_WRONG_TOKENS):
        counts.check(PROXY)
        counts.note(PROXY)
    with pytest.raises(RateLimitedError) as refused:
        counts.check(PROXY)

    now = 160.0

    counts.check(PROXY)
    assert refused.value.retry_after_seconds == 60
    assert len(counts) == 0


def test_no_more_addresses_are_remembered_than_may_be() -> None:
    counts = WrongTokens(max_addresses=3)

    for number in range(1000):
        counts.note(f"198.51.{number // 256}.{number % 256}")

    assert len(counts) == 3


@pytest.mark.parametrize(
    ("peer", "told", "found"),
    [
        ("198.51.100.7", None, "198.51.100.7"),
        ("198.51.100.7", b"192.0.2.1", "198.51.100.7"),
        ("10.0.0.1", b"192.0.2.1", "192.0.2.1"),
        ("::ffff:10.0.0.1", b"192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", b"192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.1", b"192.0.2.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"\xff\x00", "10.0.0.1"),
        ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        ("a-name", None, None),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(peer: str, told: bytes | None, found: str | None) -> None:
    headers = [(b"x-forwarded-for", told)] if told is not None else []
    trusted = Settings(trusted_proxies="10.0.0.0/8").proxy_networks

    assert client_of({"client": (peer, 1), "headers": headers}, trusted=trusted) == found


def test_a_unix_socket_has_no_address() -> None:
    scope: dict[str, Any] = {"client": None, "headers": []}

    assert client_of(scope, trusted=()) is None


@pytest.mark.parametrize("value", ["everybody", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8,", "*"])
def test_what_are_no_networks_stops_the_start(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_MANAGER_TRUSTED_PROXIES", value)

    with pytest.raises(SettingsError) as refused:
        load()

    assert str(refused.value).startswith("MODEL_MANAGER_TRUSTED_PROXIES is not usable: it must be networks")
