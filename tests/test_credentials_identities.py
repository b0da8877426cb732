"""credentials/identities.py: what a revocation hits, in memory and as text."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.identities import ALL, Identity, Kind, format_all, parse_all, widen

TEXTS = st.text(st.sampled_from("a:%3A_of/ "), max_size=8)
WORDS = st.sampled_from([kind.value for kind in Kind])
HEX = st.text("0123456789abcdefAF", min_size=31, max_size=65)
VALUES = st.one_of(st.text(max_size=40), TEXTS, HEX, st.binary(min_size=16, max_size=32).map(bytes.hex))
WRITTEN = st.one_of(st.text(max_size=20), st.builds("{}:{}".format, WORDS, VALUES), WORDS)
DIGEST = bytes(range(32))


@given(one=st.tuples(TEXTS, TEXTS), other=st.tuples(TEXTS, TEXTS))
def test_two_issuers_never_make_one_identity(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Whatever characters an issuer and a jti have: only the same pair makes the same identity."""
    for make in (Identity.of_jti, Identity.of_subject, Identity.of_maker):
        assert (make(*one) == make(*other)) == (one == other)
        made = make(*one)
        assert (made.issuer, made.name) == one


@given(one=WRITTEN, other=WRITTEN)
def test_identities_are_equal_exactly_if_their_texts_are(one: str, other: str) -> None:
    """Packed or not, of a known kind or not: nothing is lost and nothing falls together."""
    first, second = Identity.parse(one), Identity.parse(other)
    assert (str(first), str(second)) == (one, other)
    assert (first == second, hash(first) == hash(second)) == (one == other, one == other)
    assert Identity.parse(str(first)) == first


@given(kind=st.sampled_from([kind for kind in Kind if kind not in (Kind.ALL, Kind.UNKNOWN)]), value=VALUES)
def test_the_kind_and_the_value_come_back(kind: Kind, value: str) -> None:
    """What is made is what is read, and what its text says."""
    made = Identity(kind, value)
    assert (made.kind, made.value) == (kind, value)
    assert Identity.parse(f"{kind.value}:{value}") == made


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Identity.of_token("x"), "token:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        (Identity.of_token_hash("ab" * 32), f"token:{'ab' * 32}"),
        (Identity.of_jti("", "1"), "jti_of::1"),
        (Identity.of_jti("https://a:1", "1"), "jti_of:https%3A//a%3A1:1"),
        (Identity.of_any_jti("1"), "jti:1"),
        (Identity.of_subject("", "ann"), "user_of::ann"),
        (Identity.of_user("ann"), "user:ann"),
        (Identity.of_issuer("https://a"), "issuer:https://a"),
        (Identity.of_maker("i", "ann"), "subject_of:i:ann"),
        (Identity.of_key("key_1"), "key:key_1"),
        (Identity.of_secret(DIGEST), f"secret:{DIGEST.hex()[:32]}"),
        (Identity.of_service_token("svc_1"), "service:svc_1"),
        (Identity.of_service_secret(DIGEST), f"service_secret:{DIGEST.hex()[:32]}"),
        (Identity.of_signing_key("key-1"), "signing_key:key-1"),
        (Identity.of_family(DIGEST.hex()), f"family:{DIGEST.hex()}"),
        (Identity.of_tickets("session_1"), "tickets:session_1"),
        (ALL, "all"),
    ],
)
def test_the_text_of_each_kind_is_the_one_on_disk(made: Identity, text: str) -> None:
    """Databases of earlier versions hold these texts."""
    assert str(made) == f"{made}" == text
    assert Identity.parse(text) == made


def test_a_jti_of_every_issuer_is_no_jti_of_one() -> None:
    """What an administrator says without an issuer hits all, and is no token's own identity."""
    assert Identity.of_any_jti("1") != Identity.of_jti("", "1")
    assert widen({Identity.of_jti("https://a", "1"), Identity.of_key("1")}) == {Identity.of_any_jti("1")}


def test_sets_of_texts_are_read_and_written_sorted() -> None:
    """As the database and the claim `issued_by` hold them."""
    texts = ["jti_of::1", "key:key_1", "user:ann"]
    assert format_all(parse_all(reversed(texts))) == texts


def test_an_identity_leaves_the_process_as_text_only() -> None:
    """Its bytes mean nothing elsewhere."""
    with pytest.raises(TypeError, match="text"):
        copy.copy(ALL)
