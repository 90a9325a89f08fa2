"""What can be changed: every outcome and every refusal, and that a refusal changes nothing."""

import asyncio
from typing import Any

import pytest

from core.token import Scope
from db import jobs, volumes
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.repos import noise
from tests.graph import world
from tests.graph.api import RunningApi
from tests.graph.world import job_id, set_id

FILES = {"config.json": b'{"model_type": "llama"}\n', "model.safetensors": noise(30_000, seed=1)}
UNKNOWN_JOB = "Job:01930f6e-0000-7000-8000-000000000000"
INSTALL = """mutation($input: InstallWeightsInput!) { installWeights(input: $input) {
  outcome
  job { id state priority progress { bytesTotal filesTotal } createdBy files { nodes { path } } }
  weightSet { id state pinned }
  userErrors { code path message }
} }"""
DELETE = """mutation($input: DeleteWeightsInput!) { deleteWeights(input: $input) {
  job { id kind state subjectId } weightSet { id state } userErrors { code path message } } }"""
CANCEL = """mutation($input: CancelJobInput!) { cancelJob(input: $input) {
  job { id state message weightSet { id } } userErrors { code path message } } }"""
RETRY = """mutation($input: RetryJobInput!) { retryJob(input: $input) {
  job { id state message attempt error { code } weightSet { state } } userErrors { code path message } } }"""
TOTALS = "{ jobs { totalCount } weightSets { totalCount } }"


@pytest.fixture
def hub_endpoint(hub: FakeHub) -> str:
    return hub.url


@pytest.fixture
def commit(hub: FakeHub) -> str:
    """The commit that main of acme/tiny is at."""
    return hub.add_repository("acme/tiny", FILES, branches={"next": {"config.json": b"{}"}})


async def install(api: RunningApi, repo_id: str = "acme/tiny", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(INSTALL, {"input": {"repoId": repo_id, **more}}))["installWeights"]
    return found


async def act(api: RunningApi, mutation: str, **given: Any) -> dict[str, Any]:
    """Call a mutation with one payload and return that."""
    (payload,) = (await api.data(mutation, {"input": given})).values()
    found: dict[str, Any] = payload
    return found


async def totals(api: RunningApi) -> tuple[int, int]:
    """How many jobs and sets there are."""
    found = await api.data(TOTALS)
    return found["jobs"]["totalCount"], found["weightSets"]["totalCount"]


def refusal_of(payload: dict[str, Any]) -> tuple[str, list[str]]:
    """The one reason for a refusal; everything else of the payload is null."""
    (error,) = payload["userErrors"]
    assert [value for name, value in payload.items() if name != "userErrors" and value is not None] == []
    assert error["message"].strip()
    return error["code"], error["path"]


# ---------------------------------------------------------------- installWeights


async def test_an_install_is_started_with_its_plan(api: RunningApi, commit: str) -> None:
    answer = await install(api, pin=True, priority="HIGH")

    job = answer["job"]
    assert (answer["outcome"], answer["userErrors"]) == ("STARTED", [])
    assert answer["weightSet"] == {"id": "WeightSet:acme/tiny", "state": "INSTALLING", "pinned": True}
    assert (job["state"], job["priority"], job["createdBy"]) == ("QUEUED", "HIGH", "operate")
    assert job["progress"] == {"bytesTotal": 30_024, "filesTotal": 2}
    assert [file["path"] for file in job["files"]["nodes"]] == ["config.json", "model.safetensors"]
    async with api.database.read() as session:
        (row,) = await jobs.unended(session)
    assert row.commit == commit
    assert await totals(api) == (1, 1)


async def test_an_accepted_job_is_sent_to_the_workers_at_once(api: RunningApi, commit: str) -> None:
    await install(api)

    async with asyncio.timeout(5):
        while True:
            async with api.database.read() as session:
                (row,) = await jobs.unended(session)
            if row.dispatched_at is not None:
                break
            await asyncio.sleep(0.02)
    assert row.dispatches == 1


async def test_the_same_install_again_joins_and_another_name_does_not(api: RunningApi, commit: str) -> None:
    first = await install(api)

    again, elsewhere = await install(api), await install(api, name="other/tiny")

    assert (again["outcome"], again["job"]["id"]) == ("JOINED", first["job"]["id"])
    assert (elsewhere["outcome"], elsewhere["weightSet"]["id"]) == ("STARTED", "WeightSet:other/tiny")
    assert await totals(api) == (2, 2)


async def test_ten_equal_installs_at_once_make_one_job(api: RunningApi, commit: str) -> None:
    answers = await asyncio.gather(*(install(api) for _ in range(10)))

    assert sorted(answer["outcome"] for answer in answers) == ["JOINED"] * 9 + ["STARTED"]
    assert len({answer["job"]["id"] for answer in answers}) == 1
    assert await totals(api) == (1, 1)


