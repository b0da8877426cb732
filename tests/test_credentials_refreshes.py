"""credentials/refreshes.py: a successor says what its token said, and no more; it ends with its family."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import named

from edged.credentials.callers import Caller, Signer
from edged.credentials.claims import read_caller
from edged.credentials.refreshes import (
    FAMILY_SECONDS,
    USUAL_LIFE,
    name_of,
    renew,
    signer_of,
    started_at,
    text_of,
)

NOW = 1_800_000_000.75
HS, RS = Signer("HS256", "test"), Signer("RS256", "key-1")
CLAIMS: dict[str, object] = {
    "sub": "ada", "role": "operator", "permissions": ["camera:read"], "camera_access": ["camera1"], "jti": "one",
    "iat": int(NOW) - 600, "exp": int(NOW) + 3000, "department": {"level": 3}, "aud": "camera-clients",
}  # fmt: skip


def caller_of(text: str = "text", signed_by: Signer | None = HS, epoch: int | None = None, **changes: object) -> Caller:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return read_caller(claims, text, issuer="", now=NOW - 1, signer=signed_by, epoch=epoch)


def successor(caller: Caller, signer: Signer = HS, now: float = NOW, epoch: int = 0) -> dict[str, object]:
    claims = renew(caller, signer, now=now, started=started_at(caller, now), epoch=epoch)
    assert claims is not None
    return claims


def test_a_successor_says_the_same_with_a_new_time_and_jti() -> None:
    """S0-13, S0-24, S0-4: `iat` rounded down, a day from now, another jti, extra claims kept."""
    claims = successor(caller_of())
    assert (claims["iat"], claims["exp"]) == (int(NOW), int(NOW) + USUAL_LIFE)
    assert claims["jti"] != "one"
    changed = {"iat", "exp", "jti", "aud"}
    assert {name: value for name, value in claims.items() if name not in changed} == {
        name: value for name, value in CLAIMS.items() if name not in changed
    }


def test_an_audience_goes_where_a_seed_would_stumble_over_it_and_stays_elsewhere() -> None:
    """S0-11: none by a shared secret; a key pair's token is for whom it was."""
    assert "aud" not in successor(caller_of())
    assert successor(caller_of(), RS)["aud"] == "camera-clients"


def test_edgeds_own_says_the_epoch_of_now_and_a_foreign_one_none() -> None:
    """Contract 10.8: what is issued after a cut-off is told from what was issued before."""
    assert successor(caller_of(epoch=3), epoch=8)["epoch"] == 8
    assert "epoch" not in successor(caller_of(), epoch=8)


@pytest.mark.parametrize(
    ("changes", "life"),
    [({}, 3600), ({"iat": None}, USUAL_LIFE), ({"iat": NOW + 2999.5}, 1), ({"exp": NOW + 10.25, "iat": NOW - 10}, 20)],
)
def test_edgeds_own_lives_as_long_as_it_was_to_live(changes: dict[str, object], life: int) -> None:
    """Whole seconds, at least one; a day where the token does not say (S0-7); contract 5.2's hour stays an hour."""
    caller = caller_of(epoch=0)
    assert caller.token is not None
    caller = dataclasses.replace(caller, token=dataclasses.replace(caller.token, claims={**caller.claims, **changes}))
    if "exp" in changes:
        caller = dataclasses.replace(caller, expires=float(str(changes["exp"])))
    if changes.get("iat", 0) is None:
        del caller.claims["iat"]
    claims = renew(caller, HS, now=NOW, started=NOW, epoch=0)
    assert claims is not None
    assert claims["exp"] == int(NOW) + life


@pytest.mark.parametrize("left", [1, 3600, 10**6])
def test_what_others_made_by_a_shared_secret_lives_a_day_from_its_refresh(left: int) -> None:
    """S0-13: `exp` is 24 hours from now, however long the token was to live, and again and again."""
    caller = caller_of(exp=int(NOW) + left)
    for _ in range(3):
        claims = successor(caller)
        assert claims["exp"] == int(NOW) + 86400
        caller = read_caller(claims, "text", issuer="", now=NOW, signer=HS)


def test_nothing_of_a_family_outlives_thirty_days() -> None:
    """Contract 10.5: the last successors end sooner, and then there is none."""
    started = NOW - FAMILY_SECONDS + 60
    for caller in (caller_of(), caller_of(epoch=0)):
        claims = renew(caller, HS, now=NOW, started=started, epoch=0)
        assert claims is not None
        assert claims["exp"] == int(started + FAMILY_SECONDS)
        assert renew(caller, HS, now=started + FAMILY_SECONDS, started=started, epoch=0) is None


