"""Revoke, be told so, kill -9 at a random moment, start again: what is lost? For the tests and for scripts/bench."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHILD = Path(__file__).parent / "durability_child.py"
#: Of the keys revoked long ago, so many are tried at each start; all of them at the last.
_SAMPLE = 40
_LATEST = 100
#: Lives that are killed while they start, and for how long the others work after their first reply at most, seconds.
_YOUNG = 0.15
_LONGEST_LIFE = 0.04
#: What the gate says of a key that was revoked, and of one whose user was deleted.
_GONE = ("revoked", "suspended")


@dataclass
class Tally:
    """What so many lives have shown."""

    cycles: int = 0
    #: Secrets of keys of which it was told that they, or whose they are, are no more; in order.
    told: list[str] = field(default_factory=list)
    #: Secrets that got in after that.
    lost: list[str] = field(default_factory=list)
    #: What integrity_check said, if it was not "ok".
    damaged: list[list[str]] = field(default_factory=list)
    #: Starts that looked at the database; keys that were tried at them.
    looked: int = 0
    tried: int = 0
    killed_starting: int = 0
    #: Kills between the reply to a creation and the reply to its revocation.
    killed_inside: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.cycles} kills in {self.seconds:.0f} s, {self.killed_starting} while starting,"
            f" {self.killed_inside} between two replies: {len(self.told)} revocations told, {len(self.lost)} lost,"
            f" {len(self.damaged)} times damaged ({self.tried} keys tried in {self.looked} starts)"
        )


def run_cycles(database: Path, cycles: int, chance: random.Random) -> Tally:
    """So many lives of a child on one database, and a last one that is asked for everything."""
    tally = Tally()
    began = time.monotonic()
    with _children(database) as child:
        for _ in range(cycles):
            older = tally.told[:-_LATEST]
            asked = tally.told[-_LATEST:] + chance.sample(older, min(_SAMPLE, len(older)))
            _live(child, asked, tally, chance)
            tally.cycles += 1
        _look(child, tally.told, tally)
    tally.seconds = time.monotonic() - began
    return tally


@contextmanager
def _children(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Forks a child for each line; each child writes to the same pipe."""
    with subprocess.Popen(
        [sys.executable, CHILD, "cycles", database],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=CHILD.parent.parent,
    ) as parent:  # fmt: skip
        try:
            yield parent
        finally:
            assert parent.stdin is not None
            parent.stdin.close()


def _begin(parent: subprocess.Popen[bytes], asked: list[str]) -> int:
    assert parent.stdin is not None
    parent.stdin.write(json.dumps(asked).encode() + b"\n")
    parent.stdin.flush()
    return int(_hear(parent)["pid"])


def _hear(parent: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert parent.stdout is not None
    line = parent.stdout.readline()
    assert line.endswith(b"\n"), "the parent of the children ended"
    return dict(json.loads(line))


def _live(parent: subprocess.Popen[bytes], asked: list[str], tally: Tally, chance: random.Random) -> None:
    """One life: it starts, says what it finds, works, and is killed."""
    pid = _begin(parent, asked)
    heard: list[dict[str, Any]] = []
    if chance.random() < _YOUNG:
        time.sleep(chance.uniform(0, 0.03))
    else:
        while not heard or not heard[-1].keys() & {"revoked", "ended"}:
            heard.append(_hear(parent))
        time.sleep(chance.uniform(0, _LONGEST_LIFE))
    _kill(pid, heard)
    while not heard or "ended" not in heard[-1]:
        heard.append(_hear(parent))
    assert heard[-1]["ended"] == -signal.SIGKILL, f"it ended by itself: {heard[-1]}"
    _judge(asked, heard, tally)
    if not any("integrity" in fact for fact in heard):
        tally.killed_starting += 1
    elif len(heard) > 1 and "made" in heard[-2]:
        tally.killed_inside += 1


def _look(parent: subprocess.Popen[bytes], asked: list[str], tally: Tally) -> None:
    """One more start, to look only."""
    pid = _begin(parent, asked)
    heard = [_hear(parent)]
    _kill(pid, heard)
    while "ended" not in heard[-1]:
        heard.append(_hear(parent))
    _judge(asked, heard, tally)


def _kill(pid: int, heard: list[dict[str, Any]]) -> None:
    if not heard or "ended" not in heard[-1]:
        os.kill(pid, signal.SIGKILL)


def _judge(asked: list[str], heard: list[dict[str, Any]], tally: Tally) -> None:
    for fact in heard:
        if "integrity" in fact:
            tally.looked += 1
            tally.tried += len(asked)
            if fact["integrity"] != ["ok"]:
                tally.damaged.append(fact["integrity"])
            tally.lost += [secret for secret in asked if fact["refused"].get(secret) not in _GONE]
        elif "revoked" in fact:
            tally.told.append(fact["revoked"])
