"""One ffmpeg per camera, publishing to MediaMTX: always, or while somebody watches.

On demand MediaMTX holds the reader, and the question that it asks us before is the signal: `wake` notes the wish and
the camera's own task, next in line, starts ffmpeg. Nobody tells us that the last reader left, so MediaMTX's list of
paths is looked at while any ffmpeg runs, and only then. From the same list comes the judgement whether a publisher
lives: its bytes move. A process that is merely there proves nothing.

The address that ffmpeg publishes to stands in its argument list, for every local user to read. It is that of a relay
(relay.py), which lets in this ffmpeg alone and adds the password that MediaMTX wants; no argument list holds one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias

import structlog
import trio

from edged.errors import DependencyFailed
from edged.mediamtx import ffmpeg
from edged.mediamtx.relay import Authorizer, Relay, open_relay
from edged.mediamtx.settings import USER
from edged.mediamtx.sources import Source

#: Seconds without a reader after which a camera on demand goes to sleep.
IDLE_SECONDS: Final = 10.0
#: Seconds between two looks at MediaMTX's paths while any ffmpeg runs.
LOOK_SECONDS: Final = 2.0
#: Seconds without a new byte after which a publisher is started again; at its start it has longer.
STALL_SECONDS: Final = 5.0
START_SECONDS: Final = 10.0
#: Seconds to pause after the first failure; doubled with each, up to the longest; forgotten after so long a good run.
PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0
GOOD_RUN_SECONDS: Final = 10.0
#: Seconds between key frames: how long a new viewer waits for a picture at most.
KEY_FRAME_SECONDS: Final = 1.0
_MOST_WISHES: Final = 64
_log = structlog.get_logger("publisher")

Status: TypeAlias = Literal["asleep", "waiting", "starting", "running", "pausing"]


@dataclass(frozen=True, slots=True)
class PublisherState:
    """One camera's publisher: asleep (nobody watches), waiting (for MediaMTX), starting, running, or pausing
    after a failure. `detail` says why it last failed, and what to do; `restarts` counts its failures.
    """

    status: Status
    detail: str = ""
    pid: int | None = None
    restarts: int = 0


class SeenPath(Protocol):
    """What we look at in MediaMTX's list of paths."""

    @property
    def name(self) -> str: ...
    @property
    def readers(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...


class NewSecret(Protocol):
    """Makes a child's password for one action on one path, good for so many uses."""

    def __call__(self, path: str, action: str, uses: int | None, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a publisher came: bytes seen last, when they last grew (or it started), whether they ever did."""

    moved_at: float
    received: int = 0
    moving: bool = False


def follow_progress(progress: Progress, received: int, now: float) -> Progress:
    """After a look at the path. `received`: bytes so far; fewer than before is a new count, not a movement."""
    if received > progress.received:
        return Progress(now, received, moving=True)
    return replace(progress, received=received)


def is_stalled(progress: Progress, now: float) -> bool:
    """Whether this publisher should be started again. `now`: monotonic seconds, as in `progress`."""
    return now - progress.moved_at >= (STALL_SECONDS if progress.moving else START_SECONDS)


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row (1 or more)."""
    return min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))


def publish_arguments(source: Source, url: str, playlist: str = "") -> list[str]:
    """ffmpeg's arguments, without its name, that publish a camera to `url` over TCP.

    What comes as H264 is passed on as it is. An RTSP camera is read from the file `playlist` (ffmpeg.py says why).
    """
    if source.kind == "rtsp":
        picture = [*ffmpeg.read_playlist(playlist), "-map", "0:v:0", "-c:v", "copy"]
    elif source.kind == "test":
        picture = ffmpeg.read_test_picture(source, source.rate) + encode_arguments(source)
    else:
        passed_on = source.pixel_format == "H264"
        picture = ffmpeg.read_device(source, source.rate)
        picture += ["-c:v", "copy"] if passed_on else encode_arguments(source)
    # Packets that fit MediaMTX's own limit spare it the work of cutting them.
    return [*ffmpeg.QUIET, *picture, "-an", "-f", "rtsp", "-rtsp_transport", "tcp", "-pkt_size", "1440", url]


