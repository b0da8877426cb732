"""What the tests of store and access share: a trust database on disk, and ways to make it slow or broken for real."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from gate_helpers import LOCAL, make_gate

from edged.access.admissions import Admissions
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.accounts.api_keys import ApiKeys
from edged.accounts.registrar import Registrar
from edged.accounts.revocations import Revocations
from edged.accounts.users import Users
from edged.clock import Boot, Clock
from edged.credentials.callers import ApiKey, Caller, Token
from edged.credentials.claims import SEED_TRUST, Trust
from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.errors import Refused, StoreFailed
from edged.store.database import Database
from edged.store.migrations import TRUST

SECRET = SharedSecret(
    "test",
    "a secret of the tests, long enough for HS256",
    Trust(SEED_TRUST.issuers | {"edged"}, SEED_TRUST.audiences, own="edged"),
)


@dataclass
class Counted:
    """Counts what the packages under test report to metrics."""

    failed: list[tuple[str, str, str]] = field(default_factory=list)
    used: list[tuple[str, str, str]] = field(default_factory=list)
    revocations: list[str] = field(default_factory=list)
    refreshes: list[str] = field(default_factory=list)

    def auth_failed(self, reason: str, method: str, transport: str) -> None:
        self.failed.append((str(reason), method, transport))

    def credential_used(self, method: str, transport: str, role: str) -> None:
        self.used.append((method, transport, role))

    def token_refreshed(self, result: str) -> None:
        self.refreshes.append(result)

    def revoked(self, kind: str) -> None:
        self.revocations.append(kind)


@dataclass
class TrustStack:
    """A registrar, everything that it writes, and the gate that reads it."""

    db: Database
    ledger: Ledger
    admissions: Admissions
    clock: Clock
    #: Counted; who counts takes the daemon's whole Metrics.
    counted: Any
    gate: Gate
    registrar: Registrar
    revocations: Revocations
    api_keys: ApiKeys
    users: Users

    def lets_in(self, secret: str) -> bool:
        """Whether the gate takes this key."""
        try:
            self.gate.authenticate(ApiKey(secret), LOCAL, "ws")
        except Refused:
            return False
        return True

    def token(self, subject: str, role: str = "viewer", **claims: object) -> Caller:
        """A caller with a token that edged issues just now."""
        extra = {"iss": "edged", "epoch": self.ledger.epoch, **claims}
        made = issue_claims(subject, role=role, now=self.clock.now(), expires_in=3600, extra=extra)
        return self.gate.authenticate(Token(sign(made, SECRET)), LOCAL, "ws")

    def standing(self, caller: Caller) -> str:
        """What the gate says of a caller with an active session: "good", or the reason of the refusal."""
        reason = self.gate.judge(caller, "self").reason
        return "good" if reason is None else str(reason)

    def inside(self, caller: Caller, **options: Any) -> list[tuple[str, str]]:
        """Admit a caller; the list gets (cause, by) when the gate ends the session."""
        ended: list[tuple[str, str]] = []
        self.gate.admit(caller, "ws", lambda cause, by: ended.append((cause, by)), **options)
        return ended


@asynccontextmanager
async def open_trust(
    path: Path, *, queue_size: int = 64, now: Callable[[], float] = time.time, boot: Boot | None = None
) -> AsyncIterator[TrustStack]:
    """A loaded registrar over the trust database at `path`; `run` is not started."""
    async with Database.open(path, TRUST, name="trust") as db:
        ledger, admissions = Ledger(), Admissions()
        counted: Any = Counted()
        clock = Clock(system=now)
        registrar = Registrar(ledger, admissions, db, clock, counted, queue_size=queue_size)
        revocations = Revocations(registrar, ledger, db, clock, counted, boot=boot)
        api_keys = ApiKeys(registrar, ledger, admissions, db, clock)
        users = Users(registrar, ledger, admissions, db, clock, issuer="edged")
        registrar.load()
        revocations.load()
        users.load()
        api_keys.load()
        gate = make_gate(ledger, admissions, clock, counted, shared_secrets=[SECRET])
        yield TrustStack(db, ledger, admissions, clock, counted, gate, registrar, revocations, api_keys, users)


@asynccontextmanager
async def running_trust(path: Path, **options: object) -> AsyncIterator[TrustStack]:
    """The same with its task running."""
    async with open_trust(path, **options) as trust, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        await nursery.start(trust.registrar.run)
        yield trust
        nursery.cancel_scope.cancel()


async def change_nothing(_commit: object) -> None:
    """The work of a grant that grants nothing; what was asked before it is done when it is."""
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def busy_writer(db: Database) -> AsyncIterator[None]:
    """While inside, the writer's thread is in the middle of another job: nothing else is committed."""
    begun, release = threading.Event(), threading.Event()

    def hold(_connection: sqlite3.Connection) -> None:
        begun.set()
        assert release.wait(30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.write, hold)
        await trio.to_thread.run_sync(begun.wait, 30)
        try:
            yield
        finally:
            release.set()


class BrokenCommits:
    """SQLite refuses every COMMIT of this database until mended; counts the tries."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.tries = 0

    def _authorize(self, action: int, first: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_TRANSACTION and first == "COMMIT":
            self.tries += 1
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    async def begin(self) -> BrokenCommits:
        with pytest.raises(StoreFailed):
            await self._db.write(lambda connection: connection.set_authorizer(self._authorize))
        self.tries = 0
        return self

    async def mend(self) -> None:
        await self._db.write(lambda connection: connection.set_authorizer(None))


async def until(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait, by the real clock whatever trio's says, for something that other threads bring about."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it never came true"
        await trio.to_thread.run_sync(time.sleep, 0.002)


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """What another program reads from the file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
