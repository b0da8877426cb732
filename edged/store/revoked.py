"""What is left of API keys and service tokens that were revoked: ids, and the digests of their secrets."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from edged.store.texts import read_replaced

Table: TypeAlias = Literal["api_keys", "service_tokens"]


class _Queries(NamedTuple):
    newest: str
    replaced: str


_QUERIES: Final[Mapping[Table, _Queries]] = {
    "api_keys": _Queries(
        "SELECT key_id, digest FROM api_keys WHERE revoked_at IS NOT NULL",
        "SELECT key_id, previous_digest, older_secrets FROM api_keys"
        " WHERE revoked_at IS NOT NULL AND previous_digest IS NOT NULL",
    ),
    "service_tokens": _Queries(
        "SELECT token_id, digest FROM service_tokens WHERE revoked_at IS NOT NULL",
        "SELECT token_id, previous_digest, older_secrets FROM service_tokens"
        " WHERE revoked_at IS NOT NULL AND previous_digest IS NOT NULL",
    ),
}


def load_newest(connection: sqlite3.Connection, table: Table) -> list[tuple[str, bytes]]:
    """(id, digest of the newest secret) of each that is revoked."""
    cursor = connection.cursor()
    # There may be very many, and a plain tuple costs a third of a sqlite3.Row.
    cursor.row_factory = None
    return cursor.execute(_QUERIES[table].newest).fetchall()


def load_replaced(connection: sqlite3.Connection, table: Table) -> list[tuple[str, bytes]]:
    """(id, digest) of every secret that one that is revoked had before its newest, as far as they are kept."""
    found = []
    for name, previous, older in connection.execute(_QUERIES[table].replaced):
        found += [(name, previous), *((name, each.digest) for each in read_replaced(older))]
    return found
