"""credentials/roles.py: the role table and how a written permission becomes capabilities (contract 7.2 to 7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.roles import (
    CAPABILITIES,
    FILES,
    ROLES,
    SERVICE,
    canonical_role,
    compute,
    expand,
    is_permission,
    name_cameras,
    role_capabilities,
)

GUARDED = {name for name in CAPABILITIES if name.split(":")[0] in
           {"system", "keys", "users", "sessions", "tokens", "audit"}}  # fmt: skip
segments = st.sampled_from([
    "camera", "cameras", "read", "write", "delete", "admin", "system", "keys", "*", "camera0", "posts", "stream",
    "tokens", "issue", "view", "", "files", "/dev/video0", "a b", "metrics",
])  # fmt: skip
permissions = st.lists(st.lists(segments, min_size=1, max_size=4).map(":".join) | st.text(max_size=12), max_size=6)
roles = st.frozensets(st.sampled_from([*ROLES, "stranger"]), max_size=3)


def test_the_role_table_is_the_contracts() -> None:
    """Contract 7.2, word for word."""
    assert ROLES["monitor"] == {"metrics:read", "system:read"}
    assert ROLES["viewer"] == {"camera:read", "stream:read", "system:read"}
    assert ROLES["operator"] == ROLES["viewer"] | {"camera:write"}
    assert ROLES["admin"] == ROLES["operator"] | {
        "camera:delete", "stream:publish", "system:admin", "keys:admin", "users:admin", "sessions:admin",
        "tokens:issue", "tokens:revoke", "audit:read", "metrics:read", "files:admin",
    }  # fmt: skip
    assert canonical_role("user") == "operator"
    assert canonical_role("User") == "User"


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("view", ROLES["viewer"]),
        ("control", {"camera:write"}),
        ("admin", ROLES["admin"]),
        ("camera:read", {"camera:read"}),
        ("camera:read:*", {"camera:read"}),
        ("camera:*", {"camera:read", "camera:write", "camera:delete"}),
        ("read:camera", {"camera:read"}),
        ("read:cameras", {"camera:read"}),
        ("delete:*", {"camera:delete"}),
        ("write:*", {"camera:write"}),
        ("keys:admin", {"keys:admin"}),
        ("keys:*", set()),
        ("admin:keys", set()),
        ("*:cameras", set()),
        ("re*ad:camera", set()),
        ("camera:re*", set()),
        ("read:*:own", set()),
        ("Camera:Read", set()),
        ("camera", set()),
        ("read:posts", set()),
        ("", set()),
    ],
)
def test_a_written_permission_reaches_exactly_this(written: str, whole: set[str]) -> None:
    """Both spellings; `*` only last; case-sensitive; foreign names give nothing here (contract 7.4)."""
    assert expand([written])[0] == whole


def test_a_star_reaches_everything_but_what_is_guarded() -> None:
    """`*`, `read:*` and `admin:*` never reach system:admin or keys:admin."""
    assert expand(["*"])[0] == CAPABILITIES - GUARDED - SERVICE
    for pattern in ("*", "read:*", "admin:*", "issue:*", "system:*"):
        assert not expand([pattern])[0] & GUARDED


@pytest.mark.parametrize("name", ["camera:read:camera1", "camera:write:/dev/video1", "stream:publish:yard/left"])
def test_a_grant_for_one_thing_is_kept_apart(name: str) -> None:
    """It is no whole capability."""
    assert expand([name]) == (frozenset(), frozenset({name}))


@pytest.mark.parametrize(
    ("text", "good"),
    [("camera:read", True), ("camera:*", True), ("*", True), ("*:camera", False), ("camera:", False), (":", False),
     ("", False), ("a b", False), ("camera:re*", False), ("camera:read\n", False)],
)  # fmt: skip
def test_the_grammar_of_permissions(text: str, good: bool) -> None:
    """seg(:seg)*, a star only alone or last."""
    assert is_permission(text) is good


@given(permissions)
def test_expanding_only_ever_gives_known_capabilities(written: list[str]) -> None:
    """Whatever is written; and guarded ones by their exact name or a word of old only."""
    whole, single = expand(written)
    assert whole <= CAPABILITIES - SERVICE
    if "admin" not in written and "view" not in written:
        assert whole & GUARDED <= set(written)
    assert all(grant in written for grant in single)


@given(roles, permissions, st.booleans())
def test_permissions_never_widen_a_role(known: frozenset[str], written: list[str], has_streams: bool) -> None:
    """With a role every right is within it; without one nothing guarded is reached (contract 7.3 step 3)."""
    whole, single = compute(known, written, has_streams=has_streams)
    base = {grant.rsplit(":", 1)[0] if ":" in grant else grant for grant in single}
    if known & ROLES.keys():
        most = frozenset().union(*(ROLES[role] for role in known if role in ROLES))
        # Seeing a camera includes its stream.
        assert whole <= most
        assert all(any(name.startswith(right) for right in most) for name in base)
    else:
        assert not whole & GUARDED
        assert not any(name.split(":")[0] in {g.split(":")[0] for g in GUARDED} for name in base)


@given(roles, permissions, permissions)
def test_more_permissions_never_give_less(known: frozenset[str], some: list[str], more: list[str]) -> None:
    """Writing another permission takes nothing away."""
    few, many = (compute(known, written, has_streams=True) for written in (some, some + more))
    assert few[0] <= many[0]
    assert few[1] <= many[1]


@given(roles)
def test_no_permissions_mean_the_role_and_an_empty_list_nothing(known: frozenset[str]) -> None:
    """Absent and empty are not the same."""
    most = frozenset().union(*(ROLES[role] for role in known if role in ROLES))
    assert compute(known, None, has_streams=True) == (most, frozenset())
    assert compute(known, [], has_streams=False) == (frozenset(), frozenset())


def test_seeing_a_camera_includes_its_stream_unless_streams_are_named() -> None:
    """Contract 7.5; for one camera as for all."""
    for written, whole, single in (
        (["camera:read"], {"camera:read", "stream:read"}, set()),
        (["camera:read:camera1"], set(), {"camera:read:camera1", "stream:read:camera1"}),
    ):
        assert compute(frozenset({"viewer"}), written, has_streams=False) == (frozenset(whole), frozenset(single))
    assert compute(frozenset({"viewer"}), ["camera:read:c"], has_streams=True) == (
        frozenset(),
        frozenset({"camera:read:c"}),
    )


@given(roles, permissions)
def test_what_a_service_token_may_do_can_be_claimed_by_nobody(held: frozenset[str], written: list[str]) -> None:
    """No role holds files:read or token:mint and no permission reaches them, by name or by pattern (contract 7.2)."""
    assert SERVICE == FILES | {"token:mint"} == {"files:read", "files:write", "files:delete", "token:mint"}
    claimed = [*written, *SERVICE, "files:*", "files", "read:files", "token:*", "mint:token", "*", "files:read:x"]
    whole, single = compute(held | {"service", "files"}, claimed, has_streams=False)
    assert not whole & SERVICE
    assert not any(grant.startswith(("files:read", "files:write", "files:delete", "token:")) for grant in single)
    assert not role_capabilities({*ROLES, "service", "files"}) & SERVICE


def test_no_list_of_cameras_is_every_camera_and_an_empty_one_none() -> None:
    """Contract S0-6; `*` is every camera, whatever stands beside it."""
    assert name_cameras(None) is None
    assert name_cameras(["*"]) is name_cameras(("camera0", "*")) is None
    assert name_cameras([]) == frozenset()
    assert name_cameras(("camera0", "camera1")) == frozenset({"camera0", "camera1"})
