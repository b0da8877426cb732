"""operations/snapshots.py: a picture is taken, kept, listed and deleted only by whoever may, and what fails is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace
from operations_helpers import GATE, NOW, YARD, Bench
from web_helpers import JPEG

from edged.cameras.model import Status
from edged.clock import iso, iso_exact
from edged.library.snapshots import SnapshotChanged, Snapshots
from edged.mediamtx.causes import PASSWORD, NoPicture


class Box:
    """A bench with real snapshots on disk, and cameras that give the same picture whenever they are asked."""

    def __init__(self, folder: Path) -> None:
        self.snapshots = Snapshots(folder)
        self.problem: Exception | None = None
        #: Called while a picture is being taken.
        self.meanwhile: Callable[[], None] = lambda: None
        self.taken: list[dict[str, Any]] = []
        stills = SimpleNamespace(decode=self._decode)
        clips = SimpleNamespace(find_moment=self._find_moment, read=lambda _moment: None)
        frames = SimpleNamespace(snapshot=self._take)
        self.bench = Bench(
            GATE, YARD, replace(YARD, name="camera2", path="camera2", status=Status.DISCONNECTED),
            frames=frames, snapshots=self.snapshots, stills=stills, clips=clips,
        )  # fmt: skip

    async def _take(self, camera: Any, **values: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        self.taken.append({"camera": camera.name, **values})
        self.meanwhile()
        if self.problem is not None:
            raise self.problem
        return JPEG

    async def _find_moment(self, camera: str, at: float, _within: float) -> Any:
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(key=(camera, at), skip=0.0, at=at - 0.25)

    async def _decode(self, *_: Any, **values: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        self.taken.append(values)
        self.meanwhile()
        return JPEG

    async def ask(self, who: Any, operation: str, /, **params: Any) -> Any:
        return msgspec.to_builtins(await self.bench.ask(who, operation, **params))

    async def names(self, who: Any) -> list[str]:
        return [each["filename"] for each in (await self.ask(who, "list_snapshots"))["files"]]


@pytest.fixture
async def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "snapshots")


async def test_a_picture_is_kept_under_its_name_and_says_where_it_is(box: Box) -> None:
    """In the spelling of both guides: file_size and size_bytes, jpeg and jpg."""
    reply = await box.ask(
        box.bench.caller("operator"), "take_snapshot", device="gate", filename="visit", format="jpeg", quality=70
    )
    assert reply == {
        "success": True, "device": "camera0", "filename": "visit.jpg", "status": "SUCCESS", "timestamp": iso(NOW),
        "file_size": len(JPEG), "size_bytes": len(JPEG), "file_path": "visit.jpg",
        "download_url": "/files/snapshots/visit.jpg",
    }  # fmt: skip
    assert box.taken == [{"camera": "camera0", "format": "jpg", "quality": 70}]
    assert (await box.snapshots.find("visit"))[0].read_bytes() == JPEG


@pytest.mark.parametrize("quality", [0, None])
async def test_a_quality_of_0_is_as_without_it(box: Box, quality: int | None) -> None:
    """Clients in Go send their zero value for what nobody has set."""
    await box.ask(box.bench.caller("operator"), "take_snapshot", device="camera0", quality=quality)
    assert box.taken == [{"camera": "camera0", "format": "jpg", "quality": None}]


@pytest.mark.parametrize("params", [{"quality": -1}, {"quality": 101}, {"format": "gif"}, {"quality": "70"}])
async def test_params_out_of_range_take_no_picture(box: Box, params: dict[str, Any]) -> None:
    operator = box.bench.caller("operator")
    assert await box.bench.outcome(operator, "take_snapshot", device="camera0", **params) == "invalid_params"
    assert await box.bench.outcome(operator, "get_snapshot", device="camera0", at=NOW, **params) == "invalid_params"
    assert box.taken == []


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "x" * 101, "gate.png", "\x00"])
async def test_a_name_that_is_none_is_told_before_a_camera_is_asked(box: Box, name: str) -> None:
    """Also of one that is away; and it is no failure of the camera: nobody is notified."""
    operator = box.bench.caller("operator")
    with box.snapshots.changes.subscribe() as changes:
        for operation, more in (("take_snapshot", {}), ("get_snapshot", {"at": NOW})):
            for device in ("camera0", "camera2"):
                outcome = await box.bench.outcome(operator, operation, device=device, filename=name, **more)
                assert outcome == "invalid_params", (operation, device)
        box.snapshots.fail("camera0", "the end")
        assert await changes.receive() == SnapshotChanged("camera0", problem="the end")
    assert box.taken == []


@pytest.mark.parametrize("role", ["operator", "admin"])
async def test_a_picture_that_could_not_be_taken_is_told_without_its_cause(box: Box, role: str) -> None:
    """Administrators who asked are told the cause; whoever is notified is not, since they may be anybody."""
    box.problem = NoPicture("camera0", PASSWORD)
    with box.snapshots.changes.subscribe() as changes:
        assert await box.bench.outcome(box.bench.caller(role), "take_snapshot", device="camera0") == "dependency_failed"
        told = await changes.receive()
    assert told == SnapshotChanged("camera0", problem="no picture from its source")
    with box.snapshots.changes.subscribe() as changes:
        assert await box.bench.outcome(box.bench.caller(role), "take_snapshot", device="camera2") == "dependency_failed"
        assert await changes.receive() == SnapshotChanged("camera2", problem="no picture from its source")


@pytest.mark.parametrize("operation", ["take_snapshot", "get_snapshot"])
@pytest.mark.parametrize("change", ["narrow", "revoke"])
async def test_whoever_loses_the_right_while_a_picture_is_taken_keeps_none(
    box: Box, operation: str, change: str
) -> None:
    caller = box.bench.caller("operator")
    box.meanwhile = lambda: box.bench.narrow(caller, "camera1") if change == "narrow" else box.bench.revoke(caller)
    params = {"at": NOW} if operation == "get_snapshot" else {}
    reason = "camera_denied" if change == "narrow" else "revoked"
    assert await box.bench.outcome(caller, operation, device="camera0", **params) == reason
    assert len(box.taken) == 1
    assert await box.names(box.bench.caller()) == []


async def test_a_picture_out_of_a_recording_has_its_own_time_in_name_and_reply(box: Box) -> None:
    """Not the time at which it was asked for."""
    operator = box.bench.caller("operator")
    reply = await box.ask(operator, "get_snapshot", device="camera0", at=NOW - 100, format="png")
    assert reply["timestamp"] == iso_exact(NOW - 100.25)
    assert reply["filename"] == "camera0_2027-01-15_07-58-19.png"
    for at in ("then", "", "2027-01-15T07:58:20", -1, 1e300):
        assert await box.bench.outcome(operator, "get_snapshot", device="camera0", at=at) == "invalid_params", at


async def fill(box: Box) -> None:
    for count, (name, camera) in enumerate((("gate", "camera0"), ("yard", "camera1"), ("gone", "camera7"))):
        saved = await box.snapshots.save(f"{name}.jpg", camera, JPEG, "jpg", NOW)
        os.utime(saved.path, (NOW - count, NOW - count))


async def test_pictures_are_listed_newest_first_for_those_who_may_see_their_camera(box: Box) -> None:
    """Also of a camera that is gone; in pages."""
    await fill(box)
    assert await box.names(box.bench.caller()) == ["gate.jpg", "yard.jpg", "gone.jpg"]
    narrow = box.bench.caller(camera_access=("camera1", "camera7"))
    page = await box.ask(narrow, "list_snapshots", limit=1)
    assert ([each["filename"] for each in page["files"]], page["total"]) == (["yard.jpg"], 2)
    page = await box.ask(narrow, "list_snapshots", limit=1, cursor=page["next_cursor"])
    assert [each["filename"] for each in page["files"]] == ["gone.jpg"]
    assert "next_cursor" not in page
    assert await box.bench.outcome(box.bench.caller("monitor"), "list_snapshots") == "missing_scope"


async def test_a_camera_that_is_lost_while_pictures_are_read_shows_none(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(box)
    caller = box.bench.caller()
    for name in ("list_page", "describe"):
        original = getattr(box.snapshots, name)

        async def read(*args: Any, original: Any = original, **values: Any) -> Any:
            found = await original(*args, **values)
            box.bench.narrow(caller, "camera1")
            return found

        monkeypatch.setattr(box.snapshots, name, read)
    assert await box.names(caller) == ["yard.jpg"]
    other = caller = box.bench.caller()
    assert await box.bench.outcome(other, "get_snapshot_info", filename="gate") == "not_found"


async def test_a_picture_of_a_camera_that_may_not_be_seen_is_neither_shown_nor_deleted(box: Box) -> None:
    await fill(box)
    narrow = box.bench.caller("admin", camera_access=("camera1",))
    for operation in ("get_snapshot_info", "delete_snapshot"):
        assert await box.bench.outcome(narrow, operation, filename="gate") == "not_found"
        assert await box.bench.outcome(narrow, operation, filename="../gate.jpg") == "invalid_params"
    assert await box.bench.outcome(box.bench.caller("operator"), "delete_snapshot", filename="gate") == "missing_scope"
    info = await box.ask(narrow, "get_snapshot_info", filename="yard")
    assert (info["device"], info["format"], info["file_size"], info["resolution"]) == (
        "camera1", "jpg", len(JPEG), "unknown",
    )  # fmt: skip
    assert (await box.ask(narrow, "delete_snapshot", filename="yard"))["message"] == "yard.jpg was deleted"
    assert await box.names(box.bench.caller()) == ["gate.jpg", "gone.jpg"]
