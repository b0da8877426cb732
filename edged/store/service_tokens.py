"""Service tokens on disk: rows ↔ ServiceTokenRecord. Functions of a connection; of secrets only their SHA-256.

As of API keys a start loads those that are not revoked, and of the others their ids and digests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edged.credentials.identities import Identity
from edged.credentials.service_tokens import ServiceTokenRecord
from edged.store.texts import read_identities, read_replaced, read_texts, write_identities, write_replaced, write_texts


def load(connection: sqlite3.Connection) -> list[ServiceTokenRecord]:
    """Every token, revoked ones too, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM service_tokens ORDER BY created_at, token_id")]


def load_unrevoked(connection: sqlite3.Connection) -> list[ServiceTokenRecord]:
    """Every token that is not revoked, oldest first."""
    rows = connection.execute("SELECT * FROM service_tokens WHERE revoked_at IS NULL ORDER BY created_at, token_id")
    return [_read(row) for row in rows]


def load_page(connection: sqlite3.Connection, after: tuple[float, str], limit: int) -> list[ServiceTokenRecord]:
    """Revoked tokens, oldest first: at most so many of those behind `after`, (created_at, token_id)."""
    rows = connection.execute(
        "SELECT * FROM service_tokens WHERE revoked_at IS NOT NULL AND (created_at, token_id) > (?, ?)"
        " ORDER BY created_at, token_id LIMIT ?",
        (*after, limit),
    )
    return [_read(row) for row in rows]


def find(connection: sqlite3.Connection, token_id: str) -> ServiceTokenRecord | None:
    """One token, revoked or not; None if there is none."""
    row = connection.execute("SELECT * FROM service_tokens WHERE token_id = ?", (token_id,)).fetchone()
    return None if row is None else _read(row)


def find_makers(connection: sqlite3.Connection, token_ids: Sequence[str]) -> dict[str, frozenset[Identity]]:
    """By whom these tokens were made, by their ids; those that there are."""
    rows = connection.execute(
        "SELECT token_id, made_by FROM service_tokens WHERE token_id IN (SELECT value FROM json_each(?))",
        (write_texts(token_ids),),
    )
    return {token_id: read_identities(made_by) for token_id, made_by in rows}


def forget(connection: sqlite3.Connection, before: float) -> list[str]:
    """Delete the tokens that were revoked before this, Unix seconds; their ids. What was imported stays, because
    another import would make it good again."""
    found = connection.execute("SELECT token_id FROM service_tokens WHERE revoked_at < ? AND imported = 0", (before,))
    token_ids = [str(row[0]) for row in found]
    connection.executemany("DELETE FROM service_tokens WHERE token_id = ?", [(each,) for each in token_ids])
    connection.executemany(
        "DELETE FROM revocations WHERE identity = ?",
        [(str(each),) for each in map(Identity.of_service_token, token_ids)],
    )
    return token_ids


def insert(connection: sqlite3.Connection, record: ServiceTokenRecord, *, imported: bool = False) -> None:
    """A new token. Raises sqlite3.IntegrityError if its id or digest is there already."""
    connection.execute(
        "INSERT INTO service_tokens (token_id, name, digest, created_at, networks, made_by, imported)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            record.token_id,
            record.name,
            record.digest,
            record.created_at,
            write_texts(record.networks),
            write_identities(record.made_by),
            imported,
        ),
    )


def delete(connection: sqlite3.Connection, token_id: str) -> None:
    """Forget a token that was never told to anybody."""
    connection.execute("DELETE FROM service_tokens WHERE token_id = ?", (token_id,))


def revoke(connection: sqlite3.Connection, token_id: str, at: float) -> None:
    """Mark a token revoked; the first time counts."""
    connection.execute(
        "UPDATE service_tokens SET revoked_at = ? WHERE token_id = ? AND revoked_at IS NULL", (at, token_id)
    )


def rotate(connection: sqlite3.Connection, record: ServiceTokenRecord) -> None:
    """The digests of a rotated token."""
    connection.execute(
        "UPDATE service_tokens SET digest = ?, rotated_at = ?, previous_digest = ?, previous_valid_until = ?,"
        " older_secrets = ?"
        " WHERE token_id = ?",
        (
            record.digest, record.rotated_at, record.previous_digest, record.previous_valid_until,
            write_replaced(record.older), record.token_id,
        ),
    )  # fmt: skip


def _read(row: sqlite3.Row) -> ServiceTokenRecord:
    return ServiceTokenRecord(
        token_id=row["token_id"],
        name=row["name"],
        digest=row["digest"],
        created_at=row["created_at"],
        networks=read_texts(row["networks"]),
        made_by=read_identities(row["made_by"]),
        revoked_at=row["revoked_at"],
        rotated_at=row["rotated_at"],
        previous_digest=row["previous_digest"],
        previous_valid_until=row["previous_valid_until"],
        older=read_replaced(row["older_secrets"]),
    )
