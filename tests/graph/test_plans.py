"""installPlan: what an install would do, and what the Hub says to it."""

from typing import Any

import pytest

from db import volumes
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.repos import noise
from tests.graph import world
from tests.graph.api import RunningApi

FILES = {
    "README.md": b"# Tiny\n",
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": noise(30_000, seed=1),
    "pytorch_model.bin": noise(40_000, seed=2),
}
PLAN = """query($input: InstallPlanInput!, $first: Int, $after: String) { installPlan(input: $input) {
  access { outcome message url }
  plan {
    hash commit fileCount downloadBytes reuseBytes availableBytes fitsOnVolume risks { code message }
    files(first: $first, after: $after) {
      nodes { path sizeBytes action } totalCount pageInfo { hasNextPage hasPreviousPage endCursor }
    }
  }
  userErrors { code path message }
} }"""


@pytest.fixture
def hub_endpoint(hub: FakeHub) -> str:
    return hub.url


async def plan(api: RunningApi, repo_id: str = "acme/tiny", **more: Any) -> dict[str, Any]:
    page = {name: more.pop(name) for name in ("first", "after") if name in more}
    found: dict[str, Any] = (await api.data(PLAN, {"input": {"repoId": repo_id, **more}, **page}))["installPlan"]
    return found


async def test_a_plan_tells_commit_files_and_sizes_and_makes_nothing(api: RunningApi, hub: FakeHub) -> None:
    commit = hub.add_repository("acme/tiny", FILES)

    answer = await plan(api)

    assert answer["access"] == {"outcome": "OK", "message": "acme/tiny can be downloaded", "url": None}
    assert answer["userErrors"] == []
    files = answer["plan"].pop("files")
    assert len(answer["plan"].pop("hash")) == 32
    assert answer["plan"] == {
        "commit": commit,
        "fileCount": 3,
        "downloadBytes": 30_031,
        "reuseBytes": 0,
        "availableBytes": None,
        "fitsOnVolume": None,
        "risks": [],
    }
    assert [(file["path"], file["sizeBytes"], file["action"]) for file in files["nodes"]] == [
        ("README.md", 7, "DOWNLOAD"),
        ("config.json", 24, "DOWNLOAD"),
        ("model.safetensors", 30_000, "DOWNLOAD"),
        ("pytorch_model.bin", 40_000, "SKIP"),
    ]
    assert files["totalCount"] == 4
    assert await api.data("{ jobs { totalCount } weightSets { totalCount } }") == {
        "jobs": {"totalCount": 0},
        "weightSets": {"totalCount": 0},
    }


