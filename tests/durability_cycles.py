"""Deny, be told so, kill -9 at a random moment, start again: what is lost? For the tests and for scripts/bench."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durability_child import KINDS

CHILD = Path(__file__).parent / "durability_child.py"
#: Of what was denied long ago, so many are tried at each start; all of them at the last.
_SAMPLE = 40
_LATEST = 100
#: Of what is good for ever, so many.
_KEPT = 20
#: Lives that are killed while they start, and for how long the others work after their first reply at most, seconds.
_YOUNG = 0.15
_LONGEST_LIFE = 0.04
#: What the gate says of what was revoked, and of what is a user's who is no more or rests.
_GONE = ("revoked", "suspended")


@dataclass
class Tally:
    """What so many lives have shown."""

    cycles: int = 0
    #: Keys and tokens of which it was told that they, or whose they are, are no more; in order, and by kind.
    told: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    #: Those that got in after that.
    lost: list[str] = field(default_factory=list)
    #: Keys and tokens that nobody denied; those of them that did not get in.
    kept: list[str] = field(default_factory=list)
    shut_out: list[str] = field(default_factory=list)
    #: What integrity_check said, if it was not "ok".
    damaged: list[list[str]] = field(default_factory=list)
    #: Starts that looked at the database; what was denied and tried at them.
    looked: int = 0
    tried: int = 0
    killed_starting: int = 0
    #: Kills between the reply to a creation and the reply to its revocation.
    killed_inside: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.cycles} kills in {self.seconds:.0f} s, {self.killed_starting} while starting,"
            f" {self.killed_inside} between two replies: {len(self.told)} denials told"
            f" ({', '.join(f'{self.kinds[kind]} {kind}' for kind in KINDS)}), {len(self.lost)} lost,"
            f" {len(self.shut_out)} shut out, {len(self.damaged)} times damaged"
            f" ({self.tried} credentials tried in {self.looked} starts)"
        )

    @property
    def is_whole(self) -> bool:
        """Whether everything is as it was told."""
        return not (self.lost or self.shut_out or self.damaged)


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


def _begin(parent: subprocess.Popen[bytes], asked: list[str], tally: Tally) -> int:
    assert parent.stdin is not None
    # What was denied least often comes first.
    first = min(KINDS, key=lambda kind: tally.kinds[kind])
    parent.stdin.write(json.dumps({"secrets": asked + tally.kept[-_KEPT:], "first": first}).encode() + b"\n")
    parent.stdin.flush()
    return int(_hear(parent)["pid"])


def _hear(parent: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert parent.stdout is not None
    line = parent.stdout.readline()
    assert line.endswith(b"\n"), "the parent of the children ended"
    return dict(json.loads(line))


def _live(parent: subprocess.Popen[bytes], asked: list[str], tally: Tally, chance: random.Random) -> None:
    """One life: it starts, says what it finds, works, and is killed."""
    pid = _begin(parent, asked, tally)
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
    pid = _begin(parent, asked, tally)
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
            tally.shut_out += [secret for secret in tally.kept[-_KEPT:] if secret in fact["refused"]]
    for fact in heard:
        if "revoked" in fact:
            tally.told.append(fact["revoked"])
            tally.kinds[fact["kind"]] += 1
        elif "kept" in fact:
            tally.kept += fact["kept"]
