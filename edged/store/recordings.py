"""Recordings, in the trust database: named intervals of a camera. Functions of a connection.

Their bytes are segments (store.segments), which a scan of the folder finds again; names, intervals and protection are
nowhere else. Times are Unix seconds.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection
from typing import Final, Literal, TypeAlias

import msgspec

Format: TypeAlias = Literal["fmp4", "mp4", "mkv"]

#: Where a recording stands in the order of cameras: its camera, when it began (Unix seconds), and its id.
Place: TypeAlias = tuple[str, float, str]
#: Before every recording.
FIRST: Final[Place] = ("", 0.0, "")
_COLUMNS: Final = (
    "recording_id, filename, camera, format, began, ended, until, reason, made_by, is_protected, deleted_at,"
    " delete_reason, pre_roll"
)


class RecordingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One recording.

    `filename` is unique, with its ending; `ended` is None while it runs; `until` is when it ends by itself, None for
    never; `reason` why it was made (`manual`); `made_by` who asked for it, for the log; `deleted_at` and
    `delete_reason` of one whose bytes are gone: its row stays, so that the name is not used again unnoticed;
    `pre_roll` how many seconds before it was asked for it begins.
    """

    recording_id: str
    filename: str
    camera: str
    format: Format
    began: float
    ended: float | None = None
    until: float | None = None
    reason: str = "manual"
    made_by: str = ""
    is_protected: bool = False
    deleted_at: float | None = None
    delete_reason: str = ""
    pre_roll: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it has not been stopped."""
        return self.ended is None


def insert(connection: sqlite3.Connection, record: RecordingRecord) -> None:
    """A new one. Raises sqlite3.IntegrityError if its name is taken."""
    connection.execute(
        f"INSERT INTO recordings ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            record.recording_id, record.filename, record.camera, record.format, record.began, record.ended,
            record.until, record.reason, record.made_by, int(record.is_protected), record.deleted_at,
            record.delete_reason, record.pre_roll,
        ),
    )  # fmt: skip


def end(connection: sqlite3.Connection, recording_id: str, began: float, ended: float) -> None:
    """It was stopped, and this is its interval; once it is, a later stop changes nothing."""
    connection.execute(
        "UPDATE recordings SET began = ?, ended = ? WHERE recording_id = ? AND ended IS NULL",
        (began, max(began, ended), recording_id),
    )


def prolong(connection: sqlite3.Connection, recording_id: str, until: float) -> bool:
    """It ends by itself at this time, if it would have ended before; whether it runs and ends by itself."""
    found = connection.execute(
        "UPDATE recordings SET until = max(until, ?) WHERE recording_id = ? AND ended IS NULL AND until IS NOT NULL",
        (until, recording_id),
    )
    return found.rowcount == 1


def shorten(connection: sqlite3.Connection, recording_id: str, until: float | None) -> None:
    """It ends by itself at this time, while it runs."""
    connection.execute(
        "UPDATE recordings SET until = ? WHERE recording_id = ? AND ended IS NULL", (until, recording_id)
    )


def delete(connection: sqlite3.Connection, recording_ids: Collection[str], at: float, reason: str) -> None:
    """Their bytes are to go; the rows stay."""
    connection.executemany(
        "UPDATE recordings SET deleted_at = ?, delete_reason = ?, ended = coalesce(ended, max(began, ?))"
        " WHERE recording_id = ? AND deleted_at IS NULL",
        [(at, reason, at, recording_id) for recording_id in recording_ids],
    )


def forget(connection: sqlite3.Connection, recording_id: str) -> None:
    """It was not to be begun: no row stays."""
    connection.execute("DELETE FROM recordings WHERE recording_id = ?", (recording_id,))


def resume(connection: sqlite3.Connection, recording_id: str, began: float) -> None:
    """It was not to be stopped: it runs, with this beginning."""
    connection.execute("UPDATE recordings SET ended = NULL, began = ? WHERE recording_id = ?", (began, recording_id))


def keep(connection: sqlite3.Connection, recording_ids: Collection[str], at: float) -> None:
    """These were not to be deleted at that time."""
    connection.executemany(
        "UPDATE recordings SET deleted_at = NULL, delete_reason = '' WHERE recording_id = ? AND deleted_at = ?",
        [(recording_id, at) for recording_id in recording_ids],
    )


def is_taken(connection: sqlite3.Connection, filename: str) -> bool:
    """Whether a recording has, or had, this name."""
    return connection.execute("SELECT 1 FROM recordings WHERE filename = ?", (filename,)).fetchone() is not None


def load_running(connection: sqlite3.Connection) -> list[RecordingRecord]:
    """Those that have not been stopped, oldest first."""
    return _many(connection, "WHERE ended IS NULL AND deleted_at IS NULL ORDER BY began")


def find(connection: sqlite3.Connection, name: str) -> RecordingRecord | None:
    """By file name, with or without its ending, or by id (C-39); None also for a deleted one. Among several that lack
    only their ending the newest."""
    rows = _many(
        connection,
        "WHERE deleted_at IS NULL AND (filename = ?1 OR recording_id = ?1 OR stem = ?1)"
        " ORDER BY (filename = ?1) DESC, began DESC LIMIT 1",
        name,
    )
    return rows[0] if rows else None


def list_cameras(connection: sqlite3.Connection) -> list[str]:
    """The cameras that have a recording."""
    rows = connection.execute("SELECT camera FROM recording_sums WHERE number > 0 ORDER BY camera")
    return [row[0] for row in rows]


def list_page(
    connection: sqlite3.Connection,
    cameras: Collection[str],
    *,
    limit: int,
    offset: int,
    after: tuple[float, str] | None = None,
) -> tuple[list[RecordingRecord], int]:
    """(`limit` recordings of these cameras, newest first, from `offset` on; how many there are in all).

    `after`: only those behind the recording with this beginning (Unix seconds) and id, which may be gone.
    """
    wanted = json.dumps(list(cameras))
    (total,) = connection.execute(
        "SELECT coalesce(sum(number), 0) FROM recording_sums WHERE camera IN (SELECT value FROM json_each(?))",
        (wanted,),
    ).fetchone()
    # The index by age gives the order and all that is asked here: of what `offset` passes over nothing else is read.
    found = _many(
        connection,
        "INDEXED BY recordings_by_age WHERE deleted_at IS NULL AND (began, recording_id) < (?, ?)"
        " AND camera IN (SELECT value FROM json_each(?)) ORDER BY began DESC, recording_id DESC LIMIT ? OFFSET ?",
        *(after or (math.inf, "")), wanted, limit, offset,
    )  # fmt: skip
    return found, total


def list_after(connection: sqlite3.Connection, after: Place, limit: int) -> list[RecordingRecord]:
    """Those that were not deleted and come behind a place."""
    return _many(
        connection,
        "WHERE deleted_at IS NULL AND (camera, began, recording_id) > (?, ?, ?)"
        " ORDER BY camera, began, recording_id LIMIT ?",
        *after, limit,
    )  # fmt: skip


def place_of(record: RecordingRecord) -> Place:
    """Where it stands in `list_after`."""
    return record.camera, record.began, record.recording_id


def list_unswept(connection: sqlite3.Connection, limit: int) -> list[RecordingRecord]:
    """Those that callers deleted, whose files were not looked for once more since; oldest first."""
    return _many(
        connection,
        "WHERE delete_reason = 'request' AND is_swept = 0 ORDER BY deleted_at, recording_id LIMIT ?",
        limit,
    )


def note_swept(connection: sqlite3.Connection, recording_ids: Collection[str]) -> None:
    """There is no file of these any more."""
    connection.executemany(
        "UPDATE recordings SET is_swept = 1 WHERE recording_id = ?", [(each,) for each in recording_ids]
    )


def prune(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget those that were deleted before this, Unix seconds, at most `limit`; how many. Their names are free."""
    return connection.execute(
        "DELETE FROM recordings WHERE recording_id IN (SELECT recording_id FROM recordings"
        " WHERE deleted_at IS NOT NULL AND deleted_at < ? AND (is_swept = 1 OR delete_reason <> 'request')"
        " ORDER BY deleted_at LIMIT ?)",
        (before, limit),
    ).rowcount


