"""The retention policies that an administrator has set, in the trust database. Functions of a connection."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal, TypeAlias

import msgspec

_NAME: Final = "retention"
_LIMITS: Final = "camera_limits"
#: Camera → seconds and bytes, None for no limit.
Limits: TypeAlias = dict[str, tuple[float | None, int | None]]


class RetentionSetting(msgspec.Struct, frozen=True):
    """`policy_type` is what is limited: `age`, `size`, or nothing (`manual`); days, and GB of 10^9 bytes.

    Where `enabled` is False recordings are deleted for lack of space only.
    """

    policy_type: Literal["age", "size", "manual"]
    enabled: bool
    max_age_days: float = 0.0
    max_size_gb: float = 0.0


def load(connection: sqlite3.Connection) -> dict[str, RetentionSetting]:
    """What was set, by camera, "" for all cameras; where nobody has set one, the settings hold."""
    rows = connection.execute(
        "SELECT name, value FROM meta WHERE name = ?1 OR (name >= ?1 || ':' AND name < ?1 || ';')", (_NAME,)
    )
    return {
        name.removeprefix(_NAME).removeprefix(":"): msgspec.json.decode(value, type=RetentionSetting)
        for name, value in rows
    }


def save(connection: sqlite3.Connection, camera: str, setting: RetentionSetting | None) -> None:
    """From here on, of a camera or ("") of all; None takes back what was set."""
    name = f"{_NAME}:{camera}" if camera else _NAME
    if setting is None:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
        return
    _put(connection, name, setting)


def load_limits(connection: sqlite3.Connection) -> Limits:
    """What cameras were limited to by their settings, as far as that was noted."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_LIMITS,)).fetchone()
    return {} if row is None else msgspec.json.decode(row[0], type=Limits)


def save_limits(connection: sqlite3.Connection, limits: Limits) -> None:
    """From here on."""
    _put(connection, _LIMITS, limits)


def _put(connection: sqlite3.Connection, name: str, value: object) -> None:
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, msgspec.json.encode(value).decode()),
    )
