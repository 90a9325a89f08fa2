"""The main job from end to end, by real processes, on both databases."""

import asyncio
import filecmp
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.repos import minilm_files, noise
from tests.processes.stack import Stack, stack, until
from tests.servers.valkey import ValkeyServer

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MIB = 1 << 20


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repository(MINILM, minilm_files())
        yield running


@pytest.fixture
def distributed(tmp_path: Path, database_url: str, valkey: ValkeyServer, hub: FakeHub) -> Iterator[Stack]:
    """The processes apart: api, worker and sync over a database and a Redis of their own."""
    with stack(tmp_path / "mm", DATABASE_URL=database_url, REDIS_URL=valkey.url, HUB_ENDPOINT=hub.url) as found:
        for name in ("api", "worker", "sync"):
            found.start(name)
        found.wait_until_ready()
        yield found


def assert_identical(directory: Path) -> None:
    """Compare a published set with its source, byte for byte."""
    source = minilm_files()
    published = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert published == (source.keys() - {".gitattributes"}) | {".model-manager.json"}
    for path in published - {".model-manager.json"}:
        assert filecmp.cmp(source[path], directory / path, shallow=False), path


async def test_an_install_is_watched_from_queued_to_succeeded_and_its_files_are_the_source_s(
    distributed: Stack, hub: FakeHub
) -> None:
    hub.bytes_per_second = 40 * MIB
    started = await asyncio.to_thread(distributed.install, MINILM)
    async with distributed.watching(started["job"]["id"]) as watcher:
        await asyncio.wait_for(watcher.completed.wait(), 60)

    assert started["outcome"] == "STARTED"
    assert watcher.last == "complete"
    assert watcher.states[-2:] == ["RUNNING", "SUCCEEDED"]
    done = [one["progress"]["bytesDone"] for one in watcher.seen]
    assert done == sorted(done)
    assert len(set(done)) > 3
    assert watcher.seen[-1]["progress"]["fraction"] == 1.0
    assert watcher.seen[-1]["progress"]["verifiedBytes"] == watcher.seen[-1]["progress"]["bytesTotal"]
    assert_identical(distributed.weights / MINILM)

    served = hub.bytes_served()
    again = await asyncio.to_thread(distributed.install, MINILM)
    assert (again["outcome"], again["job"], again["weightSet"]["state"]) == ("ALREADY_INSTALLED", None, "READY")
    assert hub.bytes_served() == served


def test_a_worker_that_is_killed_in_the_middle_costs_at_most_32_mib_a_file(distributed: Stack, hub: FakeHub) -> None:
    hub.bytes_per_second = 25 * MIB
    job_id = distributed.install(MINILM)["job"]["id"]
    distributed.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] > 50 * MIB, seconds=30)
    killed = next(process for process in distributed.processes if process.name == "worker")

    killed.kill()
    distributed.start("worker")
    hub.bytes_per_second = None

    job = distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=5 * 30)
    assert job["attempt"] == 0
    assert "Its worker is gone; queued again" in [line["message"] for line in job["log"]["nodes"]]
    size = minilm_files()["model.safetensors"].stat().st_size
    assert size < hub.bytes_served(MINILM, "model.safetensors") <= size + 32 * MIB + 8 * MIB
    assert_identical(distributed.weights / MINILM)


def test_a_worker_that_is_asked_to_stop_gives_its_job_back_without_using_up_an_attempt(
    distributed: Stack, hub: FakeHub
) -> None:
    hub.bytes_per_second = 10 * MIB
    job_id = distributed.install(MINILM)["job"]["id"]
    distributed.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] > 5 * MIB, seconds=30)
    worker = next(process for process in distributed.processes if process.name == "worker")

    assert worker.stop(timeout_seconds=10) == 0

    job = distributed.job(job_id)
    assert (job["state"], job["attempt"], job["error"]) == ("QUEUED", 0, None)
    hub.bytes_per_second = None
    distributed.start("worker")
    distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=60)
    size = minilm_files()["model.safetensors"].stat().st_size
    assert hub.bytes_served(MINILM, "model.safetensors") <= size + 8 * MIB
    assert_identical(distributed.weights / MINILM)