async def test_patterns_and_revision_choose_what_is_planned(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/tiny", FILES, branches={"dev/next": {"config.json": b"{}"}}, tags={"v1": "main"})

    main = await plan(api)
    tag = await plan(api, revision="v1")
    branch = await plan(api, revision="dev/next", include=["*.json", "*.bin"], exclude=["nothing*"])
    nothing = await plan(api, include=["*.gguf"])

    assert tag["plan"]["hash"] == main["plan"]["hash"]
    assert branch["plan"]["commit"] != main["plan"]["commit"]
    assert branch["plan"]["downloadBytes"] == 40_002
    assert [risk["code"] for risk in branch["plan"]["risks"]] == ["PICKLE"]
    assert branch["plan"]["risks"][0]["message"] == "pytorch_model.bin is a pickle file: loading it can run code"
    assert (nothing["plan"]["fileCount"], nothing["plan"]["downloadBytes"]) == (0, 0)


async def test_files_that_are_there_are_reused(api: RunningApi, hub: FakeHub) -> None:
    commit = hub.add_repository("acme/tiny", FILES)
    first = await plan(api, name="there/tiny")
    await world.ready_from_hub(api.database, hub, "acme/tiny", name="there/tiny")

    again = await plan(api, name="there/tiny")
    elsewhere = await plan(api, name="elsewhere/tiny")

    assert (again["plan"]["commit"], again["plan"]["hash"]) == (commit, first["plan"]["hash"])
    assert (again["plan"]["downloadBytes"], again["plan"]["reuseBytes"]) == (0, 30_031)
    assert [file["action"] for file in again["plan"]["files"]["nodes"]] == ["REUSE", "REUSE", "REUSE", "SKIP"]
    assert (elsewhere["plan"]["downloadBytes"], elsewhere["plan"]["reuseBytes"]) == (31, 30_000)
    assert elsewhere["plan"]["hash"] != first["plan"]["hash"]


async def test_a_plan_tells_whether_there_is_room_beside_what_is_accepted(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/tiny", FILES)
    rooms = []
    for free_bytes in (31_533, 31_532):
        await volumes.observe(api.database, path="/w", capacity_bytes=1_000_000, free_bytes=free_bytes)
        answer = await plan(api)
        rooms.append((answer["plan"]["availableBytes"], answer["plan"]["fitsOnVolume"]))
    await world.queued(api.database, "acme/other")

    beside = await plan(api)

    assert rooms == [(31_533, True), (31_532, False)]
    assert (beside["plan"]["availableBytes"], beside["plan"]["fitsOnVolume"]) == (31_532 - 1075, False)


async def test_files_of_a_plan_come_in_pages(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/many", {f"{number:02}.json": b"{}" for number in range(60)})
    hub.add_repository("acme/tiny", FILES)

    default = await plan(api, "acme/many")
    paths: list[str] = []
    after = None
    while True:
        page = (await plan(api, "acme/many", first=25, after=after))["plan"]["files"]
        assert page["pageInfo"]["hasPreviousPage"] == (after is not None)
        paths += [file["path"] for file in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert paths == [f"{number:02}.json" for number in range(60)]
    assert (len(default["plan"]["files"]["nodes"]), default["plan"]["files"]["totalCount"]) == (25, 60)
    for bad in ({"first": 0}, {"first": 101}, {"after": "x"}, {"after": after}):
        code, _path, _message = await api.refusal(PLAN, {"input": {"repoId": "acme/tiny"}, **bad})
        assert code == "INVALID"


async def test_a_gated_repository_is_told_with_the_page_to_open(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/gated", FILES, gated="auto")

    answer = await plan(api, "acme/gated")

    assert answer["plan"] is None
    assert answer["userErrors"] == []
    assert answer["access"]["outcome"] == "TOKEN_MISSING"
    assert answer["access"]["url"] == f"{hub.url}/acme/gated"
    assert answer["access"]["message"].startswith("acme/gated is gated: it needs a token.")


async def test_an_unknown_repository_and_an_unknown_revision_are_not_found(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/tiny", FILES)

    repository, revision = await plan(api, "acme/none"), await plan(api, revision="no-such-branch")

    assert [answer["access"]["outcome"] for answer in (repository, revision)] == ["NOT_FOUND", "NOT_FOUND"]
    assert [answer["plan"] for answer in (repository, revision)] == [None, None]
    assert "acme/none" in repository["access"]["message"]
    assert "no-such-branch" in revision["access"]["message"]


async def test_a_hub_that_is_away_or_out_of_order_is_unreachable(api: RunningApi, hub: FakeHub) -> None:
    hub.add_repository("acme/tiny", FILES)
    fault = hub.faults.add(Fault.API_DOWN)
    out_of_order = await plan(api)
    hub.faults.remove(fault)
    hub.stop()

    away = await plan(api)

    assert [answer["access"]["outcome"] for answer in (out_of_order, away)] == ["HUB_UNREACHABLE"] * 2
    assert [answer["plan"] for answer in (out_of_order, away)] == [None, None]
    assert away["access"]["message"].endswith("It is tried again by itself.")


async def test_bad_input_is_refused_before_the_hub_is_asked(api: RunningApi, hub: FakeHub) -> None:
    bad_name = await plan(api, name="../x")

    assert bad_name["plan"] is None
    assert bad_name["access"] is None
    assert [(error["code"], error["path"]) for error in bad_name["userErrors"]] == [("INVALID", ["input", "name"])]
    assert hub.requests == []
