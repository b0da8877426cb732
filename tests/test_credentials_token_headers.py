"""The header of a token: what decides, what is refused, and what is only a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.decision import Reason
from edged.credentials.token_headers import REFUSED, is_jwt, read_header

ALGORITHMS = frozenset({"HS256", "RS256"})
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(["x5t", "x5t#S256", "nonce", "cty"]), values, max_size=6))
def test_whatever_only_hints_changes_nothing(hints: dict[str, object]) -> None:
    """RFC 7515 section 4: members that nobody has to understand are ignored, of whatever type."""
    kept = {name: value for name, value in hints.items() if name not in REFUSED | {"alg", "typ", "kid"}}
    plain: dict[str, object] = {"alg": "RS256", "typ": "JWT", "kid": "a"}
    assert read_header(kept | plain, ALGORITHMS) == read_header(plain, ALGORITHMS)
    assert read_header(plain, ALGORITHMS).fault is None


@given(st.sampled_from(sorted(REFUSED)), values)
def test_a_member_that_names_a_key_or_must_be_understood_refuses(name: str, value: object) -> None:
    """Of whatever type, null too."""
    header = read_header({"alg": "RS256", name: value}, ALGORITHMS)
    assert header.fault == (Reason.MALFORMED, f"header member {name!r} is not accepted")


@given(values, values, values)
def test_any_header_is_read(alg: object, kid: object, typ: object) -> None:
    """Never an exception; what is no text counts as none."""
    header = read_header({"alg": alg, "kid": kid, "typ": typ}, ALGORITHMS)
    assert isinstance(header.alg, str)
    assert isinstance(header.kid, str)
    assert header.fault is not None or (header.alg in ALGORITHMS and header.kid)


@pytest.mark.parametrize(
    ("typ", "taken"),
    [
        ("JWT", True), ("at+jwt", True), ("AT+JWT", True), ("application/at+jwt", True), ("Application/JWT", True),
        ("", False), ("jose", False), ("text/jwt", False), ("application/", False), ("dpop+jwt", False),
        ("jwt ", False),
    ],
)  # fmt: skip
def test_a_type_is_a_media_type(typ: str, taken: bool) -> None:
    """RFC 7515 4.1.9: case does not count, and `application/` may be left out."""
    assert is_jwt(typ) is taken
