"""operations/clips.py: what is asked of the library for a clip, by whose right, and how the clip is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from grant_helpers import nothing
from operations_helpers import NOW, Bench, make_recording

from edged.access.grants import Grant
from edged.clock import iso_exact
from edged.errors import NotFound
from edged.library.clips import Clip
from edged.library.recording_index import Measured


class Clips:
    """Makes a clip of ten seconds, of which two are missing; or fails. Notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.problem: Exception | None = None
        self.meanwhile: Any = lambda: None
        self.kept = 0

    async def create(self, camera: str, begin: float, end: float, *, grant: Grant, **values: Any) -> Clip:
        self.asked.append((camera, begin, end, values))
        self.meanwhile()
        if self.problem is not None:
            raise self.problem
        await grant(nothing)
        self.kept += 1
        record = make_recording(0, filename="visit.mp4", format="mp4")
        gap = (NOW - 50, NOW - 48)
        return Clip(Measured(record, 4000, 8.0, (), (gap,)), NOW - 55, NOW - 45, (gap,))


class Box:
    """A bench with such clips."""

    def __init__(self) -> None:
        self.clips = Clips()
        self.bench = Bench(clips=self.clips)

    async def create(self, who: Any, **params: Any) -> Any:
        given = {"device": "camera0", "start": NOW - 56, "end": NOW - 44, **params}
        return msgspec.to_builtins(await self.bench.ask(who, "create_clip", **given))


async def test_a_clip_says_what_it_has_and_what_is_missing_of_it() -> None:
    """To the millisecond; its duration is that of the video."""
    box = Box()
    operator = box.bench.caller("operator")
    reply = await box.create(operator, device="gate", filename="visit")
    assert box.clips.asked == [
        ("camera0", NOW - 56, NOW - 44, {"filename": "visit", "made_by": operator.subject})
    ]  # fmt: skip
    assert reply == {
        "success": True, "device": "camera0", "recording_id": "rec_0", "filename": "visit.mp4", "status": "STOPPED",
        "start_time": iso_exact(NOW - 55), "end_time": iso_exact(NOW - 45), "duration": 8.0, "source_size": 4000,
        "format": "mp4", "download_url": "/files/recordings/visit.mp4",
        "missing": [{"start_time": iso_exact(NOW - 50), "end_time": iso_exact(NOW - 48)}],
    }  # fmt: skip


async def test_times_may_be_texts_with_a_zone_or_seconds_also_as_text() -> None:
    box = Box()
    operator = box.bench.caller("operator")
    for start, end in (
        ("2027-01-15T07:59:00Z", "2027-01-15T08:59:16.500+01:00"), (str(NOW - 60), NOW - 43.5),
        (NOW - 60, "1799999956.5"),
    ):  # fmt: skip
        await box.create(operator, start=start, end=end)
    assert {each[1:3] for each in box.clips.asked} == {(NOW - 60, NOW - 43.5)}


@pytest.mark.parametrize(
    "params",
    [
        {"start": "then"}, {"end": "2027-01-15T08:00:00"}, {"start": -1}, {"end": 1e300}, {"end": None}, {"start": []},
        {"filename": 7},
    ],
)  # fmt: skip
async def test_params_that_are_none_ask_for_nothing(params: dict[str, Any]) -> None:
    box = Box()
    given = {"device": "camera0", "start": 1, "end": 2, **params}
    assert await box.bench.outcome(box.bench.caller("operator"), "create_clip", **given) == "invalid_params"
    assert box.clips.asked == []


async def test_only_whoever_may_use_a_camera_cuts_from_its_recordings() -> None:
    box = Box()
    given = {"device": "camera0", "start": 1, "end": 2}
    assert await box.bench.outcome(box.bench.caller(), "create_clip", **given) == "missing_scope"
    narrow = box.bench.caller("operator", camera_access=("camera1",))
    assert await box.bench.outcome(narrow, "create_clip", **given) == "camera_not_found"
    assert box.clips.asked == []


@pytest.mark.parametrize("change", ["narrow", "revoke"])
async def test_whoever_loses_the_right_before_the_commit_keeps_nothing(change: str) -> None:
    box = Box()
    caller = box.bench.caller("operator")
    box.clips.meanwhile = lambda: (
        box.bench.narrow(caller, "camera1") if change == "narrow" else box.bench.revoke(caller)
    )
    given = {"device": "camera0", "start": 1, "end": 2}
    outcome = await box.bench.outcome(caller, "create_clip", **given)
    assert outcome == ("camera_denied" if change == "narrow" else "revoked")
    assert box.clips.kept == 0


async def test_what_the_library_says_goes_to_the_caller() -> None:
    box = Box()
    box.clips.problem = NotFound("nothing is recorded of camera0", hint="list_recordings shows what there is")
    with pytest.raises(NotFound, match="list_recordings shows what there is"):
        await box.create(box.bench.caller("operator"))
