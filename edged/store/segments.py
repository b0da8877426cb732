"""The index of recorded files, in the usage database; a scan can rebuild it. Functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

_COLUMNS: Final = "file, camera, began, duration, size, recovered"

#: No segment is longer: MediaMTX cuts at the first key frame after a minute.
_LONGEST_SECONDS: Final = 7200.0


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One closed file of a camera.

    `file` is its path below the folder of recordings; `began` Unix seconds by the clock of then; `duration` seconds,
    from the samples; `size` bytes; `recovered`: its writer did not close it.
    """

    file: str
    camera: str
    began: float
    duration: float
    size: int
    recovered: bool = False

    @property
    def ended(self) -> float:
        """Unix seconds."""
        return self.began + self.duration


def insert(connection: sqlite3.Connection, rows: Iterable[SegmentRow]) -> None:
    """New ones; a file that is known is described anew."""
    connection.executemany(
        f"INSERT OR REPLACE INTO segments ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
        [(row.file, row.camera, row.began, row.duration, row.size, int(row.recovered)) for row in rows],
    )


def remove(connection: sqlite3.Connection, files: Collection[str]) -> None:
    """These files are gone."""
    connection.executemany("DELETE FROM segments WHERE file = ?", [(file,) for file in files])


def list_between(connection: sqlite3.Connection, camera: str, begin: float, end: float) -> list[SegmentRow]:
    """The segments of a camera that share some time with [begin, end), oldest first."""
    return _many(
        connection,
        "WHERE camera = ? AND began < ? AND began > ? AND began + duration > ? ORDER BY began",
        camera, end, begin - _LONGEST_SECONDS, begin,
    )  # fmt: skip


def list_spans(
    connection: sqlite3.Connection, camera: str, begin: float, end: float, limit: int
) -> list[tuple[float, float]]:
    """(begin, end), Unix seconds, of the first so many segments of a camera in [begin, end), oldest first."""
    rows = connection.execute(
        "SELECT began, began + duration FROM segments"
        " WHERE camera = ? AND began < ? AND began > ? AND began + duration > ? ORDER BY began LIMIT ?",
        (camera, end, begin - _LONGEST_SECONDS, begin, limit),
    )
    return [(row[0], row[1]) for row in rows]


def find(connection: sqlite3.Connection, file: str) -> SegmentRow | None:
    """By its path below the folder of recordings."""
    found = _many(connection, "WHERE file = ?", file)
    return found[0] if found else None


def last_end(connection: sqlite3.Connection, camera: str) -> float | None:
    """Where the newest segment of a camera ends, Unix seconds; None where there is none."""
    found = connection.execute(
        "SELECT began + duration FROM segments WHERE camera = ? ORDER BY began DESC LIMIT 1", (camera,)
    ).fetchone()
    return None if found is None else float(found[0])


def list_oldest(connection: sqlite3.Connection, limit: int, offset: int = 0) -> list[SegmentRow]:
    """The oldest of all cameras."""
    return _many(connection, "ORDER BY began, file LIMIT ? OFFSET ?", limit, offset)


def list_files(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[str, int]]:
    """(file, size) of the files that come after this one by name."""
    rows = connection.execute("SELECT file, size FROM segments WHERE file > ? ORDER BY file LIMIT ?", (after, limit))
    return [(row[0], row[1]) for row in rows]


def sums(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Camera → (files, bytes)."""
    rows = connection.execute("SELECT camera, count(*), sum(size) FROM segments GROUP BY camera")
    return {row[0]: (row[1], row[2]) for row in rows}


def _many(connection: sqlite3.Connection, clause: str, *values: object) -> list[SegmentRow]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM segments {clause}", values)  # noqa: S608
    return [SegmentRow(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]
