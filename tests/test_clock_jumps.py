"""Ten thousand jumps of the clock from 1970 to 2099 over a real gate and a real database: what holds at every turn."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from cellar_helpers import SECRET, Counted, rows

from edged.access.admissions import Admissions
from edged.access.api_keys import ApiKeys
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.access.registrar import Registrar
from edged.clock import Clock
from edged.credentials.callers import ApiKey, Token
from edged.credentials.tokens import issue_claims, sign
from edged.errors import Refused
from edged.store import meta
from edged.store.database import Database
from edged.store.migrations import TRUST

WALKS = 10
JUMPS = 1000
YEAR_2099 = 4_070_908_800.0


@dataclass
class World:
    """A box whose clocks the walk turns; what it knows is in the database, and in memory until it restarts."""

    db: Database
    chance: random.Random
    system: float = 1.8e9
    passed: float = 0.0
    synchronized: bool = False
    tokens: deque[tuple[Token, int]] = field(default_factory=lambda: deque(maxlen=50))
    keys: list[ApiKey] = field(default_factory=list)
    #: The highest mark that this box ever had on disk; root may lower it.
    known: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """Everything anew from the disk; the monotonic clock starts somewhere else."""
        self.passed = self.chance.uniform(0, 1e5)
        self.clock = Clock(
            lambda: self.db.read_now(meta.load_high_water),
            system=lambda: self.system, monotonic=lambda: self.passed, synchronized=lambda: self.synchronized,
        )  # fmt: skip
        ledger, admissions = Ledger(), Admissions(lambda: self.passed)
        self.registrar = Registrar(ledger, admissions, self.db, self.clock, Counted())
        self.api_keys = ApiKeys(self.registrar, ledger, admissions, self.db, self.clock)
        self.registrar.load()
        self.api_keys.load()
        self.gate = Gate(ledger, admissions, self.clock, Counted(), shared_secrets=[SECRET])

    async def save(self) -> None:
        mark = self.clock.high_water()
        await self.db.write(lambda connection: meta.save_high_water(connection, mark))
        self.known = max(self.known, mark)

    async def turn(self) -> None:
        """One thing that happens to a box."""
        what = self.chance.choices(
            ["jump", "wait", "restart", "crash", "save", "issue", "root"], [60, 10, 3, 3, 5, 18, 1]
        )[0]
        self.counts[what] = self.counts.get(what, 0) + 1
        if what == "jump":
            # Half of them by hand or by a bad chip, half by a time server, most of which tell the truth.
            self.synchronized = self.chance.random() < 0.5
            honest = self.synchronized and self.chance.random() < 0.98
            self.system = self.chance.uniform(1.8e9, 1.9e9) if honest else self.chance.uniform(0, YEAR_2099)
        elif what == "wait":
            seconds = self.chance.uniform(0, 3600)
            self.passed, self.system = self.passed + seconds, self.system + seconds
        elif what in ("restart", "crash"):
            if what == "restart":
                await self.save()
            self.synchronized = self.chance.random() < 0.3
            self.start()
        elif what == "save":
            await self.save()
        elif what == "issue":
            now = self.clock.now()
            claims = issue_claims("ada", role="viewer", now=now, expires_in=self.chance.choice([60, 3600, 2_592_000]))
            self.tokens.append((Token(sign(claims, SECRET)), int(str(claims["exp"]))))
        else:
            mark = self.system
            await self.db.write(lambda connection: meta.replace_high_water(connection, mark))
            self.clock.reset()
            self.known = mark

    def takes(self, credential: ApiKey | Token) -> bool:
        try:
            self.gate.authenticate(credential, "ws")
        except Refused:
            return False
        return True

    def check(self) -> None:
        """What must hold, wherever the clocks are."""
        mark = self.clock.high_water()
        assert self.clock.now() >= mark >= self.known
        assert all(self.takes(key) for key in self.keys), "a valid key was refused"
        seen = self.chance.sample(self.tokens, min(4, len(self.tokens)))
        for token, expires in seen:
            taken = self.takes(token)
            assert not (taken and expires <= mark), "a token was accepted past the mark"
            self.counts["accepted"] = self.counts.get("accepted", 0) + taken


@pytest.mark.parametrize("seed", range(WALKS))
async def test_whatever_the_clock_does_nothing_expired_comes_back_and_nothing_valid_is_lost(
    tmp_path: Path, seed: int
) -> None:
    """A thousand jumps between 1970 and 2099 in each walk, with restarts and crashes: no token accepted past the
    high-water mark, no key without an end refused, no row deleted."""
    path = tmp_path / "trust.db"
    everything = "SELECT key_id, revoked_at FROM api_keys UNION SELECT identity, until FROM revocations ORDER BY 1"
    with trio.fail_after(120):
        async with Database.open(path, TRUST, name="trust") as db, trio.open_nursery() as nursery:
            world = World(db, random.Random(seed))
            world.start()
            await nursery.start(world.registrar.run)
            for role in ("viewer", "operator", "admin"):
                _, secret = await world.api_keys.create(name=role, role=role)
                world.keys.append(ApiKey(secret))
            gone, revoked = await world.api_keys.create(name="gone", role="viewer")
            await world.api_keys.revoke(gone.key_id)
            await world.registrar.revoke_token(frozenset({"jti:old"}), 1.9e9)
            before = rows(path, everything)
            assert len(before) == 6
            while world.counts.get("jump", 0) < JUMPS:
                await world.turn()
                world.check()
                assert not world.takes(ApiKey(revoked))
            assert rows(path, everything) == before
            nursery.cancel_scope.cancel()
    assert min(world.counts[what] for what in ("wait", "restart", "crash", "save", "issue", "root", "accepted")) > 0
