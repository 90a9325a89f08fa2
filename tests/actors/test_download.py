"""One file, from the Hub to staging: whole, resumed, verified; and what is kept of it when the run stops."""

import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from actors.control import RunStopped, StopReason
from actors.download import Patience
from core.errors import JobErrorCode, JobFailure
from core.storage import TargetTaken
from tests.actors.transfers import (
    CUT,
    FILE,
    REPO,
    SIZE,
    SYNC_EVERY,
    WEIGHTS,
    Running,
    Staging,
    ranges,
    small,
    staging_for,
    wait_for,
    weights,
)
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401

EMPTY = b""


@pytest.fixture
def staging(hub: FakeHub, tmp_path: Path) -> Iterator[Staging]:
    commit = hub.add_repository(
        REPO, {FILE: WEIGHTS, "config.json": b'{"a": 1}', "empty.txt": EMPTY, "a b/ü%41.json": b"[]"}
    )
    with staging_for(tmp_path / "weights", endpoint=hub.url, commit=commit) as made:
        yield made


def leave(staging: Staging, *, part: bytes, note: bytes) -> None:
    staging.part.parent.mkdir(parents=True)
    staging.part.write_bytes(part)
    staging.note.write_bytes(note)


def note_of(staging: Staging, **changes: object) -> bytes:
    note = {"commit": staging.commit, "digest": weights().digest.value, "offset": CUT, "etag": None}
    return orjson.dumps(note | changes)


# ---------------------------------------------------------------- whole files


def test_a_file_arrives_byte_for_byte(hub: FakeHub, staging: Staging) -> None:
    transfer = staging.transfer().run()

    assert staging.fetched == {FILE: WEIGHTS}
    assert hub.bytes_served() == SIZE
    assert (transfer.counter.done, transfer.counter.received, transfer.counter.is_verified) == (SIZE, SIZE, True)
    assert [record.status for record in hub.requests] == [302, 200]
    assert list(staging.part.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "content"), [("config.json", b'{"a": 1}'), ("a b/ü%41.json", b"[]")], ids=["plain", "odd name"]
)
def test_a_file_that_git_keeps_itself_is_verified_by_its_blob_sha1(
    hub: FakeHub, staging: Staging, path: str, content: bytes
) -> None:
    staging.transfer(small(path, content)).run()

    assert staging.fetched == {path: content}
    assert [record.status for record in hub.requests] == [200]


def test_an_empty_file_needs_no_request(hub: FakeHub, staging: Staging) -> None:
    transfer = staging.transfer(small("empty.txt", EMPTY)).run()

    assert staging.fetched == {"empty.txt": EMPTY}
    assert transfer.counter.is_verified
    assert hub.requests == []


def test_a_whole_file_is_kept_as_it_is(hub: FakeHub, staging: Staging) -> None:
    staging.transfer().run()
    asked = len(hub.requests)

    again = staging.transfer().run()

    assert (again.counter.done, again.counter.is_verified, again.counter.received) == (SIZE, True, 0)
    assert len(hub.requests) == asked


def test_connections_are_used_again_for_the_next_file_and_all_are_closed_in_the_end(
    hub: FakeHub, staging: Staging
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    transfer = staging.transfer()

    transfer.run()
    second = staging.transfer(small("config.json", b'{"a": 1}'))
    second.source = transfer.source
    second.run()

    assert hub.bytes_served() == SIZE + 8
    staging.close()
    wait_for(lambda: len(set(os.listdir("/proc/self/fd")) - before) == 0)


# ---------------------------------------------------------------- stopped, and gone on with


def test_a_run_that_lost_its_job_goes_on_at_the_noted_offset(hub: FakeHub, staging: Staging) -> None:
    stall = hub.faults.add(Fault.STALL, path=FILE, times=1, after_bytes=CUT)
    first = Running(staging.transfer(patience=Patience()))
    wait_for(lambda: first.transfer.counter.done == CUT)

    first.stop(StopReason.LOST)
    noted = orjson.loads(staging.note.read_bytes())["offset"]
    staging.transfer().run()

    assert isinstance(first.error, RunStopped)
    assert CUT - SYNC_EVERY < noted <= CUT
    assert hub.bytes_served() == SIZE + (CUT - noted)
    assert staging.fetched == {FILE: WEIGHTS}
    assert ranges(hub) == [None, f"bytes={noted}-"]
    assert stall.hits == 1


@pytest.mark.parametrize("reason", [StopReason.SHUTDOWN, StopReason.FAILED])
def test_a_run_that_still_has_its_job_notes_every_byte_before_it_stops(
    hub: FakeHub, staging: Staging, reason: StopReason
) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=1, after_bytes=CUT)
    first = Running(staging.transfer(patience=Patience()))
    wait_for(lambda: first.transfer.counter.done == CUT)

    first.stop(reason)
    staging.transfer().run()

    assert hub.bytes_served() == SIZE
    assert ranges(hub) == [None, f"bytes={CUT}-"]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_resumed_part_is_asked_for_under_the_condition_of_its_etag(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.EARLY_CLOSE, path=FILE, times=1, after_bytes=CUT)

    staging.transfer().run()

    (second,) = [record for record in hub.requests if record.at == "cdn" and "range" in record.headers]
    assert second.headers["if-range"] == f'"{weights().digest.value}"'
    assert second.headers["accept-encoding"] == "identity"
    assert second.status == 206


