"""The weights volume: sets appear whole and go whole, and nothing outside of it is ever touched."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import JobErrorCode, JobFailure
from core.ids import new_id
from core.manifest import MAX_MANIFEST_BYTES, Manifest, encode
from core.names import MANIFEST_NAME, RESERVED_FIRST_SEGMENTS, check_set_name
from core.repository import Digest, DigestKind, RepositoryFile
from core.storage import TargetTaken, WeightsVolume
from tests.servers.namespaces import has_mount_namespaces

NAME = "acme/small"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "sub/deep/notes.txt": b"notes"}
OTHER = {"config.json": b"{ }", "other.safetensors": b"other"}


@pytest.fixture
def volume(tmp_path: Path) -> WeightsVolume:
    made = WeightsVolume(tmp_path / "weights")
    made.prepare()
    return made


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    return Manifest(
        repo_id="acme/small",
        requested_revision="main",
        commit="c" * 40,
        files=tuple(
            RepositoryFile(path, len(data), Digest(DigestKind.SHA256, hashlib.sha256(data).hexdigest()))
            for path, data in files.items()
        ),
        installed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        version="1.2.3",
    )


def stage(volume: WeightsVolume, files: Mapping[str, bytes]) -> UUID:
    job_id = new_id()
    for number, (path, data) in enumerate(files.items()):
        descriptor = volume.open_part(job_id, f"{number}.part")
        os.pwrite(descriptor, data, 0)
        os.close(descriptor)
        volume.write_note(job_id, f"{number}.part.json", b"{}")
        volume.finish_part(job_id, f"{number}.part", path)
    return job_id


def publish(volume: WeightsVolume, name: str, files: Mapping[str, bytes] = FILES, *, replace: bool = False) -> Manifest:
    manifest = manifest_of(files)
    volume.publish(stage(volume, files), name, manifest, replace=replace)
    return manifest


def tree(root: Path) -> dict[str, str | bytes | None]:
    """Everything below a directory: contents of files, targets of links, None for directories."""
    found: dict[str, str | bytes | None] = {}
    for path in sorted(root.rglob("*")):
        shown = str(path.relative_to(root))
        if path.is_symlink():
            found[shown] = str(path.readlink())
        else:
            found[shown] = path.read_bytes() if path.is_file() else None
    return found


# ---------------------------------------------------------------- publishing


def test_a_published_set_is_its_files_and_the_manifest_and_nothing_else_is_left(volume: WeightsVolume) -> None:
    before = tree(volume.root)

    manifest = publish(volume, NAME)

    files = {f"{NAME}/{path}": data for path, data in FILES.items()}
    directories = dict.fromkeys(["acme", NAME, f"{NAME}/sub", f"{NAME}/sub/deep"])
    assert tree(volume.root) == before | directories | files | {f"{NAME}/{MANIFEST_NAME}": encode(manifest)}
    assert volume.read_manifest(NAME) == manifest
    assert volume.staged_jobs() == []


def test_nothing_is_seen_of_a_set_before_it_is_published(volume: WeightsVolume) -> None:
    stage(volume, FILES)

    assert volume.read_manifest(NAME) is None
    assert os.listdir(volume.root) == [".model-manager"]


def test_a_reader_sees_a_set_whole_or_not_at_all(volume: WeightsVolume) -> None:
    files = {f"{number}.bin": b"x" * number for number in range(40)}
    names = [f"acme/{number}" for number in range(10)]
    seen: list[frozenset[str]] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            seen.extend(frozenset(os.listdir(volume.root / name)) for name in names if (volume.root / name).exists())

    reader = threading.Thread(target=look)
    reader.start()
    for name in names:
        publish(volume, name, files)
    is_over.set()
    reader.join()

    assert set(seen) <= {frozenset({*files, MANIFEST_NAME})}


def test_what_was_refused_for_its_target_can_be_published_later(volume: WeightsVolume) -> None:
    job_id = stage(volume, FILES)
    (volume.root / "acme").write_bytes(b"in the way")

    with pytest.raises(TargetTaken):
        volume.publish(job_id, NAME, manifest_of(FILES), replace=False)
    (volume.root / "acme").unlink()
    volume.publish(job_id, NAME, manifest_of(FILES), replace=False)

    assert volume.read_manifest(NAME) == manifest_of(FILES)


def test_a_set_is_not_published_without_all_its_files(volume: WeightsVolume) -> None:
    job_id = stage(volume, FILES)
    (volume.root / ".model-manager/staging" / str(job_id) / "files/model.safetensors").unlink()
    before = tree(volume.root)

    with pytest.raises(JobFailure) as failed:
        volume.publish(job_id, NAME, manifest_of(FILES), replace=False)

    assert (failed.value.code, failed.value.retryable) == (JobErrorCode.VOLUME_ERROR, True)
    assert str(failed.value) == "1 of 3 files are not in staging any more, model.safetensors for one"
    assert tree(volume.root) == before


def test_a_job_that_was_swept_meanwhile_publishes_nothing(volume: WeightsVolume) -> None:
    job_id = stage(volume, FILES)
    volume.drop_staging(job_id)

    with pytest.raises(JobFailure):
        volume.publish(job_id, NAME, manifest_of(FILES), replace=False)

    assert volume.read_manifest(NAME) is None


def test_an_empty_directory_is_no_hindrance(volume: WeightsVolume) -> None:
    (volume.root / NAME).mkdir(parents=True)

    manifest = publish(volume, NAME)

    assert volume.read_manifest(NAME) == manifest


def test_two_owners_sets_come_and_go_at_the_same_time(volume: WeightsVolume) -> None:
    errors: list[BaseException] = []

    def come_and_go(name: str) -> None:
        try:
            for _ in range(60):
                publish(volume, name, {"a.txt": b"a"})
                volume.remove(name)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=come_and_go, args=(f"acme/{name}",)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert os.listdir(volume.root) == [".model-manager"]


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    ("there", "name", "said"),
    [
        ("file", NAME, "acme/small on the volume is a file"),
        ("link", NAME, "acme/small on the volume is a symbolic link: it is not followed"),
        ("dangling link", NAME, "acme/small on the volume is a symbolic link: it is not followed"),
        ("directory", NAME, "acme/small on the volume is a directory that this server did not install"),
        ("file", f"{NAME}/below", "acme/small on the volume is a file"),
        ("link", f"{NAME}/below", "small on the volume is a symbolic link: it is not followed"),
        ("set", f"{NAME}/below", "acme/small/below would lie inside the set acme/small"),
        ("set", f"{NAME}/below/it", "acme/small/below/it would lie inside the set acme/small"),
        ("earlier set", f"{NAME}/below", "acme/small/below would lie inside the set acme/small"),
        ("set", "acme", "acme on the volume has the set acme/small inside"),
        ("deep set", NAME, "acme/small on the volume has the set acme/small/a/b inside"),
        ("earlier set", "acme", "acme on the volume has the set acme/small inside"),
    ],
)
def test_a_target_that_is_taken_is_refused_and_nothing_changes(
    volume: WeightsVolume, tmp_path: Path, there: str, name: str, said: str, *, replace: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    put(volume, there, outside)
    job_id = stage(volume, FILES)
    before = tree(tmp_path)

    with pytest.raises(TargetTaken) as refused:
        volume.check_target(name, replace=replace)
    with pytest.raises(TargetTaken):
        volume.publish(job_id, name, manifest_of(FILES), replace=replace)

    assert str(refused.value) == said
    assert (refused.value.code, refused.value.retryable) == (JobErrorCode.INVALID, False)
    assert tree(tmp_path) == before


def put(volume: WeightsVolume, kind: str, outside: Path) -> None:
    path = volume.root / NAME
    path.parent.mkdir()
    match kind:
        case "file":
            path.write_bytes(b"a file")
        case "link":
            path.symlink_to(outside)
        case "dangling link":
            path.symlink_to(outside / "nowhere")
        case "directory":
            path.mkdir()
            (path / "somebody's.txt").write_bytes(b"somebody's")
        case "set":
            publish(volume, NAME)
        case "deep set":
            publish(volume, f"{NAME}/a/b")
        case "earlier set":
            path.mkdir()
            (path / ".model-manager").write_bytes(b'{"modelId": "acme/small"}')


def test_a_set_that_exists_is_refused_unless_it_may_be_replaced(volume: WeightsVolume) -> None:
    publish(volume, NAME)

    with pytest.raises(TargetTaken, match="acme/small on the volume is a set already"):
        volume.check_target(NAME, replace=False)

    volume.check_target(NAME, replace=True)


def test_a_neighbour_of_a_set_is_free(volume: WeightsVolume) -> None:
    publish(volume, NAME)

    volume.check_target("acme/smaller", replace=False)
    volume.check_target("acme2", replace=False)
    volume.check_target("a/b/c/d", replace=False)


# ---------------------------------------------------------------- replacing


def test_a_replaced_set_is_the_new_one_alone(volume: WeightsVolume) -> None:
    publish(volume, NAME)

    manifest = publish(volume, NAME, OTHER, replace=True)

    assert volume.read_manifest(NAME) == manifest
    assert sorted(os.listdir(volume.root / NAME)) == sorted([*OTHER, MANIFEST_NAME])
    assert os.listdir(volume.root / ".model-manager/trash") == []


def test_the_old_set_stays_until_the_new_one_is_complete(volume: WeightsVolume) -> None:
    old = publish(volume, NAME)
    inode = (volume.root / NAME).stat().st_ino
    job_id = stage(volume, OTHER)
    incomplete = manifest_of({**OTHER, "missing.bin": b"missing"})

    with pytest.raises(JobFailure):
        volume.publish(job_id, NAME, incomplete, replace=True)

    assert volume.read_manifest(NAME) == old
    assert (volume.root / NAME).stat().st_ino == inode
    volume.publish(job_id, NAME, manifest_of(OTHER), replace=True)
    assert volume.read_manifest(NAME) == manifest_of(OTHER)


@pytest.mark.skipif(not has_mount_namespaces(), reason="this system gives processes no mount namespace of their own")
def test_the_old_set_comes_back_when_the_new_one_cannot_take_its_place(volume: WeightsVolume) -> None:
    old = publish(volume, NAME)
    job_id = new_id()
    script = """
