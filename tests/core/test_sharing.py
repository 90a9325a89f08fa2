"""What sets share on the volume: files by a second name, and a place that two sets change in one step."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.exchange import exchange
from core.ids import new_id
from core.manifest import decode
from core.names import MANIFEST_NAME
from core.storage import WeightsVolume
from tests.core.test_storage import FILES, NAME, OTHER, manifest_of, stage
from tests.servers.namespaces import has_mount_namespaces

ROOT = Path(__file__).parents[2]
WEIGHTS = "model.safetensors"
SIZE = len(FILES[WEIGHTS])


@pytest.fixture
def volume(tmp_path: Path) -> WeightsVolume:
    made = WeightsVolume(tmp_path / "weights")
    made.prepare()
    return made


def published(volume: WeightsVolume) -> Path:
    volume.publish(stage(volume, FILES), NAME, manifest_of(FILES), replace=False)
    return volume.root / NAME


def link(volume: WeightsVolume, *, path: str = "a/b.bin", of_set: str = NAME, of_path: str = WEIGHTS) -> Path | None:
    job_id = new_id()
    is_linked = volume.link_file(job_id, path, of_set=of_set, of_path=of_path, size_bytes=SIZE)
    found = volume.root / ".model-manager/staging" / str(job_id) / "files" / path
    assert found.exists() is is_linked
    return found if is_linked else None


def test_a_file_of_a_set_gets_a_second_name_and_no_second_bytes(volume: WeightsVolume) -> None:
    origin = published(volume) / WEIGHTS

    found = link(volume)

    assert found is not None
    assert found.samefile(origin)
    assert origin.stat().st_nlink == 2


def test_a_file_that_is_linked_already_stays_so(volume: WeightsVolume) -> None:
    published(volume)
    job_id = new_id()

    linked = [volume.link_file(job_id, "x", of_set=NAME, of_path=WEIGHTS, size_bytes=SIZE) for _ in range(2)]

    assert linked == [True, True]
    assert volume.finished_size(job_id, "x") == SIZE


def test_a_file_that_was_fetched_before_is_kept(volume: WeightsVolume) -> None:
    published(volume)
    job_id = stage(volume, {"x": b"fetched"})

    assert not volume.link_file(job_id, "x", of_set=NAME, of_path=WEIGHTS, size_bytes=SIZE)
    assert (volume.root / ".model-manager/staging" / str(job_id) / "files/x").read_bytes() == b"fetched"


def test_what_is_no_whole_file_of_a_set_is_not_linked(volume: WeightsVolume, tmp_path: Path) -> None:
    directory = published(volume)
    (tmp_path / "outside").write_bytes(FILES[WEIGHTS])
    (directory / "link").symlink_to(tmp_path / "outside")
    (directory / "inner").symlink_to(WEIGHTS)
    (directory / "above").symlink_to(tmp_path, target_is_directory=True)
    (directory / "longer").write_bytes(FILES[WEIGHTS] + b"!")
    os.mkfifo(directory / "pipe")
    (directory / "folder").mkdir()

    paths = ["link", "inner", "above/outside", "longer", "pipe", "folder", "nothing", f"{WEIGHTS}/x"]

    assert [link(volume, of_path=path) for path in paths] == [None] * len(paths)


def test_what_lies_in_no_set_is_not_linked(volume: WeightsVolume, tmp_path: Path) -> None:
    directory = published(volume)
    (volume.root / "plain").mkdir()
    (volume.root / "plain" / WEIGHTS).write_bytes(FILES[WEIGHTS])
    (volume.root / "symlink").symlink_to(directory, target_is_directory=True)

    assert [link(volume, of_set=name) for name in ("plain", "symlink", "nothing", f"{NAME}/sub")] == [None] * 4


@pytest.mark.skipif(not has_mount_namespaces(), reason="this system gives processes no mount namespace of their own")
def test_a_file_of_another_file_system_is_not_linked(volume: WeightsVolume) -> None:
    published(volume)
    job_id = new_id()
    staging = volume.root / ".model-manager/staging" / str(job_id)
    staging.mkdir()
    script = (
        "import subprocess, sys, uuid; from pathlib import Path; from core.storage import WeightsVolume\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', sys.argv[2]], check=True)\n"
        "print(WeightsVolume(Path(sys.argv[1])).link_file("
        f"uuid.UUID('{job_id}'), 'x', of_set='{NAME}', of_path='{WEIGHTS}', size_bytes={SIZE}))"
    )

    told = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", script, str(volume.root), str(staging)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert told.stdout == "False\n"


def test_deleting_a_set_leaves_what_another_shares_with_it(volume: WeightsVolume) -> None:
    published(volume)
    found = link(volume)
    assert found is not None

    volume.remove(NAME)

    assert found.read_bytes() == FILES[WEIGHTS]
    assert found.stat().st_nlink == 1


def test_two_directories_change_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    directory = os.open(tmp_path, os.O_RDONLY)

    is_done = exchange("one", "two", first_directory=directory, second_directory=directory)
    with pytest.raises(FileNotFoundError):
        exchange("one", "three", first_directory=directory, second_directory=directory)
    os.close(directory)

    assert is_done
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == ["one/two", "two/one"]


def test_a_set_that_is_replaced_is_there_at_every_moment(volume: WeightsVolume) -> None:
    manifest = published(volume) / MANIFEST_NAME
    seen: list[str] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            try:
                seen.append(decode(manifest.read_bytes()).files[-1].path)
            except FileNotFoundError:
                seen.append("nothing")

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(20):
        files = FILES if number % 2 else OTHER
        volume.publish(stage(volume, files), NAME, manifest_of(files), replace=True)
    is_over.set()
    watcher.join()

    assert set(seen) == {"sub/deep/notes.txt", "other.safetensors"}
    assert list((volume.root / ".model-manager/trash").iterdir()) == []
    assert list((volume.root / ".model-manager/staging").iterdir()) == []
