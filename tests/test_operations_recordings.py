"""operations/recordings.py: whose recordings a caller may see and change, and how they are shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from operations_helpers import NOW, Bench, KeptRecordings, make_recording

from edged.clock import iso
from edged.errors import InvalidParams
from edged.library.active_recordings import ActiveRecording
from edged.library.recording_index import Summary
from edged.library.recordings import LONGEST_SECONDS
from edged.operations.recordings import StartRecordingParams, read_length, show

UNITS = {"duration": 1.0, "duration_seconds": 1.0, "duration_minutes": 60.0, "duration_hours": 3600.0}


class Box:
    """A bench with two recordings of camera0, and one of camera1 between them."""

    def __init__(self) -> None:
        self.recordings = KeptRecordings(
            make_recording(0), make_recording(1, "camera1", filename="yard.mp4"), make_recording(2)
        )
        self.bench = Bench(recordings=self.recordings)

    async def ask(self, who: Any, operation: str, /, **params: Any) -> Any:
        return msgspec.to_builtins(await self.bench.ask(who, operation, **params))


@given(st.sampled_from(sorted(UNITS)), st.floats(0.001, 1e9))
def test_a_length_is_seconds_whatever_its_unit_and_no_longer_than_a_recording_may_be(unit: str, value: float) -> None:
    given: dict[str, Any] = {unit: value}
    params = StartRecordingParams("camera0", **given)
    seconds = value * UNITS[unit]
    if seconds > LONGEST_SECONDS:
        with pytest.raises(InvalidParams, match="longer than"):
            read_length(params)
    else:
        assert read_length(params) == seconds


def test_no_length_is_until_it_is_stopped_and_two_are_an_error() -> None:
    """Also where both say the same."""
    assert read_length(StartRecordingParams("camera0")) is None
    with pytest.raises(InvalidParams, match="more than once"):
        read_length(StartRecordingParams("camera0", duration=60, duration_minutes=1))


@pytest.mark.parametrize("params", [{"duration": 0}, {"duration": -1}, {"format": "avi"}, {"duration_hours": "1"}])
async def test_a_start_that_cannot_be_begins_nothing(params: dict[str, Any]) -> None:
    box = Box()
    operator = box.bench.caller("operator")
    assert await box.bench.outcome(operator, "start_recording", device="camera0", **params) == "invalid_params"
    assert box.recordings.done == []


async def test_a_start_says_by_whom_and_for_how_long() -> None:
    """Number and ISO 8601, as the clients of both guides read them."""
    box = Box()
    operator = box.bench.caller("operator")
    reply = await box.ask(operator, "start_recording", device="gate", duration_minutes=2, filename="a", format="mkv")
    assert box.recordings.done == [
        ("start", "camera0", {"filename": "a", "form": "mkv", "seconds": 120.0, "made_by": operator.subject})
    ]
    assert (reply["device"], reply["status"], reply["duration"]) == ("camera0", "STARTING", 120.0)
    assert reply["start_time"] == iso(NOW - 60)
    assert reply["recording"] == {
        "device_path": "camera0", "recording_id": "rec_0", "filename": "gate-0.mp4", "start_time": NOW - 60,
        "status": "active", "duration": 120.0,
    }  # fmt: skip
    endless = await box.ask(operator, "start_recording", device="camera1")
    assert "duration" not in endless
    assert "pre_roll" not in endless


async def test_the_state_of_a_camera_is_its_running_recording_or_nothing() -> None:
    box = Box()
    viewer = box.bench.caller()
    assert await box.ask(viewer, "get_recording_status", device="camera0") is None
    record = make_recording(0, ended=None)
    for status, shown, duration in (("STARTING", "STARTING", 0.0), ("RECORDING", "active", 60.0)):
        box.recordings.active = {"camera0": ActiveRecording(record, NOW, status=status)}  # type: ignore[arg-type]
        assert await box.ask(viewer, "get_recording_status", device="camera0") == {
            "recording_id": "rec_0", "filename": "gate-0.mp4", "start_time": NOW - 60, "duration": duration,
            "status": shown,
        }  # fmt: skip
    # The clock was set back meanwhile: there are no negative seconds.
    box.bench.time = NOW - 3600
    assert (await box.ask(viewer, "get_recording_status", device="camera0"))["duration"] == 0.0


async def test_pages_name_each_recording_that_may_be_seen_once_and_count_no_other() -> None:
    box = Box()
    for values, names in (
        ({}, ["gate-0.mp4", "yard.mp4", "gate-2.mp4"]),
        ({"camera_access": ("camera0",)}, ["gate-0.mp4", "gate-2.mp4"]),
        ({"permissions": ("camera:read:camera1",)}, ["yard.mp4"]),
    ):
        caller = box.bench.caller(**values)  # type: ignore[arg-type]
        page = await box.ask(caller, "list_recordings", limit=1)
        found, total = [each["filename"] for each in page["files"]], page["total"]
        while "next_cursor" in page:
            page = await box.ask(caller, "list_recordings", limit=1, cursor=page["next_cursor"])
            found += [each["filename"] for each in page["files"]]
        assert (found, total) == (names, len(names))
    offset = await box.ask(box.bench.caller(), "list_recordings", limit=1, offset=1)
    assert [each["filename"] for each in offset["files"]] == ["yard.mp4"]


async def test_a_camera_that_is_lost_while_a_list_is_read_is_not_in_it() -> None:
    box = Box()
    caller = box.bench.caller()
    # First the cameras that have recordings are read, then the page.
    steps = iter([lambda: None, lambda: box.bench.narrow(caller, "camera1")])
    box.recordings.meanwhile = lambda: next(steps)()
    assert [each["filename"] for each in (await box.ask(caller, "list_recordings"))["files"]] == ["yard.mp4"]


async def test_a_camera_that_is_lost_while_its_recording_is_summed_up_is_not_shown() -> None:
    box = Box()
    caller = box.bench.caller()
    steps = iter([lambda: None, lambda: box.bench.narrow(caller, "camera1")])
    box.recordings.meanwhile = lambda: next(steps)()
    assert await box.bench.outcome(caller, "get_recording_info", filename="gate-0") == "not_found"


CHANGES = ["delete_recording", "protect_recording", "unprotect_recording"]


@pytest.mark.parametrize("operation", ["get_recording_info", *CHANGES])
async def test_a_recording_of_a_camera_that_may_not_be_seen_is_not_found(operation: str) -> None:
    """Whoever may see it and not change it is told which right is missing instead."""
    box = Box()
    for caller in (box.bench.caller("admin", camera_access=("camera1",)), box.bench.caller("admin")):
        name = "gate-0" if caller.cameras else "absent"
        assert await box.bench.outcome(caller, operation, filename=name) == "not_found"
    seeing = await box.bench.outcome(box.bench.caller(), operation, filename="gate-0")
    assert seeing == ("ok" if operation == "get_recording_info" else "missing_scope")
    blind = box.bench.caller("admin", permissions=("camera:delete", "camera:write", "camera:read:camera1"))
    assert await box.bench.outcome(blind, operation, filename="gate-0") == "not_found"
    assert box.recordings.done == []


@pytest.mark.parametrize("operation", CHANGES)
async def test_whoever_loses_the_camera_before_the_commit_changes_nothing(operation: str) -> None:
    box = Box()
    caller = box.bench.caller("admin")
    original = box.bench.registrar.granting

    def granting(authority: Any) -> Any:
        box.bench.narrow(caller, "camera1")
        return original(authority)

    box.bench.registrar.granting = granting
    assert await box.bench.outcome(caller, operation, filename="gate-0") == "camera_denied"
    assert box.recordings.done == []


async def test_protection_and_deletion_say_what_became_of_which_file() -> None:
    box = Box()
    admin = box.bench.caller("admin")
    for operation, protected in (("protect_recording", True), ("unprotect_recording", False)):
        reply = await box.ask(admin, operation, filename="gate-0")
        assert (reply["filename"], reply["protected"]) == ("gate-0.mp4", protected)
    gone = await box.ask(admin, "delete_recording", filename="gate-0.mp4")
    assert gone == {"filename": "gate-0.mp4", "deleted": True, "message": "gate-0.mp4 was deleted"}
    assert box.recordings.done == [
        ("protect", "gate-0.mp4", True), ("protect", "gate-0.mp4", False), ("delete", "gate-0.mp4", "request"),
    ]  # fmt: skip


def test_a_recording_is_shown_whatever_there_is_of_it() -> None:
    """With files, without any, while it runs, with a pre-roll; its last change never lies before its begin."""
    record = make_recording(0)
    shown = show(Summary(record, 10, 5.0, 2, 1, record.began + 30))
    assert (shown.modified_time, shown.gaps, shown.status) == (iso(record.began + 30), 1, "STOPPED")
    assert shown.download_url == "/files/recordings/gate-0.mp4"
    assert show(Summary(record, 0, 0.0, 0, 0, 0.0)).modified_time == iso(NOW)
    running = show(Summary(replace(record, ended=None, pre_roll=5.0), 0, 0.0, 0, 0, 0.0))
    assert (running.status, running.modified_time, running.pre_roll) == ("RECORDING", iso(record.began), 5.0)
    assert show(Summary(record, 10, 5.0, 2, 1, record.began - 30)).modified_time == iso(record.began)
    assert "pre_roll" not in msgspec.to_builtins(shown)


async def test_a_stop_says_what_there_is_of_the_recording() -> None:
    box = Box()
    reply = await box.ask(box.bench.caller("operator"), "stop_recording", device="/dev/video0")
    assert (reply["device"], reply["status"], reply["duration"], reply["file_size"]) == (
        "camera0",
        "STOPPED",
        59.5,
        1000,
    )
    assert (reply["start_time"], reply["end_time"]) == (iso(NOW - 60), iso(NOW))
    assert await box.bench.outcome(box.bench.caller(), "stop_recording", device="camera0") == "missing_scope"
