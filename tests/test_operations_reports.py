"""operations/reports.py: an event stands whatever becomes of its recording and its picture, and says what did not."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from operations_helpers import GATE, NOW, YARD, Bench, KeptRecordings, make_recording
from web_helpers import JPEG

from edged.cameras.model import Status
from edged.clock import iso
from edged.errors import DependencyFailed, EdgedError, InvalidParams, InvalidState, StorageFull
from edged.library.snapshots import Snapshots
from edged.operations.reports import LONGEST_TEXT, check_text

AWAY = replace(YARD, name="camera2", path="camera2", status=Status.DISCONNECTED, problem="192.0.2.1 is silent")


class Box:
    """A bench with a ring that notes what is put, and recordings and pictures that may fail."""

    def __init__(self, folder: Path) -> None:
        self.put: list[tuple[str, str, dict[str, Any]]] = []
        self.recordings = KeptRecordings(make_recording(0, ended=None, until=NOW + 20))
        self.snapshots = Snapshots(folder)
        self.picture_fails: EdgedError | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.bench = Bench(
            GATE, YARD, AWAY, recordings=self.recordings, snapshots=self.snapshots,
            events=SimpleNamespace(put=self._put), frames=SimpleNamespace(snapshot=self._take),
        )  # fmt: skip

    def _put(self, kind: str, camera: str, details: dict[str, Any]) -> float:
        self.put.append((kind, camera, details))
        return NOW

    async def _take(self, *_: Any, **__: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        self.meanwhile()
        if self.picture_fails is not None:
            raise self.picture_fails
        return JPEG

    async def report(self, who: Any, **params: Any) -> Any:
        given = {"device": "camera0", "kind": "motion", **params}
        return msgspec.to_builtins(await self.bench.ask(who, "create_event", **given))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "snapshots")


async def test_an_event_names_its_recording_and_its_picture(box: Box) -> None:
    reply = await box.report(box.bench.caller("operator"), kind="dock.open", text="gate 2", record_seconds=20)
    ((kind, camera, details),) = box.put
    assert (kind, camera) == ("dock.open", "camera0")
    assert details == {
        "event_id": reply["event_id"], "text": "gate 2", "recording_id": "rec_0", "filename": "gate-0.mp4",
    }  # fmt: skip
    assert reply["recording"] == {
        "recording_id": "rec_0", "filename": "gate-0.mp4", "until": iso(NOW + 20), "is_new": True,
    }  # fmt: skip
    assert (reply["time"], reply["problems"]) == (iso(NOW), [])
    name = reply["snapshot"]["filename"]
    assert reply["snapshot"] == {
        "filename": name, "file_size": len(JPEG), "download_url": f"/files/snapshots/{name}",
    }  # fmt: skip


async def test_an_event_alone_records_nothing_and_takes_no_picture(box: Box) -> None:
    reply = await box.report(box.bench.caller("operator"), snapshot=False)
    assert (reply["recording"], reply["snapshot"], reply["problems"]) == (None, None, [])
    assert box.put == [("motion", "camera0", {"event_id": reply["event_id"]})]
    assert (box.recordings.done, await box.snapshots.list_page(lambda _: True, limit=9, offset=0)) == ([], ([], 0))


@pytest.mark.parametrize(
    "problem", [StorageFull("the disk is full"), InvalidState("it has just ended"), DependencyFailed("no MediaMTX")]
)
async def test_an_event_stands_though_nothing_could_be_recorded(box: Box, problem: EdgedError) -> None:
    """And its picture is taken all the same; the reason is the contract's word."""

    async def cover(*_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise problem

    box.recordings.cover = cover  # type: ignore[method-assign]
    reply = await box.report(box.bench.caller("operator"), record_seconds=5)
    assert reply["problems"] == [{"part": "recording", "reason": problem.slug, "message": problem.sentence}]
    assert (reply["recording"], reply["snapshot"] is not None, len(box.put)) == (None, True, 1)


async def test_an_event_stands_though_no_picture_could_be_taken(box: Box) -> None:
    box.picture_fails = DependencyFailed("camera0 gives no picture")
    reply = await box.report(box.bench.caller("operator"))
    assert reply["problems"] == [
        {"part": "snapshot", "reason": "dependency_failed", "message": "camera0 gives no picture"}
    ]
    assert (reply["snapshot"], len(box.put)) == (None, 1)


@pytest.mark.parametrize(("change", "reason"), [("revoke", "revoked"), ("narrow", "camera_not_found")])
async def test_whoever_loses_the_right_while_the_picture_is_taken_is_told_in_the_words_of_the_contract(
    box: Box, change: str, reason: str
) -> None:
    """4b: never the exact reason of the gate, and no word that is none there. The event stands."""
    caller = box.bench.caller("operator")
    box.meanwhile = lambda: box.bench.narrow(caller, "camera1") if change == "narrow" else box.bench.revoke(caller)
    reply = await box.report(caller)
    assert [(each["part"], each["reason"]) for each in reply["problems"]] == [("snapshot", reason)]
    assert len(box.put) == 1
    assert (await box.snapshots.list_page(lambda _: True, limit=9, offset=0))[1] == 0


async def test_whoever_loses_the_right_before_it_is_put_reports_nothing(box: Box) -> None:
    """While the recording began, or could not: neither is a reason to take the word of one who was revoked."""
    for fails in (False, True):
        caller = box.bench.caller("operator")

        async def cover(*_: Any, fails: bool = fails, caller: Any = caller, **__: Any) -> Any:
            await trio.lowlevel.checkpoint()
            box.bench.revoke(caller)
            if fails:
                raise StorageFull("the disk is full")
            return box.recordings.records[0], True

        box.recordings.cover = cover  # type: ignore[method-assign]
        params = {"device": "camera0", "kind": "motion", "record_seconds": 5}
        assert await box.bench.outcome(caller, "create_event", **params) == "revoked"
    assert box.put == []


@pytest.mark.parametrize(("role", "cause"), [("operator", "no picture from its source"), ("admin", AWAY.problem)])
async def test_of_a_camera_that_is_away_the_recording_begins_when_it_returns(box: Box, role: str, cause: str) -> None:
    """Why it is away is for administrators."""
    reply = await box.report(box.bench.caller(role), device="camera2", record_seconds=5)
    assert [(each["part"], each["reason"]) for each in reply["problems"]] == [
        ("recording", "dependency_failed"), ("snapshot", "dependency_failed"),
    ]  # fmt: skip
    assert reply["problems"][0]["message"] == f"camera2 is disconnected ({cause}): it is recorded when it returns"
    assert reply["recording"]["is_new"]


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "recording.stop"}, {"kind": "a b"}, {"kind": ""}, {"kind": "x" * 65}, {"text": "x" * 501},
        {"text": "a\nb"}, {"record_seconds": 0}, {"record_seconds": 3601}, {"snapshot": "yes"}, {"device": None},
    ],
)  # fmt: skip
async def test_what_cannot_be_reported_leaves_no_event(box: Box, params: dict[str, Any]) -> None:
    given = {"device": "camera0", "kind": "motion", **params}
    assert await box.bench.outcome(box.bench.caller("operator"), "create_event", **given) == "invalid_params"
    assert (box.put, box.recordings.done) == ([], [])


