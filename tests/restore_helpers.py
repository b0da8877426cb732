"""Random histories of a trust database: commits, copies, restores of older files, ends of every kind.

One history is one seed. Whatever was told as revoked since the last confirmation must be refused; where nobody put an
older file in place nothing else may be.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio
from gate_helpers import LOCAL, make_gate
from trust_helpers import SECRET, Counted

from edged.access.admissions import Admissions
from edged.access.authority import EDGED
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.access.usage import Usage
from edged.accounts.api_keys import ApiKeys
from edged.accounts.registrar import Registrar
from edged.accounts.restores import Restores
from edged.accounts.revocations import Revocations
from edged.accounts.users import Users
from edged.clock import Clock
from edged.credentials.callers import ApiKey, Token
from edged.credentials.tokens import issue_claims, sign
from edged.errors import Refused
from edged.store import backups
from edged.store.database import Database
from edged.store.migrations import TRUST, USAGE

TRUST_FILES = ("trust.db", "trust.db-wal", "trust.db-shm")
USAGE_FILES = ("usage.db", "usage.db-wal", "usage.db-shm")


@dataclass
class Life:
    """The daemon's store and gate from one start to its end."""

    folder: Path
    trust: Database
    clock: Clock
    ledger: Ledger
    gate: Gate
    registrar: Registrar
    revocations: Revocations
    api_keys: ApiKeys
    users: Users
    usage: Usage
    restores: Restores

    def lets_in(self, credential: str) -> bool:
        shown = Token(credential) if credential.count(".") == 2 else ApiKey(credential)
        try:
            self.gate.authenticate(shown, LOCAL, "ws")
        except Refused:
            return False
        return True

    def token(self, serial: int, *, own: bool = True) -> str:
        """With an epoch, as edged makes them; or as anybody makes one who has the shared secret."""
        extra = {"iss": "edged", "epoch": self.ledger.epoch} if own else {}
        claims = issue_claims(f"user {serial}", role="viewer", now=self.clock.now(), expires_in=3600, extra=extra)
        return sign({**claims, "jti": f"jti-{serial}"}, SECRET)


@asynccontextmanager
async def live(folder: Path) -> AsyncIterator[Life]:
    """As app.run puts it together."""
    path = folder / "trust.db"
    async with (
        Database.open(path, TRUST, name="trust", reserve=folder / "trust.reserve") as trust,
        Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL") as tallies,
    ):
        ledger, admissions, clock = Ledger(), Admissions(), Clock()
        counted: Any = Counted()
        registrar = Registrar(ledger, admissions, trust, clock, counted)
        revocations = Revocations(registrar, ledger, trust, clock, counted)
        api_keys = ApiKeys(registrar, ledger, admissions, trust, clock)
        users = Users(registrar, ledger, admissions, trust, clock, issuer="edged")
        restores = Restores(registrar, ledger, trust, tallies, clock)
        registrar.load()
        await restores.examine()
        revocations.load()
        users.load()
        api_keys.load()
        usage = Usage(tallies, clock, lambda _identity: False, lambda: trust.commits, ledger.is_known)
        usage.load(list(ledger.keys))
        gate = make_gate(ledger, admissions, clock, counted, shared_secrets=[SECRET])
        async with trio.open_nursery() as nursery:
            await nursery.start(registrar.run)
            yield Life(folder, trust, clock, ledger, gate, registrar, revocations, api_keys, users, usage, restores)
            nursery.cancel_scope.cancel()


