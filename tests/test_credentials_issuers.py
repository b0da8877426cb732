"""credentials/issuers.py: of a key set every key is judged alone, and what could be anybody's is nobody's."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from gate_helpers import verify
from hypothesis import example, given
from hypothesis import strategies as st

from edged.credentials.issuers import (
    LARGEST_SET,
    MOST_KEYS,
    OUTSIDE_ALGORITHMS,
    IssuerRecord,
    KeySet,
    KeysRefused,
    find_keys,
    read_key_set,
    read_public_key,
)
from edged.credentials.signing_keys import mirrored
from edged.credentials.tokens import TokenRefused

RSA, OTHER = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
P256, P384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
RECORD = IssuerRecord("company", "https://login.example.com/", ("RS256", "ES256"))
EVERYTHING = IssuerRecord("all", "all", OUTSIDE_ALGORITHMS)


def b64(value: int, size: int | None = None) -> str:
    data = value.to_bytes(size or (value.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Any, **members: object) -> dict[str, Any]:
    """The public JWK, by hand; None takes a member away."""
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        found: dict[str, Any] = {"kty": "RSA", "n": b64(numbers.n), "e": b64(numbers.e)}
    else:
        size = (key.key_size + 7) // 8
        found = {"kty": "EC", "crv": f"P-{key.key_size}", "x": b64(numbers.x, size), "y": b64(numbers.y, size)}
    return {name: value for name, value in {**found, **members}.items() if value is not None}


def of(*keys: object, record: IssuerRecord = RECORD) -> KeySet:
    return read_key_set(json.dumps({"keys": keys}).encode(), record)


def names(found: KeySet) -> list[tuple[str, str]]:
    return [(key.kid, key.algorithm) for key in found.keys]


def test_a_usual_key_set_is_taken() -> None:
    """As identity providers publish it: certificates beside the keys, and keys for other purposes."""
    found = of(
        jwk(RSA, kid="2026/a=", use="sig", alg="RS256", x5c=["MII"], x5t="x", key_ops=["verify"]),
        jwk(P256, kid="ec", use="sig"),
        jwk(OTHER, kid="enc", use="enc", alg="RSA-OAEP"),
        jwk(OTHER, kid="wrap", key_ops=["wrapKey"]),
    )
    assert names(found) == [("2026/a=", "RS256"), ("ec", "ES256")]
    assert found.refused == ()
    assert found.keys[0].trust == RECORD.trust
    assert RECORD.trust.issuers == {"https://login.example.com/"}
    assert RECORD.trust.needs_issuer
    assert not RECORD.trust.needs_audience


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "x"}, "private members"),
        ({"kty": "oct", "kid": "x"}, "neither RSA nor EC"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "neither RSA nor EC"),
        ({"kty": ["RSA"]}, "neither RSA nor EC"),
        ({}, "neither RSA nor EC"),
        ("a key", "is no object"),
        ([], "is no object"),
        (None, "is no object"),
        *((jwk(RSA, **{member: "AQ"}), "private members") for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")),
        (jwk(P256, d="AQ"), "private members"),
        (jwk(rsa.generate_private_key(65537, 1024)), "has 1024 bits"),
        (jwk(RSA, n=b64(2**9000 + 1)), "9001 bits"),
        (jwk(RSA, n=b64(2**8191)), "weak exponent or modulus"),
        (jwk(RSA, n="A" * 20000), "no base64url"),
        (jwk(RSA, n="!!!!"), "no base64url"),
        (jwk(RSA, n="AAAAA"), "no base64url"),
        (jwk(RSA, n=5), "no base64url"),
        (jwk(RSA, n=None), "no base64url"),
        (jwk(RSA, e="AQ"), "weak exponent"),
        (jwk(RSA, e="Ag"), "weak exponent"),
        (jwk(RSA, e=b64(65536)), "weak exponent"),
        (jwk(RSA, e=b64(2**64 + 1)), "weak exponent"),
        (jwk(P256, crv="secp256k1"), "neither P-256 nor P-384"),
        (jwk(P256, crv=None), "neither P-256 nor P-384"),
        (jwk(P256, crv=["P-256"]), "neither P-256 nor P-384"),
        (jwk(P256, x=None), "no base64url"),
        (jwk(P256, x="AQ"), "not a valid key"),
        (jwk(P256, y=b64(0, 33)), "coordinate that is too long"),
        (jwk(P256, y=b64(5, 32)), "not a valid key"),
        (jwk(P384), "fits none of RS256, ES256"),
        (jwk(RSA, alg="PS256"), "fits none"),
        (jwk(RSA, alg="ES256"), "fits none"),
        (jwk(RSA, alg="none"), "fits none"),
        (jwk(RSA, alg=["RS256"]), "fits none"),
        (jwk(RSA, alg=None, kid=""), "kid that is not"),
        (jwk(RSA, kid=5), "kid that is not"),
        (jwk(RSA, kid="a b"), "kid that is not"),
        (jwk(RSA, kid="k" * 129), "kid that is not"),
        (jwk(RSA, kid="\u00e9"), "kid that is not"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_relied_on_is_left_out_and_the_others_stay(key: object, says: str) -> None:
    """Weak, private, symmetric, malformed, on no curve: told by its place in the set; alone it is no set at all."""
    found = of(jwk(P256, kid="good"), key)
    assert names(found) == [("good", "ES256")]
    assert [text.startswith("key 2: ") and says in text for text in found.refused] == [True]
    with pytest.raises(KeysRefused, match="no key that can be used"):
        of(key)


def test_a_coordinate_without_its_leading_zeros_is_the_same_key() -> None:
    """Some libraries write it so, for one key in 128; ours is always written in full."""
    from edged.credentials.signing_keys import SigningKeyRecord, complete

    while True:
        key = ec.generate_private_key(ec.SECP256R1())
        numbers = key.public_key().public_numbers()
        if numbers.x < 2**248:
            break
    short, full = jwk(key, x=b64(numbers.x)), jwk(key)
    assert len(short["x"]) < len(full["x"])
    found = of(short, full, {**short, "kid": "a"}, {**full, "kid": "a"})
    assert names(found) == [("", "ES256"), ("a", "ES256")]
    assert found.refused == ()
    assert complete(short) == complete(full) == full
    record = SigningKeyRecord(
        number=1, algorithm="ES256", state="next", public=short, private=None, created_at=0.0
    )  # fmt: skip
    assert record.published()["x"] == full["x"]


def test_two_keys_of_one_name_are_nobodys() -> None:
    """Nobody could say which is meant; of two kinds one name is fine, and the same key twice is one."""
    found = of(jwk(RSA, kid="a"), jwk(OTHER, kid="a"), jwk(P256, kid="a"), jwk(P256, kid="b"), jwk(P256, kid="b"))
    assert names(found) == [("a", "ES256"), ("b", "ES256")]
    assert found.refused == ("2 different keys are named 'a'",)
    assert names(of(jwk(RSA), jwk(OTHER), jwk(RSA))) == [("", "RS256")] * 2


def test_no_more_keys_are_held_than_a_token_may_be_tried_with() -> None:
    """The first ones, and the log can say how many there are besides."""
    keys = [jwk(ec.generate_private_key(ec.SECP256R1())) for _ in range(MOST_KEYS + 3)]
    found = of(*keys)
    assert len(found.keys) == MOST_KEYS
    assert found.refused == ("3 keys more than 16",)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b'{"keys":{}}', b'{"keys":null}', b'{"keys":[]}', b"<html>", b"\xff",
        b'{"keys":[1]}', json.dumps({"keys": [jwk(RSA)] * 65}).encode(),
        b'{"keys":[],"keys":[]}', b"[" * 3000, b'{"keys":' + b"[" * 100 + b"]" * 100 + b"}", b'{"x":NaN,"keys":[]}',
        b" " * (LARGEST_SET + 1), json.dumps({"keys": [jwk(RSA)]}).encode("utf-16"), json.dumps(jwk(RSA)).encode(),
        json.dumps({"keys": [jwk(RSA)]}).replace('"kty"', '"kty": "oct", "kty"').encode(),
    ],
)  # fmt: skip
def test_what_is_no_key_set_is_refused_whole(data: bytes) -> None:
    """One error, whatever came; a bad answer is then no answer."""
    with pytest.raises(KeysRefused):
        read_key_set(data, RECORD)


def test_a_key_without_alg_has_the_first_algorithm_of_the_record_that_fits() -> None:
    """Never the one of a token's header."""
    record = IssuerRecord("x", "x", ("ES256", "PS256", "RS256", "ES384"))
    found = of(jwk(RSA), jwk(RSA, alg="RS256", kid="r"), jwk(P384), jwk(P256), record=record)
    assert names(found) == [("", "PS256"), ("r", "RS256"), ("", "ES384"), ("", "ES256")]