def encode_arguments(source: Source) -> list[str]:
    """Arguments that encode H264 with little delay: no B frames, a key frame each second."""
    encoder = source.encoder or "libx264"
    tuning = ("-preset", "ultrafast", "-tune", "zerolatency") if encoder == "libx264" else ("-bf", "0")
    rate = str(source.bitrate)
    limits = ("-maxrate", rate, "-bufsize", rate) if encoder == "libx264" else ()
    key_frames = str(max(1, round(source.rate * KEY_FRAME_SECONDS)))
    return ["-c:v", encoder, *tuning, "-pix_fmt", "yuv420p", "-b:v", rate, *limits, "-g", key_frames]


@dataclass(slots=True, eq=False)
class _Keeper:
    """One camera's publisher: what is wished of it, and what its task is doing."""

    source: Source
    state: PublisherState = PublisherState("asleep")
    wanted_until: float = -math.inf
    failures: int = 0
    #: Set while its ffmpeg runs.
    progress: Progress | None = None
    #: Why its ffmpeg is being ended, where that counts as a failure.
    fault: str = ""
    #: All of its task; one ffmpeg; a pause.
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    attempt: trio.CancelScope = field(default_factory=trio.CancelScope)
    pause: trio.CancelScope = field(default_factory=trio.CancelScope)
    _stirred: trio.Event = field(default_factory=trio.Event)

    def is_wanted(self, now: float) -> bool:
        return self.source.always_on or now < self.wanted_until

    def stir(self) -> None:
        self._stirred.set()

    async def sleep(self) -> None:
        self._stirred = trio.Event()
        await self._stirred.wait()

    def begin_again(self) -> None:
        """The world changed: past failures mean nothing."""
        self.failures = 0
        self.pause.cancel()
        self.stir()


async def _make_no_way(_name: str) -> None:
    """Nobody else holds cameras."""


