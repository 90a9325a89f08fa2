"""One large file in several ranges at once: the same promises as of one stream, whatever fails in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.control import RunStopped, StopReason
from actors.download import FileTransfer, Patience
from actors.room import ConnectionRoom
from core.errors import JobErrorCode, JobFailure
from tests.actors.transfers import (
    FILE,
    REPO,
    SIZE,
    SYNC_EVERY,
    WEIGHTS,
    Parrot,
    Running,
    Staging,
    head,
    ranges,
    small,
    staging_for,
    wait_for,
    weights,
)
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401

RANGE = 500_000
AT_ONCE = 4
TILES = [*(f"bytes={start}-{start + RANGE - 1}" for start in range(0, SIZE - RANGE, RANGE)), f"bytes={SIZE - RANGE}-"]
"""Every range of the file; the last is open at its end."""
QUIET = Patience(min_back_off_seconds=0.02)


@pytest.fixture
def staging(hub: FakeHub, tmp_path: Path) -> Iterator[Staging]:
    commit = hub.add_repository(REPO, {FILE: WEIGHTS})
    with staging_for(tmp_path / "weights", endpoint=hub.url, commit=commit) as made:
        yield made


def in_ranges(staging: Staging, *, at_once: int = AT_ONCE, **options: Any) -> FileTransfer:
    transfer = staging.transfer(**options)
    transfer.range_bytes = RANGE
    transfer.room = ConnectionRoom(most=at_once, first=at_once)
    return transfer


def asked(hub: FakeHub) -> list[str]:
    """List the ranges that were asked for, in the file's order."""
    return sorted((str(one) for one in ranges(hub)), key=lambda one: int(one.removeprefix("bytes=").split("-")[0]))


def statuses(hub: FakeHub, at: str) -> list[int]:
    return [record.status for record in hub.requests if record.at == at]


# ---------------------------------------------------------------- whole files


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_a_large_file_arrives_in_ranges_each_asked_for_once(hub: FakeHub, staging: Staging, at_once: int) -> None:
    transfer = in_ranges(staging, at_once=at_once).run()

    assert staging.fetched == {FILE: WEIGHTS}
    assert asked(hub) == TILES
    assert statuses(hub, "cdn") == [206] * 6
    assert statuses(hub, "resolve") == [302]
    assert hub.bytes_served() == SIZE
    assert (transfer.counter.done, transfer.counter.received, transfer.counter.is_verified) == (SIZE, SIZE, True)
    assert list(staging.part.parent.iterdir()) == []
    wait_for(lambda: transfer.room.used == 0)


def test_several_ranges_arrive_at_once_and_no_more_than_are_allowed(hub: FakeHub, staging: Staging) -> None:
    stall = hub.faults.add(Fault.STALL, path=FILE, after_bytes=100_000)
    running = Running(in_ranges(staging, patience=QUIET))
    wait_for(lambda: running.transfer.counter.done == AT_ONCE * 100_000)

    seconds = running.stop()

    assert stall.hits == AT_ONCE
    assert asked(hub) == TILES[:AT_ONCE]
    assert seconds < 1.0
    assert isinstance(running.error, RunStopped)
    wait_for(lambda: running.transfer.room.used == 0)


def test_helpers_wait_until_the_first_answer_has_come(hub: FakeHub, staging: Staging) -> None:
    delay = hub.faults.add(Fault.DELAY, at="cdn", times=1, seconds=0.3)

    in_ranges(staging).run()

    assert delay.hits == 1
    assert statuses(hub, "resolve") == [302]
    assert hub.bytes_served() == SIZE


def test_a_file_of_one_range_is_one_request_without_a_range(hub: FakeHub, staging: Staging) -> None:
    transfer = in_ranges(staging)
    transfer.range_bytes = SIZE

    transfer.run()

    assert ranges(hub) == [None]


