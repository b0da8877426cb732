"""API keys on disk: rows ↔ KeyRecord. Functions of a connection; secrets are not here, only their SHA-256.

A start loads the keys that are not revoked, and of the others their ids and digests. Their rows are read by page.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence

from edged.credentials.api_keys import KeyRecord
from edged.credentials.identities import Identity
from edged.store.texts import (
    read_identities,
    read_replaced,
    read_streams,
    read_texts,
    write_identities,
    write_replaced,
    write_streams,
    write_texts,
)


def load(connection: sqlite3.Connection) -> list[KeyRecord]:
    """Every key, revoked ones too, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM api_keys ORDER BY created_at, key_id")]


def load_unrevoked(connection: sqlite3.Connection) -> list[KeyRecord]:
    """Every key that is not revoked, oldest first."""
    rows = connection.execute("SELECT * FROM api_keys WHERE revoked_at IS NULL ORDER BY created_at, key_id")
    return [_read(row) for row in rows]


def load_page(
    connection: sqlite3.Connection, after: tuple[float, str], limit: int, *, role: str | None = None,
    owner: str | None = None,
) -> list[KeyRecord]:  # fmt: skip
    """Revoked keys, oldest first: at most so many of those behind `after`, (created_at, key_id); of this role and owner
    if one is given."""
    rows = connection.execute(
        "SELECT * FROM api_keys WHERE revoked_at IS NOT NULL AND (created_at, key_id) > (?1, ?2)"
        " AND (?3 IS NULL OR role = ?3) AND (?4 IS NULL OR owner = ?4) ORDER BY created_at, key_id LIMIT ?5",
        (*after, role, owner, limit),
    )
    return [_read(row) for row in rows]


def find(connection: sqlite3.Connection, key_id: str) -> KeyRecord | None:
    """One key, revoked or not; None if there is none."""
    row = connection.execute("SELECT * FROM api_keys WHERE key_id = ?", (key_id,)).fetchone()
    return None if row is None else _read(row)


def find_makers(connection: sqlite3.Connection, key_ids: Sequence[str]) -> dict[str, frozenset[Identity]]:
    """By whom these keys were made, by their ids; those that there are."""
    rows = connection.execute(
        "SELECT key_id, made_by FROM api_keys WHERE key_id IN (SELECT value FROM json_each(?))", (write_texts(key_ids),)
    )
    return {key_id: read_identities(made_by) for key_id, made_by in rows}


def forget(connection: sqlite3.Connection, before: float) -> list[str]:
    """Delete the keys that were revoked before this, Unix seconds; their ids. What was imported stays, because another
    import would make it good again."""
    found = connection.execute(
        "SELECT key_id FROM api_keys WHERE revoked_at IS NOT NULL AND revoked_at < ? AND imported = 0", (before,)
    )
    key_ids = [str(row[0]) for row in found]
    delete_all(connection, key_ids)
    connection.executemany(
        "DELETE FROM revocations WHERE identity = ?", [(str(Identity.of_key(key_id)),) for key_id in key_ids]
    )
    return key_ids


def forget_expired(connection: sqlite3.Connection, before: float, now: float, looks: int) -> list[str]:
    """Mark the keys that have expired, and delete those that were marked before `before`, Unix seconds, and have been
    found expired by more than `looks` looks, this one included; their ids. By a trusted clock that says `now`.

    Not by the end that they say, nor by two looks: a clock that tells times of years to come now and then, and is set
    right, deletes nothing, because a look at which a key has not expired takes its mark away. Imported ones go, too:
    what is imported again with its end opens nothing.
    """
    ends = "revoked_at IS NULL AND expires_at IS NOT NULL"
    connection.execute(
        f"UPDATE api_keys SET ended_at = NULL, ended_looks = 0"  # noqa: S608
        f" WHERE {ends} AND ended_at IS NOT NULL AND (ended_at > ?1 OR expires_at > ?1)",
        (now,),
    )
    connection.execute(
        f"UPDATE api_keys SET ended_at = coalesce(ended_at, ?1), ended_looks = ended_looks + 1"  # noqa: S608
        f" WHERE {ends} AND expires_at <= ?1",
        (now,),
    )
    found = connection.execute(
        f"SELECT key_id FROM api_keys WHERE {ends} AND expires_at <= ?"  # noqa: S608
        " AND ended_at < ? AND ended_looks > ?",
        (now, before, looks),
    )
    key_ids = [str(row[0]) for row in found]
    delete_all(connection, key_ids)
    return key_ids


def insert(connection: sqlite3.Connection, record: KeyRecord, *, imported: bool = False) -> None:
    """A new key. Raises sqlite3.IntegrityError if its id or digest is there already."""
    connection.execute(
        "INSERT INTO api_keys (key_id, name, role, digest, created_at, expires_at, permissions, camera_access,"
        " streams, owner, revoked_at, suspended_at, rotated_at, previous_digest, previous_valid_until,"
        " older_secrets, made_by, imported) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.key_id, record.name, record.role, record.digest, record.created_at, record.expires_at,
            write_texts(record.permissions), write_texts(record.camera_access), write_streams(record.streams),
            record.owner, record.revoked_at, record.suspended_at, record.rotated_at, record.previous_digest,
            record.previous_valid_until, write_replaced(record.older), write_identities(record.made_by),
            imported,
        ),
    )  # fmt: skip


def import_all(connection: sqlite3.Connection, records: Sequence[KeyRecord]) -> None:
    """New keys, which another service has issued. Raises sqlite3.IntegrityError as `insert` does."""
    for record in records:
        insert(connection, record, imported=True)


def delete_all(connection: sqlite3.Connection, key_ids: Sequence[str]) -> None:
    """Delete keys: those that nobody was told of, or that ended long ago."""
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
        # One text for all keys of a role.
        role=sys.intern(row["role"]),
        digest=row["digest"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        permissions=read_texts(row["permissions"]),
        camera_access=read_texts(row["camera_access"]),
        streams=read_streams(row["streams"]),
        owner=row["owner"],
        made_by=read_identities(row["made_by"]),
        revoked_at=row["revoked_at"],
        suspended_at=row["suspended_at"],
        rotated_at=row["rotated_at"],
        previous_digest=row["previous_digest"],
        previous_valid_until=row["previous_valid_until"],
        older=read_replaced(row["older_secrets"]),
    )
