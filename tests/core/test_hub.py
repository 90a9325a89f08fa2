"""What the Hub says of a revision, and what each of its refusals means for the person who asked."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import huggingface_hub
import orjson
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _detect_agent
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from core.errors import JobErrorCode, JobFailure
from core.hub import AccessOutcome, Hub, HubError, asked_wait_seconds, retry_after
from core.repository import Digest, DigestKind, RepositoryFile, Snapshot
from tests.fakes.hub import FakeHub, Fault, TokenInfo
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401
from tests.fakes.server import AppServer

REPO = "acme/small"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "sub/ü b.txt": b"notes"}


@pytest.fixture
def commit(hub: FakeHub) -> str:
    return hub.add_repository(REPO, FILES, branches={"dev": {"config.json": b"{ }"}}, tags={"v1": "main"})


async def refusal(hub: Hub, repo_id: str = REPO, revision: str = "main") -> HubError:
    with pytest.raises(HubError) as refused:
        await hub.snapshot(repo_id, revision)
    return refused.value


def client(hub: FakeHub, token: str | None = None) -> Hub:
    return Hub(endpoint=hub.url, token=token)


class Canned:
    """A Hub that answers every request alike and remembers what it was asked."""

    def __init__(self, response: Response) -> None:
        self.asked: list[Request] = []
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.asked.append(Request(scope))
            await self._response(scope, receive, send)


@contextmanager
def canned(response: Response) -> Iterator[tuple[Canned, str]]:
    app = Canned(response)
    with AppServer(_bare(app)) as server:
        yield app, server.url


def _bare(app: Canned) -> Any:
    """Answer the server's own start and stop, which a bare application has to."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return None

    return answer


def said(**changes: Any) -> Response:
    """Answer with a model record in which something is different."""
    info = {
        "id": REPO,
        "sha": "c" * 40,
        "siblings": [{"rfilename": "a.txt", "size": 1, "blobId": "0" * 40}],
        "tags": [],
    }
    return Response(orjson.dumps(info | changes), media_type="application/json")


def sibling(**changes: Any) -> dict[str, Any]:
    return {"rfilename": "a.txt", "size": 1, "blobId": "0" * 40} | changes


# ---------------------------------------------------------------- snapshots


async def test_a_snapshot_has_the_commit_and_every_file_with_its_digest(hub: FakeHub, commit: str) -> None:
    found = await client(hub).snapshot(REPO, "main")

    notes = hashlib.sha1(b"blob 5\0notes", usedforsecurity=False).hexdigest()
    config = hashlib.sha1(b"blob 2\0{}", usedforsecurity=False).hexdigest()
    assert found == Snapshot(
        repo_id=REPO,
        commit=commit,
        is_gated=False,
        files=(
            RepositoryFile("config.json", 2, Digest(DigestKind.GIT_SHA1, config)),
            RepositoryFile("model.safetensors", 7, Digest(DigestKind.SHA256, hashlib.sha256(b"weights").hexdigest())),
            RepositoryFile("sub/ü b.txt", 5, Digest(DigestKind.GIT_SHA1, notes)),
        ),
    )
    assert [(record.method, record.path) for record in hub.requests] == [("GET", f"/api/models/{REPO}/revision/main")]


async def test_branches_tags_and_commits_are_revisions(hub: FakeHub, commit: str) -> None:
    commits = {name: (await client(hub).snapshot(REPO, name)).commit for name in ("v1", commit, "dev")}

    assert (commits["v1"], commits[commit]) == (commit, commit)
    assert commits["dev"] == hub.repository(REPO).branches["dev"] != commit


async def test_a_gated_repository_that_is_open_to_the_token_is_given(hub: FakeHub) -> None:
    commit = hub.add_repository(REPO, FILES, gated="manual")
    hub.tokens["hf_x"] = TokenInfo("reader", granted=frozenset({REPO}))

    found = await client(hub, "hf_x").snapshot(REPO, "main")

    assert (found.commit, found.is_gated, len(found.files)) == (commit, True, 3)
    assert [record.headers["authorization"] for record in hub.requests] == ["Bearer hf_x"] * 2


async def test_a_private_repository_is_given_to_a_token_that_may_read_it(hub: FakeHub) -> None:
    commit = hub.add_repository(REPO, FILES, private=True)
    hub.tokens["hf_x"] = TokenInfo("reader", private=frozenset({REPO}))

    assert (await client(hub, "hf_x").snapshot(REPO, "main")).commit == commit