async def test_only_whoever_may_use_a_camera_reports_on_it(box: Box) -> None:
    given = {"device": "camera0", "kind": "motion"}
    assert await box.bench.outcome(box.bench.caller(), "create_event", **given) == "missing_scope"
    narrow = box.bench.caller("operator", camera_access=("camera1",))
    assert await box.bench.outcome(narrow, "create_event", **given) == "camera_not_found"
    assert box.put == []


ODD = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\n\x00\x7f"


@pytest.mark.parametrize("odd", ODD)
def test_a_text_with_an_unseen_or_turning_character_is_refused(odd: str) -> None:
    """Each that has Unicode's property Bidi_Control, each end of a line, and control characters."""
    with pytest.raises(InvalidParams, match="one line of plain text"):
        check_text(f"a{odd}b")


@given(st.text(max_size=LONGEST_TEXT) | st.text(st.sampled_from(f"{ODD}aé \u200d"), max_size=3))
def test_a_text_is_one_line_that_is_shown_as_it_is(text: str) -> None:
    """No control character, no half of a character, no end of a line, nothing that turns the direction of a text."""
    names = {"LEFT-TO-RIGHT", "RIGHT-TO-LEFT", "POP", "FIRST STRONG", "ARABIC LETTER MARK"}
    is_bad = any(
        unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")
        or (unicodedata.category(each) == "Cf" and unicodedata.name(each, "").startswith(tuple(names)))
        for each in text
    )
    if is_bad:
        with pytest.raises(InvalidParams, match="one line of plain text"):
            check_text(text)
    else:
        assert check_text(text) == text
