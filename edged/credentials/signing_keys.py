"""Key pairs that edged signs tokens with: what is known of one, how one is made, what the world may see of it.

A key is *next* (published, signs nothing yet), then *current* (signs), then *retired* (signs no more; what it signed
is good to its end). Its `kid` is `key-<n>`, and no n is ever given twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, get_args

import msgspec

from edged.credentials.claims import Trust
from edged.credentials.key_pairs import COORDINATES, Algorithm, Jwk, complete, generate
from edged.structs import Discreet

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

__all__ = [
    "ALGORITHMS", "COORDINATES", "PUBLISHED_SECONDS", "Algorithm", "Jwk", "PrivateKey", "SigningKeyRecord", "State",
    "VerifyingKey", "complete", "generate", "kid_of", "lower", "mirrored", "public_part", "read_key",
]  # fmt: skip

State: TypeAlias = Literal["next", "current", "retired"]
#: What edged signs for the world with; every verifier that MediaMTX is built on reads both (mediamtx.md 3.4).
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)
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


class SigningKeyRecord(Discreet, msgspec.Struct, frozen=True, kw_only=True):
    """One key pair; times are Unix seconds. `private` is the JWK with its private members, None once it is retired.

    `signs_until`: no token that this key signed is good at or after this time.
    """

    hidden: ClassVar = frozenset({"private"})

    number: int
    algorithm: Algorithm
    state: State
    public: Jwk
    private: Jwk | None
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


class VerifyingKey(Discreet, msgspec.Struct, frozen=True):
    """The public half, with whom its tokens may name as issuer and for whom they may be.

    `key` is None for one that has signed nothing: whatever names it is a forgery, for which no library is needed.
    """

    hidden: ClassVar = frozenset({"key"})

    kid: str
    algorithm: str
    key: RSAKey | ECKey | None
    trust: Trust

    def takes_signature(self, signature: bytes) -> bool:
        """Whether this is the one spelling of a signature that `sign` writes: ES256 has two, and a token that was
        revoked by the hash of its text must not come back in the other one."""
        return self.algorithm != "ES256" or len(signature) != 64 or int.from_bytes(signature[32:]) <= _HALF


class PrivateKey:
    """What signs: the private half under its name. As a JWK it is read at its first use, which takes long."""

    __slots__ = ("_half", "algorithm", "kid")

    def __init__(self, kid: str, algorithm: str, half: RSAKey | ECKey | Jwk) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._half = half

    def __repr__(self) -> str:
        return f"PrivateKey({self.kid!r}, {self.algorithm!r})"

    @property
    def is_read(self) -> bool:
        """Whether `key` takes no time."""
        return not isinstance(self._half, dict)

    @property
    def key(self) -> RSAKey | ECKey:
        """As joserfc works with it."""
        return self.read()

    def read(self) -> RSAKey | ECKey:
        """The same; in a thread the first time."""
        if isinstance(self._half, dict):
            self._half = read_key(self._half)
        return self._half


def kid_of(number: int) -> str:
    """`key-<n>` (contract 5.2)."""
    return f"key-{number}"


def public_part(jwk: Jwk) -> Jwk:
    """The members that verifying needs, and nothing else."""
    return {name: jwk[name] for name in _PUBLIC[jwk["kty"]]}


def read_key(jwk: Jwk) -> RSAKey | ECKey:
    """A JWK as joserfc works with it; a private RSA key takes long, so not in the loop's thread."""
    from edged.credentials.jose import ECKey, RSAKey

    return RSAKey.import_key(dict(jwk)) if jwk["kty"] == "RSA" else ECKey.import_key(dict(jwk))


def lower(signature: bytes) -> bytes:
    """The ES256 signature r || s in the one spelling that we write: with s in the lower half of its range."""
    return signature if int.from_bytes(signature[32:]) <= _HALF else mirrored(signature, "ES256")


def mirrored(signature: bytes, algorithm: str) -> bytes:
    """The other spelling of a good signature; of an algorithm that has only one, the same."""
    order, half = _ORDERS.get(algorithm), len(signature) // 2
    return signature[:half] + (order - int.from_bytes(signature[half:])).to_bytes(half) if order else signature