def test_a_stop_wakes_a_run_that_waits_for_headers(hub: FakeHub, staging: Staging) -> None:
    delay = hub.faults.add(Fault.DELAY, at="cdn", seconds=60)
    running = Running(staging.transfer(patience=Patience()))
    wait_for(lambda: delay.hits == 1)

    seconds = running.stop()

    assert seconds < 1.0
    assert isinstance(running.error, RunStopped)
    assert staging.fetched == {}


def test_a_stop_wakes_a_run_in_a_stalled_read(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, after_bytes=CUT)
    running = Running(staging.transfer(patience=Patience()))
    wait_for(lambda: running.transfer.counter.done == CUT)

    seconds = running.stop()

    assert seconds < 1.0
    assert isinstance(running.error, RunStopped)
    assert len(ranges(hub)) == 1


def test_a_stop_wakes_every_run_of_one_source(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, after_bytes=CUT)
    first, second = staging.transfer(patience=Patience()), staging.transfer(patience=Patience())
    second.source, second.control, second.number = first.source, first.control, 1
    running = [Running(first), Running(second)]
    wait_for(lambda: all(each.transfer.counter.done == CUT for each in running))

    seconds = [each.stop() for each in running]

    assert sum(seconds) < 1.0
    assert [type(each.error) for each in running] == [RunStopped, RunStopped]


def test_a_stop_ends_a_wait_that_the_source_asked_for(hub: FakeHub, staging: Staging) -> None:
    fault = hub.faults.add(Fault.TOO_MANY_REQUESTS, at="resolve", retry_after=60)
    running = Running(staging.transfer(patience=Patience()))
    wait_for(lambda: fault.hits == 1 and any("going on in 60 s" in line for line in staging.lines))

    seconds = running.stop()

    assert seconds < 1.0
    assert isinstance(running.error, RunStopped)
    assert fault.hits == 1


def test_a_run_that_was_stopped_before_asks_for_nothing(hub: FakeHub, staging: Staging) -> None:
    transfer = staging.transfer()
    transfer.control.stop(StopReason.SHUTDOWN)

    with pytest.raises(RunStopped):
        transfer.run()

    assert hub.requests == []


def test_a_lease_that_ran_out_ends_the_run_and_nothing_more_is_written(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.THROTTLE, path=FILE, bytes_per_second=2_000_000)

    with pytest.raises(RunStopped) as stopped:
        staging.transfer(lease_seconds=0.3).run()

    assert stopped.value.reason is StopReason.LOST
    assert 0 < staging.part.stat().st_size < SIZE
    assert staging.fetched == {}


# ---------------------------------------------------------------- what an earlier run left


