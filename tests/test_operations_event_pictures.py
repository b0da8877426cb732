"""operations/event_pictures.py: an event is found by its id and camera, and its picture only while it is still that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from operations_helpers import NOW, Bench
from web_helpers import JPEG

from edged.errors import NotFound
from edged.library.pre_rolls import Claim
from edged.library.snapshots import Snapshots
from edged.operations.event_pictures import fetch_held, find_event
from edged.store.events import EventRow

EVENT = "event_0123456789abcdef"


class Box:
    """A bench with real pictures, and a ring of the events that a test puts, all of camera0."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[EventRow] = []
        self.snapshots = Snapshots(folder)
        self.claims: list[Claim] = []
        self.bench = Bench(
            snapshots=self.snapshots, events=SimpleNamespace(find=self._find),
            recordings=SimpleNamespace(fetch_held=self._fetch_held),
        )  # fmt: skip

    async def _find(self, camera: str, text: str) -> list[EventRow]:
        await trio.lowlevel.checkpoint()
        return [row for row in self.rows if row.camera == camera and text in row.details]

    async def _fetch_held(self, claim: Claim) -> None:
        await trio.lowlevel.checkpoint()
        self.claims.append(claim)

    def put(self, kind: str, **details: Any) -> None:
        number = len(self.rows)
        text = msgspec.json.encode({"event_id": EVENT, **details}).decode()
        self.rows.append(EventRow(number, NOW + number, kind, "camera0", text))

    async def keep(self, name: str, camera: str = "camera0", data: bytes = JPEG) -> Path:
        saved = await self.snapshots.save(name, camera, data, "jpg", NOW)
        self.put("snapshot.taken", filename=saved.filename, file_size=saved.size)
        return saved.path

    async def find(self, camera: str = "camera0", event_id: str = EVENT) -> Any:
        return await find_event(self.bench.services, camera, event_id)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    made.put("motion", text="at the gate")
    return made


async def test_an_event_without_a_picture_has_its_time(box: Box) -> None:
    assert await box.find() == (NOW, None)


async def test_the_newest_picture_that_was_kept_of_an_event_is_its_picture(box: Box) -> None:
    """As another call may have kept one out of a recording; one that was deleted is passed over."""
    first, second = await box.keep("one"), await box.keep("two")
    assert await box.find() == (NOW, second)
    second.unlink()
    assert await box.find() == (NOW, first)
    first.unlink()
    assert await box.find() == (NOW, None)


async def test_a_name_that_is_another_picture_s_by_now_is_not_the_event_s(box: Box) -> None:
    """Of another size, or of another camera."""
    path = await box.keep("one")
    path.write_bytes(JPEG + b"more")
    assert (await box.find()).kept is None
    path.unlink()
    (path.parent.parent / "camera1").mkdir()
    (path.parent.parent / "camera1" / path.name).write_bytes(JPEG)
    assert (await box.find()).kept is None


@pytest.mark.parametrize(
    ("camera", "event_id"), [("camera1", EVENT), ("camera0", "event"), ("camera0", "at the gate"), ("camera0", "%")]
)
async def test_an_event_is_found_by_its_whole_id_and_its_camera_only(box: Box, camera: str, event_id: str) -> None:
    """Never by a part of the id, by what its text says, or by another camera's."""
    await box.keep("one")
    with pytest.raises(NotFound, match="get_events names those that are kept"):
        await box.find(camera, event_id)


async def test_a_picture_alone_is_no_event(tmp_path: Path) -> None:
    """The event itself is not in the ring any more: nobody says when it was."""
    box = Box(tmp_path)
    await box.keep("one")
    with pytest.raises(NotFound):
        await box.find()


async def test_what_only_memory_holds_of_the_time_is_put_on_the_disk(box: Box) -> None:
    """Some of before and behind, since a picture ends after it began."""
    await fetch_held(box.bench.services, "camera0", NOW)
    (claim,) = box.claims
    assert claim.camera == "camera0"
    assert claim.begin < NOW < claim.end
    assert claim.end - claim.begin < 1
