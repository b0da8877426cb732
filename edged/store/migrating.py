"""A database file is brought to the last of its numbered steps (store.migrations).

A file's `PRAGMA user_version` is the number of steps it has been through. Each step and its number
are one transaction, so that a power cut leaves a file at one version or the next. A file that has been
through some of them is compared, by sqlite-utils, with what they make: before the first step that it lacks,
and before the last one is committed (store/schemas.py). A new file and one that is up to date are not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from edged.store.migrations import Migrations

#: How an SQLite file begins (https://sqlite.org/fileformat2.html#the_database_header).
_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100


class NewerSchema(Exception):
    """The file went through more steps than this program knows."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"schema {found}, known {known}")
        self.found = found
        self.known = known


class NotOurs(Exception):
    """The file holds tables but none of our versions; the text names some of them."""


class Incomplete(Exception):
    """The file says that it went through our steps, and what these make is not there; the text says what."""


def _no_copy(_schema: int) -> None:
    """Nothing in this file is worth a copy."""


def migrate(
    connection: sqlite3.Connection, migrations: Migrations, back_up: Callable[[int], object] = _no_copy
) -> None:
    """Bring a file up to date; one that is needs no write at all.

    `back_up` is told the schema of a file that has one before the first step changes it; what it raises ends the
    migration. Raises NewerSchema, NotOurs, Incomplete, sqlite3.Error; the file is then as it was, or at an earlier
    step.
    """
    found = check(connection, migrations)
    if found == len(migrations):
        return
    if found > 0:
        # A step would fail half-way, or build on something else than it was written for.
        _check_schema(connection, migrations[:found])
        back_up(found)
    for number, statements in enumerate(migrations[found:], start=found + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            if found > 0 and number == len(migrations):
                _check_schema(connection, migrations)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check(connection: sqlite3.Connection, migrations: Migrations) -> int:
    """How many steps a file has been through that these migrations may go on with. Reads only.

    Raises NewerSchema, NotOurs, Incomplete, sqlite3.Error.
    """
    found = schema_version(connection)
    if found > len(migrations):
        raise NewerSchema(found, len(migrations))
    if found < 0:
        raise Incomplete(f"its schema is numbered {found}")
    _check_whole(connection, migrations[:found])
    if found == 0:
        _refuse_foreign(connection)
    return found


def is_older(path: Path, migrations: Migrations) -> bool:
    """Whether a file was made by fewer steps than these, by its header alone: nothing is opened as a database.

    SQLite keeps the number at offset 60 (https://sqlite.org/fileformat2.html, 1.3.16); a log that is not yet in the
    file may hold a higher one. False for a new file, and for what cannot be read or is no database.
    """
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEADER_SIZE)
    if len(head) < _HEADER_SIZE or not head.startswith(_MAGIC):
        return False
    return 0 < int.from_bytes(head[60:64], "big", signed=True) < len(migrations)


def schema_version(connection: sqlite3.Connection) -> int:
    """How many steps this file has been through."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_whole(connection: sqlite3.Connection, steps: Migrations) -> None:
    """Raises Incomplete if a table is missing that these steps make: a start with none would know no denial."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for statements in steps:
            for statement in statements:
                model.execute(statement)
        wanted = _tables(model)
    if missing := sorted(wanted - _tables(connection)):
        shown = ", ".join(missing[:3]) if len(missing) < len(wanted) else "any of its tables"
        raise Incomplete(f"it says schema {len(steps)} and has not {shown}")


def _check_schema(connection: sqlite3.Connection, steps: Migrations) -> None:
    """Raises Incomplete if anything is missing that these steps make: tables, columns, indexes, references."""
    # Not at the top: a daemon that serves never imports sqlite-utils.
    from edged.store.schemas import find_missing

    if missing := find_missing(connection, steps):
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise Incomplete(f"it says schema {len(steps)} and has not {shown}")


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    if tables := connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 3").fetchall():
        raise NotOurs(", ".join(name for (name,) in tables))
