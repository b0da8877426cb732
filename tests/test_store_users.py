"""store/users.py: a UserRecord comes back from the disk as it went; a key says whose it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.credentials.api_keys import KeyRecord
from edged.credentials.callers import Streams
from edged.credentials.users import UserRecord
from edged.store import api_keys, users
from edged.store.migrating import migrate
from edged.store.migrations import TRUST

ANN = UserRecord(name="ann", role="viewer", created_at=1.5, epoch=3)


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


times = st.none() | st.floats(0, 2**40)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.none() | st.lists(words, max_size=5).map(tuple)
paths = st.frozensets(words, max_size=3)


@given(
    display_name=words, role=st.sampled_from(["viewer", "admin"]), epoch=st.integers(0, 2**60), permissions=texts,
    camera_access=texts, streams=st.none() | st.builds(Streams, paths, paths), password=st.none() | words,
    password_changed_at=times, disabled_at=times, deleted_at=times,
)  # fmt: skip
def test_a_user_comes_back_as_they_went(**changes: Any) -> None:
    """Every field survives: None and () stay apart, times keep their fractions, names their script."""
    connection = fresh()
    try:
        record = replace(ANN, **changes)
        users.put(connection, record)
        assert users.load(connection) == [record]
    finally:
        connection.close()


def test_a_user_put_again_is_what_was_put_last(connection: sqlite3.Connection) -> None:
    """One row for each name, whatever stood there; the oldest user comes first."""
    bob = UserRecord(name="bob", role="admin", created_at=1.0, epoch=0)
    changed = replace(ANN, role="admin", disabled_at=9.0, epoch=4)
    for record in (ANN, bob, changed):
        users.put(connection, record)
    assert users.load(connection) == [bob, changed]


def test_a_key_says_whose_it_is(connection: sqlite3.Connection) -> None:
    """The owner survives, may be another afterwards, and none."""
    record = KeyRecord(key_id="key_1", name="k", role="viewer", digest=b"d" * 32, created_at=1.0, owner="ann")
    api_keys.insert(connection, record)
    for owner in ("bob", None):
        assert api_keys.load(connection) == [record]
        record = replace(record, owner=owner)
        assert api_keys.update(connection, record)
    assert api_keys.load(connection) == [record]