def test_a_wrong_byte_upstream_is_never_published(distributed: Stack, hub: FakeHub) -> None:
    hub.faults.add(Fault.FLIP_BYTE, path="model.safetensors", offset=12_345)

    job_id = distributed.install(MINILM)["job"]["id"]

    job = distributed.wait_for_job(job_id, lambda job: job["state"] == "FAILED", seconds=60)
    assert job["error"]["code"] == "CORRUPT"
    assert "was wanted and" in job["error"]["message"]
    assert not (distributed.weights / MINILM).exists()
    hub.faults.clear()
    retried = distributed.execute(
        "mutation ($id: ID!) { retryJob(input: {jobId: $id}) { job { state } userErrors { message } } }",
        {"id": job_id},
    )["retryJob"]
    assert retried == {"job": {"state": "QUEUED"}, "userErrors": []}
    distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=60)
    assert_identical(distributed.weights / MINILM)


def test_a_cancelled_install_stops_within_two_seconds_and_leaves_nothing(distributed: Stack, hub: FakeHub) -> None:
    hub.faults.add(Fault.STALL, path="model.safetensors", after_bytes=5 * MIB)
    job_id = distributed.install(MINILM)["job"]["id"]
    distributed.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] >= 5 * MIB, seconds=30)

    cancelled = distributed.execute(
        "mutation ($id: ID!) { cancelJob(input: {jobId: $id}) { job { state cancellable retryable } } }",
        {"id": job_id},
    )["cancelJob"]["job"]

    assert cancelled == {"state": "CANCELLED", "cancellable": False, "retryable": True}
    staging = distributed.weights / ".model-manager" / "staging"
    until(lambda: not list(staging.iterdir()), seconds=5 * 2, what="the staging")
    assert distributed.execute("{ weightSets { nodes { name } } }")["weightSets"]["nodes"] == []
    assert distributed.job(job_id)["state"] == "CANCELLED"
    hub.faults.clear()


def test_a_set_is_deleted_and_can_be_installed_again(distributed: Stack) -> None:
    first = distributed.install(MINILM)
    distributed.wait_for_job(first["job"]["id"], lambda job: job["state"] == "SUCCEEDED", seconds=60)

    deleted = distributed.execute(
        "mutation ($id: ID!) { deleteWeights(input: {weightSetId: $id})"
        " { job { id } weightSet { state } userErrors { message } } }",
        {"id": first["weightSet"]["id"]},
    )["deleteWeights"]

    assert (deleted["weightSet"], deleted["userErrors"]) == ({"state": "DELETING"}, [])
    job = distributed.wait_for_job(deleted["job"]["id"], lambda job: job["state"] == "SUCCEEDED", seconds=30)
    assert job["weightSet"] is None
    assert [entry.name for entry in distributed.weights.iterdir()] == [".model-manager"]
    assert distributed.install(MINILM)["outcome"] == "STARTED"


def test_the_hub_away_at_first_is_asked_again_until_it_is_there(distributed: Stack, hub: FakeHub) -> None:
    hub.faults.add(Fault.API_DOWN)

    job_id = distributed.install(MINILM)["job"]["id"]
    job = distributed.wait_for_job(job_id, lambda job: job["waitingFor"] == "RETRY", seconds=30)

    assert (job["state"], job["error"]["code"]) == ("QUEUED", "HUB_UNAVAILABLE")
    hub.faults.clear()
    distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=60)


def test_a_set_is_replaced_by_its_revision_s_new_commit(distributed: Stack, hub: FakeHub) -> None:
    hub.add_repository("acme/moving", {"config.json": b"{}", "model.safetensors": noise(MIB, seed=1)})
    first = distributed.install("acme/moving")
    distributed.wait_for_job(first["job"]["id"], lambda job: job["state"] == "SUCCEEDED", seconds=60)
    commit = hub.add_commit("acme/moving", {"model.safetensors": noise(MIB, seed=2)})

    second = distributed.install("acme/moving", replace=True)
    distributed.wait_for_job(second["job"]["id"], lambda job: job["state"] == "SUCCEEDED", seconds=60)

    assert (distributed.weights / "acme/moving/model.safetensors").read_bytes() == noise(MIB, seed=2)
    assert distributed.execute('{ weightSet(name: "acme/moving") { commit state } }')["weightSet"] == {
        "commit": commit,
        "state": "READY",
    }


