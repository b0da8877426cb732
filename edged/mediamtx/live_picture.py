"""The latest picture of one camera, and who waits for the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from edged.errors import DependencyFailed
from edged.mediamtx import causes
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.sources import CameraSource, kind_of, sets_key_frames

#: Seconds that somebody waits for a picture: without any byte of the source, and in all (contract 10.24).
PATIENCE_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 30.0
#: Seconds that a USB camera just switched on gets to find its exposure before a snapshot.
SETTLE_SECONDS: Final = 0.4
#: A source may be silent for the time of so many of its pictures.
STALL_PICTURES: Final = 3


class LivePicture:
    """One camera whose pictures somebody wants: the latest one, and what its task is doing."""

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
        self.ended = trio.Event()
        self.arrived = trio.Event()
        self.turned = trio.Event()
        self.released = trio.Event()

    def put(self, picture: bytes, now: float) -> None:
        if self.picture is None:
            self.began_at = now
        self.picture = picture
        self.number += 1
        self.received_at = now
        dark = self.direct and kind_of(self.source).is_device
        self.settled = not dark or now - self.began_at >= SETTLE_SECONDS
        self.tell()

    def tell(self) -> None:
        """Wake all that wait for a picture."""
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
        """No more pictures will come; the first reason is kept."""
        self.failure = self.failure or failure
        self.tell()

    def patience(self, began: float) -> float:
        """Until when a viewer waits that began at `began`: 10 s from the last byte, 30 s in all."""
        if self.is_receiving:
            return began + LONGEST_SECONDS
        # A camera of one picture in ten seconds is not late.
        silence = max(PATIENCE_SECONDS, pace_of(self.source))
        return min(max(began, self.received_at) + silence, began + LONGEST_SECONDS)

    def why_late(self) -> Cause:
        """Why no picture came in that time."""
        if not self.present:
            return causes.UNPLUGGED
        if self.is_receiving and sets_key_frames(self.source):
            return causes.KEY_FRAMES
        return self.cause or kind_of(self.source).never

    def complain(self, cause: Cause) -> DependencyFailed:
        """That there is no picture, for a caller."""
        return NoPicture(self.source.name, cause)


def pace_of(source: CameraSource) -> float:
    """Seconds of some pictures of a source, 0 where its rate is not known."""
    return STALL_PICTURES / source.rate if source.rate else 0.0


class FrameReader:
    """The pictures of a camera for one viewer."""

    def __init__(self, live: LivePicture, late: Callable[[LivePicture, Cause], None]) -> None:
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
