"""Pictures of a camera as JPEGs: one now, or one after the other, from one ffmpeg per camera however many look.

They are read from MediaMTX's path while that has a stream, and from the camera itself otherwise. An ffmpeg is started
for the first viewer and ends shortly after the last. Only the latest picture is kept: a slow viewer misses some and
delays no other. When ffmpeg ends, the source is chosen anew.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from edged.children import Spawn
from edged.errors import DependencyFailed
from edged.mediamtx import causes, ffmpeg
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.figures import Figures
from edged.mediamtx.live_picture import LONGEST_SECONDS, FrameReader, LivePicture, pace_of
from edged.mediamtx.pictures import (
    HIGHEST_RATE,
    PICTURE_BYTES,
    Format,
    PictureParser,
    convert_arguments,
    picture_arguments,
)
from edged.mediamtx.sources import CameraSource, kind_of, picture_of, sets_key_frames
from edged.mediamtx.sources.multipart import read_size as read_jpeg_size
from edged.restarts import Restarts
from edged.sharing import Shared

#: Seconds that the source goes on after the last viewer.
LINGER_SECONDS: Final = 2.0
#: Seconds without a picture after which the source is begun anew, or the time of some pictures if that is longer; the
#: first may take longer. ffmpeg itself gives an RTSP source up that sends nothing for 10 s.
STALL_SECONDS: Final = 5.0
START_SECONDS: Final = 8.0
NETWORK_STALL_SECONDS: Final = 12.0
#: Seconds that a camera is left to its publisher before it is opened again, should MediaMTX not show its path.
YIELD_SECONDS: Final = 3.0
#: Seconds between two tries, the first and the longest; after so many without any picture the viewers are told.
PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 4.0
TRIES: Final = 3

#: Cameras that are opened for a snapshot at the same time; so many more wait.
MOST_COLD: Final = 8
MOST_WAITING: Final = 64

_CONVERT_SECONDS: Final = 10.0
_log = structlog.get_logger("frames")


def _keep_secret(_secret: str) -> None:
    """Where passwords need not be given back."""


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
        self._lives: dict[str, LivePicture] = {}
        self._nursery: trio.Nursery | None = None
        #: First pictures of cameras that nobody watches, and pictures that are written anew.
        self._first: Shared[bytes] = Shared("pictures of cameras", at_once=MOST_COLD, waiting=MOST_WAITING)
        self._converted: Shared[bytes] = Shared("pictures in another format", at_once=1, waiting=MOST_WAITING)

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

    async def release_device(self, name: str) -> None:
        """Close a USB camera, as its publisher is about to open it: only one process can. Then read from MediaMTX."""
        live = self._lives.get(name)
        if live is not None and live.direct and kind_of(live.source).is_device:
            live.yields_until = trio.current_time() + YIELD_SECONDS
            live.attempt.cancel()
            await live.released.wait()

    @asynccontextmanager
    async def watch(self, source: CameraSource) -> AsyncIterator[FrameReader]:
        """Pictures of a camera: `async with frames.watch(camera) as reader: number, jpeg = await reader.next(0)`.

        Raises DependencyFailed while edged is stopping.
        """
        live = self._join(source)
        try:
            yield FrameReader(live, self._note_failure)
        finally:
            self._leave(live, LINGER_SECONDS)

    async def snapshot(
        self,
        source: CameraSource,
        *,
        format: Format = "jpg",  # noqa: A002
        quality: int | None = None,
        linger: float = 0.0,
    ) -> bytes:
        """One picture, taken after the call. Raises DependencyFailed if there is none within 10 s, Overloaded where too
        many wait for a camera that nobody watches.

        `quality` 1 to 100 writes the JPEG anew; without it the picture is the camera's own, or nearly so. The source
        stays open for `linger` seconds.
        """
        take = partial(self._take, source, linger)
        # While the first picture is awaited it is the one for all that ask.
        picture = await (take() if source.name in self._lives else self._first.share(source.name, take))
        if format == "jpg" and quality is None:
            return picture
        return await self._converted.share((picture, format, quality), partial(self._convert, picture, format, quality))

    async def _take(self, source: CameraSource, linger: float) -> bytes:
        live = self._join(source)
        try:
            return await FrameReader(live, self._note_failure).settled()
        finally:
            self._leave(live, linger)

    def _join(self, source: CameraSource) -> LivePicture:
        if self._nursery is None:
            raise DependencyFailed("no pictures: edged is not ready, or stopping", hint="try again later")
        live = self._lives.get(source.name)
        if live is None or live.scope.cancel_called:
            before, live = live, LivePicture(source)
            self._lives[source.name] = live
            self._nursery.start_soon(self._play, live, before)
        live.scope.deadline = math.inf
        live.viewers += 1
        return live

    def _leave(self, live: LivePicture, linger: float) -> None:
        live.viewers -= 1
        if live.viewers == 0:
            live.scope.deadline = trio.current_time() + linger

    async def _play(self, live: LivePicture, before: LivePicture | None) -> None:
        """A camera's task, from its first viewer to shortly after the last."""
        stopping = NoPicture(live.source.name, causes.NO_PICTURES)
        try:
            with live.scope:
                if before is not None:
                    await before.ended.wait()
                await self._keep_playing(live)
        finally:
            live.fail(live.complain(live.cause) if live.cause else stopping)
            live.ended.set()
            if self._lives.get(live.source.name) is live:
                del self._lives[live.source.name]

    async def _keep_playing(self, live: LivePicture) -> None:
        ends = Restarts(PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        patient = False
        while True:
            while not live.present:
                await live.turned.wait()
            live.began_at = math.inf
            try:
                live.cause = await self._play_once(live, ends.failures, patient)
            except DependencyFailed as failure:
                live.fail(failure)
                return
            pause = ends.note(trio.current_time() - live.began_at)
            if live.cause:
                self._restarted()
                _log.debug(
                    "picture_source_ended", camera=live.source.name, why=live.cause.sentence, exact=live.cause.exact
                )
                if ends.failures >= TRIES and not live.number:
                    self._note_failure(live, live.cause)
                    return
                if live.cause.slug == "codec" and not patient:
                    # The server does not say the size of the picture: analyse the stream itself, at once.
                    patient = True
                    continue
                with trio.move_on_after(pause):
                    await live.turned.wait()

    async def _play_once(self, live: LivePicture, failures: int, patient: bool) -> Cause | None:
        """Run one ffmpeg until it ends or is ended; returns why that is a failure, None if it is none."""
        cause: Cause | None = None
        live.released = trio.Event()
        address = await self._choose(live)
        if live.direct and kind_of(live.source).is_fed:
            return await self._play_fed(live)
        complaints = ffmpeg.Complaints(
            ffmpeg.secrets_of(address), partial(live.receive, True), may_redirect=not live.source.is_pinned
        )
        password = "" if live.direct else ffmpeg.password_of(address)
        try:
            with trio.CancelScope() as live.attempt, ExitStack() as files:
                playlist = ""
                if text := self._make_playlist(live, address, failures, patient):
                    playlist = files.enter_context(ffmpeg.private_file(text.encode(), ".ffconcat", self._folder))
                arguments = [self._find_ffmpeg(), *picture_arguments(live.source, playlist)]
                async with self._spawn(arguments, stdout=True, stderr=True) as child, trio.open_nursery() as nursery:
                    assert child.stdout is not None, "asked for above"
                    nursery.start_soon(complaints.drain, child)
                    cause = await self._read(live, child.stdout, complaints, patiently=bool(address))
                    child.kill()
                cause = complaints.explain(cause, network=bool(address), reads_only=True)
                if not live.direct:
                    # MediaMTX's path says nothing of the camera; its publisher does.
                    cause = self._conditions.find(live.source.name).cause or cause
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

    async def _play_fed(self, live: LivePicture) -> Cause | None:
        """The same for a source whose pictures edged reads itself: they are shown as they come, some of them."""
        cause: Cause | None = None

        def put(picture: bytes) -> None:
            now = trio.current_time()
            if live.picture is not None and now - live.received_at < 1 / HIGHEST_RATE:
                return
            live.put(picture, now)
            if not self._conditions.find(live.source.name).works:
                self._conditions.works(live.source.name, "reader", Figures(*read_jpeg_size(picture), video="M-JPEG"))

        try:
            with trio.CancelScope() as live.attempt:
                await kind_of(live.source).read_jpegs(live.source, put, partial(live.receive, True))
        except NoPicture as failure:
            cause = failure.cause
        finally:
            live.picture, live.direct = None, False
            live.receive(False)
            live.released.set()
        return cause

    def _make_playlist(self, live: LivePicture, address: str, failures: int, patient: bool) -> str:
        try:
            if not live.direct:
                return ffmpeg.make_playlist(address, patient=patient)
            last = live.cause.slug if live.cause else ""
            return kind_of(live.source).playlist(live.source, failures, last, patient=patient)
        except DependencyFailed as failure:
            cause = replace(causes.BAD_ADDRESS, exact=str(failure))
            self._note_failure(live, cause)
            raise NoPicture(live.source.name, cause) from failure

    def _note_failure(self, live: LivePicture, cause: Cause) -> None:
        """Report why a source gave no picture, unless its publisher reads it and knows more."""
        if live.present and live.was_direct:
            self._conditions.fails(live.source.name, cause)

    async def _choose(self, live: LivePicture) -> str:
        """The address to read from, MediaMTX's or the source's own; "" for a source without one."""
        path = live.source.path
        # MediaMTX does not report when a path has a stream; it takes a second, rarely.
        while (url := self._reader_url(path)) is None and trio.current_time() < live.yields_until:  # noqa: ASYNC110
            await trio.sleep(0.1)
        live.direct = live.was_direct = url is None
        return (live.source.url or "") if url is None else url

    async def _read(
        self, live: LivePicture, stream: trio.abc.ReceiveStream, complaints: ffmpeg.Complaints, *, patiently: bool
    ) -> Cause:
        """ffmpeg's output → pictures, until it ends or none comes; returns which of both."""
        parser = PictureParser()
        pace = pace_of(live.source)
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
        """A JPEG written anew by ffmpeg."""
        complaints = ffmpeg.Complaints(may_redirect=False)
        converted = b""
        with trio.move_on_after(_CONVERT_SECONDS), ExitStack() as files:
            file = files.enter_context(ffmpeg.private_file(picture, ".jpg", self._folder))
            arguments = [self._find_ffmpeg(), *convert_arguments(file, form, quality)]
            async with self._spawn(arguments, stdout=True, stderr=True) as child, trio.open_nursery() as nursery:
                assert child.stdout is not None, "asked for above"
                nursery.start_soon(complaints.drain, child)
                converted = await ffmpeg.read_to_end(child.stdout, PICTURE_BYTES)
                child.kill()
        if converted:
            return converted
        # It names the private file, which is for the log.
        _log.warning("picture_not_converted", form=form, problem=complaints.lines[-1] if complaints.lines else "no end")
        raise DependencyFailed(f"the picture could not be written as {form}", hint="try again; the log says why")