class Publishers:
    """The publishers of all cameras. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: ffmpeg.Spawn,
        find_ffmpeg: ffmpeg.FindFfmpeg,
        rtsp_address: Callable[[], str | None],
        new_secret: NewSecret,
        drop_secret: Callable[[str], None],
        list_paths: Callable[[], Awaitable[Sequence[SeenPath]]],
        *,
        make_way: Callable[[str], Awaitable[None]] = _make_no_way,
        restarted: Callable[[], None] = lambda: None,
        intruded: Callable[[], None] = lambda: None,
        unreachable: Callable[[], None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        """`rtsp_address()` is MediaMTX's RTSP listener as `127.0.0.1:8554`, None while it is not ready;
        `make_way(name)` ends any other use that edged makes of a camera, before its ffmpeg opens it;
        `restarted()` counts each start that a failure made necessary; `intruded()` each connection of somebody else
        where only a publisher's ffmpeg has business; `unreachable()` says that MediaMTX took none; `folder` is for
        files that only we can read.
        """
        self._restarted = restarted
        self._intruded = intruded
        self._unreachable = unreachable
        self._folder = folder
        self._spawn = spawn
        self._find_ffmpeg = find_ffmpeg
        self._rtsp_address = rtsp_address
        self._new_secret = new_secret
        self._drop_secret = drop_secret
        self._list_paths = list_paths
        self._make_way = make_way
        self._keepers: dict[str, _Keeper] = {}
        #: Until when cameras are wanted that are not there.
        self._wishes: dict[str, float] = {}
        self._nursery: trio.Nursery | None = None
        self._somebody_publishes = trio.Event()

    @property
    def states(self) -> Mapping[str, PublisherState]:
        """Each present camera's publisher, by path, as it is now."""
        return MappingProxyType({name: keeper.state for name, keeper in self._keepers.items()})

    def set_sources(self, sources: Iterable[Source]) -> None:
        """From here on these are the cameras; one gone stops, one changed starts again. Returns at once."""
        wanted = {source.path: source for source in sources}
        for name in self._keepers.keys() - wanted.keys():
            self._keepers.pop(name).scope.cancel()
        for name, source in wanted.items():
            keeper = self._keepers.get(name)
            if keeper is None:
                self._keepers[name] = keeper = _Keeper(source, wanted_until=self._wishes.pop(name, -math.inf))
                self._start_keeping(keeper)
                continue
            changed = ffmpeg.picture_of(source) != ffmpeg.picture_of(keeper.source)
            keeper.source = source
            if changed:
                keeper.attempt.cancel()
                keeper.begin_again()
            keeper.stir()

    def wake(self, path: str) -> None:
        """Somebody is being let in to watch this: publish it, also if its camera is plugged in only while they wait.

        Returns at once.
        """
        now = trio.current_time()
        if keeper := self._keepers.get(path):
            keeper.wanted_until = now + IDLE_SECONDS
            keeper.stir()
            return
        self._wishes = {name: until for name, until in self._wishes.items() if until > now}
        if len(self._wishes) < _MOST_WISHES:
            self._wishes[path] = now + IDLE_SECONDS

    def nudge(self) -> None:
        """MediaMTX came or went: look at its address again, without any pause. Returns at once."""
        for keeper in self._keepers.values():
            keeper.begin_again()

    def is_active(self, path: str) -> bool:
        """Whether this camera's ffmpeg runs or is about to: then a reader of MediaMTX's path gets a picture."""
        keeper = self._keepers.get(path)
        return keeper is not None and keeper.state.status in ("starting", "running")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the publishers until cancelled; leaving ends every ffmpeg."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for keeper in self._keepers.values():
                    self._start_keeping(keeper)
                task_status.started()
                await self._look()
            finally:
                self._nursery = None

    def _start_keeping(self, keeper: _Keeper) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, keeper)

    async def _keep(self, keeper: _Keeper) -> None:
        with keeper.scope:
            while True:
                if not keeper.is_wanted(trio.current_time()):
                    self._enter(keeper, "asleep", keeper.state.detail)
                    await keeper.sleep()
                elif (address := self._rtsp_address()) is None:
                    self._enter(keeper, "waiting", "MediaMTX is not ready")
                    # `nudge` tells us sooner; the clock is for a wish that ends meanwhile.
                    with trio.move_on_after(IDLE_SECONDS):
                        await keeper.sleep()
                else:
                    await self._try(keeper, address)

    async def _try(self, keeper: _Keeper, address: str) -> None:
        """One ffmpeg from start to end, and the pause after a failure."""
        began = trio.current_time()
        problem = await self._publish(keeper, address)
        if not problem:
            return
        good = trio.current_time() - began >= GOOD_RUN_SECONDS
        keeper.failures = 1 if good else keeper.failures + 1
        pause = pause_after(keeper.failures)
        # Told once; a camera that stays broken does not fill the journal.
        tell = _log.debug if problem == keeper.state.detail and keeper.failures > 1 else _log.warning
        tell("failed", camera=keeper.source.name, why=problem, again_in=pause)
        keeper.state = replace(keeper.state, restarts=keeper.state.restarts + 1)
        self._restarted()
        self._enter(keeper, "pausing", problem)
        with trio.CancelScope(deadline=trio.current_time() + pause) as keeper.pause:
            await trio.sleep_forever()

    async def _publish(self, keeper: _Keeper, address: str) -> str:
        """Run ffmpeg until it ends or is ended; returns why that is a failure, "" if it is none."""
        name, path = keeper.source.name, keeper.source.path
        keeper.fault = ""
        ended = False
        secret = self._new_secret(path, "publish", 1)
        complaints = ffmpeg.Complaints({secret, *ffmpeg.secrets_of(keeper.source.url or "")})
        try:
            with trio.CancelScope() as keeper.attempt, ExitStack() as files:
                self._enter(keeper, "starting", keeper.state.detail)
                await self._make_way(name)
                relay = files.enter_context(self._open_relay(name, address, secret))
                complaints.hide(relay.address)
                arguments = self._prepare(keeper.source, f"rtsp://{relay.address}/{path}", files)
                async with self._spawn(arguments, stdout=False, stderr=True) as child, relay.serving(child.pid):
                    self._enter(keeper, "starting", keeper.state.detail, child.pid)
                    keeper.progress = Progress(trio.current_time())
                    self._somebody_publishes.set()
                    assert child.stderr is not None, "asked for above"
                    # Its standard error ends when it does.
                    await complaints.drain(child.stderr)
                    code = await child.wait()
                    ended = True
        except DependencyFailed as error:
            return str(error)
        except OSError as error:
            return f"ffmpeg could not be started: {error.strerror}"
        finally:
            keeper.progress = None
            self._drop_secret(secret)
        if ended:
            return relay.problem or complaints.explain() or f"ffmpeg ended with code {code}"
        return keeper.fault

    def _open_relay(self, name: str, address: str, secret: str) -> AbstractContextManager[Relay]:
        """What lets this camera's ffmpeg through to MediaMTX; each other user who tries is told once."""
        told: set[int | None] = set()

        def intrude(uid: int | None) -> None:
            self._intruded()
            if uid not in told:
                told.add(uid)
                _log.warning("intruder", camera=name, uid=uid, why="only this camera's ffmpeg may connect there")

        return open_relay(address, Authorizer(USER, secret), intruded=intrude, unreachable=self._unreachable)

    def _prepare(self, source: Source, url: str, files: ExitStack) -> list[str]:
        playlist = ""
        if source.kind == "rtsp":
            text = ffmpeg.make_playlist(source.url or "", at_once=False)
            playlist = files.enter_context(ffmpeg.private_file(text.encode(), ".ffconcat", self._folder))
        return [self._find_ffmpeg(), *publish_arguments(source, url, playlist)]

    async def _look(self) -> None:
        """While any ffmpeg runs, look at MediaMTX's paths: who is watched, and whose bytes move."""
        while True:
            if not any(keeper.progress for keeper in self._keepers.values()):
                self._somebody_publishes = trio.Event()
                await self._somebody_publishes.wait()
            await trio.sleep(LOOK_SECONDS)
            try:
                seen = {path.name: path for path in await self._list_paths()}
            except DependencyFailed:
                # Nothing is known; that is MediaMTX's fault and no publisher's.
                seen = None
            for keeper in tuple(self._keepers.values()):
                self._judge(keeper, seen, trio.current_time())

    def _judge(self, keeper: _Keeper, seen: Mapping[str, SeenPath] | None, now: float) -> None:
        if keeper.progress is None:
            return
        if seen is None:
            keeper.progress = replace(keeper.progress, moved_at=now)
            return
        path = seen.get(keeper.source.path)
        keeper.progress = follow_progress(keeper.progress, path.bytes_received if path else 0, now)
        if keeper.progress.moving and keeper.state.status == "starting":
            self._enter(keeper, "running", "", keeper.state.pid)
        if path and path.readers:
            keeper.wanted_until = now + IDLE_SECONDS
        if not keeper.is_wanted(now):
            keeper.attempt.cancel()
        elif is_stalled(keeper.progress, now):
            keeper.fault = f"no new byte reached MediaMTX for {now - keeper.progress.moved_at:.0f} s"
            keeper.attempt.cancel()

    def _enter(self, keeper: _Keeper, status: Status, detail: str = "", pid: int | None = None) -> None:
        before = keeper.state.status
        keeper.state = PublisherState(status, detail, pid, keeper.state.restarts)
        if before != status:
            _log.debug("publisher", camera=keeper.source.name, status=status, pid=pid)
