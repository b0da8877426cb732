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

from edged.children import Spawn
from edged.errors import DependencyFailed
from edged.mediamtx import causes, ffmpeg
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.figures import Figures, RateMeter
from edged.mediamtx.relay import Authorizer, Relay, open_relay
from edged.mediamtx.settings import USER
from edged.mediamtx.sources import CameraSource, picture_of, sets_key_frames
from edged.mediamtx.streams import publish_arguments

#: Seconds without a reader after which a camera on demand goes to sleep.
IDLE_SECONDS: Final = 10.0
#: Seconds between two looks at MediaMTX's paths while any ffmpeg runs.
LOOK_SECONDS: Final = 2.0
#: Seconds without a new byte after which a publisher is started again; at its start it has longer.
STALL_SECONDS: Final = 5.0
START_SECONDS: Final = 10.0
#: The same for a camera in the network, which ffmpeg itself gives up after 10 s without a byte; and while it looks at a
#: stream whose size its server does not tell. A slow camera has the time of some pictures at least.
NETWORK_SECONDS: Final = 12.0
ANALYSIS_SECONDS: Final = 35.0
STALL_PICTURES: Final = 3
#: Failures in a row after which a source that gave pictures counts as one that gives none.
_FAILURES_TOLD: Final = 2
#: Seconds to pause after the first failure; doubled with each, up to the longest; forgotten after so long a good run.
PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0
GOOD_RUN_SECONDS: Final = 10.0
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


def is_stalled(progress: Progress, now: float, least: float = 0.0) -> bool:
    """Whether this publisher should be started again. `now`: monotonic seconds, as in `progress`; `least`: seconds
    that this source may be silent in any case."""
    return now - progress.moved_at >= max(least, STALL_SECONDS if progress.moving else START_SECONDS)


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row (1 or more)."""
    return min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))


@dataclass(slots=True, eq=False)
class _Keeper:
    """One camera's publisher: what is wished of it, and what its task is doing."""

    source: CameraSource
    state: PublisherState = PublisherState("asleep")
    wanted_until: float = -math.inf
    failures: int = 0
    #: Set while its ffmpeg runs; what that says of its source.
    progress: Progress | None = None
    complaints: ffmpeg.Complaints = field(default_factory=ffmpeg.Complaints)
    meter: RateMeter = field(default_factory=RateMeter)
    #: Why it failed last; why its ffmpeg is being ended, where that counts as a failure.
    cause: Cause | None = None
    fault: Cause | None = None
    #: Its server does not say the size of the picture.
    needs_analysis: bool = False
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

    @property
    def figures(self) -> Figures:
        """Size and rate of what is passed on, as far as ffmpeg says them."""
        size = self.complaints.figures
        return Figures(size.width, size.height, self.meter.rate)

    @property
    def longest_silence(self) -> float:
        """Seconds that the source may be silent, whatever holds for others."""
        rate = self.source.rate or self.meter.rate
        silence = NETWORK_SECONDS if self.source.kind == "rtsp" else 0.0
        if self.needs_analysis or (self.source.kind == "usb" and sets_key_frames(self.source)):
            # MediaMTX counts nothing before the first key frame.
            silence = ANALYSIS_SECONDS
        return max(silence, STALL_PICTURES / rate if rate else 0.0)

    def begin_again(self) -> None:
        """The world changed: past failures mean nothing."""
        self.failures = 0
        self.pause.cancel()
        self.stir()


async def _measure(stream: trio.abc.ReceiveStream, meter: RateMeter) -> None:
    """Read ffmpeg's reports to their end: a full pipe would stop it."""
    while data := await stream.receive_some(4096):
        meter.feed(data)


async def _make_no_way(_name: str) -> None:
    """Nobody else holds cameras."""


