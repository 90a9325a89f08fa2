"""One file onto a volume that fails: full, refusing to grow, read-only, broken. Real faults, no made-up errors.

A directory without write permission proves nothing to a process that runs as root. What works for everybody: a limit
on the size of files in a child process, a regular file where a directory has to be, and, where the system lets a
process have a mount namespace of its own, a small or read-only tmpfs there.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import JobErrorCode, JobFailure
from tests.actors.transfers import CUT, FILE, REPO, SIZE, WEIGHTS, Staging, ranges, small, staging_for
from tests.fakes.hub import FakeHub
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401
from tests.servers.namespaces import has_mount_namespaces

ROOT = Path(__file__).parents[2]
CHILD = """
import json, os, resource, subprocess, sys, uuid
from pathlib import Path
from core.errors import JobFailure
from tests.actors.transfers import staging_for

root, endpoint, commit, job_id, *fault = sys.argv[1:]
with staging_for(Path(root), endpoint=endpoint, commit=commit) as staging:
    staging.job_id = uuid.UUID(job_id)
    if fault[0] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault[1]), int(fault[1])))
    if fault[0] == "mount":
        staging.directory.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", fault[1], "tmpfs", str(staging.directory)], check=True)
    transfer = staging.transfer()
    try:
        transfer.run()
    except JobFailure as failure:
        kept = staging.part.stat().st_size if staging.part.exists() else None
        said = {"code": failure.code, "message": str(failure), "hint": failure.hint, "retryable": failure.retryable}
        print(json.dumps(said | {"kept": kept, "fetched": list(staging.fetched), "lines": staging.lines}))
"""


@pytest.fixture
def staging(hub: FakeHub, tmp_path: Path) -> Iterator[Staging]:
    commit = hub.add_repository(REPO, {FILE: WEIGHTS})
    with staging_for(tmp_path / "weights", endpoint=hub.url, commit=commit) as made:
        yield made


def failure_in_child(staging: Staging, *fault: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the transfer in a process that has a fault of its own; return the failure that it ended in."""
    where = [str(staging.volume.root), staging.hub.endpoint, staging.commit, str(staging.job_id)]
    child = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", CHILD, *where, *fault],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert child.stderr == ""
    told: dict[str, Any] = json.loads(child.stdout)
    return told


def test_a_file_that_may_not_grow_is_a_volume_error(hub: FakeHub, staging: Staging) -> None:
    told = failure_in_child(staging, "limit", str(CUT))

    assert (told["code"], told["retryable"]) == ("VOLUME_ERROR", False)
    assert told["message"] == "The volume refused: EFBIG, File too large"
    assert (told["kept"], told["fetched"]) == (CUT, [])
    assert staging.fetched == {}


def test_what_was_written_before_the_volume_refused_is_gone_on_with(hub: FakeHub, staging: Staging) -> None:
    failure_in_child(staging, "limit", str(CUT))

    staging.transfer().run()

    (_, second) = ranges(hub)
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= CUT
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.skipif(not has_mount_namespaces(), reason="this system gives processes no mount namespace of their own")
def test_a_full_volume_waits_for_room(hub: FakeHub, staging: Staging) -> None:
    told = failure_in_child(staging, "mount", "size=1m", prefix=("unshare", "-Urm"))

    assert (told["code"], told["retryable"]) == ("INSUFFICIENT_STORAGE", True)
    assert told["message"] == "The volume is full"
    assert 0 < told["kept"] < SIZE
    assert told["fetched"] == []


@pytest.mark.skipif(not has_mount_namespaces(), reason="this system gives processes no mount namespace of their own")
def test_a_read_only_volume_is_a_volume_error_and_nothing_is_asked_for(hub: FakeHub, staging: Staging) -> None:
    told = failure_in_child(staging, "mount", "ro", prefix=("unshare", "-Urm"))

    assert (told["code"], told["retryable"]) == ("VOLUME_ERROR", False)
    assert told["message"] == "The volume refused: EROFS, Read-only file system"
    assert hub.requests == []


@pytest.mark.parametrize("level", ["", "parts"])
def test_a_file_where_a_staging_directory_has_to_be_is_a_volume_error(
    hub: FakeHub, staging: Staging, level: str
) -> None:
    in_the_way = staging.directory / level if level else staging.directory
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_bytes(b"in the way")

    with pytest.raises(JobFailure) as failed:
        staging.transfer().run()

    assert (failed.value.code, failed.value.retryable) == (JobErrorCode.VOLUME_ERROR, False)
    assert str(failed.value) == "The volume refused: ENOTDIR, Not a directory"
    assert in_the_way.read_bytes() == b"in the way"
    assert hub.requests == []


def test_a_directory_where_the_part_has_to_be_is_a_volume_error(hub: FakeHub, staging: Staging) -> None:
    staging.part.mkdir(parents=True)

    with pytest.raises(JobFailure) as failed:
        staging.transfer().run()

    assert failed.value.code is JobErrorCode.VOLUME_ERROR
    assert hub.requests == []


def test_a_name_that_the_volume_cannot_take_is_a_volume_error(hub: FakeHub, staging: Staging) -> None:
    (staging.directory / "files").mkdir(parents=True)

    with pytest.raises(JobFailure) as failed:
        staging.transfer(small("a" * 300, b"{}")).run()

    assert failed.value.code is JobErrorCode.VOLUME_ERROR
    assert hub.requests == []


def test_a_volume_that_is_gone_is_a_volume_error(hub: FakeHub, staging: Staging) -> None:
    shutil.rmtree(staging.volume.root)

    with pytest.raises(JobFailure) as failed:
        staging.transfer().run()

    assert failed.value.code is JobErrorCode.VOLUME_ERROR
    assert not staging.volume.root.exists()
    assert hub.requests == []
