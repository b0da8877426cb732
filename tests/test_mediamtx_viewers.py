"""Putting viewers out: at once, several at a time, and again where MediaMTX did not answer."""

from __future__ import annotations

from typing import Any

import trio
from media_helpers import eventually, running
from patience import fail_after

from edged.errors import DependencyFailed
from edged.mediamtx.client import MediaSession
from edged.mediamtx.viewers import QUEUE, WORKERS, Viewers


class FakeClient:
    """Sessions in memory; `failures` answers fail first, `seconds` is what a kick takes."""

    def __init__(self, *sessions: MediaSession, failures: int = 0, seconds: float = 0.0) -> None:
        self.sessions = list(sessions)
        self.failures = failures
        self.seconds = seconds
        self.kicks: list[tuple[str, str]] = []
        self.at_once = self.most_at_once = 0

    async def kick(self, protocol: str, session: str) -> bool:
        self.kicks.append((protocol, session))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.sleep(self.seconds)
        self.at_once -= 1
        if self.failures:
            self.failures -= 1
            raise DependencyFailed("no answer")
        before = len(self.sessions)
        self.sessions = [one for one in self.sessions if (one.protocol, one.id) != (protocol, session)]
        return len(self.sessions) < before

    async def list_sessions_of(self, protocol: str) -> list[MediaSession]:
        await trio.lowlevel.checkpoint()
        return [one for one in self.sessions if one.protocol == protocol]

    async def list_sessions(self, only: object = None) -> list[MediaSession]:
        await trio.lowlevel.checkpoint()
        return self.sessions


class FakeServer:
    """A supervisor's face."""

    def __init__(self, client: FakeClient | None) -> None:
        self.client: Any = client


def fake_server(client: FakeClient | None) -> Any:
    """For whoever asks a supervisor for its client only."""
    return FakeServer(client)


def session(number: int, protocol: str = "rtsp") -> MediaSession:
    return MediaSession(protocol, f"s{number}", "camera0", "read", (f"c{number}",))


async def test_a_kick_returns_at_once_and_is_carried_out(autojump_clock: trio.testing.MockClock) -> None:
    """`kick` never waits; the session is gone soon after, the others stay."""
    client = FakeClient(session(1), session(2))
    viewers = Viewers(fake_server(client))
    with fail_after(5):
        async with running(viewers.run):
            viewers.kick("rtsp", "s1")
            assert client.kicks == []
            await eventually(lambda: client.sessions == [session(2)])


async def test_a_kick_that_mediamtx_did_not_answer_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    """Two failures do not save a revoked viewer."""
    client = FakeClient(session(1), failures=2)
    viewers = Viewers(fake_server(client))
    with fail_after(5):
        async with running(viewers.run):
            viewers.kick("rtsp", "s1")
            await eventually(lambda: client.sessions == [])
    assert len(client.kicks) == 3


async def test_patience_with_a_broken_mediamtx_ends(autojump_clock: trio.testing.MockClock) -> None:
    """After four tries the sweep has to do it; the worker goes on with the next."""
    client = FakeClient(session(1), session(2), failures=4)
    viewers = Viewers(fake_server(client))
    with fail_after(30):
        assert await viewers.kick_all([session(1)]) == 0
        assert await viewers.kick_all([session(2)]) == 1
    assert client.sessions == [session(1)]


async def test_a_slow_kick_does_not_hold_up_the_next(autojump_clock: trio.testing.MockClock) -> None:
    """Several kicks are under way at a time, but no more than a few."""
    everybody = [session(number) for number in range(20)]
    client = FakeClient(*everybody, seconds=1)
    with fail_after(60):
        assert await Viewers(fake_server(client)).kick_all(everybody) == 20
    assert client.most_at_once == WORKERS
    assert client.sessions == []


async def test_a_kick_of_a_session_that_has_ended_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    """A session that is not there counts as none ended, over any protocol."""
    viewers = Viewers(fake_server(FakeClient()))
    with fail_after(5):
        assert await viewers.kick_all([session(1), session(2, "hls")]) == 0


async def test_an_rtsp_connection_stands_for_its_session(autojump_clock: trio.testing.MockClock) -> None:
    """Before 1.19.3 the hook is told a connection's id; over other protocols an id is what it is."""
    client = FakeClient(session(1), session(2, "webrtc"))
    viewers = Viewers(fake_server(client))
    with fail_after(5):
        assert await viewers.kick_all([MediaSession("rtsp", "c1", "", "")]) == 1
        assert await viewers.kick_all([MediaSession("webrtc", "c2", "", "")]) == 0
    assert client.sessions == [session(2, "webrtc")]


async def test_a_session_that_is_being_ended_is_not_kicked_again(autojump_clock: trio.testing.MockClock) -> None:
    """By its connection's id, or its own: MediaMTX would write an error for what has gone meanwhile."""
    client = FakeClient(session(1), seconds=1)
    viewers = Viewers(fake_server(client))
    with fail_after(10):
        async with running(viewers.run):
            for name in ("s1", "c1", "s1"):
                viewers.kick("rtsp", name, is_half=name == "c1")
            await eventually(lambda: client.sessions == [])
            await trio.sleep(3)
    assert client.kicks == [("rtsp", "s1")]


async def test_without_mediamtx_there_are_no_viewers(autojump_clock: trio.testing.MockClock) -> None:
    """Its sessions ended with it: an empty list, nothing to kick, no error."""
    viewers = Viewers(fake_server(None))
    with fail_after(5):
        assert await viewers.list() == []
        assert await viewers.kick_all([session(1)]) == 0


async def test_the_list_is_what_mediamtx_lists(autojump_clock: trio.testing.MockClock) -> None:
    """Over every protocol."""
    viewers = Viewers(fake_server(FakeClient(session(1), session(2, "hls"))))
    assert await viewers.list() == [session(1), session(2, "hls")]


async def test_more_kicks_than_can_wait_are_left_to_the_sweep(autojump_clock: trio.testing.MockClock) -> None:
    """A flood of revocations neither fails nor fills the memory."""
    client = FakeClient(*(session(number, "hls") for number in range(QUEUE + 10)))
    viewers = Viewers(fake_server(client))
    for number in range(QUEUE + 10):
        viewers.kick("hls", f"s{number}")
    with fail_after(5):
        async with running(viewers.run):
            await eventually(lambda: len(client.kicks) == QUEUE)
            await trio.sleep(1)
    assert len(client.kicks) == QUEUE
