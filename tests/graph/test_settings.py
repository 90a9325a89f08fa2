"""Settings that change while the server runs: read by all, changed by ADMIN, told by the journal."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert

from core.settings import Settings
from core.token import Scope
from db.engine import Database
from db.tables import Setting
from db.types import db_now
from tests.graph.api import RunningApi, make_tokens, serving, settings_for
from tests.servers.valkey import ValkeyServer

FIELDS = """
id concurrentInstalls rangesPerInstall downloadBytesPerSecond volumeAlertPercent locked
downloadWindows { from to weekdays timeZone } retention { jobDays logDays eventDays }
"""
READ = f"{{ settings {{ {FIELDS} }} }}"
UPDATE = f"""
mutation ($input: UpdateSettingsInput!) {{
  done: updateSettings(input: $input) {{ settings {{ {FIELDS} }} userErrors {{ code message path }} }}
}}
"""
DEFAULTS = {
    "id": "Settings:server",
    "concurrentInstalls": 3,
    "rangesPerInstall": 8,
    "downloadBytesPerSecond": None,
    "volumeAlertPercent": 85,
    "locked": False,
    "downloadWindows": [],
    "retention": {"jobDays": 30, "logDays": 14, "eventDays": 365},
}
NIGHT = {"from": "22:00", "to": "06:00", "weekdays": ["FRIDAY", "MONDAY"], "timeZone": "Europe/Berlin"}


async def read(api: RunningApi) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(READ, token=api.tokens[Scope.READ]))["settings"]
    return found


async def update(api: RunningApi, **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(UPDATE, {"input": given}, api.tokens[Scope.ADMIN]))["done"]
    return found


async def changes(api: RunningApi) -> list[tuple[str, Any]]:
    query = '{ events(filter: {types: ["settings.changed"]}) { nodes { actor data } } }'
    nodes = (await api.data(query))["events"]["nodes"]
    return [(node["actor"], node["data"]) for node in reversed(nodes)]


async def faults(api: RunningApi, **given: Any) -> list[tuple[str, list[str]]]:
    payload = await update(api, **given)
    assert payload["settings"] is None
    return [(error["code"], error["path"]) for error in payload["userErrors"]]


async def test_what_nobody_has_changed_has_its_default(api: RunningApi) -> None:
    assert await read(api) == DEFAULTS
    assert (await update(api))["settings"] == DEFAULTS
    assert await changes(api) == []


async def test_a_change_holds_leaves_the_rest_alone_and_is_told_with_the_old_and_the_new_value(
    api: RunningApi,
) -> None:
    changed = await update(api, concurrentInstalls=5, downloadWindows=[NIGHT], retention={"jobDays": 7})

    expected = DEFAULTS | {
        "concurrentInstalls": 5,
        "downloadWindows": [NIGHT | {"weekdays": ["MONDAY", "FRIDAY"]}],
        "retention": {"jobDays": 7, "logDays": 14, "eventDays": 365},
    }
    assert changed == {"settings": expected, "userErrors": []}
    assert await read(api) == expected
    assert await changes(api) == [
        ("admin", {"name": "concurrentInstalls", "old": 3, "new": 5}),
        ("admin", {"name": "downloadWindows", "old": [], "new": expected["downloadWindows"]}),
        ("admin", {"name": "retention.jobDays", "old": 30, "new": 7}),
    ]


async def test_null_goes_back_to_the_default_of_one_setting_or_of_a_group(api: RunningApi) -> None:
    await update(
        api,
        downloadBytesPerSecond=1 << 40,
        downloadWindows=[NIGHT],
        volumeAlertPercent=70,
        retention={"jobDays": 1, "logDays": 1, "eventDays": 1},
    )

    await update(api, downloadBytesPerSecond=None, downloadWindows=None, retention={"logDays": None})
    half = await read(api)
    await update(api, volumeAlertPercent=None, retention=None)

    assert half == DEFAULTS | {"volumeAlertPercent": 70, "retention": {"jobDays": 1, "logDays": 14, "eventDays": 1}}
    assert await read(api) == DEFAULTS
    assert (await changes(api))[-1] == ("admin", {"name": "retention.eventDays", "old": 1, "new": 365})


async def test_a_value_that_is_there_already_is_no_event(api: RunningApi) -> None:
    await update(api, concurrentInstalls=5)
    await update(api, concurrentInstalls=5)
    await update(api, volumeAlertPercent=85)

    assert len(await changes(api)) == 1


async def test_each_bad_value_is_told_with_its_path_and_nothing_is_changed(api: RunningApi) -> None:
    bad_window = {"from": "24:00", "to": "6:00", "timeZone": "Europe/Nowhere"}

    found = await faults(
        api,
        concurrentInstalls=0,
        rangesPerInstall=65,
        downloadBytesPerSecond=65_535,
        downloadWindows=[NIGHT, bad_window],
        volumeAlertPercent=101,
        retention={"jobDays": -1, "logDays": 3651, "eventDays": 20},
    )

    assert found == [
        ("INVALID", ["input", "concurrentInstalls"]),
        ("INVALID", ["input", "rangesPerInstall"]),
        ("INVALID", ["input", "downloadBytesPerSecond"]),
        ("INVALID", ["input", "downloadWindows", "1", "from"]),
        ("INVALID", ["input", "downloadWindows", "1", "to"]),
        ("INVALID", ["input", "downloadWindows", "1", "timeZone"]),
        ("INVALID", ["input", "volumeAlertPercent"]),
        ("INVALID", ["input", "retention", "jobDays"]),
        ("INVALID", ["input", "retention", "logDays"]),
    ]
    assert await read(api) == DEFAULTS
    assert await changes(api) == []


@pytest.mark.parametrize(
    "time_zone",
    [
        "",
        "utc ",
        "America",
        "../etc/passwd",
        "/etc/localtime",
        "Europe/../UTC",
        "UTC\x00",
        "a" * 5000,
        "Ünicode",
        "posixrules/x",
    ],
    ids=lambda name: ascii(name[:16]),
)
async def test_what_is_no_time_zone_is_refused(api: RunningApi, time_zone: str) -> None:
    found = await faults(api, downloadWindows=[NIGHT | {"timeZone": time_zone}])

    assert found == [("INVALID", ["input", "downloadWindows", "0", "timeZone"])]


async def test_there_may_be_fourteen_windows(api: RunningApi) -> None:
    fourteen = await update(api, downloadWindows=[NIGHT] * 14)

    assert len(fourteen["settings"]["downloadWindows"]) == 14
    assert await faults(api, downloadWindows=[NIGHT] * 15) == [("INVALID", ["input", "downloadWindows"])]
    assert len((await read(api))["downloadWindows"]) == 14


async def test_no_more_than_ten_faults_are_told(api: RunningApi) -> None:
    assert len(await faults(api, downloadWindows=[{"from": "x", "to": "x"}] * 14)) == 10


async def test_changes_at_the_same_time_are_told_as_they_came(api: RunningApi) -> None:
    await asyncio.gather(*(update(api, concurrentInstalls=number) for number in range(10, 20)))

    steps = [(data["old"], data["new"]) for _, data in await changes(api)]
    assert len(steps) == 10
    assert steps[0][0] == 3
    assert [old for old, _ in steps[1:]] == [new for _, new in steps[:-1]]
    assert (await read(api))["concurrentInstalls"] == steps[-1][1]


@pytest.mark.parametrize("scope", [Scope.READ, Scope.OPERATE])
async def test_a_lesser_token_changes_nothing(api: RunningApi, scope: Scope) -> None:
    _, body = await api.execute(UPDATE, {"input": {"concurrentInstalls": 5}}, api.tokens[scope])

    assert body["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await read(api) == DEFAULTS


async def test_a_stored_value_that_is_no_good_counts_as_none(api: RunningApi) -> None:
    async with api.database.write() as session:
        for name, value in (("concurrentInstalls", 1000), ("downloadWindows", "always"), ("retired", {})):
            row = {"name": name, "value": value, "changed_by": "anna", "changed_at": db_now()}
            await session.execute(insert(Setting).values(**row))
        await session.commit()

    assert await read(api) == DEFAULTS


async def test_the_environment_moves_the_defaults_and_may_lock_what_there_is(
    database_url: str, database: Database, valkey: ValkeyServer
) -> None:
    secrets = await make_tokens(database)
    given = settings_for(database_url, valkey.url).model_dump() | {
        "concurrent_installs": 5,
        "ranges_per_install": 2,
        "download_bytes_per_second": 100_000,
        "lock_settings": True,
    }
    async with serving(Settings(**given), secrets=secrets) as api:
        refused = await update(api, concurrentInstalls=9)

        assert refused["settings"] is None
        assert [(error["code"], error["path"]) for error in refused["userErrors"]] == [("POLICY_DENIED", [])]
        assert "MODEL_MANAGER_LOCK_SETTINGS" in refused["userErrors"][0]["message"]
        assert await read(api) == DEFAULTS | {
            "concurrentInstalls": 5,
            "rangesPerInstall": 2,
            "downloadBytesPerSecond": 100_000,
            "locked": True,
        }
        assert await changes(api) == []