async def test_what_is_there_is_not_installed_again(api: RunningApi, hub: FakeHub, commit: str) -> None:
    await world.ready_from_hub(api.database, hub, "acme/tiny", name="acme/tiny")

    same = await install(api)
    by_commit = await install(api, revision=commit)

    for answer in (same, by_commit):
        assert (answer["outcome"], answer["job"], answer["userErrors"]) == ("ALREADY_INSTALLED", None, [])
        assert answer["weightSet"] == {"id": "WeightSet:acme/tiny", "state": "READY", "pinned": False}
    assert await totals(api) == (1, 1)


async def test_another_commit_of_a_set_needs_replace(api: RunningApi, hub: FakeHub, commit: str) -> None:
    await world.ready_from_hub(api.database, hub, "acme/tiny", name="acme/tiny")

    refused = await install(api, revision="next")
    without_room_for_doubt = await totals(api)
    replaced = await install(api, revision="next", replace=True)

    assert refusal_of(refused) == ("ALREADY_EXISTS", ["input", "name"])
    assert refused["userErrors"][0]["message"] == (
        f"acme/tiny holds acme/tiny at {commit[:8]}: give another name, or replace it"
    )
    assert without_room_for_doubt == (1, 1)
    assert (replaced["outcome"], replaced["weightSet"]["state"]) == ("STARTED", "READY")