@pytest.mark.parametrize(("issued", "began"), [(None, NOW), (int(NOW) - 9, int(NOW) - 9), (NOW + 30, NOW)])
def test_a_family_begins_when_its_first_token_was_issued(issued: float | None, began: float) -> None:
    """Now, if that says nothing or a time that is yet to come."""
    assert started_at(caller_of(iat=issued), NOW) == began


def test_a_token_is_known_by_all_it_says_or_by_its_text() -> None:
    """Two that somebody gave one jti are two; the texts of one successor, by keys that follow each other, are one."""
    one = caller_of()
    assert name_of(one, RS) == name_of(caller_of("other text"), Signer("RS256", "key-2"))
    others = [
        name_of(caller_of(sub="eve"), RS),
        name_of(one, Signer("ES256", "key-1")),
        name_of(one, HS),
        name_of(one, Signer("HS256", "other")),
        name_of(caller_of(jti=None), HS),
        name_of(caller_of("other text", jti=None), HS),
    ]
    assert len({name_of(one, RS), *others}) == 7
    assert named(f"token:{name_of(caller_of(jti=None), HS)}") == text_of(caller_of(jti=None))


def test_only_what_edged_could_sign_has_a_signer() -> None:
    """A shared secret by its name, a key pair by its kid; keys, tickets and outside issuers' tokens have none."""
    assert signer_of(caller_of(signed_by=Signer("HS256", "a:b"))) == Signer("HS256", "a:b")
    assert signer_of(caller_of(signed_by=RS)) == RS
    assert signer_of(caller_of(signed_by=None)) is None
    for method in ("api_key", "ticket", "jwt_federated", "peercred"):
        assert signer_of(dataclasses.replace(caller_of(), method=method)) is None


def test_streams_named_by_a_map_are_named_by_a_list_from_then_on() -> None:
    """C-30: the list is what a MediaMTX reads, the map stands in `stream_access`; a list stays the list that it is."""
    claims = successor(caller_of(role=None, mediamtx_permissions={"read": ["b", "*"], "publish": ["a"]}))
    assert claims["mediamtx_permissions"] == [
        {"action": "read", "path": ""}, {"action": "read", "path": "b"}, {"action": "publish", "path": "a"},
    ]  # fmt: skip
    assert claims["stream_access"] == {"read": ["*", "b"], "publish": ["a"]}
    listed = [{"action": "read", "path": "a"}]
    claims = successor(caller_of(mediamtx_permissions=listed))
    assert claims["mediamtx_permissions"] == listed
    assert "stream_access" not in claims


_words = st.sampled_from(["camera:read", "camera:write", "system:admin", "read:posts", "view", "admin", "*"])
_paths = st.lists(st.sampled_from(["camera1", "*", "cam*", "", "~x", "a b"]), max_size=3)
_access = st.dictionaries(st.sampled_from(["read", "publish", "playback", "api", "x"]), _paths | st.none())
_listed = st.lists(
    st.fixed_dictionaries(
        {"action": st.sampled_from(["read", "publish", "x"]), "path": st.sampled_from(["a", "", "*"])}
    )
)
_claims = st.fixed_dictionaries(
    {"sub": st.just("ada"), "role": st.sampled_from(["viewer", "operator", "admin", "user"])},
    optional={
        "permissions": st.lists(_words, max_size=5), "camera_access": st.lists(st.just("camera1"), max_size=2),
        "stream_access": _access, "mediamtx_permissions": _access | _listed | st.none(),
        "iat": st.integers(0, int(NOW)), "jti": st.text(max_size=9).filter(str.isprintable), "extra": st.integers(),
        "nbf": st.integers(0, int(NOW)), "aud": st.just("camera-clients"),
    },
)  # fmt: skip


@given(_claims, st.integers(1, 10**7), st.sampled_from([HS, RS]))
def test_a_successor_may_do_exactly_what_its_token_may(claims: dict[str, object], left: int, signer: Signer) -> None:
    """Whatever the token says: the same subject, roles, rights, cameras and streams, and no map for a MediaMTX."""
    before = read_caller({**claims, "exp": int(NOW) + left}, "text", issuer="", now=NOW)
    found = renew(before, signer, now=NOW, started=NOW, epoch=0)
    assert found is not None
    after = read_caller(found, "other", issuer="", now=NOW)
    same = ("subject", "roles", "capabilities", "grants", "cameras", "streams", "permissions", "name")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert (after.expires or 0) <= NOW + FAMILY_SECONDS
    assert not isinstance(found.get("mediamtx_permissions"), dict)
