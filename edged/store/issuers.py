"""The last good keys of outside issuers on disk. Functions of a connection."""

from __future__ import annotations

import sqlite3

import msgspec


class StoredKeys(msgspec.Struct, frozen=True):
    """What an issuer published: by its name in the settings, from where, as the text that came, at Unix seconds."""

    name: str
    source: str
    keys: str
    fetched_at: float


def load(connection: sqlite3.Connection) -> list[StoredKeys]:
    """Of every issuer that there ever was, also of those that are not trusted any more."""
    rows = connection.execute("SELECT name, source, keys, fetched_at FROM issuers ORDER BY name")
    return [StoredKeys(*row) for row in rows]


def save(connection: sqlite3.Connection, item: StoredKeys) -> None:
    """In the place of what was there under this name."""
    connection.execute(
        "INSERT OR REPLACE INTO issuers (name, source, keys, fetched_at) VALUES (?, ?, ?, ?)",
        (item.name, item.source, item.keys, item.fetched_at),
    )
