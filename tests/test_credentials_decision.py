"""credentials/decision.py: decide() against a second, slower reading of contract 7.5 and 7.6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.callers import NOTHING, Caller, Resource, Streams
from edged.credentials.claims import read_caller
from edged.credentials.decision import OUTSIDE, Reason, decide, outside_reason
from edged.credentials.roles import CAPABILITIES, OPEN, ROLES, SELF

NOW = 2_000_000_000.0
names = st.frozensets(st.sampled_from(["camera0", "camera1", "/dev/video0", "*", "yard"]), max_size=3)
capabilities = st.sampled_from(sorted(CAPABILITIES))
callers = st.none() | st.builds(
    Caller,
    method=st.just("jwt_local"),
    subject=st.just("ann"),
    roles=st.just(frozenset()),
    capabilities=st.frozensets(capabilities, max_size=6),
    grants=st.frozensets(st.builds("{}:{}".format, capabilities, st.sampled_from(["camera0", "camera1"])), max_size=3),
    cameras=st.none() | names,
    streams=st.none() | st.builds(Streams, read=names, publish=names),
    expires=st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1]),
)
resources = st.sampled_from(
    [
        NOTHING,
        Resource.of_camera("camera0", "/dev/video0"),
        Resource.of_camera("camera1", None),
        Resource.of_camera("yard"),
    ]
)


def expected(caller: Caller | None, capability: str, resource: Resource) -> Reason | None:
    """The contract once more, rule by rule."""
    if capability == OPEN:
        return None
    if caller is None:
        return Reason.MISSING
    if caller.expires is not None and caller.expires <= NOW:
        return Reason.EXPIRED
    if capability == SELF:
        return None
    if caller.streams is not None and capability.startswith("stream:"):
        listed = caller.streams.read if capability == "stream:read" else caller.streams.publish
        return None if ("*" in listed or listed & resource.names) else Reason.CAMERA_DENIED
    if resource.names and caller.cameras is not None and not caller.cameras & resource.names:
        return Reason.CAMERA_DENIED
    if capability in caller.capabilities:
        return None
    granted = {grant.split(":", 2)[2] for grant in caller.grants if grant.startswith(capability + ":")}
    if (granted & resource.names) if resource.names else granted:
        return None
    return Reason.MISSING_SCOPE


@given(callers, capabilities | st.sampled_from([OPEN, SELF, "no:such"]), resources)
def test_decide_agrees_with_the_contract(caller: Caller | None, capability: str, resource: Resource) -> None:
    """For every caller, question and thing: the same answer, with the same reason."""
    reason = expected(caller, capability, resource)
    assert decide(caller, capability, resource, now=NOW) == (reason is None, reason)


@given(callers, capabilities, resources)
def test_an_answer_is_yes_or_has_a_reason(caller: Caller | None, capability: str, resource: Resource) -> None:
    """Never neither, never both."""
    allowed, reason = decide(caller, capability, resource, now=NOW)
    assert allowed is (reason is None)


@given(callers, resources)
def test_what_nobody_declared_is_denied(caller: Caller | None, resource: Resource) -> None:
    """Default deny: an unknown capability is nobody's."""
    assert not decide(caller, "camera:fly", resource, now=NOW).allowed


def test_every_reason_has_one_word_for_outside() -> None:
    """Contract 10.20: four words of the credential, two of what was asked with a good one, one of whose page asks."""
    assert OUTSIDE.keys() == frozenset(Reason)
    exact = {Reason.MISSING: "auth_required", Reason.EXPIRED: "expired", Reason.REVOKED: "revoked",
             Reason.MISSING_SCOPE: "permission_denied", Reason.CAMERA_DENIED: "camera_not_found",
             Reason.ORIGIN_DENIED: "origin_denied"}  # fmt: skip
    for reason in Reason:
        assert outside_reason(reason) == exact.get(reason, "auth_failed")