class Publishers:
    """The publishers of all cameras. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: Spawn,
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
        conditions: Conditions | None = None,
    ) -> None:
        """`rtsp_address()` is MediaMTX's RTSP listener as `127.0.0.1:8554`, None while it is not ready;
        `make_way(name)` ends any other use that edged makes of a camera, before its ffmpeg opens it;
        `restarted()` counts each start that a failure made necessary; `intruded()` each connection of somebody else
        where only a publisher's ffmpeg has business; `unreachable()` says that MediaMTX took none; `folder` is for
        files that only we can read; `conditions` hears whether sources give a stream, and why not.
        """
        self.conditions = Conditions() if conditions is None else conditions
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

    def set_sources(self, sources: Iterable[CameraSource]) -> None:
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
            changed = picture_of(source) != picture_of(keeper.source)
            keeper.source = source
            if changed:
                keeper.cause, keeper.needs_analysis = None, False
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
            self.conditions.forgive(keeper.source.name, causes.SERVER)
            keeper.begin_again()

    def is_active(self, path: str) -> bool:
        """Whether this camera's ffmpeg runs or is about to: then a reader of MediaMTX's path gets a picture."""
        keeper = self._keepers.get(path)
        return keeper is not None and keeper.state.status in ("starting", "running")

    def is_trying(self, path: str) -> bool:
        """The same, or it failed and will be started again."""
        keeper = self._keepers.get(path)
        return keeper is not None and keeper.state.status in ("starting", "running", "pausing")

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
        cause = await self._publish(keeper, address)
        if cause is None:
            return
        name = keeper.source.name
        good = trio.current_time() - began >= GOOD_RUN_SECONDS
        keeper.failures = 1 if good else keeper.failures + 1
        if cause.slug == "codec" and not keeper.needs_analysis:
            keeper.needs_analysis = True
            return
        pause = pause_after(keeper.failures)
        _log.debug("failed", camera=name, why=cause.sentence, exact=cause.exact, again_in=pause)
        keeper.cause = cause
        keeper.state = replace(keeper.state, restarts=keeper.state.restarts + 1)
        self._restarted()
        self.conditions.restarted(name)
        if keeper.failures >= _FAILURES_TOLD or not self.conditions.find(name).works:
            self.conditions.fails(name, cause)
        self._enter(keeper, "pausing", str(cause))
        with trio.CancelScope(deadline=trio.current_time() + pause) as keeper.pause:
            await trio.sleep_forever()

    async def _publish(self, keeper: _Keeper, address: str) -> Cause | None:
        """Run ffmpeg until it ends or is ended; returns why that is a failure, None if it is none."""
        source = keeper.source
        name, path, by_network = source.name, source.path, source.kind == "rtsp"
        keeper.fault = None
        ended = False
        secret = self._new_secret(path, "publish", 1)
        keeper.complaints = ffmpeg.Complaints({secret, *ffmpeg.secrets_of(source.url or "")})
        keeper.meter = RateMeter()
        try:
            with trio.CancelScope() as keeper.attempt, ExitStack() as files:
                self._enter(keeper, "starting", keeper.state.detail)
                await self._make_way(name)
                relay = files.enter_context(self._open_relay(name, address, secret))
                keeper.complaints.hide(relay.address)
                arguments = self._prepare(keeper, f"rtsp://{relay.address}/{path}", files)
                child = self._spawn(arguments, stdout=by_network, stderr=True)
                async with child, relay.serving(child.pid), trio.open_nursery() as nursery:
                    self._enter(keeper, "starting", keeper.state.detail, child.pid)
                    keeper.progress = Progress(trio.current_time())
                    self._somebody_publishes.set()
                    if child.stdout is not None:
                        nursery.start_soon(_measure, child.stdout, keeper.meter)
                    assert child.stderr is not None, "asked for above"
                    # Its standard error ends when it does.
                    await keeper.complaints.drain(child.stderr)
                    code = await child.wait()
                    ended = True
                    nursery.cancel_scope.cancel()
        except NoPicture as failure:
            return failure.cause
        except DependencyFailed as error:
            return replace(causes.NO_FFMPEG, sentence=error.sentence, remedy=error.hint or causes.NO_FFMPEG.remedy)
        except OSError as error:
            return replace(causes.NO_FFMPEG, exact=f"ffmpeg could not be started: {error.strerror}")
        finally:
            keeper.progress = None
            self._drop_secret(secret)
        if not ended:
            return keeper.fault
        if relay.problem:
            return replace(causes.SERVER, exact=relay.problem)
        otherwise = causes.ENDED if by_network and code == 0 else replace(
            causes.UNKNOWN, exact=f"ffmpeg ended with code {code}"
        )  # fmt: skip
        return keeper.complaints.explain(otherwise, network=by_network)

    def _open_relay(self, name: str, address: str, secret: str) -> AbstractContextManager[Relay]:
        """What lets this camera's ffmpeg through to MediaMTX; each other user who tries is told once."""
        told: set[int | None] = set()

        def intrude(uid: int | None) -> None:
            self._intruded()
            if uid not in told:
                told.add(uid)
                _log.warning("intruder", camera=name, uid=uid, why="only this camera's ffmpeg may connect there")

        return open_relay(address, Authorizer(USER, secret), intruded=intrude, unreachable=self._unreachable)

    def _prepare(self, keeper: _Keeper, url: str, files: ExitStack) -> list[str]:
        source, playlist = keeper.source, ""
        if source.kind == "rtsp":
            last = keeper.cause.slug if keeper.cause else ""
            transport = ffmpeg.choose_transport(source.transport, keeper.failures, last)
            try:
                text = ffmpeg.make_playlist(source.url or "", transport=transport, patient=keeper.needs_analysis)
            except DependencyFailed as failure:
                raise NoPicture(source.name, replace(causes.BAD_ADDRESS, exact=str(failure))) from failure
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
        # MediaMTX counts a path's bytes from the first key frame on; what came before ffmpeg itself has counted.
        received = (path.bytes_received if path else 0) + keeper.meter.packets
        keeper.progress = follow_progress(keeper.progress, received, now)
        if keeper.progress.moving and keeper.state.status == "starting":
            self._enter(keeper, "running", "", keeper.state.pid)
        if keeper.progress.moved_at == now and keeper.progress.moving:
            self.conditions.works(keeper.source.name, "publisher", keeper.figures)
        if path and path.readers:
            keeper.wanted_until = now + IDLE_SECONDS
        if not keeper.is_wanted(now):
            keeper.attempt.cancel()
        elif is_stalled(keeper.progress, now, keeper.longest_silence):
            silence = f"no new byte reached MediaMTX for {now - keeper.progress.moved_at:.0f} s"
            never = causes.SILENT if keeper.source.kind == "rtsp" else causes.NO_PICTURES
            keeper.fault = replace(causes.STALLED if keeper.progress.moving else never, exact=silence)
            keeper.attempt.cancel()

    def _enter(self, keeper: _Keeper, status: Status, detail: str = "", pid: int | None = None) -> None:
        before = keeper.state.status
        keeper.state = PublisherState(status, detail, pid, keeper.state.restarts)
        if before != status:
            _log.debug("publisher", camera=keeper.source.name, status=status, pid=pid)
