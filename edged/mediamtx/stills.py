"""Single pictures out of recordings: ffmpeg reads a part of one through its standard input and writes one picture.

No word of a caller reaches its arguments, and it may open nothing but its input. One runs at a time, whatever the
camera; those who ask for the same picture meanwhile share it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing, suppress
from functools import partial
from typing import Final

import structlog
import trio

from edged.children import Spawn
from edged.errors import DependencyFailed, EdgedError
from edged.mediamtx import ffmpeg
from edged.mediamtx.pictures import PICTURE_BYTES, Format, encode_arguments
from edged.sharing import Shared

#: Seconds that one picture may take: some seconds of video are decoded for it, on a slow machine a minute of it.
LONGEST_SECONDS: Final = 20.0
#: So many wait for their turn.
MOST_WAITING: Final = 16
_log = structlog.get_logger("frames")


class Stills:
    """Pictures out of recorded video."""

    def __init__(self, spawn: Spawn, find_ffmpeg: ffmpeg.FindFfmpeg) -> None:
        self._spawn, self._find_ffmpeg = spawn, find_ffmpeg
        self._shared: Shared[bytes] = Shared("pictures out of recordings", at_once=1, waiting=MOST_WAITING)

    async def decode(
        self,
        key: Hashable,
        read: Callable[[], AsyncGenerator[bytes, None]],
        skip: float,
        *,
        format: Format = "jpg",  # noqa: A002
        quality: int | None = None,
    ) -> bytes:
        """The picture `skip` seconds behind the first of what `read` gives: a fragmented MP4 that begins with a key
        frame. `key` is equal for what is the same; `quality` 1 to 100, of a JPEG.

        Raises Overloaded, DependencyFailed, and what `read` raises.
        """
        work = partial(self._decode, read, skip, format, quality)
        return await self._shared.share((key, format, quality), work)

    async def _decode(
        self, read: Callable[[], AsyncGenerator[bytes, None]], skip: float, form: Format, quality: int | None
    ) -> bytes:
        complaints = ffmpeg.Complaints(may_redirect=False)
        arguments = [self._find_ffmpeg(), *still_arguments(skip, form, quality)]
        picture, failures = b"", list[EdgedError]()
        reading, writing = os.pipe()
        with trio.move_on_after(LONGEST_SECONDS):
            async with trio.lowlevel.FdStream(writing) as pipe:
                try:
                    child = self._spawn(arguments, stdin=reading)
                finally:
                    os.close(reading)
                async with child, trio.open_nursery() as nursery:
                    assert child.stdout is not None, "asked for above"
                    nursery.start_soon(complaints.drain, child)
                    nursery.start_soon(_feed, read, pipe, failures)
                    picture = await ffmpeg.read_to_end(child.stdout, PICTURE_BYTES)
                    child.kill()
                    nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        if picture:
            return picture
        _log.warning("recorded_picture_not_decoded", problem=complaints.lines[-1] if complaints.lines else "no end")
        raise DependencyFailed("the recorded picture could not be decoded", hint="try another time; the log says why")


async def _feed(
    read: Callable[[], AsyncGenerator[bytes, None]], pipe: trio.abc.SendStream, failures: list[EdgedError]
) -> None:
    # ffmpeg ends, and closes its input, as soon as it has its picture.
    with suppress(trio.BrokenResourceError):
        try:
            async with aclosing(read()) as pieces:
                async for piece in pieces:
                    await pipe.send_all(piece)
        except EdgedError as problem:
            failures.append(problem)
        finally:
            await pipe.aclose()


def still_arguments(skip: float, form: Format, quality: int | None) -> list[str]:
    """ffmpeg's arguments, without its name, that write the first picture at `skip` seconds or later."""
    return [
        *ffmpeg.QUIET, "-protocol_whitelist", "pipe", "-threads", "1", "-f", "mp4", "-i", "pipe:0", "-map", "0:v:0",
        "-ss", f"{max(0.0, skip):.6f}", "-frames:v", "1", *encode_arguments(form, quality), "-f", "image2pipe",
        "pipe:1",
    ]  # fmt: skip
