"""What the durability tests kill: a program of its own, in one of two shapes.

serve SETTINGS-FOLDER GAPS-FILE     a whole edged, with a task beside it that notes how long its loop was held up
cycles DATABASE                     the store and the registrar alone; forked anew for each line on standard input
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio

_TICK = 0.002


def main(shape: str, *arguments: str) -> int:
    if shape == "serve":
        return serve(Path(arguments[0]), Path(arguments[1]))
    cycles(Path(arguments[0]))
    return 0


def serve(settings: Path, gaps: Path) -> int:
    from edged import app
    from edged.cli.options import load_config

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
    """For each line of standard input, a JSON list of secrets to try, one life of a child that revokes until killed."""
    # What every life needs is imported once: a life then costs a fork and not a start of Python.
    import edged.access.registrar
    import edged.access.usage
    import edged.access.users
    import edged.store.database  # noqa: F401
    from edged import logs

    # On standard error: standard output is for what is told.
    logs.configure("warning")

    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            try:
                trio.run(partial(live, path, json.loads(line)))
            finally:
                os._exit(1)
        tell(pid=child)
        _, status = os.waitpid(child, 0)
        tell(ended=-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


async def live(path: Path, secrets: list[str]) -> None:
    """Open the database as a daemon does, say what is in it, then make keys and say each reply; end them by turns: by
    a revocation, and with the user whose they are."""
    from edged.access.admissions import Admissions
    from edged.access.api_keys import ApiKeys
    from edged.access.gate import Gate
    from edged.access.ledger import Ledger
    from edged.access.registrar import Registrar
    from edged.access.users import Users
    from edged.clock import Clock
    from edged.credentials.callers import ApiKey
    from edged.errors import Refused
    from edged.store.database import Database
    from edged.store.migrations import TRUST

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with Database.open(path, TRUST, name="trust") as db, trio.open_nursery() as nursery:
        ledger, admissions, clock = Ledger(), Admissions(), Clock()
        registrar = Registrar(ledger, admissions, db, clock, _Uncounted())
        api_keys = ApiKeys(registrar, ledger, admissions, db, clock)
        users = Users(registrar, ledger, admissions, db, clock, issuer="edged")
        registrar.load()
        users.load()
        api_keys.load()
        gate = Gate(ledger, admissions, clock, _Uncounted(), shared_secrets=[])
        refused: dict[str, str] = {}
        for secret in secrets:
            try:
                gate.authenticate(ApiKey(secret), "ws")
            except Refused as problem:
                refused[secret] = str(problem.reason)
        check = [
            row[0] for row in db.read_now(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        ]
        tell(integrity=check, refused=refused, keys=len(ledger.keys), denied=len(ledger.denied))
        await nursery.start(registrar.run)
        while True:
            record, secret = await api_keys.create(name="short-lived", role="viewer")
            tell(made=secret)
            await api_keys.revoke(record.key_id)
            tell(revoked=secret)
            await users.create(name=record.key_id, role="viewer")
            _, secret = await api_keys.create(name="owned", role="viewer", owner=record.key_id)
            tell(made=secret)
            await users.delete(record.key_id)
            tell(revoked=secret)


class _Uncounted:
    """Nobody counts here."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


def tell(**facts: object) -> None:
    """One line in one write: a kill leaves it out or lets it out."""
    os.write(1, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