@dataclass
class History:
    """What happened, what was told, and what must be so."""

    folder: Path
    chance: random.Random
    #: What a caller was told is revoked since the last confirmation, and what is good.
    revoked: set[str] = field(default_factory=set)
    good: set[str] = field(default_factory=set)
    key_ids: dict[str, str] = field(default_factory=dict)
    #: Older files, each a folder.
    copies: list[Path] = field(default_factory=list)
    #: An older file was put in place and nobody has confirmed it.
    is_restored: bool = False
    #: The last process ended before its last commit was noted or told: without that one the file is as good.
    is_excused: bool = False
    steps: list[str] = field(default_factory=list)
    serial: int = 0

    async def run(self) -> None:
        """Some lives, one after another."""
        state = self.folder / "0"
        state.mkdir()
        for number in range(self.chance.randint(2, 5)):
            following = self.folder / str(number + 1)
            await self._live(state, following)
            state = following
            self._happen_between(state)

    async def _live(self, state: Path, following: Path) -> None:
        crash = self.chance.random() < 0.5
        async with live(state) as life:
            self.steps.append(f"start, pending={life.restores.pending}")
            if self.is_excused:
                self.is_restored = self.is_restored and life.restores.pending is not None
                self.is_excused = False
            self._check(life)
            for _ in range(self.chance.randint(1, 7)):
                await self._step(life)
                self._check(life)
            if crash:
                if self.chance.random() < 0.5:
                    # The end comes between a commit and what is noted of it: nobody was told.
                    await self._revoke_untold(life)
                # What the kernel holds of the files is what a process that starts next finds.
                shutil.copytree(state, following)
        if not crash:
            async with live(state) as life:
                await life.usage.flush()
            shutil.copytree(state, following)
        self.steps.append("crash" if crash else "stop")

    def _check(self, life: Life) -> None:
        told = [credential for credential in self.revoked if life.lets_in(credential)]
        assert told == [], "revoked, and let in"
        if self.is_restored:
            assert life.restores.pending is not None
        else:
            assert life.restores.pending is None, "nobody has put an older file there"
            shut_out = [credential for credential in self.good if not life.lets_in(credential)]
            assert shut_out == []

    async def _step(self, life: Life) -> None:
        step = self.chance.choice(
            [self._make_key, self._make_token, self._revoke, self._revoke, self._flush, self._back_up,
             self._copy_by_hand, self._confirm]
        )  # fmt: skip
        self.steps.append(step.__name__)
        await step(life)

    async def _make_key(self, life: Life) -> None:
        record, secret = await life.api_keys.create(EDGED, name="k", role="viewer")
        self.key_ids[secret] = record.key_id
        self.good.add(secret)

    async def _make_token(self, life: Life) -> None:
        self.serial += 1
        own = self.chance.random() < 0.5
        token = life.token(self.serial, own=own)
        assert life.lets_in(token) == (own or not self.is_restored)
        self.good.add(token)

    async def _revoke(self, life: Life) -> None:
        # Of a key only where this database knows it: in an older one it may not be there yet.
        able = [each for each in sorted(self.good) if self._is_known(life, each)]
        if able:
            credential = self.chance.choice(able)
            await self._deny(life, credential)
            self.good.discard(credential)
            self.revoked.add(credential)

    def _is_known(self, life: Life, credential: str) -> bool:
        return credential not in self.key_ids or self.key_ids[credential] in life.ledger.keys

    async def _deny(self, life: Life, credential: str) -> None:
        if credential in self.key_ids:
            await life.api_keys.revoke(self.key_ids[credential], "")
        else:
            caller = life.gate.read_token(credential)
            await life.registrar.revoke_token(caller.identities, None)

    async def _revoke_untold(self, life: Life) -> None:
        able = [each for each in sorted(self.good) if self._is_known(life, each)]
        reserve = life.trust._reserve
        if able and reserve is not None:
            credential = self.chance.choice(able)
            cast(Any, reserve).note_commits = lambda _number: None
            await self._deny(life, credential)
            # Nobody knows whether it is: it may be, and if the next start says so it is from then on.
            self.good.discard(credential)
            self.is_excused = True

    async def _flush(self, life: Life) -> None:
        await life.usage.flush()

    async def _back_up(self, life: Life) -> None:
        with closing(sqlite3.connect(life.folder / "trust.db")) as connection:
            made = backups.make(connection, life.folder / "trust.db", len(TRUST))
        kept = self._new_copy()
        shutil.copy(made, kept / "trust.db")

    async def _copy_by_hand(self, life: Life) -> None:
        kept = self._new_copy()
        for name in (*TRUST_FILES[: self.chance.choice([1, 2])], "usage.db", "usage.db-wal"):
            if (life.folder / name).exists():
                shutil.copy(life.folder / name, kept / name)
        try:
            with closing(sqlite3.connect(kept / "trust.db")) as copy:
                whole = copy.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
                whole = whole and copy.execute("PRAGMA user_version").fetchone()[0] == len(TRUST)
        except sqlite3.Error:
            whole = False
        if not whole:
            # A file that is not whole without its log stops the start, which is another story.
            self.copies.pop()

    def _new_copy(self) -> Path:
        kept = self.folder / f"copy {len(self.copies)}-{self.chance.random()}"
        kept.mkdir()
        self.copies.append(kept)
        return kept

    async def _confirm(self, life: Life) -> None:
        if not self.is_restored or self.chance.random() < 0.5:
            return
        await life.restores.confirm(EDGED, "root")
        self.is_restored = False
        # From here on the file is right as it is.
        known = self.revoked | self.good
        self.revoked = {each for each in known if not life.lets_in(each)}
        self.good = known - self.revoked

    def _happen_between(self, state: Path) -> None:
        with closing(sqlite3.connect(state / "trust.db")) as now:
            now.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            before = list(now.iterdump())
        if self.copies and self.chance.random() < 0.6:
            copy = self.chance.choice(self.copies)
            for name in TRUST_FILES:
                (state / name).unlink(missing_ok=True)
                if (copy / name).exists():
                    shutil.copy(copy / name, state / name)
            with closing(sqlite3.connect(state / "trust.db")) as now:
                differs = list(now.iterdump()) != before
            self.steps.append(f"older file in place, differs={differs}")
            self.is_restored = self.is_restored or differs
        lost = self.chance.random()
        if lost < 0.15:
            # usage.db is an older one, or is gone; the reserve is there.
            for name in USAGE_FILES:
                (state / name).unlink(missing_ok=True)
            if self.copies and self.chance.random() < 0.5:
                copy = self.chance.choice(self.copies)
                for name in USAGE_FILES:
                    if (copy / name).exists():
                        shutil.copy(copy / name, state / name)
            self.steps.append("usage.db lost or older")
