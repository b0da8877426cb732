"""store/{revocations,cameras,usage,meta}.py: what goes in comes out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from identity_helpers import named
from msgspec.structs import replace

from edged.credentials.api_keys import KeyRecord
from edged.credentials.identities import ALL
from edged.store import api_keys, cameras, meta, revocations, usage
from edged.store.cameras import Slot
from edged.store.migrating import migrate
from edged.store.migrations import TRUST, USAGE
from edged.store.revocations import CutOff, Revocation
from edged.store.usage import Tally


@pytest.fixture
def trust() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, TRUST)
    yield connection
    connection.close()


@pytest.fixture
def counting() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, USAGE)
    yield connection
    connection.close()


def test_revocations_come_back(trust: sqlite3.Connection) -> None:
    """Identity, time, end and reason, in the order of their times."""
    items = [Revocation(named("key:key_1"), 1.0, None, "key"), Revocation(named("jti:j"), 2.0, 99.0, "token")]
    revocations.add(trust, items[::-1])
    assert revocations.load(trust) == items


def test_a_revoked_key_is_marked_in_the_same_breath(trust: sqlite3.Connection) -> None:
    """Its row and its identity never disagree; a token named like it, or a key that is not there, changes no key."""
    trust.row_factory = sqlite3.Row
    record = KeyRecord(key_id="key_1", name="k", role="viewer", digest=b"d", created_at=1.0)
    api_keys.insert(trust, record)
    revocations.add(trust, [Revocation(named("jti:key_1"), 2.0), Revocation(named("key:key_2"), 2.0)])
    assert api_keys.load(trust) == [record]
    revocations.add(trust, [Revocation(named("key:key_1"), 3.0)])
    assert api_keys.load(trust) == [replace(record, revoked_at=3.0)]


@pytest.mark.parametrize(
    ("first", "second", "until"), [(5.0, 9.0, 9.0), (9.0, 5.0, 9.0), (None, 5.0, None), (5.0, None, None)]
)
def test_a_revocation_said_twice_keeps_the_later_end(
    trust: sqlite3.Connection, first: float | None, second: float | None, until: float | None
) -> None:
    """The first time and reason stay; no known end is the latest end."""
    revocations.add(trust, [Revocation(named("jti:j"), 1.0, first, "token")])
    revocations.add(trust, [Revocation(named("jti:j"), 2.0, second, "again")])
    assert revocations.load(trust) == [Revocation(named("jti:j"), 1.0, until, "token")]


def test_slots_come_back_by_number(trust: sqlite3.Connection) -> None:
    """Label and identity fields survive, whatever their script."""
    front = Slot(0, {"port": "pci-0000:00:14.0-usb-0:1", "serial": 'a "b" ü'}, "Tür", "usb")
    cameras.save(trust, Slot(2, {}, "garden", "test"))
    cameras.save(trust, front)
    assert cameras.load(trust) == [front, Slot(2, {}, "garden", "test")]


def test_a_slot_saved_again_is_changed(trust: sqlite3.Connection) -> None:
    """One row per slot."""
    cameras.save(trust, Slot(0, {"serial": "1"}, "old", "usb"))
    cameras.save(trust, Slot(0, {"serial": "2"}, "new", "usb"))
    assert cameras.load(trust) == [Slot(0, {"serial": "2"}, "new", "usb")]


def test_a_slot_names_its_camera() -> None:
    """`camera0` is slot 0: the path in MediaMTX as well."""
    assert Slot(0, {}, "front", "usb").name == "camera0"


def test_a_kind_that_nobody_knows_is_refused(trust: sqlite3.Connection) -> None:
    """usb, rtsp or test."""
    with pytest.raises(sqlite3.IntegrityError):
        cameras.save(trust, Slot(0, {}, "front", "film"))  # type: ignore[arg-type]


def test_there_is_no_slot_below_zero(trust: sqlite3.Connection) -> None:
    """Slots begin with camera0."""
    with pytest.raises(sqlite3.IntegrityError):
        cameras.save(trust, Slot(-1, {}, "", "usb"))


def test_tallies_are_totals(counting: sqlite3.Connection) -> None:
    """Saving twice changes nothing; saving more replaces."""
    usage.save(counting, [Tally("key_1", 10.0, 3), Tally("key_2", 11.0, 1)])
    usage.save(counting, [Tally("key_1", 10.0, 3)])
    usage.save(counting, [Tally("key_2", 12.0, 5)])
    assert sorted(usage.load(counting), key=lambda t: t.credential_id) == [
        Tally("key_1", 10.0, 3),
        Tally("key_2", 12.0, 5),
    ]


def test_the_high_water_mark_only_rises(trust: sqlite3.Connection) -> None:
    """None stored is 0.0; a lower mark changes nothing; fractions stay."""
    assert meta.load_high_water(trust) == 0.0
    for mark, expected in ((1_700_000_000.25, 1_700_000_000.25), (5.0, 1_700_000_000.25), (1_800_000_000.0, 1.8e9)):
        meta.save_high_water(trust, mark)
        assert meta.load_high_water(trust) == expected


def test_root_s_high_water_mark_may_be_lower(trust: sqlite3.Connection) -> None:
    """Also where none was stored."""
    for mark in (5.0, 1_800_000_000.0, 0.0):
        meta.replace_high_water(trust, mark)
        assert meta.load_high_water(trust) == mark


def test_the_latest_line_of_each_scope_is_kept(trust: sqlite3.Connection) -> None:
    """Cut-offs combine by maximum: an earlier one changes nothing, a later one takes its place (contract 10.8)."""
    first, later, other = (
        CutOff(ALL, 50.0, 1.0, "leak"),
        CutOff(ALL, 60.0, 2.0),
        CutOff(named("user:ann"), 9.0, 3.0),
    )
    for item in (first, CutOff(ALL, 40.0, 1.5, "late news"), other):
        revocations.cut_off(trust, item)
    assert revocations.load_cut_offs(trust) == [first, other]
    revocations.cut_off(trust, later)
    assert revocations.load_cut_offs(trust) == [later, other]


def test_the_epoch_only_rises(trust: sqlite3.Connection) -> None:
    """None is 0; what is saved comes back as a whole number, and a lower one changes nothing."""
    assert meta.load_epoch(trust) == 0
    for epoch, kept in ((3, 3), (2, 3), (7, 7)):
        meta.save_epoch(trust, epoch)
        assert (meta.load_epoch(trust), type(meta.load_epoch(trust))) == (kept, int)
    assert meta.load_high_water(trust) == 0.0