def test_keys_are_found_by_name_then_by_having_none() -> None:
    """A token that names a key is not tried with another one that has a name."""
    keys = of(jwk(RSA, kid="a"), jwk(P256, kid="b"), jwk(OTHER)).keys
    assert [key.kid for key in find_keys(keys, "a")] == ["a"]
    assert [key.kid for key in find_keys(keys, "c")] == [""]
    assert [key.kid for key in find_keys(keys, "")] == ["a", "b", ""]
    assert find_keys(keys[:2], "c") == []


def pem_of(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


PEM = pem_of(RSA)


@pytest.mark.parametrize(
    ("data", "algorithm"),
    [
        (PEM, "RS256"),
        (b"\n" + PEM.replace(b"\n", b"\r\n") + b"\n", "RS256"),
        (RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1), "RS256"),
        (pem_of(P256), "ES256"),
        (pem_of(P384), "ES384"),
    ],
)
def test_a_public_key_in_pem_is_one_key_without_a_name(data: bytes, algorithm: str) -> None:
    """As openssl writes it; it verifies tokens whatever kid they have."""
    (key,) = read_public_key(data, EVERYTHING).keys
    assert (key.kid, key.algorithm) == ("", algorithm)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "private key"),
        (b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n", "certificate"),
        (b"", "not one public key"),
        (b"\xff\xfe", "not one public key"),
        (PEM + PEM, "not one public key"),
        (b" " * LARGEST_SET + PEM, "not one public key"),
        (json.dumps(jwk(RSA)).encode(), "not one public key"),
        (PEM.replace(b"MIIB", b"MIIC"), "not a public RSA or EC key"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "not a public RSA or EC key"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (pem_of(P384), "fits none of"),
    ],
)  # fmt: skip
def test_what_is_no_good_public_key_says_what_it_is(data: bytes, says: str) -> None:
    """And how to get the right thing out of it; a private key is never quoted."""
    with pytest.raises(KeysRefused, match=says) as caught:
        read_public_key(data, RECORD)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize("algorithm", OUTSIDE_ALGORITHMS)
