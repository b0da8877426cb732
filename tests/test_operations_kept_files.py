"""operations/kept_files.py: which file a name means to a caller, and nobody is told more than they may know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from operations_helpers import NOW, Bench
from web_helpers import JPEG

from edged.credentials.callers import Caller
from edged.errors import InvalidParams, NotFound
from edged.library.recording_names import no_recording
from edged.library.snapshots import Snapshots
from edged.operations.kept_files import find_recording, find_segment, find_snapshot
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

SEGMENT = "camera0/2027-01-15/1800000000-000000.mp4"


class Recordings:
    """One recording of camera0 and its segment; `joining` runs while its segments are joined."""

    def __init__(self, folder: Path) -> None:
        self.record = RecordingRecord(
            recording_id="rec_1", filename="gate.mp4", camera="camera0", format="fmp4", began=NOW - 60, ended=NOW
        )
        self.joining: Callable[[], None] = lambda: None
        self.folder = folder
        self.index = SimpleNamespace(find=self._find_segment, files=SimpleNamespace(find=lambda file: folder / file))

    async def find(self, name: str) -> RecordingRecord:
        await trio.lowlevel.checkpoint()
        if name not in ("gate", "gate.mp4"):
            raise no_recording(name)
        return self.record

    async def find_file(self, record: RecordingRecord) -> Path:
        await trio.lowlevel.checkpoint()
        self.joining()
        return self.folder / record.filename

    async def _find_segment(self, file: str) -> SegmentRow | None:
        await trio.lowlevel.checkpoint()
        return SegmentRow(SEGMENT, "camera0", NOW - 60, 60.0, 1) if file == SEGMENT else None


class Box:
    """A bench with kept files."""

    def __init__(self, folder: Path) -> None:
        self.recordings = Recordings(folder)
        self.snapshots = Snapshots(folder / "snapshots")
        self.bench = Bench(recordings=self.recordings, snapshots=self.snapshots)

    async def find(self, kind: str, caller: Caller, name: str) -> Any:
        find: Any = {"recording": find_recording, "segment": find_segment, "snapshot": find_snapshot}[kind]
        return await find(self.bench.services, caller, name)


@pytest.fixture
async def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    await made.snapshots.save("gate.jpg", "camera0", JPEG, "jpg", NOW)
    return made


NAMES = [("recording", "gate"), ("recording", "gate.mp4"), ("segment", SEGMENT), ("snapshot", "gate.jpg")]


@pytest.mark.parametrize(("kind", "name"), NAMES)
async def test_a_file_is_found_with_its_place_and_its_camera(box: Box, tmp_path: Path, kind: str, name: str) -> None:
    kept = await box.find(kind, box.bench.caller(), name)
    assert kept.camera == "camera0"
    assert kept.path.is_relative_to(tmp_path)
    assert kept.name == ("gate.mp4" if kind == "recording" else kept.path.name)


@pytest.mark.parametrize(("kind", "name"), NAMES)
async def test_a_file_that_may_not_be_seen_is_not_told_from_one_that_is_not_there(
    box: Box, kind: str, name: str
) -> None:
    """Word for word."""
    told = []
    for caller, asked in (
        (box.bench.caller(camera_access=("camera1",)), name),
        (box.bench.caller("monitor"), name),
        (box.bench.caller(), "absent"),
    ):
        with pytest.raises(NotFound) as caught:
            await box.find(kind, caller, asked)
        told.append(str(caught.value).replace(repr(asked), "NAME"))
    assert len(set(told)) == 1


async def test_a_camera_that_is_lost_while_its_recording_is_joined_is_not_handed_out(box: Box) -> None:
    """To join may take minutes."""
    caller = box.bench.caller()
    box.recordings.joining = lambda: box.bench.narrow(caller, "camera1")
    with pytest.raises(NotFound):
        await box.find("recording", caller, "gate")
    box.recordings.joining = lambda: None
    other = box.bench.caller(camera_access=("camera0",))
    assert (await box.find("recording", other, "gate")).name == "gate.mp4"


async def test_of_two_pictures_that_a_name_may_mean_the_newest_that_may_be_seen_is_meant(box: Box) -> None:
    """One of a camera that may not be seen neither comes nor hides the other."""
    await box.snapshots.save("visit.jpg", "camera0", JPEG, "jpg", NOW)
    await box.snapshots.save("visit.png", "camera1", JPEG, "png", NOW + 60)
    assert (await box.find("snapshot", box.bench.caller(), "visit")).camera == "camera1"
    narrow = box.bench.caller(camera_access=("camera0",))
    assert (await box.find("snapshot", narrow, "visit")).name == "visit.jpg"


@pytest.mark.parametrize("name", ["../gate.jpg", "", ".gate", "a/b", "x" * 200, "gate.jpg\n", "\x00"])
async def test_what_is_no_plain_name_is_none_of_a_picture(box: Box, name: str) -> None:
    with pytest.raises(InvalidParams):
        await box.find("snapshot", box.bench.caller(), name)
