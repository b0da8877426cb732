"""The index of recorded files, in the usage database; a scan can rebuild it. Functions of a connection."""

from __future__ import annotations

import math
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import gt, sub
from typing import Final, NamedTuple, TypeAlias

#: Where a segment stands among others by age: when it began (Unix seconds), and its file.
Place: TypeAlias = tuple[float, str]
#: Before every segment.
FIRST: Final[Place] = (-math.inf, "")
_COLUMNS: Final = "file, camera, began, duration, size, recovered"
#: ?1 the camera, ?2 the end, ?3 the begin of an interval. What shares some time with it began at most the length of the
#: camera's longest segment before it.
_BETWEEN: Final = (
    "WHERE camera = ?1 AND began < ?2 AND began + duration > ?3"
    " AND began >= ?3 - (SELECT longest FROM segment_sums WHERE segment_sums.camera = ?1)"
)


#: Segments for each of some intervals up to which they are read and added up here: it takes 1 us for each, and a query
#: of its own 25 us for an interval.
_SEGMENTS_OF_EACH: Final = 12


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One closed file of a camera.

    `file` is its path below the folder of recordings; `began` Unix seconds by the clock of then; `duration` seconds,
    from the samples; `size` bytes; `recovered`: its writer did not close it. `layout` is written, and read as LaidOut.
    """

    file: str
    camera: str
    began: float
    duration: float
    size: int
    recovered: bool = False
    layout: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def ended(self) -> float:
        """Unix seconds."""
        return self.began + self.duration


class LaidOut(NamedTuple):
    """A segment for a player: as SegmentRow; `layout` says where to begin (library.layouts), None while that is not
    known."""

    file: str
    began: float
    duration: float
    layout: bytes | None


class Sums(NamedTuple):
    """Of the segments that share some time with an interval: how many, their bytes, their seconds inside it, how many
    gaps are between them, and when the last ends (Unix seconds; 0.0 for none)."""

    files: int
    size: int
    duration: float
    gaps: int
    last: float


def insert(connection: sqlite3.Connection, rows: Iterable[SegmentRow]) -> None:
    """New ones; a file that is known is described anew."""
    # REPLACE would delete the old row unseen by the trigger that counts.
    connection.executemany(
        f"INSERT INTO segments ({_COLUMNS}, layout) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (file) DO UPDATE SET"  # noqa: S608
        " began = excluded.began, duration = excluded.duration, size = excluded.size, recovered = excluded.recovered,"
        " layout = excluded.layout",
        [(row.file, row.camera, row.began, row.duration, row.size, int(row.recovered), row.layout) for row in rows],
    )


def remove(connection: sqlite3.Connection, files: Collection[str]) -> None:
    """These files are gone."""
    connection.executemany("DELETE FROM segments WHERE file = ?", [(file,) for file in files])


def list_between(connection: sqlite3.Connection, camera: str, begin: float, end: float) -> list[SegmentRow]:
    """The segments of a camera that share some time with [begin, end), oldest first."""
    return _many(connection, f"{_BETWEEN} ORDER BY began, file", camera, end, begin)


def sum_between(connection: sqlite3.Connection, camera: str, begin: float, end: float, gap: float) -> Sums:
    """`list_between` in one row; `gaps` are those of more than `gap` seconds."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0),"  # noqa: S608
        " coalesce(sum(max(0.0, min(began + duration, ?2) - max(began, ?3))), 0.0),"
        " coalesce(sum(pause > ?4), 0), coalesce(max(began + duration), 0.0)"
        " FROM (SELECT began, duration, size, began - lag(began + duration) OVER (ORDER BY began, file) AS pause"
        f" FROM segments {_BETWEEN})",
        (camera, end, begin, gap),
    ).fetchone()
    return Sums(*row)


#: Of no segment.
_NONE: Final = Sums(0, 0, 0.0, 0, 0.0)


def sum_each(
    connection: sqlite3.Connection, camera: str, intervals: Sequence[tuple[float, float]], gap: float
) -> list[Sums]:
    """`sum_between` of each (begin, end) of a camera, in their order: of intervals that lie close together one reading
    of their segments is enough."""
    if not intervals:
        return []
    begin, end = min(interval[0] for interval in intervals), max(interval[1] for interval in intervals)
    most = _SEGMENTS_OF_EACH * len(intervals)
    cursor = connection.cursor()
    cursor.row_factory = None
    rows = cursor.execute(
        f"SELECT began, began + duration, size FROM segments {_BETWEEN} ORDER BY began, file LIMIT ?4",  # noqa: S608
        (camera, end, begin, most),
    ).fetchall()
    if len(rows) == most:
        return [sum_between(connection, camera, *interval, gap) for interval in intervals]
    if not rows:
        return [_NONE] * len(intervals)
    begins, ends, sizes = zip(*rows, strict=True)
    if any(map(gt, ends, ends[1:])):
        # One lies within another, which needs a closer look than positions in a row.
        return [sum_between(connection, camera, *interval, gap) for interval in intervals]
    return list(_add_up(begins, ends, sizes, intervals, gap))


