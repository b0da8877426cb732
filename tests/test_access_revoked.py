"""access/revoked.py: a revoked secret is told from an unknown one, by 24 bytes."""

from __future__ import annotations

import hashlib
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from edged.access.revoked import Revoked
from edged.credentials.api_keys import mint

#: Few, so that they meet; of the usual form and of others.
IDS = [f"key_{number:016x}" for number in (0, 1, 2**63, 2**64 - 1)] + ["key_1", "key_" + "A" * 16, "key_" + "0" * 36]


def digest(key_id: str, number: int) -> bytes:
    """Of a key's secret: all differ, as in the table."""
    return hashlib.sha256(f"{key_id} {number}".encode()).digest()


@given(
    loaded=st.sets(st.sampled_from(IDS), max_size=4),
    added=st.dictionaries(st.sampled_from(IDS), st.sets(st.integers(0, 3), max_size=3), max_size=4),
    forgotten=st.sets(st.sampled_from(IDS), max_size=3),
)
def test_each_secret_leads_to_the_id_of_its_credential(
    loaded: set[str], added: dict[str, set[int]], forgotten: set[str]
) -> None:
    """Whether it came with the start or later, until it is forgotten; an unknown one leads nowhere."""
    revoked = Revoked("key_")
    revoked.load([(key_id, digest(key_id, 0)) for key_id in loaded])
    for key_id, numbers in added.items():
        revoked.add(key_id, [digest(key_id, number) for number in numbers])
    known = loaded | added.keys()
    secrets = {(key_id, 0) for key_id in loaded} | {(key_id, n) for key_id, numbers in added.items() for n in numbers}
    for gone in (set[str](), forgotten):
        revoked.forget(gone)
        assert len(revoked) == len(known - gone)
        assert {key_id for key_id in IDS if key_id in revoked} == known - gone
        for key_id in IDS:
            for number in range(4):
                is_known = (key_id, number) in secrets and key_id not in gone
                assert revoked.find(digest(key_id, number)) == (key_id if is_known else None)


def test_an_id_of_another_form_is_not_taken_for_one_of_the_usual() -> None:
    """Neither a service token's nor one that is longer, shorter or in capitals."""
    revoked = Revoked("key_")
    revoked.add("key_00000000000000ab", [b"d" * 32])
    for other in ("svc_00000000000000ab", "key_00000000000000AB", "key_ab", "key_000000000000000ab", ""):
        assert other not in revoked


def test_ten_thousand_revoked_keys_take_a_quarter_of_a_megabyte() -> None:
    """24 bytes each, and what an array is ahead of its growth."""
    keys = [mint() for _ in range(10_000)]
    tracemalloc.start()
    try:
        revoked = Revoked("key_")
        for key_id, _, hashed in keys:
            revoked.add(key_id, [hashed])
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(revoked) == len(keys)
    assert grown < 27 * len(keys) + 10_000
