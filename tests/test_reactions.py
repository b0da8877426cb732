"""reactions/: what follows a change, with what the packages need made by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog
import structlog.testing
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import named
from msgspec.structs import replace

from edged.access.admissions import Admissions, Ended
from edged.clock import Clock
from edged.credentials.callers import Caller
from edged.errors import DependencyFailed, StoreFailed
from edged.feeds import Feed
from edged.mediamtx.client import MediaSession
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.server_state import ServerState
from edged.mediamtx.viewers import Viewers
from edged.reactions import clock_upkeep, mediamtx, revocations

CALLER = Caller("api_key", "key:1", frozenset(), frozenset(), identities=frozenset({named("key:1")}))


@dataclass
class Server:
    """What stands for MediaMTX's lists: sessions that are there until they are kicked."""

    sessions: list[MediaSession] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    kicked: list[str] = field(default_factory=list)
    fails: bool = False

    async def list(self) -> list[MediaSession]:
        await trio.lowlevel.checkpoint()
        self.looks.append(round(trio.current_time(), 3))
        if self.fails:
            raise DependencyFailed("MediaMTX does not answer")
        return [*self.sessions]

    async def kick_all(self, sessions: Iterable[MediaSession]) -> int:
        gone = {session.id for session in sessions}
        self.kicked += sorted(gone)
        self.sessions = [session for session in self.sessions if session.id not in gone]
        return len(gone)

    @property
    def viewers(self) -> Viewers:
        return cast("Viewers", self)


def session(name: str, protocol: str = "rtsp", connections: tuple[str, ...] = ()) -> MediaSession:
    return MediaSession(protocol=protocol, id=name, path="camera0", state="read", connections=connections)


def stay(_cause: str, _by: str) -> None:
    """An ending that nobody needs in these tests."""


async def test_a_listed_session_without_an_admission_is_kicked() -> None:
    """Known sessions stay, also those known by their connection; all others go."""
    admissions, server = (
        Admissions(),
        Server([session("mine"), session("old", connections=("c1",)), session("stranger")]),
    )
    admissions.add(CALLER, "rtsp", stay, session="mine", seconds_left=None)
    admissions.add(CALLER, "rtsp", stay, session="c1", seconds_left=None)
    assert await revocations.sweep(admissions, server.viewers) == 1
    assert server.kicked == ["stranger"]


async def test_an_id_of_another_protocol_is_no_right() -> None:
    """An admission over HLS says nothing of an RTSP session of the same id."""
    admissions, server = Admissions(), Server([session("same")])
    admissions.add(CALLER, "hls", stay, session="same", seconds_left=None)
    assert await revocations.sweep(admissions, server.viewers) == 1


async def test_a_session_that_has_not_asked_yet_is_not_kicked(autojump_clock: trio.testing.MockClock) -> None:
    """MediaMTX lists who has connected before it asks whether they may: a sweep meanwhile ends nobody who may, however
    slow their line is; who stays idle for longer than MediaMTX waits is out, and who watches unasked at once."""
    admissions, idle = Admissions(), dict[tuple[str, str], float]()
    server = Server([replace(session(name, "rtmp"), state="idle") for name in ("slow", "never", "sly")])
    for _ in range(9):
        assert await revocations.sweep(admissions, server.viewers, idle) == 0
        await trio.sleep(1)
    admissions.add(CALLER, "rtmp", stay, session="slow", seconds_left=None)
    server.sessions = [each if each.id == "never" else session(each.id, "rtmp") for each in server.sessions]
    assert await revocations.sweep(admissions, server.viewers, idle) == 1
    await trio.sleep(1)
    assert await revocations.sweep(admissions, server.viewers, idle) == 1
    assert server.kicked == ["sly", "never"]


