"""Families of refreshed tokens on disk. Functions of a connection.

Claims are stored, never a token's text: what a text is known by is its SHA-256. Nothing of a family is deleted before
the last of its tokens can have been used.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

import msgspec

from edged.credentials.identities import Identity, format_all


class FamilyRecord(msgspec.Struct, frozen=True):
    """All that came of one token: since when, and until when the last of them is good, Unix seconds; and `members`, by
    which a revocation hits one of them: jtis, tokens and signing keys."""

    identity: Identity
    started: float
    until: float
    members: frozenset[Identity]


def load(connection: sqlite3.Connection) -> list[FamilyRecord]:
    """Every family."""
    members: dict[str, set[Identity]] = {}
    for family_id, identity in connection.execute("SELECT family_id, identity FROM family_members"):
        members.setdefault(family_id, set()).add(Identity.parse(identity))
    rows = connection.execute("SELECT family_id, started, until FROM families ORDER BY started, family_id")
    return [
        FamilyRecord(Identity.parse(family_id), started, until, frozenset(members.get(family_id, ())))
        for family_id, started, until in rows
    ]


def find(connection: sqlite3.Connection, name: str) -> tuple[Identity, dict[str, object]] | None:
    """The family of the token that is known by this name, and the claims of its successor; None if it has none."""
    row = connection.execute("SELECT family_id, claims FROM refreshes WHERE name = ?", (name,)).fetchone()
    return None if row is None else (Identity.parse(row[0]), json.loads(row[1]))


def find_newest(connection: sqlite3.Connection, family: Identity) -> dict[str, object] | None:
    """The claims of the successor that was made last in a family; None if it has none."""
    row = connection.execute(
        "SELECT claims FROM refreshes WHERE family_id = ? ORDER BY rowid DESC LIMIT 1", (str(family),)
    ).fetchone()
    return None if row is None else json.loads(row[0])


def insert(connection: sqlite3.Connection, name: str, claims: Mapping[str, object], family: FamilyRecord) -> None:
    """A token's one successor, and what is new of its family. Raises sqlite3.IntegrityError if it has one."""
    add(connection, family)
    connection.execute(
        "INSERT INTO refreshes (name, family_id, claims) VALUES (?, ?, ?)",
        (name, str(family.identity), json.dumps(claims)),
    )


def add(connection: sqlite3.Connection, family: FamilyRecord) -> None:
    """A family, or what is new of one: further names, a later end. Its beginning stays."""
    connection.execute(
        "INSERT INTO families (family_id, started, until) VALUES (?, ?, ?) ON CONFLICT (family_id) DO UPDATE"
        " SET until = max(until, excluded.until)",
        (str(family.identity), family.started, family.until),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO family_members (family_id, identity) VALUES (?, ?)",
        [(str(family.identity), member) for member in format_all(family.members)],
    )


def delete_ended(connection: sqlite3.Connection, before: float) -> list[Identity]:
    """Forget the families whose last token ended before this, Unix seconds; which."""
    ended = [row[0] for row in connection.execute("SELECT family_id FROM families WHERE until < ?", (before,))]
    for table in ("refreshes", "family_members", "families"):
        _delete(connection, table, ended)
    return [Identity.parse(family_id) for family_id in ended]


def _delete(connection: sqlite3.Connection, table: str, families: Iterable[str]) -> None:
    connection.executemany(f"DELETE FROM {table} WHERE family_id = ?", [(name,) for name in families])  # noqa: S608
