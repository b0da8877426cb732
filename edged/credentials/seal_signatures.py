"""Signed statements: a statement, and a detached JWS (RFC 7515, appendix F) over it. Pure (docs/seals.md).

The text of one is the statement and a line `jws HEADER..SIGNATURE`; a file may hold several, one after another. The
protected header names the key by its `kid` and holds its public half (`jwk`), so that anyone can say whether all of a
series was signed by one and the same key. Whose key that is, it does not prove: a JWKS, a thumbprint or the archive of
keys does. `typ` is `edged-seal`: no token is a seal, no seal is a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from edged.credentials.seals import BadSeal, Statement, build, digest, is_kid, parse
from edged.credentials.signing_keys import Jwk, PrivateKey, VerifyingKey, lower
from edged.errors import NOT_JSON

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

ALGORITHM: Final = "ES256"
TYPE: Final = "edged-seal"
_MARK: Final = b"jws "
_LONGEST_HEADER: Final = 1024


class Signed(msgspec.Struct, frozen=True):
    """A statement whose signature fits the key that its header holds. `digest` is that of the statement;
    `thumbprint` of the key (RFC 7638); `text` all of it."""

    statement: Statement
    kid: str
    thumbprint: str
    digest: str
    text: bytes


def sign(statement: Statement, key: PrivateKey, public: Jwk) -> bytes:
    """The text of a signed statement, by the private half and with the public half of a key. Raises BadSeal.

    The first call imports the library: not in the loop's thread.
    """
    from edged.credentials import jose

    payload = build(statement)
    header = _encode(_write_header(key.kid, public["x"], public["y"]))
    signature = lower(jose.sign_bytes(ALGORITHM, header + b"." + _encode(payload), key.key))
    return b"%s%s%s..%s\n" % (payload, _MARK, header, _encode(signature))


def read(text: bytes) -> Signed:
    """One signed statement; as `sign`. Raises BadSeal if anything in it is not as `sign` made it."""
    from edged.credentials import jose

    at = text.rfind(b"\n" + _MARK) + 1
    header, dots, end = text[at + len(_MARK) :].partition(b"..")
    if not at or not dots or not end.endswith(b"\n") or len(header) > _LONGEST_HEADER:
        raise BadSeal("it does not end with the line of its signature")
    payload, signature = text[:at], _decode(end[:-1])
    kid, thumbprint, key = _read_header(header)
    # Of the two spellings of a signature the one that we write.
    if len(signature) != 64 or lower(signature) != signature:
        raise BadSeal("its signature is not spelled as edged spells it")
    if not jose.verify(ALGORITHM, header + b"." + _encode(payload), signature, key):
        raise BadSeal("its signature does not fit: the statement or the signature was changed")
    return Signed(parse(payload), kid, thumbprint, digest(payload), text)


def split(data: bytes) -> Iterator[bytes]:
    """The texts of signed statements in a file of several; what follows the last is one, too."""
    begin = 0
    while begin < len(data):
        mark = data.find(b"\n" + _MARK, begin)
        end = data.find(b"\n", mark + 1) + 1 if mark >= 0 else 0
        yield data[begin : end or len(data)]
        begin = end or len(data)


def is_by(signed: Signed, key: VerifyingKey | None, public: Jwk) -> bool:
    """Whether a key of ours signed it: that of its name."""
    return key is not None and key.kid == signed.kid and thumbprint_of(public["x"], public["y"]) == signed.thumbprint


def thumbprint_of(x: str, y: str) -> str:
    """The thumbprint of a P-256 key (RFC 7638), by the coordinates of its JWK."""
    data = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()
    return _encode(hashlib.sha256(data).digest()).decode()


def read_thumbprints(jwks: bytes) -> frozenset[str]:
    """The thumbprints of the keys of a JWK set that can sign seals. Raises BadSeal if it is none."""
    try:
        keys = msgspec.json.decode(jwks, type=dict[str, object])["keys"]
        found = [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else None
    except (KeyError, *NOT_JSON):
        found = None
    if found is None:
        raise BadSeal('it is no JWK set: a JSON object with a list "keys"')
    return frozenset(_thumbprints(found))


def _thumbprints(keys: Iterable[Mapping[str, object]]) -> Iterator[str]:
    for key in keys:
        x, y = key.get("x"), key.get("y")
        if key.get("kty") == "EC" and key.get("crv") == "P-256" and isinstance(x, str) and isinstance(y, str):
            yield thumbprint_of(x, y)


def _write_header(kid: str, x: str, y: str) -> bytes:
    jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return msgspec.json.encode({"alg": ALGORITHM, "jwk": jwk, "kid": kid, "typ": TYPE})


class _Key(msgspec.Struct):
    x: str
    y: str


class _Header(msgspec.Struct):
    kid: str
    jwk: _Key


@lru_cache(maxsize=64)
def _read_header(header: bytes) -> tuple[str, str, ECKey]:
    """(kid, thumbprint, key). A series has few different ones. Raises BadSeal."""
    from edged.credentials.jose import ECKey, JoseError

    data = _decode(header)
    try:
        made = msgspec.json.decode(data, type=_Header)
    except NOT_JSON:
        raise BadSeal("the header of its signature is not that of a seal") from None
    x, y = made.jwk.x, made.jwk.y
    if not is_kid(made.kid) or data != _write_header(made.kid, x, y):
        raise BadSeal("the header of its signature is not that of a seal")
    try:
        key = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        key.get_op_key("verify")
    except (JoseError, ValueError, TypeError):
        raise BadSeal("the key in the header of its signature is none") from None
    return made.kid, thumbprint_of(x, y), key


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    """base64url in its one spelling. Raises BadSeal."""
    try:
        data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        data = b""
    if _encode(data) != text:
        raise BadSeal("its signature is no base64url")
    return data
