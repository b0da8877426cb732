"""credentials/seals.py and seal_signatures.py: a statement has one spelling, and no token is one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from gate_helpers import verify
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from msgspec.structs import replace

from edged.credentials import jose, tokens
from edged.credentials.claims import Trust
from edged.credentials.seal_signatures import (
    read,
    read_thumbprints,
    sign,
    split,
    thumbprint_of,
)
from edged.credentials.seals import (
    ArchivedKey,
    BadSeal,
    DerivedSeal,
    Head,
    KeyArchive,
    Part,
    SegmentSeal,
    Statement,
    Tombstone,
    build,
    digest,
    parse,
)
from edged.credentials.signing_keys import PrivateKey, VerifyingKey, generate, lower, mirrored, public_part, read_key
from edged.credentials.tokens import TokenRefused

PAIR = generate("ES256")
PUBLIC = public_part(PAIR)
KEY = PrivateKey("key-2", "ES256", read_key(PAIR))

times = st.integers(-(10**13), 10**13).map(lambda thousandths: thousandths / 1000)
numbers = st.integers(2, 2**53)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
series = st.binary(min_size=8, max_size=8).map(bytes.hex)
cameras = st.integers(0, 999_999).map(lambda number: f"camera{number}")
names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=60).filter(
    lambda text: text.isprintable() and text.strip() == text
)
common = {"camera": st.just("camera0"), "series": series, "synchronised": st.booleans(), "sealed": times}
coordinates = st.binary(min_size=32, max_size=32).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="))
statements: st.SearchStrategy[Statement] = st.one_of(
    st.builds(
        SegmentSeal, **common, number=numbers, file=st.just("camera0/2026-11-30/1796000000-000000.mp4"),
        sha256=digests, size=st.integers(0, 2**53), began=times, ended=times, recovered=st.booleans(), previous=digests,
    ),
    st.builds(Head, **common, first=st.just(2), last=numbers, digest=digests),
    st.builds(
        Tombstone, **common, first=st.just(2), last=numbers, previous=digests, digest=digests, began=times, ended=times,
        reason=st.sampled_from(["age", "size", "request"]), since=times, deleted=times,
    ),
    st.builds(
        DerivedSeal, **common, name=names, sha256=digests, size=st.integers(0, 2**53), began=times, ended=times,
        parts=st.lists(st.builds(Part, numbers, digests), max_size=5).map(tuple),
    ),
    st.builds(
        KeyArchive, sealed=times,
        keys=st.lists(
            st.builds(
                ArchivedKey, st.integers(1, 999).map(lambda number: f"key-{number}"), coordinates, coordinates, times,
                st.none() | times, st.none() | times,
            ), max_size=4,
        ).map(tuple),
    ),
)  # fmt: skip

SEAL = SegmentSeal(
    camera="camera0", series="0123456789abcdef", number=7, file="camera0/2026-11-30/1796000000-000000.mp4",
    sha256="ab" * 32, size=12345, began=1_796_000_000.25, ended=1_796_000_060.5, synchronised=True, recovered=False,
    previous="cd" * 32, sealed=1_796_000_061.125,
)  # fmt: skip


@given(statements)
def test_what_is_built_is_read_as_it_was(statement: Statement) -> None:
    assert parse(build(statement)) == statement


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_what_is_no_statement_is_refused_with_a_sentence(data: bytes) -> None:
    for judge in (parse, read):
        with pytest.raises(BadSeal, match=r"."):
            judge(data)


@given(statements, st.data())
def test_a_changed_statement_is_refused_or_says_something_else_in_its_own_spelling(
    statement: Statement, data: st.DataObject
) -> None:
    changed = bytearray(build(statement))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = parse(bytes(changed))
    except BadSeal:
        return
    assert other != statement
    assert build(other) == changed


def test_the_format_is_the_one_of_the_documentation() -> None:
    assert build(SEAL).decode() == (
        "edged-seal 1\ncamera camera0\nseries 0123456789abcdef\nnumber 7\n"
        f"file camera0/2026-11-30/1796000000-000000.mp4\nsha256 {'ab' * 32}\nsize 12345\n"
        "began 1796000000.250\nended 1796000060.500\nclock synchronised\nrecovered no\n"
        f"previous {'cd' * 32}\nsealed 1796000061.125\n"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"camera": "camera"}, {"camera": "camera1"}, {"camera": "../x"}, {"series": "0123"}, {"number": 0},
        {"number": 1}, {"file": "camera0/../x"}, {"file": "camera0/a/b\nsize 5"}, {"file": "/etc/passwd"},
        {"sha256": "AB" * 32}, {"size": -1}, {"began": float("nan")}, {"ended": 1e12}, {"previous": "-"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_never_built(changes: dict[str, Any]) -> None:
    with pytest.raises(BadSeal):
        build(replace(SEAL, **changes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"number 7", b"number 07"), (b"number 7", b"number +7"), (b"number 7", b"number \xd9\xa7"),
        (b".250", b".25"), (b"size 12345", b"size 12345 "), (b"\nsize", b"\n\nsize"), (b"\nsize", b"\r\nsize"),
        (b"recovered no", b"recovered No"), (b"edged-seal 1", b"edged-seal 2"), (b"began 1796", b"began 01796"),
        (b"61.125\n", b"61.125"), (b"61.125\n", b"61.125\nmore yes\n"), (b"began 1796000000.250", b"began 1e9"),
        (b"series", b"serial"), (b"edged-seal", b"edged-head"),
    ],
    ids=str,
)  # fmt: skip
def test_another_spelling_is_refused(old: bytes, new: bytes) -> None:
    assert old in build(SEAL)
    with pytest.raises(BadSeal):
        parse(build(SEAL).replace(old, new))


def test_every_single_bit_of_a_signed_statement_counts() -> None:
    text = sign(SEAL, KEY, PUBLIC)
    assert read(text).statement == SEAL
    for at in range(len(text) * 8):
        changed = bytearray(text)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(BadSeal):
            read(bytes(changed))


def test_the_second_spelling_of_a_signature_is_refused() -> None:
    text = sign(SEAL, KEY, PUBLIC)
    front, _, signature = text.rstrip(b"\n").rpartition(b".")
    other = mirrored(base64.urlsafe_b64decode(signature + b"=="), "ES256")
    with pytest.raises(BadSeal):
        read(front + b"." + base64.urlsafe_b64encode(other).rstrip(b"=") + b"\n")


def test_a_file_of_several_statements_is_split_where_each_ends() -> None:
    texts = [sign(replace(SEAL, number=number), KEY, PUBLIC) for number in (2, 3, 4)]
    assert list(split(b"".join(texts))) == texts
    assert list(split(b"".join(texts) + b"rest")) == [*texts, b"rest"]
    assert list(split(b"")) == []


def test_others_verify_a_seal_with_a_library_for_jws() -> None:
    """As docs/seals.md says: the payload is put back between the two dots."""
    text = sign(SEAL, KEY, PUBLIC)
    payload, _, rest = text.rpartition(b"jws ")
    header, _, signature = rest.strip().partition(b"..")
    whole = header + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=") + b"." + signature
    found = jws.deserialize_compact(whole, read_key(PUBLIC), algorithms=["ES256"])
    assert found.payload == payload == build(SEAL)
    assert found.headers() == {
        "alg": "ES256", "kid": "key-2", "typ": "edged-seal", "jwk": {"crv": "P-256", "kty": "EC", **coordinates_of()},
    }  # fmt: skip


def coordinates_of() -> dict[str, str]:
    return {"x": PUBLIC["x"], "y": PUBLIC["y"]}


def test_a_thumbprint_is_that_of_rfc_7638() -> None:
    assert thumbprint_of(PUBLIC["x"], PUBLIC["y"]) == read_key(PUBLIC).thumbprint()
    assert read(sign(SEAL, KEY, PUBLIC)).thumbprint == read_key(PUBLIC).thumbprint()


def test_the_thumbprints_of_a_jwks_are_those_of_keys_that_can_seal() -> None:
    jwks = {"keys": [{**PUBLIC, "kid": "key-2", "use": "sig"}, {"kty": "RSA", "n": "x", "e": "AQAB"}]}
    assert read_thumbprints(json.dumps(jwks).encode()) == {thumbprint_of(PUBLIC["x"], PUBLIC["y"])}
    for bad in (b"", b"[]", b'{"keys": 5}', b"{}", b"\xff"):
        with pytest.raises(BadSeal):
            read_thumbprints(bad)


def as_token(text: bytes) -> str:
    """A seal as somebody would show it for a token: with its payload in place."""
    payload, _, rest = text.rpartition(b"jws ")
    header, _, signature = rest.strip().partition(b"..")
    return (header + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=") + b"." + signature).decode()


def find_key(kid: str) -> VerifyingKey | None:
    return VerifyingKey(kid, "ES256", read_key(PUBLIC), Trust(frozenset({"edged"}), needs_issuer=True, own="edged"))


def test_a_seal_is_no_token_for_edged() -> None:
    with pytest.raises(TokenRefused, match="malformed"):
        verify(as_token(sign(SEAL, KEY, PUBLIC)), [], now=SEAL.sealed, find_key=find_key)


def test_the_type_of_a_seal_is_refused_whatever_its_payload_says() -> None:
    """Also a box that somebody has made to sign claims in a seal's header."""
    claims = {"sub": "ann", "iss": "edged", "role": "admin", "iat": 1, "exp": 4_000_000_000, "jti": "x"}
    good = jws.serialize_compact(
        {"alg": "ES256", "kid": "key-2", "typ": "edged-seal"}, json.dumps(claims), KEY.key, algorithms=["ES256"]
    )
    with pytest.raises(TokenRefused, match="typ is not JWT"):
        verify(good, [], now=1_900_000_000.0, find_key=find_key)


