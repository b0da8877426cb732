"""Where other issuers name roles, and what their words mean here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.credentials.claims import ClaimsRefused, read_caller
from edged.credentials.decision import Reason
from edged.credentials.issuers import IssuerRecord, limit
from edged.credentials.role_claims import OWN, RoleClaim, find_claim
from edged.credentials.roles import ROLES

WORDS = {"cam-admins": "admin", "Camera Users": "user", "watch": "viewer"}


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["offline_access", "watch"]}}),
        ("resource_access.my.app.roles", {"resource_access": {"my.app": {"roles": ["watch"]}}}),
        ("cognito:groups", {"cognito:groups": ["watch", "other"]}),
        ("https://example.com/roles", {"https://example.com/roles": ["watch"]}),
        ("https://example.com/app.roles", {"https://example.com/app": {"roles": "watch"}}),
        ("role", {"role": "watch"}),
        ("groups", {"groups": [*(f"group-{number}" for number in range(300)), "watch"]}),
    ],
)
def test_the_claim_is_found_where_the_provider_writes_it(path: str, claims: dict[str, object]) -> None:
    """Inside others, with dots in its name, as one word, or among hundreds."""
    assert RoleClaim(path, WORDS).read(claims) == {"viewer"}


def test_words_mean_what_the_table_says_and_nothing_else() -> None:
    """Several add up; a word of ours that is not in the table gives nothing; without a table they are ours."""
    claims = {"groups": ["Camera Users", "watch", "admin", "x"], "role": "admin", "roles": ["admin"]}
    assert RoleClaim("groups", WORDS).read(claims) == {"operator", "viewer"}
    assert RoleClaim("groups").read({"groups": ["user", "viewer", "x"]}) == {"operator", "viewer", "x"}
    assert RoleClaim("", {"admin": "viewer"}).read({"role": "admin", "roles": ["monitor"]}) == {"viewer"}
    assert OWN.read({"role": "user", "roles": ["x"]}) == {"operator", "x"}
    assert RoleClaim("groups", WORDS).read({}) == RoleClaim("a.b.c", WORDS).read({"a": {"b": 5}}) == set()


@pytest.mark.parametrize("value", [5, True, {}, ["watch", 5], [None], [["watch"]]])
def test_a_claim_of_another_type_refuses_the_token(value: object) -> None:
    """Nothing is coerced (contract 7.1)."""
    with pytest.raises(ClaimsRefused, match=r"a\.b is neither a string nor a list") as caught:
        RoleClaim("a.b", WORDS).read({"a": {"b": value}})
    assert caught.value.reason is Reason.MALFORMED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["watch", "admin", "cam-admins"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", "role"]), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "a.b", "role", "roles", "a.b.c"]), json_values, max_size=5),
    st.sampled_from(["", "a", "a.b", "a.b.c", "b.a", ".", "a..b", "roles"]),
)
def test_any_claims_give_roles_of_ours_or_are_refused(claims: dict[str, object], path: str) -> None:
    """Whatever stands where, no role comes out that the table does not name."""
    try:
        assert RoleClaim(path, WORDS).read(claims) <= {"admin", "operator", "viewer"}
    except ClaimsRefused:
        return
    assert find_claim(claims, path) != 5


def test_what_is_mapped_stays_below_the_ceiling_and_is_narrowed_by_a_scope() -> None:
    """The table is within the record's limits: a mapped role is one like any other."""
    claims = {"sub": "a", "exp": 10.0, "groups": ["cam-admins"]}
    record = IssuerRecord("x", "x", ("RS256",), ceiling="operator", roles=RoleClaim("groups", WORDS))
    caller = limit(read_caller(claims, "text", issuer="", now=1.0, roles_of=record.roles.read), record)
    assert (caller.role, caller.capabilities) == ("operator", ROLES["operator"])
    claims["scope"] = "camera:read"
    narrowed = limit(read_caller(claims, "text", issuer="", now=1.0, roles_of=record.roles.read), record)
    assert narrowed.capabilities == {"camera:read", "stream:read"}
    claims |= {"scope": "openid profile", "groups": ["nobody"]}
    with pytest.raises(ClaimsRefused, match="role_denied"):
        read_caller(claims, "text", issuer="", now=1.0, roles_of=record.roles.read)
    assert replace(record, roles=OWN) != record