def test_all_ranges_but_the_first_are_asked_for_under_the_condition_of_the_etag(hub: FakeHub, staging: Staging) -> None:
    in_ranges(staging).run()

    conditions = {
        record.headers["range"]: record.headers.get("if-range") for record in hub.requests if record.at == "cdn"
    }
    etag = f'"{weights().digest.value}"'
    assert conditions == {tile: None if tile == TILES[0] else etag for tile in TILES}


# ---------------------------------------------------------------- stopped, and gone on with


@pytest.mark.parametrize("reason", [StopReason.SHUTDOWN, StopReason.FAILED])
def test_a_run_that_still_has_its_job_notes_every_byte_of_every_range(
    hub: FakeHub, staging: Staging, reason: StopReason
) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=AT_ONCE, after_bytes=100_000)
    first = Running(in_ranges(staging, patience=QUIET))
    wait_for(lambda: first.transfer.counter.done == AT_ONCE * 100_000)

    first.stop(reason)
    note = orjson.loads(staging.note.read_bytes())
    in_ranges(staging).run()

    assert (note["offset"], note["ranges"]) == (
        100_000,
        [[start, start + 100_000] for start in range(RANGE, AT_ONCE * RANGE, RANGE)],
    )
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_run_that_lost_its_job_costs_what_was_not_safe_and_no_more(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=AT_ONCE, after_bytes=300_000)
    first = Running(in_ranges(staging, patience=QUIET))
    wait_for(lambda: first.transfer.counter.done == AT_ONCE * 300_000)

    first.stop(StopReason.LOST)
    in_ranges(staging).run()

    assert SIZE <= hub.bytes_served() < SIZE + SYNC_EVERY
    assert staging.fetched == {FILE: WEIGHTS}


def test_what_was_fetched_in_ranges_is_gone_on_with_by_one_stream(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=AT_ONCE, after_bytes=100_000)
    first = Running(in_ranges(staging, patience=QUIET))
    wait_for(lambda: first.transfer.counter.done == AT_ONCE * 100_000)
    first.stop(StopReason.SHUTDOWN)
    begun = len(ranges(hub))

    staging.transfer().run()

    assert ranges(hub)[begun:] == [
        "bytes=100000-499999",
        "bytes=600000-999999",
        "bytes=1100000-1499999",
        "bytes=1600000-",
    ]
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.parametrize(
    "listed",
    [5, "x", [5], [[1]], [["a", "b"]], [[9, 5]], [[-5, 5]], [[1, 2, 3]], {"a": 1}, [[0, True]], [[1, 2]] * 10_001],
    ids=lambda listed: repr(listed)[:12],
)
def test_a_note_with_ranges_that_are_none_is_ignored(hub: FakeHub, staging: Staging, listed: Any) -> None:
    note = {"commit": staging.commit, "digest": weights().digest.value, "offset": 5, "ranges": listed, "etag": None}
    staging.part.parent.mkdir(parents=True)
    staging.part.write_bytes(b"x" * SIZE)
    staging.note.write_bytes(orjson.dumps(note))

    in_ranges(staging).run()

    assert asked(hub) == TILES
    assert staging.fetched == {FILE: WEIGHTS}


def test_noted_ranges_behind_the_end_of_the_part_are_fetched(hub: FakeHub, staging: Staging) -> None:
    noted = [[1_000_000, 2_000_000], [2_500_000, 9_000_000]]
    note = {"commit": staging.commit, "digest": weights().digest.value, "offset": 0, "ranges": noted, "etag": None}
    staging.part.parent.mkdir(parents=True)
    staging.part.write_bytes(WEIGHTS[:1_500_000])
    staging.note.write_bytes(orjson.dumps(note))

    in_ranges(staging).run()

    assert asked(hub) == ["bytes=0-499999", "bytes=500000-999999", "bytes=1500000-1999999", *TILES[4:]]
    assert hub.bytes_served() == SIZE - RANGE
    assert staging.fetched == {FILE: WEIGHTS}


