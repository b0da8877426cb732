"""operations/timeline.py: which times are asked for, cursors that are none, and whose recordings are shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import NOW, Bench, KeptRecordings, make_recording

from edged.clock import iso_exact
from edged.errors import InvalidParams
from edged.library.spans import Interval
from edged.operations.pages import write_cursor
from edged.operations.timeline import GetTimelineParams, _read_place, _read_times
from edged.store.events import EventRow, Wanted

DAY = 86400.0
LAST = 253402300799.0


class Box:
    """A bench: camera0 was recorded for a minute until NOW, camera7 is gone; each has an event a second long ago."""

    def __init__(self) -> None:
        recordings: Any = KeptRecordings(make_recording(0), make_recording(1, "camera7"))
        self.recordings = recordings
        self.recordings.index = SimpleNamespace(list_begins=self._list_begins, list_spans=self._list_spans)
        self.recordings.list_between = self._list_between
        self.bench = Bench(recordings=self.recordings, events=SimpleNamespace(list_between=self._list_events))
        self.asked: list[tuple[float, float]] = []

    async def _list_begins(self, _camera: str) -> list[float]:
        await self.recordings.read()
        return []

    async def _list_spans(self, _camera: str, begin: float, end: float, _most: int) -> tuple[list[Interval], float]:
        self.asked.append((begin, end))
        await trio.lowlevel.checkpoint()
        return [(NOW - 60, NOW - 30), (NOW - 20, NOW)], end

    async def _list_between(self, camera: str, _begin: float, _end: float) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [each for each in self.recordings.records if each.camera == camera]

    async def _list_events(self, wanted: Wanted, *_: Any) -> list[EventRow]:
        await trio.lowlevel.checkpoint()
        return [EventRow(1, NOW - 10, "motion", wanted.cameras[0], '{"text": "x"}')]

    async def ask(self, who: Any, **params: Any) -> Any:
        return msgspec.json.decode(msgspec.json.encode(await self.bench.ask(who, "get_timeline", **params)))


async def test_spans_gaps_and_events_are_shown_to_the_millisecond() -> None:
    box = Box()
    page = await box.ask(box.bench.caller(), device="gate")
    assert (page["device"], page["start"], page["end"]) == ("camera0", iso_exact(NOW - DAY), iso_exact(NOW))
    assert page["spans"] == [
        {"start": iso_exact(NOW - 60), "end": iso_exact(NOW - 30)},
        {"start": iso_exact(NOW - 20), "end": iso_exact(NOW)},
    ]  # fmt: skip
    assert page["gaps"] == [{"start": iso_exact(NOW - 30), "end": iso_exact(NOW - 20)}]
    assert page["events"] == [{"time": iso_exact(NOW - 10), "kind": "motion", "details": {"text": "x"}}]
    assert "next_cursor" not in page


TIMES = st.none() | st.floats(0, 4e9) | st.sampled_from([NOW - DAY, NOW, NOW + DAY])


@given(start=TIMES, end=TIMES)
def test_the_times_are_those_that_were_given_or_a_day_before_and_until_now(
    start: float | None, end: float | None
) -> None:
    """Never a begin before 1970, or in the future, and no end before its begin."""
    params = GetTimelineParams("camera0", start, end)
    try:
        begin, until = _read_times(params, NOW)
    except InvalidParams:
        first = start if start is not None else (NOW if end is None else end) - DAY
        assert first >= NOW or (start is not None and end is not None and end <= start)
        return
    assert 0 <= begin <= until
    assert begin < NOW
    assert begin == (start if start is not None else max(0.0, until - DAY))
    assert until == (NOW if end is None else end)


@pytest.mark.parametrize(
    "params",
    [
        {"start": "then"}, {"start": "2027-01-15T00:00:00"}, {"end": -1}, {"end": LAST + 1}, {"start": NOW},
        {"start": NOW, "end": NOW}, {"start": NOW, "end": NOW - 1}, {"limit": 0}, {"limit": 1001}, {"cursor": "x"},
        {"start": "nan"}, {"start": True},
    ],
)  # fmt: skip
async def test_a_time_that_is_none_is_an_error_and_nothing_is_read(params: dict[str, Any]) -> None:
    box = Box()
    assert await box.bench.outcome(box.bench.caller(), "get_timeline", device="camera0", **params) == "invalid_params"
    assert box.asked == []


@given(st.floats(0, NOW, exclude_max=True), st.integers(-1, 2**53))
def test_a_cursor_is_the_place_that_it_was_made_of(at: float, number: int) -> None:
    call = Bench().call(None, "get_timeline")
    assert _read_place(call, write_cursor("get_timeline", (at, str(number))), NOW) == (at, number)


@pytest.mark.parametrize(
    ("at", "number"),
    [
        (NOW, "1"), (NOW + 1, "1"), (-1.0, "1"), (1.0, ""), (1.0, "x"), (1.0, "--1"), (1.0, "9" * 17), (1.0, "1.5"),
        (1.0, "²"), (1.0, "٣"), (1.0, " 1"), (1.0, "-"),
    ],
)  # fmt: skip
def test_a_cursor_of_another_timeline_says_what_to_give(at: float, number: str) -> None:
    call = Bench().call(None, "get_timeline")
    with pytest.raises(InvalidParams, match="give the same end, and the next_cursor before it"):
        _read_place(call, write_cursor("get_timeline", (at, number)), NOW)
    with pytest.raises(InvalidParams, match="cursor is none of this list"):
        _read_place(call, write_cursor("get_events", (1.0, "1")), NOW)


@pytest.mark.parametrize(
    ("device", "access", "outcome"),
    [
        ("camera7", None, "ok"),
        ("camera7", ("camera7",), "ok"),
        ("camera7", ("camera0",), "camera_not_found"),
        ("camera0", ("camera7",), "camera_not_found"),
        ("camera9", None, "camera_not_found"),
        ("camera9", ("camera9",), "camera_not_found"),
    ],
)
async def test_a_camera_that_is_gone_is_shown_while_there_are_recordings_of_it(
    device: str, access: tuple[str, ...] | None, outcome: str
) -> None:
    box = Box()
    assert await box.bench.outcome(box.bench.caller(camera_access=access), "get_timeline", device=device) == outcome
    assert bool(box.asked) == (outcome == "ok")


@pytest.mark.parametrize("device", ["camera0", "camera7"])
async def test_a_camera_that_is_lost_while_its_timeline_is_read_is_not_shown(device: str) -> None:
    box = Box()
    caller = box.bench.caller()
    box.recordings.meanwhile = lambda: box.bench.narrow(caller, "camera1") if box.asked else None

    async def read(*_: Any) -> list[Any]:
        await box.recordings.read()
        return []

    box.recordings.list_between = read
    assert await box.bench.outcome(caller, "get_timeline", device=device) == "camera_denied"
