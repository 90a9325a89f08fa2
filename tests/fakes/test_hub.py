"""The fake Hub keeps the contract of the real one, as its own client and plain HTTP see it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import urllib3
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import _detect_agent

from tests.fakes.hub import FakeHub, TokenInfo, demo_hub
from tests.fakes.hub_fixtures import no_strangers, plain_client, running_hub  # noqa: F401
from tests.fakes.hub_repository import git_blob_sha1, lfs_pointer
from tests.fakes.repos import MINILM, minilm_files, noise, sharded_llama, tiny_gguf_files

WEIGHTS = noise(300_000, seed=7)
CONFIG = b'{"model_type": "llama"}\n'
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/deep/notes.txt": b"notes\n"}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
ARIA2C = shutil.which("aria2c", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def commit(hub: FakeHub) -> str:
    return hub.add_repository("acme/small", FILES)


def api(hub: FakeHub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def test_model_info_tells_sizes_and_digests(hub: FakeHub, commit: str) -> None:
    info = api(hub).model_info("acme/small", files_metadata=True, securityStatus=True)

    rows = {row.rfilename: (row.size, row.blob_id, row.lfs and row.lfs.sha256) for row in info.siblings or []}
    pointer = lfs_pointer(SHA256, 300_000)
    assert (info.id, info.sha, info.gated, info.private) == ("acme/small", commit, False, False)
    assert rows == {
        "config.json": (24, git_blob_sha1(CONFIG), None),
        "model.safetensors": (300_000, git_blob_sha1(pointer), SHA256),
        "sub/deep/notes.txt": (6, git_blob_sha1(b"notes\n"), None),
    }
    assert info.security_repo_status == {"scansDone": True, "filesWithIssues": []}


def test_commits_are_the_same_in_every_run(hub: FakeHub, commit: str) -> None:
    again = FakeHub().add_repository("acme/small", FILES)

    assert again == commit
    assert len(commit) == 40


def test_main_moves_with_a_new_commit_and_old_commits_stay(hub: FakeHub, commit: str) -> None:
    moved = hub.add_commit("acme/small", {"config.json": b"{}", "sub/deep/notes.txt": None})

    assert api(hub).model_info("acme/small").sha == moved
    assert api(hub).model_info("acme/small", revision=commit).sha == commit
    assert [row.path for row in api(hub).list_repo_tree("acme/small", recursive=True)] == [
        "config.json",
        "model.safetensors",
    ]
    assert len(list(api(hub).list_repo_tree("acme/small", revision=commit, recursive=True))) == 5


def test_branches_and_tags_resolve_even_with_a_slash_in_the_name(hub: FakeHub) -> None:
    changes = {"config.json": b"{}"}
    main = hub.add_repository("acme/branched", FILES, branches={"dev/next": changes}, tags={"v1": "main"})

    refs = api(hub).list_repo_refs("acme/branched", include_pull_requests=True)

    next_sha = api(hub).model_info("acme/branched", revision="dev/next").sha
    assert [(ref.name, ref.target_commit) for ref in refs.branches] == [("main", main), ("dev/next", next_sha)]
    assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1", main)]
    assert next_sha != main


def test_tree_lists_folders_and_follows_pages(hub: FakeHub, commit: str) -> None:
    hub.page_size = 2

    rows = [row.path for row in api(hub).list_repo_tree("acme/small", recursive=True)]

    assert rows == ["config.json", "model.safetensors", "sub", "sub/deep", "sub/deep/notes.txt"]
    assert [record.path for record in hub.requests] == ["/api/models/acme/small/tree/main"] * 3
    assert [row.path for row in api(hub).list_repo_tree("acme/small")] == ["config.json", "model.safetensors", "sub"]
    assert [row.path for row in api(hub).list_repo_tree("acme/small", "sub")] == ["sub/deep"]


def test_tree_rows_can_be_expanded(hub: FakeHub, commit: str) -> None:
    (config, *_) = api(hub).list_repo_tree("acme/small", recursive=True, expand=True)

    assert config.last_commit is not None
    assert config.last_commit.oid == commit


def test_paths_info_leaves_out_what_is_not_there(hub: FakeHub, commit: str) -> None:
    rows = api(hub).get_paths_info("acme/small", ["model.safetensors", "sub", "nothing"])

    assert [row.path for row in rows] == ["model.safetensors", "sub"]
    assert isinstance(rows[0], RepoFile)
    assert (rows[0].lfs and rows[0].lfs.sha256) == SHA256


def test_safetensors_and_gguf_blocks_are_read_from_the_files(hub: FakeHub) -> None:
    hub.add_repository("acme/shards", sharded_llama(seed=3))
    hub.add_repository("acme/gguf", tiny_gguf_files(), metadata={"gguf": {"total": 5, "architecture": "llama"}})

    shards, gguf = api(hub).model_info("acme/shards"), api(hub).model_info("acme/gguf")

    assert shards.safetensors is not None
    assert (shards.safetensors.parameters, shards.safetensors.total) == ({"BF16": 3_409_664}, 3_409_664)
    assert gguf.gguf == {"total": 5, "architecture": "llama"}
    metadata = api(hub).get_safetensors_metadata("acme/shards")
    assert metadata.parameter_count == {"BF16": 3_409_664}


def test_models_are_searched_filtered_sorted_and_paged(hub: FakeHub) -> None:
    card = "---\npipeline_tag: {}\nlibrary_name: transformers\n---\n"
    for number, task in enumerate(["text-generation", "fill-mask", "text-generation"]):
        files = {"README.md": card.format(task).encode()}
        hub.add_repository(f"acme/chat-{number}", files, metadata={"downloads": number, "likes": -number})
    hub.add_repository("other/chat", {}, private=True)
    hub.page_size = 1

    def ids(**options: object) -> list[str]:
        return [info.id for info in api(hub).list_models(**options)]  # type: ignore[arg-type]

    assert ids(sort="downloads") == ["acme/chat-2", "acme/chat-1", "acme/chat-0"]
    assert ids(sort="likes", limit=2) == ["acme/chat-0", "acme/chat-1"]
    assert ids(search="CHAT-1", author="acme") == ["acme/chat-1"]
    assert ids(pipeline_tag="text-generation", sort="downloads") == ["acme/chat-2", "acme/chat-0"]
    assert ids(filter=["transformers", "fill-mask"]) == ["acme/chat-1"]
    assert ids(author="nobody") == []
    assert ids(apps="vllm", gated=False, sort="downloads") == ["acme/chat-2", "acme/chat-0"]


def test_expand_answers_the_named_properties_only(hub: FakeHub, commit: str, http: urllib3.PoolManager) -> None:
    url = f"{hub.url}/api/models/acme/small"

    answer = http.request("GET", f"{url}?expand=gated&expand%5B%5D=usedStorage").json()
    refused = http.request("GET", f"{url}?expand=nonsense")

    assert set(answer) == {"_id", "id", "gated", "usedStorage"}
    assert answer["usedStorage"] == 300_030
    assert (refused.status, refused.json()) == (400, {"error": 'Invalid value for "expand": nonsense'})


def test_snapshot_download_gets_every_file_byte_for_byte(hub: FakeHub, commit: str, tmp_path: Path) -> None:
    folder = snapshot_download("acme/small", endpoint=hub.url, cache_dir=tmp_path, token=False)

    assert folder.endswith(commit)
    assert {path: (Path(folder) / path).read_bytes() for path in FILES} == FILES
    assert {path: hub.bytes_served("acme/small", path) for path in FILES} == {
        "config.json": 24,
        "model.safetensors": 300_000,
        "sub/deep/notes.txt": 6,
    }
    assert hub.bytes_served() == 300_030


def test_hf_hub_download_gets_one_file_from_a_cdn_without_the_token(commit: str, tmp_path: Path) -> None:
    with FakeHub(cdn_host="localhost") as hub:
        hub.tokens["hf_x"] = TokenInfo("reader")
        hub.add_repository("acme/small", FILES)

        path = hf_hub_download("acme/small", "model.safetensors", endpoint=hub.url, cache_dir=tmp_path, token="hf_x")

    assert Path(path).read_bytes() == WEIGHTS
    assert [
        (record.method, record.at, record.status, "authorization" in record.headers) for record in hub.requests
    ] == [
        ("HEAD", "resolve", 302, True),
        ("GET", "cdn", 200, False),
    ]


def test_the_real_model_is_served_from_disk(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_repository(MINILM, minilm_files())

    folder = Path(snapshot_download(MINILM, endpoint=hub.url, local_dir=tmp_path, token=False))

    assert len(minilm_files()) == 13
    for path, source in minilm_files().items():
        with source.open("rb") as wanted, (folder / path).open("rb") as got:
            assert hashlib.file_digest(got, "sha256").digest() == hashlib.file_digest(wanted, "sha256").digest()
    assert hub.bytes_served(MINILM, "model.safetensors") == 90_868_376


def test_a_directory_becomes_a_repository(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_bytes(CONFIG)

    hub.add_repository("acme/folder", tmp_path)

    assert api(hub).list_repo_files("acme/folder") == ["sub/config.json"]


def test_big_files_redirect_and_small_ones_answer_directly(
    hub: FakeHub, commit: str, http: urllib3.PoolManager
) -> None:
    base = f"{hub.url}/acme/small/resolve/main"

    big = http.request("HEAD", f"{base}/model.safetensors", redirect=False)
    small = http.request("GET", f"{base}/config.json")

    assert (big.status, big.headers["X-Repo-Commit"], big.headers["X-Linked-ETag"], big.headers["X-Linked-Size"]) == (
        302,
        commit,
        f'"{SHA256}"',
        "300000",
    )
    assert big.headers["Location"].startswith(f"{hub.url}/cdn/acme%2Fsmall/{commit}/model.safetensors?Expires=")
    assert (small.status, small.data, small.headers["ETag"]) == (200, CONFIG, f'"{git_blob_sha1(CONFIG)}"')
    assert (small.headers["Accept-Ranges"], small.headers["Content-Length"]) == ("bytes", "24")


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "first", "last"),
    [
        ("bytes=0-9", 206, "bytes 0-9/300000", 0, 9),
        ("bytes=299990-", 206, "bytes 299990-299999/300000", 299_990, 299_999),
        ("bytes=-5", 206, "bytes 299995-299999/300000", 299_995, 299_999),
        ("bytes=299999-400000", 206, "bytes 299999-299999/300000", 299_999, 299_999),
        ("bytes=5-1", 200, None, 0, 299_999),
        ("bytes=0-1,4-5", 200, None, 0, 299_999),
        ("lines=1-2", 200, None, 0, 299_999),
    ],
)
def test_ranges_are_answered_exactly(
    hub: FakeHub,
    commit: str,
    http: urllib3.PoolManager,
    asked: str,
    status: int,
    content_range: str | None,
    first: int,
    last: int,
) -> None:
    answer = http.request(
        "GET", f"{hub.url}/acme/small/resolve/main/model.safetensors", headers={"Range": asked}, retries=3
    )

    assert (answer.status, answer.headers.get("Content-Range")) == (status, content_range)
    assert answer.data == WEIGHTS[first : last + 1]


def test_a_range_past_the_end_is_416_with_the_size(hub: FakeHub, commit: str, http: urllib3.PoolManager) -> None:
    url = f"{hub.url}/acme/small/resolve/main/config.json"

    answer = http.request("GET", url, headers={"Range": "bytes=24-"})

    assert (answer.status, answer.headers["Content-Range"], answer.data) == (416, "bytes */24", b"")


def test_if_range_with_another_etag_gets_the_whole_file(hub: FakeHub, commit: str, http: urllib3.PoolManager) -> None:
    url = f"{hub.url}/acme/small/resolve/main/config.json"
    etag = f'"{git_blob_sha1(CONFIG)}"'

    same = http.request("GET", url, headers={"Range": "bytes=20-", "If-Range": etag})
    other = http.request("GET", url, headers={"Range": "bytes=20-", "If-Range": '"another"'})

    assert (same.status, same.data) == (206, CONFIG[20:])
    assert (other.status, other.data) == (200, CONFIG)


def test_raw_answers_the_git_object(hub: FakeHub, commit: str, http: urllib3.PoolManager) -> None:
    pointer = http.request("GET", f"{hub.url}/acme/small/raw/main/model.safetensors")
    small = http.request("GET", f"{hub.url}/acme/small/raw/main/config.json")

    assert pointer.data == lfs_pointer(SHA256, 300_000)
    assert small.data == CONFIG


def test_signed_urls_expire_and_cannot_be_made_up(hub: FakeHub, commit: str, http: urllib3.PoolManager) -> None:
    hub.signed_url_seconds = -1
    location = http.request("GET", f"{hub.url}/acme/small/resolve/main/model.safetensors", redirect=False).headers[
        "Location"
    ]

    assert http.request("GET", location).status == 403
    assert http.request("GET", location.replace("Signature=", "Signature=0")).status == 403
    assert hub.bytes_served() == 0


def test_agent_harnesses_are_asked_from_the_default_endpoint_not_from_the_given_one(
    hub: FakeHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_detect_agent, "_registry", None)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    with FakeHub() as default:
        monkeypatch.setattr(constants, "ENDPOINT", default.url)

        api(hub).model_info("acme/small")

    assert [record.path for record in default.requests] == ["/api/agent-harnesses"]
    assert [record.path for record in hub.requests] == ["/api/models/acme/small"]


def test_a_stopped_hub_refuses_connections_and_comes_back_on_its_port(hub: FakeHub, commit: str) -> None:
    url = hub.url
    hub.stop()

    with pytest.raises(httpx2.ConnectError):
        api(hub).auth_check("acme/small")
    hub.start()

    assert hub.url == url
    assert api(hub).model_info("acme/small").sha == commit


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_resumes_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_repository(MINILM, minilm_files())
    wanted = minilm_files()["model.safetensors"]
    part = tmp_path / "model.safetensors"
    with wanted.open("rb") as source:
        part.write_bytes(source.read(80_000_000))

    url = f"{hub.url}/{MINILM}/resolve/main/model.safetensors"
    subprocess.run(["curl", "-sSfL", "--noproxy", "*", "-C", "-", "-o", part, url], check=True, timeout=30)

    assert part.read_bytes() == wanted.read_bytes()
    assert hub.bytes_served(MINILM, "model.safetensors") == 10_868_376


def test_four_connections_fetch_a_quarter_each(hub: FakeHub, commit: str) -> None:
    def quarter(first: int) -> bytes:
        with urllib3.PoolManager() as pool:
            headers = {"Range": f"bytes={first}-{first + 74_999}"}
            return pool.request("GET", f"{hub.url}/acme/small/resolve/main/model.safetensors", headers=headers).data

    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(quarter, range(0, 300_000, 75_000)))

    assert b"".join(parts) == WEIGHTS
    assert hub.bytes_served() == 300_000
    assert sorted(record.status for record in hub.requests) == [206] * 4 + [302] * 4


@pytest.mark.skipif(ARIA2C is None, reason="there is no aria2c for this platform")
def test_aria2c_fetches_in_four_connections(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_repository(MINILM, minilm_files())
    url = f"{hub.url}/{MINILM}/resolve/main/model.safetensors"

    arguments = [
        "--no-conf",
        "--all-proxy=",
        "-q",
        "-x4",
        "-s4",
        "-k1M",
        f"--dir={tmp_path}",
        "--out=model.safetensors",
        url,
    ]
    subprocess.run([str(ARIA2C), *arguments], check=True, timeout=30)

    assert (tmp_path / "model.safetensors").read_bytes() == minilm_files()["model.safetensors"].read_bytes()


def test_the_demo_set_runs_in_a_process_of_its_own(http: urllib3.PoolManager) -> None:
    command = [sys.executable, "-m", "tests.fakes.hub", "--bytes-per-second", "500000"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            models = http.request("GET", f"{url}/api/models?sort=downloads").json()
            http.request("GET", f"{url}/demo/tiny-chat/resolve/main/config.json")
            served = http.request("GET", f"{url}/_control/bytes").json()
        finally:
            process.terminate()
        assert process.wait(10) == 0

    assert [model["id"] for model in models] == [
        "sentence-transformers/all-MiniLM-L6-v2",
        "demo/tiny-chat",
        "demo/tiny-gguf",
        "demo/gated-chat",
        "demo/pickle-only",
    ]
    assert served == {"total": 603, "files": {"demo/tiny-chat": {"config.json": 603}}}


def test_the_demo_models_are_what_they_seem() -> None:
    hub = demo_hub()

    chat = hub.repository("demo/tiny-chat").head.files
    config = json.loads(chat["config.json"].read(0, 10_000))
    total = json.loads(chat["model.safetensors.index.json"].read(0, 10_000))["metadata"]["total_size"]

    assert config["max_position_embeddings"] == 32768
    assert total == 2 * 3_409_664
    assert [path for path, file in chat.items() if file.sha256] == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    assert hub.repository("demo/gated-chat").gated == "manual"
    assert hub.repository("demo/tiny-gguf").head.files["tiny-Q4_0.gguf"].read(0, 8) == b"GGUF\3\0\0\0"
