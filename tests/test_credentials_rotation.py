"""credentials/rotation.py: what is known of a credential's secrets once one of them was replaced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from edged.credentials.api_keys import KeyRecord
from edged.credentials.rotation import MOST_REPLACED, Rotating
from edged.credentials.service_tokens import ServiceTokenRecord

FIRST, SECOND, THIRD, FOURTH = (name * 32 for name in (b"1", b"2", b"3", b"4"))
KEY = KeyRecord(key_id="key_1", name="k", role="viewer", digest=FIRST, created_at=1.0, owner="ann", suspended_at=2.0)
TOKEN = ServiceTokenRecord(token_id="svc_1", name="t", digest=FIRST, created_at=1.0, networks=("192.0.2.0/24",))


@pytest.mark.parametrize("record", [KEY, TOKEN], ids=["key", "service token"])
def test_a_rotation_replaces_the_secret_and_nothing_else(record: Rotating) -> None:
    """What was promised to an earlier one stays; without a grace all of them end."""
    once = record.rotate(SECOND, 100.0, 60.0)
    assert asdict(once) == asdict(record) | {
        "digest": SECOND, "rotated_at": 100.0, "previous_digest": FIRST, "previous_valid_until": 160.0
    }  # fmt: skip
    twice = once.rotate(THIRD, 110.0, 30.0)
    assert twice.replaced == ((SECOND, 140.0), (FIRST, 160.0))
    assert twice.digests == {FIRST, SECOND, THIRD}
    last = twice.rotate(FOURTH, 120.0, 0.0)
    assert (last.digest, last.replaced) == (FOURTH, ((THIRD, 120.0),))
    assert type(last) is type(record)


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([0.0, 1.0, 50.0, 500.0])), max_size=12))
def test_no_rotation_that_is_accepted_shortens_what_another_promised(steps: list[tuple[float, float]]) -> None:
    """Whatever the order of rotations and pauses; only a grace of 0 ends what was promised."""
    record, now, promised = KEY, 1000.0, dict[bytes, float]()
    for number, (pause, grace) in enumerate(steps):
        now += pause
        if grace > 0 and record.is_crowded(now):
            assert sum(until > now for until in promised.values()) >= MOST_REPLACED
            continue
        promised = {name: until for name, until in promised.items() if grace > 0 and until > now}
        if grace > 0:
            promised[record.digest] = now + grace
        record = record.rotate(bytes([100 + number]) * 32, now, grace)
        assert len(record.replaced) <= MOST_REPLACED
        assert promised.items() <= dict(record.replaced).items()
        assert all(until <= now or name in promised for name, until in record.replaced)
