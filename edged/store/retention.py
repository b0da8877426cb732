"""The retention policy that an administrator has set, in the trust database. Functions of a connection."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal

import msgspec

_NAME: Final = "retention"


class RetentionSetting(msgspec.Struct, frozen=True):
    """`policy_type` is what is limited: `age`, `size`, or nothing (`manual`); days, and GB of 10^9 bytes.

    Where `enabled` is False recordings are deleted for lack of space only.
    """

    policy_type: Literal["age", "size", "manual"]
    enabled: bool
    max_age_days: float = 0.0
    max_size_gb: float = 0.0


def load(connection: sqlite3.Connection) -> RetentionSetting | None:
    """None where nobody has set one: the settings hold."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_NAME,)).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=RetentionSetting)


def save(connection: sqlite3.Connection, setting: RetentionSetting | None) -> None:
    """From here on; None: the settings hold."""
    if setting is None:
        connection.execute("DELETE FROM meta WHERE name = ?", (_NAME,))
        return
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_NAME, msgspec.json.encode(setting).decode()),
    )
