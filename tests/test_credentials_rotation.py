"""credentials/rotation.py: what is known of a credential's secrets once one of them was replaced."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from edged.credentials.api_keys import KeyRecord
from edged.credentials.rotation import Rotating
from edged.credentials.service_tokens import ServiceTokenRecord

FIRST, SECOND, THIRD = (name * 32 for name in (b"1", b"2", b"3"))
KEY = KeyRecord(key_id="key_1", name="k", role="viewer", digest=FIRST, created_at=1.0, owner="ann", suspended_at=2.0)
TOKEN = ServiceTokenRecord(token_id="svc_1", name="t", digest=FIRST, created_at=1.0, networks=("192.0.2.0/24",))


@pytest.mark.parametrize("record", [KEY, TOKEN], ids=["key", "service token"])
def test_two_secrets_are_known_at_a_time_and_all_else_stays(record: Rotating) -> None:
    """The one before is good for the grace; the one before that is known no more."""
    once = record.rotate(SECOND, 100.0, 60.0)
    assert asdict(once) == asdict(record) | {
        "digest": SECOND, "rotated_at": 100.0, "previous_digest": FIRST, "previous_valid_until": 160.0
    }  # fmt: skip
    twice = once.rotate(THIRD, 110.0, 0.0)
    assert (twice.digest, twice.previous_digest, twice.previous_valid_until) == (THIRD, SECOND, 110.0)
    assert type(twice) is type(record)