async def test_an_empty_token_is_no_token(hub: FakeHub, commit: str) -> None:
    await client(hub, "").snapshot(REPO, "main")

    assert "authorization" not in hub.requests[0].headers


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("token", [None, "hf_x"])
async def test_an_unknown_repository_is_not_found(hub: FakeHub, token: str | None) -> None:
    hub.tokens["hf_x"] = TokenInfo("reader")

    refused = await refusal(client(hub, token), "acme/nothing")

    assert (refused.code, refused.access, refused.retryable) == (
        JobErrorCode.NOT_FOUND,
        AccessOutcome.NOT_FOUND,
        False,
    )
    assert str(refused) == f"The Hub at {hub.url} has no model acme/nothing, or it is private"


async def test_an_unknown_revision_is_named(hub: FakeHub, commit: str) -> None:
    refused = await refusal(client(hub), REPO, "nowhere")

    assert (refused.code, refused.access, refused.retryable) == (
        JobErrorCode.NOT_FOUND,
        AccessOutcome.NOT_FOUND,
        False,
    )
    assert str(refused) == "acme/small has no revision 'nowhere'"
    assert refused.url == f"{hub.url}/{REPO}/tree/main"


@pytest.mark.parametrize(
    ("token", "access", "message"),
    [
        (None, AccessOutcome.TOKEN_MISSING, "acme/small is gated: it needs a token"),
        (
            "hf_new",
            AccessOutcome.TERMS_NOT_ACCEPTED,
            "acme/small is gated: its terms have not been accepted for this token",
        ),
        (
            "hf_waits",
            AccessOutcome.TERMS_NOT_ACCEPTED,
            "acme/small is gated: its terms have not been accepted for this token",
        ),
    ],
)
async def test_a_closed_gate_names_the_page_to_open(
    hub: FakeHub, token: str | None, access: AccessOutcome, message: str
) -> None:
    hub.add_repository(REPO, FILES, gated="manual")
    hub.tokens |= {"hf_new": TokenInfo("new"), "hf_waits": TokenInfo("waits", awaiting=frozenset({REPO}))}

    refused = await refusal(client(hub, token))

    assert (refused.code, refused.access, refused.retryable) == (JobErrorCode.HUB_ACCESS_DENIED, access, False)
    assert (str(refused), refused.url) == (message, f"{hub.url}/{REPO}")
    assert f"Accept the terms at {hub.url}/{REPO}" in str(refused.hint)


async def test_a_bad_token_is_told_from_a_missing_repository_and_never_shown(hub: FakeHub, commit: str) -> None:
    refused = await refusal(client(hub, "hf_wrong"))

    assert (refused.code, refused.access) == (JobErrorCode.HUB_ACCESS_DENIED, AccessOutcome.TOKEN_INVALID)
    assert (refused.url, refused.retryable) == (f"{hub.url}/settings/tokens", False)
    assert "hf_wrong" not in f"{refused} {refused.hint} {refused.__cause__!r}"


@pytest.mark.parametrize(
    ("token", "access"), [(None, AccessOutcome.TOKEN_MISSING), ("hf_x", AccessOutcome.TOKEN_LACKS_REPOSITORY)]
)
async def test_a_plain_403_says_who_is_not_let_in(hub: FakeHub, token: str | None, access: AccessOutcome) -> None:
    hub.add_repository(REPO, FILES, disabled=True)
    hub.tokens["hf_x"] = TokenInfo("reader")

    refused = await refusal(client(hub, token))

    assert (refused.code, refused.access, refused.retryable) == (JobErrorCode.HUB_ACCESS_DENIED, access, False)
    assert refused.url is not None


# ---------------------------------------------------------------- busy, away, broken


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({"retry_after": 7}, 7.0), ({"retry_after": 86_400}, 300.0), ({"retry_after": "soon"}, None), ({}, None)],
    ids=["seconds", "too long", "garbage", "nothing"],
)
@pytest.mark.parametrize(("kind", "status"), [(Fault.TOO_MANY_REQUESTS, 429), (Fault.UNAVAILABLE, 503)])
async def test_a_busy_hub_is_tried_again_when_it_asked_for_it(
    hub: FakeHub, commit: str, kind: Fault, status: int, options: Any, seconds: float | None
) -> None:
    fault = hub.faults.add(kind, at="api", **options)

    refused = await refusal(client(hub))

    assert (refused.code, refused.access) == (JobErrorCode.HUB_UNAVAILABLE, AccessOutcome.HUB_UNREACHABLE)
    assert (refused.retryable, refused.retry_after_seconds) == (True, seconds)
    assert str(refused) == f"The Hub at {hub.url} answered {status}"
    assert fault.hits == 1


