"""credentials/names.py: what others choose is a name only together with whoever vouches for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.credentials import names

TEXTS = st.text(st.sampled_from("a:%3A_of/ "), max_size=8)


@given(one=st.tuples(TEXTS, TEXTS), other=st.tuples(TEXTS, TEXTS))
def test_two_issuers_never_make_one_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Whatever characters an issuer and a jti have: only the same pair makes the same name."""
    for make in (names.jti_identity, names.subject_identity, names.maker_identity):
        assert (make(*one) == make(*other)) == (one == other)
        _, issuer, value = names.split(make(*one))
        assert (issuer, value) == one


def test_a_name_of_every_issuer_is_none_of_one() -> None:
    """What an administrator says without an issuer hits all, and is no token's own name."""
    assert names.any_jti_identity("1") != names.jti_identity("", "1")
    assert names.widen({names.jti_identity("https://a", "1"), "key:1"}) == {names.any_jti_identity("1")}
    assert names.split("key:key_1") == ("key", None, "key_1")
