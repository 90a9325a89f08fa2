"""The state directory: whose it is, and who uses it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import state
from core.errors import SettingsError

ROOT = Path(__file__).parents[2]
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from cli import state
with state.hold(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_missing_state_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = state.prepare(tmp_path / "parent" / "state")

    assert path == tmp_path / "parent" / "state"
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o750)

    path = state.prepare(tmp_path / "state")

    assert path.stat().st_mode & 0o777 == 0o750


def test_a_relative_state_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert state.prepare(Path(".state")) == tmp_path / ".state"


def test_a_file_is_no_state_directory(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("mine")

    with pytest.raises(SettingsError) as refused:
        state.prepare(path)

    assert str(refused.value) == (
        f"MODEL_MANAGER_STATE_DIR is not usable: {path} is a file, and it must be a directory"
    )
    assert path.read_text() == "mine"


def test_a_file_on_the_way_to_the_state_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(SettingsError) as refused:
        state.prepare(tmp_path / "file" / "state")

    assert str(refused.value) == (
        f"MODEL_MANAGER_STATE_DIR is not usable: {tmp_path}/file is a file, and it must be a directory"
    )


def test_a_state_directory_that_cannot_be_made_is_refused_in_one_sentence() -> None:
    with pytest.raises(SettingsError) as refused:
        state.prepare(Path("/dev/null/state"))

    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("MODEL_MANAGER_STATE_DIR is not usable: /dev/null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_state_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(SettingsError) as refused, state.hold(tmp_path):
        pass

    assert str(refused.value) == (
        f"MODEL_MANAGER_STATE_DIR is not usable: {tmp_path} cannot be written (Permission denied)"
    )


def test_a_lock_that_cannot_be_opened_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / state.LOCK_NAME).mkdir()

    with pytest.raises(SettingsError) as refused, state.hold(tmp_path):
        pass

    assert str(refused.value) == (
        f"MODEL_MANAGER_STATE_DIR is not usable: {tmp_path} cannot be written (Is a directory)"
    )


def test_a_second_holder_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    with state.hold(tmp_path):
        with pytest.raises(SettingsError) as refused, state.hold(tmp_path):
            pass

        assert (tmp_path / state.LOCK_NAME).read_text() == f"{os.getpid()}\n"

    assert str(refused.value) == (
        f"{tmp_path} is in use by a `model-manager serve` that runs already (process {os.getpid()}): stop it, or set"
        " MODEL_MANAGER_STATE_DIR to another directory"
    )


def test_the_lock_is_free_after_a_clean_end(tmp_path: Path) -> None:
    with state.hold(tmp_path) as left_by:
        assert left_by is None

    with state.hold(tmp_path) as left_by:
        assert left_by is None


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), state.hold(tmp_path):
        raise RuntimeError("inside")

    with state.hold(tmp_path) as left_by:
        assert left_by is None


def test_the_lock_is_free_after_kill_9_though_a_child_lives_on(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        orphan = int(holder.stdout.readline())
        try:
            with pytest.raises(SettingsError, match=f"process {holder.pid}"), state.hold(tmp_path):
                pass

            holder.kill()
            holder.wait()

            with state.hold(tmp_path) as left_by:
                assert left_by == holder.pid
        finally:
            os.kill(orphan, signal.SIGKILL)
