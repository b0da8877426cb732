"""RSA keys for the daemons of one test run: making one and checking it takes longer than the rest of a daemon's start.

Every key of 2048 bits that this process asks joserfc for is the next of SIZE real ones, in turn. A JWK that has all
numbers of one of these is read as this key, without another check; any other key is made, checked and read by the
library as always. The keys of one daemon differ as long as it makes no more than SIZE.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import trio
from joserfc.jwk import RSAKey

from edged.credentials.key_pairs import Algorithm, Jwk, generate
from edged.signing import key_maker

#: As a daemon does it that is a process of its own.
make_by_a_process = key_maker.make
SIZE = 24
BITS = 2048
#: What a JWK says of a private RSA key (RFC 7518 6.3).
NUMBERS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")

_made: list[Jwk] = []
_places = cycle(range(SIZE))
#: Daemons make their keys in threads.
_making = threading.Lock()


def install() -> None:
    """From here on; once in a process, whose daemons make their keys in it. joserfc 1.1 (Debian 13) makes and reads
    keys elsewhere: there what the daemons make is one of SIZE as well, but is checked whenever it is read."""
    key_maker.make = lambda spawn, algorithms: make_here(algorithms)
    binding: Any = RSAKey.binding
    if not hasattr(binding, "generate_private_key"):
        return
    generate, read = binding.generate_private_key, binding.import_private_key
    made: list[Any] = []
    places = cycle(range(SIZE))
    known: dict[str, tuple[tuple[str, ...], Any]] = {}

    def generate_or_reuse(size: int) -> Any:
        if size != BITS:
            return generate(size)
        place = next(places)
        if place == len(made):
            made.append(generate(size))
            numbers = binding.export_private_key(made[place])
            known[numbers["n"]] = (tuple(numbers[name] for name in NUMBERS), made[place])
        return made[place]

    def read_or_find(jwk: Mapping[str, Any]) -> Any:
        numbers, key = known.get(jwk.get("n", ""), ((), None))
        return key if key is not None and numbers == tuple(jwk.get(name) for name in NUMBERS) else read(jwk)

    binding.generate_private_key = staticmethod(generate_or_reuse)
    binding.import_private_key = staticmethod(read_or_find)


async def make_here(algorithms: Sequence[Algorithm]) -> list[Jwk]:
    """As edged.signing.key_maker.make, in this process."""
    return [await trio.to_thread.run_sync(_make, algorithm) for algorithm in algorithms]


def _make(algorithm: Algorithm) -> Jwk:
    if algorithm != "RS256":
        return generate(algorithm)
    with _making:
        place = next(_places)
        if place == len(_made):
            numbers = RSAKey.generate_key(BITS).as_dict(private=True)
            _made.append({"kty": "RSA"} | {name: str(numbers[name]) for name in NUMBERS})
        return dict(_made[place])
