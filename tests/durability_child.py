"""What the durability tests kill: a program of its own, in one of two shapes.

serve SETTINGS-FOLDER GAPS-FILE     a whole edged, with a task beside it that notes how long its loop was held up
cycles DATABASE                     the store, the registrar and a gate; forked anew for each line on standard input
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio
from identity_helpers import named
from key_pool import make_here

from edged.access.authority import EDGED
from edged.credentials.identities import Identity

_TICK = 0.002


def main(shape: str, *arguments: str) -> int:
    if shape == "serve":
        return serve(Path(arguments[0]), Path(arguments[1]))
    cycles(Path(arguments[0]))
    return 0


def serve(settings: Path, gaps: Path) -> int:
    from edged import app
    from edged.accounts.passwords import Passwords
    from edged.cli.asking import load_config
    from edged.credentials.passwords import Cost
    from edged.daemon import access

    # What is tested here is when a denial is on the disk, not what a guess costs.
    access.Passwords = lambda at_least: Passwords(cost=Cost(8, at_least))  # type: ignore[misc, assignment, attr-defined]
    run = app.run

    async def watched(*arguments: Any, **named: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note_gaps, gaps)
            await run(*arguments, **named)
            nursery.cancel_scope.cancel()

    app.run = watched
    return app.main(load_config(settings))


async def note_gaps(path: Path) -> None:
    """Keep the longest time in which the loop did not turn, and the most that its thread computed between two turns.

    Both in seconds, as two doubles in a mapped file; whoever wants a new measurement writes zeros. What a thread
    computes is the same on a busy machine; how long it waits for a disk is not in it (durability_disk.c tells of that).
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        while True:
            began, computed = time.monotonic(), time.thread_time()
            await trio.sleep(_TICK)
            gap = time.monotonic() - began - _TICK
            own = time.thread_time() - computed
            longest = struct.unpack("dd", shared[:16])
            shared[:16] = struct.pack("dd", max(gap, longest[0]), max(own, longest[1]))


