"""library/joins.py: recordings as one file, by the real ffmpeg; several want one, leave, or have no space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio
from patience import fail_after
from pictures_helpers import Spawner, write_script

from edged.errors import StorageFull
from edged.library.active_recordings import CLIP
from edged.library.fmp4 import top_boxes
from edged.library.joined_files import is_whole
from edged.library.joins import Joins
from edged.library.recording_files import JOINED, RecordingFiles
from edged.library.recording_index import Measured
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

pytestmark = pytest.mark.ffmpeg

BEGAN = 1_796_000_000.0
#: Seconds of each of the two files.
LENGTH = 4.0


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A fragmented MP4 of 4 s with a key frame each second, of more than 128 KiB."""
    file = tmp_path_factory.mktemp("segment") / "segment.mp4"
    subprocess.run(
        [
            "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10", "-t", str(LENGTH), "-c:v",
            "libx264", "-preset", "ultrafast", "-g", "10", "-qp", "10", "-movflags",
            "frag_keyframe+empty_moov+default_base_moof", file,
        ],
        check=True,
    )  # fmt: skip
    assert file.stat().st_size > 128 * 1024
    return file.read_bytes()


@pytest.fixture
def root(tmp_path: Path, segment: bytes) -> Path:
    """A folder with two files that follow one another."""
    for row in rows(len(segment)):
        (tmp_path / row.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row.file).write_bytes(segment)
    return tmp_path


def rows(size: int) -> list[SegmentRow]:
    return [
        SegmentRow(f"camera0/2026-11-30/{int(began)}-000000.mp4", "camera0", began, LENGTH, size)
        for began in (BEGAN, BEGAN + LENGTH)
    ]


def measured(number: int = 1, size: int = 200_000, form: Literal["mp4", "mkv"] = "mp4") -> Measured:
    """A clip from the middle of one file to that of the other."""
    record = RecordingRecord(
        recording_id=f"rec_{number:016x}", filename=f"visit{number}.{form}", camera="camera0", format=form,
        began=BEGAN + 1.5, ended=BEGAN + 6.5, reason=CLIP,
    )  # fmt: skip
    return Measured(record, 2 * size, 5.0, tuple(rows(size)))


def nothing_free(_total: int) -> int:
    return 0


async def test_those_who_want_the_same_file_at_once_share_one_join(root: Path) -> None:
    spawner = Spawner()
    joins = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", nothing_free)
    found = list[Path]()

    async def fetch() -> None:
        found.append(await joins.find(measured()))

    with fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetch)
    assert len(spawner.started) == 1
    assert set(found) == {root / JOINED / "rec_0000000000000001.mp4"}
    # From the key frame before its begin to the end of the part that holds its end.
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(found[0])]
    shown = await trio.run_process(command, capture_stdout=True)
    assert float(shown.stdout) == pytest.approx(6, abs=0.15)


async def test_when_the_first_who_wants_a_file_leaves_another_one_gets_it_and_nothing_is_left_over(
    root: Path,
) -> None:
    spawner, found = Spawner(), list[Path]()
    joins = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", nothing_free)
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def leave() -> None:
                with first:
                    await joins.find(measured())

            async def stay() -> None:
                found.append(await joins.find(measured()))

            nursery.start_soon(leave)
            while not spawner.started:
                await trio.sleep(0.001)
            first.cancel()
            nursery.start_soon(stay)
    assert [path.name for path in (root / JOINED).iterdir()] == ["rec_0000000000000001.mp4"]
    assert found == [root / JOINED / "rec_0000000000000001.mp4"]
    assert spawner.alive == []