def test_wrong_bytes_in_a_noted_range_are_found_out_and_fetched_anew(hub: FakeHub, staging: Staging) -> None:
    noted = [[1_000_000, 1_500_000]]
    note = {"commit": staging.commit, "digest": weights().digest.value, "offset": 0, "ranges": noted, "etag": None}
    staging.part.parent.mkdir(parents=True)
    staging.part.write_bytes(b"x" * 1_500_000)
    staging.note.write_bytes(orjson.dumps(note))

    in_ranges(staging).run()

    assert hub.bytes_served() == SIZE - RANGE + SIZE
    assert staging.fetched == {FILE: WEIGHTS}


# ---------------------------------------------------------------- sources that misbehave


@pytest.mark.parametrize("kind", [Fault.EARLY_CLOSE, Fault.TRUNCATE, Fault.STALL])
@pytest.mark.parametrize("skip", [0, 2])
def test_a_range_that_ends_early_is_gone_on_with(hub: FakeHub, staging: Staging, kind: Fault, skip: int) -> None:
    fault = hub.faults.add(kind, path=FILE, times=2, skip=skip, after_bytes=200_000)

    in_ranges(staging).run()

    assert fault.hits == 2
    assert hub.bytes_served() == SIZE
    assert len(ranges(hub)) == 8
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_longer_answer_is_used_as_far_as_it_was_asked_for(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.LONGER, path=FILE, extra_bytes=7)

    in_ranges(staging).run()

    assert asked(hub) == TILES
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_source_that_ignores_ranges_is_taken_in_one_stream(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.IGNORE_RANGE, path=FILE)

    in_ranges(staging).run()

    assert ranges(hub) == [TILES[0], None]
    assert statuses(hub, "cdn") == [200, 200]
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_source_that_begins_to_ignore_ranges_midway_is_taken_in_one_stream(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.IGNORE_RANGE, path=FILE, skip=2)

    in_ranges(staging, at_once=1).run()

    assert ranges(hub) == [*TILES[:3], None]
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.parametrize("kind", [Fault.WRONG_CONTENT_RANGE, Fault.RANGE_NOT_SATISFIABLE, Fault.CHANGED])
@pytest.mark.parametrize("skip", [0, 3])
def test_an_answer_of_something_else_begins_the_file_anew_once(
    hub: FakeHub, staging: Staging, kind: Fault, skip: int
) -> None:
    fault = hub.faults.add(kind, path=FILE, at="cdn", times=1, skip=skip)

    in_ranges(staging).run()

    assert fault.hits == 1
    assert sum("starting this file again" in line for line in staging.lines) == 1
    assert staging.fetched == {FILE: WEIGHTS}


@pytest.mark.parametrize("kind", [Fault.WRONG_CONTENT_RANGE, Fault.RANGE_NOT_SATISFIABLE, Fault.CHANGED])
def test_answers_of_something_else_time_after_time_are_given_up(hub: FakeHub, staging: Staging, kind: Fault) -> None:
    hub.faults.add(kind, path=FILE, at="cdn", skip=1)
    transfer = in_ranges(staging)

    with pytest.raises(JobFailure) as failed:
        transfer.run()

    assert (failed.value.code, failed.value.retryable) == (JobErrorCode.UPSTREAM_CHANGED, False)
    assert staging.fetched == {}
    wait_for(lambda: transfer.room.used == 0)


