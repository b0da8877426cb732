"""access/ledger.py: what the gate knows, in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import named
from msgspec.structs import replace

from edged.access.ledger import Ledger
from edged.credentials.api_keys import KeyRecord, key_caller, mint
from edged.credentials.callers import Caller
from edged.credentials.identities import Identity
from edged.credentials.users import UserRecord, login_identities


def a_key(**changes: Any) -> KeyRecord:
    key_id, _, digest = mint()
    return replace(KeyRecord(key_id=key_id, name="gate", role="viewer", digest=digest, created_at=1.0), **changes)


def test_a_key_is_found_by_its_digest_only() -> None:
    """Its caller carries the names by which it can be revoked."""
    ledger, record = Ledger(), a_key()
    assert ledger.find_key(record.digest) is None
    ledger.put_key(record)
    caller = ledger.find_key(record.digest)
    assert caller is not None
    assert caller.identities == {Identity.of_key(record.key_id), Identity.of_secret(record.digest)}
    assert (caller.method, caller.credential_id, caller.name) == ("api_key", record.key_id, "gate")
    assert ledger.find_key(record.key_id.encode()) is None


def test_a_key_put_anew_forgets_its_former_secrets() -> None:
    """After a second rotation the first secret is a wrong key."""
    ledger, record = Ledger(), a_key()
    ledger.put_key(record)
    second = replace(record, digest=b"2" * 32, previous_digest=record.digest, previous_valid_until=9.0)
    ledger.put_key(second)
    assert ledger.find_key(record.digest) is not None
    ledger.put_key(replace(second, digest=b"3" * 32, previous_digest=second.digest))
    assert ledger.find_key(record.digest) is None
    assert ledger.find_key(b"2" * 32) is not None
    assert ledger.find_key(b"3" * 32) is not None


def test_the_old_secret_ends_with_its_grace_or_with_its_key() -> None:
    """Whichever is earlier; the new secret keeps the key's own end."""
    for expires, until in ((None, 9.0), (5.0, 5.0), (20.0, 9.0)):
        ledger = Ledger()
        record = a_key(expires_at=expires, previous_digest=b"0" * 32, previous_valid_until=9.0)
        ledger.put_key(record)
        old, new = ledger.find_key(b"0" * 32), ledger.find_key(record.digest)
        assert old is not None
        assert new is not None
        assert (old.expires, new.expires) == (until, expires)
        assert (ledger.end_of(old), ledger.end_of(new)) == (until, expires)
        assert not ledger.has_ended(old, until - 1)
        assert ledger.has_ended(old, until)
        assert not ledger.has_ended(new, 1e12)


def test_someone_who_came_in_before_the_rotation_ends_with_the_grace() -> None:
    """The caller that was looked at earlier knows of no end; the ledger does."""
    ledger, record = Ledger(), a_key()
    ledger.put_key(record)
    early = ledger.find_key(record.digest)
    assert early is not None
    assert ledger.end_of(early) is None
    ledger.put_key(replace(record, digest=b"2" * 32, previous_digest=record.digest, previous_valid_until=9.0))
    assert ledger.end_of(early) == 9.0
    assert ledger.has_ended(early, 9.0)
    assert not ledger.has_ended(early, 8.9)


def test_a_revoked_key_is_known_and_denied() -> None:
    """So that its use is told from a wrong key."""
    ledger, record = Ledger(), a_key(revoked_at=2.0)
    ledger.put_key(record)
    caller = ledger.find_key(record.digest)
    assert caller is not None
    assert ledger.is_denied(caller)


NAMES = st.sets(st.builds(named, st.text(max_size=5)))


@given(NAMES, NAMES)
def test_a_denial_hits_whoever_answers_to_one_of_its_names(denied: set[Identity], names: set[Identity]) -> None:
    """Denied exactly if the two share a name."""
    ledger = Ledger()
    ledger.deny(denied)
    caller = Caller("jwt_local", "s", frozenset(), frozenset(), identities=frozenset(names))
    assert ledger.is_denied(caller) is bool(denied & names)


def test_what_a_key_may_do_is_its_role_narrowed_by_its_permissions() -> None:
    """`user` is operator; cameras with `*` are all, an empty list none."""
    record = a_key(role="user", permissions=("camera:read",), camera_access=("camera1", "*"))
    caller = key_caller(record, record.digest, None)
    assert (caller.role, caller.capabilities) == ("operator", frozenset({"camera:read", "stream:read"}))
    assert caller.cameras is None
    assert key_caller(a_key(camera_access=()), b"", None).cameras == frozenset()
    assert key_caller(a_key(camera_access=("camera1",)), b"", None).cameras == frozenset({"camera1"})
    assert key_caller(a_key(), b"", None).cameras is None


def test_a_childs_secret_is_good_for_one_path_one_action_and_so_many_uses() -> None:
    """Anything else is refused and burns nothing."""
    ledger = Ledger()
    secret = ledger.child_secrets.make("camera0", "publish", 2)
    assert not ledger.child_secrets.use(secret, "camera1", "publish")
    assert not ledger.child_secrets.use(secret, "camera0", "read")
    assert not ledger.child_secrets.use("wrong", "camera0", "publish")
    assert [ledger.child_secrets.use(secret, "camera0", "publish") for _ in range(3)] == [True, True, False]


def test_a_childs_secret_without_a_count_is_good_until_dropped() -> None:
    """That of edged's own API calls; dropping it twice is fine."""
    ledger = Ledger()
    secret = ledger.child_secrets.make("", "api", None)
    assert all(ledger.child_secrets.use(secret, "", "api") for _ in range(5))
    ledger.child_secrets.drop(secret)
    ledger.child_secrets.drop(secret)
    assert not ledger.child_secrets.use(secret, "", "api")


def test_a_childs_secret_is_no_api_key() -> None:
    """The two are kept apart."""
    from edged.credentials.api_keys import digest

    ledger = Ledger()
    assert ledger.find_key(digest(ledger.child_secrets.make("camera0", "read"))) is None


OWNERS = ("ada", "bob")
Step = tuple[str, int, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["put", "end", "suspend", "resume", "revoke", "drop", "user", "disable", "shut", "restore"]
            ),
            st.integers(0, 4), st.integers(0, 9),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_the_counts_of_keys_are_those_of_their_states_whatever_has_happened(steps: list[Step]) -> None:
    """Each key in turn, at times before, at and behind its end."""
    ledger = Ledger()
    keys = [a_key(owner=owner) for owner in (None, None, "ada", "bob", "ada")]
    for doing, number, value in steps:
        known = ledger.keys.get(keys[number].key_id)
        name = OWNERS[number % 2]
        match doing:
            case "put" | "end" if known is None or doing == "end":
                ledger.put_key(replace(known or keys[number], expires_at=float(value) if value else None))
            case "suspend" | "resume" if known is not None:
                ledger.put_key(replace(known, suspended_at=1.0 if doing == "suspend" else None))
            case "revoke" if known is not None:
                ledger.mark_revoked([Identity.of_key(known.key_id)], 1.0)
            case "drop" if known is not None:
                ledger.drop_key(known)
            case "user" | "disable":
                user = UserRecord(name=name, role="viewer", created_at=1.0, epoch=0)
                ledger.put_user(replace(user, disabled_at=1.0 if doing == "disable" else None))
            case "shut":
                ledger.deny(login_identities(name))
            case "restore":
                ledger.unconfirmed_epoch = value if value % 2 else None
        for now in (0.0, float(value), 20.0):
            wanted = Counter(ledger.key_status(record, now) for record in ledger.keys.values())
            assert +ledger.count_keys(now) == wanted
