"""Pause, resume, priority and pin over the API."""

from typing import Any

import pytest

from core.job import JobState
from core.token import Scope
from db import admission, jobs, runs, weight_sets
from db.runs import LostClaimError
from tests.graph import world
from tests.graph.api import RunningApi

PAUSE = (
    "mutation ($id: ID!) { done: pauseJob(input: {jobId: $id}) { job { state pausable } userErrors { code path } } }"
)
RESUME = "mutation ($id: ID!) { done: resumeJob(input: {jobId: $id}) { job { state } userErrors { code path } } }"
PRIORITY = """
mutation ($id: ID!, $priority: JobPriority!) {
  done: setJobPriority(input: {jobId: $id, priority: $priority}) { job { priority } userErrors { code path } }
}
"""
PIN = """
mutation ($id: ID!, $pinned: Boolean!) {
  done: pinWeights(input: {weightSetId: $id, pinned: $pinned}) { weightSet { pinned } userErrors { code path } }
}
"""


async def done(api: RunningApi, query: str, **variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(query, variables))["done"]
    return found


async def test_a_running_install_is_paused_and_its_worker_can_write_nothing_more(api: RunningApi) -> None:
    job, claim = await world.running(api.database)

    paused = await done(api, PAUSE, id=world.job_id(job))

    assert paused == {"job": {"state": "PAUSED", "pausable": False}, "userErrors": []}
    assert await runs.states_of(api.database, [claim]) == {claim: JobState.PAUSED}
    with pytest.raises(LostClaimError):
        await runs.release(api.database, claim, why="late")
    assert await admission.admit(api.database) == []


async def test_a_paused_job_is_resumed_and_claimed_with_a_new_fence(api: RunningApi) -> None:
    job, claim = await world.running(api.database)
    await done(api, PAUSE, id=world.job_id(job))

    resumed = await done(api, RESUME, id=world.job_id(job))
    _, again = await world.begun(api.database, job)

    assert resumed == {"job": {"state": "QUEUED"}, "userErrors": []}
    assert again.fence == claim.fence + 1


async def test_a_paused_job_keeps_its_set_from_others(api: RunningApi) -> None:
    job = await world.queued(api.database, "acme/tiny")
    await done(api, PAUSE, id=world.job_id(job))

    async with api.database.read() as session:
        found = await weight_sets.get(session, "acme/tiny")
    assert found is not None
    assert found.state == "INSTALLING"


async def test_what_has_ended_or_waits_is_neither_paused_nor_resumed(api: RunningApi) -> None:
    ended = await world.ready(api.database, "acme/one")
    waiting = await world.queued(api.database, "acme/two")

    conflict = {"job": None, "userErrors": [{"code": "CONFLICT", "path": ["input", "jobId"]}]}
    assert await done(api, PAUSE, id=world.job_id(ended)) == conflict
    assert await done(api, RESUME, id=world.job_id(waiting)) == conflict
    assert await done(api, PRIORITY, id=world.job_id(ended), priority="HIGH") == conflict


async def test_a_job_with_high_priority_overtakes_the_others(api: RunningApi) -> None:
    waiting = [await world.queued(api.database, f"acme/n{number}") for number in range(6)]

    moved = await done(api, PRIORITY, id=world.job_id(waiting[5]), priority="HIGH")

    await admission.admit(api.database)  # The API has done so too by now, or not yet: the outcome is the same.
    async with api.database.read() as session:
        found = await jobs.get_many(session, [job.id for job in waiting])
    let_go = [job.id for job in waiting if found[job.id].dispatched_at is not None]
    assert moved == {"job": {"priority": "HIGH"}, "userErrors": []}
    assert let_go == [waiting[0].id, waiting[1].id, waiting[5].id]


async def test_a_set_is_pinned_once_and_unpinned_again(api: RunningApi) -> None:
    await world.ready(api.database, "acme/tiny")

    first = await done(api, PIN, id=world.set_id("acme/tiny"), pinned=True)
    await done(api, PIN, id=world.set_id("acme/tiny"), pinned=True)
    last = await done(api, PIN, id=world.set_id("acme/tiny"), pinned=False)

    assert first == {"weightSet": {"pinned": True}, "userErrors": []}
    assert last == {"weightSet": {"pinned": False}, "userErrors": []}
    events = (await api.data("{ events(first: 2) { nodes { type actor } } }"))["events"]["nodes"]
    assert events == [
        {"type": "weights.unpinned", "actor": "operate"},
        {"type": "weights.pinned", "actor": "operate"},
    ]


async def test_an_unknown_set_cannot_be_pinned_and_an_unknown_job_not_held(api: RunningApi) -> None:
    pinned = await done(api, PIN, id=world.set_id("acme/none"), pinned=True)
    paused = await done(api, PAUSE, id="Job:01930f6e-0000-7000-8000-000000000000")

    assert pinned == {"weightSet": None, "userErrors": [{"code": "NOT_FOUND", "path": ["input", "weightSetId"]}]}
    assert paused == {"job": None, "userErrors": [{"code": "NOT_FOUND", "path": ["input", "jobId"]}]}


async def test_a_read_token_holds_nothing(api: RunningApi) -> None:
    job = await world.queued(api.database)

    for query in (PAUSE, RESUME):
        _, body = await api.execute(query, {"id": world.job_id(job)}, api.tokens[Scope.READ])
        assert body["errors"][0]["extensions"]["code"] == "FORBIDDEN"

    async with api.database.read() as session:
        found = await jobs.get(session, job.id)
    assert found is not None
    assert found.state is JobState.QUEUED
