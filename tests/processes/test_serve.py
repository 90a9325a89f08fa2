"""`model-manager serve`: everything on one machine, as the first command that a user types."""

import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub
from tests.fakes.repos import tiny_chat_files
from tests.processes.stack import ADMIN_TOKEN, Stack, stack, until
from tests.servers.postgres import PostgresServer, free_port
from tests.servers.valkey import ValkeyServer

CHAT = "demo/tiny-chat"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repository(CHAT, tiny_chat_files())
        yield running


@pytest.fixture
def found(tmp_path: Path, hub: FakeHub) -> Iterator[Stack]:
    with stack(tmp_path / "mm", HUB_ENDPOINT=hub.url) as prepared:
        yield prepared


def children_of(pid: int) -> dict[int, str]:
    """List a process's children with their command lines."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in listed}


def child_named(pid: int, name: str) -> int:
    """Find one child by a word of its command line."""
    return next((child for child, line in children_of(pid).items() if f" {name} " in f"{line} "), 0)


def test_serve_prints_its_address_installs_and_stops_cleanly(found: Stack) -> None:
    serve = found.start("serve")
    found.wait_until_ready()
    until(lambda: "Model Manager is ready" in serve.output, seconds=20, what="the banner")
    children = children_of(serve.popen.pid)

    job_id = found.install(CHAT)["job"]["id"]
    found.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=30)

    assert found.url in serve.output
    assert len(children) == 4
    assert serve.stop() == 0
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert "Traceback" not in serve.output


def test_serve_prints_a_first_admin_token_once_and_it_works(found: Stack) -> None:
    del found.environment["MODEL_MANAGER_ADMIN_TOKEN"]
    serve = found.start("serve")
    token = until(lambda: re.search(r"mm_[a-z0-9]{8}_[\w-]{43}", serve.output), seconds=40, what="the token")[0]
    serve.stop()

    again = found.start("serve")
    until(lambda: "Model Manager is ready" in again.output, seconds=40, what="the banner")

    assert "mm_" not in again.output
    made = found.run("token", "create", "ci", "--scope", "OPERATE")
    assert re.fullmatch(r"mm_[a-z0-9]{8}_[\w-]{43}\n", made.stdout)
    assert token != made.stdout.strip()


def test_a_child_that_dies_is_started_again_and_its_job_goes_on(found: Stack, hub: FakeHub) -> None:
    hub.bytes_per_second = 1 << 20
    serve = found.start("serve")
    found.wait_until_ready()
    job_id = found.install(CHAT)["job"]["id"]
    found.wait_for_job(job_id, lambda job: job["progress"]["bytesDone"] > 1 << 18, seconds=30)
    worker = child_named(serve.popen.pid, "worker")

    os.kill(worker, signal.SIGKILL)
    hub.bytes_per_second = None

    job = found.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=5 * 30)
    assert job["attempt"] == 0
    assert child_named(serve.popen.pid, "worker") not in {0, worker}
    assert "worker was killed by SIGKILL" in serve.output or "SIGKILL" in serve.output


def test_a_second_instance_on_the_same_state_directory_is_refused(found: Stack) -> None:
    serve = found.start("serve")
    found.wait_until_ready()

    second = found.run("serve", MODEL_MANAGER_PORT=str(free_port()))

    assert second.returncode == 1
    assert str(serve.popen.pid) in second.stderr
    assert found.environment["MODEL_MANAGER_STATE_DIR"] in second.stderr
    assert "Traceback" not in second.stderr


def test_serve_that_is_killed_leaves_no_process_that_works_and_starts_again(found: Stack) -> None:
    serve = found.start("serve")
    found.wait_until_ready()
    children = [pid for pid, line in children_of(serve.popen.pid).items() if "-m cli" in line]

    serve.kill()

    until(
        lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and _is_alive(pid) for pid in children),
        seconds=5 * 10,
        what="the children's end",
    )
    again = found.start("serve")
    until(lambda: "Model Manager is ready" in again.output, seconds=60, what="the banner")


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie whose new parent has not looked yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["api", "worker", "sync"])
def test_an_unreachable_redis_is_a_sentence_and_not_a_traceback(found: Stack, name: str) -> None:
    found.run("migrate", MODEL_MANAGER_DATABASE_URL=_sqlite(found))
    began = time.monotonic()

    refused = found.run(
        name,
        MODEL_MANAGER_DATABASE_URL=_sqlite(found),
        MODEL_MANAGER_REDIS_URL=f"redis://user:secret@127.0.0.1:{free_port()}/0",
    )

    assert refused.returncode == 78
    assert re.match(r"Redis at 127\.0\.0\.1:\d+ cannot be used: ", refused.stderr)
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "secret" not in refused.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", ["api", "worker", "sync", "migrate"])
def test_an_unreachable_database_is_a_sentence_and_not_a_traceback(found: Stack, name: str) -> None:
    refused = found.run(
        name,
        MODEL_MANAGER_DATABASE_URL=f"postgresql+asyncpg://mm:secret@127.0.0.1:{free_port()}/mm",
        MODEL_MANAGER_REDIS_URL="redis://127.0.0.1:1/0",
    )

    assert refused.returncode == 78
    assert re.match(r"The database at 127\.0\.0\.1:\d+/mm cannot be used: ", refused.stderr)
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "secret" not in refused.stderr


def test_a_database_without_its_tables_says_which_command_makes_them(found: Stack) -> None:
    (found.directory / "state").mkdir()
    refused = found.run("sync", MODEL_MANAGER_DATABASE_URL=_sqlite(found), MODEL_MANAGER_REDIS_URL="redis://x")

    assert refused.returncode == 78
    assert "run `model-manager migrate`" in refused.stderr


def test_a_bad_setting_stops_the_start_with_its_name_and_what_would_be_right(found: Stack) -> None:
    refused = found.run("serve", MODEL_MANAGER_PORT="eighty", MODEL_MANAGER_LOG_FORMAT="xml")

    assert refused.returncode == 78
    assert "MODEL_MANAGER_PORT is not usable" in refused.stderr
    assert "MODEL_MANAGER_LOG_FORMAT is not usable" in refused.stderr
    assert "'text' or 'json'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_json_logs_are_one_object_a_line_and_hold_no_token(found: Stack) -> None:
    serve = found.start("serve", MODEL_MANAGER_LOG_FORMAT="json")
    found.wait_until_ready()

    until(lambda: '"message":"worker ready"' in serve.output, seconds=20, what="the log")
    assert ADMIN_TOKEN not in serve.output


def _sqlite(found: Stack) -> str:
    """Return the URL of a database below the stack's directory."""
    return f"sqlite+aiosqlite:///{found.directory}/apart.db"


