"""credentials/claims.py: verified claims → a caller; wrong types refuse, nothing is coerced (contract 7.1)."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import all_named, named

from edged.credentials.callers import Caller
from edged.credentials.claims import ClaimsRefused, Trust, read_caller, read_epoch
from edged.credentials.decision import Reason

NOW = 2_000_000_000.0
GOOD = {"sub": "ann", "role": "viewer", "exp": NOW + 60}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
members = st.sampled_from([
    "sub", "user_id", "name", "username", "role", "roles", "permissions", "scope", "camera_access", "exp", "iat",
    "nbf", "jti", "mediamtx_permissions", "stream_access", "session_id",
])  # fmt: skip


def refusal(**claims: object) -> Reason:
    with pytest.raises(ClaimsRefused) as caught:
        read_caller(claims, "text", issuer="", now=NOW)
    assert caught.value.detail
    return caught.value.reason


@given(st.dictionaries(members, json_values), st.booleans())
def test_any_claims_make_a_caller_or_are_refused(claims: dict[str, object], complete: bool) -> None:
    """Never another exception, whatever JSON holds; and a caller has an end that is not past."""
    try:
        caller = read_caller({**GOOD, **claims} if complete else claims, "text", issuer="", now=NOW)
    except ClaimsRefused:
        return
    assert isinstance(caller, Caller)
    assert caller.expires is not None
    assert NOW < caller.expires < math.inf
    assert caller.subject


@pytest.mark.parametrize(
    ("member", "wrong"),
    [("sub", 5), ("user_id", ["a"]), ("role", ["viewer"]), ("roles", "viewer"), ("roles", [1]), ("permissions", "x"),
     ("permissions", {"a": 1}), ("scope", {}), ("scope", ["x", 5]), ("camera_access", "camera0"),
     ("camera_access", [None]), ("jti", 5), ("name", {}),
     ("exp", "2000000060"), ("exp", True), ("exp", math.nan), ("exp", math.inf), ("exp", 10**400),
     ("exp", -(10**400)), ("iat", "now"), ("nbf", []), ("mediamtx_permissions", "all"), ("stream_access", 1),
     ("permissions", ["x"] * 65), ("permissions", ["x" * 129]), ("roles", ["x" * 129]),
     ("scope", "x " * 65), ("scope", ["x"] * 65), ("scope", ["x " * 33] * 2), ("scope", "x" * 129), ("scope", 5)],
)  # fmt: skip
def test_a_member_of_the_wrong_type_refuses_the_token(member: str, wrong: object) -> None:
    """Malformed, naming the member."""
    with pytest.raises(ClaimsRefused, match=member if member != "stream_access" else "mediamtx_permissions") as caught:
        read_caller({**GOOD, member: wrong}, "text", issuer="", now=NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_time_is_judged_with_leeway_for_beginnings_only() -> None:
    """exp is required and exact; nbf and iat may lie 60 s ahead (contract S0-24)."""
    assert refusal(sub="a", role="viewer") is Reason.NO_EXPIRY
    assert refusal(**{**GOOD, "exp": None}) is Reason.NO_EXPIRY
    assert refusal(**{**GOOD, "exp": NOW}) is Reason.EXPIRED
    for member in ("nbf", "iat"):
        assert read_caller({**GOOD, member: NOW + 60}, "text", issuer="", now=NOW).subject == "ann"
        assert refusal(**{**GOOD, member: NOW + 61}) is Reason.NOT_YET_VALID


def test_the_subject_is_user_id_or_sub_and_both_must_agree() -> None:
    """Two names for two subjects refuse the token (contract C-28)."""
    assert read_caller({**GOOD, "user_id": "ann"}, "text", issuer="", now=NOW).subject == "ann"
    assert (
        read_caller({"user_id": "bob", "role": "viewer", "exp": NOW + 1}, "text", issuer="", now=NOW).subject == "bob"
    )
    assert refusal(**{**GOOD, "user_id": "bob"}) is Reason.MALFORMED
    assert refusal(role="viewer", exp=NOW + 1) is Reason.MALFORMED
    assert refusal(sub="", role="viewer", exp=NOW + 1) is Reason.MALFORMED


def test_a_token_without_role_permissions_or_streams_is_refused() -> None:
    """A user token of guide S3 on /ws: `Invalid role` (contract 7.6)."""
    with pytest.raises(ClaimsRefused, match="Invalid role"):
        read_caller({"sub": "u", "user_id": "u", "exp": NOW + 1}, "text", issuer="", now=NOW)
    assert refusal(sub="u", role="superhero", exp=NOW + 1) is Reason.ROLE_DENIED
    assert refusal(sub="u", role="Admin", exp=NOW + 1) is Reason.ROLE_DENIED


def test_role_and_roles_are_one_set() -> None:
    """`user` is operator; unknown names stay and give nothing (contract C-27)."""
    caller = read_caller({**GOOD, "role": "user", "roles": ["viewer", "poet"]}, "text", issuer="", now=NOW)
    assert caller.roles == {"operator", "viewer", "poet"}
    assert caller.role == "operator"


def test_a_token_is_known_by_its_jti_and_by_its_text() -> None:
    """Both can be revoked; without a jti the hash is its id (contract S0-8)."""
    hashed = hashlib.sha256(b"text").hexdigest()
    known = read_caller({**GOOD, "jti": "j1"}, "text", issuer="", now=NOW)
    assert (known.identities, known.credential_id) == (all_named("jti_of::j1", f"token:{hashed}"), "j1")
    assert known.token is not None
    assert known.token.shared == {named("jti:j1")}
    outside = read_caller({**GOOD, "jti": "j1"}, "text", now=NOW, issuer="https://a:8443")
    assert outside.identities == all_named("jti_of:https%3A//a%3A8443:j1", f"token:{hashed}")
    for claims in (GOOD, {**GOOD, "jti": ""}):
        nameless = read_caller(claims, "text", issuer="", now=NOW)
        assert (set(nameless.identities), nameless.credential_id) == ({named(f"token:{hashed}")}, hashed)


@pytest.mark.parametrize(
    ("scope", "role", "capabilities"),
    [
        ("openid profile email", "viewer", {"camera:read", "stream:read", "system:read"}),
        ("openid camera:read", "operator", {"camera:read", "stream:read"}),
        ("openid camera:read", None, {"camera:read", "stream:read"}),
        ("openid other", "viewer", set()),
        ("", "viewer", set()),
        (" ", "viewer", set()),
    ],
)
def test_a_login_s_scope_permits_nothing_and_takes_nothing(
    scope: str, role: str | None, capabilities: set[str]
) -> None:
    """Identity providers write what may be told of somebody into each token; any other word narrows as ever."""
    claims = {"sub": "a", "exp": NOW + 1, "scope": scope} | ({"role": role} if role else {})
    assert read_caller(claims, "text", issuer="", now=NOW).capabilities == capabilities


@pytest.mark.parametrize("scope", ["openid", "openid profile", None])
def test_a_login_s_scope_is_no_role(scope: str | None) -> None:
    """Somebody who is only known is nobody here."""
    with pytest.raises(ClaimsRefused, match="Invalid role"):
        read_caller({"sub": "a", "exp": NOW + 1, "scope": scope}, "text", issuer="", now=NOW)


@pytest.mark.parametrize(
    "scope",
    [
        "openid camera:read other",
        ["openid", "camera:read", "other"],
        ["openid camera:read", "other"],
        "  openid  camera:read\tother ",
    ],
)
def test_a_scope_is_a_string_or_a_list(scope: object) -> None:
    """The same words, however they are written; 64 of them are allowed."""
    caller = read_caller({"sub": "a", "exp": NOW + 1, "scope": scope}, "text", issuer="", now=NOW)
    assert (caller.permissions, set(caller.capabilities)) == (("camera:read", "other"), {"camera:read", "stream:read"})
    assert read_caller({**GOOD, "scope": ["x"] * 64}, "text", issuer="", now=NOW).permissions == ("x",) * 64
    assert read_caller({**GOOD, "scope": "x " * 64}, "text", issuer="", now=NOW).permissions == ("x",) * 64


def test_a_list_opens_files_as_the_one_word_does() -> None:
    """Only where our own key signed, and alone."""
    claims = {"sub": "a", "exp": NOW + 1, "scope": ["files"]}
    assert read_caller(claims, "text", issuer="", now=NOW, may_open_files=True).only_files
    with pytest.raises(ClaimsRefused, match="role_denied"):
        read_caller(claims, "text", issuer="", now=NOW)
    both = claims | {"scope": ["files", "camera:read"]}
    assert not read_caller(both, "text", issuer="", now=NOW, may_open_files=True).only_files


def test_scope_is_read_where_there_are_no_permissions() -> None:
    """A space-separated list; `permissions` wins."""
    scoped = read_caller({"sub": "a", "exp": NOW + 1, "scope": "camera:read other"}, "text", issuer="", now=NOW)
    assert scoped.permissions == ("camera:read", "other")
    assert scoped.capabilities == {"camera:read", "stream:read"}
    both = read_caller(
        {"sub": "a", "exp": NOW + 1, "scope": "camera:read", "permissions": []}, "text", issuer="", now=NOW
    )
    assert both.capabilities == frozenset()


def test_cameras_are_all_some_or_none() -> None:
    """Absent or `*`: all; an empty list: none."""
    for given_cameras, cameras in (
        (None, None),
        (["camera1", "*"], None),
        ([], frozenset()),
        (["camera1"], {"camera1"}),
    ):
        assert read_caller({**GOOD, "camera_access": given_cameras}, "text", issuer="", now=NOW).cameras == cameras


@pytest.mark.parametrize(
    ("claim", "read", "publish"),
    [
        ([{"action": "read", "path": "a"}, {"action": "publish", "path": "b"}], {"a"}, {"b"}),
        ([{"action": "playback", "path": "a"}], {"a"}, set()),
        ({"read": ["a", "*"], "publish": ["b"]}, {"a", "*"}, {"b"}),
        ([{"action": "read", "path": ""}], set(), set()),
        ([{"action": "read", "path": "~.*"}], set(), set()),
        (
            [{"action": "read", "path": r"~^cam[0-9A-Za-z_\-/.]*$"}, {"action": "read", "path": "*"}],
            {"cam*", "*"},
            set(),
        ),
        ([{"action": "publish", "path": r"~^a\.b/c-[0-9A-Za-z_\-/.]*$"}], set(), {"a.b/c-*"}),
        ([{"action": "read", "path": "cam*"}], set(), set()),
        ({"read": ["cam*", r"~^cam[0-9A-Za-z_\-/.]*$"], "publish": ["a/b*"]}, {"cam*"}, {"a/b*"}),
        ([{"action": "read"}, {"path": "a"}, "read", None, 5], set(), set()),
        ({"read": "a", "fly": ["b"], "publish": [1, None]}, set(), set()),
        ([], set(), set()),
        ({}, set(), set()),
    ],
)
def test_named_streams_are_exactly_those(claim: object, read: set[str], publish: set[str]) -> None:
    """List or map; an empty path and a regex are no grant; what is not understood gives nothing (C-30, C-32)."""
    caller = read_caller({"sub": "a", "exp": NOW + 1, "mediamtx_permissions": claim}, "text", issuer="", now=NOW)
    assert caller.streams is not None
    assert (set(caller.streams.read), set(caller.streams.publish)) == (read, publish)


@pytest.mark.parametrize(
    ("claims", "by_secret", "by_pair"),
    [
        ({"iss": "edged", "epoch": 4}, 4, 4),
        ({"iss": "edged"}, None, 0),
        ({"iss": "edged", "epoch": True}, None, 0),
        ({"iss": "edged", "epoch": "4"}, None, 0),
        ({"iss": "camera-service", "epoch": 4}, None, None),
        ({"epoch": 4}, None, None),
    ],
)
def test_a_token_is_our_own_by_its_key_or_by_its_epoch(
    claims: dict[str, object], by_secret: int | None, by_pair: int | None
) -> None:
    """Who shares a secret may sign in our name, but not by chance; what our key pairs signed is ours (10.8)."""
    issuers = frozenset({"edged", "camera-service"})
    assert read_epoch(claims, Trust(issuers, own="edged")) == by_secret
    assert read_epoch(claims, Trust(issuers, own="edged", needs_issuer=True)) == by_pair
    assert read_epoch(claims, Trust(issuers)) is None


def test_a_caller_says_the_epoch_of_its_token() -> None:
    """As whoever read it was told; None for a foreign one."""
    assert read_caller({**GOOD, "epoch": 9}, "text", issuer="", now=NOW).epoch is None
    assert read_caller(GOOD, "text", issuer="", now=NOW, epoch=9).epoch == 9