def test_a_reason_that_nobody_declared_says_no_more_than_no() -> None:
    """Never "permission denied", which would tell that the credential was good."""
    assert outside_reason("sunspots") == "auth_failed"


# --- the worked rows of contract 7.6 ---------------------------------------------------


def caller(**claims: object) -> Caller:
    return read_caller({"exp": NOW + 10, **claims}, "text", issuer="", now=NOW)


def may(who: Caller, capability: str, *path: str) -> bool:
    return decide(who, capability, Resource.of_camera(*path) if path else NOTHING, now=NOW).allowed


def test_the_row_of_seed_001() -> None:
    """{user_id, role: operator}: snapshot yes, delete no."""
    operator = caller(user_id="u", role="operator")
    assert may(operator, "camera:write", "camera0")
    assert not may(operator, "camera:delete", "camera0")


@pytest.mark.parametrize("role", ["user", "viewer", "admin"])
def test_the_rows_of_seed_000(role: str) -> None:
    """Its generated tokens: cameras as listed, rights as the role's permissions."""
    permissions = {
        "admin": ["camera:read", "camera:write", "camera:delete", "system:admin"],
        "user": ["camera:read", "camera:write"],
        "viewer": ["camera:read"],
    }[role]
    cameras = {"admin": ["*"], "user": ["camera1", "camera2"], "viewer": ["camera1"]}[role]
    who = caller(sub="u", role=role, permissions=permissions, camera_access=cameras)
    seen = {name for name in ("camera0", "camera1", "camera2") if may(who, "camera:read", name)}
    assert seen == ({"camera0", "camera1", "camera2"} if role == "admin" else set(cameras))
    assert may(who, "camera:write", "camera1") is (role != "viewer")
    assert may(who, "camera:delete", "camera1") is (role == "admin")
    assert may(who, "system:admin") is (role == "admin")
    assert may(who, "stream:read", "camera1")
    assert not may(who, "keys:admin")


def test_the_row_of_seed_002() -> None:
    """Its admin token: cameras yes, system:admin (get_metrics) no, as its permissions narrow."""
    admin = caller(sub="a", username="admin", roles=["admin"], permissions=["read:*", "write:*", "delete:*"])
    assert all(may(admin, f"camera:{verb}", "camera0") for verb in ("read", "write", "delete"))
    assert not may(admin, "system:admin")
    assert not may(admin, "keys:admin")
    assert admin.name == "admin"


def test_the_row_of_seed_004() -> None:
    """Its stream token: camera_one yes, camera_one2 no, publish no; nothing else at all."""
    for claim in (
        {"mediamtx_permissions": [{"action": "read", "path": "camera_one"}]},
        {"mediamtx_permissions": {"read": ["camera_one"], "publish": []}},
        {"stream_access": {"read": ["camera_one"]}},
        {"mediamtx_permissions": None, "stream_access": {"read": ["camera_one"]}},
    ):
        who = caller(sub="s", **claim)
        assert may(who, "stream:read", "camera_one")
        assert not may(who, "stream:read", "camera_one2")
        assert not may(who, "stream:publish", "camera_one")
        assert not any(may(who, name) for name in CAPABILITIES)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_may_what_the_table_says(role: str) -> None:
    """Contract 7.2 as decisions."""
    who = caller(sub="s", role=role)
    assert {name for name in CAPABILITIES if may(who, name)} == ROLES[role]


def test_a_grant_for_one_camera_is_for_that_camera_and_for_the_list() -> None:
    """By any of its names; the list may be asked for, its rows are judged one by one; another camera is not theirs."""
    who = caller(sub="s", permissions=["camera:read:camera1", "camera:write:/dev/video1"])
    assert may(who, "camera:read", "camera1", "/dev/video1")
    assert may(who, "camera:write", "camera1", "/dev/video1")
    assert may(who, "stream:read", "camera1")
    assert may(who, "camera:read")
    assert not may(who, "camera:read", "camera2")
    assert not may(who, "camera:delete")
    assert not may(who, "camera:delete", "camera1")
