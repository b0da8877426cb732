"""library/timelines.py: what is recorded, what is missing, and pages of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after

from edged.clock import Clock, iso_exact, read_iso
from edged.library.event_ring import EventRing
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.spans import GAP_SECONDS, Interval, merge
from edged.library.timelines import MOST_FILES, SETTLE_SECONDS, Span, Timeline, find_gaps, read_timeline
from edged.store import events, recordings, segments
from edged.store.database import Database
from edged.store.events import EventRow, Run
from edged.store.migrations import TRUST, USAGE
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

NOW = 1_796_000_000.0
#: Whole seconds within an hour: (begin, end).
INTERVALS = st.lists(st.tuples(st.integers(0, 3600), st.integers(1, 600)).map(lambda found: (found[0], sum(found))))


class Box:
    """Files, recordings and events of cameras, in real databases."""

    def __init__(self, root: Path, trust: Database, usage: Database) -> None:
        self.root, self.trust, self.usage = root, trust, usage
        self.index = RecordingIndex(RecordingFiles(root), usage)
        self.ring = EventRing(usage, Clock())

    async def list_between(self, camera: str, begin: float, end: float) -> list[RecordingRecord]:
        return await self.trust.read(partial(recordings.list_overlapping, camera=camera, begin=begin, end_=end))

    async def record(self, *intervals: tuple[float, float | None]) -> None:
        for number, (begin, end) in enumerate(intervals):
            record = make_record(number, begin, end)
            await self.trust.write(partial(recordings.insert, record=record))

    async def put_files(self, intervals: Sequence[tuple[float, float]], camera: str = "camera0") -> None:
        rows = [SegmentRow(f"{camera}/{n}.mp4", camera, b, e - b, 1) for n, (b, e) in enumerate(intervals)]
        await self.usage.write(partial(segments.insert, rows=rows))

    async def put_events(self, times: Sequence[float], camera: str = "camera0") -> None:
        rows = [EventRow(number, at, f"n{number}", camera, "{}") for number, at in enumerate(times, 1)]
        await self.usage.write(partial(events.save, run=Run("a", 1, is_whole=False), rows=rows))
        self.ring.load()

    async def read(
        self, begin: float = NOW - 3600, end: float = NOW, *, limit: int = 1000, after: int = -1
    ) -> Timeline:
        return await read_timeline(
            self, self.ring, "camera0", (begin, after), end, now=NOW, limit=limit  # type: ignore[arg-type]
        )  # fmt: skip

    async def read_all(self, begin: float, end: float, limit: int) -> list[Timeline]:
        pages = [await self.read(begin, end, limit=limit)]
        while (following := pages[-1].following) is not None:
            pages.append(await self.read(following[0], end, limit=limit, after=following[1]))
        return pages


@pytest.fixture
async def box(tmp_path: Path) -> Box:  # type: ignore[misc]
    with fail_after(30):
        async with (
            Database.open(tmp_path / "trust.db", TRUST, name="trust") as trust,
            Database.open(tmp_path / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage,
        ):
            yield Box(tmp_path / "recordings", trust, usage)


def make_record(number: int, begin: float, end: float | None) -> RecordingRecord:
    return RecordingRecord(
        recording_id=f"rec_{number:016x}", filename=f"{number}.mp4", camera="camera0", format="fmp4", began=begin,
        ended=end,
    )  # fmt: skip


def at(begin: float, end: float) -> Interval:
    """Seconds before now → Unix seconds."""
    return NOW - begin, NOW - end


async def test_files_that_follow_one_another_are_one_span_and_a_hole_in_a_recording_is_a_gap(box: Box) -> None:
    await box.put_files([at(600, 540), at(539.9, 480), at(470, 410), at(300, 240)])
    await box.put_files([at(500, 100)], camera="camera1")
    await box.record(at(600, 400))
    found = await box.read()
    assert found.spans == [Span(*at(600, 480)), Span(*at(470, 410)), Span(*at(300, 240))]
    # From 400 to 300 nobody asked for anything.
    assert found.gaps == [at(480, 470), at(410, 400)]
    assert found.following is None


async def test_what_lies_partly_outside_is_cut(box: Box) -> None:
    await box.put_files([at(4000, 3500), at(60, -60)])
    await box.record(at(5000, 3000))
    found = await box.read()
    assert found.spans == [Span(*at(3600, 3500)), Span(*at(60, 0))]
    assert found.gaps == [at(3500, 3000)]
    assert (found.begin, found.end) == at(3600, 0)


async def test_a_file_that_is_being_written_is_a_span_that_grows(box: Box) -> None:
    await box.put_files([at(120, 60)])
    await box.record((NOW - 120, None))
    path = box.root / "open" / "camera0" / "x" / f"{int(NOW) - 60}-000000.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert (await box.read()).spans == [Span(*at(120, 0), is_growing=True)]
    assert (await box.read(end=NOW + 60)).spans == [Span(*at(120, 0), is_growing=True)]
    assert (await box.read(end=NOW - 30)).spans == [Span(*at(120, 30))]
    assert (await box.read()).gaps == []


async def test_the_last_seconds_of_a_recording_that_runs_are_no_gap(box: Box) -> None:
    """Its pieces may be in memory yet."""
    await box.put_files([at(60, 4)])
    await box.record((NOW - 60, None))
    assert (await box.read()).gaps == []
    await box.usage.write(partial(segments.remove, files=["camera0/0.mp4"]))
    assert (await box.read()).gaps == [at(60, SETTLE_SECONDS)]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_events_are_shown_once_also_those_of_one_moment_and_of_a_clock_that_was_set_back(
    box: Box, limit: int
) -> None:
    times = [NOW - 100, NOW - 50, NOW - 50, NOW - 50, NOW - 80, NOW - 20, NOW]
    await box.put_events(times)
    box.ring.put("waiting", "camera0")
    found = [row for page in await box.read_all(NOW - 3600, NOW, limit) for row in page.events]
    assert [row.kind for row in found] == ["n1", "n5", "n2", "n3", "n4", "n6"]
    now = [row.kind for page in await box.read_all(NOW, 1e11, limit) for row in page.events]
    assert now == (["n7", "waiting"] if box.ring._waiting[0].at > NOW else ["n7"])


async def test_a_page_goes_over_so_many_files_and_the_next_one_goes_on_where_it_ended(box: Box) -> None:
    count = 2 * MOST_FILES + 10
    begin = NOW - 60 * count
    await box.put_files([(begin + 60 * each, begin + 60 * each + 60) for each in range(count)])
    pages = await box.read_all(begin, NOW, 10)
    assert [page.spans for page in pages] == [[Span(page.begin, page.end)] for page in pages]
    assert len(pages) == 3
    assert list(merge((span.begin, span.end) for page in pages for span in page.spans)) == [(begin, NOW)]


async def test_pages_hold_what_one_page_does(tmp_path: Path, box: Box) -> None:
    """Of any files, recordings and events, by any limit."""
    for limit in (1, 2, 7):
        for table in ("segments", "events"):
            await box.usage.write(partial(_empty, table))
        files = [(NOW - 3600 + 97 * each % 3500, NOW - 3600 + 97 * each % 3500 + 40 * (each % 3)) for each in range(60)]
        await box.put_files(files)
        await box.put_events([NOW - 3600 + 61 * each % 3600 for each in range(1, 80)])
        if limit == 1:
            await box.record(at(3600, 2000), at(2500, 900), (NOW - 300, None))
        whole = await box.read()
        pages = await box.read_all(NOW - 3600, NOW, limit)
        assert len(pages) >= 79 / limit
        assert [page.begin for page in pages[1:]] == [page.end for page in pages[:-1]]
        assert all(len(page.spans) <= limit and len(page.events) <= limit for page in pages)
        assert list(glue(page.spans for page in pages)) == [(span.begin, span.end) for span in whole.spans]
        assert [row.number for page in pages for row in page.events] == [row.number for row in whole.events]
        assert join([gap for page in pages for gap in page.gaps]) == whole.gaps


def _empty(table: str, connection: sqlite3.Connection) -> None:
    connection.execute(f"DELETE FROM {table}")


def glue(pages: object) -> list[Interval]:
    return join([(span.begin, span.end) for page in pages for span in page])  # type: ignore[attr-defined]


def join(intervals: Sequence[Interval]) -> list[Interval]:
    """What was cut at the end of a page, together again."""
    found: list[Interval] = []
    for begin, end in intervals:
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


@given(files=INTERVALS, asked=INTERVALS)
def test_each_second_that_was_asked_for_is_recorded_or_missing_and_no_other_is_missing(
    files: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    records = [make_record(0, b, e) for b, e in asked]
    spans = list(merge(files))
    gaps = find_gaps(spans, records, 0, 4200, 4200)
    assert gaps == sorted(gaps)
    assert all(e - b > GAP_SECONDS for b, e in gaps)

    def covers(intervals: Sequence[tuple[float, float]], second: float) -> bool:
        return any(b < second < e for b, e in intervals)

    for second in (each + 0.5 for each in range(4200)):
        wanted = covers(asked, second) and not covers(files, second)
        assert covers(gaps, second) == wanted
        assert covers(spans, second) == covers(files, second)


@given(st.floats(0, 2e11))
def test_times_are_told_to_the_millisecond_and_read_again_as_the_same(seconds: float) -> None:
    text = iso_exact(seconds)
    assert abs(read_iso(text) - seconds) <= 0.0006
    assert iso_exact(read_iso(text)) == text
