"""operations/evidence.py: pages of what proves a recording, of closed files only, to whoever may see its camera."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from operations_helpers import NOW, Bench, KeptRecordings, make_recording
from seal_helpers import SealingBox, sealing_box

from edged.cli.verification import verify
from edged.credentials.seal_signatures import read, split, thumbprint_of
from edged.credentials.seals import KeyArchive
from edged.library import seal_evidence
from edged.library.recording_files import OPEN
from edged.library.recording_index import Measured
from edged.library.sealing import NoKey
from edged.operations.evidence import MOST, segment_url
from edged.operations.pages import write_cursor
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow


class Recordings(KeptRecordings):
    """One recording of camera0, of segments that are sealed by real keys, and a file that is being written."""

    def __init__(self, box: SealingBox) -> None:
        super().__init__(make_recording(0))
        self.box = box
        self.index = box.index
        self.rows: list[SegmentRow] = []

    async def measure(self, record: RecordingRecord) -> Measured:
        await self.read()
        growing = SegmentRow(f"{OPEN}/camera0/x/9.mp4", "camera0", NOW, 1.0, 1)
        return Measured(record, 1, 1.0, (*self.rows, growing))


class Box:
    """A bench with such a recording of five segments."""

    def __init__(self, sealed: SealingBox) -> None:
        self.sealed = sealed
        self.recordings = Recordings(sealed)
        self.bench = Bench(recordings=self.recordings)

    async def fetch(self, who: Any, **params: Any) -> Any:
        given = {"filename": "gate-0", **params}
        return msgspec.to_builtins(await self.bench.ask(who, "get_recording_evidence", **given))


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with sealing_box(tmp_path / "box") as sealed:
        made = Box(sealed)
        made.recordings.rows = await sealed.record(5)
        yield made


async def test_pages_are_all_closed_segments_once_and_verify_together(box: Box, tmp_path: Path) -> None:
    """What is being written has no seal yet, and is in none."""
    viewer = box.bench.caller()
    for limit in (1, 2, 5):
        folder, files, cursor = tmp_path / f"by-{limit}", list[str](), None
        folder.mkdir()
        statements = b""
        while True:
            page = await box.fetch(viewer, limit=limit, **({"cursor": cursor} if cursor else {}))
            assert (page["filename"], page["device"]) == ("gate-0.mp4", "camera0")
            assert len(page["segments"]) <= limit
            for each in page["segments"]:
                files.append(each["file"])
                assert each["download_url"] == segment_url(each["file"])
                target = folder / each["file"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((box.sealed.root / each["file"]).read_bytes())
                target.with_name(f"{target.name}.seal").write_text(each["seal"])
            statements += page["statements"].encode()
            if (cursor := page.get("next_cursor")) is None:
                break
        (folder / "camera0.statements").write_bytes(statements)
        (folder / "keys.statements").write_text(page["keys"])
        assert files == [row.file for row in box.recordings.rows]
        public = box.sealed.keyring.current("ES256").public
        verdict = verify([folder], known=frozenset({thumbprint_of(public["x"], public["y"])}))
        assert (verdict.problems, verdict.proven, verdict.segments) == ([], True, 5)


async def test_behind_the_last_segment_is_an_empty_page_with_the_keys(box: Box) -> None:
    """As of a recording of which nothing is closed yet."""
    viewer = box.bench.caller()
    last = box.recordings.rows[-1]
    page = await box.fetch(viewer, cursor=write_cursor("get_recording_evidence", (last.began, last.file)))
    assert (page["segments"], page["statements"], "next_cursor" in page) == ([], "", False)
    (archive,) = [read(text).statement for text in split(page["keys"].encode())]
    assert isinstance(archive, KeyArchive)
    box.recordings.rows = []
    assert (await box.fetch(viewer))["segments"] == []


async def test_a_page_that_is_none_is_an_error(box: Box) -> None:
    bad: list[dict[str, Any]] = [
        {"limit": 0}, {"limit": MOST + 1}, {"cursor": "x"}, {"cursor": write_cursor("list_recordings", (1, "x"))},
    ]  # fmt: skip
    for params in bad:
        given = {"filename": "gate-0", **params}
        outcome = await box.bench.outcome(box.bench.caller(), "get_recording_evidence", **given)
        assert outcome == "invalid_params", params


async def test_evidence_is_for_whoever_may_see_the_camera_also_when_it_has_been_gathered(box: Box) -> None:
    """To wait for seals may take seconds."""
    narrow = box.bench.caller(camera_access=("camera1",))
    assert await box.bench.outcome(narrow, "get_recording_evidence", filename="gate-0") == "not_found"
    monitor = box.bench.caller("monitor")
    assert await box.bench.outcome(monitor, "get_recording_evidence", filename="gate-0") == "missing_scope"
    for end, outcome in (("narrow", "not_found"), ("revoke", "not_found")):
        caller = box.bench.caller()
        steps = iter(range(9))

        def lose(caller: Any = caller, end: str = end, steps: Any = steps) -> None:
            # The first look finds it, the second measures it; the third is the one before the reply.
            if next(steps) == 1:
                box.bench.narrow(caller, "camera1") if end == "narrow" else box.bench.revoke(caller)

        box.recordings.meanwhile = lose
        assert await box.bench.outcome(caller, "get_recording_evidence", filename="gate-0") == outcome


async def test_a_box_without_a_key_that_seals_says_how_to_make_one(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_sealing: object) -> bytes:
        await trio.lowlevel.checkpoint()
        raise NoKey("no key seals")

    monkeypatch.setattr(seal_evidence, "make_archive", fail)
    outcome = await box.bench.outcome(box.bench.caller(), "get_recording_evidence", filename="gate-0")
    assert outcome == "dependency_failed"
    with pytest.raises(Exception, match="edged signing-key create ES256"):
        await box.fetch(box.bench.caller())
