"""Who may see what on the fake Hub: the words, statuses and codes of the real one."""

import pytest
import urllib3
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.fakes.hub import FakeHub, TokenInfo
from tests.fakes.hub_fixtures import no_strangers, plain_client, running_hub  # noqa: F401

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "sub/deep/notes.txt": b"notes"}


@pytest.fixture
def commit(hub: FakeHub) -> str:
    return hub.add_repository("acme/small", FILES)


def api(hub: FakeHub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def test_missing_and_private_repositories_are_refused_alike(hub: FakeHub, http: urllib3.PoolManager) -> None:
    hub.tokens |= {"hf_x": TokenInfo("reader"), "hf_y": TokenInfo("friend", private=frozenset({"acme/secret"}))}
    hub.add_repository("acme/secret", FILES, private=True)
    bearer = {"Authorization": "Bearer hf_x"}

    for repo_id in ("acme/secret", "acme/nothing"):
        anonymous = http.request("GET", f"{hub.url}/api/models/{repo_id}")
        known = http.request("GET", f"{hub.url}/{repo_id}/resolve/main/config.json", headers=bearer)
        assert (anonymous.status, anonymous.headers.get("X-Error-Code")) == (401, None)
        assert anonymous.headers["X-Error-Message"] == "Invalid username or password."
        assert (known.status, known.headers["X-Error-Code"]) == (404, "RepoNotFound")
        assert known.headers["X-Error-Message"] == "Repository not found"
    with pytest.raises(RepositoryNotFoundError):
        api(hub, "hf_x").model_info("acme/secret")
    assert api(hub, "hf_y").model_info("acme/secret").private is True


def test_wrong_revisions_and_files_are_named(hub: FakeHub, commit: str) -> None:
    with pytest.raises(RevisionNotFoundError):
        api(hub).model_info("acme/small", revision="nowhere")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("acme/small", "config.json", revision="nowhere", endpoint=hub.url, token=False)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("acme/small", "nothing.json", endpoint=hub.url, token=False)
    assert [record.status for record in hub.requests] == [404, 404, 404]


def test_an_unknown_token_is_401_even_on_a_public_repository(hub: FakeHub, commit: str) -> None:
    with pytest.raises(HfHubHTTPError) as refused:
        api(hub, "hf_wrong").model_info("acme/small")

    assert refused.value.response.status_code == 401
    assert "X-Error-Code" not in refused.value.response.headers


def test_whoami_tells_name_and_role(hub: FakeHub) -> None:
    hub.tokens["hf_x"] = TokenInfo("reader", role="fineGrained", can_read_gated=False)

    me = api(hub, "hf_x").whoami()

    assert me["name"] == "reader"
    assert me["auth"]["accessToken"]["role"] == "fineGrained"
    assert me["auth"]["accessToken"]["fineGrained"]["canReadGatedRepos"] is False
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api(hub, "hf_wrong").whoami()


def test_a_gate_is_open_for_granted_tokens_only(hub: FakeHub) -> None:
    gated = "acme/gated"
    hub.add_repository(gated, {**FILES, "README.md": b"# Gated\n"}, gated="manual")
    hub.tokens["granted"] = TokenInfo("a", granted=frozenset({gated}))
    hub.tokens["stranger"] = TokenInfo("b")
    hub.tokens["awaiting"] = TokenInfo("c", awaiting=frozenset({gated}))
    hub.tokens["reset"] = TokenInfo("d", reset=frozenset({gated}))
    words = {"stranger": "not in the authorized list", "awaiting": "awaiting a review", "reset": "reset"}

    api(hub, "granted").auth_check(gated)

    for token, said in words.items():
        with pytest.raises(GatedRepoError, match=said) as refused:
            api(hub, token).auth_check(gated)
        assert refused.value.response.status_code == 403
    with pytest.raises(GatedRepoError, match="log in") as refused:
        api(hub).auth_check(gated)
    assert refused.value.response.status_code == 401


def test_a_gate_leaves_metadata_and_the_card_open_and_hides_the_rest(hub: FakeHub, http: urllib3.PoolManager) -> None:
    hub.add_repository("acme/gated", {**FILES, "README.md": b"# Gated\n"}, gated="auto")
    paths = ["README.md", "LICENSE", "config.json", "nothing.json", "sub/README.md"]

    codes = {}
    for path in paths:
        answer = http.request("HEAD", f"{hub.url}/acme/gated/resolve/main/{path}")
        codes[path] = (answer.status, answer.headers.get("X-Error-Code"))

    assert codes == {
        "README.md": (200, None),
        "LICENSE": (404, "EntryNotFound"),
        "config.json": (401, "GatedRepo"),
        "nothing.json": (401, "GatedRepo"),
        "sub/README.md": (401, "GatedRepo"),
    }
    assert http.request("GET", f"{hub.url}/acme/gated/raw/main/README.md").status == 401
    assert api(hub).model_info("acme/gated", files_metadata=True).gated == "auto"
    assert len(list(api(hub).list_repo_tree("acme/gated", recursive=True))) == 6


def test_a_disabled_repository_says_so(hub: FakeHub, http: urllib3.PoolManager) -> None:
    hub.add_repository("acme/off", FILES, disabled=True)

    answer = http.request("GET", f"{hub.url}/api/models/acme/off")

    assert (answer.status, answer.json()) == (403, {"error": "Access to this resource is disabled."})


def test_every_answer_carries_a_request_id_and_the_rate_limit(
    hub: FakeHub, commit: str, http: urllib3.PoolManager
) -> None:
    hub.quotas.limits["api"] = 2

    answers = [http.request("GET", f"{hub.url}/api/models/acme/small") for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[:2] for answer in answers] == [
        ['"api"', "r=1"],
        ['"api"', "r=0"],
        ['"api"', "r=0"],
    ]
    assert answers[0].headers["RateLimit-Policy"] == '"fixed window";"api";q=2;w=300'
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3


def test_wrong_methods_and_numbers_are_refused_in_words(hub: FakeHub, commit: str, http: urllib3.PoolManager) -> None:
    assert http.request("POST", f"{hub.url}/api/models/acme/small").status == 405
    assert http.request("GET", f"{hub.url}/api/models/acme/small/paths-info/main").status == 405
    assert http.request("GET", f"{hub.url}/api/models?limit=few").json() == {"error": '"limit" must be a number'}
    assert http.request("GET", f"{hub.url}/api/nothing").status == 404
    odd = http.request("GET", f"{hub.url}/api/models/acme/small/revision/%0D%0AX-Odd:%201%C3%A9")
    assert (odd.status, odd.headers["X-Error-Message"]) == (404, "Invalid rev id: X-Odd: 1\\xe9")
