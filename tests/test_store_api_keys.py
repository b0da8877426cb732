"""store/api_keys.py: a KeyRecord comes back from the disk as it went."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import Streams
from edged.credentials.rotation import Replaced
from edged.store import api_keys
from edged.store.migrating import migrate
from edged.store.migrations import TRUST


def fresh() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    migrate(connection, TRUST)
    return connection


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = fresh()
    yield connection
    connection.close()


def a_key(**changes: Any) -> KeyRecord:
    key_id, _, digest = mint()
    return replace(KeyRecord(key_id=key_id, name="gate", role="viewer", digest=digest, created_at=1.5), **changes)


times = st.none() | st.floats(0, 2**40)
texts = st.none() | st.lists(st.text(max_size=20), max_size=5).map(tuple)
paths = st.frozensets(st.text(max_size=20), max_size=3)


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100),
    expires_at=times, revoked_at=times, suspended_at=times, rotated_at=times, previous_valid_until=times,
    permissions=texts, camera_access=texts, streams=st.none() | st.builds(Streams, paths, paths),
    previous_digest=st.none() | st.binary(min_size=32, max_size=32),
    older=st.lists(st.builds(Replaced, st.binary(min_size=32, max_size=32), st.floats(0, 4e9)), max_size=3).map(tuple),
    owner=st.none() | st.just("ann"),
)  # fmt: skip
def test_a_key_comes_back_as_it_went(**changes: Any) -> None:
    """Every field survives: None and () stay apart, times keep their fractions, names their script."""
    connection = fresh()
    try:
        record = a_key(**changes)
        api_keys.insert(connection, record)
        assert api_keys.load(connection) == [record]
    finally:
        connection.close()


def test_no_secret_is_in_the_table(connection: sqlite3.Connection) -> None:
    """The text of a key is nowhere in what is stored."""
    key_id, secret, digest = mint()
    api_keys.insert(connection, a_key(key_id=key_id, digest=digest))
    stored = repr([tuple(row) for row in connection.execute("SELECT * FROM api_keys")])
    assert secret not in stored
    assert secret[18:] not in stored


def test_keys_come_oldest_first(connection: sqlite3.Connection) -> None:
    """Loading gives them in the order of their making."""
    late, early = a_key(created_at=2.0), a_key(created_at=1.0)
    for record in (late, early):
        api_keys.insert(connection, record)
    assert api_keys.load(connection) == [early, late]


@pytest.mark.parametrize("same", ["key_id", "digest"])
def test_two_keys_never_share_an_id_or_a_digest(connection: sqlite3.Connection, same: str) -> None:
    """The table refuses the second."""
    first = a_key()
    api_keys.insert(connection, first)
    with pytest.raises(sqlite3.IntegrityError):
        api_keys.insert(connection, a_key(**{same: getattr(first, same)}))


def test_rotating_keeps_the_old_digest(connection: sqlite3.Connection) -> None:
    """Both secrets are known afterwards."""
    record = a_key()
    api_keys.insert(connection, record)
    rotated = replace(record, digest=b"n" * 32, previous_digest=record.digest, rotated_at=5.0, previous_valid_until=9.0)
    assert api_keys.rotate(connection, rotated)
    assert api_keys.load(connection) == [rotated]


def test_a_revoked_or_unknown_key_is_not_rotated(connection: sqlite3.Connection) -> None:
    """Nothing changes, and the answer says so."""
    record = a_key(revoked_at=3.0)
    api_keys.insert(connection, record)
    assert not api_keys.rotate(connection, replace(record, digest=b"n" * 32))
    assert not api_keys.rotate(connection, a_key())
    assert api_keys.load(connection) == [record]


def test_the_first_revocation_counts(connection: sqlite3.Connection) -> None:
    """Revoking again keeps the time; an unknown id does nothing."""
    record = a_key()
    api_keys.insert(connection, record)
    api_keys.revoke(connection, record.key_id, 10.0)
    api_keys.revoke(connection, record.key_id, 20.0)
    api_keys.revoke(connection, "key_unknown", 20.0)
    assert api_keys.load(connection) == [replace(record, revoked_at=10.0)]


def test_an_update_changes_what_a_key_may_do_and_nothing_else(connection: sqlite3.Connection) -> None:
    """Its secrets, its making and its suspension stay; a revoked or unknown key stays as it is."""
    record, gone = a_key(suspended_at=4.0, previous_digest=b"p" * 32), a_key(created_at=2.0, revoked_at=3.0)
    for each in (record, gone):
        api_keys.insert(connection, each)
    rights: dict[str, Any] = {
        "name": "dock", "role": "admin", "expires_at": 9.0, "permissions": (), "camera_access": ("camera1",),
        "streams": Streams(publish=frozenset({"in"})),
    }  # fmt: skip
    assert api_keys.update(connection, replace(record, digest=b"n" * 32, suspended_at=None, **rights))
    assert not api_keys.update(connection, replace(gone, **rights))
    assert not api_keys.update(connection, a_key())
    assert api_keys.load(connection) == [replace(record, **rights), gone]


def test_a_suspension_keeps_its_first_time_until_it_is_lifted(connection: sqlite3.Connection) -> None:
    """Again changes nothing, resuming takes it away, and both may be said twice."""
    record = a_key()
    api_keys.insert(connection, record)
    for at in (10.0, 20.0):
        api_keys.suspend(connection, record.key_id, at)
        assert api_keys.load(connection) == [replace(record, suspended_at=10.0)]
    for _ in range(2):
        api_keys.resume(connection, record.key_id)
        assert api_keys.load(connection) == [record]


def test_a_file_of_the_first_schema_keeps_its_keys() -> None:
    """Step 2 adds columns: an old key has no streams of its own and is not suspended."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    migrate(connection, TRUST[:1])
    columns = "key_id, name, role, digest, created_at"
    connection.execute(f"INSERT INTO api_keys ({columns}) VALUES ('k', 'n', 'viewer', ?, 1)", (b"d" * 32,))
    migrate(connection, TRUST)
    assert api_keys.load(connection) == [
        KeyRecord(key_id="k", name="n", role="viewer", digest=b"d" * 32, created_at=1.0)
    ]
    connection.close()
