"""Download windows, by real processes: they close on a running install and open again."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub import FakeHub
from tests.fakes.repos import minilm_files
from tests.processes.stack import Stack, stack
from tests.servers.valkey import ValkeyServer

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MIB = 1 << 20
UPDATE = """
mutation ($windows: [DownloadWindowInput!]) {
  updateSettings(input: {downloadWindows: $windows}) { userErrors { message } }
}
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repository(MINILM, minilm_files())
        yield running


@pytest.fixture
def distributed(tmp_path: Path, database_url: str, valkey: ValkeyServer, hub: FakeHub) -> Iterator[Stack]:
    with stack(tmp_path / "mm", DATABASE_URL=database_url, REDIS_URL=valkey.url, HUB_ENDPOINT=hub.url) as found:
        for name in ("api", "worker", "sync"):
            found.start(name)
        found.wait_until_ready()
        yield found


def set_windows(stack: Stack, windows: list[dict[str, Any]] | None) -> None:
    assert stack.execute(UPDATE, {"windows": windows})["updateSettings"] == {"userErrors": []}


def test_an_install_is_given_back_when_the_window_closes_and_goes_on_where_it_stopped(
    distributed: Stack, hub: FakeHub
) -> None:
    hub.bytes_per_second = 10 * MIB
    job_id = distributed.install(MINILM)["job"]["id"]
    distributed.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] > 5 * MIB, seconds=30)
    soon = datetime.now(UTC) + timedelta(hours=2)

    set_windows(distributed, [{"from": f"{soon:%H:%M}", "to": f"{soon + timedelta(hours=1):%H:%M}"}])
    job = distributed.wait_for_job(job_id, lambda job: job["waitingFor"] == "WINDOW", seconds=5 * 2)

    assert (job["state"], job["attempt"], job["error"]) == ("QUEUED", 0, None)
    time.sleep(0.5)  # What was on its way when the connections were cut is counted by then.
    served = hub.bytes_served(MINILM, "model.safetensors")
    time.sleep(2.5)
    assert hub.bytes_served(MINILM, "model.safetensors") == served
    assert distributed.job(job_id)["state"] == "QUEUED"

    hub.bytes_per_second = None
    set_windows(distributed, None)
    distributed.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=60)
    size = minilm_files()["model.safetensors"].stat().st_size
    assert hub.bytes_served(MINILM, "model.safetensors") <= size + 8 * MIB
