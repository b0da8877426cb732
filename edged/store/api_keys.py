"""API keys on disk: rows ↔ KeyRecord. Functions of a connection; secrets are not here, only their SHA-256."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edged.credentials.api_keys import KeyRecord
from edged.store.texts import (
    read_names,
    read_replaced,
    read_streams,
    read_texts,
    write_names,
    write_replaced,
    write_streams,
    write_texts,
)


def load(connection: sqlite3.Connection) -> list[KeyRecord]:
    """Every key, revoked ones too, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM api_keys ORDER BY created_at, key_id")]


def insert(connection: sqlite3.Connection, record: KeyRecord) -> None:
    """A new key. Raises sqlite3.IntegrityError if its id or digest is there already."""
    connection.execute(
        "INSERT INTO api_keys (key_id, name, role, digest, created_at, expires_at, permissions, camera_access,"
        " streams, owner, revoked_at, suspended_at, rotated_at, previous_digest, previous_valid_until,"
        " older_secrets, made_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.key_id, record.name, record.role, record.digest, record.created_at, record.expires_at,
            write_texts(record.permissions), write_texts(record.camera_access), write_streams(record.streams),
            record.owner, record.revoked_at, record.suspended_at, record.rotated_at, record.previous_digest,
            record.previous_valid_until, write_replaced(record.older), write_names(record.made_by),
        ),
    )  # fmt: skip


def insert_all(connection: sqlite3.Connection, records: Sequence[KeyRecord]) -> None:
    """New keys. Raises sqlite3.IntegrityError as `insert` does."""
    for record in records:
        insert(connection, record)


def delete_all(connection: sqlite3.Connection, key_ids: Sequence[str]) -> None:
    """Forget keys that were never told to anybody."""
    connection.executemany("DELETE FROM api_keys WHERE key_id = ?", [(key_id,) for key_id in key_ids])


def rotate(connection: sqlite3.Connection, record: KeyRecord) -> bool:
    """The digests of a rotated key; False, and nothing done, if it is revoked or unknown."""
    changed = connection.execute(
        "UPDATE api_keys SET digest = ?, rotated_at = ?, previous_digest = ?, previous_valid_until = ?,"
        " older_secrets = ?"
        " WHERE key_id = ? AND revoked_at IS NULL",
        (
            record.digest, record.rotated_at, record.previous_digest, record.previous_valid_until,
            write_replaced(record.older), record.key_id,
        ),
    )  # fmt: skip
    return changed.rowcount == 1


def update(connection: sqlite3.Connection, record: KeyRecord) -> bool:
    """What a key is called and may do; False, and nothing done, if it is revoked or unknown."""
    changed = connection.execute(
        "UPDATE api_keys SET name = ?, role = ?, expires_at = ?, permissions = ?, camera_access = ?, streams = ?,"
        " owner = ? WHERE key_id = ? AND revoked_at IS NULL",
        (
            record.name, record.role, record.expires_at, write_texts(record.permissions),
            write_texts(record.camera_access), write_streams(record.streams), record.owner, record.key_id,
        ),
    )  # fmt: skip
    return changed.rowcount == 1


def suspend(connection: sqlite3.Connection, key_id: str, at: float) -> None:
    """Mark a key suspended; the first time counts."""
    connection.execute("UPDATE api_keys SET suspended_at = coalesce(suspended_at, ?) WHERE key_id = ?", (at, key_id))


def resume(connection: sqlite3.Connection, key_id: str) -> None:
    """Mark a key suspended no more."""
    connection.execute("UPDATE api_keys SET suspended_at = NULL WHERE key_id = ?", (key_id,))


def revoke(connection: sqlite3.Connection, key_id: str, at: float) -> None:
    """Mark a key revoked; the first time counts."""
    connection.execute(
        "UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
        (at, key_id),
    )


def _read(row: sqlite3.Row) -> KeyRecord:
    return KeyRecord(
        key_id=row["key_id"],
        name=row["name"],
        role=row["role"],
        digest=row["digest"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        permissions=read_texts(row["permissions"]),
        camera_access=read_texts(row["camera_access"]),
        streams=read_streams(row["streams"]),
        owner=row["owner"],
        made_by=read_names(row["made_by"]),
        revoked_at=row["revoked_at"],
        suspended_at=row["suspended_at"],
        rotated_at=row["rotated_at"],
        previous_digest=row["previous_digest"],
        previous_valid_until=row["previous_valid_until"],
        older=read_replaced(row["older_secrets"]),
    )
