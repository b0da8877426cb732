"""What is denied, on disk: identities (`key:…`, `jti:…`, `token:<sha256>`). Functions of a connection.

Nothing is pruned because the clock says so (design: the clock is not trusted until it is); `until` is
kept so that a later version may.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edged.store import api_keys


@dataclass(frozen=True, slots=True)
class Revocation:
    """One identity, denied since `at`; `until` it ends by itself, None if never or unknown. Unix seconds."""

    identity: str
    at: float
    until: float | None = None
    reason: str = ""

    @property
    def key_id(self) -> str:
        """The API key that this names, "" for a token."""
        kind, _, name = self.identity.partition(":")
        return name if kind == "key" else ""


def load(connection: sqlite3.Connection) -> list[Revocation]:
    """Everything that is denied."""
    rows = connection.execute("SELECT identity, at, until, reason FROM revocations ORDER BY at, identity")
    return [Revocation(*row) for row in rows]


def add(connection: sqlite3.Connection, revocations: Sequence[Revocation]) -> None:
    """Deny these, and mark the API keys among them revoked.

    One that is denied already keeps its first time and reason, and ends later if told so.
    """
    connection.executemany(
        "INSERT INTO revocations (identity, at, until, reason) VALUES (?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE"
        # No known end is the latest one.
        " SET until = CASE WHEN until IS NULL OR excluded.until IS NULL THEN NULL ELSE max(until, excluded.until) END",
        [(item.identity, item.at, item.until, item.reason) for item in revocations],
    )
    for item in revocations:
        if item.key_id:
            api_keys.revoke(connection, item.key_id, item.at)
