"""The limit that all transfers of a process share."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.bandwidth import Bandwidth
from actors.control import RunStopped
from tests.actors.transfers import FILE, REPO, SIZE, WEIGHTS, Running, Staging, staging_for, wait_for
from tests.fakes.hub import FakeHub
from tests.fakes.hub_fixtures import no_strangers, running_hub  # noqa: F401


@pytest.fixture
def staging(hub: FakeHub, tmp_path: Path) -> Iterator[Staging]:
    commit = hub.add_repository(REPO, {FILE: WEIGHTS})
    with staging_for(tmp_path / "weights", endpoint=hub.url, commit=commit) as made:
        yield made


def taken_in(bandwidth: Bandwidth, seconds: float, *, threads: int) -> int:
    """Take as much as is given for a while; return how much that was."""
    ends_at = time.monotonic() + seconds
    taken = [0] * threads

    def take(number: int) -> None:
        while time.monotonic() < ends_at:
            bandwidth.take(1000, time.sleep)
            taken[number] += 1000

    workers = [threading.Thread(target=take, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(taken)


@pytest.mark.parametrize("threads", [1, 4])
def test_all_together_get_what_is_allowed(threads: int) -> None:
    taken = taken_in(Bandwidth(200_000), 0.5, threads=threads)

    assert 60_000 <= taken <= 100_000 + 25_000 + threads * 1000


def test_without_a_limit_nobody_waits() -> None:
    assert Bandwidth().take(10**12, time.sleep) < 0.1
    assert Bandwidth().piece_of(1 << 20) == 1 << 20


def test_a_low_limit_is_read_in_small_pieces() -> None:
    assert [Bandwidth(rate).piece_of(1 << 20) for rate in (1, 80_000, 10**9)] == [4096, 10_000, 1 << 20]


@pytest.mark.parametrize("rate", [0, -1])
def test_a_limit_that_lets_nothing_through_is_refused(rate: int) -> None:
    bandwidth = Bandwidth(5)

    with pytest.raises(ValueError, match="more than 0"):
        bandwidth.set(rate)

    assert bandwidth.bytes_per_second == 5


@pytest.mark.parametrize("ranged", [False, True])
def test_a_transfer_keeps_to_the_limit(hub: FakeHub, staging: Staging, ranged: bool) -> None:
    transfer = staging.transfer()
    transfer.bandwidth = Bandwidth(4_000_000)
    transfer.range_bytes = 500_000 if ranged else SIZE

    began = time.monotonic()
    transfer.run()

    assert 0.5 <= time.monotonic() - began < 3.0
    assert hub.bytes_served() == SIZE
    assert staging.fetched == {FILE: WEIGHTS}


def test_a_limit_that_is_lifted_is_felt_within_a_second(hub: FakeHub, staging: Staging) -> None:
    transfer = staging.transfer()
    transfer.bandwidth = Bandwidth(20_000)
    running = Running(transfer)
    wait_for(lambda: transfer.counter.done > 0)

    began = time.monotonic()
    transfer.bandwidth.set(None)
    wait_for(lambda: transfer.counter.is_verified)

    assert time.monotonic() - began < 1.0
    assert running.error is None
    assert hub.bytes_served() == SIZE


def test_a_limit_that_is_set_is_felt_within_a_second() -> None:
    bandwidth = Bandwidth()
    bandwidth.set(100_000)

    assert taken_in(bandwidth, 0.5, threads=2) <= 50_000 + 12_500 + 2000


def test_a_stop_ends_the_wait_for_the_limit(hub: FakeHub, staging: Staging) -> None:
    transfer = staging.transfer()
    transfer.bandwidth = Bandwidth(1000)
    running = Running(transfer)
    wait_for(lambda: transfer.counter.done > 0)

    seconds = running.stop()

    assert seconds < 1.0
    assert isinstance(running.error, RunStopped)


def test_waiting_for_the_limit_is_not_taken_for_a_slow_source(hub: FakeHub, staging: Staging) -> None:
    transfer = staging.transfer()
    transfer.patience = type(transfer.patience)(slow_seconds=0.1, slow_bytes_per_second=50_000_000)
    transfer.bandwidth = Bandwidth(6_000_000)

    transfer.run()

    assert hub.bytes_served() == SIZE
    assert len([record for record in hub.requests if record.at == "cdn"]) == 1