def protect(connection: sqlite3.Connection, recording_id: str, is_protected: bool) -> bool:
    """Have it kept, or not any more; False if it was deleted."""
    found = connection.execute(
        "UPDATE recordings SET is_protected = ? WHERE recording_id = ? AND deleted_at IS NULL",
        (int(is_protected), recording_id),
    )
    return found.rowcount == 1


def is_protected(connection: sqlite3.Connection, recording_id: str) -> bool:
    """Whether it is kept."""
    row = connection.execute("SELECT is_protected FROM recordings WHERE recording_id = ?", (recording_id,)).fetchone()
    return row is not None and bool(row[0])


def list_protected(connection: sqlite3.Connection) -> list[tuple[str, float, float]]:
    """(camera, when it begins and ends, Unix seconds) of each protected recording, by camera and beginning."""
    rows = connection.execute(
        "SELECT camera, began, ended FROM recordings WHERE deleted_at IS NULL AND is_protected = 1"
        " ORDER BY camera, began"
    )
    return [(row[0], row[1], math.inf if row[2] is None else row[2]) for row in rows]


def list_overlapping(connection: sqlite3.Connection, camera: str, begin: float, end_: float) -> list[RecordingRecord]:
    """The recordings of a camera that share some time with [begin, end), oldest first."""
    ended = _many(
        connection,
        "WHERE deleted_at IS NULL AND camera = ?1 AND began < ?2 AND ended > ?3"
        " AND began >= ?3 - (SELECT longest FROM recording_sums WHERE recording_sums.camera = ?1)"
        " ORDER BY began, recording_id",
        camera, end_, begin,
    )  # fmt: skip
    running = [row for row in load_running(connection) if row.camera == camera and row.began < end_]
    return sorted((*ended, *running), key=lambda row: (row.began, row.recording_id))


def _many(connection: sqlite3.Connection, clause: str, *values: object) -> list[RecordingRecord]:
    cursor = connection.cursor()
    # In the order of _COLUMNS; by their names it takes three times as long.
    cursor.row_factory = None
    rows = cursor.execute(f"SELECT {_COLUMNS} FROM recordings {clause}", values)  # noqa: S608
    return [
        RecordingRecord(
            recording_id=id_, filename=filename, camera=camera, format=form, began=began, ended=ended, until=until,
            reason=reason, made_by=made_by, is_protected=bool(is_protected), deleted_at=deleted_at,
            delete_reason=delete_reason, pre_roll=pre_roll,
        )
        for id_, filename, camera, form, began, ended, until, reason, made_by, is_protected, deleted_at, delete_reason,
        pre_roll in rows
    ]  # fmt: skip
