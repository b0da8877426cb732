"""The ring of events, in the usage database: what happened, in order. Functions of a connection.

Events are numbered without holes through all starts of the daemon. A start is a *run*, with a name of its own: so a
number of a run whose last events were not saved, or of a database that was begun anew, is told from the same number
of another one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from edged.store.texts import write_texts

#: Stands for events that were not kept, since there were too many.
LOST: Final = "system.events_lost"


class EventRow(msgspec.Struct, frozen=True):
    """One event: `at` Unix seconds by the system clock of then, `kind` dotted words, `camera` "" for an event of the
    box, `details` a JSON object."""

    number: int
    at: float
    kind: str
    camera: str
    details: str


class Run(msgspec.Struct, frozen=True):
    """One start: its events are numbered from `first` on; `is_whole` once it has ended and lost none of them."""

    name: str
    first: int
    is_whole: bool


class Wanted(msgspec.Struct, frozen=True):
    """Which events: of these cameras ("" for the box), and of these kinds, each a kind or the beginning of kinds before
    a dot; no kinds means all."""

    cameras: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    def has(self, row: EventRow) -> bool:
        """Whether it is wanted."""
        return row.camera in self.cameras and (
            not self.kinds or any(row.kind == kind or row.kind.startswith(f"{kind}.") for kind in self.kinds)
        )


def load_end(connection: sqlite3.Connection) -> int:
    """The number of the newest event; 0 before the first."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()[0])


def load_runs(connection: sqlite3.Connection) -> list[Run]:
    """All that may have events in the ring, oldest first."""
    rows = connection.execute("SELECT name, first, is_whole FROM event_runs ORDER BY first")
    return [Run(row[0], row[1], bool(row[2])) for row in rows]


def load_begin(connection: sqlite3.Connection) -> int | None:
    """The number of the oldest event; None where there is none."""
    number = connection.execute("SELECT min(number) FROM events").fetchone()[0]
    return None if number is None else int(number)


def list_cameras(connection: sqlite3.Connection) -> set[str]:
    """The cameras that have an event."""
    return {row[0] for row in connection.execute("SELECT DISTINCT camera FROM events")}


def save(connection: sqlite3.Connection, run: Run, rows: Iterable[EventRow]) -> None:
    """New events of a run."""
    connection.execute(
        "INSERT INTO event_runs (name, first, is_whole) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET is_whole = excluded.is_whole WHERE is_whole <> excluded.is_whole",
        (run.name, run.first, int(run.is_whole)),
    )
    connection.executemany(
        "INSERT INTO events (number, at, kind, camera, details) VALUES (?, ?, ?, ?, ?)",
        [(row.number, row.at, row.kind, row.camera, row.details) for row in rows],
    )


def trim(connection: sqlite3.Connection, before: int) -> None:
    """Delete the events below this number, and the runs that have none any more."""
    connection.execute("DELETE FROM events WHERE number < ?", (before,))
    connection.execute(
        "DELETE FROM event_runs WHERE first < (SELECT max(first) FROM event_runs WHERE first <= ?)", (before,)
    )


def list_after(connection: sqlite3.Connection, after: int, wanted: Wanted, limit: int) -> list[EventRow]:
    """The first that are wanted behind this number, oldest first."""
    where, values = _where(wanted)
    return _many(connection, f"WHERE number > ? AND {where} ORDER BY number LIMIT ?", after, *values, limit)


def list_newest(connection: sqlite3.Connection, wanted: Wanted, limit: int) -> list[EventRow]:
    """The newest that are wanted, oldest first."""
    where, values = _where(wanted)
    return _many(connection, f"WHERE {where} ORDER BY number DESC LIMIT ?", *values, limit)[::-1]


def list_between(
    connection: sqlite3.Connection, wanted: Wanted, begin: tuple[float, int], end: float, limit: int
) -> list[EventRow]:
    """The first that are wanted, by their times, and at the same one by their numbers: behind `begin` (time, number),
    before `end`."""
    where, values = _where(wanted)
    clause = f"WHERE at >= ? AND at < ? AND (at, number) > (?, ?) AND {where} ORDER BY at, number LIMIT ?"
    return _many(connection, clause, begin[0], end, *begin, *values, limit)


def list_containing(connection: sqlite3.Connection, camera: str, text: str, limit: int) -> list[EventRow]:
    """The first of a camera that have a text in their details, oldest first."""
    return _many(connection, "WHERE camera = ? AND instr(details, ?) > 0 ORDER BY number LIMIT ?", camera, text, limit)


class Found(msgspec.Struct, frozen=True):
    """What was read: events behind `start`, of which `is_cut` says that there are more; whether some behind the asked
    place are not to be had; and the runs that there are."""

    rows: list[EventRow]
    start: int
    is_cut: bool
    has_gap: bool
    runs: list[Run]


def read_on(
    connection: sqlite3.Connection, run: str, number: int, wanted: Wanted, limit: int, current: Run, last: int
) -> Found:
    """The first `limit` that are wanted behind the event of this number of this run; `current` is the run of now, whose
    newest event has the number `last`."""
    runs = [each for each in load_runs(connection) if each.name != current.name] + [current]
    start, has_gap = _find_start(runs, run, number, last, load_begin(connection))
    rows = list_after(connection, start, wanted, limit + 1)
    is_cut = len(rows) > limit
    end = rows[limit - 1].number if is_cut else load_end(connection)
    reached = end if is_cut else last
    has_gap = has_gap or _crosses_loss(runs, start, reached) or _has_lost(connection, start, end)
    return Found(rows[:limit], start, is_cut, has_gap, runs)


def _find_start(runs: Sequence[Run], run: str, number: int, last: int, begin: int | None) -> tuple[int, bool]:
    """(Behind which number to read on; whether events before that are missing)."""
    oldest = (runs[-1].first if begin is None else begin) - 1
    at = next((at for at, each in enumerate(runs) if each.name == run), None)
    if at is None:
        return oldest, True
    end = runs[at + 1].first - 1 if at + 1 < len(runs) else last
    if number < oldest:
        return oldest, True
    # What this run counted behind its last saved event is lost; others have these numbers now.
    return min(number, end), number > end


def _crosses_loss(runs: Sequence[Run], start: int, end: int) -> bool:
    """Whether a run that lies in between may have lost its last events."""
    pairs = pairwise(runs)
    return any(not each.is_whole and start <= following.first - 1 < end for each, following in pairs)


def _has_lost(connection: sqlite3.Connection, after: int, until: int) -> bool:
    found = connection.execute(
        "SELECT 1 FROM events WHERE number > ? AND number <= ? AND kind = ? LIMIT 1", (after, until, LOST)
    )
    return found.fetchone() is not None


def _where(wanted: Wanted) -> tuple[str, Sequence[object]]:
    where, values = "camera IN (SELECT value FROM json_each(?))", [write_texts(wanted.cameras)]
    if wanted.kinds:
        # A kind and all below it: "/" is the character behind the dot.
        one = "kind = ? OR (kind > ? AND kind < ?)"
        where += f" AND ({' OR '.join([one] * len(wanted.kinds))})"
        for kind in wanted.kinds:
            values += [kind, f"{kind}.", f"{kind}/"]
    return where, values


def _many(connection: sqlite3.Connection, clause: str, *values: object) -> list[EventRow]:
    rows = connection.execute(f"SELECT number, at, kind, camera, details FROM events {clause}", values)  # noqa: S608
    return [EventRow(*row) for row in rows]