async def test_a_date_to_come_back_at_is_honoured(hub: FakeHub, commit: str) -> None:
    hub.faults.add(Fault.UNAVAILABLE, at="api", retry_after=datetime.now(UTC) + timedelta(seconds=60))

    refused = await refusal(client(hub))

    assert refused.retry_after_seconds is not None
    assert 50 < refused.retry_after_seconds <= 60


async def test_the_end_of_a_used_up_window_is_honoured(hub: FakeHub, commit: str) -> None:
    hub.faults.add(Fault.TOO_MANY_REQUESTS, at="api", rate_limit_reset_seconds=55)

    assert (await refusal(client(hub))).retry_after_seconds == 55.0


async def test_an_api_that_is_down_is_tried_again(hub: FakeHub, commit: str) -> None:
    hub.faults.add(Fault.API_DOWN)

    refused = await refusal(client(hub))

    assert (refused.code, refused.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)


async def test_a_hub_that_is_not_there_is_tried_again(hub: FakeHub, commit: str) -> None:
    hub.stop()

    refused = await refusal(client(hub))

    assert (refused.code, refused.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert str(refused) == f"The Hub at {hub.url} does not answer: ConnectError"


@pytest.mark.parametrize("address", ["info", "auth-check"])
async def test_a_hub_that_is_silent_is_not_waited_for_for_ever(hub: FakeHub, address: str) -> None:
    hub.add_repository(REPO, FILES, gated="manual")
    hub.faults.add(Fault.DELAY, at="api", skip=1 if address == "auth-check" else 0, seconds=60)

    began = time.monotonic()
    refused = await refusal(Hub(endpoint=hub.url, token=None, timeout_seconds=0.3))

    assert time.monotonic() - began < 2.0
    assert (refused.code, refused.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert str(refused).endswith("does not answer: ReadTimeout")


async def test_redirects_without_an_end_are_left(hub: FakeHub, commit: str) -> None:
    hub.faults.add(Fault.REDIRECT_LOOP, at="api")

    refused = await refusal(client(hub))

    assert (refused.code, refused.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert len(hub.requests) < 30


async def test_an_offline_switch_of_the_client_is_told_in_words(
    hub: FakeHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    refused = await refusal(client(hub))

    assert (refused.code, refused.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert hub.requests == []


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"5", b'"x"', b"{}", b"\x00\xff", b"<html>", b"[" * 100_000, b'{"id": ' + b"9" * 5000 + b"}"],
    ids=lambda body: repr(body)[:10],
)
async def test_an_answer_that_is_no_model_record_is_tried_again(body: bytes) -> None:
    with canned(Response(body, media_type="application/json")) as (_, url):
        refused = await _failure(url)

    assert (refused.code, refused.retryable) in {
        (JobErrorCode.HUB_UNAVAILABLE, True),
        (JobErrorCode.INVALID, False),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"sha": 5},
        {"sha": ["c" * 40]},
        {"siblings": "abc"},
        {"siblings": [5]},
        {"siblings": [{}]},
        {"siblings": [sibling(lfs={"size": 1})]},
        {"siblings": [sibling(lfs={"size": 1, "sha256": 5, "pointerSize": 1})]},
        {"siblings": [sibling(blobId=5)]},
        {"siblings": {"a": 1}},
    ],
    ids=str,
)
async def test_a_record_of_wrong_types_is_tried_again(changes: dict[str, Any]) -> None:
    with canned(said(**changes)) as (_, url):
        refused = await _failure(url)

    assert (refused.code, refused.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert str(refused) == f"The Hub at {url} answered something that is no model record"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha": None}, "The Hub gave no commit for acme/small"),
        ({"sha": "main"}, "The Hub gave no commit for acme/small"),
        ({"sha": "C" * 40}, "The Hub gave no commit for acme/small"),
        *[
            (
                {"siblings": [sibling(rfilename=path)]},
                f"acme/small names a file that cannot be written safely: {path!r}",
            )
            for path in (
                "../x",
                "/etc/passwd",
                "a/../../x",
                "a\\b",
                "",
                "a\x00",
                "a\u202eb",
                ".model-manager.json",
                5,
                None,
            )
        ],
        ({"siblings": [sibling(), sibling()]}, "acme/small lists a file twice"),
        (
            {"siblings": [sibling(rfilename="a/b"), sibling(rfilename="a")]},
            "acme/small lists 'a' as a file and as a directory",
        ),
        *[
            ({"siblings": [changed]}, "The Hub gave no size or digest for a.txt of acme/small")
            for changed in (
                *[sibling(size=None), sibling(size=-1), sibling(size="5"), sibling(size=True), sibling(size=1.5)],
                *[sibling(blobId=None), sibling(blobId=""), sibling(blobId="z" * 40), sibling(blobId="A" * 40)],
                sibling(lfs={"size": 1, "sha256": "a" * 40, "pointerSize": 1}),
            )
        ],
    ],
    ids=str,
)
async def test_a_record_that_cannot_be_installed_safely_is_refused(changes: dict[str, Any], message: str) -> None:
    with canned(said(**changes)) as (_, url):
        refused = await _failure(url)

    assert (refused.code, refused.retryable, str(refused)) == (JobErrorCode.INVALID, False, message)


