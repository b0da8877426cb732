"""How a key pair is made. Run as a program, it makes one for each algorithm that is named, as JSON on standard output:
a daemon has them made by a process of its own (edged.signing.key_maker), so this imports little.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

Algorithm: TypeAlias = Literal["RS256", "ES256"]
Jwk: TypeAlias = dict[str, str]
RSA_BITS: Final = 2048
_EXPONENT: Final = 65537
#: Bytes of a coordinate, and of the private value, by curve.
COORDINATES: Final[Mapping[str, int]] = {"P-256": 32, "P-384": 48}


def generate(algorithm: Algorithm) -> Jwk:
    """A new key pair as JWK with private members (RFC 7518 6.2, 6.3). An RSA key takes long: not in the loop's thread.

    By cryptography itself, which joserfc is built on: to import all of that takes as long as to make both keys.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if algorithm == "ES256":
        point = ec.generate_private_key(ec.SECP256R1()).private_numbers()
        public, size = point.public_numbers, COORDINATES["P-256"]
        numbers = {"x": public.x, "y": public.y, "d": point.private_value}
        return {"kty": "EC", "crv": "P-256"} | {name: _encode(value, size) for name, value in numbers.items()}
    key = rsa.generate_private_key(_EXPONENT, RSA_BITS).private_numbers()
    numbers = {
        "n": key.public_numbers.n, "e": key.public_numbers.e, "d": key.d, "p": key.p, "q": key.q,
        "dp": key.dmp1, "dq": key.dmq1, "qi": key.iqmp,
    }  # fmt: skip
    return {"kty": "RSA"} | {name: _encode(value, (value.bit_length() + 7) // 8) for name, value in numbers.items()}


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
    return _encode(int.from_bytes(data), max(size, len(data)))


def _encode(number: int, size: int) -> str:
    """So many bytes, the highest first, in base64url without padding."""
    return base64.urlsafe_b64encode(number.to_bytes(size)).rstrip(b"=").decode()


if __name__ == "__main__":
    json.dump([generate(algorithm) for algorithm in sys.argv[1:]], sys.stdout)  # type: ignore[arg-type]
