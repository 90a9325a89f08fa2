"""What can be asked, and what it costs."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from core.job import JobStage, LogLevel, Progress
from core.repository import Digest, DigestKind, RepositoryFile
from core.version import VERSION
from db import job_files, job_logs, runs, volumes, workers
from tests.graph import world
from tests.graph.api import RunningApi
from tests.graph.world import job_id, set_id

UNKNOWN_JOB = "Job:01930f6e-0000-7000-8000-000000000000"


def names(connection: dict[str, Any]) -> list[str]:
    return [node["name"] for node in connection["nodes"]]


# ---------------------------------------------------------------- jobs


async def test_a_job_shows_its_row_its_plan_and_its_log(api: RunningApi) -> None:
    job, claim = await world.running(api.database)
    await runs.report(
        api.database,
        claim,
        progress=Progress(bytes_done=512, bytes_total=1024, verified_bytes=24, files_done=1, files_total=2),
        stage=JobStage.DOWNLOADING,
        message="Downloading model.safetensors",
        files=[job_files.FileProgress(0, job_files.FileState.DONE, 24)],
        lines=[job_logs.NewLogLine(message="half", level=LogLevel.WARNING, source="model.safetensors")],
    )

    found = await api.data(
        """query($id: ID!) { job(id: $id) {
          id kind state stage message priority waitingFor subjectId input attempt maxAttempts nextAttemptAt
          cancellable retryable createdBy endedAt error { code }
          progress { fraction bytesDone bytesTotal verifiedBytes reusedBytes filesDone filesTotal bytesPerSecond }
          subject { __typename id } weightSet { name state installJob { id } }
          files { nodes { path bytesDone bytesTotal state } totalCount }
          done: files(states: [DONE]) { nodes { path } totalCount }
          log { nodes { level source message dropped } totalCount }
        } }""",
        {"id": job_id(job)},
    )

    assert found["job"] == {
        "id": job_id(job),
        "kind": "INSTALL_WEIGHTS",
        "state": "RUNNING",
        "stage": "DOWNLOADING",
        "message": "Downloading model.safetensors",
        "priority": "NORMAL",
        "waitingFor": None,
        "subjectId": "WeightSet:acme/tiny",
        "input": {
            "repoId": "acme/tiny",
            "revision": "main",
            "name": "acme/tiny",
            "include": None,
            "exclude": [],
            "replace": False,
            "pin": False,
        },
        "attempt": 0,
        "maxAttempts": 5,
        "nextAttemptAt": None,
        "cancellable": True,
        "retryable": False,
        "createdBy": "anna",
        "endedAt": None,
        "error": None,
        "progress": {
            "fraction": 0.5,
            "bytesDone": 512,
            "bytesTotal": 1024,
            "verifiedBytes": 24,
            "reusedBytes": 0,
            "filesDone": 1,
            "filesTotal": 2,
            "bytesPerSecond": None,
        },
        "subject": {"__typename": "WeightSet", "id": "WeightSet:acme/tiny"},
        "weightSet": {"name": "acme/tiny", "state": "INSTALLING", "installJob": {"id": job_id(job)}},
        "files": {
            "nodes": [
                {"path": "config.json", "bytesDone": 24, "bytesTotal": 24, "state": "DONE"},
                {"path": "model.safetensors", "bytesDone": 0, "bytesTotal": 1000, "state": "WAITING"},
            ],
            "totalCount": 2,
        },
        "done": {"nodes": [{"path": "config.json"}], "totalCount": 1},
        "log": {
            "nodes": [
                {"level": "INFO", "source": None, "message": "Asked for by anna", "dropped": 0},
                {"level": "INFO", "source": None, "message": "Started by w1, run 1", "dropped": 0},
                {"level": "WARNING", "source": "model.safetensors", "message": "half", "dropped": 0},
            ],
            "totalCount": 3,
        },
    }


async def test_a_failed_job_tells_why_and_that_it_can_be_retried(api: RunningApi) -> None:
    job = await world.failed(api.database)

    found = await api.data(
        "query($id: ID!) { job(id: $id) { state retryable cancellable weightSet { id } endedAt"
        " error { code message hint retryable } } }",
        {"id": job_id(job)},
    )

    ended_at = datetime.fromisoformat(found["job"].pop("endedAt"))
    assert datetime.now(UTC) - ended_at < timedelta(minutes=1)
    assert found["job"] == {
        "state": "FAILED",
        "retryable": True,
        "cancellable": False,
        "weightSet": None,
        "error": {"code": "CORRUPT", "message": "The digest is wrong", "hint": "Ask the owner", "retryable": False},
    }


async def test_jobs_come_newest_first_in_pages_that_lose_and_double_none(api: RunningApi) -> None:
    made = [job_id(await world.queued(api.database, f"acme/n{number}")) for number in range(7)]
    query = """query($first: Int, $after: String, $last: Int, $before: String) {
      jobs(first: $first, after: $after, last: $last, before: $before) {
        nodes { id } edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
      } }"""

    pages = []
    after = None
    while True:
        page = (await api.data(query, {"first": 3, "after": after}))["jobs"]
        pages.append(page)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    back = (await api.data(query, {"last": 2, "before": pages[2]["pageInfo"]["startCursor"]}))["jobs"]

    assert [node["id"] for page in pages for node in page["nodes"]] == made[::-1]
    assert [edge["node"]["id"] for page in pages for edge in page["edges"]] == made[::-1]
    assert [page["pageInfo"]["hasPreviousPage"] for page in pages] == [False, True, True]
    assert [node["id"] for node in back["nodes"]] == [made[2], made[1]]


async def test_jobs_can_be_filtered_by_kind_state_subject_and_time(api: RunningApi) -> None:
    bad = job_id(await world.failed(api.database, "acme/bad"))
    good = job_id(await world.ready(api.database, "acme/good"))
    waiting = await world.queued(api.database, "acme/waiting")

    async def found(**job_filter: Any) -> list[str]:
        query = "query($filter: JobFilter) { jobs(filter: $filter) { nodes { id } totalCount } }"
        answer = (await api.data(query, {"filter": job_filter}))["jobs"]
        assert answer["totalCount"] == len(answer["nodes"])
        return [node["id"] for node in answer["nodes"]]

    moment = waiting.created_at
    assert await found() == [job_id(waiting), good, bad]
    assert await found(states=["FAILED", "QUEUED"]) == [job_id(waiting), bad]
    assert await found(states=[]) == []
    assert await found(kinds=["DELETE_WEIGHTS"]) == []
    assert await found(subjectId="WeightSet:acme/good") == [good]
    assert await found(createdSince=moment.isoformat()) == [job_id(waiting)]
    assert await found(createdUntil=moment.isoformat()) == [good, bad]
    assert await found(createdSince="0001-01-01T00:00:00Z", createdUntil="9999-12-31T23:59:59Z") == [
        job_id(waiting),
        good,
        bad,
    ]


# ---------------------------------------------------------------- sets


async def test_sets_can_be_sorted_by_name_size_and_date_either_way(api: RunningApi) -> None:
    def file_of(size: int) -> tuple[RepositoryFile, ...]:
        return (RepositoryFile("model.safetensors", size, Digest(DigestKind.SHA256, "a" * 64)),)

    await world.ready(api.database, "b/small", files=file_of(1))
    await world.ready(api.database, "c/large", files=file_of(3_000_000_000_000))
    await world.ready(api.database, "a/middle", files=file_of(2))
    await world.queued(api.database, "d/coming")

    async def sorted_by(field: str, direction: str) -> list[str]:
        order = f"orderBy: {{field: {field}, direction: {direction}}}"
        forward = (await api.data(f"{{ weightSets({order}) {{ nodes {{ name }} }} }}"))["weightSets"]
        paged: list[str] = []
        after = None
        while True:
            page = (
                await api.data(
                    f"query($after: String) {{ weightSets({order}, first: 1, after: $after)"
                    " { nodes { name } pageInfo { hasNextPage endCursor } } }",
                    {"after": after},
                )
            )["weightSets"]
            paged += names(page)
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert paged == names(forward)
        return paged

    assert await sorted_by("NAME", "ASC") == ["a/middle", "b/small", "c/large", "d/coming"]
    assert await sorted_by("NAME", "DESC") == ["d/coming", "c/large", "b/small", "a/middle"]
    assert await sorted_by("SIZE", "ASC") == ["d/coming", "b/small", "a/middle", "c/large"]
    assert await sorted_by("SIZE", "DESC") == ["c/large", "a/middle", "b/small", "d/coming"]
    assert await sorted_by("INSTALLED_AT", "ASC") == ["d/coming", "b/small", "c/large", "a/middle"]
    assert await sorted_by("INSTALLED_AT", "DESC") == ["a/middle", "c/large", "b/small", "d/coming"]


async def test_search_finds_parts_of_names_and_repositories_and_knows_no_wildcards(api: RunningApi) -> None:
    await world.ready(api.database, "acme/Tiny_Chat", pin=True)
    await world.ready(api.database, "acme/tinyxchat")
    await world.ready(api.database, "mine/other", repo_id="acme/Tiny-Large")

    async def found(search: str, **more: Any) -> list[str]:
        query = "query($filter: WeightSetFilter) { weightSets(filter: $filter) { nodes { name } totalCount } }"
        answer = (await api.data(query, {"filter": {"search": search, **more}}))["weightSets"]
        assert answer["totalCount"] == len(answer["nodes"])
        return names(answer)

    assert sorted(await found("TINY")) == ["acme/Tiny_Chat", "acme/tinyxchat", "mine/other"]
    assert await found("y_c") == ["acme/Tiny_Chat"]
    assert await found("tiny-l") == ["mine/other"]
    assert [await found(wild) for wild in ("%", "a%y", "\\", "'", '"', "' OR 1=1 --", "a" * 200, "é")] == [[]] * 8
    assert len(await found("")) == 3
    assert await found("tiny", pinned=True) == ["acme/Tiny_Chat"]
    assert await found("tiny", states=["INSTALLING"]) == []


async def test_a_search_that_cannot_be_is_invalid(api: RunningApi) -> None:
    query = "query($filter: WeightSetFilter) { weightSets(filter: $filter) { totalCount } }"
    message = "A search is a text of at most 200 printable characters"

    for search in ("\0", "a\u202eb", "x" * 201, "x" * 100_000):
        refusal = await api.refusal(query, {"filter": {"search": search}})

        assert refusal == ("INVALID", ["filter", "search"], message)


async def test_a_set_shows_its_row_and_its_files(api: RunningApi) -> None:
    job = await world.ready(api.database, pin=True)
    fields = """id name repoId commit requestedRevision state sizeBytes fileCount storageUri inferencePath pinned
      installJob { id state } files { nodes { path sizeBytes sha256 format } totalCount }"""

    answer = await api.data(
        f"""query($id: ID!) {{ byId: weightSet(id: $id) {{ {fields} }}
          byName: weightSet(name: "acme/tiny") {{ {fields} }} }}""",
        {"id": set_id("acme/tiny")},
    )

    assert answer["byId"] == answer["byName"]
    assert answer["byId"] == {
        "id": "WeightSet:acme/tiny",
        "name": "acme/tiny",
        "repoId": "acme/tiny",
        "commit": world.COMMIT,
        "requestedRevision": "main",
        "state": "READY",
        "sizeBytes": 1024,
        "fileCount": 2,
        "storageUri": "pvc://weights/acme/tiny",
        "inferencePath": "/mnt/models",
        "pinned": True,
        "installJob": {"id": job_id(job), "state": "SUCCEEDED"},
        "files": {
            "nodes": [
                {"path": "config.json", "sizeBytes": 24, "sha256": None, "format": "CONFIG"},
                {"path": "model.safetensors", "sizeBytes": 1000, "sha256": "a" * 64, "format": "SAFETENSORS"},
            ],
            "totalCount": 2,
        },
    }


async def test_a_set_is_named_by_exactly_one_good_id_or_name(api: RunningApi) -> None:
    for arguments, argument in (
        ("", "id"),
        ('(id: "WeightSet:a", name: "a")', "id"),
        ("(id: null, name: null)", "id"),
        ('(name: "")', "name"),
        ('(name: "../etc")', "name"),
        ('(name: "a\\u0000b")', "name"),
        (f'(id: "{UNKNOWN_JOB}")', "id"),
        ('(id: "WeightSet:")', "id"),
        ('(id: "WeightSet:a/../b")', "id"),
        ('(id: "WeightSet:a\\u0000")', "id"),
    ):
        code, path, _message = await api.refusal(f"{{ weightSet{arguments} {{ id }} }}")

        assert (code, path) == ("INVALID", [argument]), arguments


# ---------------------------------------------------------------- nodes


async def test_node_finds_each_type_and_nothing_under_unknown_keys(api: RunningApi) -> None:
    job = await world.ready(api.database)
    query = "query($id: ID!) { node(id: $id) { __typename id ... on Job { state } ... on WeightSet { name } } }"

    async def node(value: str) -> Any:
        return (await api.data(query, {"id": value}))["node"]

    assert await node(job_id(job)) == {"__typename": "Job", "id": job_id(job), "state": "SUCCEEDED"}
    assert await node("WeightSet:acme/tiny") == {
        "__typename": "WeightSet",
        "id": "WeightSet:acme/tiny",
        "name": "acme/tiny",
    }
    assert [await node(UNKNOWN_JOB), await node("WeightSet:acme/none")] == [None, None]
    assert (await api.data("query($id: ID!) { job(id: $id) { id } }", {"id": UNKNOWN_JOB}))["job"] is None


async def test_what_is_no_id_is_invalid(api: RunningApi) -> None:
    for value in (
        "",
        "x",
        ":",
        "Job:",
        "Job:1",
        "Model:a",
        "job:01930f6e-0000-7000-8000-000000000000",
        "Job:01930F6E-0000-7000-8000-000000000000",
        "Job:{01930f6e-0000-7000-8000-000000000000}",
        "Job:01930f6e00007000800000000000000\u0661",
        "WeightSet:a\0b",
        "WeightSet:" + "x" * 10_000,
        "\u202eJob:x",
        7,
    ):
        code, path, _message = await api.refusal("query($id: ID!) { node(id: $id) { id } }", {"id": value})

        assert (code, path) == ("INVALID", ["id"]), value


# ---------------------------------------------------------------- volume, queue, viewer, server


async def test_the_volume_is_null_until_a_worker_has_reported(api: RunningApi) -> None:
    query = "{ volume { id path capacityBytes usedBytes freeBytes reservedBytes weightsBytes } }"
    before = await api.data(query)
    await world.ready(api.database, "acme/there")
    await world.queued(api.database, "acme/coming")
    await volumes.observe(api.database, path="/weights", capacity_bytes=8_000_000_000_000, free_bytes=5_000_000_000_000)

    after = await api.data(query)

    assert before == {"volume": None}
    assert after["volume"] == {
        "id": "Volume:weights",
        "path": "/weights",
        "capacityBytes": 8_000_000_000_000,
        "usedBytes": 3_000_000_000_000,
        "freeBytes": 5_000_000_000_000,
        "reservedBytes": 25,  # its large file is shared with acme/there
        "weightsBytes": 1024,
    }


async def test_the_queue_counts_jobs_and_lists_workers(api: RunningApi) -> None:
    await world.failed(api.database, "acme/bad")
    await world.running(api.database, "acme/moving")
    waiting = await world.queued(api.database, "acme/waiting")
    await workers.beat(api.database, "host:1:0", host="host", version="1.2", lanes=["tasks"], running_jobs=1)

    found = await api.data(
        "{ queue { id queued running paused failedLastDay oldestQueuedAt"
        " workers { id host version lanes runningJobs } } }"
    )

    oldest = datetime.fromisoformat(found["queue"].pop("oldestQueuedAt"))
    assert abs(oldest - waiting.created_at) < timedelta(milliseconds=1)
    assert found["queue"] == {
        "id": "Queue:jobs",
        "queued": 1,
        "running": 1,
        "paused": 0,
        "failedLastDay": 1,
        "workers": [{"id": "Worker:host:1:0", "host": "host", "version": "1.2", "lanes": ["tasks"], "runningJobs": 1}],
    }


async def test_the_viewer_and_the_server_are_shown(api: RunningApi) -> None:
    found = await api.data(
        "{ viewer { name scope expiresAt } server { version database documentationUrl startedAt"
        " components { name state latencyMilliseconds } } }"
    )

    started_at = datetime.fromisoformat(found["server"].pop("startedAt"))
    parts = {part["name"]: part for part in found["server"].pop("components")}
    assert found == {
        "viewer": {"name": "operate", "scope": "OPERATE", "expiresAt": None},
        "server": {
            "version": VERSION,
            "database": "SQLITE" if api.database.is_sqlite else "POSTGRESQL",
            "documentationUrl": "/graphiql/",
        },
    }
    assert datetime.now(UTC) - started_at < timedelta(minutes=1)
    assert {name: part["state"] for name, part in parts.items()} == {"DATABASE": "OK", "REDIS": "OK", "WORKERS": "DOWN"}
    assert 0 < parts["DATABASE"]["latencyMilliseconds"] < 4000


# ---------------------------------------------------------------- cost


async def test_a_page_of_fifty_jobs_with_their_sets_costs_as_many_statements_as_one_of_one(api: RunningApi) -> None:
    query = """query($first: Int) { jobs(first: $first) {
      nodes { id state weightSet { name installJob { id } } subject { id } } } }"""
    for number in range(50):
        await world.queued(api.database, f"acme/n{number}")

    counts = []
    for first in (1, 50):
        with api.counting() as statements:
            found = await api.data(query, {"first": first})
        assert len({node["weightSet"]["name"] for node in found["jobs"]["nodes"]}) == first
        counts.append(len(statements))

    token, page, sets, install_jobs = 1, 1, 1, 1
    assert counts == [token + page + sets + install_jobs] * 2


async def test_a_total_is_counted_only_when_it_is_selected(api: RunningApi) -> None:
    await world.ready(api.database)

    for field in ("jobs", "weightSets"):
        with api.counting() as without:
            await api.data(f"{{ {field} {{ nodes {{ id }} }} }}")
        with api.counting() as with_total:
            answer = await api.data(f"{{ {field} {{ nodes {{ id }} totalCount }} }}")

        assert answer[field]["totalCount"] == 1
        assert [statement for statement in without if "count(" in statement.lower()] == []
        assert len(with_total) == len(without) + 1


async def test_single_objects_cost_two_statements(api: RunningApi) -> None:
    job = await world.ready(api.database)

    for query in ('{ weightSet(name: "acme/tiny") { id } }', f'{{ job(id: "{job_id(job)}") {{ id }} }}'):
        with api.counting() as statements:
            await api.data(query)

        assert len(statements) == 2


# ---------------------------------------------------------------- cursors that somebody made up


def cursor(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


async def test_cursors_of_other_lists_and_made_up_ones_are_invalid(api: RunningApi) -> None:
    message = "This is not a cursor of this list and order"
    for field, made_up in (
        ("jobs", cursor("jobs")),
        ("jobs", cursor("jobs", "2026-01-01T00:00:00", "01930f6e-0000-7000-8000-000000000000")),
        ("jobs", cursor("jobs", "9999-12-31T23:59:59-23:59", "01930f6e-0000-7000-8000-000000000000")),
        ("jobs", cursor("jobs", "2026-01-01T00:00:00+00:00", 7)),
        ("jobs", cursor("sets:NAME:False", "a")),
        ("weightSets", cursor("sets:NAME:True", "a")),
        ("weightSets", cursor("sets:SIZE:False", 1, "a")),
        ("weightSets", cursor("sets:NAME:False", "a\0")),
        ("weightSets", cursor("sets:NAME:False", 2**70)),
        ("weightSets", cursor("sets:NAME:False", None)),
    ):
        query = f"query($after: String) {{ {field}(after: $after) {{ nodes {{ id }} }} }}"

        assert await api.refusal(query, {"after": made_up}) == ("INVALID", ["after"], message), made_up


async def test_made_up_cursors_of_files_and_logs_do_no_harm(api: RunningApi) -> None:
    job = await world.queued(api.database)

    async def after(field: str, number: Any) -> tuple[int | None, list[str]]:
        selection = f"{field}(after: $after) {{ nodes {{ __typename }} }}"
        query = f"query($id: ID!, $after: String) {{ job(id: $id) {{ {selection} }} }}"
        made_up = cursor(f"{field}:{job.id}", number)
        _, body = await api.execute(query, {"id": job_id(job), "after": made_up})
        connection = body["data"]["job"][field]
        codes = [error["extensions"]["code"] for error in body.get("errors", [])]
        return len(connection["nodes"]) if connection is not None else None, codes

    for field, count in (("files", 2), ("log", 1)):
        assert [await after(field, number) for number in (2**31, 2**40, 2**63 - 1)] == [(0, [])] * 3
        assert [await after(field, number) for number in (-1, -(2**40), -(2**63))] == [(count, [])] * 3
        assert [await after(field, number) for number in (2**63, 1.5, True, "1", None)] == [(None, ["INVALID"])] * 5