def test_every_algorithm_verifies_what_others_sign(algorithm: str) -> None:
    """Signed by the library's own signer; the record alone says what is taken."""
    from joserfc import jwt
    from joserfc.jwk import ECKey, RSAKey

    private: Any = {"RS": RSA, "PS": RSA, "ES": P256 if algorithm == "ES256" else P384}[algorithm[:2]]
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signer = (RSAKey if algorithm[0] != "E" else ECKey).import_key(pem)
    claims = {"iss": "x", "sub": "ann", "role": "viewer", "exp": 2_000_000_000}
    text = jwt.encode({"alg": algorithm, "kid": "a.b"}, claims, signer, algorithms=[algorithm])

    def find(record: IssuerRecord, *keys: Mapping[str, Any]) -> Any:
        class Known:
            def __init__(self) -> None:
                self.record = record
                self.keys = of(*keys, record=record).keys

            def find(self, kid: str) -> Any:
                return find_keys(self.keys, kid)

        return {"x": Known()}.get

    good = IssuerRecord("x", "x", (algorithm,))  # type: ignore[arg-type]
    caller = verify(text, [], now=1e9, find_issuer=find(good, jwk(private, kid="a.b")))
    assert (caller.subject, caller.method) == ("ann", "jwt_federated")
    others = tuple(name for name in OUTSIDE_ALGORITHMS if name != algorithm)
    with pytest.raises(TokenRefused, match="alg_not_allowed") as caught:
        verify(text, [], now=1e9, find_issuer=find(IssuerRecord("x", "x", others), jwk(RSA, kid="a.b")))
    assert caught.value.method == "jwt_federated"


