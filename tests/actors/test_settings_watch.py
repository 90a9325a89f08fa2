"""Settings that take effect while a worker runs: slots, download windows, bandwidth."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.control import RunControl, StopReason
from actors.leases import LeaseKeeper
from actors.settings_watch import SettingsWatch
from actors.tools import Tools
from core.bus import Bus
from core.hub import Hub
from core.ids import new_id
from core.job import JobState, WaitReason
from core.runtime_settings import RuntimeSettings, SettingName
from core.storage import WeightsVolume
from db import admission, jobs, runs, runtime_settings
from db.engine import Database
from db.runs import Claim
from tests.graph import world
from tests.servers.valkey import ValkeyServer

DEFAULTS = RuntimeSettings()


class Limit:
    """A limit that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[int | None] = []

    def set(self, bytes_per_second: int | None) -> None:
        self.told.append(bytes_per_second)


@pytest.fixture
def limit() -> Limit:
    return Limit()


@pytest.fixture
def leases(database_url: str) -> Iterator[LeaseKeeper]:
    """Leases that nobody renews: only the list of runs is used."""
    return LeaseKeeper(database_url, lease_seconds=60)


@pytest.fixture
def tools(database: Database, valkey: ValkeyServer, tmp_path: Path, limit: Limit) -> Tools:
    hub = Hub(endpoint="http://127.0.0.1:9", token=None)
    volume = WeightsVolume(tmp_path / "weights")
    return Tools(database=database, bus=Bus(valkey.url), hub=hub, volume=volume, bandwidth=limit)


def window(begins_in_hours: float, ends_in_hours: float) -> list[dict[str, Any]]:
    """A window of every day, by UTC, around now."""
    now = datetime.now(UTC)
    begins, ends = now + timedelta(hours=begins_in_hours), now + timedelta(hours=ends_in_hours)
    return [{"from": f"{begins:%H:%M}", "to": f"{ends:%H:%M}", "weekdays": [], "timeZone": "UTC"}]


async def change(database: Database, name: SettingName, value: object) -> None:
    await runtime_settings.change(database, {name: value}, defaults=DEFAULTS, actor="anna")


async def waits_for(database: Database, job_id: Any) -> WaitReason | None:
    async with database.read() as session:
        found = await jobs.get(session, job_id)
    assert found is not None
    assert found.state is JobState.QUEUED
    return found.waiting_for


async def test_as_many_installs_are_let_go_as_the_settings_say_now(database: Database) -> None:
    for number in range(6):
        await world.queued(database, f"acme/n{number}")

    let_go = [len(await admission.admit(database))]
    for slots in (5, 2, None):
        await change(database, SettingName.CONCURRENT_INSTALLS, slots)
        let_go.append(len(await admission.admit(database)))

    assert let_go == [3, 2, 0, 0]


async def test_the_environment_s_default_counts_where_nobody_has_changed_it(database: Database) -> None:
    for number in range(3):
        await world.queued(database, f"acme/n{number}")

    assert len(await admission.admit(database, defaults=RuntimeSettings(concurrent_installs=2))) == 2


async def test_outside_of_the_windows_installs_wait_and_deletions_do_not(database: Database) -> None:
    await world.ready(database, "acme/old")
    await change(database, SettingName.DOWNLOAD_WINDOWS, window(2, 3))
    install = await world.queued(database, "acme/tiny")
    deletion = await admission.accept_delete(database, "acme/old", force=False, asker=world.ANNA)
    assert deletion.job is not None

    let_go = await admission.admit(database)
    reason = await waits_for(database, install.id)
    await change(database, SettingName.DOWNLOAD_WINDOWS, window(-1, 1))
    later = await admission.admit(database)

    assert (let_go, reason, later) == ([deletion.job.id], WaitReason.WINDOW, [install.id])


async def test_when_the_windows_close_a_run_that_obeys_them_is_told_to_end_and_no_other(
    tools: Tools, leases: LeaseKeeper
) -> None:
    obeys = RunControl(Claim(new_id(), 1), lease_seconds=60, obeys_windows=True)
    ignores = RunControl(Claim(new_id(), 2), lease_seconds=60)
    leases.add(obeys)
    leases.add(ignores)
    watch = SettingsWatch(tools, leases, defaults=DEFAULTS)
    await change(tools.database, SettingName.DOWNLOAD_WINDOWS, window(-1, 1))
    await watch.look()
    before = obeys.reason

    await change(tools.database, SettingName.DOWNLOAD_WINDOWS, window(2, 3))
    await watch.look()

    assert (before, obeys.reason, ignores.reason) == (None, StopReason.WINDOW, None)


async def test_a_job_that_is_given_back_for_the_window_uses_up_no_attempt(database: Database) -> None:
    job, claim = await world.running(database)
    await change(database, SettingName.DOWNLOAD_WINDOWS, window(2, 3))

    await runs.release(database, claim, why="No window", waiting_for=WaitReason.WINDOW)
    let_go = await admission.admit(database)

    async with database.read() as session:
        found = await jobs.get(session, job.id)
    assert found is not None
    assert let_go == []
    assert (found.state, found.waiting_for) == (JobState.QUEUED, WaitReason.WINDOW)
    assert (found.attempt, found.fruitless_runs, found.deliveries, found.next_attempt_at) == (0, 0, 0, None)


async def test_the_bandwidth_is_told_at_first_and_when_it_changes(
    tools: Tools, leases: LeaseKeeper, limit: Limit
) -> None:
    watch = SettingsWatch(tools, leases, defaults=RuntimeSettings(download_bytes_per_second=200_000))
    await watch.look()
    await watch.look()

    await change(tools.database, SettingName.DOWNLOAD_BYTES_PER_SECOND, 100_000)
    await watch.look()
    await watch.look()
    await change(tools.database, SettingName.DOWNLOAD_BYTES_PER_SECOND, None)
    await watch.look()

    assert limit.told == [200_000, 100_000, 200_000]


async def test_what_holds_now_is_where_runs_look_it_up(tools: Tools, leases: LeaseKeeper) -> None:
    await change(tools.database, SettingName.RANGES_PER_INSTALL, 2)

    await SettingsWatch(tools, leases, defaults=DEFAULTS).look()

    assert tools.in_force.settings == RuntimeSettings(ranges_per_install=2)
