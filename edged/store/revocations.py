"""What is denied, on disk: identities (`key:…`, `jti:…`, `token:<sha256>`). Functions of a connection.

Nothing is pruned because the clock says so (design: the clock is not trusted until it is); `until` is
kept so that a later version may.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revocation:
    """One identity, denied since `at`; `until` it ends by itself, None if never or unknown. Unix seconds."""

    identity: str
    at: float
    until: float | None = None
    reason: str = ""


def load(connection: sqlite3.Connection) -> list[Revocation]:
    """Everything that is denied."""
    rows = connection.execute("SELECT identity, at, until, reason FROM revocations ORDER BY at, identity")
    return [Revocation(*row) for row in rows]


def add(connection: sqlite3.Connection, revocations: Iterable[Revocation]) -> None:
    """Deny these; one that is denied already keeps its first time and reason, and ends later if told so."""
    connection.executemany(
        "INSERT INTO revocations (identity, at, until, reason) VALUES (?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE"
        # No known end is the latest one.
        " SET until = CASE WHEN until IS NULL OR excluded.until IS NULL THEN NULL ELSE max(until, excluded.until) END",
        [(item.identity, item.at, item.until, item.reason) for item in revocations],
    )
