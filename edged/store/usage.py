"""How often and when each credential was used, on disk. Functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from edged.store.texts import write_texts


class Tally(msgspec.Struct, frozen=True):
    """Uses of one credential: `last_used` Unix seconds, `count` how often it was shown. One is made for each."""

    credential_id: str
    last_used: float
    count: int


def load(connection: sqlite3.Connection) -> list[Tally]:
    """Every tally."""
    return [Tally(*row) for row in connection.execute("SELECT credential_id, last_used, count FROM tallies")]


def load_of(connection: sqlite3.Connection, credential_ids: Sequence[str]) -> list[Tally]:
    """The tallies of these credentials; of those that have one."""
    rows = connection.execute(
        "SELECT credential_id, last_used, count FROM tallies WHERE credential_id IN (SELECT value FROM json_each(?))",
        (write_texts(credential_ids),),
    )
    return [Tally(*row) for row in rows]


def forget(connection: sqlite3.Connection, credential_ids: Iterable[str]) -> None:
    """Delete the tallies of these credentials."""
    connection.executemany("DELETE FROM tallies WHERE credential_id = ?", [(each,) for each in credential_ids])


def load_trust_commits(connection: sqlite3.Connection) -> int:
    """How many commits the trust database had been through at the last flush; 0 before the first."""
    row = connection.execute("SELECT number FROM trust_commits").fetchone()
    return int(row[0]) if row else 0


def save_trust_commits(connection: sqlite3.Connection, number: int) -> None:
    """Raise that; a lower number changes nothing."""
    connection.execute(
        "INSERT INTO trust_commits (id, number) VALUES (0, ?) ON CONFLICT (id) DO UPDATE"
        " SET number = max(number, excluded.number)",
        (number,),
    )


def save(connection: sqlite3.Connection, tallies: Iterable[Tally]) -> None:
    """Tallies as they stand: totals, not differences, so that a write may be repeated."""
    connection.executemany(
        "INSERT INTO tallies (credential_id, last_used, count) VALUES (?, ?, ?) ON CONFLICT (credential_id) DO UPDATE"
        " SET last_used = excluded.last_used, count = excluded.count",
        [(tally.credential_id, tally.last_used, tally.count) for tally in tallies],
    )


def save_all(
    connection: sqlite3.Connection, tallies: Iterable[Tally], trust_commits: int, forgotten: Iterable[str] = ()
) -> None:
    """One flush; the tallies of the forgotten credentials are deleted."""
    save(connection, tallies)
    forget(connection, forgotten)
    save_trust_commits(connection, trust_commits)
