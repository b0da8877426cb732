"""Pictures of a camera as JPEGs: one now, or one after the other, from one ffmpeg per camera however many look.

They come from MediaMTX's path while that is up, and straight from the source while not. What runs is begun by the
first who looks and ends shortly after the last. Only the latest picture is kept: who reads slowly misses some and
holds up nobody. When the source ends, it is chosen anew.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from edged.children import Spawn
from edged.config.sources import RtspTransport
from edged.errors import DependencyFailed
from edged.mediamtx import causes, ffmpeg
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.pictures import PICTURE_BYTES, Format, PictureParser, convert_arguments, picture_arguments
from edged.mediamtx.sources import CameraSource, picture_of, sets_key_frames

#: Seconds that somebody waits for a picture: without any byte of the source, and in all (contract 10.24).
PATIENCE_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 30.0
#: Seconds that the source goes on after the last viewer.
LINGER_SECONDS: Final = 2.0
#: Seconds without a picture after which the source is begun anew, or the time of so many pictures if that is longer;
#: the first may take longer. ffmpeg itself gives an RTSP source up that sends nothing for 10 s.
STALL_SECONDS: Final = 5.0
STALL_PICTURES: Final = 3
START_SECONDS: Final = 8.0
NETWORK_STALL_SECONDS: Final = 12.0
#: Seconds that a USB camera just switched on gets to find its exposure before a snapshot.
SETTLE_SECONDS: Final = 0.4
#: Seconds that a camera is left to its publisher before it is opened again, should MediaMTX not show its path.
YIELD_SECONDS: Final = 3.0
#: Seconds between two tries, the first and the longest; after so many without any picture the viewers are told.
PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 4.0
TRIES: Final = 3

_CONVERT_SECONDS: Final = 10.0
_log = structlog.get_logger("frames")


class _Live:
    """One camera that somebody looks at: the latest picture, and what its task is doing."""

    def __init__(self, source: CameraSource) -> None:
        self.source = source
        self.viewers = 0
        self.present = True
        #: The latest picture, None while there is none that is fresh; and how many there have been.
        self.picture: bytes | None = None
        self.number = 0
        self.began_at = math.inf
        self.settled = False
        #: Why there will be no more; and why there was none lately.
        self.failure: DependencyFailed | None = None
        self.cause: Cause | None = None
        #: Whether a source is open and sends; and when it last did.
        self.is_receiving = False
        self.received_at = -math.inf
        #: Whether ffmpeg holds the source itself, and whether the last one did; until when it is left to the publisher.
        self.direct = False
        self.was_direct = False
        self.yields_until = -math.inf
        self.scope = trio.CancelScope()
        self.attempt = trio.CancelScope()
        self.gone = trio.Event()
        self.arrived = trio.Event()
        self.turned = trio.Event()
        self.released = trio.Event()

    def put(self, picture: bytes, now: float) -> None:
        if self.picture is None:
            self.began_at = now
        self.picture = picture
        self.number += 1
        self.received_at = now
        dark = self.direct and self.source.kind == "usb"
        self.settled = not dark or now - self.began_at >= SETTLE_SECONDS
        self.tell()

    def tell(self) -> None:
        """Wake everybody who waits for a picture."""
        self.arrived.set()
        self.arrived = trio.Event()

    def receive(self, receiving: bool) -> None:
        """The source sends from now on, or does not any more."""
        if receiving or self.is_receiving:
            self.received_at = trio.current_time()
        self.is_receiving = receiving
        self.tell()

    def turn(self) -> None:
        """Wake the task: the source is there again, or another."""
        self.turned.set()
        self.turned = trio.Event()

    def fail(self, failure: DependencyFailed) -> None:
        """There will be no more pictures; the first reason stays."""
        self.failure = self.failure or failure
        self.tell()

    def patience(self, began: float) -> float:
        """Until when somebody waits who began at `began`: 10 s from the last byte, 30 s in all."""
        if self.is_receiving:
            return began + LONGEST_SECONDS
        # A camera of one picture in ten seconds is not late.
        silence = max(PATIENCE_SECONDS, _pace(self.source))
        return min(max(began, self.received_at) + silence, began + LONGEST_SECONDS)

    def why_late(self) -> Cause:
        """Why nobody has got a picture in that time."""
        if not self.present:
            return causes.UNPLUGGED
        if self.is_receiving and sets_key_frames(self.source):
            return causes.KEY_FRAMES
        return self.cause or (causes.SILENT if self.source.kind == "rtsp" else causes.NO_PICTURES)

    def complain(self, cause: Cause) -> DependencyFailed:
        """That there is no picture, for a caller."""
        return NoPicture(self.source.name, cause)


def _pace(source: CameraSource) -> float:
    """Seconds of some pictures of a source, 0 where its rate is not known."""
    return STALL_PICTURES / source.rate if source.rate else 0.0


class FrameReader:
    """One viewer's look at a camera."""

    def __init__(self, live: _Live, late: Callable[[_Live, Cause], None]) -> None:
        """`late` is told why nothing came in time."""
        self._live = live
        self._late = late

    @property
    def number(self) -> int:
        """The number of the latest picture, 0 before the first."""
        return self._live.number

    async def next(self, after: int = 0, *, began: float | None = None) -> tuple[int, bytes]:
        """The latest picture and its number, once there is one with a number above `after`.

        Raises DependencyFailed if none comes in time (contract 10.24) or none will. `began`: when the caller was asked,
        if that was before.
        """
        live = self._live
        began = trio.current_time() if began is None else began
        await trio.lowlevel.checkpoint()
        while live.failure is None:
            if live.picture is not None and live.number > after:
                return live.number, live.picture
            with trio.move_on_at(live.patience(began)) as patience:
                await live.arrived.wait()
            if patience.cancelled_caught and trio.current_time() >= live.patience(began):
                raise live.complain(self._give_up())
        raise live.failure

    def _give_up(self) -> Cause:
        cause = self._live.why_late()
        self._late(self._live, cause)
        return cause

    async def settled(self) -> bytes:
        """The next picture that is fit to be kept. Raises DependencyFailed as `next` does, after that time in all."""
        began = trio.current_time()
        number, picture = await self.next(self.number, began=began)
        while not self._live.settled:
            number, picture = await self.next(number, began=began)
        return picture


