"""RSA keys for the daemons of one test run: making one and checking it takes longer than the rest of a daemon's start.

Every key of 2048 bits that this process asks joserfc for is the next of those of made_keys.py, in turn. A JWK that has
all numbers of one of these is read as this key, without another check; any other key is made, checked and read by the
library as always. The keys of one daemon differ as long as it makes no more than SIZE.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import made_keys
import trio
from joserfc.jwk import RSAKey
from made_keys import SIZE

from edged.credentials.key_pairs import RSA_BITS, Algorithm, Jwk, generate
from edged.signing import key_maker

#: As a daemon does it that is a process of its own.
make_by_a_process = key_maker.make
#: What a JWK says of a private RSA key (RFC 7518 6.3).
NUMBERS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")

_places = cycle(range(SIZE))
_jwks = functools.cache(lambda: made_keys.load()["RS256"])


def install() -> None:
    """From here on; once in a process, whose daemons make their keys in it. joserfc 1.1 (Debian 13) makes and reads
    keys elsewhere: there what the daemons make is one of SIZE as well, but is checked whenever it is read."""
    key_maker.make = lambda spawn, algorithms: make_here(algorithms)
    binding: Any = RSAKey.binding
    if not hasattr(binding, "generate_private_key"):
        return
    generate, read = binding.generate_private_key, binding.import_private_key
    places = cycle(range(SIZE))

    @functools.cache
    def key_at(place: int) -> Any:
        return _load_unchecked(_jwks()[place])

    def generate_or_reuse(size: int) -> Any:
        return key_at(next(places)) if size == RSA_BITS else generate(size)

    @functools.cache
    def place_by_modulus() -> dict[str, int]:
        return {jwk["n"]: place for place, jwk in enumerate(_jwks())}

    def read_or_find(jwk: Mapping[str, Any]) -> Any:
        place = place_by_modulus().get(jwk.get("n", ""))
        is_known = place is not None and all(jwk.get(name) == _jwks()[place][name] for name in NUMBERS)
        return key_at(place) if is_known else read(jwk)

    binding.generate_private_key = staticmethod(generate_or_reuse)
    binding.import_private_key = staticmethod(read_or_find)


def _load_unchecked(jwk: Jwk) -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from joserfc.util import to_bytes, urlsafe_b64decode

    n, e, d, p, q, dp, dq, qi = (int.from_bytes(urlsafe_b64decode(to_bytes(jwk[name]))) for name in NUMBERS)
    numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


async def make_here(algorithms: Sequence[Algorithm]) -> list[Jwk]:
    """As edged.signing.key_maker.make, in this process."""
    return [await trio.to_thread.run_sync(_make, algorithm) for algorithm in algorithms]


def _make(algorithm: Algorithm) -> Jwk:
    return dict(_jwks()[next(_places)]) if algorithm == "RS256" else generate(algorithm)
