"""When downloads may run: windows by the clock on the wall of a time zone. Pure.

A window that ends at or before its beginning reaches into the next day; it belongs to the weekday on which it begins.
Where the clock goes forward, what lies in the gap does not happen; where it goes back, the hour counts twice.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from zoneinfo import ZoneInfo

CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}")


class Weekday(StrEnum):
    """A day of the week; in the order of `datetime.weekday`."""

    MONDAY = "MONDAY"
    TUESDAY = "TUESDAY"
    WEDNESDAY = "WEDNESDAY"
    THURSDAY = "THURSDAY"
    FRIDAY = "FRIDAY"
    SATURDAY = "SATURDAY"
    SUNDAY = "SUNDAY"


DAYS = tuple(Weekday)


@dataclass(frozen=True, kw_only=True)
class DownloadWindow:
    """A part of the day in which downloads may run.

    begins, ends: on the wall clock; the same twice is a whole day. weekdays: on which it begins; () means every day.
    time_zone: an IANA name.
    """

    begins: time
    ends: time
    weekdays: tuple[Weekday, ...] = ()
    time_zone: str = "UTC"


def is_open(windows: Iterable[DownloadWindow], now: datetime) -> bool:
    """Tell whether downloads may run at an instant: always where there are no windows."""
    known = tuple(windows)
    return not known or any(_contains(window, now) for window in known)


def _contains(window: DownloadWindow, now: datetime) -> bool:
    """Tell whether an instant lies in a window."""
    local = now.astimezone(ZoneInfo(window.time_zone))
    clock, today, yesterday = local.time(), DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if window.begins < window.ends:
        return window.begins <= clock < window.ends and _is_on(window, today)
    return (clock >= window.begins and _is_on(window, today)) or (clock < window.ends and _is_on(window, yesterday))


def _is_on(window: DownloadWindow, day: Weekday) -> bool:
    """Tell whether a window begins on a day of the week."""
    return not window.weekdays or day in window.weekdays


def is_clock(value: object) -> bool:
    """Tell whether a value is a time of day as HH:MM."""
    return isinstance(value, str) and CLOCK.fullmatch(value) is not None


def is_time_zone(value: object) -> bool:
    """Tell whether a value names a time zone that is known here."""
    if not isinstance(value, str) or not ZONE_NAME.fullmatch(value):
        return False
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):  # A directory, a file of another kind, or nothing at all.
        return False
    return True
