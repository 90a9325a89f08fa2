"""The embedded Valkey: real servers on real sockets."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import pytest
import redis

from cli import valkey
from cli.supervisor import Backoff, Output, Supervisor
from core.errors import SettingsError


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Give a directory with a path short enough for a socket; pytest's own may be too long."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        yield Path(name).resolve()


@pytest.fixture
def long_state_dir(state_dir: Path) -> Path:
    path = state_dir / "a long name" / ("x" * 120)
    path.mkdir(parents=True)
    return path


@asynccontextmanager
async def running(socket_path: Path, *, directory: Path) -> AsyncIterator[StringIO]:
    """Run a supervised server; yield what is printed meanwhile."""
    stream = StringIO()
    supervisor = Supervisor(Output(stream), backoff=Backoff(first_seconds=0.05))
    supervisor.start(valkey.child(socket_path, directory=directory))
    try:
        await valkey.wait_until_answers(socket_path)
        yield stream
    finally:
        await supervisor.stop()


def start_orphan(socket_path: Path, *, directory: Path) -> "subprocess.Popen[bytes]":
    """Start a server that nobody looks after."""
    child = valkey.child(socket_path, directory=directory)
    return subprocess.Popen(child.argv, env=child.env, stdout=subprocess.DEVNULL)


def info(socket_path: Path, *, section: str) -> dict[str, object]:
    """Ask a server about itself, as any user of redis-py would."""
    with redis.Redis.from_url(valkey.url(socket_path)) as client:
        found: dict[str, object] = client.info(section)
        return found


def config(socket_path: Path, name: str) -> str:
    """Read one option of a server."""
    with redis.Redis.from_url(valkey.url(socket_path), decode_responses=True) as client:
        return str(client.config_get(name)[name])


async def test_it_answers_redis_py_on_a_private_socket_and_keeps_nothing_on_disk(state_dir: Path) -> None:
    with valkey.place_socket(state_dir) as socket_path:
        async with running(socket_path, directory=state_dir) as stream:
            assert socket_path == state_dir / "valkey.sock"
            assert stat.S_IMODE(socket_path.stat().st_mode) == 0o700
            assert info(socket_path, section="server")["tcp_port"] == 0
            assert config(socket_path, "save") == ""
            assert config(socket_path, "appendonly") == "no"
            assert config(socket_path, "maxmemory-policy") == "noeviction"

    assert os.listdir(state_dir) == []
    assert stream.getvalue() == ""


async def test_a_path_with_blanks_quotes_and_signs_reaches_server_and_client(state_dir: Path) -> None:
    odd = state_dir / "a b'c\"d%20?e#é"
    odd.mkdir()

    with valkey.place_socket(odd) as socket_path:
        async with running(socket_path, directory=odd):
            assert socket_path.parent == odd
            assert info(socket_path, section="server")["tcp_port"] == 0


async def test_a_long_state_path_gets_a_socket_in_a_short_private_directory(long_state_dir: Path) -> None:
    with valkey.place_socket(long_state_dir) as socket_path:
        async with running(socket_path, directory=long_state_dir):
            assert len(os.fsencode(socket_path)) <= 103
            assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
            assert (long_state_dir / "valkey.sock").readlink() == socket_path
            assert info(socket_path, section="server")["tcp_port"] == 0

    assert not socket_path.parent.exists()
    assert os.listdir(long_state_dir) == []


async def test_a_killed_server_is_back_on_the_same_socket(state_dir: Path) -> None:
    with valkey.place_socket(state_dir) as socket_path:
        async with running(socket_path, directory=state_dir) as stream:
            first = info(socket_path, section="server")["process_id"]
            assert isinstance(first, int)

            os.kill(first, signal.SIGKILL)
            while "valkey was ended by SIGKILL" not in stream.getvalue():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await valkey.wait_until_answers(socket_path)

            assert info(socket_path, section="server")["process_id"] != first
            assert stream.getvalue() == "serve  | valkey was ended by SIGKILL; started again in 0.05 s\n"


async def test_an_orphan_is_shut_down_and_its_socket_removed(state_dir: Path) -> None:
    with start_orphan(state_dir / "valkey.sock", directory=state_dir) as orphan:
        await valkey.wait_until_answers(state_dir / "valkey.sock")

        found = await valkey.end_orphan(state_dir)

        assert found
        assert await asyncio.to_thread(orphan.wait, 5) == 0
        assert os.listdir(state_dir) == []


async def test_an_orphan_of_a_long_path_is_found_and_its_directory_removed(long_state_dir: Path) -> None:
    short_dir = Path(tempfile.mkdtemp(prefix=valkey.SHORT_DIRECTORY_PREFIX))
    socket_path = short_dir / "valkey.sock"
    (long_state_dir / "valkey.sock").symlink_to(socket_path)
    with start_orphan(socket_path, directory=long_state_dir) as orphan:
        await valkey.wait_until_answers(socket_path)

        found = await valkey.end_orphan(long_state_dir)

        assert found
        assert await asyncio.to_thread(orphan.wait, 5) == 0
        assert os.listdir(long_state_dir) == []
        assert short_dir.name not in os.listdir(short_dir.parent)


async def test_a_dead_socket_is_removed(state_dir: Path) -> None:
    with start_orphan(state_dir / "valkey.sock", directory=state_dir) as orphan:
        await valkey.wait_until_answers(state_dir / "valkey.sock")
        orphan.kill()

    found = await valkey.end_orphan(state_dir)

    assert not found
    assert os.listdir(state_dir) == []


async def test_no_orphan_is_no_fault(state_dir: Path) -> None:
    assert not await valkey.end_orphan(state_dir)


async def test_a_link_to_somebody_elses_directory_takes_nothing_with_it(state_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (state_dir / "valkey.sock").symlink_to(tmp_path / "valkey.sock")

    await valkey.end_orphan(state_dir)

    assert (tmp_path / "precious").read_text() == "mine"
    assert os.listdir(state_dir) == []


async def test_an_orphan_that_does_not_answer_is_left_alone_and_loses_its_socket(state_dir: Path) -> None:
    with start_orphan(state_dir / "valkey.sock", directory=state_dir) as orphan:
        await valkey.wait_until_answers(state_dir / "valkey.sock")
        orphan.send_signal(signal.SIGSTOP)

        found = await valkey.end_orphan(state_dir)

        assert not found
        assert os.listdir(state_dir) == []
        orphan.kill()


async def test_a_server_that_never_answers_is_reported_in_one_sentence(state_dir: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        await valkey.wait_until_answers(state_dir / "valkey.sock", timeout_seconds=0.1)

    assert str(refused.value) == (
        "The embedded Valkey does not answer within 0.1 s: set MODEL_MANAGER_REDIS_URL to a server of your own"
    )


def test_the_server_is_given_none_of_our_settings(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_MANAGER_HUB_TOKEN", "hf_secret")

    child = valkey.child(state_dir / "valkey.sock", directory=state_dir)

    assert "hf_secret" not in child.env.values()
    assert child.env["PATH"] == os.environ["PATH"]


def test_a_long_temporary_directory_gives_way_to_a_short_one(
    long_state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(long_state_dir))

    with valkey.place_socket(long_state_dir) as socket_path:
        assert socket_path.parent.parent == Path("/tmp")

    assert not socket_path.parent.exists()
    shutil.rmtree(long_state_dir)
