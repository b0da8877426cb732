"""reactions/viewers.py: who watches through MediaMTX is looked up soon after they came, and not too often."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import pytest
import trio
import trio.testing
from identity_helpers import named

from edged.access.admissions import Admissions
from edged.credentials.callers import Caller
from edged.errors import DependencyFailed
from edged.mediamtx.viewers import Viewers
from edged.reactions.viewers import FIRST_LOOK_SECONDS, LOOK_SECONDS, SHARE, follow

VIEWER = Caller("api_key", "s", frozenset(), frozenset(), identities=frozenset({named("key:a")}))
OURS = Caller(method="internal", subject="edged", roles=frozenset(), capabilities=frozenset())


class Lists:
    """Nobody is listed; notes when and over which protocols it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, frozenset[str]]] = []
        self.fails = False

    async def list(self, only: Collection[str]) -> list[object]:
        await trio.lowlevel.checkpoint()
        self.asked.append((trio.current_time(), frozenset(only)))
        if self.fails:
            raise DependencyFailed("no answer")
        return []


def stay(_cause: str, _by: str) -> None:
    """Nobody is ended here."""


async def test_mediamtx_is_not_asked_while_there_is_no_viewer(autojump_clock: trio.testing.MockClock) -> None:
    """edged's own publishers are no viewers; the first who comes is looked up soon, and then now and then."""
    admissions, lists = Admissions(), Lists()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, admissions, cast("Viewers", lists))
        admissions.add(OURS, "rtsp", stay, session="p1", path="camera0", seconds_left=None)
        await trio.sleep(100)
        assert lists.asked == []
        admissions.add(VIEWER, "webrtc", stay, session="w1", path="camera0", seconds_left=None)
        await trio.sleep(FIRST_LOOK_SECONDS + 0.01)
        assert lists.asked == [(100 + FIRST_LOOK_SECONDS, frozenset({"webrtc"}))]
        await trio.sleep(100)
        # It was never listed: after 15 s nobody is here, and nobody is asked.
        assert 10 <= len(lists.asked) <= 15 / LOOK_SECONDS + 3
        nursery.cancel_scope.cancel()


async def test_a_mediamtx_that_does_not_answer_ends_no_session(autojump_clock: trio.testing.MockClock) -> None:
    """It is asked again."""
    admissions, lists = Admissions(), Lists()
    lists.fails = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, admissions, cast("Viewers", lists))
        await trio.sleep(0.1)
        admissions.add(VIEWER, "hls", stay, session="h1", seconds_left=None)
        await trio.sleep(60)
        assert admissions.has_session("hls", "h1")
        assert len(lists.asked) >= 30
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("held", [0.0, 0.05])
async def test_comparisons_that_hold_the_loop_are_rare(
    held: float, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come in: what a look takes is a small share of the time."""
    admissions, lists = Admissions(), Lists()

    def compare(*_: object) -> None:
        autojump_clock.jump(held)

    monkeypatch.setattr(admissions, "compare", compare)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, admissions, cast("Viewers", lists))
        for number in range(600):
            await trio.sleep(0.1)
            admissions.add(VIEWER, "rtsp", stay, session=f"s{number}", path="camera0", seconds_left=None)
        nursery.cancel_scope.cancel()
    assert len(lists.asked) * held * SHARE <= 60 + SHARE * held + 1
    assert len(lists.asked) >= 5
