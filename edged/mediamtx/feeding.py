"""Pictures that edged reads itself, on their way to the standard input of an ffmpeg.

Only the latest one waits: an ffmpeg that is slower than the camera gets fewer, and none that is old.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio


class Feed:
    """A pipe: `reading` is the end for the child. `put` never waits."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self._writing = writing
        self._latest: bytes | None = None
        self._arrived = trio.Event()

    def put(self, picture: bytes) -> None:
        """Hand a picture on, in place of one that still waits."""
        self._latest = picture
        self._arrived.set()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """What is put is written while the block runs. The child has been started."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            yield
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        # A duplicate, since FdStream closes its own.
        with suppress(trio.BrokenResourceError):
            async with trio.lowlevel.FdStream(os.dup(self._writing)) as stream:
                while True:
                    await self._arrived.wait()
                    self._arrived = trio.Event()
                    picture, self._latest = self._latest, None
                    if picture is not None:
                        await stream.send_all(picture)


@contextmanager
def open_feed() -> Iterator[Feed]:
    """The pipe, closed at the end of the block; a child that was started with it has an end of its own by then."""
    reading, writing = os.pipe()
    try:
        yield Feed(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)