def test_a_symbolic_link_or_a_foreign_directory_at_the_target_fails_the_job_and_stays_as_it_is(
    distributed: Stack, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (distributed.weights / "sentence-transformers").symlink_to(elsewhere)
    (distributed.weights / "mine").mkdir()
    (distributed.weights / "mine" / "model.safetensors").write_bytes(b"mine")

    linked = distributed.install(MINILM)["job"]["id"]
    foreign = distributed.install(MINILM, name="mine")["job"]["id"]

    for job_id, said in ((linked, "is a symbolic link"), (foreign, "that this server did not install")):
        job = distributed.wait_for_job(job_id, lambda job: job["state"] == "FAILED", seconds=30)
        assert job["error"]["code"] == "INVALID"
        assert said in job["error"]["message"]
    assert list(elsewhere.iterdir()) == []
    assert (distributed.weights / "mine" / "model.safetensors").read_bytes() == b"mine"


def test_a_paused_install_stops_within_two_seconds_and_goes_on_where_it_was(distributed: Stack, hub: FakeHub) -> None:
    hub.bytes_per_second = 10 * MIB
    job_id = distributed.install(MINILM)["job"]["id"]
    distributed.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] > 10 * MIB, seconds=30)

    paused = distributed.execute(
        "mutation ($id: ID!) { pauseJob(input: {jobId: $id}) { job { state } } }", {"id": job_id}
    )["pauseJob"]

    assert paused == {"job": {"state": "PAUSED"}}
    size = minilm_files()["model.safetensors"].stat().st_size
    until(lambda: _is_quiet(hub), seconds=5 * 2, what="the transfer")
    hub.bytes_per_second = None
    distributed.execute("mutation ($id: ID!) { resumeJob(input: {jobId: $id}) { job { state } } }", {"id": job_id})
    distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=60)
    assert hub.bytes_served(MINILM, "model.safetensors") <= size + 8 * MIB
    assert_identical(distributed.weights / MINILM)


def test_a_bandwidth_limit_takes_effect_on_an_install_that_runs(distributed: Stack, hub: FakeHub) -> None:
    hub.bytes_per_second = 8 * MIB
    job_id = distributed.install(MINILM)["job"]["id"]
    distributed.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] > 4 * MIB, seconds=30)

    changed = distributed.execute(
        "mutation { updateSettings(input: {downloadBytesPerSecond: 65536}) { userErrors { message } } }"
    )["updateSettings"]
    until(lambda: _served_in_a_second(hub) < MIB, seconds=5 * 2, what="the transfer's speed")
    hub.bytes_per_second = None
    distributed.execute("mutation { updateSettings(input: {downloadBytesPerSecond: null}) { userErrors { message } } }")

    assert changed == {"userErrors": []}
    distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=60)
    assert_identical(distributed.weights / MINILM)


def _served_in_a_second(hub: FakeHub) -> int:
    """Count what is sent within a second."""
    before = hub.bytes_served()
    time.sleep(1)
    return hub.bytes_served() - before


def _is_quiet(hub: FakeHub) -> bool:
    """Tell whether nothing has been sent for a while."""
    before = hub.bytes_served()
    time.sleep(0.4)
    return hub.bytes_served() == before


def test_files_that_another_set_has_are_linked_and_not_fetched(distributed: Stack, hub: FakeHub) -> None:
    shared, new = noise(3 * MIB, seed=1), noise(2 * MIB, seed=2)
    hub.add_repository("acme/one", {"config.json": b"{}", "model.safetensors": shared})
    hub.add_repository("acme/two", {"config.json": b"{}", "a.safetensors": shared, "b.safetensors": new})
    first = distributed.install("acme/one")
    distributed.wait_for_job(first["job"]["id"], lambda job: job["state"] == "SUCCEEDED", seconds=60)

    second = distributed.install("acme/two")
    distributed.wait_for_job(second["job"]["id"], lambda job: job["state"] == "SUCCEEDED", seconds=60)

    found = distributed.execute(
        "query ($id: ID!) { job(id: $id) { progress { reusedBytes bytesDone } files { nodes { path state } } }"
        " weightSets(orderBy: {field: NAME, direction: ASC}) { nodes { name exclusiveBytes } } }",
        {"id": second["job"]["id"]},
    )
    assert hub.bytes_served("acme/two", "a.safetensors") == 0
    assert (distributed.weights / "acme/two/a.safetensors").samefile(distributed.weights / "acme/one/model.safetensors")
    assert (distributed.weights / "acme/two/b.safetensors").read_bytes() == new
    assert found["job"]["progress"] == {"reusedBytes": 3 * MIB, "bytesDone": 5 * MIB + 2}
    assert {file["path"]: file["state"] for file in found["job"]["files"]["nodes"]} == {
        "a.safetensors": "REUSED",
        "b.safetensors": "DONE",
        "config.json": "DONE",
    }
    assert [one["exclusiveBytes"] for one in found["weightSets"]["nodes"]] == [2, 2 * MIB + 2]