async def test_a_file_that_is_there_waits_for_no_other_join(root: Path, tmp_path: Path) -> None:
    spawner = Spawner()
    ready = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", nothing_free)
    hanging = Joins(RecordingFiles(root), spawner, write_script(tmp_path, "exec sleep 60"), nothing_free)
    with fail_after(30):
        path = await ready.find(measured(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hanging.find, measured(2))
            while len(spawner.started) < 2:
                await trio.sleep(0.01)
            assert await hanging.find(measured(1)) == path
            nursery.cancel_scope.cancel()
    assert spawner.alive == []


async def test_where_too_little_space_would_stay_free_nothing_is_joined(root: Path) -> None:
    spawner = Spawner()
    joins = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", lambda total: total)
    with fail_after(30), pytest.raises(StorageFull, match="no space for the joined file"):
        await joins.find(measured())
    assert spawner.started == []


@contextmanager
def small_joined(root: Path, kibibytes: int) -> Iterator[Path]:
    """The folder of joined files, on a tmpfs of its own."""
    folder = root / JOINED
    folder.mkdir(exist_ok=True)
    options = ("-t", "tmpfs", "-o", f"size={kibibytes}k")
    if subprocess.run(["mount", *options, "edged-test", folder], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_disk_that_fills_up_during_a_join_is_told_and_leaves_no_file(root: Path) -> None:
    joins = Joins(RecordingFiles(root), Spawner(), lambda: "ffmpeg", nothing_free)
    with small_joined(root, 64) as folder:
        with fail_after(30), pytest.raises(StorageFull, match="no space for the joined file"):
            await joins.find(measured())
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("form", ["mp4", "mkv"])
async def test_a_disk_that_is_full_when_the_last_bytes_of_a_join_are_written_is_told(
    root: Path, form: Literal["mp4", "mkv"]
) -> None:
    """ffmpeg 5 exits with 0 then: the file is whole, or there is none."""
    joins = Joins(RecordingFiles(root), Spawner(), lambda: "ffmpeg", nothing_free)
    told = 0
    with fail_after(60):
        size = (await joins.find(measured(1, form=form))).stat().st_size
        # What is kept for an index and not needed is a hole, which takes no space.
        sizes = range(size // 1024 - 40, size // 1024 + 24, 8)
        for kibibytes in sizes:
            with small_joined(root, kibibytes) as folder:
                try:
                    made = [await joins.find(measured(2, form=form))]
                except StorageFull:
                    made = []
                    told += 1
                assert list(folder.iterdir()) == made
                assert all(path.stat().st_size == size and is_whole(path) for path in made)
    assert 0 < told < len(sizes)


@pytest.mark.parametrize("form", ["mp4", "mkv"])
async def test_a_joined_file_that_a_power_cut_has_shortened_is_made_again(
    root: Path, form: Literal["mp4", "mkv"]
) -> None:
    spawner = Spawner()
    joins = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", nothing_free)
    with fail_after(60):
        path = await joins.find(measured(form=form))
        data = path.read_bytes()
        for left in (len(data) - 1, 0):
            os.truncate(path, left)
            assert await joins.find(measured(form=form)) == path
            assert path.stat().st_size == len(data)
        assert await joins.find(measured(form=form)) == path
    assert len(spawner.started) == 3


async def test_an_mp4_is_written_once_with_its_index_at_the_front(root: Path) -> None:
    spawner = Spawner()
    joins = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", nothing_free)
    with fail_after(30):
        kinds = boxes_of(await joins.find(measured()))
    assert kinds[:2] == [b"ftyp", b"moov"]
    assert kinds[-1] == b"mdat"
    assert len(spawner.started) == 1


async def test_an_index_that_is_longer_than_thought_is_moved_to_the_front(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.library.joins.index_bytes", lambda *_: 600)
    spawner = Spawner()
    joins = Joins(RecordingFiles(root), spawner, lambda: "ffmpeg", nothing_free)
    with fail_after(30):
        path = await joins.find(measured())
        done = await trio.run_process(["ffmpeg", "-v", "error", "-i", path, "-f", "null", "-"], capture_stderr=True)
    assert boxes_of(path)[:2] == [b"ftyp", b"moov"]
    assert len(spawner.started) == 2
    assert list(path.parent.iterdir()) == [path]
    assert done.stderr == b""


def boxes_of(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [kind for kind, *_ in top_boxes(file)]
