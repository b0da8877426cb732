"""Intervals and moments of made segments; work that several ask for at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from fmp4_helpers import make_segment
from grant_helpers import ended_meanwhile, refuse_all
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from patience import fail_after
from test_library_recordings import NOW, Box, opened, start

from edged.access.grants import Commit, Grant
from edged.errors import DependencyFailed, InvalidParams, InvalidState, NotFound, Overloaded, Refused, StoreFailed
from edged.library.clips import (
    AHEAD_SECONDS,
    LONGEST_SECONDS,
    Clip,
    Clips,
    _find_moment,
    _look,
    check_interval,
    find_missing,
)
from edged.library.recording_files import RecordingFiles
from edged.operations.params import read_moment
from edged.sharing import Shared
from edged.store import recordings as rows
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

BEGAN = 1_796_000_000.0
Times = st.floats(0, 4e9, allow_nan=False)


def keep(root: Path, began: float, **made: object) -> SegmentRow:
    """A kept segment of camera0: four parts of a third of a second, a key frame each two thirds."""
    folder = root / "camera0" / "2026-11-30"
    folder.mkdir(parents=True, exist_ok=True)
    file = f"camera0/2026-11-30/{int(began)}-{round(began % 1 * 1e6):06d}.mp4"
    data = make_segment(parts=4, at_ns=int(began * 1e9), **made)  # type: ignore[arg-type]
    (root / file).write_bytes(data)
    return SegmentRow(file, "camera0", began, 4 / 3, len(data))


@given(Times, Times, Times)
def test_an_interval_that_is_taken_is_not_empty_nor_long_nor_to_come(begin: float, end: float, now: float) -> None:
    try:
        check_interval(begin, end, now)
    except InvalidParams:
        return
    assert begin < end <= now + AHEAD_SECONDS
    assert begin < now
    assert end - begin <= LONGEST_SECONDS


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), max_size=8), st.floats(0, 50), st.floats(51, 100))
def test_what_is_missing_lies_in_the_interval_and_in_no_file(
    files: list[tuple[float, float]], begin: float, end: float
) -> None:
    rows = [SegmentRow(str(at), "camera0", *each, 1) for at, each in enumerate(sorted(files))]
    before = begin
    for first, last in find_missing(rows, begin, end):
        assert before <= first < last <= end or rows
        assert not any(row.began < last - 1e-6 and row.ended > first + 1e-6 for row in rows)
        before = last


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2027-01-31T10:00:00Z", 1801389600), ("2027-01-31T12:00:00+02:00", 1801389600), ("1801389600", 1801389600),
     (1801389600.5, 1801389600.5)],
)  # fmt: skip
def test_a_time_is_iso_8601_with_a_zone_or_unix_seconds(value: str | float, seconds: float) -> None:
    assert read_moment("at", value) == seconds


@given(st.one_of(st.text(max_size=30), st.floats()))
def test_any_other_time_is_refused(value: str | float) -> None:
    try:
        assert 0 <= read_moment("at", value) < 3e11
    except InvalidParams:
        return


def test_a_clip_begins_with_the_key_frame_before_and_ends_with_the_part_that_holds_its_end(tmp_path: Path) -> None:
    row = keep(tmp_path, BEGAN)
    begin, end = _look(RecordingFiles(tmp_path), [row], BEGAN + 0.7, BEGAN + 0.9)
    assert begin - BEGAN == pytest.approx(2 / 3)
    assert end - BEGAN == pytest.approx(1.0)


def test_of_two_key_frames_in_a_part_a_clip_begins_with_the_first(tmp_path: Path) -> None:
    """Parts of five pictures, a key frame each four: the first part holds two of them, the second one."""
    row = keep(tmp_path, BEGAN, key_every=4)
    for begin, first in ((4.5, 0), (7, 0), (8.5, 8)):
        assert _look(RecordingFiles(tmp_path), [row], BEGAN + begin / 15, BEGAN + 1)[0] - BEGAN == pytest.approx(
            first / 15
        )


def test_a_change_of_the_format_is_told_with_the_times_of_two_clips(tmp_path: Path) -> None:
    rows = [keep(tmp_path, BEGAN), keep(tmp_path, BEGAN + 1.5, codec=b"hvc1")]
    with pytest.raises(InvalidState) as caught:
        _look(RecordingFiles(tmp_path), rows, BEGAN, BEGAN + 3)
    assert "one with end 2026-11-30T00:53:21.500Z, another with start 2026-11-30T00:53:21.501Z" in caught.value.hint


def test_a_moment_is_decoded_from_its_key_frame_and_no_further(tmp_path: Path) -> None:
    row = keep(tmp_path, BEGAN)
    files = RecordingFiles(tmp_path)
    moment = _find_moment(files, row, BEGAN + 1.1)
    assert moment is not None
    assert [float(part.begin) for part in moment.parts] == [pytest.approx(2 / 3), pytest.approx(1.0)]
    assert moment.at - BEGAN == pytest.approx(16 / 15)
    assert moment.skip == pytest.approx(16 / 15 - 2 / 3 - 1 / 30)
    after = _find_moment(files, row, BEGAN + 1000)
    assert after is not None
    assert after.at - BEGAN == pytest.approx(19 / 15)


def test_a_file_that_is_moved_meanwhile_is_read_at_its_new_place(tmp_path: Path) -> None:
    row = keep(tmp_path, BEGAN)
    moved = SegmentRow("open/camera0/camera0/1.mp4", "camera0", BEGAN, 1, 1)
    files = RecordingFiles(tmp_path)
    folder, stem = files.find_place("camera0", BEGAN)
    folder.mkdir(exist_ok=True)
    (tmp_path / row.file).rename(folder / f"{stem}.mp4")
    with files.read(moved) as file:
        assert file.read(8)[4:] == b"ftyp"
    with pytest.raises(FileNotFoundError):
        files.read(SegmentRow("camera0/2026-11-30/2-000000.mp4", "camera0", BEGAN, 1, 1))


async def test_those_who_ask_for_the_same_share_it_and_one_goes_on_when_the_first_leaves() -> None:
    shared: Shared[int] = Shared("results", at_once=1, waiting=1)
    begun, results = list[int](), list[int]()
    go = trio.Event()

    async def work() -> int:
        begun.append(1)
        await go.wait()
        return 7

    async def ask() -> None:
        results.append(await shared.share("one", work))

    with fail_after(10):
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def leave() -> None:
                with first:
                    await ask()

            nursery.start_soon(leave)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert len(begun) == 1
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert len(begun) == 2
            nursery.start_soon(partial(shared.share, "two", work))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await shared.share("three", work)
            go.set()
    assert results == [7, 7, 7]


async def test_a_failure_is_that_of_all_who_wait_for_it() -> None:
    shared: Shared[int] = Shared("results", at_once=1, waiting=1)

    async def fail() -> int:
        await trio.testing.wait_all_tasks_blocked()
        raise DependencyFailed("no")

    async def ask() -> None:
        with pytest.raises(DependencyFailed, match="no"):
            await shared.share("one", fail)

    with fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)


async def record(box: Box, *seconds: float) -> RecordingRecord:
    """A recording that has ended, with a file of 0.66 s at each of these times after NOW."""
    await start(box)
    for each in seconds:
        box.now = NOW + each
        await box.write()
    box.now += 2
    return (await box.recordings.stop("camera0", box.grant)).record


async def clip(box: Box, begin: float, end: float, grant: Grant | None = None, filename: str = "visit") -> Clip:
    """From and to so many seconds after NOW."""
    clips = Clips(box.recordings, box.recordings._clock)
    return await clips.create(
        "camera0", NOW + begin, NOW + end, filename=filename, made_by="a test", grant=grant or box.grant
    )


async def names(box: Box) -> list[str]:
    found, _ = await box.recordings.list_page(["camera0"], limit=10, offset=0)
    return [item.record.filename for item in found]


async def test_a_name_that_is_none_is_told_before_anything_is_looked_for(tmp_path: Path) -> None:
    """Also of an interval of which nothing is recorded."""
    async with opened(tmp_path) as box:
        for name in ("../x", "visit.mkv", "x" * 101):
            with pytest.raises(InvalidParams, match="filename"):
                await clip(box, -100, -90, filename=name)


async def test_a_clip_outside_of_any_recording_is_not_found_and_one_with_a_gap_holds_what_there_is(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as box:
        await record(box, 1, 2, 10)
        for begin, end in ((-100, -90), (4, 8), (-5, 0.9)):
            with pytest.raises(NotFound, match="nothing is recorded of camera0"):
                await clip(box, begin, end)
        made = await clip(box, 0, 11)
        assert [begin - NOW for begin, _ in made.missing] == [0, pytest.approx(2 + 2 / 3)]
        assert [end - NOW for _, end in made.missing] == [1, 10]
        assert made.begin == pytest.approx(NOW + 1, abs=0.001)
        assert made.end == pytest.approx(NOW + 10 + 2 / 3, abs=0.001)
        assert len(made.measured.files) == 3
        assert len(made.measured.gaps) == 1


async def test_without_its_medium_there_is_no_clip_and_no_picture_and_the_error_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await record(box, 1, 2)
        box.recordings.index.medium.is_there = False
        with pytest.raises(StoreFailed, match="the medium for recordings is not there"):
            await clip(box, 0, 2)
        with pytest.raises(StoreFailed, match="the medium for recordings is not there"):
            await Clips(box.recordings, box.recordings._clock).find_moment("camera0", NOW + 1)


async def test_a_clip_of_a_deleted_span_is_not_found_and_one_that_was_made_before_keeps_its_files(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as box:
        yard = await record(box, 1, 2, 3)
        made = await clip(box, 2, 2.5)
        await box.recordings.delete(yard, "request", box.grant)
        assert len((await box.recordings.measure(made.measured.record)).files) == 1
        with pytest.raises(NotFound):
            await clip(box, 1, 1.5)
        await box.recordings.delete(made.measured.record, "request", box.grant)
        assert not list(box.root.rglob("*.mp4"))


async def test_a_clip_of_a_protected_recording_is_not_protected_itself_and_its_deletion_leaves_that_whole(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as box:
        yard = await record(box, 1, 2)
        kept = replace(yard, recording_id="rec_0000000000000001", filename="kept.mp4", is_protected=True)
        await box.recordings._trust.write(partial(rows.insert, record=kept))
        made = await clip(box, 1, 1.5)
        assert not made.measured.record.is_protected
        for each in (yard, made.measured.record):
            await box.recordings.delete(each, "request", box.grant)
        assert len((await box.recordings.measure(kept)).files) == 2
        assert await names(box) == ["kept.mp4"]


async def test_a_recording_that_is_deleted_while_a_clip_of_it_is_made_leaves_the_clip_its_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        yard = await record(box, 1)
        go = trio.Event()

        async def slow(work: object) -> object:
            await go.wait()
            return await box.grant(work)  # type: ignore[arg-type]

        made = list[Clip]()

        async def make() -> None:
            made.append(await clip(box, 1, 1.5, slow))  # type: ignore[arg-type]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            while not box.recordings.index.choosing.locked():
                await trio.sleep(0.01)
            nursery.start_soon(box.recordings.delete, yard, "request", box.grant)
            while not box.recordings.index.choosing.statistics().tasks_waiting:
                await trio.sleep(0.01)
            go.set()
        assert len((await box.recordings.measure(made[0].measured.record)).files) == 1
        assert await names(box) == ["visit.mp4"]


async def test_a_clip_of_what_is_deleted_meanwhile_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        yard = await record(box, 1, 2)
        go = trio.Event()

        async def make() -> None:
            with pytest.raises(InvalidState, match="has just been deleted"):
                await clip(box, 1, 2.5)
            go.set()

        async with trio.open_nursery() as nursery:
            async with box.recordings.index.choosing:
                nursery.start_soon(make)
                while not box.recordings.index.choosing.statistics().tasks_waiting:
                    await trio.sleep(0.01)
                measured = await box.recordings.measure(yard)
                await box.recordings.index.remove(measured.files[:1], {measured.files[0].file: "request"})
            await go.wait()
        assert await names(box) == ["yard.mp4"]


async def test_whoever_is_revoked_meanwhile_makes_no_clip(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await record(box, 1)
        for grant in (refuse_all, ended_meanwhile(box.recordings._trust)):
            with pytest.raises(Refused):
                await clip(box, 1, 1.5, grant)
        assert await names(box) == ["yard.mp4"]


async def test_whoever_leaves_once_the_clip_is_being_written_has_made_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await record(box, 1)
        with trio.CancelScope() as caller:

            async def leave(work: object) -> object:
                async def left(commit: Commit) -> object:
                    caller.cancel()
                    return await work(commit)  # type: ignore[operator]

                return await box.grant(left)

            await clip(box, 1, 1.5, leave)  # type: ignore[arg-type]
        assert caller.cancelled_caught
        assert "visit.mp4" in await names(box)


async def test_two_equal_requests_at_once_make_two_clips_of_the_same_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await record(box, 1)
        made = list[Clip]()

        async def make() -> None:
            made.append(await clip(box, 1, 1.5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            nursery.start_soon(make)
        assert sorted(each.measured.record.filename for each in made) == ["visit-1.mp4", "visit.mp4"]
        assert made[0].measured.files == made[1].measured.files
        assert len(list(box.root.rglob("*.mp4"))) == 1
