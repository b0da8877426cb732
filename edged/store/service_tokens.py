"""Service tokens on disk: rows ↔ ServiceTokenRecord. Functions of a connection; of secrets only their SHA-256."""

from __future__ import annotations

import sqlite3

from edged.credentials.service_tokens import ServiceTokenRecord
from edged.store.texts import read_names, read_replaced, read_texts, write_names, write_replaced, write_texts


def load(connection: sqlite3.Connection) -> list[ServiceTokenRecord]:
    """Every token, revoked ones too, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM service_tokens ORDER BY created_at, token_id")]


def insert(connection: sqlite3.Connection, record: ServiceTokenRecord) -> None:
    """A new token. Raises sqlite3.IntegrityError if its id or digest is there already."""
    connection.execute(
        "INSERT INTO service_tokens (token_id, name, digest, created_at, networks, made_by) VALUES (?, ?, ?, ?, ?, ?)",
        (
            record.token_id,
            record.name,
            record.digest,
            record.created_at,
            write_texts(record.networks),
            write_names(record.made_by),
        ),
    )


def delete(connection: sqlite3.Connection, token_id: str) -> None:
    """Forget a token that was never told to anybody."""
    connection.execute("DELETE FROM service_tokens WHERE token_id = ?", (token_id,))


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
        made_by=read_names(row["made_by"]),
        rotated_at=row["rotated_at"],
        previous_digest=row["previous_digest"],
        previous_valid_until=row["previous_valid_until"],
        older=read_replaced(row["older_secrets"]),
    )
