"""Seals of recorded files. Functions of a connection.

In the usage database which file has which number and digest: the seals themselves stand beside the files, and a scan
makes this again. In the trust database what stands nowhere else: the name of each camera's series, its heads and its
tombstones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from edged.store.segments import SegmentRow

Kind: TypeAlias = Literal["head", "tombstone"]

_COLUMNS: Final = "file, camera, series, number, digest, previous, sealed, kid"
_STATEMENTS: Final = "camera, series, kind, first, last, kid, sealed, text"


class SealRow(msgspec.Struct, frozen=True):
    """The seal of one file: its number in the series, its digest, that of the one before, when (Unix seconds) and by
    which key."""

    file: str
    camera: str
    series: str
    number: int
    digest: str
    previous: str
    sealed: float
    kid: str


class StatementRow(msgspec.Struct, frozen=True):
    """A signed head or tombstone over the numbers `first` to `last`."""

    camera: str
    series: str
    kind: Kind
    first: int
    last: int
    kid: str
    sealed: float
    text: bytes


def insert(connection: sqlite3.Connection, rows: Iterable[SealRow]) -> None:
    """New ones; a file that is known is described anew."""
    connection.executemany(
        f"INSERT OR REPLACE INTO seals ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [(row.file, row.camera, row.series, row.number, row.digest, row.previous, row.sealed, row.kid) for row in rows],
    )


def remove(connection: sqlite3.Connection, files: Collection[str]) -> None:
    """These files were deleted, and a tombstone says so."""
    connection.executemany("DELETE FROM seals WHERE file = ?", [(file,) for file in files])


def find(connection: sqlite3.Connection, files: Collection[str]) -> list[SealRow]:
    """The seals of these files, those that have one, by camera and number."""
    found = [
        _read(row)
        for file in files
        for row in connection.execute(f"SELECT {_COLUMNS} FROM seals WHERE file = ?", (file,))  # noqa: S608
    ]
    return sorted(found, key=lambda row: (row.camera, row.series, row.number))


def find_last(connection: sqlite3.Connection, series: str) -> SealRow | None:
    """The one with the highest number of a series."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM seals WHERE series = ? ORDER BY number DESC LIMIT 1",  # noqa: S608
        (series,),
    ).fetchone()
    return None if row is None else _read(row)


def list_numbers(connection: sqlite3.Connection, series: str, first: int, last: int, limit: int) -> list[SealRow]:
    """The seals of the numbers `first` to `last` of a series that there are."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM seals WHERE series = ? AND number BETWEEN ? AND ? ORDER BY number LIMIT ?",  # noqa: S608
        (series, first, last, limit),
    )
    return [_read(row) for row in found]


def list_unsealed(connection: sqlite3.Connection, after: tuple[float, str], limit: int) -> list[SegmentRow]:
    """Indexed files without a seal that come after (began, file), oldest first."""
    rows = connection.execute(
        "SELECT file, camera, began, duration, size, recovered FROM segments WHERE (began, file) > (?, ?)"
        " AND NOT EXISTS (SELECT 1 FROM seals WHERE seals.file = segments.file) ORDER BY began, file LIMIT ?",
        (*after, limit),
    )
    return [SegmentRow(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]


def list_key_times(connection: sqlite3.Connection) -> list[tuple[str, float, float]]:
    """(kid, when it sealed the first and the last of the files that there are)."""
    rows = connection.execute("SELECT kid, min(sealed), max(sealed) FROM seals GROUP BY kid")
    return [(row[0], row[1], row[2]) for row in rows]


def load_series(connection: sqlite3.Connection) -> dict[str, str]:
    """Camera → the name of its series."""
    return dict(connection.execute("SELECT camera, name FROM series").fetchall())


def name_series(connection: sqlite3.Connection, camera: str, name: str) -> str:
    """Begin the series of a camera, if it has none; its name."""
    connection.execute("INSERT OR IGNORE INTO series (camera, name) VALUES (?, ?)", (camera, name))
    return str(connection.execute("SELECT name FROM series WHERE camera = ?", (camera,)).fetchone()[0])


def save_statement(connection: sqlite3.Connection, row: StatementRow, *, most: int) -> None:
    """A head or tombstone; one that begins at the same number is replaced. Of heads the newest `most` are kept."""
    connection.execute(
        f"INSERT OR REPLACE INTO statements ({_STATEMENTS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (row.camera, row.series, row.kind, row.first, row.last, row.kid, row.sealed, row.text),
    )
    if row.kind == "head":
        connection.execute(
            "DELETE FROM statements WHERE series = ?1 AND kind = 'head' AND last <="
            " (SELECT last FROM statements WHERE series = ?1 AND kind = 'head' ORDER BY last DESC LIMIT 1 OFFSET ?2)",
            (row.series, most),
        )


def find_last_statement(connection: sqlite3.Connection, series: str, kind: Kind) -> StatementRow | None:
    """The one that ends with the highest number."""
    found = _many(connection, "WHERE series = ? AND kind = ? ORDER BY last DESC LIMIT 1", series, kind)
    return found[0] if found else None


def find_statement_before(connection: sqlite3.Connection, series: str, number: int) -> StatementRow | None:
    """The tombstone that ends right before a number."""
    found = _many(connection, "WHERE series = ? AND kind = 'tombstone' AND last = ?", series, number - 1)
    return found[0] if found else None


def count_tombstones(connection: sqlite3.Connection, series: str) -> int:
    """How many tombstones a series has."""
    query = "SELECT count(*) FROM statements WHERE series = ? AND kind = 'tombstone'"
    return int(connection.execute(query, (series,)).fetchone()[0])


def list_statements(
    connection: sqlite3.Connection, series: str, kind: Kind, first: int, last: int, limit: int
) -> list[StatementRow]:
    """Those that share a number with `first` to `last`, in order."""
    return _many(
        connection, "WHERE series = ? AND kind = ? AND last >= ? AND first <= ? ORDER BY last LIMIT ?",
        series, kind, first, last, limit,
    )  # fmt: skip


def list_statement_key_times(connection: sqlite3.Connection) -> list[tuple[str, float, float]]:
    """(kid, when it signed the first and the last of the heads and tombstones)."""
    rows = connection.execute("SELECT kid, min(sealed), max(sealed) FROM statements GROUP BY kid")
    return [(row[0], row[1], row[2]) for row in rows]


def find_distrust(connection: sqlite3.Connection, identity: str) -> float | None:
    """Since when a signing key is distrusted, Unix seconds."""
    row = connection.execute("SELECT at FROM revocations WHERE identity = ?", (identity,)).fetchone()
    return None if row is None else float(row[0])


def _read(row: sqlite3.Row) -> SealRow:
    return SealRow(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7])


def _many(connection: sqlite3.Connection, clause: str, *values: object) -> list[StatementRow]:
    rows = connection.execute(f"SELECT {_STATEMENTS} FROM statements {clause}", values)  # noqa: S608
    return [StatementRow(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]) for row in rows]
