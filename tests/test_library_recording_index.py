"""library/recording_index.py: the index is made what the folder holds, a page at a time."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from fmp4_helpers import make_segment

from edged.library import recording_index as module
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.store import segments
from edged.store.database import Database
from edged.store.migrations import USAGE
from edged.store.segments import SegmentRow

BEGAN = 1_796_000_000


def make_file(root: Path, camera: str, day: str, second: int) -> str:
    file = f"{camera}/{day}/{BEGAN + second}-000000.mp4"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(make_segment(at_ns=(BEGAN + second) * 10**9))
    return file


@pytest.mark.parametrize("seed", range(8))
async def test_unknown_files_are_added_and_rows_without_a_file_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever of both there is, and wherever a page of the index ends."""
    chosen = random.Random(seed)
    monkeypatch.setattr(module, "_PAGE", chosen.randint(1, 5))
    monkeypatch.setattr(module, "BATCH", chosen.randint(1, 3))
    root = tmp_path / "recordings"
    names = [
        (camera, day, second)
        for camera in ("camera0", "camera1", "camera10", "camera2")
        for day in ("2026-11-29", "2026-11-30")
        for second in (0, 60, 900)
    ]
    on_disk = {make_file(root, *name) for name in names if chosen.random() < 0.6}
    known = [
        SegmentRow(f"{camera}/{day}/{BEGAN + second}-000000.mp4", camera, float(BEGAN + second), 1.0, 5)
        for camera, day, second in names
        if chosen.random() < 0.6
    ]
    async with Database.open(tmp_path / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage:
        await usage.write(partial(segments.insert, rows=known))
        index = RecordingIndex(RecordingFiles(root), usage)
        await index.reconcile()
        monkeypatch.undo()
        assert set(await usage.read(partial(segments.list_files, after="", limit=100))) == on_disk
        kept = [row for row in known if row.file in on_disk]
        assert [await index.find(row.file) for row in kept] == kept


async def test_a_file_that_came_after_its_folder_was_listed_stays_in_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "recordings"
    first, late = (make_file(root, "camera0", "2026-11-30", second) for second in (0, 60))
    async with Database.open(tmp_path / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage:
        files = RecordingFiles(root)
        monkeypatch.setattr(files, "list_kept", lambda: iter([("camera0", first)]))
        index = RecordingIndex(files, usage)
        await usage.write(
            partial(segments.insert, rows=[SegmentRow(late, "camera0", float(BEGAN + 60), 1.0, 5)]),
        )
        await index.reconcile()
        assert await index.sums() == {"camera0": (2, 5 + (root / first).stat().st_size)}
