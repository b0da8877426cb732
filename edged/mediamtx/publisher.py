"""One ffmpeg per camera, publishing to MediaMTX: always, or while somebody watches.

On demand, MediaMTX holds the reader and asks edged whether it may read; an allowed question calls `wake`, and the
camera's task starts ffmpeg. MediaMTX does not report that the last reader left, so its list of paths is read every two
seconds while any ffmpeg runs. The same list shows whether the bytes of a publisher move (progress.py).

The address that ffmpeg publishes to is in its argument list, which every local user can read. It is that of a relay
(relay.py), which accepts this ffmpeg alone and adds the password for MediaMTX; no argument list holds a password.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from edged.children import Spawn, is_stopped
from edged.errors import DependencyFailed
from edged.mediamtx import causes, ffmpeg
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.client import PathState
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.feeding import Feed, open_feed
from edged.mediamtx.figures import RateMeter
from edged.mediamtx.progress import Progress, follow_progress, is_stalled
from edged.mediamtx.published_camera import PublishedCamera, PublisherState, PublisherStatus
from edged.mediamtx.pushed import ARRIVAL_SECONDS, find_fault
from edged.mediamtx.pushed import follow as follow_pushed
from edged.mediamtx.relay import Authorizer, Relay, open_relay
from edged.mediamtx.secrets import DropSecret, NewSecret
from edged.mediamtx.settings import USER
from edged.mediamtx.sources import CameraSource, kind_of, picture_of
from edged.mediamtx.streams import publish_arguments

#: Seconds without a reader after which a camera on demand goes to sleep.
IDLE_SECONDS: Final = 10.0
#: Seconds between two readings of MediaMTX's paths while any ffmpeg runs.
LOOK_SECONDS: Final = 2.0
#: Failures in a row after which a source that gave pictures counts as one that gives none.
_FAILURES_TOLD: Final = 2
_MOST_WISHES: Final = 64
_log = structlog.get_logger("publisher")


async def _measure(stream: trio.abc.ReceiveStream, meter: RateMeter) -> None:
    """Read ffmpeg's reports to their end: a full pipe would stop it."""
    while data := await stream.receive_some(4096):
        meter.feed(data)


async def _nothing_to_release(_name: str) -> None:
    """Where no other part of edged opens cameras."""


