"""kill -9 at a random moment, and start again: the real store, registrar and gate in a fork, and the whole daemon.

`scripts/bench durability` does the first 1,000 times.
"""

from __future__ import annotations

import importlib.util
import random
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from daemon_helpers import SECRET, Conversation
from durability_child import KINDS
from durability_cycles import Tally, run_cycles
from durability_helpers import Box, running_box
from patience import times
from trio_websocket import ConnectionClosed

CYCLES = times(40, least=12)
#: Lives of a whole daemon, and for how long new ones begin, seconds.
LIVES = times(20, least=4)
LIVES_SECONDS = 60.0
#: For how long a life goes on after its first reply at most, seconds.
LONGEST_LIFE = 0.2


@pytest.mark.slow
def test_no_denial_that_was_told_is_lost_by_a_kill(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever was denied, by whatever name, is refused by a gate at every start after; what was not is let in; and
    the file is sound."""
    tally = run_cycles(tmp_path / "state" / "trust.db", CYCLES, random.Random())
    with capfd.disabled():
        print(f"\n{tally}")
    assert tally.cycles == CYCLES
    assert len(tally.told) >= CYCLES / 2
    assert tally.looked >= CYCLES / 2
    assert CYCLES < 40 or tally.kinds.keys() == set(KINDS)
    assert tally.damaged == []
    assert tally.lost == []
    assert tally.shut_out == []


class Denier:
    """Who denies over a unix socket until it is gone, and remembers what was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.kept: list[str] = []
        self.unknown = 0

    async def work(self, admin: Conversation, began: trio.Event) -> None:
        """Until the connection breaks."""
        try:
            self.kept.append((await admin.call("create_key", name="kept", role="viewer"))["api_key"])
            while True:
                for make in (self._key, self._token, self._subject):
                    credential, method, params = await make(admin)
                    self.unknown += 1
                    await admin.call(method, **params)
                    self.unknown -= 1
                    self.told.append(credential)
                    began.set()
        except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            began.set()

    async def _key(self, admin: Conversation) -> tuple[str, str, dict[str, Any]]:
        made = await admin.call("create_key", name="k", role="viewer")
        return made["api_key"], "revoke_key", {"key_id": made["key_id"]}

    async def _token(self, admin: Conversation) -> tuple[str, str, dict[str, Any]]:
        made = await admin.call("issue_token", user_id="somebody")
        return made["token"], "revoke_token", {"jti": made["jti"]}

    async def _subject(self, admin: Conversation) -> tuple[str, str, dict[str, Any]]:
        name = f"subject{random.getrandbits(64):x}"
        made = await admin.call("issue_token", user_id=name)
        return made["token"], "revoke", {"subject": name, "before": "now"}


@pytest.mark.slow
async def test_no_denial_that_was_told_over_a_socket_is_lost_by_a_kill_of_the_daemon(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`edged serve` itself, asked over its unix socket, killed at a random moment and started again: over TCP nobody
    gets in of whom it was told that they are denied, and everybody else does."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    denier, lives, end = Denier(), 0, time.monotonic() + LIVES_SECONDS
    settings = f'[auth.shared_secrets]\ntest = "{secret}"'
    async with running_box(tmp_path, settings=settings, command="serve") as box:
        while lives < LIVES and (not lives or time.monotonic() < end):
            before = len(denier.told)
            await one_life(box, denier)
            lives += 1
            await box.start()
            # Those of this life, and some of those before.
            tried = denier.told[before:][-10:] + random.sample(denier.told[:before], min(5, before))
            await assert_as_told(box, tried, denier.kept[-2:])
        await assert_as_told(box, denier.told[-200:], denier.kept)
    with capfd.disabled():
        print(
            f"\n{lives} kills of edged serve, {denier.unknown} amid a call: {len(denier.told)} denials told, none lost"
        )
    assert len(denier.told) >= lives


async def one_life(box: Box, denier: Denier) -> None:
    began = trio.Event()
    async with trio.open_nursery() as nursery, box.admin() as admin:
        nursery.start_soon(denier.work, admin, began)
        await began.wait()
        await trio.sleep(random.uniform(0, LONGEST_LIFE))
        box.kill()


async def assert_as_told(box: Box, denied: list[str], kept: list[str]) -> None:
    assert [secret for secret in denied if await box.lets_in(secret)] == []
    assert [secret for secret in kept if not await box.lets_in(secret)] == []


def load_bench() -> ModuleType:
    path = Path(__file__).parent.parent / "scripts" / "benchmarks" / "durability.py"
    spec = importlib.util.spec_from_file_location("durability_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "tally", [Tally(cycles=1, lost=["x"]), Tally(cycles=1, damaged=[["torn"]]), Tally(cycles=1, shut_out=["x"])]
)
def test_the_bench_fails_when_something_was_lost(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """By its exit code, for whoever runs it by a timer; and not when all is as it was told."""
    bench = load_bench()
    monkeypatch.setattr(bench.shutil, "which", lambda _name: None)
    monkeypatch.setattr(bench, "run_cycles", lambda *_: tally)
    with pytest.raises(SystemExit) as caught:
        bench.bench_durability(Namespace(cycles=1))
    assert caught.value.code not in (0, None)
    monkeypatch.setattr(bench, "run_cycles", lambda *_: Tally(cycles=1))
    bench.bench_durability(Namespace(cycles=1))
