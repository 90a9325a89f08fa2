"""Download windows: open by the clock on the wall, over midnight and where the clock is moved."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core.download_windows import DAYS, DownloadWindow, Weekday, is_open, is_time_zone

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
CLOCKS = some.times().map(lambda clock: clock.replace(second=0, microsecond=0))
NEAR_CHANGES = some.sampled_from(
    [
        datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin goes forward
        datetime(2026, 10, 25, 1, tzinfo=UTC),  # Berlin goes back
        datetime(2026, 3, 8, 7, tzinfo=UTC),  # New York goes forward
        datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York goes back
        datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe goes back by half an hour
        datetime(2011, 12, 30, 10, tzinfo=UTC),  # Apia leaves a whole day out
    ]
).flatmap(lambda at: some.integers(-200_000, 200_000).map(lambda seconds: at + timedelta(seconds=seconds)))
ANY_TIME = some.integers(946_684_800, 2_524_608_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
INSTANTS = some.one_of(NEAR_CHANGES, ANY_TIME)
WINDOWS = some.builds(
    DownloadWindow,
    begins=CLOCKS,
    ends=CLOCKS,
    weekdays=some.lists(some.sampled_from(DAYS), unique=True).map(tuple),
    time_zone=some.sampled_from(ZONES),
)


def minutes(clock: time) -> int:
    return clock.hour * 60 + clock.minute


def open_minutes(window: DownloadWindow) -> set[int]:
    """The minutes of a week's wall clock, Monday first, at which a window is open: written out one by one."""
    length = (minutes(window.ends) - minutes(window.begins) - 1) % 1440 + 1
    days = [number for number, day in enumerate(DAYS) if not window.weekdays or day in window.weekdays]
    return {(day * 1440 + minutes(window.begins) + number) % 10_080 for day in days for number in range(length)}


def minute_of_week(now: datetime, time_zone: str) -> int:
    local = now.astimezone(ZoneInfo(time_zone))
    return local.weekday() * 1440 + local.hour * 60 + local.minute


@given(window=WINDOWS, now=INSTANTS)
def test_a_window_is_open_at_just_the_minutes_that_it_covers(window: DownloadWindow, now: datetime) -> None:
    assert is_open([window], now) == (minute_of_week(now, window.time_zone) in open_minutes(window))


@given(begins=CLOCKS, ends=CLOCKS, time_zone=some.sampled_from(ZONES), now=INSTANTS)
def test_of_a_window_and_its_complement_one_is_open(begins: time, ends: time, time_zone: str, now: datetime) -> None:
    if begins == ends:
        return
    window = DownloadWindow(begins=begins, ends=ends, time_zone=time_zone)
    other = DownloadWindow(begins=ends, ends=begins, time_zone=time_zone)

    assert is_open([window], now) != is_open([other], now)
    assert is_open([window, other], now)


@given(windows=some.lists(WINDOWS, max_size=4), now=INSTANTS)
def test_several_windows_are_open_when_one_is_and_none_means_always(
    windows: list[DownloadWindow], now: datetime
) -> None:
    assert is_open(windows, now) == (not windows or any(is_open([window], now) for window in windows))


@given(clock=CLOCKS, time_zone=some.sampled_from(ZONES), now=INSTANTS)
def test_a_window_that_ends_where_it_begins_is_a_whole_day(clock: time, time_zone: str, now: datetime) -> None:
    assert is_open([DownloadWindow(begins=clock, ends=clock, time_zone=time_zone)], now)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-27T22:00:00+01:00", True),  # a Friday
        ("2026-11-27T21:59:59+01:00", False),
        ("2026-11-28T05:59:59+01:00", True),
        ("2026-11-28T06:00:00+01:00", False),
        ("2026-11-28T22:00:00+01:00", False),
        ("2026-11-27T05:00:00+01:00", False),
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(at: str, expected: bool) -> None:
    night = DownloadWindow(begins=time(22), ends=time(6), weekdays=(Weekday.FRIDAY,), time_zone="Europe/Berlin")

    assert is_open([night], datetime.fromisoformat(at)) is expected


def test_the_hour_that_comes_twice_is_open_twice_and_the_one_that_is_left_out_never() -> None:
    window = DownloadWindow(begins=time(2), ends=time(3), time_zone="Europe/Berlin")

    def open_minutes_of(day: datetime) -> int:
        return sum(is_open([window], day + timedelta(minutes=number)) for number in range(1440))

    assert open_minutes_of(datetime(2026, 10, 24, 22, tzinfo=UTC)) == 120
    assert open_minutes_of(datetime(2026, 3, 28, 23, tzinfo=UTC)) == 0
    assert open_minutes_of(datetime(2026, 6, 1, 22, tzinfo=UTC)) == 60


@pytest.mark.parametrize(
    ("name", "expected"), [("UTC", True), ("Asia/Kolkata", True), ("Etc/GMT+5", True), (None, False)]
)
def test_time_zones_are_known_by_their_names(name: object, expected: bool) -> None:
    assert is_time_zone(name) is expected