class Publishers:
    """The publishers of all cameras. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: Spawn,
        find_ffmpeg: ffmpeg.FindFfmpeg,
        rtsp_address: Callable[[], str | None],
        new_secret: NewSecret,
        drop_secret: DropSecret,
        list_paths: Callable[[], Awaitable[Sequence[PathState]]],
        *,
        release_device: Callable[[str], Awaitable[None]] = _nothing_to_release,
        restarted: Callable[[], None] = lambda: None,
        intruded: Callable[[], None] = lambda: None,
        unreachable: Callable[[], None] = lambda: None,
        folder: Path | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        """`rtsp_address()` is MediaMTX's RTSP listener as `127.0.0.1:8554`, None while it is not ready;
        `release_device(name)` ends any other use that edged makes of a camera, before its ffmpeg opens it;
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
        self._release_device = release_device
        self._cameras: dict[str, PublishedCamera] = {}
        #: Until when cameras are wanted that are not there.
        self._wishes: dict[str, float] = {}
        self._nursery: trio.Nursery | None = None
        self._somebody_publishes = trio.Event()

    @property
    def states(self) -> Mapping[str, PublisherState]:
        """Each present camera's publisher, by path, as it is now."""
        return MappingProxyType({name: camera.state for name, camera in self._cameras.items()})

    def set_sources(self, sources: Iterable[CameraSource]) -> None:
        """These are the cameras now: one that is missing stops, one that has changed starts again. Returns at once."""
        wanted = {source.path: source for source in sources}
        for name in self._cameras.keys() - wanted.keys():
            self._cameras.pop(name).scope.cancel()
        for name, source in wanted.items():
            camera = self._cameras.get(name)
            if camera is None:
                self._cameras[name] = camera = PublishedCamera(source, wanted_until=self._wishes.pop(name, -math.inf))
                self._start_task(camera)
                continue
            changed = picture_of(source) != picture_of(camera.source)
            camera.source = source
            if changed:
                camera.cause, camera.needs_analysis = None, False
                camera.attempt.cancel()
                camera.begin_again()
            camera.stir()

    def wake(self, path: str) -> None:
        """A reader is being admitted: publish this path, also if its camera is plugged in only while the reader waits.

        Returns at once.
        """
        now = trio.current_time()
        if camera := self._cameras.get(path):
            camera.wanted_until = now + IDLE_SECONDS
            if kind_of(camera.source).is_read_by_mediamtx:
                camera.let_in_at = now
            camera.stir()
            return
        self._wishes = {name: until for name, until in self._wishes.items() if until > now}
        if len(self._wishes) < _MOST_WISHES:
            self._wishes[path] = now + IDLE_SECONDS

    def expect(self, path: str) -> None:
        """Somebody is being let in who publishes to this path: look whether a stream comes. Returns at once."""
        if (camera := self._cameras.get(path)) is not None and kind_of(camera.source).is_pushed:
            camera.let_in_at = trio.current_time()
            camera.stir()

    def nudge(self) -> None:
        """MediaMTX has started or ended: use its address now, without any pause. Returns at once."""
        for camera in self._cameras.values():
            self.conditions.forgive(camera.source.name, causes.SERVER)
            camera.begin_again()

    def is_active(self, path: str) -> bool:
        """Whether this camera's ffmpeg runs or is about to: then a reader of MediaMTX's path gets a picture."""
        camera = self._cameras.get(path)
        return camera is not None and camera.state.status in ("starting", "running")

    def is_trying(self, path: str) -> bool:
        """The same, or it failed and will be started again."""
        camera = self._cameras.get(path)
        return camera is not None and camera.state.status in ("starting", "running", "pausing")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the publishers until cancelled; leaving ends every ffmpeg."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for camera in self._cameras.values():
                    self._start_task(camera)
                task_status.started()
                await self._look()
            finally:
                self._nursery = None

    def _start_task(self, camera: PublishedCamera) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._publish_when_wanted, camera)

    async def _publish_when_wanted(self, camera: PublishedCamera) -> None:
        with camera.scope:
            while True:
                if kind_of(camera.source).is_pushed:
                    await self._follow_pushed(camera)
                elif not camera.is_wanted(trio.current_time()):
                    self._enter(camera, "asleep", camera.state.detail)
                    await camera.sleep()
                elif (address := self._rtsp_address()) is None:
                    self._enter(camera, "waiting", "MediaMTX is not ready")
                    # `nudge` tells us sooner; the clock is for a wish that ends meanwhile.
                    with trio.move_on_after(IDLE_SECONDS):
                        await camera.sleep()
                else:
                    await self._try(camera, address)

    async def _follow_pushed(self, camera: PublishedCamera) -> None:
        """Somebody else publishes it, or will: until they do, or do not any more."""
        fault = kind_of(camera.source).find_idle_fault(camera.source)
        is_let_in = trio.current_time() - camera.let_in_at < ARRIVAL_SECONDS
        if not is_let_in and (fault is not None or not camera.source.always_on):
            if fault is not None:
                self.conditions.fails(camera.source.name, fault)
            self._enter(camera, "waiting", str(fault or ""))
            await camera.sleep()
            return
        with trio.CancelScope() as camera.attempt:
            camera.progress = Progress(trio.current_time())
            self._somebody_publishes.set()
            await trio.sleep_forever()
        camera.progress = None

    async def _try(self, camera: PublishedCamera, address: str) -> None:
        """One ffmpeg from start to end, and the pause after a failure."""
        camera.publishes_since = math.inf
        cause = await self._publish(camera, address)
        if cause is None:
            return
        name = camera.source.name
        pause = camera.ends.note(trio.current_time() - camera.publishes_since)
        if cause.slug == "codec" and not camera.needs_analysis:
            camera.needs_analysis = True
            return
        _log.debug("publisher_failed", camera=name, why=cause.sentence, exact=cause.exact, again_in=pause)
        camera.cause = cause
        camera.state = replace(camera.state, restarts=camera.state.restarts + 1)
        self._restarted()
        self.conditions.restarted(name)
        # Of an ffmpeg that stood still the next one may be better; a source that does gives no picture.
        is_told = (
            kind_of(camera.source).by_network and cause.slug == causes.STALLED.slug
        ) or camera.ends.failures >= _FAILURES_TOLD
        if is_told or not self.conditions.find(name).works:
            self.conditions.fails(name, cause)
        self._enter(camera, "pausing", str(cause))
        with trio.CancelScope(deadline=trio.current_time() + pause) as camera.pause:
            await trio.sleep_forever()

    async def _publish(self, camera: PublishedCamera, address: str) -> Cause | None:
        """Run ffmpeg until it ends or is ended; returns why that is a failure, None if it is none."""
        source = camera.source
        name, path, by_network = source.name, source.path, kind_of(source).by_network
        camera.fault = None
        ended = False
        secret = self._new_secret(path, "publish", 1)
        camera.complaints = ffmpeg.Complaints(
            {secret, *ffmpeg.secrets_of(source.url or "")}, may_redirect=not source.is_pinned
        )
        camera.meter = RateMeter()
        try:
            with trio.CancelScope() as camera.attempt, ExitStack() as files:
                self._enter(camera, "starting", camera.state.detail)
                await self._release_device(name)
                relay = files.enter_context(self._open_relay(camera, address, secret))
                camera.complaints.hide(relay.address)
                arguments = self._prepare(camera, f"rtsp://{relay.address}/{path}", files)
                feed = files.enter_context(open_feed()) if kind_of(source).is_fed else None
                child = (
                    self._spawn(arguments, stdout=by_network, stderr=True) if feed is None
                    else self._spawn(arguments, stdin=feed.reading, stdout=by_network, stderr=True)
                )  # fmt: skip
                async with child, relay.serving(child.pid), trio.open_nursery() as nursery:
                    self._enter(camera, "starting", camera.state.detail, child.pid)
                    camera.progress = Progress(trio.current_time())
                    self._somebody_publishes.set()
                    if child.stdout is not None:
                        nursery.start_soon(_measure, child.stdout, camera.meter)
                    if feed is not None:
                        nursery.start_soon(self._feed, camera, feed)
                    # Its standard error ends when it does.
                    await camera.complaints.drain(child)
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
            camera.progress = None
            self._drop_secret(secret)
        if not ended:
            return camera.fault
        if relay.problem:
            return replace(causes.SERVER, exact=relay.problem)
        otherwise = causes.ENDED if by_network and code == 0 else replace(
            causes.UNKNOWN, exact=f"ffmpeg ended with code {code}"
        )  # fmt: skip
        return camera.complaints.explain(otherwise, network=by_network)

    async def _feed(self, camera: PublishedCamera, feed: Feed) -> None:
        """Hand its pictures to the ffmpeg that makes the stream of them, until there are no more."""
        async with feed.writing():
            try:
                await kind_of(camera.source).read_jpegs(camera.source, feed.put, lambda: None)
            except NoPicture as failure:
                camera.fault = failure.cause
        camera.attempt.cancel()

    def _open_relay(self, camera: PublishedCamera, address: str, secret: str) -> AbstractContextManager[Relay]:
        """What lets this camera's ffmpeg through to MediaMTX; each other user who tries is told once."""
        told: set[int | None] = set()
        name = camera.source.name

        def intrude(uid: int | None) -> None:
            self._intruded()
            if uid not in told:
                told.add(uid)
                _log.warning("connection_refused", camera=name, uid=uid, why="it is not this camera's ffmpeg")

        return open_relay(
            address, Authorizer(USER, secret), published=camera.note_media, intruded=intrude,
            unreachable=self._unreachable,
        )  # fmt: skip

    def _prepare(self, camera: PublishedCamera, url: str, files: ExitStack) -> list[str]:
        source, playlist, last = camera.source, "", camera.cause.slug if camera.cause else ""
        try:
            text = kind_of(source).playlist(source, camera.ends.failures, last, patient=camera.needs_analysis)
        except DependencyFailed as failure:
            raise NoPicture(source.name, replace(causes.BAD_ADDRESS, exact=str(failure))) from failure
        if text:
            playlist = files.enter_context(ffmpeg.private_file(text.encode(), ".ffconcat", self._folder))
        return [self._find_ffmpeg(), *publish_arguments(source, url, playlist)]

    async def _look(self) -> None:
        """While any ffmpeg runs, read MediaMTX's paths: which have readers, and whose bytes move."""
        while True:
            if not any(camera.progress for camera in self._cameras.values()):
                self._somebody_publishes = trio.Event()
                await self._somebody_publishes.wait()
            await trio.sleep(LOOK_SECONDS)
            try:
                seen = {path.name: path for path in await self._list_paths()}
            except DependencyFailed:
                # Nothing is known: no publisher is judged by it.
                seen = None
            for camera in tuple(self._cameras.values()):
                self._judge(camera, seen, trio.current_time())

    def _judge(self, camera: PublishedCamera, seen: Mapping[str, PathState] | None, now: float) -> None:
        if camera.progress is None:
            return
        if seen is None:
            camera.progress = replace(camera.progress, moved_at=now)
            return
        path = seen.get(camera.source.path)
        if kind_of(camera.source).is_pushed:
            self._judge_pushed(camera, path, now)
            return
        # MediaMTX counts a path's bytes from the first key frame on; what came before ffmpeg itself has counted.
        received = (path.bytes_received if path else 0) + camera.meter.packets
        camera.progress = follow_progress(camera.progress, received, now)
        if camera.progress.moving and camera.state.status == "starting":
            self._enter(camera, "running", "", camera.state.pid)
        if camera.progress.moved_at == now and camera.progress.moving:
            self.conditions.works(camera.source.name, "publisher", camera.figures)
        if path and path.readers:
            camera.wanted_until = now + IDLE_SECONDS
        if not camera.is_wanted(now):
            camera.attempt.cancel()
        elif is_stalled(camera.progress, now, camera.longest_silence):
            silence = f"no new byte reached MediaMTX for {now - camera.progress.moved_at:.0f} s"
            never = kind_of(camera.source).never
            camera.fault = replace(causes.STALLED if camera.progress.moving else never, exact=silence)
            camera.attempt.cancel()
        elif camera.progress.moved_at < now and camera.state.pid is not None and is_stopped(camera.state.pid):
            # A network camera may be silent for longer, its ffmpeg not.
            camera.fault = replace(causes.STALLED, exact="its ffmpeg was stopped by a signal")
            camera.attempt.cancel()
        elif camera.progress.moving and camera.stands_still(now):
            # Its ffmpeg goes on for a while; who watches is told.
            self.conditions.fails(camera.source.name, causes.STALLED)

    def _judge_pushed(self, camera: PublishedCamera, path: PathState | None, now: float) -> None:
        assert camera.progress is not None, "it is followed"
        name, is_there = camera.source.name, path is not None and path.ready
        camera.progress, kind = follow_pushed(path, camera.progress, now), kind_of(camera.source)
        if not is_there and now - camera.let_in_at < kind.arrival:
            return
        if fault := find_fault(path, camera.progress, camera.longest_silence, now, kind.never):
            self._enter(camera, "running" if is_there else "waiting", str(fault))
            self.conditions.fails(name, fault)
            if not is_there and now - camera.let_in_at >= ARRIVAL_SECONDS:
                camera.attempt.cancel()
        elif path is not None and camera.progress.moving and camera.progress.moved_at == now:
            self._enter(camera, "running")
            self.conditions.works(name, "publisher", path.figures)

    def _enter(
        self, camera: PublishedCamera, status: PublisherStatus, detail: str = "", pid: int | None = None
    ) -> None:
        before = camera.state.status
        camera.state = PublisherState(status, detail, pid, camera.state.restarts)
        if before != status:
            _log.debug("publisher_state", camera=camera.source.name, status=status, pid=pid)
