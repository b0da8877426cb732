"""credentials/tokens.py: only what our secret signed, unchanged, in time; anything else is refused in its own words."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import msgspec
import pytest
from gate_helpers import verify
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey
from patience import times

from edged.credentials.claims import Trust
from edged.credentials.decision import Reason
from edged.credentials.identities import Identity
from edged.credentials.signing_keys import (
    ALGORITHMS,
    Algorithm,
    PrivateKey,
    SigningKeyRecord,
    VerifyingKey,
    generate,
    public_part,
    read_key,
)
from edged.credentials.tokens import (
    LONGEST_OVER_HTTP,
    LONGEST_TOKEN,
    SharedSecret,
    TokenRefused,
    issue_claims,
    peek_claims,
    sign,
)

NOW = 2_000_000_000.0
TEXT = "a secret of the tests, long enough for HS256"
SECRET = SharedSecret("test", TEXT)
OTHER = SharedSecret("other", "another secret of the tests, as long as that")
TOKEN = sign(issue_claims("ann", role="viewer", now=NOW, expires_in=3600), SECRET)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def craft(header: object, payload: object, *, key: str = TEXT) -> str:
    """A token of any header and payload, signed by hand: joserfc would not."""
    raw = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(map(b64, raw))
    return f"{signed}.{b64(hmac.digest(key.encode(), signed.encode(), 'sha256'))}"


def refusal(text: str, *secrets: SharedSecret, now: float = NOW) -> Reason:
    with pytest.raises(TokenRefused) as caught:
        verify(text, secrets or [SECRET], now=now)
    assert caught.value.detail
    assert TEXT not in str(caught.value)
    return caught.value.reason


HEADER = {"alg": "HS256", "typ": "JWT"}
CLAIMS = {"sub": "ann", "role": "viewer", "exp": int(NOW) + 60}


def test_what_was_signed_is_verified() -> None:
    """With the right secret among several; the claims come along."""
    caller = verify(TOKEN, [OTHER, SECRET], now=NOW)
    assert (caller.subject, caller.role, caller.expires) == ("ann", "viewer", NOW + 3600)
    assert caller.claims["jti"] == caller.credential_id
    assert verify(craft(HEADER, CLAIMS), [SECRET], now=NOW).subject == "ann"


def test_the_secret_is_its_text_and_a_last_line_end_is_not_part_of_it() -> None:
    """UTF-8 bytes, never base64 (contract S0-1); a file ends with a newline."""
    for written in (TEXT, TEXT + "\n", TEXT + "\r\n"):
        assert verify(TOKEN, [SharedSecret("file", written)], now=NOW).subject == "ann"
    assert refusal(TOKEN, SharedSecret("file", TEXT + "\n\n")) is Reason.BAD_SIGNATURE


@given(st.text())
@example("..")
@example("a.b.c")
@example(f"{TOKEN}.")
@example("ey" * 5000)
def test_any_text_is_refused(text: str) -> None:
    """No exception but its own, whatever is presented."""
    with pytest.raises(TokenRefused):
        verify(text, [SECRET], now=NOW)


@given(st.text("AZaz09_-=.+/ \n", max_size=60))
def test_any_text_like_a_token_is_refused(text: str) -> None:
    """Closer to the real thing, and still nothing."""
    with pytest.raises(TokenRefused):
        verify(text, [SECRET], now=NOW)
    with pytest.raises(TokenRefused):
        peek_claims(text)


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii"))
@settings(max_examples=times(300, least=25))
def test_a_token_with_one_character_changed_is_refused(at: int, character: str) -> None:
    """Every character counts, the last bits of the signature too."""
    assume(TOKEN[at] != character)
    with pytest.raises(TokenRefused):
        verify(TOKEN[:at] + character + TOKEN[at + 1 :], [SECRET], now=NOW)


@given(st.integers(0, len(TOKEN) - 1), st.integers(1, 5), st.text("AZaz09_-.", max_size=5))
def test_a_token_with_a_piece_cut_out_or_replaced_is_refused(at: int, length: int, piece: str) -> None:
    """Truncated, shortened, lengthened."""
    text = TOKEN[:at] + piece + TOKEN[at + length :]
    assume(text != TOKEN)
    with pytest.raises(TokenRefused):
        verify(text, [SECRET], now=NOW)


@pytest.mark.parametrize("last", range(64))
def test_a_signature_has_one_spelling(last: int) -> None:
    """The unused bits of its last character make no second text for a revoked token to come back as."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text = TOKEN[:-1] + alphabet[last]
    if text != TOKEN:
        assert refusal(text) in (Reason.MALFORMED, Reason.BAD_SIGNATURE)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "typ", "kid", "cty", "jwk", "x5u", "crit", "b64", "zip"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
        | st.sampled_from(["HS256", "JWT", "none"]) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
    ),
    st.booleans(),
)  # fmt: skip
def test_a_well_signed_token_with_any_header_is_taken_or_refused(header: dict[str, object], usual: bool) -> None:
    """The header decides nothing but a refusal; it never breaks the verifier."""
    full = {**header, **HEADER} if usual else header
    try:
        caller = verify(craft(full, CLAIMS), [SECRET], now=NOW)
    except TokenRefused:
        return
    assert caller.subject == "ann"
    assert full["alg"] == "HS256"
    assert not full.keys() & {"jwk", "x5u", "crit", "b64", "zip"}


