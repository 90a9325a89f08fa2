"""The settings that an administrator may change while the server runs: their defaults and what is a good value. Pure.

What was changed is kept in the database as JSON, one row a setting (`db/runtime_settings.py`); the environment may
move three of the defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import time
from enum import StrEnum
from typing import Any

from core.download_windows import DownloadWindow, Weekday, is_clock, is_time_zone
from core.errors import DomainError, ErrorCode, Refusals
from core.settings import MAX_CONCURRENT_INSTALLS, MAX_RANGES_PER_INSTALL, MIN_BYTES_PER_SECOND, Settings

MAX_DOWNLOAD_WINDOWS = 14
MAX_BYTES_PER_SECOND = 2**53 - 1
MAX_DAYS = 3650


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """What holds now.

    concurrent_installs: how many installs run at once.
    ranges_per_install: how many connections an install may use at once.
    download_bytes_per_second: for all installs of one worker process; None means unlimited.
    download_windows: outside of them installs wait; () means always open.
    volume_alert_percent: how full the volume is when it is worth an alert.
    job_days, log_days, event_days: how long ended jobs, their logs, and events are kept.
    """

    concurrent_installs: int = 3
    ranges_per_install: int = 8
    download_bytes_per_second: int | None = None
    download_windows: tuple[DownloadWindow, ...] = ()
    volume_alert_percent: int = 85
    job_days: int = 30
    log_days: int = 14
    event_days: int = 365


class SettingName(StrEnum):
    """What a setting is called in the API, in its row and in the journal; a dot goes into a group."""

    CONCURRENT_INSTALLS = "concurrentInstalls"
    RANGES_PER_INSTALL = "rangesPerInstall"
    DOWNLOAD_BYTES_PER_SECOND = "downloadBytesPerSecond"
    DOWNLOAD_WINDOWS = "downloadWindows"
    VOLUME_ALERT_PERCENT = "volumeAlertPercent"
    JOB_DAYS = "retention.jobDays"
    LOG_DAYS = "retention.logDays"
    EVENT_DAYS = "retention.eventDays"

    @property
    def path(self) -> tuple[str, ...]:
        """Where it stands in the input that changes it."""
        return ("input", *self.value.split("."))

    @property
    def field(self) -> str:
        """What it is called in `RuntimeSettings`."""
        return self.name.lower()


BOUNDS: dict[SettingName, tuple[int, int]] = {
    SettingName.CONCURRENT_INSTALLS: (1, MAX_CONCURRENT_INSTALLS),
    SettingName.RANGES_PER_INSTALL: (1, MAX_RANGES_PER_INSTALL),
    SettingName.DOWNLOAD_BYTES_PER_SECOND: (MIN_BYTES_PER_SECOND, MAX_BYTES_PER_SECOND),
    SettingName.VOLUME_ALERT_PERCENT: (1, 100),
    SettingName.JOB_DAYS: (1, MAX_DAYS),
    SettingName.LOG_DAYS: (1, MAX_DAYS),
    SettingName.EVENT_DAYS: (1, MAX_DAYS),
}
"""The smallest and the largest good value of each setting that is a number."""
assert {name.field for name in SettingName} == {field.name for field in fields(RuntimeSettings)}


def defaults_of(settings: Settings) -> RuntimeSettings:
    """Say what holds while nobody has changed anything."""
    return RuntimeSettings(
        concurrent_installs=settings.concurrent_installs,
        ranges_per_install=settings.ranges_per_install,
        download_bytes_per_second=settings.download_bytes_per_second,
    )


def check(changes: Mapping[SettingName, object]) -> None:
    """Look at new values, as JSON has them; None, which means the default, is always good.

    Raises: Refusals with every fault.
    """
    faults = [fault for name, value in changes.items() if value is not None for fault in _faults(name, value)]
    if faults:
        raise Refusals(faults)


def with_stored(defaults: RuntimeSettings, stored: Mapping[str, object]) -> RuntimeSettings:
    """Lay stored values over the defaults; what is unknown or not good (any more) is left out."""
    good = {
        name.field: _from_json(name, stored[name])
        for name in SettingName
        if name in stored and not _faults(name, stored[name])
    }
    return replace(defaults, **good)


def to_json(settings: RuntimeSettings, name: SettingName) -> Any:
    """Write one setting as its row and the journal have it."""
    value = getattr(settings, name.field)
    return [_window_to_json(window) for window in value] if name is SettingName.DOWNLOAD_WINDOWS else value


def _from_json(name: SettingName, value: Any) -> Any:
    """Read a good value."""
    return tuple(_window_from_json(one) for one in value) if name is SettingName.DOWNLOAD_WINDOWS else value


def _faults(name: SettingName, value: object) -> list[DomainError]:
    """Say what is wrong with a value."""
    if name is SettingName.DOWNLOAD_WINDOWS:
        return _windows_faults(value)
    least, most = BOUNDS[name]
    if type(value) is int and least <= value <= most:
        return []
    return [DomainError(ErrorCode.INVALID, f"`{name.path[-1]}` is {least:,} to {most:,}", path=name.path)]


def _windows_faults(value: object) -> list[DomainError]:
    """Say what is wrong with a list of windows."""
    path = SettingName.DOWNLOAD_WINDOWS.path
    if not isinstance(value, list) or len(value) > MAX_DOWNLOAD_WINDOWS:
        return [DomainError(ErrorCode.INVALID, f"There may be at most {MAX_DOWNLOAD_WINDOWS} windows", path=path)]
    return [fault for number, one in enumerate(value) for fault in _window_faults(one, path=(*path, str(number)))]


def _window_faults(value: object, *, path: tuple[str, ...]) -> list[DomainError]:
    """Say what is wrong with a window."""
    given = value if isinstance(value, dict) else {}
    days = given.get("weekdays")
    good = {
        "from": (is_clock(given.get("from")), "A window begins at a time of day, HH:MM, e.g. 22:00"),
        "to": (is_clock(given.get("to")), "A window ends at a time of day, HH:MM, e.g. 06:00"),
        "weekdays": (
            isinstance(days, list) and all(isinstance(day, str) and day in Weekday.__members__ for day in days),
            "Weekdays are MONDAY to SUNDAY",
        ),
        "timeZone": (is_time_zone(given.get("timeZone")), "A time zone is an IANA name, e.g. Europe/Berlin"),
    }
    return [
        DomainError(ErrorCode.INVALID, sentence, path=(*path, name)) for name, (ok, sentence) in good.items() if not ok
    ]


def _window_from_json(value: Mapping[str, Any]) -> DownloadWindow:
    """Read a good window; a weekday that is named twice counts once."""
    return DownloadWindow(
        begins=time.fromisoformat(value["from"]),
        ends=time.fromisoformat(value["to"]),
        weekdays=tuple(day for day in Weekday if day in value["weekdays"]),
        time_zone=value["timeZone"],
    )


def _window_to_json(window: DownloadWindow) -> dict[str, Any]:
    """Write a window."""
    return {
        "from": f"{window.begins:%H:%M}",
        "to": f"{window.ends:%H:%M}",
        "weekdays": [day.value for day in window.weekdays],
        "timeZone": window.time_zone,
    }