def test_the_payload_of_a_seal_is_no_json_for_anybody() -> None:
    for statement in (SEAL, KeyArchive(sealed=1.0, keys=())):
        with pytest.raises(json.JSONDecodeError):
            json.loads(build(statement))


def test_a_token_is_no_seal() -> None:
    token = tokens.sign({"sub": "ann", "exp": 4_000_000_000}, KEY)
    header, payload, signature = token.split(".")
    for text in (
        token,
        f"{payload}\njws {header}..{signature}\n",
        f"{build(SEAL).decode()}jws {header}..{signature}\n",
    ):
        with pytest.raises(BadSeal):
            read(text.encode())


def test_a_seal_by_another_header_is_refused_also_if_its_signature_fits() -> None:
    payload = build(SEAL)
    for header in (
        {"alg": "ES256", "kid": "key-2", "typ": "JWT", "jwk": PUBLIC},
        {"alg": "ES256", "jwk": PUBLIC, "kid": "key-2", "typ": "edged-seal", "crit": ["b64"], "b64": False},
        {"alg": "ES256", "kid": "key-2", "typ": "edged-seal"},
    ):
        # Signed without joserfc: its versions differ in the headers that they agree to write.
        front = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
        body = base64.urlsafe_b64encode(payload).decode().rstrip("=")
        made = lower(jose.sign_bytes("ES256", f"{front}.{body}".encode(), KEY.key))
        signature = base64.urlsafe_b64encode(made).decode().rstrip("=")
        with pytest.raises(BadSeal, match="header"):
            read(payload + f"jws {front}..{signature}\n".encode())


def test_the_digest_of_a_statement_is_that_of_its_bytes() -> None:
    assert read(sign(SEAL, KEY, PUBLIC)).digest == digest(build(SEAL))