def _add_up(
    begins: Sequence[float], ends: Sequence[float], sizes: Sequence[int], intervals: Sequence[tuple[float, float]],
    gap: float,
) -> Iterator[Sums]:  # fmt: skip
    """Of segments whose begins and ends both are in order."""
    size = list(accumulate(sizes, initial=0))
    seconds = list(accumulate(map(sub, ends, begins), initial=0.0))
    # At n: how many of the first n segments are behind a gap.
    pauses = map(sub, begins[1:], ends)
    gaps = [0, *accumulate((pause > gap for pause in pauses), initial=0)]
    for begin, end in intervals:
        first, last = bisect_right(ends, begin), bisect_left(begins, end)
        if first >= last:
            yield _NONE
            continue
        duration = seconds[last] - seconds[first]
        at = first
        while at < last and begins[at] < begin:
            duration -= begin - begins[at]
            at += 1
        at = last
        while at > first and ends[at - 1] > end:
            at -= 1
            duration -= ends[at] - end
        yield Sums(last - first, size[last] - size[first], duration, gaps[last] - gaps[first + 1], ends[last - 1])


def list_spans(
    connection: sqlite3.Connection, camera: str, begin: float, end: float, limit: int
) -> list[tuple[float, float]]:
    """(begin, end), Unix seconds, of the first so many segments of a camera in [begin, end), oldest first."""
    rows = connection.execute(
        f"SELECT began, began + duration FROM segments {_BETWEEN} ORDER BY began, file LIMIT ?4",  # noqa: S608
        (camera, end, begin, limit),
    )
    return [(row[0], row[1]) for row in rows]


def list_layouts(connection: sqlite3.Connection, camera: str, begin: float, end: float, limit: int) -> list[LaidOut]:
    """The first so many segments of a camera that share some time with [begin, end), oldest first."""
    rows = connection.execute(
        f"SELECT file, began, duration, layout FROM segments {_BETWEEN} ORDER BY began, file LIMIT ?4",  # noqa: S608
        (camera, end, begin, limit),
    )
    return [LaidOut(*row) for row in rows]


def find_layouts(connection: sqlite3.Connection, files: Iterable[str]) -> list[LaidOut]:
    """These files, of those that are known."""
    found = []
    for file in files:
        row = connection.execute(
            "SELECT file, began, duration, layout FROM segments WHERE file = ?", (file,)
        ).fetchone()
        if row is not None:
            found.append(LaidOut(*row))
    return found


def save_layouts(connection: sqlite3.Connection, layouts: Mapping[str, bytes]) -> None:
    """File → its layout, of files that are known."""
    connection.executemany(
        "UPDATE segments SET layout = ? WHERE file = ?", [(layout, file) for file, layout in layouts.items()]
    )


def find(connection: sqlite3.Connection, file: str) -> SegmentRow | None:
    """By its path below the folder of recordings."""
    found = _many(connection, "WHERE file = ?", file)
    return found[0] if found else None


def first_begin(connection: sqlite3.Connection) -> float | None:
    """When the oldest segment of all cameras began, Unix seconds; None where there is none."""
    found = connection.execute("SELECT began FROM segments ORDER BY began LIMIT 1").fetchone()
    return None if found is None else float(found[0])


def last_end(connection: sqlite3.Connection, camera: str) -> float | None:
    """Where the newest segment of a camera ends, Unix seconds; None where there is none."""
    found = connection.execute(
        "SELECT began + duration FROM segments WHERE camera = ? ORDER BY began DESC LIMIT 1", (camera,)
    ).fetchone()
    return None if found is None else float(found[0])


def find_before(connection: sqlite3.Connection, camera: str, at: float) -> SegmentRow | None:
    """The last segment of a camera that began at this time or before."""
    rows = _many(connection, "WHERE camera = ? AND began <= ? ORDER BY began DESC LIMIT 1", camera, at)
    return rows[0] if rows else None


def list_oldest(connection: sqlite3.Connection, camera: str, limit: int, after: Place = FIRST) -> list[SegmentRow]:
    """The oldest of a camera that come behind a place."""
    return _many(
        connection, "WHERE camera = ? AND (began, file) > (?, ?) ORDER BY began, file LIMIT ?", camera, *after, limit
    )


def list_files(connection: sqlite3.Connection, after: str, limit: int) -> list[str]:
    """The files that come after this one by name."""
    rows = connection.execute("SELECT file FROM segments WHERE file > ? ORDER BY file LIMIT ?", (after, limit))
    return [row[0] for row in rows]


def sums(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Camera → (files, bytes), for each that has some."""
    rows = connection.execute("SELECT camera, files, bytes FROM segment_sums WHERE files > 0")
    return {row[0]: (row[1], row[2]) for row in rows}


def _many(connection: sqlite3.Connection, clause: str, *values: object) -> list[SegmentRow]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM segments {clause}", values)  # noqa: S608
    return [SegmentRow(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]
