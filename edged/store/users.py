"""Users on disk: rows ↔ UserRecord. Functions of a connection; of a password only its argon2id hash is here."""

from __future__ import annotations

import sqlite3

from edged.credentials.users import UserRecord
from edged.store.texts import read_streams, read_texts, write_streams, write_texts


def load(connection: sqlite3.Connection) -> list[UserRecord]:
    """Every user, deleted ones too, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM users ORDER BY created_at, name")]


def put(connection: sqlite3.Connection, record: UserRecord) -> None:
    """A user as they are now, whatever stood there under this name."""
    connection.execute(
        "INSERT OR REPLACE INTO users (name, display_name, role, permissions, camera_access, streams, password, epoch,"
        " created_at, password_changed_at, disabled_at, deleted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.name, record.display_name, record.role, write_texts(record.permissions),
            write_texts(record.camera_access), write_streams(record.streams), record.password, record.epoch,
            record.created_at, record.password_changed_at, record.disabled_at, record.deleted_at,
        ),
    )  # fmt: skip


def delete(connection: sqlite3.Connection, name: str) -> None:
    """Forget a user who never came to be."""
    connection.execute("DELETE FROM users WHERE name = ?", (name,))


def _read(row: sqlite3.Row) -> UserRecord:
    return UserRecord(
        name=row["name"],
        display_name=row["display_name"],
        role=row["role"],
        permissions=read_texts(row["permissions"]),
        camera_access=read_texts(row["camera_access"]),
        streams=read_streams(row["streams"]),
        password=row["password"],
        epoch=row["epoch"],
        created_at=row["created_at"],
        password_changed_at=row["password_changed_at"],
        disabled_at=row["disabled_at"],
        deleted_at=row["deleted_at"],
    )
