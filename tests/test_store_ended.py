"""store/{api_keys,service_tokens,usage}.py: what is revoked is read by page and deleted some time after its end."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import all_named
from msgspec.structs import replace

from edged.credentials import api_keys as made_keys
from edged.credentials import service_tokens as made_tokens
from edged.credentials.api_keys import KeyRecord
from edged.credentials.rotation import Replaced
from edged.credentials.service_tokens import ServiceTokenRecord
from edged.store import api_keys, revoked, service_tokens, usage
from edged.store.migrating import migrate
from edged.store.migrations import TRUST, USAGE
from edged.store.usage import Tally

FIRST = (-math.inf, "")


def fresh() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    migrate(connection, TRUST)
    return connection


@pytest.fixture
def trust() -> Iterator[sqlite3.Connection]:
    connection = fresh()
    yield connection
    connection.close()


def a_key(**changes: Any) -> KeyRecord:
    key_id, _, digest = made_keys.mint()
    return replace(KeyRecord(key_id=key_id, name="gate", role="viewer", digest=digest, created_at=1.0), **changes)


def a_token(**changes: Any) -> ServiceTokenRecord:
    token_id, _, digest = made_tokens.mint()
    return replace(ServiceTokenRecord(token_id=token_id, name="files", digest=digest, created_at=1.0), **changes)


def read_all(connection: sqlite3.Connection, size: int, **wanted: str) -> list[KeyRecord]:
    """Page by page."""
    found: list[KeyRecord] = []
    after = FIRST
    while page := api_keys.load_page(connection, after, size, **wanted):
        assert len(page) <= size
        found += page
        after = (page[-1].created_at, page[-1].key_id)
    return found


@given(
    size=st.integers(1, 7),
    keys=st.lists(
        st.tuples(
            st.sampled_from([1.0, 1.5, 2.0]), st.none() | st.just(9.0), st.sampled_from(["viewer", "admin"]),
            st.sampled_from([None, "ann", "bob"]),
        ),
        max_size=20,
    ),
    role=st.none() | st.just("viewer"), owner=st.none() | st.just("ann"),
)  # fmt: skip
def test_the_pages_are_the_revoked_keys_oldest_first_each_once(
    size: int, keys: list[tuple[float, float | None, str, str | None]], role: str | None, owner: str | None
) -> None:
    """Whatever their size, and with many keys of one time; those that are not revoked are loaded otherwise."""
    connection = fresh()
    try:
        made = [a_key(created_at=at, revoked_at=gone, role=word, owner=user) for at, gone, word, user in keys]
        for record in made:
            api_keys.insert(connection, record)
        made.sort(key=lambda record: (record.created_at, record.key_id))
        wanted = {name: value for name, value in (("role", role), ("owner", owner)) if value is not None}
        assert read_all(connection, size, **wanted) == [
            record
            for record in made
            if record.revoked_at is not None and role in (None, record.role) and owner in (None, record.owner)
        ]
        assert api_keys.load_unrevoked(connection) == [record for record in made if record.revoked_at is None]
    finally:
        connection.close()


def test_a_start_learns_each_secret_of_each_revoked_key(trust: sqlite3.Connection) -> None:
    """Also those that were replaced; nothing of a key that is not revoked."""
    plain = a_key(revoked_at=9.0)
    rotated = a_key(revoked_at=9.0, previous_digest=b"p" * 32, older=(Replaced(b"o" * 32, 5.0), Replaced(b"n" * 32, 6)))
    for record in (plain, rotated, a_key(previous_digest=b"q" * 32)):
        api_keys.insert(trust, record)
    assert set(revoked.load_newest(trust, "api_keys")) == {(key.key_id, key.digest) for key in (plain, rotated)}
    assert set(revoked.load_replaced(trust, "api_keys")) == {(rotated.key_id, each * 32) for each in (b"p", b"o", b"n")}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT key_id, digest FROM api_keys WHERE revoked_at IS NOT NULL",
        "SELECT key_id FROM api_keys WHERE revoked_at IS NOT NULL AND revoked_at < ? AND imported = 0",
    ],
)
def test_a_start_and_a_deletion_read_an_index_and_no_rows(trust: sqlite3.Connection, query: str) -> None:
    """Rows are four times as large, and a card reads them slowly."""
    values = (1.0,) if "?" in query else ()
    plan = [row[3] for row in trust.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    assert plan == ["SCAN api_keys USING COVERING INDEX api_keys_revoked"]


def test_a_key_is_found_by_its_id_revoked_or_not(trust: sqlite3.Connection) -> None:
    """None where there is none."""
    good, gone = a_key(), a_key(revoked_at=9.0)
    for record in (good, gone):
        api_keys.insert(trust, record)
    assert [api_keys.find(trust, key_id) for key_id in (good.key_id, gone.key_id, "key_0")] == [good, gone, None]


def test_the_makers_of_keys_and_tokens_are_found_by_their_ids(trust: sqlite3.Connection) -> None:
    """Nothing is said of those that are not there."""
    key, orphan = a_key(made_by=all_named("key:key_1", "user:ann")), a_key(revoked_at=9.0)
    token = a_token(made_by=all_named("key:key_2"))
    for record in (key, orphan):
        api_keys.insert(trust, record)
    service_tokens.insert(trust, token)
    assert api_keys.find_makers(trust, [key.key_id, orphan.key_id, "key_0"]) == {
        key.key_id: key.made_by,
        orphan.key_id: frozenset(),
    }
    assert service_tokens.find_makers(trust, [token.token_id, "svc_0"]) == {token.token_id: token.made_by}


def test_keys_that_were_revoked_before_a_time_are_deleted(trust: sqlite3.Connection) -> None:
    """With what the list of revocations says of them; one that has expired is not, whatever clock said so."""
    keys = {
        "revoked long ago": a_key(revoked_at=5.0, expires_at=50.0),
        "expired long ago": a_key(expires_at=5.0),
        "revoked lately": a_key(revoked_at=10.0, expires_at=5.0),
        "expired lately": a_key(expires_at=10.0),
        "suspended": a_key(suspended_at=5.0),
        "good": a_key(),
    }
    for record in keys.values():
        api_keys.insert(trust, record)
        trust.execute("INSERT INTO revocations VALUES (?, 'key', 5, NULL)", (f"key:{record.key_id}",))
    gone = {keys["revoked long ago"].key_id}
    assert set(api_keys.forget(trust, 10.0)) == gone
    left = {record.key_id for record in keys.values()} - gone
    assert {record.key_id for record in api_keys.load(trust)} == left
    named = {row[0] for row in trust.execute("SELECT identity FROM revocations")}
    assert named == {f"key:{key_id}" for key_id in left}


def test_an_imported_key_stays_however_long_ago_it_ended(trust: sqlite3.Connection) -> None:
    """The same import done again would make it good again; nobody knows which of an earlier version were imported."""
    imported, earlier = a_key(revoked_at=5.0), a_key(revoked_at=5.0)
    api_keys.import_all(trust, [imported])
    columns = "key_id, name, role, digest, created_at, revoked_at"
    trust.execute(
        f"INSERT INTO api_keys ({columns}) VALUES (?, 'k', 'viewer', ?, 1, 5)",
        (earlier.key_id, earlier.digest),
    )
    assert api_keys.forget(trust, 10.0) == []
    assert {record.key_id for record in api_keys.load(trust)} == {imported.key_id, earlier.key_id}


def test_service_tokens_are_read_and_deleted_as_keys_are(trust: sqlite3.Connection) -> None:
    """Their revocation is marked in their row, the first time counts."""
    tokens = [a_token(created_at=float(at)) for at in (3, 1, 2)]
    good, imported = a_token(), a_token()
    for record in (*tokens, good):
        service_tokens.insert(trust, record)
    service_tokens.insert(trust, imported, imported=True)
    for record in (*tokens, imported):
        service_tokens.revoke(trust, record.token_id, 5.0)
        service_tokens.revoke(trust, record.token_id, 50.0)
    assert service_tokens.load_unrevoked(trust) == [good]
    pages = service_tokens.load_page(trust, FIRST, 2), service_tokens.load_page(trust, (1.0, "svc_z"), 9)
    ordered = sorted((*tokens, imported), key=lambda record: (record.created_at, record.token_id))
    shown = [replace(record, revoked_at=5.0) for record in ordered]
    assert pages == (shown[:2], shown[2:])
    assert dict(revoked.load_newest(trust, "service_tokens")) == {record.token_id: record.digest for record in ordered}
    assert service_tokens.find(trust, good.token_id) == good
    assert service_tokens.find(trust, "svc_0") is None
    assert set(service_tokens.forget(trust, 10.0)) == {record.token_id for record in tokens}
    assert set(service_tokens.load(trust)) == {good, replace(imported, revoked_at=5.0)}


def test_a_service_token_that_an_earlier_version_revoked_is_marked_by_the_migration() -> None:
    """It knew that from the list of revocations only."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    step = next(
        number for number, step in enumerate(TRUST) if any("service_tokens SET revoked_at" in it for it in step)
    )
    migrate(connection, TRUST[:step])
    gone, good = a_token(), a_token()
    columns = "token_id, name, digest, created_at"
    for record in (gone, good):
        connection.execute(
            f"INSERT INTO service_tokens ({columns}) VALUES (?, 'files', ?, 1)",
            (record.token_id, record.digest),
        )
    connection.execute("INSERT INTO revocations VALUES (?, 'service_token', 7, NULL)", (f"service:{gone.token_id}",))
    migrate(connection, TRUST)
    assert service_tokens.load_unrevoked(connection) == [good]
    assert service_tokens.forget(connection, 8.0) == []
    connection.close()


def test_the_tallies_of_some_credentials_are_read_and_deleted() -> None:
    """Those of the others are not."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, USAGE)
    tallies = [Tally(name, 1.0, 2) for name in ("key_1", "key_2", "key_3")]
    usage.save(connection, tallies)
    assert usage.load_of(connection, ["key_2", "key_9"]) == [tallies[1]]
    usage.forget(connection, ["key_1", "key_9"])
    assert usage.load(connection) == tallies[1:]
    connection.close()
