"""Single values on disk. Functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_HIGH_WATER = "high_water"
_EPOCH = "epoch"
_PRUNED = "pruned"
_COMMITS = "commits"


def load_high_water(connection: sqlite3.Connection) -> float:
    """The clock's high-water mark, Unix seconds; 0.0 if none was stored (contract 10.9)."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_HIGH_WATER,)).fetchone()
    return float(row[0]) if row else 0.0


def save_high_water(connection: sqlite3.Connection, mark: float) -> None:
    """Raise the mark; a lower one changes nothing."""
    _raise(connection, _HIGH_WATER, mark)


def replace_high_water(connection: sqlite3.Connection, mark: float) -> None:
    """Set the mark to any value: root's word (contract 10.9)."""
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_HIGH_WATER, mark),
    )


def load_epoch(connection: sqlite3.Connection) -> int:
    """The counter of cut-offs and of changes of users that ended tokens (contract 10.8)."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_EPOCH,)).fetchone()
    return int(row[0]) if row else 0


def save_epoch(connection: sqlite3.Connection, epoch: int) -> None:
    """Raise the counter; a lower one changes nothing."""
    _raise(connection, _EPOCH, epoch)


def with_epoch(epoch: int, transaction: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    """The same transaction, and the counter raised in it."""

    def both(connection: sqlite3.Connection) -> T:
        save_epoch(connection, epoch)
        return transaction(connection)

    return both


def load_commits(connection: sqlite3.Connection) -> int:
    """How many commits this file has been through, as far as they were counted; 0 before the first that was."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_COMMITS,)).fetchone()
    return int(row[0]) if row else 0


def count_commit(connection: sqlite3.Connection) -> int:
    """One more; which number it has. Part of every transaction that changes something (store.database)."""
    row = connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        " RETURNING value",
        (_COMMITS,),
    ).fetchone()
    return int(row[0])


def raise_commits(connection: sqlite3.Connection, number: int) -> None:
    """Go on counting from here; a lower number changes nothing."""
    _raise(connection, _COMMITS, number)


def load_pruned(connection: sqlite3.Connection) -> float:
    """When revocations that had ended by themselves were deleted last, Unix seconds; 0.0 if never."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_PRUNED,)).fetchone()
    return float(row[0]) if row else 0.0


def save_pruned(connection: sqlite3.Connection, at: float) -> None:
    """Raise it; an earlier time changes nothing."""
    _raise(connection, _PRUNED, at)


def forget_pruned(connection: sqlite3.Connection) -> None:
    """Every token of before was ended: what was revoked among them matters no more."""
    connection.execute("DELETE FROM meta WHERE name = ?", (_PRUNED,))


def _raise(connection: sqlite3.Connection, name: str, value: float) -> None:
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE"
        " SET value = max(value, excluded.value)",
        (name, value),
    )