def cycles(path: Path) -> None:
    """For each line of standard input, JSON of credentials to try and a kind to begin with, one life of a child that
    denies until killed."""
    # What every life needs is imported once: a life then costs a fork and not a start of Python.
    import edged.access.usage
    import edged.accounts.refreshes
    import edged.accounts.registrar
    import edged.accounts.users
    import edged.signing.keyring
    import edged.store.database  # noqa: F401
    from edged import logs

    # On standard error: standard output is for what is told.
    logs.configure("warning")

    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            try:
                random.seed()
                trio.run(partial(live, path, **json.loads(line)))
            finally:
                os._exit(1)
        tell(pid=child)
        _, status = os.waitpid(child, 0)
        tell(ended=-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


#: What a life may deny; each is a method of Life.
KINDS = (
    "key", "user_deleted", "user_disabled", "password", "jti", "family", "subject_cut_off", "issuer_cut_off", "subject",
)  # fmt: skip
#: Issuers whose tokens may come, so that no line hits what is made after it.
_ISSUERS = 20_000
_LONG = 1_000_000


async def live(path: Path, secrets: list[str], first: str) -> None:
    """Open the database as a daemon does and say what a real gate says of these credentials; then make some and deny
    them, saying each reply."""
    from edged.credentials.callers import Peer, parse_credential
    from edged.errors import Refused
    from edged.store.database import Database
    from edged.store.migrations import TRUST

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with Database.open(path, TRUST, name="trust") as db, trio.open_nursery() as nursery:
        life = Life(db)
        refused: dict[str, str] = {}
        for secret in secrets:
            try:
                life.gate.authenticate(parse_credential(secret), Peer("unix", uid=0), "ws")
            except Refused as problem:
                refused[secret] = str(problem.reason)
        check = [
            row[0] for row in db.read_now(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        ]
        tell(integrity=check, refused=refused)
        await nursery.start(life.registrar.run)
        # Good for ever: whoever refuses everything loses nothing, either.
        tell(kept=[(await life.make_key())[1], await life.token("kept")])
        kind = first
        while True:
            await getattr(life, kind)()
            kind = random.choice(KINDS)


class Life:
    """The parts that know who is denied, over one database; and what can be denied in them."""

    def __init__(self, db: Any) -> None:
        from gate_helpers import make_gate

        from edged.access.admissions import Admissions
        from edged.access.ledger import Ledger
        from edged.accounts.api_keys import ApiKeys
        from edged.accounts.refreshes import Refreshes
        from edged.accounts.registrar import Registrar
        from edged.accounts.revocations import Revocations
        from edged.accounts.users import Users
        from edged.clock import Clock
        from edged.credentials.claims import Trust
        from edged.credentials.tokens import SharedSecret
        from edged.signing.keyring import Keyring

        counts: Any = _Uncounted()
        issuers = frozenset({"edged", *(f"issuer{number}" for number in range(_ISSUERS))})
        self._secret = SharedSecret("test", "a secret of the tests, long enough for HS256", Trust(issuers, own="edged"))
        self._ledger, admissions, self._clock = Ledger(), Admissions(), Clock()
        self.registrar = Registrar(self._ledger, admissions, db, self._clock, counts)
        self.revocations = Revocations(self.registrar, self._ledger, db, self._clock, counts)
        self.api_keys = ApiKeys(self.registrar, self._ledger, admissions, db, self._clock)
        self.users = Users(self.registrar, self._ledger, admissions, db, self._clock, issuer="edged")
        self.registrar.load()
        self.revocations.load()
        self.users.load()
        self.api_keys.load()
        self.gate = make_gate(self._ledger, admissions, self._clock, counts, shared_secrets=[self._secret])
        keyring = Keyring(
            db, self._clock, is_denied=self._ledger.denials.__contains__, make=make_here, was_restored=False
        )
        self.refreshes = Refreshes(
            self.registrar, self._ledger, self.gate, keyring, db, self._clock, counts,
            shared_secrets=[self._secret],
        )  # fmt: skip
        self.refreshes.load()

    async def make_key(self, **options: Any) -> tuple[str, str]:
        record, secret = await self.api_keys.create(EDGED, name="short-lived", role="viewer", **options)
        return record.key_id, secret

    async def token(self, subject: str, issuer: str = "edged") -> str:
        """One that edged made, or another issuer."""
        from edged.credentials.tokens import issue_claims, sign

        own = {"epoch": await self.registrar.epoch()} if issuer == "edged" else {}
        claims = issue_claims(
            subject, role="viewer", now=self._clock.now(), expires_in=_LONG, extra={"iss": issuer, **own}
        )
        return sign(claims, self._secret)

    async def _user(self) -> tuple[str, str]:
        name = _fresh("user")
        await self.users.create(EDGED, name=name, role="viewer")
        return name, await self.token(name)

    async def key(self) -> None:
        key_id, secret = await self.make_key()
        tell(made=secret)
        await self.api_keys.revoke(key_id)
        tell(revoked=secret, kind="key")

    async def user_deleted(self) -> None:
        """Their key rests, their token ends."""
        name, token = await self._user()
        _, secret = await self.make_key(owner=name)
        tell(made=secret)
        await self.users.delete(name)
        tell(revoked=secret, kind="user_deleted")
        tell(revoked=token, kind="user_deleted")

    async def user_disabled(self) -> None:
        name, token = await self._user()
        tell(made=token)
        await self.users.disable(name)
        tell(revoked=token, kind="user_disabled")

    async def password(self) -> None:
        name, token = await self._user()
        tell(made=token)
        await self.users.set_password(name, "the hash of another one")
        tell(revoked=token, kind="password")

    async def jti(self) -> None:
        token = await self.token(_fresh("subject"))
        tell(made=token)
        await self.registrar.revoke_token(frozenset({_jti_of(token)}), self._clock.now() + _LONG)
        tell(revoked=token, kind="jti")

    async def family(self) -> None:
        """By the name of the first; who has what came of it is out."""
        token = await self.token(_fresh("subject"))
        successor = (await self.refreshes.refresh(token, "ws")).text
        tell(made=successor)
        await self.registrar.revoke_token(frozenset({_jti_of(token)}), self._clock.now() + _LONG)
        tell(revoked=successor, kind="family")

    async def subject_cut_off(self) -> None:
        token = await self.token(name := _fresh("subject"))
        tell(made=token)
        await self.revocations.cut_off(named(f"user:{name}"), None)
        tell(revoked=token, kind="subject_cut_off")

    async def issuer_cut_off(self) -> None:
        issuer = f"issuer{random.randrange(_ISSUERS)}"
        token = await self.token(_fresh("subject"), issuer)
        tell(made=token)
        await self.revocations.cut_off(named(f"issuer:{issuer}"), None)
        tell(revoked=token, kind="issuer_cut_off")

    async def subject(self) -> None:
        token = await self.token(name := _fresh("subject"))
        tell(made=token)
        await self.users.revoke(Identity.of_user(name), "subject")
        tell(revoked=token, kind="subject")


def _fresh(what: str) -> str:
    return f"{what}-{random.getrandbits(64):016x}"


def _jti_of(token: str) -> Identity:
    from edged.credentials.tokens import peek_claims

    return named(f"jti:{peek_claims(token)['jti']}")


class _Uncounted:
    """Nobody counts here."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


def tell(**facts: object) -> None:
    """One line in one write: a kill leaves it out or lets it out."""
    os.write(1, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
