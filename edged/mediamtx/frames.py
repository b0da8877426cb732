"""Pictures of a camera as JPEGs: one now, or one after the other, from one ffmpeg per camera however many look.

They come from MediaMTX's path while that is up, and straight from the source while not. What runs is begun by the
first who looks and ends shortly after the last. Only the latest picture is kept: who reads slowly misses some and
holds up nobody. When the source ends, it is chosen anew.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

import structlog
import trio

from edged.errors import DependencyFailed
from edged.mediamtx import ffmpeg
from edged.mediamtx.sources import Source

#: Pictures a second at most; a viewer who wants fewer takes fewer.
HIGHEST_RATE: Final = 10.0
#: Seconds that somebody waits for a picture at most (contract 10.24).
PATIENCE_SECONDS: Final = 10.0
#: Seconds that the source goes on after the last viewer.
LINGER_SECONDS: Final = 2.0
#: Seconds without a picture after which the source is begun anew; the first may take longer.
STALL_SECONDS: Final = 5.0
START_SECONDS: Final = 8.0
#: Seconds that a USB camera just switched on gets to find its exposure before a snapshot.
SETTLE_SECONDS: Final = 0.4
#: Seconds that a camera is left to its publisher before it is opened again, should MediaMTX not show its path.
YIELD_SECONDS: Final = 3.0
#: Seconds between two tries, the first and the longest; after so many without any picture the viewers are told.
PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 4.0
TRIES: Final = 3
#: ffmpeg's JPEG quality (2 best to 31) where nobody asked for one.
QUALITY: Final = 4

_HEAD_BYTES: Final = 1024
_PICTURE_BYTES: Final = 64 * 1024 * 1024
_CONVERT_SECONDS: Final = 10.0
_log = structlog.get_logger("frames")

Format: TypeAlias = Literal["jpg", "png"]


class PictureParser:
    """ffmpeg's multipart output → whole JPEGs. Feed it bytes; it does no I/O.

    Each part announces its length, so that nothing in a camera's own JPEG, however odd, can be mistaken for its end.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """Bytes as they came → the pictures that are now complete. Raises ValueError for what ffmpeg never sends."""
        self._buffer += data
        pictures = []
        while self._has_length() and len(self._buffer) >= (length := self._length or 0):
            picture = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._length = None
            if picture.startswith(b"\xff\xd8"):
                pictures.append(picture)
        return pictures

    def _has_length(self) -> bool:
        if self._length is None:
            end = self._buffer.find(b"\r\n\r\n", 0, _HEAD_BYTES)
            if end >= 0:
                self._length = _read_length(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
            elif len(self._buffer) >= _HEAD_BYTES:
                raise ValueError("the head of a picture does not end")
        return self._length is not None


def _read_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and (text := value.strip()).isdigit():
            length = int(text[:12])
            if 0 < length <= _PICTURE_BYTES:
                return length
    raise ValueError("a picture without a usable length")


def picture_arguments(source: Source, playlist: str = "") -> list[str]:
    """ffmpeg's arguments, without its name, that write JPEGs to its standard output as a multipart stream.

    With `playlist` the picture is read from the RTSP address in that file: MediaMTX's path, or an RTSP camera.
    A USB camera that gives JPEGs is not decoded.
    """
    rate = min(source.rate, HIGHEST_RATE)
    encode = ["-c:v", "mjpeg", "-q:v", str(QUALITY)]
    # One thread: with more the decoder holds as many pictures back.
    one_by_one = ["-threads", "1", "-flags", "low_delay"]
    if playlist:
        picture = [*one_by_one, *ffmpeg.read_playlist(playlist), "-map", "0:v:0", *_thin_out(), *encode]
    elif source.kind == "test":
        picture = ffmpeg.read_test_picture(source, rate) + encode
    elif source.pixel_format in ("MJPG", "JPEG"):
        picture = [*ffmpeg.read_device(source, source.rate), "-c:v", "copy", *_thin_out_copied(source.rate)]
    else:
        picture = [*one_by_one, *ffmpeg.read_device(source, source.rate), *_thin_out(), *encode]
    return [*ffmpeg.QUIET, *picture, "-an", "-flush_packets", "1", "-f", "mpjpeg", "pipe:1"]


def _thin_out() -> list[str]:
    """Keep the first picture of each tenth of a second."""
    step = f"floor(t*{HIGHEST_RATE:g})"
    earlier = f"floor(prev_selected_t*{HIGHEST_RATE:g})"
    return ["-vf", rf"select=isnan(prev_selected_t)+gt({step}\,{earlier})", "-fps_mode", "passthrough"]


def _thin_out_copied(rate: float) -> list[str]:
    """The same for pictures that are not decoded; each is made whole (cameras leave out the usual tables)."""
    filters = ["mjpeg2jpeg"]
    if rate > HIGHEST_RATE:
        share = f"{HIGHEST_RATE:g}/{rate:g}"
        filters.insert(0, rf"noise=amount=0:drop=eq(floor(n*{share})\,floor((n-1)*{share}))")
    return ["-bsf:v", ",".join(filters)]


def convert_arguments(picture: str, form: Format, quality: int | None) -> list[str]:
    """ffmpeg's arguments that write the JPEG in the file `picture` anew. `quality`: 1 to 100, 100 best; JPEG only."""
    scale = QUALITY if quality is None else 2 + round((100 - quality) * 29 / 99)
    encode = ["-c:v", "png"] if form == "png" else ["-c:v", "mjpeg", "-q:v", str(scale)]
    return [*ffmpeg.QUIET, "-f", "mjpeg", "-i", picture, "-frames:v", "1", *encode, "-f", "image2pipe", "pipe:1"]


class _Live:
    """One camera that somebody looks at: the latest picture, and what its task is doing."""

    def __init__(self, source: Source) -> None:
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
        self.problem = ""
        #: Whether ffmpeg holds the source itself; until when it is left to the publisher.
        self.direct = False
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
        dark = self.direct and self.source.kind == "usb"
        self.settled = not dark or now - self.began_at >= SETTLE_SECONDS
        self.tell()

    def tell(self) -> None:
        """Wake everybody who waits for a picture."""
        self.arrived.set()
        self.arrived = trio.Event()

    def turn(self) -> None:
        """Wake the task: the source is there again, or another."""
        self.turned.set()
        self.turned = trio.Event()

    def fail(self, failure: DependencyFailed) -> None:
        """There will be no more pictures; the first reason stays."""
        self.failure = self.failure or failure
        self.tell()

    def complain(self) -> DependencyFailed:
        """Why there is no picture, for a caller."""
        name = self.source.name
        reason = self.problem or ("" if self.present else "it was unplugged")
        sentence = f"{name} gives no picture" + (f" ({reason})" if reason else "")
        return DependencyFailed(sentence, hint="look after the camera, then try again", camera=name)


class FrameReader:
    """One viewer's look at a camera."""

    def __init__(self, live: _Live) -> None:
        self._live = live

    @property
    def number(self) -> int:
        """The number of the latest picture, 0 before the first."""
        return self._live.number

    async def next(self, after: int = 0) -> tuple[int, bytes]:
        """The latest picture and its number, once there is one with a number above `after`.

        Raises DependencyFailed if none comes within 10 s, or none will.
        """
        live = self._live
        with trio.move_on_after(PATIENCE_SECONDS):
            await trio.lowlevel.checkpoint()
            while live.failure is None:
                if live.picture is not None and live.number > after:
                    return live.number, live.picture
                await live.arrived.wait()
        raise live.failure or live.complain()

    async def settled(self) -> bytes:
        """The next picture that is fit to be kept. Raises DependencyFailed as `next` does."""
        number, picture = await self.next(self.number)
        while not self._live.settled:
            number, picture = await self.next(number)
        return picture


def _keep_secret(_secret: str) -> None:
    """Nobody counts secrets."""


class Frames:
    """The pictures of all cameras. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: ffmpeg.Spawn,
        find_ffmpeg: ffmpeg.FindFfmpeg,
        reader_url: Callable[[str], str | None],
        *,
        drop_secret: Callable[[str], None] = _keep_secret,
        restarted: Callable[[], None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        """`reader_url(path)` is MediaMTX's RTSP address of a camera with a password made for this one reader,
        None where MediaMTX has no picture of it; `drop_secret` gets that password back when the reader has ended;
        `restarted()` counts each end that was none of ours; `folder` is for files that only we can read.
        """
        self._restarted = restarted
        self._folder = folder
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

    def set_sources(self, sources: Iterable[Source]) -> None:
        """These cameras are there; a picture of any other stops until it is back. Returns at once."""
        wanted = {source.name: source for source in sources}
        for name, live in self._lives.items():
            source = wanted.get(name)
            if source is None:
                live.present = False
                live.attempt.cancel()
            elif not live.present or ffmpeg.picture_of(source) != ffmpeg.picture_of(live.source):
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
    async def watch(self, source: Source) -> AsyncIterator[FrameReader]:
        """Look at a camera: `async with frames.watch(camera) as reader: number, jpeg = await reader.next(0)`.

        Raises DependencyFailed while edged is stopping.
        """
        live = self._join(source)
        try:
            yield FrameReader(live)
        finally:
            self._leave(live, LINGER_SECONDS)

    async def snapshot(self, source: Source, *, format: Format = "jpg", quality: int | None = None) -> bytes:  # noqa: A002
        """One picture, taken after the call. Raises DependencyFailed if there is none within 10 s.

        `quality` 1 to 100 writes the JPEG anew; without it the picture is the camera's own, or nearly so.
        """
        live = self._join(source)
        try:
            picture = await FrameReader(live).settled()
        finally:
            self._leave(live, 0.0)
        if format == "jpg" and quality is None:
            return picture
        return await self._convert(picture, format, quality)

    def _join(self, source: Source) -> _Live:
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
        try:
            with live.scope:
                if before is not None:
                    await before.gone.wait()
                await self._keep_playing(live)
        finally:
            live.fail(live.complain())
            live.gone.set()
            if self._lives.get(live.source.name) is live:
                del self._lives[live.source.name]

    async def _keep_playing(self, live: _Live) -> None:
        failures = 0
        while True:
            while not live.present:
                await live.turned.wait()
            numbers_before = live.number
            try:
                live.problem = await self._play_once(live)
            except DependencyFailed as failure:
                live.fail(failure)
                return
            failures = 1 if live.number > numbers_before else failures + 1
            if live.problem:
                self._restarted()
                _log.info("ended", camera=live.source.name, why=live.problem)
                if failures >= TRIES and not live.number:
                    return
                with trio.move_on_after(min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(failures - 1, 8))):
                    await live.turned.wait()

    async def _play_once(self, live: _Live) -> str:
        """Run one ffmpeg until it ends or is ended; returns why that is a failure, "" if it is none."""
        problem = ""
        live.released = trio.Event()
        address = await self._choose(live)
        complaints = ffmpeg.Complaints(ffmpeg.secrets_of(address))
        password = "" if live.direct else ffmpeg.password_of(address)
        try:
            with trio.CancelScope() as live.attempt, ExitStack() as files:
                playlist = ""
                if address:
                    text = ffmpeg.make_playlist(address, at_once=not live.direct)
                    playlist = files.enter_context(ffmpeg.private_file(text.encode(), ".ffconcat", self._folder))
                arguments = [self._find_ffmpeg(), *picture_arguments(live.source, playlist)]
                async with self._spawn(arguments, stdout=True, stderr=True) as child, trio.open_nursery() as nursery:
                    assert child.stdout is not None, "asked for above"
                    assert child.stderr is not None, "asked for above"
                    nursery.start_soon(complaints.drain, child.stderr)
                    problem = await self._read(live, child.stdout)
                    child.kill()
                problem = complaints.explain() or problem
        except OSError as error:
            problem = f"ffmpeg could not be started: {error.strerror}"
        finally:
            live.picture = None
            live.direct = False
            live.released.set()
            if password:
                self._drop_secret(password)
        return problem

    async def _choose(self, live: _Live) -> str:
        """The RTSP address to read from, "" for none."""
        path = live.source.path
        # Nobody tells when a path comes up; it takes a second, rarely.
        while (url := self._reader_url(path)) is None and trio.current_time() < live.yields_until:  # noqa: ASYNC110
            await trio.sleep(0.1)
        live.direct = url is None
        if url is None and live.source.kind == "rtsp":
            return live.source.url or "-"
        return url or ""

    async def _read(self, live: _Live, stream: trio.abc.ReceiveStream) -> str:
        """ffmpeg's output → pictures, until it ends or none comes; returns which of both."""
        parser = PictureParser()
        with trio.CancelScope(deadline=trio.current_time() + START_SECONDS) as patience:
            try:
                while data := await stream.receive_some(65536):
                    for picture in parser.feed(data):
                        now = trio.current_time()
                        live.put(picture, now)
                        patience.deadline = now + STALL_SECONDS
            except ValueError as error:
                return str(error)
        return "no picture for some seconds" if patience.cancelled_caught else "ffmpeg ended"

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
                converted = await ffmpeg.read_to_end(child.stdout, _PICTURE_BYTES)
                child.kill()
        if converted:
            return converted
        reason = complaints.explain() or "ffmpeg did not end in time"
        raise DependencyFailed(f"the picture could not be written as {form}: {reason}", hint="try again")