@pytest.mark.parametrize(("key", "algorithm"), [(P256, "ES256"), (P384, "ES384")])
def test_the_other_spelling_of_a_signature_verifies_too(key: ec.EllipticCurvePrivateKey, algorithm: str) -> None:
    """Which is why a revocation by hash counts for both; it is its own mirror image."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    size = key.key_size // 8
    digest = hashes.SHA256() if algorithm == "ES256" else hashes.SHA384()
    r, s = decode_dss_signature(key.sign(b"x", ec.ECDSA(digest)))
    signature = r.to_bytes(size) + s.to_bytes(size)
    other = mirrored(signature, algorithm)
    assert other != signature
    assert mirrored(other, algorithm) == signature
    der = encode_dss_signature(r, int.from_bytes(other[size:]))
    key.public_key().verify(der, b"x", ec.ECDSA(digest))
    assert mirrored(b"rsa", "RS256") == b"rsa"


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20) | st.sampled_from(["RSA"])
MEMBERS = st.sampled_from(["keys", "kty", "crv", "n", "e", "x", "y", "kid", "alg", "use", "key_ops", "d"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS, inner, max_size=6), max_leaves=20
)


@given(st.lists(JSON, max_size=6) | JSON, JSON)
@example([{"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}], None)
@example([{"kty": "RSA", "n": "A" * 342, "e": "AQAB"}], None)
def test_whatever_a_server_sends_is_a_key_set_or_refused(keys: object, more: object) -> None:
    """No other error, and no key comes out of nothing."""
    with pytest.raises(KeysRefused) as caught:
        read_key_set(json.dumps({"keys": keys, "more": more}).encode(), EVERYTHING)
    assert len(str(caught.value)) < 1000


def sized(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(
        lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    )


@given(
    st.sampled_from([255, 256, 257, 384, 1024]).flatmap(sized), st.sampled_from([1, 3, 4, 5]).flatmap(sized),
    st.sampled_from(["P-256", "P-384"]), st.tuples(*[st.sampled_from([31, 32, 48]).flatmap(sized)] * 2),
)  # fmt: skip
def test_numbers_that_make_no_key_are_refused(n: str, e: str, curve: str, point: tuple[str, str]) -> None:
    """Of the right size and from nowhere: a modulus is a number like another, a point lies on the curve or is none."""
    for key in ({"kty": "RSA", "n": n, "e": e}, {"kty": "EC", "crv": curve, "x": point[0], "y": point[1]}):
        try:
            found = of(key, record=EVERYTHING)
        except KeysRefused:
            continue
        assert key["kty"] == "RSA"
        assert len(found.keys) == 1


@given(st.binary(max_size=200))
def test_whatever_stands_in_a_pem_file_is_a_key_or_refused(data: bytes) -> None:
    """Nor does any text inside of good frames make another error."""
    framed = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(data) + b"\n-----END PUBLIC KEY-----\n"
    for text in (data, framed):
        with pytest.raises(KeysRefused):
            read_public_key(text, EVERYTHING)


def test_what_was_loaded_is_what_was_published() -> None:
    """The numbers of the key, not only its name."""
    (key,) = of(jwk(RSA, kid="a")).keys
    assert key.key is not None
    pem = key.key.as_pem(private=False)
    public = serialization.load_pem_public_key(pem if isinstance(pem, bytes) else pem.encode())
    assert public.public_numbers() == RSA.public_key().public_numbers()  # type: ignore[union-attr]