@pytest.mark.parametrize(
    "alg", ["none", "None", "", "HS512", "HS384", "RS256", "ES256", "hs256", None, 5, ["HS256"], {}]
)
def test_the_header_does_not_choose_the_algorithm(alg: object) -> None:
    """Anything but the one of our key is refused, however it is signed."""
    assert refusal(craft({"alg": alg, "typ": "JWT"}, CLAIMS)) is Reason.ALG_NOT_ALLOWED
    unsigned = craft({"alg": alg}, CLAIMS).rsplit(".", 1)[0] + "."
    assert refusal(unsigned) is Reason.ALG_NOT_ALLOWED


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "p2c"])
def test_a_header_that_carries_or_names_keys_is_refused(member: str) -> None:
    """RFC 8725 3.10: nothing is fetched or taken from there."""
    assert refusal(craft({**HEADER, member: "x"}, CLAIMS)) is Reason.MALFORMED


def test_the_type_is_a_jwts() -> None:
    """JWT and at+jwt as media types, or none; dpop+jwt and other kinds are not ours."""
    for typ in ("JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT", "Application/Jwt"):
        assert verify(craft({"alg": "HS256", "typ": typ}, CLAIMS), [SECRET], now=NOW)
    assert verify(craft({"alg": "HS256"}, CLAIMS), [SECRET], now=NOW)
    for wrong in ("dpop+jwt", "JOSE", 5, ["JWT"], True):
        assert refusal(craft({"alg": "HS256", "typ": wrong}, CLAIMS)) is Reason.MALFORMED


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b'"x"', b"5", b"{", b"\xff", b'{"exp": NaN}', b"[" * 4000, b'{"a":"\xff"}']
)
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    """Also when it is well signed."""
    assert refusal(craft(HEADER, payload)) is Reason.MALFORMED


@pytest.mark.parametrize("header", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 4000])
def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    """Before any key is tried."""
    assert refusal(craft(header, CLAIMS)) is Reason.MALFORMED


def test_a_whole_number_of_any_size_is_judged_and_not_stumbled_over() -> None:
    """An exp of 401 digits is out of range, no OverflowError."""
    payload = b'{"sub": "a", "role": "viewer", "exp": 1' + b"0" * 400 + b"}"
    assert refusal(craft(HEADER, payload)) is Reason.MALFORMED


