"""config/schedules.py and library/recorded_hours.py: windows of the day, also on the days when clocks are changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.cameras import CameraSettings
from edged.config.schedules import is_inside, read_windows
from edged.library.recorded_hours import local_minute

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
#: Days in whose course clocks are put forward or back, in one of these zones.
CHANGES = ("2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-10-04", "2026-04-05")
MINUTES = st.integers(0, 24 * 60 - 1)


@contextmanager
def zone(name: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def write(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(st.sampled_from(ZONES), st.sampled_from(CHANGES), MINUTES, MINUTES)
def test_a_camera_is_recorded_exactly_while_a_wall_clock_shows_the_window(
    name: str, day: str, begin: int, end: int
) -> None:
    """For each minute of three days around a change, by the time zone database."""
    if begin == end:
        end = (begin + 1) % (24 * 60)
    windows = read_windows([f"{write(begin)}-{write(end)}"])
    first = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1)
    with zone(name):
        for minute in range(0, 3 * 24 * 60, 7):
            at = first + timedelta(minutes=minute)
            shown = f"{at.astimezone(ZoneInfo(name)):%H:%M}"
            a, b = write(begin), write(end)
            expected = a <= shown < b if a < b else shown >= a or shown < b
            assert is_inside(windows, local_minute(at.timestamp())) is expected, (at, shown)


def length(name: str, day: str, window: str) -> int:
    """Minutes that a window is recorded on a day."""
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(name)).timestamp()
    windows = read_windows([window])
    with zone(name):
        times = (begin + 60 * minute for minute in range(26 * 60))
        return sum(
            is_inside(windows, local_minute(at)) and time.strftime("%Y-%m-%d", time.localtime(at)) == day
            for at in times
        )


@pytest.mark.parametrize(
    ("window", "forward", "back"),
    [("01:00-04:00", 120, 240), ("02:10-02:40", 0, 60), ("02:30-03:30", 30, 90), ("08:00-18:00", 600, 600)],
)
def test_a_missing_hour_is_not_recorded_and_one_that_comes_twice_is_recorded_twice(
    window: str, forward: int, back: int
) -> None:
    assert length("Europe/Berlin", "2026-03-29", window) == forward
    assert length("Europe/Berlin", "2026-10-25", window) == back


@pytest.mark.parametrize(
    "text", ["8:00-9:00", "08:00", "24:00-06:00", "08:60-09:00", "08:00-08:00", "00:00-24:00", "", "a" * 99]
)
def test_what_is_no_window_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="schedule has"):
        read_windows([text])


def test_a_schedule_belongs_to_a_camera_that_has_one() -> None:
    with pytest.raises(ValueError, match="needs a schedule"):
        CameraSettings(name="a", source="test", record="schedule")
    with pytest.raises(ValueError, match="more than 8"):
        CameraSettings(name="a", source="test", schedule=("08:00-09:00",) * 9)
    camera = CameraSettings(name="a", source="test", record="schedule", schedule=("22:00-06:00", "12:00-24:00"))
    assert camera.windows == ((1320, 360), (720, 1440))
    assert CameraSettings(name="a", source="test", schedule=("22:00-06:00",)).windows == ()
