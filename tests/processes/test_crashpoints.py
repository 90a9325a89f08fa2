"""A worker that dies at any step of an install: another goes on, and what comes of it is the same, once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.crashpoints import CRASHED, CrashPoint
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.repos import noise
from tests.processes.stack import Process, Stack, stack, until
from tests.servers.valkey import ValkeyServer, running_valkey

MIB = 1 << 20
SIZE = 40 * MIB
EVENTS = """
query ($subject: ID!) { events(first: 50, filter: {subjectId: $subject}) { nodes { type } } }
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub(bytes_per_second=60 * MIB) as running:  # So fast that little is on its way when a worker dies.
        yield running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def without_worker(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub, redis: ValkeyServer) -> Iterator[Stack]:
    """API and sync that outlive all crashes."""
    directory = tmp_path_factory.mktemp("crashes")
    url = f"sqlite+aiosqlite:///{directory}/model-manager.db"
    with stack(directory, DATABASE_URL=url, REDIS_URL=redis.url, HUB_ENDPOINT=hub.url) as found:
        found.run("migrate")
        for name in ("api", "sync"):
            found.start(name)
        found.wait_until_ready()
        yield found


def survivor(found: Stack) -> Process:
    """Start a worker that meets no accident."""
    return found.start("worker")


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_crash_at_any_step_ends_with_the_same_set_and_one_completion(
    without_worker: Stack, hub: FakeHub, point: CrashPoint
) -> None:
    repo_id = f"acme/{point}"
    content = {"config.json": b'{"a": 1}', "model.safetensors": noise(SIZE, seed=100 + list(CrashPoint).index(point))}
    hub.add_repository(repo_id, content)
    if point in {CrashPoint.PLAN_ASKED, CrashPoint.PLAN_WRITTEN}:
        hub.faults.add(Fault.API_DOWN, repo_id=repo_id, times=1)  # The worker has to ask, not the API.
    job_id = without_worker.install(repo_id)["job"]["id"]

    crashing = without_worker.start("worker", CRASH_AT=point)
    assert crashing.popen.wait(60) == CRASHED
    without_worker.processes.remove(crashing)
    worker = survivor(without_worker)
    job = without_worker.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=5 * 30)

    assert job["error"] is None
    published = without_worker.weights / repo_id
    assert {path.name: path.read_bytes() for path in published.iterdir() if path.name in content} == content
    assert {path.name for path in published.iterdir()} == content.keys() | {".model-manager.json"}
    assert types(without_worker, job_id).count("job.completed") == 1
    assert types(without_worker, f"WeightSet:{repo_id}") == ["weights.installed"]
    assert hub.bytes_served(repo_id, "model.safetensors") <= SIZE + 36 * MIB
    until(lambda: not staged(without_worker), seconds=5 * 10, what="the staging")
    assert worker.stop() in {0, -signal.SIGTERM}  # It may not have got as far as to take signals.
    without_worker.processes.remove(worker)


def types(found: Stack, subject: str) -> list[str]:
    """List the types of what the journal has of something."""
    return [event["type"] for event in found.execute(EVENTS, {"subject": subject})["events"]["nodes"]]


def staged(found: Stack) -> list[Path]:
    """List what is left in staging."""
    return list((found.weights / ".model-manager" / "staging").iterdir())
