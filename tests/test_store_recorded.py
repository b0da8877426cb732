"""store/recordings.py and segments.py: sums that always agree with the rows, and lists that read an index, however many
rows there are."""

from __future__ import annotations

import dataclasses
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.library.spans import is_touched, merge_spans
from edged.store import recordings, segments
from edged.store.migrating import migrate
from edged.store.migrations import TRUST, USAGE
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

CAMERAS = ["camera0", "camera1", "camera10"]
#: Which step made the sums.
SUMS = {"trust": 17, "usage": 7}


def opened(migrations: tuple[tuple[str, ...], ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, migrations)
    return connection


def record_of(number: int, camera: str = "camera0", began: float = 0.0, ended: float | None = 1.0) -> RecordingRecord:
    return RecordingRecord(
        recording_id=f"rec_{number:016x}", filename=f"r{number}.mp4", camera=camera, format="fmp4", began=began,
        ended=ended,
    )  # fmt: skip


SEGMENTS = st.lists(
    st.builds(
        lambda camera, number, began, duration, size: SegmentRow(
            f"{camera}/2026-01-01/{number}-000000.mp4", camera, float(began), float(duration), size
        ),
        st.sampled_from(CAMERAS), st.integers(0, 9), st.integers(0, 100), st.integers(0, 40), st.integers(0, 9),
    ),
    max_size=25,
)  # fmt: skip


def kept_of(rows: list[SegmentRow], gone: set[str]) -> list[SegmentRow]:
    """What is left after all were inserted, the last of each name, and some removed."""
    return [row for row in {row.file: row for row in rows}.values() if row.file not in gone]


@given(SEGMENTS, st.sets(st.integers(0, 24), max_size=8), st.integers(0, 140), st.integers(0, 140))
def test_sums_of_segments_are_those_of_the_rows_whatever_was_inserted_again_or_removed(
    rows: list[SegmentRow], removed: set[int], one: int, other: int
) -> None:
    gone = {row.file for number, row in enumerate(rows) if number in removed}
    kept = kept_of(rows, gone)
    with closing(opened(USAGE)) as connection:
        segments.insert(connection, rows)
        segments.remove(connection, gone)
        assert segments.sums(connection) == {
            camera: (len(mine), sum(row.size for row in mine))
            for camera in CAMERAS
            if (mine := [row for row in kept if row.camera == camera])
        }
        begin, end = float(min(one, other)), float(max(one, other))
        for camera in CAMERAS:
            found = segments.list_between(connection, camera, begin, end)
            wanted = sorted(
                (row for row in kept if row.camera == camera and row.began < end and row.ended > begin),
                key=lambda row: (row.began, row.file),
            )
            assert found == wanted
            spans = segments.list_spans(connection, camera, begin, end, 4)
            assert spans == [(row.began, row.ended) for row in found[:4]]
            sums = segments.sum_between(connection, camera, begin, end, 0.5)
            assert (sums.files, sums.size) == (len(found), sum(row.size for row in found))
            assert sums.duration == sum(min(row.ended, end) - max(row.began, begin) for row in found)
            assert sums.gaps == sum(after.began - before.ended > 0.5 for before, after in pairwise(found))
            assert sums.last == max((row.ended for row in found), default=0.0)


@given(SEGMENTS, st.lists(st.tuples(st.integers(0, 140), st.integers(0, 60)), max_size=4), st.booleans())
def test_sums_of_several_intervals_are_those_of_each(
    rows: list[SegmentRow], wanted: list[tuple[int, int]], is_tidy: bool
) -> None:
    """Also where segments lie within one another, and where they are so many that each is asked for."""
    if is_tidy:
        # One after the other, as a camera gives them.
        rows = [dataclasses.replace(row, began=7.0 * at, duration=float(6 + at % 3)) for at, row in enumerate(rows)]
    intervals = [(float(begin), float(begin + length)) for begin, length in wanted]
    with closing(opened(USAGE)) as connection:
        segments.insert(connection, rows)
        for camera in CAMERAS:
            found = segments.sum_each(connection, camera, intervals, 0.5)
            assert found == [segments.sum_between(connection, camera, *each, 0.5) for each in intervals]


@given(SEGMENTS, st.integers(1, 7))
def test_pages_of_the_oldest_segments_of_a_camera_have_each_once(rows: list[SegmentRow], limit: int) -> None:
    with closing(opened(USAGE)) as connection:
        segments.insert(connection, rows)
        for camera in CAMERAS:
            found: list[SegmentRow] = []
            place = segments.FIRST
            while page := segments.list_oldest(connection, camera, limit, place):
                found += page
                place = (page[-1].began, page[-1].file)
            mine = (row for row in kept_of(rows, set()) if row.camera == camera)
            assert found == sorted(mine, key=lambda row: (row.began, row.file))


RECORDS = st.lists(
    st.tuples(st.sampled_from(CAMERAS), st.integers(0, 100), st.none() | st.integers(0, 50), st.booleans()),
    max_size=25,
)  # fmt: skip


@given(RECORDS, st.lists(st.sampled_from(CAMERAS), unique=True), st.integers(0, 150), st.integers(0, 150))
def test_lists_of_recordings_are_those_of_the_rows_by_offset_and_by_key(
    drawn: list[tuple[str, int, int | None, bool]], cameras: list[str], one: int, other: int
) -> None:
    with closing(opened(TRUST)) as connection:
        left: list[RecordingRecord] = []
        for number, (camera, began, length, is_deleted) in enumerate(drawn):
            record = record_of(number, camera, began, None if length is None else float(began + length))
            recordings.insert(connection, record)
            if is_deleted:
                recordings.delete(connection, [record.recording_id], 200.0, "request")
            else:
                left.append(record)
        assert recordings.list_cameras(connection) == sorted({record.camera for record in left})
        wanted = sorted(
            (record for record in left if record.camera in cameras),
            key=lambda record: (record.began, record.recording_id),
            reverse=True,
        )
        by_key: list[RecordingRecord] = []
        for offset in range(0, len(wanted) + 1, 3):
            page, total = recordings.list_page(connection, cameras, limit=3, offset=offset)
            assert (page, total) == (wanted[offset : offset + 3], len(wanted))
            after = (by_key[-1].began, by_key[-1].recording_id) if by_key else None
            by_key += recordings.list_page(connection, cameras, limit=3, offset=0, after=after)[0]
        assert by_key == wanted
        begin, end = float(min(one, other)), float(max(one, other))
        for camera in CAMERAS:
            assert recordings.list_overlapping(connection, camera, begin, end) == sorted(
                (
                    record
                    for record in left
                    if record.camera == camera and record.began < end and (record.ended is None or record.ended > begin)
                ),
                key=lambda record: (record.began, record.recording_id),
            )


def test_a_recording_that_goes_on_again_or_was_not_to_begin_is_counted_right() -> None:
    with closing(opened(TRUST)) as connection:
        for number in range(3):
            recordings.insert(connection, record_of(number, ended=None))
        recordings.forget(connection, record_of(0).recording_id)
        recordings.end(connection, record_of(1).recording_id, 0.0, 500.0)
        recordings.delete(connection, [record_of(2).recording_id], 7.0, "request")
        recordings.keep(connection, [record_of(2).recording_id], 7.0)
        assert connection.execute("SELECT camera, number, longest FROM recording_sums").fetchall() == [
            ("camera0", 2, 500.0)
        ]
        recordings.resume(connection, record_of(1).recording_id, 0.0)
        assert [each.recording_id for each in recordings.list_overlapping(connection, "camera0", 400.0, 401.0)] == [
            record_of(1).recording_id
        ]


def test_rows_of_before_there_were_sums_are_counted() -> None:
    with closing(opened(USAGE[: SUMS["usage"] - 1])) as connection:
        connection.execute("INSERT INTO segments VALUES ('camera0/2026-01-01/1-000000.mp4', 'camera0', 1, 60, 9, 0)")
        migrate(connection, USAGE)
        assert connection.execute("SELECT * FROM segment_sums").fetchall() == [("camera0", 1, 9, 60.0)]
    with closing(opened(TRUST[: SUMS["trust"] - 1])) as connection:
        recordings.insert(connection, record_of(0, ended=30.0))
        recordings.insert(connection, record_of(1, ended=None))
        recordings.insert(connection, record_of(2, "camera1"))
        recordings.delete(connection, [record_of(2).recording_id], 7.0, "request")
        migrate(connection, TRUST)
        assert connection.execute("SELECT * FROM recording_sums ORDER BY camera").fetchall() == [
            ("camera0", 2, 30.0),
            ("camera1", 0, 1.0),
        ]


RECORDING_QUERIES: list[Callable[[sqlite3.Connection], Any]] = [
    lambda connection: recordings.list_page(connection, CAMERAS, limit=100, offset=14_000),
    lambda connection: recordings.list_page(connection, CAMERAS[:1], limit=100, offset=0, after=(5.0, "rec_1")),
    recordings.list_cameras,
    recordings.load_running,
    lambda connection: recordings.is_taken(connection, "yard.mp4"),
    lambda connection: recordings.list_after(connection, ("camera0", 5.0, "rec_1"), 500),
    lambda connection: recordings.list_unswept(connection, 500),
    lambda connection: recordings.note_swept(connection, ["rec_1"]),
    lambda connection: recordings.prune(connection, 5.0, 500),
    recordings.list_protected,
    lambda connection: recordings.protect(connection, "rec_1", True),
    lambda connection: recordings.is_protected(connection, "rec_1"),
    lambda connection: recordings.list_overlapping(connection, "camera0", 5.0, 9.0),
]
SEGMENT_QUERIES: list[Callable[[sqlite3.Connection], Any]] = [
    lambda connection: segments.list_between(connection, "camera0", 5.0, 9.0),
    lambda connection: segments.sum_between(connection, "camera0", 5.0, 9.0, 0.5),
    lambda connection: segments.sum_each(connection, "camera0", [(5.0, 9.0), (8.0, 12.0)], 0.5),
    lambda connection: segments.list_spans(connection, "camera0", 5.0, 9.0, 500),
    lambda connection: segments.list_oldest(connection, "camera0", 100, (5.0, "camera0/x")),
    lambda connection: segments.list_files(connection, "camera0/x", 2000),
    lambda connection: segments.find(connection, "camera0/x"),
    lambda connection: segments.last_end(connection, "camera0"),
    segments.sums,
]
#: Tables that have one row for each camera.
SMALL = ("recording_sums", "segment_sums", "json_each")


def find_slow(migrations: tuple[tuple[str, ...], ...], query: Callable[[sqlite3.Connection], Any]) -> list[str]:
    """The steps of its plans that read a whole table, or sort."""
    with closing(opened(migrations)) as connection:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        query(connection)
        connection.set_trace_callback(None)
        # SQLite writes the infinite as it does not read it.
        texts = [text.replace("Inf,", "9e999,") for text in statements]
        plans = [row[3] for text in texts for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    return [
        step
        for step in plans
        if (
            "SCAN" in step
            and " USING " not in step
            and not any(name in step for name in SMALL)
            and "SCAN (" not in step
        )
        or "TEMP B-TREE" in step
    ]


@pytest.mark.parametrize(
    ("migrations", "query"),
    [(TRUST, query) for query in RECORDING_QUERIES] + [(USAGE, query) for query in SEGMENT_QUERIES],
)
def test_no_list_reads_a_whole_table_or_sorts(
    migrations: tuple[tuple[str, ...], ...], query: Callable[[sqlite3.Connection], Any]
) -> None:
    assert find_slow(migrations, query) == []


def test_a_name_is_found_by_index_and_only_those_of_that_name_are_sorted() -> None:
    slow = find_slow(TRUST, lambda connection: recordings.find(connection, "yard"))
    assert slow == ["USE TEMP B-TREE FOR ORDER BY"]


def test_a_query_without_an_index_would_be_found() -> None:
    assert find_slow(TRUST, lambda connection: connection.execute("SELECT 1 FROM recordings WHERE reason = 'x'")) == [
        "SCAN recordings"
    ]
    assert find_slow(USAGE, lambda connection: connection.execute("SELECT * FROM segments ORDER BY size")) != []


INTERVALS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=12).map(
    lambda drawn: [(float(begin), float(begin + length)) for begin, length in drawn]
)


@given(INTERVALS, st.integers(0, 70), st.integers(1, 20))
def test_merged_intervals_are_touched_by_what_touches_one_of_them(
    intervals: list[tuple[float, float]], begin: int, length: int
) -> None:
    merged = merge_spans(intervals)
    assert merged == sorted(merged)
    assert all(before[1] < after[0] for before, after in pairwise(merged))
    end = begin + length
    assert is_touched(merged, begin, end) == any(one < end and other > begin for one, other in intervals)
    assert is_touched(merge_spans([(5.0, math.inf)]), 7, 9)
