"""Leases: kept while the process lives, lost when the row says so, and never trusted after a freeze."""

import asyncio
import threading
import time

import pytest

from actors.control import RunControl, RunStopped, StopReason
from actors.leases import LeaseKeeper
from core.ids import new_id
from core.job import InstallRequest, JobKind
from db import admission, jobs, runs
from db.admission import Asker
from db.engine import Database
from db.runs import Claim

REQUEST = InstallRequest(repo_id="acme/tiny", revision="main", name="acme/tiny")


async def claimed(database: Database, *, lease_seconds: float) -> Claim:
    accepted = await admission.accept_install(database, REQUEST, plan=None, asker=Asker(name="anna"))
    assert accepted.job is not None
    await admission.admit(database)
    job = await runs.claim(database, accepted.job.id, kinds=list(JobKind), worker_id="w", lease_seconds=lease_seconds)
    assert job is not None
    return Claim(job.id, job.fence)


async def test_a_lease_is_kept_for_as_long_as_the_run_lasts_even_when_the_main_loop_is_stuck(
    database: Database,
) -> None:
    claim = await claimed(database, lease_seconds=1)
    keeper = LeaseKeeper(database.url, lease_seconds=1, look_seconds=0.1)
    control = RunControl(claim, lease_seconds=1)
    keeper.add(control)
    keeper.start()

    time.sleep(2.5)  # noqa: ASYNC251 - the main loop is stuck on purpose

    assert control.reason is None
    assert await runs.reconcile(database, actor="sync") == []
    keeper.stop()


async def test_a_cancelled_job_stops_its_run_within_two_seconds(database: Database) -> None:
    claim = await claimed(database, lease_seconds=20)
    keeper = LeaseKeeper(database.url, lease_seconds=20)
    control = RunControl(claim, lease_seconds=20)
    woken = threading.Event()
    keeper.add(control)
    keeper.start()

    with control.interruptible(woken.set):
        await jobs.cancel(database, claim.job_id, actor="anna")
        is_woken = await asyncio.to_thread(woken.wait, 5 * 2)

    assert is_woken
    assert control.reason is StopReason.LOST
    keeper.stop()


def test_a_run_that_was_frozen_past_its_lease_may_do_nothing_more() -> None:
    control = RunControl(Claim(new_id(), 1), lease_seconds=0.1)

    time.sleep(0.2)

    with pytest.raises(RunStopped) as stopped:
        control.check()
    assert stopped.value.reason is StopReason.LOST


def test_the_first_reason_to_stop_stands() -> None:
    control = RunControl(Claim(new_id(), 1), lease_seconds=20)

    control.stop(StopReason.SHUTDOWN)
    control.stop(StopReason.LOST)

    assert control.reason is StopReason.SHUTDOWN
