"""credentials/users.py: what a user may be called and do, and what their keys can do at most."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.credentials.callers import NOTHING, Caller, Resource, Streams
from edged.credentials.claims import read_caller
from edged.credentials.decision import decide
from edged.credentials.roles import CAPABILITIES, ROLES
from edged.credentials.users import UserRecord, common, gains, is_user_name, loses, narrow

NOW = 2e9
ANN = UserRecord(name="ann", role="operator", created_at=1.0, epoch=1, password="$argon2id$…")
CAMERAS = ("camera0", "/dev/video0", "camera1", "dock")
RESOURCES = (
    NOTHING,
    Resource.of_camera("camera0", "/dev/video0"),
    Resource.of_camera("camera1"),
    Resource.of_camera("dock"),
)

permissions = st.lists(
    st.sampled_from([
        *sorted(CAPABILITIES), "view", "control", "admin", "*", "camera:*", "read:*", "camera:read:camera0",
        "stream:read:dock", "camera:write:camera1", "stream:publish:camera0", "read:posts",
    ]),
    max_size=6,
).map(tuple)  # fmt: skip
names = st.frozensets(st.sampled_from([*CAMERAS, "*"]), max_size=3)
users = st.builds(
    UserRecord,
    name=st.just("ann"),
    role=st.sampled_from([*ROLES, "user"]),
    created_at=st.just(1.0),
    epoch=st.just(0),
    permissions=st.none() | permissions,
    camera_access=st.none() | names.map(lambda found: tuple(sorted(found))),
    streams=st.none() | st.builds(Streams, names, names),
)


def allowed(caller: Caller) -> set[tuple[str, Resource]]:
    """All that somebody may do."""
    return {(c, r) for c in CAPABILITIES for r in RESOURCES if decide(caller, c, r, now=NOW).allowed}


@pytest.mark.parametrize("name", ["a", "ann", "_", "7", "Ann.B", "ann@example.org", "a+b-c_d", "x" * 64])
def test_what_a_user_may_be_called(name: str) -> None:
    """The clients' own alphabet."""
    assert is_user_name(name)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, ".ann", "-ann", "+a", "@a", "a..b", "a/b", "a b", "ann\n", "änn", "a:b", "a%2e", "a\0"]
)
def test_what_no_user_may_be_called(name: str) -> None:
    """Nothing that looks like an option, a hidden file, a path or another subject's name."""
    assert not is_user_name(name)


@given(users, users)
def test_what_is_narrowed_can_do_what_both_can_and_nothing_else(one: UserRecord, other: UserRecord) -> None:
    """For every capability, on every camera; whoever is held to less may do no more than either."""
    narrowed = narrow(one.rights, other.rights)
    both = allowed(one.rights) & allowed(other.rights)
    assert allowed(narrowed) <= both
    assert one.rights.covers(narrowed) or one.streams is not None or other.streams is not None


@given(users, users)
def test_names_that_are_written_alike_lose_nothing(one: UserRecord, other: UserRecord) -> None:
    """Where both speak of a camera by one name, what both can do is exactly what is left."""
    written = [names for user in (one, other) for names in (user.camera_access or (), *_named(user))]
    assume(not any("/dev/video0" in names for names in written))
    both = allowed(one.rights) & allowed(other.rights)
    left = allowed(narrow(one.rights, other.rights))
    # A question about no camera in particular is one about a list; its rows are judged one by one.
    assert {ask for ask in both if ask[1] is not NOTHING} == {ask for ask in left if ask[1] is not NOTHING}


def _named(user: UserRecord) -> tuple[frozenset[str], ...]:
    return () if user.streams is None else (user.streams.read, user.streams.publish)


@given(users, users)
def test_what_may_be_in_force_at_once_is_what_both_rows_allow(before: UserRecord, after: UserRecord) -> None:
    """A change that takes and gives first takes: the row between can do what both can, and names the new role."""
    held = common(before, after)
    assert held.role == after.role
    assert allowed(held.rights) == allowed(narrow(after.rights, before.rights))
    assert not gains(before, held)


@given(users)
def test_who_stays_as_they_were_neither_loses_nor_gains(user: UserRecord) -> None:
    """Whatever else of the row changes."""
    changed = replace(user, display_name="Ann", disabled_at=4.0)
    assert not loses(user, changed)
    assert not gains(user, changed)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"role": "viewer"}, (True, False)),
        ({"role": "admin"}, (False, True)),
        ({"role": "monitor"}, (True, True)),
        ({"permissions": ("camera:read",)}, (True, False)),
        ({"camera_access": ("camera0",)}, (True, False)),
        ({"streams": Streams(frozenset({"camera0"}))}, (True, False)),
    ],
)
def test_what_is_taken_and_what_is_given(changes: dict[str, object], expected: tuple[bool, bool]) -> None:
    """Of an operator with every camera."""
    after = replace(ANN, **changes)
    assert (loses(ANN, after), gains(ANN, after)) == expected


def test_a_lower_role_is_a_loss_whatever_the_permissions_said() -> None:
    """Tokens that were issued before still say the higher one."""
    before = replace(ANN, role="admin", permissions=("camera:read",))
    assert loses(before, replace(before, role="viewer"))


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, True), ({"password": None}, False), ({"disabled_at": 1.0}, False), ({"deleted_at": 1.0}, False),
        ({"role": "operator"}, False), ({"permissions": ("camera:read",)}, False), ({"permissions": ("admin",)}, True),
    ],
)  # fmt: skip
def test_who_can_administer(changes: dict[str, object], can: bool) -> None:
    """Whoever can log in now and holds users:admin."""
    assert replace(ANN, **{"role": "admin", **changes}).can_administer is can


@pytest.mark.parametrize("role", [*ROLES, "user"])
def test_a_logins_claims_make_a_caller_who_may_do_what_the_user_may(role: str) -> None:
    """In the words of the clients' own example, and all of the role (contract S2-4, S2-11, 7.3)."""
    user = replace(ANN, role=role)
    claims = {**user.login_claims(), "exp": NOW + 60}
    assert claims["sub"] == "user_ann"
    assert len(claims["permissions"]) <= 10  # type: ignore[arg-type]
    caller = read_caller(claims, "text", issuer="", now=NOW, epoch=1)
    assert (caller.subject, caller.name, caller.role) == ("ann", "ann", user.rights.role)
    assert allowed(caller) == allowed(user.rights)


def test_a_logins_claims_list_a_users_own_permissions() -> None:
    """Exactly those, where there are any."""
    assert replace(ANN, permissions=("camera:read",)).login_claims()["permissions"] == ["camera:read"]


def test_a_foreign_token_speaks_for_its_subject_whatever_its_user_name() -> None:
    """Only edged's own are a user's (contract 10.18)."""
    claims = {**ANN.login_claims(), "exp": NOW + 60}
    assert read_caller(claims, "text", issuer="", now=NOW).subject == "user_ann"