async def test_a_session_that_is_admitted_during_a_sweep_is_not_kicked(autojump_clock: trio.testing.MockClock) -> None:
    """A WebRTC session is listed as one that reads while MediaMTX's question is on its way."""
    admissions, server = Admissions(), Server([session("new", "webrtc"), session("stranger", "webrtc")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(revocations.sweep, admissions, server.viewers)
        await trio.sleep(0.1)
        admissions.add(CALLER, "webrtc", stay, session="new", seconds_left=None)
    assert server.kicked == ["stranger"]


async def test_a_sweep_of_a_server_that_does_not_answer_is_told_and_survived(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The next sweep looks again, and nobody is forgotten meanwhile."""
    admissions, server, feed = Admissions(), Server([session("stranger")], fails=True), Feed[Ended]()
    with feed.subscribe() as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(revocations.follow, reader, admissions, server.viewers, trio.current_time)
            feed.publish(Ended(frozenset({named("key:1")}), trio.current_time()))
            await trio.sleep(2)
            server.fails = False
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
    assert server.kicked == ["stranger"]


async def test_sweeps_follow_a_revocation_at_their_times(autojump_clock: trio.testing.MockClock) -> None:
    """0.3 s after it and each second until the twelfth, then only now and then."""
    admissions, server, feed = Admissions(), Server(), Feed[Ended]()
    with feed.subscribe() as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(revocations.follow, reader, admissions, server.viewers, trio.current_time)
            await trio.sleep(5)
            began = trio.current_time()
            feed.publish(Ended(frozenset({named("key:1")}), began))
            await trio.sleep(29)
            nursery.cancel_scope.cancel()
    assert [round(look - began, 2) for look in server.looks] == [0.3, *range(1, 13)]


async def test_without_revocations_the_lists_are_read_each_30_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """Every half minute: what was admitted while nobody watched does not stay for ever."""
    admissions, server, feed = Admissions(), Server([session("stranger")]), Feed[Ended]()
    with feed.subscribe() as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(revocations.follow, reader, admissions, server.viewers, trio.current_time)
            await trio.sleep(65)
            nursery.cancel_scope.cancel()
    # Where there was somebody to kick it looked once more.
    assert len(server.looks) == 3
    assert server.kicked == ["stranger"]


@given(st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=8))
def test_every_revocation_is_followed_by_all_its_sweeps(times: list[float]) -> None:
    """However they come one after another, 12 s after the last one everything was looked at."""

    async def run() -> None:
        admissions, server, feed = Admissions(), Server(), Feed[Ended]()
        with feed.subscribe(2) as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(revocations.follow, reader, admissions, server.viewers, trio.current_time)
                for pause in times:
                    await trio.sleep(pause)
                    feed.publish(Ended(frozenset({named("key:1")}), trio.current_time()))
                last = trio.current_time()
                await trio.sleep(12.1)
                nursery.cancel_scope.cancel()
        assert any(look >= last + 11.9 for look in server.looks)
        assert any(last <= look <= last + 0.5 for look in server.looks)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_reader_that_lost_revocations_sweeps_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """Told that it lagged, it looks as after any revocation."""
    admissions, server, feed = Admissions(), Server([session("stranger")]), Feed[Ended]()
    with feed.subscribe(1) as reader:
        for _ in range(3):
            feed.publish(Ended(frozenset({named("key:1")}), trio.current_time()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(revocations.follow, reader, admissions, server.viewers, trio.current_time)
            await trio.sleep(0.6)
            nursery.cancel_scope.cancel()
    assert server.kicked == ["stranger"]


@dataclass
class Told:
    """What stands for the publishers."""

    nudges: int = 0

    def nudge(self) -> None:
        self.nudges += 1


async def test_the_publishers_hear_of_every_change_and_restarts_are_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Ready for the second time is one restart, however many states lay between."""
    feed, told, counted = Feed[ServerState](), Told(), list[Any]()
    with feed.subscribe(4) as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mediamtx.follow, reader, cast("Publishers", told), counted.append)
            for status in ("starting", "ready", "waiting", "ready"):
                feed.publish(ServerState(status))
                await trio.sleep(1)
            for _ in range(6):
                feed.publish(ServerState("unhealthy"))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert counted == ["mediamtx"]
    assert told.nudges >= 5


@dataclass
class Disk:
    """Where marks go."""

    marks: list[float] = field(default_factory=list)
    replaced: list[float] = field(default_factory=list)
    fails: bool = False
    seconds: float = 0.0

    async def save(self, mark: float) -> None:
        await trio.sleep(self.seconds)
        self.marks.append(mark)

    async def replace(self, mark: float) -> None:
        await trio.sleep(self.seconds)
        if self.fails:
            raise StoreFailed("database trust: disk full")
        self.replaced.append(mark)


@dataclass
class Box:
    """A box whose system clock goes with trio's, and can be set."""

    offset: float = 0.0
    synchronized: bool = False

    def clock(self, mark: float = 1000.0) -> Clock:
        return Clock(
            lambda: mark, system=lambda: trio.current_time() + self.offset, synchronized=lambda: self.synchronized
        )


async def test_the_clocks_mark_is_kept_every_quarter_of_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    """It rises with the time that passed; the first minute, in which a start may fail, writes nothing."""
    disk, clock = Disk(), Box(-trio.current_time()).clock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock_upkeep.Mark(clock, disk.save, disk.replace).keep)
        await trio.sleep(3601)
        nursery.cancel_scope.cancel()
    assert disk.marks == [pytest.approx(1060 + 900 * turn, abs=2) for turn in range(4)]


async def test_however_often_the_clock_leaps_the_mark_is_written_six_times_an_hour_at_most(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A time server that goes on and on into the future wears out no card; and no leap waits for longer than that."""
    box, disk = Box(1e6, synchronized=True), Disk()
    clock = box.clock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock_upkeep.Mark(clock, disk.save, disk.replace).keep)
        written = []
        for _ in range(10 * 3600 // 30):
            box.offset += 3600.0
            await trio.sleep(30)
            written.append(len(disk.marks))
            assert len(disk.marks) < 21 or disk.marks[-1] >= clock.high_water() - 21 * 3630
        nursery.cancel_scope.cancel()
    hour = 3600 // 30
    assert max(after - before for before, after in zip(written, written[hour:], strict=False)) <= 6


async def test_a_reset_is_on_disk_before_it_is_in_force(autojump_clock: trio.testing.MockClock) -> None:
    """It makes what had expired good again: such things are durable first; a disk that fails changes nothing."""
    box, disk = Box(5000.0 - trio.current_time()), Disk(fails=True)
    clock = box.clock(9000.0)
    mark = clock_upkeep.Mark(clock, disk.save, disk.replace)
    with pytest.raises(StoreFailed):
        await mark.reset()
    assert clock.now() == pytest.approx(9000.0, abs=1)
    disk.fails, disk.seconds = False, 2.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mark.reset)
        await trio.sleep(1)
        assert clock.now() == pytest.approx(9001.0, abs=1)
        await trio.sleep(1.5)
        assert clock.now() == pytest.approx(5002.5, abs=1)
    assert disk.replaced == [pytest.approx(5000.0, abs=1)]


async def test_a_reset_is_completed_when_its_caller_hangs_up(autojump_clock: trio.testing.MockClock) -> None:
    """Disk and memory never differ; and a mark of before is not written behind it."""
    disk = Disk(seconds=2.0)
    clock = Box(5000.0 - trio.current_time()).clock(9000.0)
    mark = clock_upkeep.Mark(clock, disk.save, disk.replace)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(mark.save)
            await trio.testing.wait_all_tasks_blocked()
            await mark.reset()
        await mark.save()
    assert clock.now() == pytest.approx(5006, abs=1)
    assert disk.marks == [pytest.approx(9000, abs=1), pytest.approx(5004, abs=1)]


async def test_deadlines_follow_a_correction_and_no_jump(autojump_clock: trio.testing.MockClock) -> None:
    """A token's stream ends by the corrected clock: sooner, later, or at once; an unsynchronised jump moves nothing."""
    box, left = Box(5000.0 - trio.current_time(), synchronized=True), []
    clock, admissions = box.clock(), Admissions()

    def remaining(caller: Caller) -> float | None:
        return None if caller.expires is None else max(0.0, caller.expires - clock.now())

    def leave(name: str) -> Callable[[str, str], None]:
        return lambda _cause, _by: left.append((name, round(clock.now() / 100) * 100))

    for name, expires in (("soon", 6000.0), ("late", 9000.0), ("never", None)):
        caller = Caller("jwt_local", name, frozenset(), frozenset(), expires=expires)
        admissions.add(caller, "rtsp", leave(name), seconds_left=remaining(caller))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admissions.run)
        nursery.start_soon(clock_upkeep.watch_clock, clock, lambda: admissions.recompute(remaining))
        await trio.sleep(10)
        box.synchronized, box.offset = False, box.offset + 1e9
        await trio.sleep(10)
        assert left == []
        box.synchronized, box.offset = True, box.offset - 1e9 + 2000
        await trio.sleep(2)
        assert left == [("soon", 7000)]
        await trio.sleep(1900)
        assert len(left) == 1
        await trio.sleep(100)
        assert left == [("soon", 7000), ("late", 9000)]
        assert len(admissions) == 1
        nursery.cancel_scope.cancel()


def test_a_jump_is_logged_and_counted_by_its_direction() -> None:
    """Whoever looks for why something expired finds when the clock was set, and by how much."""
    counted: list[str] = []
    published: list[float] = []
    with structlog.testing.capture_logs() as told:
        for seconds in (2.26e9, -3600.04):
            clock_upkeep.note_jump(counted.append, published.append, seconds)
    assert counted == ["forward", "backward"]
    assert published == [2.26e9, -3600.04]
    assert [line["seconds"] for line in told] == [2.26e9, -3600.0]


async def test_the_log_says_what_has_become_of_the_clock(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for each state; behind its mark it says what root can do about it."""
    box = Box(5000.0 - trio.current_time())
    with structlog.testing.capture_logs() as told:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock_upkeep.watch_clock, box.clock(), lambda: None)
            for synchronized, offset in ((False, 0.0), (True, 5000.0), (True, -5000.0)):
                box.synchronized, box.offset = synchronized, box.offset + offset
                await trio.sleep(5)
            nursery.cancel_scope.cancel()
    states = [
        (line["synchronized"], line["trusted"], line["log_level"]) for line in told if line["event"] == "clock_state"
    ]
    assert states == [(False, False, "info"), (True, True, "info"), (True, False, "warning")]
    assert "edged clock reset" in told[-1]["remedy"]
