"""library/joins.py with the real ffmpeg, and with programs in its place that hang, fail or leave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from fmp4_helpers import make_segment
from patience import fail_after

from edged import children
from edged.errors import DependencyFailed, InvalidState, StorageFull, StoreFailed
from edged.library import joins as module
from edged.library.fmp4 import read_segment
from edged.library.joins import Joins
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import Measured
from edged.store.recordings import RecordingRecord

BEGAN = 1_796_000_000


def program(folder: Path, text: str) -> str:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def make(
    root: Path, ffmpeg: str, *, size: int = 5, keep_free: Callable[[int], int] = lambda _total: 0
) -> tuple[Joins, Measured]:
    """Two segments of `size` samples in each of two parts, and what joins them."""
    files = RecordingFiles(root)
    for number in range(2):
        path = root / "open/camera0/x" / f"{number}-000000.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_segment(at_ns=(BEGAN + number) * 10**9, samples=size))
    rows = files.look().closed
    record = RecordingRecord(
        recording_id="rec_0123456789abcdef", filename="a.mp4", camera="camera0", format="fmp4", began=BEGAN,
        ended=BEGAN + 2.0,
    )  # fmt: skip
    spawn = partial(children.spawn, environment=dict(os.environ), landlock=None)
    return Joins(files, spawn, lambda: ffmpeg, keep_free), Measured(record, sum(row.size for row in rows), 1.3, rows)


async def test_the_segments_reach_ffmpeg_one_behind_the_other(tmp_path: Path) -> None:
    joins, measured = make(tmp_path / "r", program(tmp_path, 'for last; do :; done; exec cat > "${last#file:}"'))
    with fail_after(20):
        path = await joins.find(measured)
        assert path.name == "rec_0123456789abcdef.mp4"
        with path.open("rb") as file:
            segment = read_segment(file)
        ends = [part.end for part in segment.parts]
        assert len(ends) == 4
        assert [part.begin for part in segment.parts] == [0, *ends[:-1]]
        made = path.stat().st_ino
        assert (await joins.find(measured)).stat().st_ino == made


async def test_a_joined_file_that_is_fetched_again_is_used_and_not_changed(tmp_path: Path) -> None:
    """Whoever fetches it in parts asks by its time of change (If-Range); retention goes by when it was fetched last."""
    joins, measured = make(tmp_path / "r", program(tmp_path, 'for last; do :; done; exec cat > "${last#file:}"'))
    with fail_after(20):
        path = await joins.find(measured)
        os.utime(path, (1000, 1000))
        assert (await joins.find(measured)).stat().st_mtime == 1000
    files = RecordingFiles(tmp_path / "r")
    files.remove_old_joined(time.time() - 60)
    assert path.exists()
    os.utime(path, (1000, 1000))
    files.remove_old_joined(time.time() - 60)
    assert not path.exists()


async def test_an_ffmpeg_that_reads_nothing_is_ended_with_whoever_asked(tmp_path: Path) -> None:
    """More than a pipe holds; and the next one is joined."""
    joins, measured = make(tmp_path / "r", program(tmp_path, "exec sleep 1000"), size=50_000)
    with fail_after(20):
        with trio.move_on_after(0.5) as scope:
            await joins.find(measured)
        assert scope.cancelled_caught
        program(tmp_path, 'for last; do :; done; exec cat > "${last#file:}"')
        assert (await joins.find(measured)).stat().st_size > 1_000_000
        assert [path.name for path in (tmp_path / "r/joined").iterdir()] == ["rec_0123456789abcdef.mp4"]


async def test_an_ffmpeg_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.3)
    joins, measured = make(tmp_path / "r", program(tmp_path, "exec sleep 1000"), size=50_000)
    with fail_after(20), pytest.raises(DependencyFailed, match="took longer than"):
        await joins.find(measured)
    assert list((tmp_path / "r/joined").iterdir()) == []


@pytest.mark.parametrize("text", ["exit 3", "cat > /dev/null; echo no room >&2; exit 1", "kill -9 $$"])
async def test_an_ffmpeg_that_fails_leaves_no_file(tmp_path: Path, text: str) -> None:
    joins, measured = make(tmp_path / "r", program(tmp_path, text), size=50_000)
    with fail_after(20), pytest.raises(DependencyFailed, match="could not join"):
        await joins.find(measured)
    assert list((tmp_path / "r/joined").iterdir()) == []


async def test_what_is_gone_or_damaged_is_said(tmp_path: Path) -> None:
    joins, measured = make(tmp_path / "r", program(tmp_path, "exec cat > /dev/null"))
    path = tmp_path / "r" / measured.files[1].file
    with fail_after(20):
        path.write_bytes(b"no segment")
        with pytest.raises(InvalidState, match="is damaged"):
            await joins.find(measured)
        path.write_bytes(make_segment(codec=b"hvc1"))
        with pytest.raises(InvalidState, match="changed its format"):
            await joins.find(measured)
        path.unlink()
        with pytest.raises(InvalidState, match="has just been deleted"):
            await joins.find(measured)
        path.mkdir()
        with pytest.raises(StoreFailed, match="could not be read"):
            await joins.find(measured)
    assert list((tmp_path / "r/joined").iterdir()) == []


async def test_nothing_is_joined_that_recordings_would_have_to_go_for(tmp_path: Path) -> None:
    joins, measured = make(tmp_path / "r", "ffmpeg", keep_free=lambda total: total)
    with pytest.raises(StorageFull):
        await joins.find(measured)