def test_serve_uses_the_database_and_the_redis_that_it_is_given(
    found: Stack, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    name = postgres.create_database()
    given = {"MODEL_MANAGER_DATABASE_URL": postgres.url(name), "MODEL_MANAGER_REDIS_URL": valkey.url}
    serve = found.start("serve", **given)
    found.wait_until_ready()

    job_id = found.install(CHAT)["job"]["id"]
    found.wait_for_job(job_id, lambda job: job["state"] == "SUCCEEDED", seconds=30)

    assert found.execute("{ server { database } }") == {"server": {"database": "POSTGRESQL"}}
    assert len(children_of(serve.popen.pid)) == 3
    assert postgres.run("SELECT state FROM jobs", database=name) == "SUCCEEDED"
    assert serve.stop() == 0
    postgres.drop_database(name)


def test_each_process_shows_its_metrics_and_health_on_a_port_of_its_own(found: Stack) -> None:
    first = next(port for port in iter(free_port, None) if port < 65_000)
    found.start("serve", MODEL_MANAGER_METRICS_PORT=str(first))
    found.wait_until_ready()

    for port in (first, first + 1, first + 2):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{first}/metrics", timeout=5) as answer:
        shown = answer.read().decode()
    assert 'model_manager_http_requests_total{method="GET",route="readyz",status="200"}' in shown
    assert "model_manager_bus_live 1.0" in shown
