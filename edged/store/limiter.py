"""Who is being slowed down, and where users were known to come from, on disk. Functions of a connection.

No time of day stands here: seconds that are left, and seconds of age. A box that does not know the time goes on
where it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec


class Offender(msgspec.Struct, frozen=True):
    """Someone who guesses: `axis` address or subject; `wait` seconds are left of the back-off number `level`."""

    axis: str
    name: str
    level: int
    wait: float


class KnownPlace(msgspec.Struct, frozen=True):
    """An address from which a subject came in `age` seconds ago."""

    subject: str
    address: str
    age: float


def load_offenders(connection: sqlite3.Connection) -> list[Offender]:
    """All of them."""
    return [Offender(*row) for row in connection.execute("SELECT axis, name, level, wait FROM offenders")]


def load_places(connection: sqlite3.Connection) -> list[KnownPlace]:
    """All of them, the oldest first."""
    found = connection.execute("SELECT subject, address, age FROM known_places ORDER BY age DESC")
    return [KnownPlace(*row) for row in found]


def replace(connection: sqlite3.Connection, offenders: Iterable[Offender], places: Iterable[KnownPlace]) -> None:
    """These instead of what is there."""
    connection.execute("DELETE FROM offenders")
    connection.execute("DELETE FROM known_places")
    connection.executemany(
        "INSERT INTO offenders (axis, name, level, wait) VALUES (?, ?, ?, ?)",
        [(item.axis, item.name, item.level, item.wait) for item in offenders],
    )
    connection.executemany(
        "INSERT INTO known_places (subject, address, age) VALUES (?, ?, ?)",
        [(item.subject, item.address, item.age) for item in places],
    )