def test_a_long_token_is_refused() -> None:
    """8 KiB at most, unless it is shown where it may be longer."""
    fitting = {**CLAIMS, "pad": ""}
    left = (LONGEST_TOKEN - len(craft(HEADER, fitting))) * 3 // 4 - 3
    assert verify(craft(HEADER, {**CLAIMS, "pad": "x" * left}), [SECRET], now=NOW)
    longer = craft(HEADER, {**CLAIMS, "pad": "x" * (left + 10)})
    assert refusal(longer) is Reason.MALFORMED
    assert verify(longer, [SECRET], now=NOW, longest=LONGEST_OVER_HTTP).subject == "ann"
    longest = craft(HEADER, {**CLAIMS, "pad": "x" * (left + (LONGEST_OVER_HTTP - LONGEST_TOKEN) * 3 // 4)})
    assert LONGEST_OVER_HTTP - 8 < len(longest) <= LONGEST_OVER_HTTP
    assert verify(longest, [SECRET], now=NOW, longest=LONGEST_OVER_HTTP).subject == "ann"
    with pytest.raises(TokenRefused, match="longer than 12288 characters"):
        verify(f"{longest}AAAAAAAA", [SECRET], now=NOW, longest=LONGEST_OVER_HTTP)


def test_the_claims_reasons_come_through() -> None:
    """Expired is told from forged."""
    assert refusal(TOKEN, now=NOW + 3600) is Reason.EXPIRED
    assert refusal(TOKEN, OTHER) is Reason.BAD_SIGNATURE
    assert refusal(craft(HEADER, {"sub": "a", "role": "viewer"})) is Reason.NO_EXPIRY
    assert refusal(craft(HEADER, CLAIMS, key="")) is Reason.BAD_SIGNATURE


def test_without_a_secret_no_token_is_good_and_the_remedy_is_named() -> None:
    """None is the default."""
    with pytest.raises(TokenRefused, match="openssl rand -base64 32") as caught:
        verify(TOKEN, [], now=NOW)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_a_secret_does_not_show_itself() -> None:
    """Its name only."""
    assert repr(SECRET) == "SharedSecret('test')"
    assert TEXT not in repr(vars(SharedSecret)) + str(SECRET)


def test_issued_claims_are_what_every_client_reads() -> None:
    """sub and user_id, whole seconds, always a jti, no aud; extra members come first and lose."""
    claims = issue_claims(
        "ann", role="user", now=NOW + 0.9, expires_in=60, permissions=("camera:read",), camera_access=["camera0"],
        extra={"sub": "mallory", "note": "x"},
    )  # fmt: skip
    assert claims["sub"] == claims["user_id"] == "ann"
    assert (claims["iat"], claims["exp"]) == (int(NOW), int(NOW) + 60)
    assert (claims["role"], claims["permissions"], claims["camera_access"]) == ("user", ["camera:read"], ["camera0"])
    assert claims["note"] == "x"
    assert "aud" not in claims
    bare = issue_claims("ann", role=None, now=NOW, expires_in=60)
    assert bare.keys() == {"sub", "user_id", "iat", "exp", "jti"}
    assert bare["jti"] != claims["jti"]


def test_a_signed_token_has_the_plain_header() -> None:
    """alg and typ, as the oldest clients expect (contract S0-11)."""
    header = json.loads(base64.urlsafe_b64decode(TOKEN.split(".")[0] + "=="))
    assert header == {"alg": "HS256", "typ": "JWT"}


def test_peeking_reads_claims_that_nobody_verified() -> None:
    """Also of a token that another secret signed: to name what is being revoked."""
    foreign = sign(CLAIMS, OTHER)
    assert peek_claims(foreign) == CLAIMS
    with pytest.raises(TokenRefused):
        peek_claims("no token")


OURS = Trust(frozenset({"edged"}), needs_issuer=True)
PAIRS = {algorithm: generate(algorithm) for algorithm in ALGORITHMS}


def pair(algorithm: Algorithm, kid: str = "key-7") -> tuple[PrivateKey, VerifyingKey]:
    jwk = PAIRS[algorithm]
    return (
        PrivateKey(kid, algorithm, read_key(jwk)),
        VerifyingKey(kid, algorithm, read_key(public_part(jwk)), OURS),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_key_pair_signs_the_public_half_verifies(algorithm: Algorithm) -> None:
    """The key is found by its kid, and stands among the names by which a revocation hits the caller."""
    private, public = pair(algorithm)
    claims = issue_claims("ann", role="viewer", now=NOW, expires_in=60, extra={"iss": "edged"})
    for _ in range(8):
        text = sign(claims, private)
        caller = verify(text, [], now=NOW, find_key={"key-7": public}.get)
        assert (caller.subject, Identity.of_signing_key("key-7") in caller.identities) == ("ann", True)
    header = json.loads(base64.urlsafe_b64decode(text.split(".")[0] + "=="))
    assert header == {"alg": algorithm, "typ": "JWT", "kid": "key-7"}
    assert "key-7" not in str(verify(TOKEN, [SECRET], now=NOW, find_key={"key-7": public}.get).identities)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_shows_its_public_members_only(algorithm: Algorithm) -> None:
    """What the JWKS says of it; and no private member in any text of it."""
    jwk = PAIRS[algorithm]
    record = SigningKeyRecord(
        number=3, algorithm=algorithm, state="current", public=public_part(jwk), private=jwk, created_at=NOW
    )
    shown = record.published()
    assert shown | {"kid": "key-3", "use": "sig", "alg": algorithm} == shown
    assert set(shown) == {"kty", "kid", "use", "alg"} | ({"n", "e"} if algorithm == "RS256" else {"crv", "x", "y"})
    private, public = pair(algorithm)
    assert all(jwk["d"] not in text for text in (str(shown), repr(record), repr(private), repr(public)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\"[{\\", max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text('xyz[{"\\', max_size=3), JSON, max_size=4), st.booleans())
def test_any_claims_come_through_as_they_were_written(extra: dict[str, Any], ascii_only: bool) -> None:
    """Whatever JSON is: the same value that another reader makes of it."""
    payload = json.dumps({**extra, **CLAIMS}, ensure_ascii=ascii_only).encode()
    assert verify(craft(HEADER, payload), [SECRET], now=NOW).claims == msgspec.json.decode(payload)


@given(st.binary(max_size=40) | st.text('{}[]"\\:,01eE.-+x \n\ud7ff', max_size=40).map(lambda text: text.encode()))
def test_what_one_reader_takes_another_takes_alike(body: bytes) -> None:
    """Any bytes as a member of a well-signed payload: refused, or read as msgspec reads them too."""
    payload = json.dumps(CLAIMS).encode()[:-1] + b',"x":' + body + b"}"
    try:
        claims = verify(craft(HEADER, payload), [SECRET], now=NOW).claims
    except TokenRefused:
        return
    assert claims == msgspec.json.decode(payload)


@given(st.integers(1, 40), st.integers(0, 30), st.sampled_from(["[]", "{}"]))
def test_depth_is_counted_in_brackets_that_are_open(deep: int, wide: int, kind: str) -> None:
    """16 levels, the payload itself being one; neither siblings nor brackets in strings count."""
    opened, closed = ("[", "]") if kind == "[]" else ('{"a":', "}")
    nested = opened * deep + "1" + closed * deep
    payload = (
        f'{{"sub":"a","role":"viewer","exp":{int(NOW) + 60},"s":"[[{{{{","w":[{",".join(["[]"] * wide)}],"x":{nested}}}'
    )
    text = craft(HEADER, payload.encode())
    if deep < 16:
        assert verify(text, [SECRET], now=NOW).subject == "a"
    else:
        assert refusal(text) is Reason.MALFORMED


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=6,
    )
)
def test_a_shared_secret_signs_the_text_that_joserfc_would(claims: dict[str, object]) -> None:
    """To the byte: a successor that was told before an update is told again after it."""
    key = OctKey.import_key(TEXT)
    expected = jwt.encode({"alg": "HS256", "typ": "JWT"}, dict(claims), key, algorithms=["HS256"])
    assert sign(claims, SharedSecret("clients", TEXT)) == expected
