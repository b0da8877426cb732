"""Signing keys on disk: rows ↔ SigningKeyRecord. Functions of a connection.

Nothing is deleted: the numbers of keys that are long retired stay taken, and so does the one of a row that somebody
deletes by hand (AUTOINCREMENT). The private half goes when a key retires.
"""

from __future__ import annotations

import sqlite3

import msgspec

from edged.credentials.signing_keys import Algorithm, Jwk, SigningKeyRecord, State, public_part


def load(connection: sqlite3.Connection) -> list[SigningKeyRecord]:
    """Every key there ever was, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM signing_keys ORDER BY number")]


def insert(
    connection: sqlite3.Connection, algorithm: Algorithm, state: State, private: Jwk, now: float
) -> SigningKeyRecord:
    """A new key under the next number. Raises sqlite3.IntegrityError if its algorithm has one in this state."""
    number = connection.execute(
        "INSERT INTO signing_keys (algorithm, state, public, private, created_at, promoted_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (algorithm, state, _write(public_part(private)), _write(private), now, now if state == "current" else None),
    ).lastrowid
    row = connection.execute("SELECT * FROM signing_keys WHERE number = ?", (number,)).fetchone()
    return _read(row)


def promote(connection: sqlite3.Connection, number: int, now: float) -> list[SigningKeyRecord]:
    """This key is current, and the one of its algorithm that was is retired. Returns every key as it is then."""
    connection.execute(
        "UPDATE signing_keys SET state = 'retired', private = NULL, retired_at = ? WHERE state = 'current'"
        " AND algorithm = (SELECT algorithm FROM signing_keys WHERE number = ?)",
        (now, number),
    )
    connection.execute("UPDATE signing_keys SET state = 'current', promoted_at = ? WHERE number = ?", (now, number))
    return load(connection)


def retire(connection: sqlite3.Connection, number: int, now: float) -> list[SigningKeyRecord]:
    """This key signs no more, and nobody can sign with it. Returns every key as it is then."""
    connection.execute(
        "UPDATE signing_keys SET state = 'retired', private = NULL, retired_at = ? WHERE number = ?", (now, number)
    )
    return load(connection)


def extend(connection: sqlite3.Connection, number: int, until: float) -> list[SigningKeyRecord]:
    """Tokens by this key may be good until then; never earlier than said before. Returns every key as it is then."""
    connection.execute("UPDATE signing_keys SET signs_until = max(signs_until, ?) WHERE number = ?", (until, number))
    return load(connection)


def _read(row: sqlite3.Row) -> SigningKeyRecord:
    return SigningKeyRecord(
        number=row["number"],
        algorithm=row["algorithm"],
        state=row["state"],
        public=msgspec.json.decode(row["public"], type=Jwk),
        private=None if row["private"] is None else msgspec.json.decode(row["private"], type=Jwk),
        created_at=row["created_at"],
        promoted_at=row["promoted_at"],
        retired_at=row["retired_at"],
        signs_until=row["signs_until"],
    )


def _write(jwk: Jwk) -> str:
    return msgspec.json.encode(jwk).decode()
