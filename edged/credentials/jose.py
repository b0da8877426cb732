"""What edged takes of joserfc: key pairs, and signatures by them.

It is imported where a key pair is used and never by a start that uses none: with cryptography, which it is built on, it
takes 11 MB. HS256, by which most clients sign, needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

__all__ = ["ECKey", "JoseError", "RSAKey", "sign", "sign_bytes", "verify"]


def sign(header: Mapping[str, str], claims: Mapping[str, object], key: RSAKey | ECKey) -> str:
    """A compact JWS by the algorithm that the header names."""
    return jwt.encode(dict(header), dict(claims), key, algorithms=[header["alg"]])


def sign_bytes(algorithm: str, signed: bytes, key: RSAKey | ECKey) -> bytes:
    """The signature over these bytes."""
    return bytes(_find(algorithm).sign(signed, key))


def verify(algorithm: str, signed: bytes, signature: bytes, key: RSAKey | ECKey) -> bool:
    """Whether the key signed these bytes."""
    try:
        return bool(_find(algorithm).verify(signed, signature, key))
    except (JoseError, ValueError):
        return False


@cache
def _find(algorithm: str) -> Any:
    return JWSRegistry(algorithms=[algorithm]).get_alg(algorithm)
