"""Key pairs that edged signs tokens with: what is known of one, how one is made, what the world may see of it.

A key is *next* (published, signs nothing yet), then *current* (signs), then *retired* (signs no more; what it signed
is good to its end). Its `kid` is `key-<n>`, and no n is ever given twice.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from joserfc.jwk import ECKey, RSAKey

from edged.credentials.claims import Trust

Algorithm: TypeAlias = Literal["RS256", "ES256"]
State: TypeAlias = Literal["next", "current", "retired"]
#: What edged signs for the world with; every verifier that MediaMTX is built on reads both (mediamtx.md 3.4).
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)
RSA_BITS: Final = 2048
#: Who verifies by our JWKS may keep it for an hour (MediaMTX does): a key is published twice as long before it signs.
PUBLISHED_SECONDS: Final = 7200.0
#: Members of a JWK that are public; anything else of it never leaves.
_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
#: Orders of P-256 and P-384: for each signature (r, s) the pair (r, order - s) verifies too (SEC 1, 4.1.4).
_ORDERS: Final[Mapping[str, int]] = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
_HALF: Final = _ORDERS["ES256"] // 2
#: Bytes of a coordinate, and of the private value, by curve.
COORDINATES: Final[Mapping[str, int]] = {"P-256": 32, "P-384": 48}

Jwk: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeyRecord:
    """One key pair; times are Unix seconds. `private` is the JWK with its private members, None once it is retired.

    `signs_until`: no token that this key signed is good at or after this time.
    """

    number: int
    algorithm: Algorithm
    state: State
    public: Jwk
    private: Jwk | None = field(repr=False)
    created_at: float
    promoted_at: float | None = None
    retired_at: float | None = None
    signs_until: float = 0.0

    @property
    def kid(self) -> str:
        """Its name in the header of tokens and in the JWKS."""
        return kid_of(self.number)

    def published(self) -> Jwk:
        """What the JWKS says of it."""
        return {**complete(self.public), "kid": self.kid, "use": "sig", "alg": self.algorithm}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """The public half, with whom its tokens may name as issuer and for whom they may be."""

    kid: str
    algorithm: str
    key: RSAKey | ECKey = field(repr=False)
    trust: Trust

    def takes_signature(self, signature: bytes) -> bool:
        """Whether this is the one spelling of a signature that `sign` writes: ES256 has two, and a token that was
        revoked by the hash of its text must not come back in the other one."""
        return self.algorithm != "ES256" or len(signature) != 64 or int.from_bytes(signature[32:]) <= _HALF


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs: the private half under its name."""

    kid: str
    algorithm: str
    key: RSAKey | ECKey = field(repr=False)


def kid_of(number: int) -> str:
    """`key-<n>` (contract 5.2)."""
    return f"key-{number}"


def generate(algorithm: Algorithm) -> Jwk:
    """A new key pair as JWK with private members; an RSA key takes long, so not in the loop's thread."""
    made = RSAKey.generate_key(RSA_BITS) if algorithm == "RS256" else ECKey.generate_key("P-256")
    return complete({name: value for name, value in made.as_dict(private=True).items() if isinstance(value, str)})


def complete(jwk: Jwk) -> Jwk:
    """The same key with every number as long as its curve wants it (RFC 7518 6.2.1.2, 6.2.2.1).

    joserfc 1.1 leaves leading zeros away, for one key in 128, and not every verifier takes that.
    """
    size = COORDINATES.get(jwk.get("crv", ""))
    if size is None:
        return jwk
    return {name: _fill(value, size) if name in ("x", "y", "d") else value for name, value in jwk.items()}


def _fill(text: str, size: int) -> str:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return base64.urlsafe_b64encode(data.rjust(size, b"\0")).rstrip(b"=").decode()


def public_part(jwk: Jwk) -> Jwk:
    """The members that verifying needs, and nothing else."""
    return {name: jwk[name] for name in _PUBLIC[jwk["kty"]]}


def read_key(jwk: Jwk) -> RSAKey | ECKey:
    """A JWK as joserfc works with it."""
    return RSAKey.import_key(dict(jwk)) if jwk["kty"] == "RSA" else ECKey.import_key(dict(jwk))


def lower(signature: bytes) -> bytes:
    """The ES256 signature r || s in the one spelling that we write: with s in the lower half of its range."""
    return signature if int.from_bytes(signature[32:]) <= _HALF else mirrored(signature, "ES256")


def mirrored(signature: bytes, algorithm: str) -> bytes:
    """The other spelling of a good signature; of an algorithm that has only one, the same."""
    order, half = _ORDERS.get(algorithm), len(signature) // 2
    return signature[:half] + (order - int.from_bytes(signature[half:])).to_bytes(half) if order else signature
