"""One camera's publisher: whether it is wanted, and what it is doing."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import msgspec
import trio

from edged.mediamtx import ffmpeg
from edged.mediamtx.causes import Cause
from edged.mediamtx.figures import Figures, RateMeter
from edged.mediamtx.progress import Progress
from edged.mediamtx.sources import CameraSource, kind_of
from edged.restarts import Restarts

#: Seconds that a source may be silent while ffmpeg analyses a stream whose size its server does not tell, and before
#: the first key frame. A slow camera has the time of some pictures at least.
ANALYSIS_SECONDS: Final = 35.0
STALL_PICTURES: Final = 3
#: Seconds without a byte after which a stream is said to stand still: with two seconds between looks, within ten.
STILL_SECONDS: Final = 6.0

PublisherStatus: TypeAlias = Literal["asleep", "waiting", "starting", "running", "pausing"]


class PublisherState(msgspec.Struct, frozen=True):
    """One camera's publisher: asleep (nobody watches), waiting (for MediaMTX), starting, running, or pausing
    after a failure. `detail` says why it last failed, and what to do; `restarts` counts its failures.
    """

    status: PublisherStatus
    detail: str = ""
    pid: int | None = None
    restarts: int = 0


class PublishedCamera(msgspec.Struct, eq=False):
    """A camera that is there, and the task that publishes it when it is wanted."""

    source: CameraSource
    state: PublisherState = PublisherState("asleep")
    wanted_until: float = -math.inf
    ends: Restarts = msgspec.field(default_factory=Restarts)
    #: Since when the ffmpeg that runs, or ran last, has sent media; infinite while it has not.
    publishes_since: float = math.inf
    #: Set while its ffmpeg runs; what that says of its source.
    progress: Progress | None = None
    complaints: ffmpeg.Complaints = msgspec.field(default_factory=lambda: ffmpeg.Complaints(may_redirect=False))
    meter: RateMeter = msgspec.field(default_factory=RateMeter)
    #: Why it failed last; why its ffmpeg is being ended, if that is a failure.
    cause: Cause | None = None
    fault: Cause | None = None
    #: Its server does not say the size of the picture.
    needs_analysis: bool = False
    #: When somebody was let in to publish it, of a camera that is pushed.
    let_in_at: float = -math.inf
    #: All of its task; one ffmpeg, or one stream that is pushed; a pause.
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    attempt: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    pause: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    _stirred: trio.Event = msgspec.field(default_factory=trio.Event)

    def is_wanted(self, now: float) -> bool:
        return self.source.always_on or now < self.wanted_until

    def note_media(self) -> None:
        """Its ffmpeg sends media from now on."""
        self.publishes_since = trio.current_time()

    def stir(self) -> None:
        self._stirred.set()

    async def sleep(self) -> None:
        self._stirred = trio.Event()
        await self._stirred.wait()

    @property
    def figures(self) -> Figures:
        """Size and rate of what is passed on, as far as ffmpeg says them."""
        size = self.complaints.figures
        return Figures(size.width, size.height, self.meter.rate, size.video, size.audio)

    @property
    def longest_silence(self) -> float:
        """Seconds that the source may be silent, whatever holds for others."""
        rate = self.source.rate or self.meter.rate
        kind = kind_of(self.source)
        silence = kind.silence
        if self.needs_analysis or (kind.is_device and kind.sets_key_frames(self.source)):
            # MediaMTX counts nothing before the first key frame.
            silence = ANALYSIS_SECONDS
        return max(silence, STALL_PICTURES / rate if rate else 0.0)

    def stands_still(self, now: float) -> bool:
        """Whether its bytes have not moved for so long that no viewer can overlook it; where its rate is known."""
        rate = self.source.rate or self.meter.rate
        since = math.inf if self.progress is None else self.progress.moved_at
        return bool(rate) and now - since >= max(STILL_SECONDS, STALL_PICTURES / rate)

    def begin_again(self) -> None:
        """Try again at once: what caused earlier failures may be over."""
        self.ends.forget()
        self.pause.cancel()
        self.stir()