def test_a_wrong_byte_makes_the_file_be_fetched_once_more(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.FLIP_BYTE, path=FILE, times=1, offset=SIZE - 5)

    in_ranges(staging).run()

    assert hub.bytes_served() == 2 * SIZE
    assert asked(hub) == sorted(TILES * 2, key=TILES.index)
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_byte_that_is_wrong_twice_is_corruption(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.FLIP_BYTE, path=FILE, offset=SIZE // 2)

    with pytest.raises(JobFailure) as failed:
        in_ranges(staging).run()

    assert failed.value.code is JobErrorCode.CORRUPT
    assert hub.bytes_served() == 2 * SIZE
    assert staging.fetched == {}


@pytest.mark.parametrize("kind", [Fault.TOO_MANY_REQUESTS, Fault.UNAVAILABLE])
def test_a_source_that_wants_no_helpers_is_left_to_one_stream(hub: FakeHub, staging: Staging, kind: Fault) -> None:
    busy = hub.faults.add(kind, path=FILE, at="cdn", skip=1)
    hub.faults.add(Fault.STALL, path=FILE, times=1, after_bytes=100_000)
    transfer = in_ranges(staging)
    running = Running(transfer)
    wait_for(lambda: busy.hits > 0 and transfer.room.used == 1 and transfer.counter.done == 100_000)

    hub.faults.remove(busy)
    hub.faults.release()
    wait_for(lambda: transfer.counter.is_verified)

    assert busy.hits <= AT_ONCE - 1
    assert statuses(hub, "cdn").count(206) == 6
    assert hub.bytes_served() == SIZE
    assert running.error is None
    assert staging.fetched == {FILE: WEIGHTS}


def test_an_address_that_runs_out_midway_is_asked_for_anew(hub: FakeHub, staging: Staging) -> None:
    expired = hub.faults.add(Fault.EXPIRED_URL, path=FILE, skip=2, times=1)

    in_ranges(staging, at_once=1).run()

    assert expired.hits == 1
    assert statuses(hub, "resolve") == [302, 302]
    assert statuses(hub, "cdn") == [206, 206, 403, 206, 206, 206, 206]
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_source_that_goes_away_fails_for_now_and_every_byte_is_kept(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.STALL, path=FILE, times=AT_ONCE, after_bytes=100_000)
    running = Running(in_ranges(staging))
    wait_for(lambda: running.transfer.counter.done == AT_ONCE * 100_000)

    hub.stop()
    wait_for(lambda: running.error is not None)
    hub.start()
    in_ranges(staging).run()

    assert isinstance(running.error, JobFailure)
    assert (running.error.code, running.error.retryable) == (JobErrorCode.HUB_UNAVAILABLE, True)
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_refusal_is_final_and_asked_for_once(hub: FakeHub, staging: Staging) -> None:
    hub.remove_repository(REPO)

    with pytest.raises(JobFailure) as failed:
        in_ranges(staging).run()

    assert (failed.value.code, failed.value.retryable) == (JobErrorCode.NOT_FOUND, False)
    assert len(hub.requests) == 1


def test_a_range_under_another_etag_is_not_put_in(tmp_path: Path) -> None:
    content = b"0123456789"
    first = head("206 Partial Content", Content_Length=5, Content_Range="bytes 0-4/10", ETag='"one"') + content[:5]
    other = head("206 Partial Content", Content_Length=5, Content_Range="bytes 5-9/10", ETag='"two"') + b"abcde"
    again = head("206 Partial Content", Content_Length=5, Content_Range="bytes 0-4/10", ETag='"two"') + content[:5]
    rest = head("206 Partial Content", Content_Length=5, Content_Range="bytes 5-9/10", ETag='"two"') + content[5:]
    with Parrot([first, other, again, rest]) as parrot, staging_for(tmp_path, endpoint=parrot.url) as staging:
        transfer = in_ranges(staging, at_once=1, file=small("config.json", content))
        transfer.range_bytes = 5

        transfer.run()

        assert [[line for line in one.splitlines() if "Range" in line] for one in parrot.requests] == [
            ["Range: bytes=0-4"],
            ["Range: bytes=5-", 'If-Range: "one"'],
            ["Range: bytes=0-4"],
            ["Range: bytes=5-", 'If-Range: "two"'],
        ]
        assert staging.fetched == {"config.json": content}


def test_a_lease_that_ran_out_ends_every_range(hub: FakeHub, staging: Staging) -> None:
    hub.faults.add(Fault.THROTTLE, path=FILE, bytes_per_second=400_000)
    transfer = in_ranges(staging, lease_seconds=0.3)

    with pytest.raises(RunStopped) as stopped:
        transfer.run()

    assert stopped.value.reason is StopReason.LOST
    assert staging.fetched == {}
    wait_for(lambda: transfer.room.used == 0)
