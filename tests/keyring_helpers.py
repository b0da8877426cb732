"""What the tests of signing keys share: a keyring over a real database, and a clock that the test moves."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gate_helpers import verify
from key_pool import make_here
from patience import fail_after

from edged.access.grants import Grant, Upkeep
from edged.credentials.identities import Identity
from edged.credentials.signing_keys import ALGORITHMS, Algorithm, Jwk, SigningKeyRecord, generate
from edged.credentials.tokens import issue_claims
from edged.credentials.wrapping import WrappingKey
from edged.signing.keyring import Keyring
from edged.store.database import Database
from edged.store.migrations import TRUST

START = 1_900_000_000.0
HOUR = 3600.0
#: RSA keys take long to make and are not what most of these tests are about.
POOL: dict[str, list[Jwk]] = {algorithm: [generate(algorithm) for _ in range(2)] for algorithm in ALGORITHMS}


@dataclass
class Time:
    """A clock that the test moves: the system's and the monotonic one."""

    system: float = START
    monotonic: float = 0.0
    trusted: bool = True
    #: While it is not trusted: what somebody confirmed last, without the time that passed since.
    confirmed: float = START

    def pass_(self, seconds: float) -> None:
        self.system += seconds
        self.monotonic += seconds


class Moved:
    """The daemon's clock does not follow every step; this one does, which is the worse case."""

    def __init__(self, time: Time) -> None:
        self._time = time

    def now(self) -> float:
        return self._time.system

    def certain(self) -> float:
        if self._time.trusted:
            self._time.confirmed = self._time.system
        return self._time.confirmed

    def monotonic(self) -> float:
        return self._time.monotonic

    @property
    def is_trusted(self) -> bool:
        return self._time.trusted


def from_pool() -> Callable[[Sequence[Algorithm]], Awaitable[list[Jwk]]]:
    """Ready-made pairs: RSA in turn, ES256 new each time."""
    made = {"RS256": 0}

    def make(algorithm: Algorithm) -> Jwk:
        if algorithm == "ES256":
            return generate(algorithm)
        made["RS256"] += 1
        return POOL["RS256"][made["RS256"] % 2]

    async def make_all(algorithms: Sequence[Algorithm]) -> list[Jwk]:
        return [make(algorithm) for algorithm in algorithms]

    return make_all


@dataclass
class Bench:
    db: Database
    keyring: Keyring
    time: Time
    clock: Any
    denied: set[Any] = field(default_factory=set)

    @property
    def grant(self) -> Grant:
        """What is granted to everybody here."""
        return Upkeep(self.db)

    async def distrust(self, kid: str) -> SigningKeyRecord:
        """Deny it and give it up."""
        self.denied.add(Identity.of_signing_key(kid))
        return await self.keyring.give_up(kid)

    def published(self) -> list[str]:
        return [key["kid"] for key in json.loads(self.keyring.jwks())["keys"]]

    def states(self) -> dict[str, str]:
        return {record.kid: record.state for record in self.keyring.all()}

    async def sign(self, algorithm: Algorithm = "ES256", seconds: float = 3600) -> str:
        claims = issue_claims("ann", role="viewer", now=self.time.system, expires_in=int(seconds))
        return await self.keyring.sign(claims, algorithm)

    def takes(self, text: str) -> bool:
        return verify(text, [], now=self.time.system, find_key=self.keyring.find).subject == "ann"


@asynccontextmanager
async def opened(
    path: Path,
    time: Time | None = None,
    *,
    real: bool = False,
    wrapping: WrappingKey | None = None,
    denied: set[Any] | None = None,
    was_restored: bool = False,
) -> AsyncIterator[Bench]:
    """A keyring over the trust database at `path`, with its first keys."""
    time = time or Time()
    with fail_after(60):
        async with Database.open(path, TRUST, name="trust") as db:
            clock: Any = Moved(time)
            denied = set() if denied is None else denied
            make = make_here if real else from_pool()
            keyring = Keyring(
                db, clock, is_denied=denied.__contains__, make=make, was_restored=was_restored, wrapping=wrapping
            )
            keyring.load()
            await keyring.ensure()
            yield Bench(db, keyring, time, clock, denied)


def kid_of_token(text: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(text.split(".")[0] + "=="))["kid"])