async def test_another_repository_under_a_name_that_is_taken_is_refused(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/other", FILES)
    await world.ready(api.database, "acme/tiny")
    await world.queued(api.database, "acme/coming")

    there = await install(api, "acme/other", name="acme/tiny")
    coming = await install(api, "acme/other", name="acme/coming")

    assert refusal_of(there) == ("ALREADY_EXISTS", ["input", "name"])
    assert refusal_of(coming) == ("CONFLICT", ["input", "name"])
    assert await totals(api) == (2, 2)


async def test_a_set_inside_another_is_a_conflict_both_ways(api: RunningApi, commit: str) -> None:
    await world.ready(api.database, "acme/tiny")

    inside, around = await install(api, name="acme/tiny/inside"), await install(api, name="acme")
    beside = await install(api, name="acme/tiny2")

    assert [refusal_of(answer) for answer in (inside, around)] == [("CONFLICT", ["input", "name"])] * 2
    assert beside["outcome"] == "STARTED"


async def test_a_plan_hash_must_be_that_of_what_would_be_done(api: RunningApi, hub: FakeHub, commit: str) -> None:
    plan = "query($input: InstallPlanInput!) { installPlan(input: $input) { plan { hash } } }"
    shown = (await api.data(plan, {"input": {"repoId": "acme/tiny"}}))["installPlan"]["plan"]["hash"]
    wrong = await install(api, planHash="0" * 32)
    right = await install(api, planHash=shown)
    hub.add_commit("acme/tiny", {"config.json": b"[]"})

    changed = await install(api, name="other/tiny", planHash=shown)

    assert refusal_of(wrong) == ("PLAN_CHANGED", ["input", "planHash"])
    assert right["outcome"] == "STARTED"
    assert refusal_of(changed) == ("PLAN_CHANGED", ["input", "planHash"])
    assert await totals(api) == (1, 1)


async def test_an_idempotency_key_answers_the_same_job_whatever_became_of_it(
    api: RunningApi, hub: FakeHub, commit: str
) -> None:
    first = await install(api, idempotencyKey="k1")
    await act(api, CANCEL, jobId=first["job"]["id"])
    hub.remove_repository("acme/tiny")

    again = await install(api, idempotencyKey="k1", planHash="of yesterday")
    other = await install(api, idempotencyKey="k1", name="other/name")

    assert (again["outcome"], again["job"]["id"], again["job"]["state"]) == ("JOINED", first["job"]["id"], "CANCELLED")
    assert refusal_of(other) == ("IDEMPOTENCY_MISMATCH", ["input", "idempotencyKey"])
    assert await totals(api) == (1, 0)


async def test_bad_input_is_refused_at_its_place_and_makes_nothing(api: RunningApi, hub: FakeHub, commit: str) -> None:
    long = "a" * 97
    odd = ("a\0", "a\n", "é", "a\u200bb", "\u202ea", "a\\b", "a b", "a//b", "/a", "a/", "")
    bad: dict[str, tuple[Any, ...]] = {
        "repoId": (*odd, "a/b/c", "../b", "-a/b", "a/b.git", "a/b--c", f"a/{long}", "a?x=1", "http://127.0.0.1/x"),
        "revision": (*odd, "a..b", "-a", "a.lock", "a" * 256, "a?b", "a%2e%2e"),
        "name": (*odd, "..", "a/../b", "a/./b", ".hidden", "-a", "a/b/c/d/e", long, "lost+found", "modules/x", "~"),
        "include": ([""], ["a\0"], ["x" * 257], ["a\u202eb"], ["*"] * 51, ["*.gguf"], []),
        "exclude": ([""], ["a\n"], ["x" * 257], ["*"] * 51),
        "idempotencyKey": ("", "x" * 129, "a\0b"),
    }

    for field, values in bad.items():
        for value in values:
            answer = await install(api, **({"repo_id": value} if field == "repoId" else {field: value}))

            assert refusal_of(answer) == ("INVALID", ["input", field]), (field, value)

    assert await totals(api) == (0, 0)
    assert {request.path for request in hub.requests} == {"/api/models/acme/tiny/revision/main"}


async def test_patterns_that_leave_nothing_are_told(api: RunningApi, commit: str) -> None:
    answer = await install(api, exclude=["*"])

    message = "No file of acme/tiny matches: leave `include` out to take everything that a server needs"
    assert answer["userErrors"] == [{"code": "INVALID", "path": ["input", "include"], "message": message}]
    assert await totals(api) == (0, 0)


async def test_what_the_hub_refuses_is_refused_at_once(api: RunningApi, hub: FakeHub, commit: str) -> None:
    hub.add_repository("acme/gated", FILES, gated="auto")

    unknown = await install(api, "acme/none")
    revision = await install(api, revision="no-such-branch")
    gated = await install(api, "acme/gated")

    assert refusal_of(unknown) == ("NOT_FOUND", ["input", "repoId"])
    assert refusal_of(revision) == ("NOT_FOUND", ["input", "revision"])
    assert refusal_of(gated) == ("HUB_ACCESS_DENIED", ["input", "repoId"])
    assert f"{hub.url}/acme/gated" in gated["userErrors"][0]["message"]
    assert await totals(api) == (0, 0)


async def test_a_hub_that_is_away_does_not_refuse(api: RunningApi, hub: FakeHub, commit: str) -> None:
    hub.stop()

    answer = await install(api, "acme/whatever")
    hashed = await install(api, planHash="0" * 32)

    assert (answer["outcome"], answer["job"]["state"]) == ("STARTED", "QUEUED")
    assert answer["job"]["progress"] == {"bytesTotal": None, "filesTotal": None}
    assert refusal_of(hashed) == ("PLAN_CHANGED", ["input", "planHash"])
    async with api.database.read() as session:
        (row,) = await jobs.unended(session)
    assert row.commit is None


async def test_a_hub_that_is_slow_does_not_refuse(api: RunningApi, hub: FakeHub, commit: str) -> None:
    fault = hub.faults.add(Fault.DELAY, seconds=30.0)

    async with asyncio.timeout(5):
        answer = await install(api)

    fault.release()
    assert (answer["outcome"], answer["job"]["progress"]["bytesTotal"]) == ("STARTED", None)


async def test_too_little_room_is_told_with_the_numbers(api: RunningApi, commit: str) -> None:
    await world.queued(api.database, "acme/coming")
    await volumes.observe(api.database, path="/w", capacity_bytes=100_000, free_bytes=32_000)

    answer = await install(api)

    assert refusal_of(answer) == ("INSUFFICIENT_STORAGE", [])
    assert answer["userErrors"][0]["message"] == (
        "31,525 bytes are needed; 32,000 are free on the volume,"
        " of which 1,075 are reserved for installs that are under way"
    )
    assert await totals(api) == (1, 1)


# ---------------------------------------------------------------- deleteWeights


async def test_a_set_is_out_of_use_from_the_moment_its_removal_is_accepted(api: RunningApi) -> None:
    await world.ready(api.database)

    answer = await act(api, DELETE, weightSetId=set_id("acme/tiny"))
    again = await act(api, DELETE, weightSetId=set_id("acme/tiny"))

    assert answer["userErrors"] == []
    assert answer["weightSet"] == {"id": "WeightSet:acme/tiny", "state": "DELETING"}
    assert answer["job"].pop("id").startswith("Job:")
    assert answer["job"] == {"kind": "DELETE_WEIGHTS", "state": "QUEUED", "subjectId": "WeightSet:acme/tiny"}
    assert refusal_of(again) == ("CONFLICT", ["input", "weightSetId"])
    assert await totals(api) == (2, 1)


async def test_a_pinned_set_needs_force(api: RunningApi) -> None:
    await world.ready(api.database, pin=True)

    refused = await act(api, DELETE, weightSetId=set_id("acme/tiny"))
    before = await api.data('{ weightSet(name: "acme/tiny") { state } }')
    forced = await act(api, DELETE, weightSetId=set_id("acme/tiny"), force=True)

    assert refusal_of(refused) == ("IN_USE", ["input", "weightSetId"])
    assert before == {"weightSet": {"state": "READY"}}
    assert forced["weightSet"]["state"] == "DELETING"


async def test_what_cannot_be_deleted_is_told_at_its_place(api: RunningApi) -> None:
    await world.queued(api.database, "acme/coming")

    async def refused(value: str) -> tuple[str, list[str]]:
        return refusal_of(await act(api, DELETE, weightSetId=value))

    path = ["input", "weightSetId"]
    assert await refused("WeightSet:acme/none") == ("NOT_FOUND", path)
    assert await refused("WeightSet:acme/coming") == ("CONFLICT", path)
    for value in ("", "acme/coming", UNKNOWN_JOB, "WeightSet:", "WeightSet:../x", "WeightSet:a\0", "WeightSet:a/"):
        assert await refused(value) == ("INVALID", path), value
    assert await totals(api) == (1, 1)


# ---------------------------------------------------------------- cancelJob and retryJob


async def test_a_job_is_cancelled_for_good(api: RunningApi) -> None:
    job, _claim = await world.running(api.database)

    answer = await act(api, CANCEL, jobId=job_id(job))
    again = await act(api, CANCEL, jobId=job_id(job))

    assert answer == {
        "job": {"id": job_id(job), "state": "CANCELLED", "message": "Cancelled by operate", "weightSet": None},
        "userErrors": [],
    }
    assert refusal_of(again) == ("CONFLICT", ["input", "jobId"])
    assert await totals(api) == (1, 0)


async def test_a_failed_and_a_cancelled_job_are_queued_again(api: RunningApi) -> None:
    bad = await world.failed(api.database, "acme/bad")
    ended = await world.queued(api.database, "acme/ended")
    await jobs.cancel(api.database, ended.id, actor="anna")

    answers = [await act(api, RETRY, jobId=job_id(job)) for job in (bad, ended)]

    assert answers == [
        {
            "job": {
                "id": job_id(job),
                "state": "QUEUED",
                "message": "Retried by operate",
                "attempt": attempt,
                "error": None,
                "weightSet": {"state": "INSTALLING"},
            },
            "userErrors": [],
        }
        for job, attempt in ((bad, 2), (ended, 1))
    ]


async def test_a_job_that_has_not_failed_is_not_retried(api: RunningApi) -> None:
    done = await world.ready(api.database, "acme/done")
    waiting = await world.queued(api.database, "acme/waiting")
    lost = await world.failed(api.database, "acme/lost")
    await world.ready(api.database, "acme/lost")

    refused = [await act(api, RETRY, jobId=job_id(job)) for job in (done, waiting, lost)]

    assert [refusal_of(answer) for answer in refused] == [("CONFLICT", ["input", "jobId"])] * 3
    assert refused[2]["userErrors"][0]["message"] == "acme/lost has changed since: start anew"


@pytest.mark.parametrize("mutation", [CANCEL, RETRY])
async def test_ids_that_are_no_jobs_are_refused(api: RunningApi, mutation: str) -> None:
    await world.ready(api.database)

    async def refused(value: str) -> tuple[str, list[str]]:
        return refusal_of(await act(api, mutation, jobId=value))

    assert await refused(UNKNOWN_JOB) == ("NOT_FOUND", ["input", "jobId"])
    for value in ("", "x", "Job:", "Job:1", "WeightSet:acme/tiny", UNKNOWN_JOB.upper(), f"{UNKNOWN_JOB}\0"):
        assert await refused(value) == ("INVALID", ["input", "jobId"]), value


# ---------------------------------------------------------------- who may


async def test_a_read_token_changes_nothing(api: RunningApi, hub: FakeHub, commit: str) -> None:
    await world.ready(api.database, "acme/there")
    moving, _claim = await world.running(api.database, "acme/moving")
    bad = await world.failed(api.database, "acme/bad")
    before = await api.data("{ jobs { nodes { id state } } weightSets { nodes { name state } } }")

    for mutation, given in (
        (INSTALL, {"repoId": "acme/tiny"}),
        (DELETE, {"weightSetId": set_id("acme/there")}),
        (CANCEL, {"jobId": job_id(moving)}),
        (RETRY, {"jobId": job_id(bad)}),
    ):
        status, body = await api.execute(mutation, {"input": given}, api.tokens[Scope.READ])

        (error,) = body["errors"]
        (field,) = body["data"]
        assert (status, error["extensions"], error["path"]) == (200, {"code": "FORBIDDEN"}, [field])
        assert body["data"] == {field: None}

    assert await api.data("{ jobs { nodes { id state } } weightSets { nodes { name state } } }") == before
    assert hub.requests == []