import subprocess, sys, uuid
from pathlib import Path
from core.storage import WeightsVolume
from tests.core.test_storage import NAME, OTHER, manifest_of

volume, job_id = WeightsVolume(Path(sys.argv[1])), uuid.UUID(sys.argv[2])
files = volume.root / ".model-manager/staging" / str(job_id) / "files"
files.mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(files)], check=True)  # what is mounted cannot be moved
for path, data in OTHER.items():
    (files / path).write_bytes(data)
try:
    volume.publish(job_id, NAME, manifest_of(OTHER), replace=True)
except OSError as error:
    print(error.strerror)
"""

    child = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", script, str(volume.root), str(job_id)],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert child.stdout == "Device or resource busy\n"
    assert volume.read_manifest(NAME) == old
    assert {path: (volume.root / NAME / path).read_bytes() for path in FILES} == FILES
    assert os.listdir(volume.root / ".model-manager/trash") == []


def test_replacing_what_is_not_there_is_publishing(volume: WeightsVolume) -> None:
    manifest = publish(volume, NAME, replace=True)

    assert volume.read_manifest(NAME) == manifest


# ---------------------------------------------------------------- removing


def test_a_removed_set_leaves_no_trace(volume: WeightsVolume) -> None:
    before = tree(volume.root)
    publish(volume, NAME)

    volume.remove(NAME)

    assert tree(volume.root) == before


def test_removing_the_last_set_takes_the_owners_directory_along_and_no_other(volume: WeightsVolume) -> None:
    publish(volume, "acme/group/one")
    publish(volume, "acme/two")

    volume.remove("acme/group/one")
    after_one = sorted(os.listdir(volume.root / "acme"))
    volume.remove("acme/two")

    assert after_one == ["two"]
    assert os.listdir(volume.root) == [".model-manager"]


def test_an_owners_directory_with_something_else_in_it_stays(volume: WeightsVolume) -> None:
    publish(volume, NAME)
    (volume.root / "acme/README").write_bytes(b"mine")

    volume.remove(NAME)

    assert tree(volume.root / "acme") == {"README": b"mine"}


@pytest.mark.parametrize("name", [NAME, "gone", "a/b/c/d"])
def test_removing_what_is_gone_already_is_fine(volume: WeightsVolume, name: str) -> None:
    before = tree(volume.root)

    volume.remove(name)

    assert tree(volume.root) == before


def test_removing_below_a_file_is_fine_too(volume: WeightsVolume) -> None:
    (volume.root / "acme").write_bytes(b"a file")

    volume.remove(NAME)

    assert (volume.root / "acme").read_bytes() == b"a file"


def test_removing_a_name_that_has_sets_inside_is_refused(volume: WeightsVolume) -> None:
    publish(volume, NAME)
    before = tree(volume.root)

    with pytest.raises(TargetTaken, match="acme on the volume has the set acme/small inside"):
        volume.remove("acme")

    assert tree(volume.root) == before


def test_a_set_with_files_that_look_like_a_set_below_can_be_removed(volume: WeightsVolume) -> None:
    publish(volume, NAME, {"a.txt": b"a", f"sub/{MANIFEST_NAME}": b"{}"})

    volume.remove(NAME)

    assert os.listdir(volume.root) == [".model-manager"]


def test_trash_is_emptied_of_whatever_is_in_it(volume: WeightsVolume, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    trash = volume.root / ".model-manager/trash"
    (trash / "left/by/a crash").mkdir(parents=True)
    (trash / "left/file").write_bytes(b"x")
    (trash / "left/link").symlink_to(outside)
    (trash / "link").symlink_to(outside)
    (trash / "file").write_bytes(b"x")

    volume.empty_trash()

    assert os.listdir(trash) == []
    assert tree(outside) == {"precious": b"precious"}


# ---------------------------------------------------------------- staging


def test_staging_is_listed_and_swept_by_job(volume: WeightsVolume) -> None:
    first, second = stage(volume, FILES), stage(volume, OTHER)
    (volume.root / ".model-manager/staging/not a job").mkdir()
    (volume.root / f".model-manager/staging/{{{new_id()}}}").mkdir()

    listed = volume.staged_jobs()
    volume.drop_staging(first)
    volume.drop_staging(first)

    assert sorted(listed) == sorted([first, second])
    assert volume.staged_jobs() == [second]
    assert volume.finished_size(second, "other.safetensors") == 5


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_in_staging_is_swept_without_being_followed(
    volume: WeightsVolume, tmp_path: Path, kind: str
) -> None:
    job_id = new_id()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    entry = volume.root / ".model-manager/staging" / str(job_id)
    entry.write_bytes(b"x") if kind == "file" else entry.symlink_to(outside)

    volume.drop_staging(job_id)

    assert volume.staged_jobs() == []
    assert tree(outside) == {"precious": b"precious"}


def test_a_finished_part_takes_its_note_along(volume: WeightsVolume) -> None:
    job_id = stage(volume, {"a/b.txt": b"abc"})

    assert volume.finished_size(job_id, "a/b.txt") == 3
    assert volume.finished_size(job_id, "a") is None
    assert volume.finished_size(job_id, "a/b.txt/c") is None
    assert volume.finished_size(job_id, "nothing") is None
    assert volume.read_note(job_id, "0.part.json") is None


def test_a_note_is_replaced_whole_whatever_an_earlier_write_left(volume: WeightsVolume, tmp_path: Path) -> None:
    job_id = new_id()
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    volume.write_note(job_id, "0.part.json", b"one")
    parts = volume.root / ".model-manager/staging" / str(job_id) / "parts"
    os.link(outside, parts / ".0.part.json.new")

    volume.write_note(job_id, "0.part.json", b"two")

    assert volume.read_note(job_id, "0.part.json") == b"two"
    assert outside.read_bytes() == b"precious"
    assert os.listdir(parts) == ["0.part.json"]


@pytest.mark.parametrize("kind", ["pipe", "link", "directory", "huge"])
def test_a_note_or_manifest_that_is_no_small_file_is_refused_at_once(volume: WeightsVolume, kind: str) -> None:
    job_id = new_id()
    volume.write_note(job_id, "0.part.json", b"{}")
    publish(volume, NAME)
    note = volume.root / ".model-manager/staging" / str(job_id) / "parts/0.part.json"
    for path in (note, volume.root / NAME / MANIFEST_NAME):
        path.unlink()
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "link":
                path.symlink_to("/etc/hostname")
            case "directory":
                path.mkdir()
            case "huge":
                with path.open("wb") as file:
                    file.truncate(MAX_MANIFEST_BYTES + 1)

    with pytest.raises(ValueError, match=r"is a symbolic link|no regular file|larger than it can be"):
        volume.read_note(job_id, "0.part.json")
    with pytest.raises(ValueError, match=r"is a symbolic link|no regular file|larger than it can be"):
        volume.read_manifest(NAME)


def test_descriptors_are_given_back(volume: WeightsVolume) -> None:
    before = sorted(os.listdir("/proc/self/fd"))

    publish(volume, "a/b/c/d", {"1/2/3/4/5/6/7/8/9.txt": b"x"})
    with pytest.raises(TargetTaken):
        publish(volume, "a/b")
    with pytest.raises(JobFailure):
        volume.publish(new_id(), "x/y", manifest_of(FILES), replace=False)
    volume.read_manifest("a/b/nothing")
    volume.remove("a/b/c/d")

    assert sorted(os.listdir("/proc/self/fd")) == before


def test_space_is_what_the_file_system_has(volume: WeightsVolume) -> None:
    space = volume.space()

    assert 0 <= space.free_bytes <= space.capacity_bytes


def test_prepare_is_safe_to_repeat_and_keeps_what_is_there(volume: WeightsVolume) -> None:
    publish(volume, NAME)
    before = tree(volume.root)

    volume.prepare()

    assert tree(volume.root) == before


# ---------------------------------------------------------------- nothing outside


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    "link", ["acme", NAME, ".model-manager", ".model-manager/staging", ".model-manager/trash", "job", "files", "parts"]
)
def test_a_symlink_at_any_level_leads_nowhere(
    volume: WeightsVolume, tmp_path: Path, link: str, *, replace: bool
) -> None:
    job_id = stage(volume, FILES)
    volume.write_note(job_id, "9.part.json", b"{}")
    outside = tmp_path / "outside"
    staging = volume.root / ".model-manager/staging" / str(job_id)
    path = {"job": staging, "files": staging / "files", "parts": staging / "parts"}.get(link, volume.root / link)
    if path.exists():
        path.rename(outside)
    else:
        path.parent.mkdir(exist_ok=True)
        outside.mkdir()
        (outside / "small").mkdir()
        (outside / "small" / MANIFEST_NAME).write_bytes(encode(manifest_of(OTHER)))
    path.symlink_to(outside)
    before = tree(outside)

    for attempt in (
        lambda: volume.publish(job_id, NAME, manifest_of(FILES), replace=replace),
        lambda: volume.read_manifest(NAME),
        lambda: volume.remove(NAME),
        lambda: os.close(volume.open_part(job_id, "9.part")),
        lambda: volume.write_note(job_id, "9.part.json", b"{}"),
        lambda: volume.finish_part(job_id, "9.part", "sub/9.txt"),
        lambda: volume.drop_staging(job_id),
        volume.empty_trash,
    ):
        try:
            attempt()
        except (TargetTaken, JobFailure, OSError):
            assert tree(outside) == before

    assert tree(outside) == before


@pytest.mark.parametrize("name", ["..", "../acme", "acme/..", "acme/../../outside", "", ".", "acme//small", "/etc"])
def test_a_name_that_leads_out_of_the_volume_is_never_walked(volume: WeightsVolume, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    publish(volume, NAME)
    before = tree(tmp_path)

    for attempt in (
        lambda: volume.read_manifest(name),
        lambda: volume.check_target(name, replace=True),
        lambda: volume.remove(name),
        lambda: volume.finished_size(new_id(), f"../../{name}/x"),
    ):
        with pytest.raises(ValueError, match="is no path below a directory"):
            attempt()

    assert tree(tmp_path) == before


SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}", fullmatch=True)
SET_NAMES = (
    st.lists(SEGMENTS, min_size=1, max_size=4)
    .filter(lambda parts: parts[0] not in RESERVED_FIRST_SEGMENTS)
    .map("/".join)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=SET_NAMES)
def test_any_name_that_is_accepted_can_be_published_read_and_removed(volume: WeightsVolume, name: str) -> None:
    assert check_set_name(name) == name
    before = tree(volume.root)

    manifest = publish(volume, name)
    found = volume.read_manifest(name)
    volume.remove(name)

    assert found == manifest
    assert tree(volume.root) == before
