"""Each fault of the fake Hub does what it says, as often as it says, and nothing else."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import urllib3
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from tests.fakes.hub import FakeHub, Fault, TokenInfo
from tests.fakes.hub_fixtures import no_strangers, plain_client, running_hub  # noqa: F401
from tests.fakes.repos import noise

SIZE = 300_000
WEIGHTS = noise(SIZE, seed=8)
FILE = "model.safetensors"
ONCE = urllib3.Retry(redirect=5, connect=False, read=False, status=False, other=False)


@pytest.fixture(name="url")
def weights_url(hub: FakeHub) -> str:
    hub.add_repository("acme/small", {FILE: WEIGHTS, "config.json": b"{}"})
    return f"{hub.url}/acme/small/resolve/main/{FILE}"


def fetch(http: urllib3.PoolManager, url: str, **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.request("GET", url, headers=names, retries=ONCE)


@contextmanager
def opened(http: urllib3.PoolManager, url: str) -> Iterator[Any]:
    answer = http.request("GET", url, preload_content=False, retries=ONCE)
    try:
        yield answer
    finally:
        answer.close()
        answer.release_conn()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_early_close_ends_the_connection_after_exactly_so_many_bytes(
    hub: FakeHub, url: str, http: urllib3.PoolManager
) -> None:
    fault = hub.faults.add(Fault.EARLY_CLOSE, path=FILE, times=1, after_bytes=123_457)

    with pytest.raises(urllib3.exceptions.ProtocolError, match="123457 bytes read"):
        fetch(http, url)
    rest = fetch(http, url, Range="bytes=123457-")

    assert rest.data == WEIGHTS[123_457:]
    assert fault.hits == 1
    assert hub.bytes_served("acme/small", FILE) == SIZE


def test_huggingface_hub_resumes_after_an_early_close_at_its_last_whole_chunk(
    hub: FakeHub, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 40_000)
    hub.faults.add(Fault.EARLY_CLOSE, path=FILE, times=1, after_bytes=100_000)

    path = hf_hub_download("acme/small", FILE, endpoint=hub.url, cache_dir=tmp_path, token=False)

    ranges = [record.headers.get("range") for record in hub.requests if record.at == "cdn" and record.method == "GET"]
    assert Path(path).read_bytes() == WEIGHTS
    assert ranges == [None, "bytes=80000-"]
    assert hub.bytes_served() == SIZE + 20_000


def test_a_stall_holds_until_it_is_released(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    stall = hub.faults.add(Fault.STALL, path=FILE, after_bytes=50_000)

    with opened(http, url) as answer:
        first = answer.read(50_000)
        time.sleep(0.1)
        held = hub.bytes_served()
        stall.release()
        rest = answer.read()

    assert (held, first + rest == WEIGHTS) == (50_000, True)
    assert hub.bytes_served() == SIZE


def test_a_stalled_answer_ends_with_its_client(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.faults.add(Fault.STALL, path=FILE, after_bytes=50_000)

    with opened(http, url) as answer:
        answer.read(50_000)
    hub.faults.release()

    time.sleep(0.05)
    assert hub.bytes_served() == 50_000


def test_stopping_the_hub_ends_a_stalled_answer_at_once(http: urllib3.PoolManager) -> None:
    with FakeHub() as hub:
        hub.add_repository("acme/small", {FILE: WEIGHTS})
        hub.faults.add(Fault.STALL, after_bytes=1)
        with opened(http, f"{hub.url}/acme/small/resolve/main/{FILE}") as answer:
            answer.read(1)
            started = time.monotonic()

            hub.stop()

            assert time.monotonic() - started < 1.0
            with pytest.raises(urllib3.exceptions.ProtocolError):
                answer.read()


def test_the_pace_is_kept_and_may_change_meanwhile(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.bytes_per_second = 100_000

    started = time.monotonic()
    with opened(http, url) as answer:
        answer.read(50_000)
        slow = time.monotonic() - started
        hub.bytes_per_second = None
        answer.read()

    assert 0.3 < slow < 1.5
    assert time.monotonic() - started < 2.0


def test_a_throttle_is_for_its_file_alone(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    throttle = hub.faults.add(Fault.THROTTLE, path="*.safetensors", bytes_per_second=600_000)

    started = time.monotonic()
    fetch(http, url.replace(FILE, "config.json"))
    quick = time.monotonic() - started
    assert fetch(http, url).data == WEIGHTS

    assert quick < 0.3 < time.monotonic() - started
    assert throttle.hits == 1


def test_a_truncated_answer_is_complete_but_short(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.faults.add(Fault.TRUNCATE, path=FILE, times=1, after_bytes=1_000)

    answer = fetch(http, url)

    assert (answer.status, answer.headers["Content-Length"], answer.data) == (200, "1000", WEIGHTS[:1000])
    assert fetch(http, url).data == WEIGHTS


def test_a_longer_answer_ends_in_zeros(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.faults.add(Fault.LONGER, path=FILE, extra_bytes=3)

    answer = fetch(http, url)

    assert (answer.headers["Content-Length"], answer.data) == ("300003", WEIGHTS + b"\0\0\0")


def test_a_flipped_byte_shows_only_where_its_offset_is_served(
    hub: FakeHub, url: str, http: urllib3.PoolManager
) -> None:
    flip = hub.faults.add(Fault.FLIP_BYTE, path=FILE, offset=270_000)

    head = fetch(http, url, Range="bytes=0-269999").data
    hits_before = flip.hits
    whole = fetch(http, url).data

    assert (head, hits_before, flip.hits) == (WEIGHTS[:270_000], 0, 1)
    assert [offset for offset in range(SIZE) if whole[offset] != WEIGHTS[offset]] == [270_000]


def test_huggingface_hub_accepts_a_wrong_file_of_the_right_size(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.faults.add(Fault.FLIP_BYTE, path=FILE, offset=5)

    path = hf_hub_download("acme/small", FILE, endpoint=hub.url, cache_dir=tmp_path, token=False)

    assert hashlib.sha256(Path(path).read_bytes()).digest() != hashlib.sha256(WEIGHTS).digest()


def test_changed_content_has_another_etag_from_the_second_answer_on(
    hub: FakeHub, url: str, http: urllib3.PoolManager
) -> None:
    hub.faults.add(Fault.CHANGED, path=FILE, skip=1)

    first = fetch(http, url, Range="bytes=0-99")
    second = fetch(http, url, Range="bytes=100-199", If_Range=first.headers["ETag"])

    assert (first.status, first.data) == (206, WEIGHTS[:100])
    assert (second.status, len(second.data)) == (200, SIZE)
    assert second.headers["ETag"] != first.headers["ETag"]
    assert len(second.headers["ETag"]) == 66
    assert second.data != WEIGHTS


@pytest.mark.parametrize(
    ("kind", "status", "content_range", "size"),
    [
        (Fault.IGNORE_RANGE, 200, None, SIZE),
        (Fault.WRONG_CONTENT_RANGE, 206, "bytes 101-300000/300000", SIZE - 100),
        (Fault.RANGE_NOT_SATISFIABLE, 416, "bytes */300000", 0),
    ],
)
def test_range_faults_strike_ranged_requests_only(
    hub: FakeHub,
    url: str,
    http: urllib3.PoolManager,
    kind: Fault,
    status: int,
    content_range: str | None,
    size: int,
) -> None:
    fault = hub.faults.add(kind, path=FILE, times=1)

    whole = fetch(http, url)
    struck = fetch(http, url, Range="bytes=100-")
    after = fetch(http, url, Range="bytes=100-")

    assert (whole.status, whole.data) == (200, WEIGHTS)
    assert (struck.status, struck.headers.get("Content-Range"), len(struck.data)) == (status, content_range, size)
    assert (after.status, after.data) == (206, WEIGHTS[100:])
    assert fault.hits == 1


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [
        (7, "7"),
        (datetime(2026, 12, 24, 18, 0, 0, tzinfo=UTC), "Thu, 24 Dec 2026 18:00:00 GMT"),
        (None, None),
    ],
)
@pytest.mark.parametrize(("kind", "status"), [(Fault.TOO_MANY_REQUESTS, 429), (Fault.UNAVAILABLE, 503)])
def test_429_and_503_say_when_to_come_back_or_nothing(
    hub: FakeHub, url: str, http: urllib3.PoolManager, kind: Fault, status: int, retry_after: Any, header: str | None
) -> None:
    hub.faults.add(kind, path=FILE, times=1, retry_after=retry_after)

    struck = http.request("HEAD", url, redirect=False)

    assert (struck.status, struck.headers.get("Retry-After")) == (status, header)
    assert http.request("HEAD", url, redirect=False).status == 302


def test_429_can_name_the_end_of_the_window(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.faults.add(Fault.TOO_MANY_REQUESTS, at="resolve", rate_limit_reset_seconds=55)

    struck = http.request("GET", url, redirect=False)

    assert (struck.status, struck.headers["RateLimit"]) == (429, '"resolvers";r=0;t=55')
    assert "Retry-After" not in struck.headers


def test_huggingface_hub_waits_for_the_seconds_of_a_429(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.faults.add(Fault.TOO_MANY_REQUESTS, at="cdn", method="GET", times=1, retry_after=0)

    path = hf_hub_download("acme/small", FILE, endpoint=hub.url, cache_dir=tmp_path, token=False)

    assert Path(path).read_bytes() == WEIGHTS
    assert [(record.method, record.status) for record in hub.requests if record.at == "cdn"] == [
        ("HEAD", 200),
        ("GET", 429),
        ("GET", 200),
    ]


def test_the_api_can_be_down_while_files_are_served(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.faults.add(Fault.API_DOWN)

    assert http.request("GET", f"{hub.url}/api/models/acme/small").status == 503
    assert http.request("GET", f"{hub.url}/api/whoami-v2").status == 503
    assert fetch(http, url).data == WEIGHTS


def test_a_redirect_loop_never_arrives(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.faults.add(Fault.REDIRECT_LOOP, path=FILE)

    with pytest.raises(httpx2.TooManyRedirects):
        hf_hub_download("acme/small", FILE, endpoint=hub.url, cache_dir=tmp_path, token=False)

    assert hub.bytes_served() == 0
    assert {record.status for record in hub.requests} == {302}


def test_a_redirect_leads_to_another_host_name_or_where_it_is_told(
    hub: FakeHub, url: str, http: urllib3.PoolManager
) -> None:
    small = url.replace(FILE, "config.json")
    hub.faults.add(Fault.REDIRECT, path="config.json", times=1)
    stranger = http.request("GET", small, redirect=False)
    hub.faults.add(Fault.REDIRECT, path="config.json", location="http://169.254.169.254/latest")

    told = http.request("GET", small, redirect=False)

    assert stranger.headers["Location"].startswith(hub.url.replace("127.0.0.1", "localhost") + "/cdn/")
    assert http.request("GET", stranger.headers["Location"]).data == b"{}"
    assert (told.status, told.headers["Location"]) == (302, "http://169.254.169.254/latest")


def test_a_delay_comes_before_the_headers(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    delay = hub.faults.add(Fault.DELAY, path="config.json", seconds=60)
    answers: list[int] = []
    small = url.replace(FILE, "config.json")
    thread = threading.Thread(target=lambda: answers.append(http.request("GET", small).status))
    thread.start()
    wait_for(lambda: delay.hits == 1)

    while_waiting = (list(answers), hub.requests)
    delay.release()
    thread.join(5)

    assert while_waiting == ([], [])
    assert answers == [200]


def test_an_expired_url_is_good_again_when_asked_anew(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    hub.faults.add(Fault.EXPIRED_URL, path=FILE, times=1)

    assert fetch(http, url).status == 403
    assert fetch(http, url).data == WEIGHTS


def test_a_gate_can_close_for_everybody(hub: FakeHub, url: str) -> None:
    hub.tokens["hf_x"] = TokenInfo("acme")
    hub.faults.add(Fault.GATED, repo_id="acme/small")

    with pytest.raises(GatedRepoError):
        HfApi(endpoint=hub.url, token="hf_x").auth_check("acme/small")
    with pytest.raises(GatedRepoError):
        hf_hub_download("acme/small", FILE, endpoint=hub.url, token=False)


def test_a_good_token_can_turn_bad(hub: FakeHub, url: str) -> None:
    hub.tokens["hf_x"] = TokenInfo("acme")
    api = HfApi(endpoint=hub.url, token="hf_x")
    assert api.whoami()["name"] == "acme"

    hub.faults.add(Fault.BAD_TOKEN)

    with pytest.raises(HfHubHTTPError, match="Invalid username or password"):
        api.model_info("acme/small")
    assert HfApi(endpoint=hub.url, token=False).model_info("acme/small").id == "acme/small"


def test_faults_leave_other_repositories_and_files_alone(
    hub: FakeHub, url: str, http: urllib3.PoolManager, tmp_path: Path
) -> None:
    hub.add_repository("acme/other", {FILE: WEIGHTS})
    fault = hub.faults.add(Fault.UNAVAILABLE, repo_id="acme/small", path=FILE)

    folder = snapshot_download("acme/other", endpoint=hub.url, cache_dir=tmp_path, token=False)
    hub.faults.remove(fault)

    assert (Path(folder) / FILE).read_bytes() == WEIGHTS
    assert fault.hits == 0
    assert fetch(http, url).status == 200


def test_another_process_controls_faults_pace_and_records(hub: FakeHub, url: str, http: urllib3.PoolManager) -> None:
    def control(method: str, path: str, body: Any = None) -> Any:
        return http.request(method, f"{hub.url}/_control/{path}", json=body)

    added = control("POST", "faults", {"kind": "early_close", "path": FILE, "times": 1, "after_bytes": 10})
    control("POST", "bytes_per_second", {"bytes_per_second": 5_000_000})
    with pytest.raises(urllib3.exceptions.ProtocolError):
        fetch(http, url)

    assert added.json()["hits"] == 0
    assert [fault["hits"] for fault in control("GET", "faults").json()] == [1]
    assert control("GET", "bytes").json() == {"total": 10, "files": {"acme/small": {FILE: 10}}}
    assert [record["status"] for record in control("GET", "requests").json()] == [302, 200]
    assert hub.bytes_per_second == 5_000_000
    moved = control("POST", "commits", {"repo_id": "acme/small", "files": {"config.json": "{ }"}}).json()["sha"]
    assert hub.repository("acme/small").head.sha == moved
    assert control("DELETE", "faults").json() == {}
    assert control("DELETE", "records").json() == {}
    assert (hub.faults.active(), hub.requests, hub.bytes_served()) == ([], [], 0)
    assert control("POST", "faults", {"kind": "nonsense"}).status == 400
    assert control("POST", "faults", {"kind": "stall", "colour": 1}).status == 400
    assert control("POST", "bytes_per_second", {"bytes_per_second": 0}).status == 400
