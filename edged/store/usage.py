"""How often and when each credential was used, on disk. Functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec


class Tally(msgspec.Struct, frozen=True):
    """Uses of one credential: `last_used` Unix seconds, `count` how often it was shown. One is made for each."""

    credential_id: str
    last_used: float
    count: int


def load(connection: sqlite3.Connection) -> list[Tally]:
    """Every tally."""
    return [Tally(*row) for row in connection.execute("SELECT credential_id, last_used, count FROM tallies")]


def save(connection: sqlite3.Connection, tallies: Iterable[Tally]) -> None:
    """Tallies as they stand: totals, not differences, so that a write may be repeated."""
    connection.executemany(
        "INSERT INTO tallies (credential_id, last_used, count) VALUES (?, ?, ?) ON CONFLICT (credential_id) DO UPDATE"
        " SET last_used = excluded.last_used, count = excluded.count",
        [(tally.credential_id, tally.last_used, tally.count) for tally in tallies],
    )