async def _failure(url: str) -> JobFailure:
    with pytest.raises(JobFailure) as refused:
        await Hub(endpoint=url, token=None).snapshot(REPO, "main")
    return refused.value


async def test_a_repository_without_files_is_an_empty_snapshot() -> None:
    with canned(said(siblings=[])) as (_, url):
        found = await Hub(endpoint=url, token=None).snapshot(REPO, "main")

    assert found == Snapshot(repo_id=REPO, commit="c" * 40, is_gated=False, files=())


# ---------------------------------------------------------------- where requests and the credential go


async def test_the_credential_does_not_follow_a_redirect_to_another_host() -> None:
    with canned(said()) as (elsewhere, elsewhere_url):
        target = elsewhere_url.replace("127.0.0.1", "localhost") + "/api"
        with canned(RedirectResponse(target)) as (first, url):
            await Hub(endpoint=url, token="hf_x").snapshot(REPO, "main")

    assert [request.headers.get("authorization") for request in first.asked] == ["Bearer hf_x"]
    assert [request.headers.get("authorization") for request in elsewhere.asked] == [None]


async def test_no_request_leaves_for_any_host_but_the_endpoint(
    hub: FakeHub, commit: str, monkeypatch: pytest.MonkeyPatch, strangers: list[Any]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(_detect_agent, "_registry", None)
    huggingface_hub.close_session()

    await client(hub).snapshot(REPO, "main")

    assert strangers == []
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://hub.example/x",
        "https://HUB.example/x",
        "https://hub.example:443/x",
        "https://hub.example",
    ],
)
def test_the_credential_is_for_the_hubs_own_addresses(url: str) -> None:
    hub = Hub(endpoint="https://hub.example", token="hf_x")

    assert hub.headers_for(url) == {"Authorization": "Bearer hf_x"}
    assert Hub(endpoint="https://hub.example", token=None).headers_for(url) == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.example/x",
        "https://hub.example:8443/x",
        "https://hub.example.evil.example/x",
        "https://evil.example/https://hub.example/",
        "https://hub.example@evil.example/",
        "https://user@hub.example/",
        "https://hub.example\\@evil.example/",
        "https://hub.example:x/",
        "https://[::1",
        "//hub.example/x",
        "/x",
        "",
    ],
)
def test_the_credential_is_for_nobody_else(url: str) -> None:
    hub = Hub(endpoint="https://hub.example", token="hf_x")

    assert hub.headers_for(url) == {}


def test_an_address_of_a_file_is_written_with_escapes() -> None:
    hub = Hub(endpoint="https://hub.example/", token=None)

    assert hub.resolve_url(REPO, "c" * 40, "sub/ü b%2e#?.txt") == (
        f"https://hub.example/{REPO}/resolve/{'c' * 40}/sub/%C3%BC%20b%252e%23%3F.txt"
    )


# ---------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("86400", 300.0),
        ("1e400", 300.0),
        ("nan", None),
        ("soon", None),
        ("²", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Fri, 31 Dec 9999 23:59:59 +9999", None),
        ("Fri, 99 Dec 99999 99:99:99", None),
    ],
)
def test_retry_after_is_read_as_seconds_from_now(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_a_window_that_is_not_used_up_asks_for_no_wait() -> None:
    assert asked_wait_seconds({"RateLimit": '"api";r=10;t=55'}) is None
    assert asked_wait_seconds({"RateLimit": '"api";r=0;t=55'}) == 55.0
    assert asked_wait_seconds({"RateLimit": '"api";r=0;t=9999'}) == 300.0
    assert asked_wait_seconds({"RateLimit": '"api";r=0;t=55', "Retry-After": "5"}) == 5.0
    assert asked_wait_seconds({"RateLimit": "garbage"}) is None


async def test_many_may_ask_at_once(hub: FakeHub, commit: str) -> None:
    asking = client(hub)

    found = await asyncio.gather(*(asking.snapshot(REPO, "main") for _ in range(8)))

    assert {each.commit for each in found} == {commit}
    assert len(hub.requests) == 8