@pytest.mark.parametrize(
    "note",
    [
        {"commit": "f" * 40},
        {"digest": "0" * 64},
        {"offset": "many"},
        {"offset": None},
        {"offset": -5},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_note_of_another_content_or_without_an_offset_is_ignored(
    hub: FakeHub, staging: Staging, note: dict[str, object]
) -> None:
    leave(staging, part=b"x" * CUT, note=note_of(staging, **note))

    staging.transfer().run()

    assert ranges(hub) == [None]
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.parametrize(
    "note",
    [b"", b"\x00\xff", b"[1, 2]", b'"text"', b"{", b"[" * 60_000, b"x" * 100_000],
    ids=lambda note: repr(note)[:9],
)
def test_a_note_that_is_garbage_is_ignored(hub: FakeHub, staging: Staging, note: bytes) -> None:
    leave(staging, part=b"x" * CUT, note=note)

    staging.transfer().run()

    assert ranges(hub) == [None]
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.parametrize("etag", [5, ["x"], "a\r\nX-Evil: 1", "日本"])
def test_an_etag_of_a_note_that_cannot_be_sent_is_left_out(hub: FakeHub, staging: Staging, etag: object) -> None:
    leave(staging, part=WEIGHTS[:CUT], note=note_of(staging, etag=etag))

    staging.transfer().run()

    assert ranges(hub) == [f"bytes={CUT}-"]
    assert [record.headers.get("if-range") for record in hub.requests] == [None, None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_part_that_is_shorter_than_its_note_goes_on_where_it_ends(hub: FakeHub, staging: Staging) -> None:
    leave(staging, part=WEIGHTS[:12_345], note=note_of(staging, offset=CUT))

    staging.transfer().run()

    assert ranges(hub) == ["bytes=12345-"]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_part_without_a_note_begins_anew(hub: FakeHub, staging: Staging) -> None:
    leave(staging, part=WEIGHTS[:CUT], note=b"")
    staging.note.unlink()

    staging.transfer().run()

    assert ranges(hub) == [None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_part_longer_than_the_file_is_cut_and_verified(hub: FakeHub, staging: Staging) -> None:
    leave(staging, part=WEIGHTS + b"more", note=note_of(staging, offset=SIZE + 4))

    staging.transfer().run()

    assert hub.requests == []
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_part_with_wrong_bytes_is_found_out_and_fetched_anew(hub: FakeHub, staging: Staging) -> None:
    leave(staging, part=b"x" * CUT, note=note_of(staging))

    staging.transfer().run()

    assert ranges(hub) == [f"bytes={CUT}-", None]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_symlink_in_place_of_the_part_is_not_followed(hub: FakeHub, staging: Staging, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    staging.part.parent.mkdir(parents=True)
    staging.part.symlink_to(elsewhere)

    with pytest.raises(JobFailure) as failed:
        staging.transfer().run()

    assert (failed.value.code, failed.value.retryable) == (JobErrorCode.VOLUME_ERROR, False)
    assert elsewhere.read_bytes() == b"precious"
    assert hub.requests == []


def test_a_symlink_in_place_of_the_note_is_replaced_and_not_followed(
    hub: FakeHub, staging: Staging, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(note_of(staging))
    staging.part.parent.mkdir(parents=True)
    staging.note.symlink_to(elsewhere)

    staging.transfer().run()

    assert elsewhere.read_bytes() == note_of(staging)
    assert ranges(hub) == [None]
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.parametrize("level", ["", "parts", "files"])
def test_a_symlink_in_place_of_a_staging_directory_is_not_followed(
    hub: FakeHub, staging: Staging, tmp_path: Path, level: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = staging.directory / level if level else staging.directory
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)

    with pytest.raises(TargetTaken, match="is a symbolic link: it is not followed"):
        staging.transfer().run()

    assert list(elsewhere.iterdir()) == []


# ---------------------------------------------------------------- pace


def test_what_comes_too_slowly_is_asked_for_anew_at_the_same_offset(hub: FakeHub, staging: Staging) -> None:
    throttle = hub.faults.add(Fault.THROTTLE, path=FILE, times=1, bytes_per_second=100_000)
    patience = Patience(slow_seconds=0.4, slow_bytes_per_second=1_000_000)

    staging.transfer(patience=patience).run()

    first, second = ranges(hub)
    assert first is None
    assert second is not None
    assert 10_000 < int(second.removeprefix("bytes=").removesuffix("-")) < 100_000
    assert hub.bytes_served() - SIZE < 10_000
    assert throttle.hits == 1
    assert staging.fetched == {FILE: WEIGHTS}
    assert any("too slowly" in line for line in staging.lines)


def test_a_slow_source_that_keeps_the_pace_is_left_alone(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.THROTTLE, path=FILE, bytes_per_second=4_000_000)
    patience = Patience(slow_seconds=0.2, slow_bytes_per_second=100_000)

    staging.transfer(patience=patience).run()

    assert ranges(hub) == [None]
    assert hub.bytes_served() == SIZE


def test_progress_is_counted_while_it_is_made(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=1, after_bytes=CUT)
    running = Running(staging.transfer(patience=Patience()))
    wait_for(lambda: running.transfer.counter.done == CUT)

    counter = running.transfer.counter

    assert (counter.received, counter.is_verified) == (CUT, False)
    assert counter.last_byte_at is not None
    running.stop()