def _keep_secret(_secret: str) -> None:
    """Nobody counts secrets."""


class Frames:
    """The pictures of all cameras. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: Spawn,
        find_ffmpeg: ffmpeg.FindFfmpeg,
        reader_url: Callable[[str], str | None],
        *,
        drop_secret: Callable[[str], None] = _keep_secret,
        restarted: Callable[[], None] = lambda: None,
        folder: Path | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        """`reader_url(path)` is MediaMTX's RTSP address of a camera with a password made for this one reader,
        None where MediaMTX has no picture of it; `drop_secret` gets that password back when the reader has ended;
        `restarted()` counts each end that was none of ours; `folder` is for files that only we can read;
        `conditions` hears what is learned of a source that is read directly.
        """
        self._restarted = restarted
        self._folder = folder
        self._conditions = Conditions() if conditions is None else conditions
        self._spawn = spawn
        self._find_ffmpeg = find_ffmpeg
        self._reader_url = reader_url
        self._drop_secret = drop_secret
        self._lives: dict[str, _Live] = {}
        self._nursery: trio.Nursery | None = None
        self._converting = trio.CapacityLimiter(1)

    @property
    def running(self) -> frozenset[str]:
        """The cameras for which an ffmpeg runs, or is about to."""
        return frozenset(self._lives)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve pictures until cancelled; leaving ends every ffmpeg and tells who still waits."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def set_sources(self, sources: Iterable[CameraSource]) -> None:
        """These cameras are there; a picture of any other stops until it is back. Returns at once."""
        wanted = {source.name: source for source in sources}
        for name, live in self._lives.items():
            source = wanted.get(name)
            if source is None:
                live.present = False
                live.attempt.cancel()
            elif not live.present or picture_of(source) != picture_of(live.source):
                live.present, live.source = True, source
                live.attempt.cancel()
                live.turn()

    async def make_way(self, name: str) -> None:
        """Let go of a USB camera, which only one can hold: its publisher is about to open it. Then read from there."""
        live = self._lives.get(name)
        if live is not None and live.direct and live.source.kind == "usb":
            live.yields_until = trio.current_time() + YIELD_SECONDS
            live.attempt.cancel()
            await live.released.wait()

    @asynccontextmanager
    async def watch(self, source: CameraSource) -> AsyncIterator[FrameReader]:
        """Look at a camera: `async with frames.watch(camera) as reader: number, jpeg = await reader.next(0)`.

        Raises DependencyFailed while edged is stopping.
        """
        live = self._join(source)
        try:
            yield FrameReader(live, self._note_failure)
        finally:
            self._leave(live, LINGER_SECONDS)

    async def snapshot(self, source: CameraSource, *, format: Format = "jpg", quality: int | None = None) -> bytes:  # noqa: A002
        """One picture, taken after the call. Raises DependencyFailed if there is none within 10 s.

        `quality` 1 to 100 writes the JPEG anew; without it the picture is the camera's own, or nearly so.
        """
        live = self._join(source)
        try:
            picture = await FrameReader(live, self._note_failure).settled()
        finally:
            self._leave(live, 0.0)
        if format == "jpg" and quality is None:
            return picture
        return await self._convert(picture, format, quality)

    def _join(self, source: CameraSource) -> _Live:
        if self._nursery is None:
            raise DependencyFailed("no pictures: edged is not ready, or stopping", hint="try again later")
        live = self._lives.get(source.name)
        if live is None or live.scope.cancel_called:
            before, live = live, _Live(source)
            self._lives[source.name] = live
            self._nursery.start_soon(self._play, live, before)
        live.scope.deadline = math.inf
        live.viewers += 1
        return live

    def _leave(self, live: _Live, linger: float) -> None:
        live.viewers -= 1
        if live.viewers == 0:
            live.scope.deadline = trio.current_time() + linger

    async def _play(self, live: _Live, before: _Live | None) -> None:
        """A camera's task, from the first who looks to shortly after the last."""
        stopping = NoPicture(live.source.name, causes.NO_PICTURES)
        try:
            with live.scope:
                if before is not None:
                    await before.gone.wait()
                await self._keep_playing(live)
        finally:
            live.fail(live.complain(live.cause) if live.cause else stopping)
            live.gone.set()
            if self._lives.get(live.source.name) is live:
                del self._lives[live.source.name]

    async def _keep_playing(self, live: _Live) -> None:
        failures = 0
        patient = False
        while True:
            while not live.present:
                await live.turned.wait()
            numbers_before = live.number
            transport = ffmpeg.choose_transport(live.source.transport, failures, live.cause.slug if live.cause else "")
            try:
                live.cause = await self._play_once(live, transport, patient)
            except DependencyFailed as failure:
                live.fail(failure)
                return
            failures = 1 if live.number > numbers_before else failures + 1
            if live.cause:
                self._restarted()
                _log.debug("ended", camera=live.source.name, why=live.cause.sentence, exact=live.cause.exact)
                if failures >= TRIES and not live.number:
                    self._note_failure(live, live.cause)
                    return
                if live.cause.slug == "codec" and not patient:
                    # The server does not say the size of the picture: look at the stream itself, at once.
                    patient = True
                    continue
                with trio.move_on_after(min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(failures - 1, 8))):
                    await live.turned.wait()

    async def _play_once(self, live: _Live, transport: RtspTransport, patient: bool) -> Cause | None:
        """Run one ffmpeg until it ends or is ended; returns why that is a failure, None if it is none."""
        cause: Cause | None = None
        live.released = trio.Event()
        address = await self._choose(live)
        complaints = ffmpeg.Complaints(ffmpeg.secrets_of(address), partial(live.receive, True))
        password = "" if live.direct else ffmpeg.password_of(address)
        try:
            with trio.CancelScope() as live.attempt, ExitStack() as files:
                playlist = ""
                if address:
                    way = transport if live.direct else "tcp"
                    text = self._make_playlist(live, address, way, patient)
                    playlist = files.enter_context(ffmpeg.private_file(text.encode(), ".ffconcat", self._folder))
                arguments = [self._find_ffmpeg(), *picture_arguments(live.source, playlist)]
                async with self._spawn(arguments, stdout=True, stderr=True) as child, trio.open_nursery() as nursery:
                    assert child.stdout is not None, "asked for above"
                    assert child.stderr is not None, "asked for above"
                    nursery.start_soon(complaints.drain, child.stderr)
                    cause = await self._read(live, child.stdout, complaints, patiently=bool(address))
                    child.kill()
                cause = complaints.explain(cause, network=bool(address), reads_only=True)
        except OSError as error:
            cause = replace(causes.NO_FFMPEG, exact=f"ffmpeg could not be started: {error.strerror}")
        finally:
            live.picture = None
            live.direct = False
            live.receive(False)
            live.released.set()
            if password:
                self._drop_secret(password)
        return cause

    def _make_playlist(self, live: _Live, address: str, transport: RtspTransport, patient: bool) -> str:
        try:
            return ffmpeg.make_playlist(address, transport=transport, patient=patient)
        except DependencyFailed as failure:
            cause = replace(causes.BAD_ADDRESS, exact=str(failure))
            self._note_failure(live, cause)
            raise NoPicture(live.source.name, cause) from failure

    def _note_failure(self, live: _Live, cause: Cause) -> None:
        """What was learned of a source; of one that MediaMTX passes on its publisher knows more."""
        if live.present and live.was_direct:
            self._conditions.fails(live.source.name, cause)

    async def _choose(self, live: _Live) -> str:
        """The RTSP address to read from, "" for none."""
        path = live.source.path
        # Nobody tells when a path comes up; it takes a second, rarely.
        while (url := self._reader_url(path)) is None and trio.current_time() < live.yields_until:  # noqa: ASYNC110
            await trio.sleep(0.1)
        live.direct = live.was_direct = url is None
        if url is None and live.source.kind == "rtsp":
            return live.source.url or "-"
        return url or ""

    async def _read(
        self, live: _Live, stream: trio.abc.ReceiveStream, complaints: ffmpeg.Complaints, *, patiently: bool
    ) -> Cause:
        """ffmpeg's output → pictures, until it ends or none comes; returns which of both."""
        parser = PictureParser()
        pace = _pace(live.source)
        start = max(LONGEST_SECONDS if patiently or sets_key_frames(live.source) else START_SECONDS, pace)
        stall = max(NETWORK_STALL_SECONDS if patiently else STALL_SECONDS, pace)
        with trio.CancelScope(deadline=trio.current_time() + start) as patience:
            try:
                while data := await stream.receive_some(65536):
                    for picture in parser.feed(data):
                        now = trio.current_time()
                        live.put(picture, now)
                        if live.direct and not self._conditions.find(live.source.name).works:
                            self._conditions.works(live.source.name, "reader", complaints.figures)
                        patience.deadline = now + stall
            except ValueError as error:
                return replace(causes.UNKNOWN, exact=str(error))
        if not patience.cancelled_caught:
            return causes.ENDED
        return causes.KEY_FRAMES if sets_key_frames(live.source) and not live.number else causes.NO_PICTURES

    async def _convert(self, picture: bytes, form: Format, quality: int | None) -> bytes:
        """A JPEG written anew by ffmpeg, one at a time."""
        complaints = ffmpeg.Complaints()
        converted = b""
        with trio.move_on_after(_CONVERT_SECONDS), ExitStack() as files:
            await self._converting.acquire()
            files.callback(self._converting.release)
            file = files.enter_context(ffmpeg.private_file(picture, ".jpg", self._folder))
            arguments = [self._find_ffmpeg(), *convert_arguments(file, form, quality)]
            async with self._spawn(arguments, stdout=True, stderr=True) as child, trio.open_nursery() as nursery:
                assert child.stdout is not None, "asked for above"
                assert child.stderr is not None, "asked for above"
                nursery.start_soon(complaints.drain, child.stderr)
                converted = await ffmpeg.read_to_end(child.stdout, PICTURE_BYTES)
                child.kill()
        if converted:
            return converted
        # It names the private file, which is for the log.
        _log.warning("picture not converted", form=form, problem=complaints.lines[-1] if complaints.lines else "no end")
        raise DependencyFailed(f"the picture could not be written as {form}", hint="try again; the log says why")
