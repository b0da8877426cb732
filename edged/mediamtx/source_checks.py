"""Sources without a viewer are checked from time to time, so that their condition is known.

A camera in the network is asked for a few packets; one that gave no picture, of whatever kind, for a picture. A USB
camera or test picture that works is left alone: switching it on tells nothing that udev does not. What a publisher
or a viewer has at the moment needs no check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.children import Spawn
from edged.errors import DependencyFailed
from edged.mediamtx import causes, ffmpeg
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.conditions import Condition, Conditions
from edged.mediamtx.figures import Figures, RateMeter
from edged.mediamtx.frames import Frames
from edged.mediamtx.sources import CameraSource, kind_of, picture_of
from edged.mediamtx.streams import check_arguments

#: Seconds between two checks of a source that works.
CHECK_SECONDS: Final = 60.0
#: Seconds after the first failure; doubled with each, up to the longest.
PAUSE_SECONDS: Final = 3.0
LONGEST_PAUSE_SECONDS: Final = 120.0
#: Seconds of packets that a rate is measured over, and enough where it is known.
MEASURED_SECONDS: Final = 5.0
BRIEF_SECONDS: Final = 0.5
#: Checks at a time: each is a process.
AT_A_TIME: Final = 2
#: Seconds that ffmpeg has for one check beside the packets: as long as somebody who wants a picture waits.
_PATIENCE_SECONDS: Final = 30.0
#: Seconds that it has beyond twice the time of the packets.
_GRACE_SECONDS: Final = 3.0
#: Seconds that a source which was in use a moment ago is left alone.
_BUSY_PAUSE_SECONDS: Final = 5.0
_log = structlog.get_logger("source_checks")


def next_check(source: CameraSource, known: Condition, failures: int) -> float | None:
    """Seconds until this source is to be checked again, None if it is not. `failures`: checks in a row that failed."""
    if kind_of(source).is_pushed or (known.cause is not None and known.cause.is_ours):
        return None
    if known.works is False:
        return min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(failures, 16))
    if not kind_of(source).by_network:
        return None
    # One failure of a source that worked is made sure of before it is told.
    return PAUSE_SECONDS if failures else CHECK_SECONDS


class _Watched(msgspec.Struct, eq=False):
    """One source: when it is checked next, how often that failed in a row, and with what cause."""

    source: CameraSource
    due: float
    failures: int = 0
    cause: Cause | None = None
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    is_being_checked: bool = False
    needs_analysis: bool = False


class SourceChecks:
    """The checks of all sources. `run` must be running for anything to happen."""

    def __init__(
        self,
        spawn: Spawn,
        find_ffmpeg: ffmpeg.FindFfmpeg,
        frames: Frames,
        conditions: Conditions,
        is_published: Callable[[str], bool],
        *,
        folder: Path | None = None,
    ) -> None:
        """`is_published(path)`: whether a publisher is at work there, so that it knows best."""
        self._spawn = spawn
        self._find_ffmpeg = find_ffmpeg
        self._frames = frames
        self._conditions = conditions
        self._is_published = is_published
        self._folder = folder
        self._watched: dict[str, _Watched] = {}
        self._changed = trio.Event()
        self._limiter = trio.CapacityLimiter(AT_A_TIME)

    def set_sources(self, sources: Iterable[CameraSource]) -> None:
        """These can be checked; a new or changed one is checked at once. Returns at once."""
        wanted = {source.name: source for source in sources}
        now = trio.current_time()
        for name in self._watched.keys() - wanted.keys():
            self._watched.pop(name).scope.cancel()
        for name, source in wanted.items():
            old = self._watched.get(name)
            if old is None or picture_of(old.source) != picture_of(source):
                if old is not None:
                    old.scope.cancel()
                self._watched[name] = _Watched(source, now)
            else:
                old.source = source
        self.reschedule()

    def reschedule(self) -> None:
        """Something is known that was not: work out anew when each is due."""
        self._changed.set()

    async def run(self) -> None:
        """Check sources when they are due; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                soonest = float("inf")
                for one in self._watched.values():
                    if one.is_being_checked:
                        continue
                    due = self._due(one)
                    if due <= trio.current_time():
                        one.is_being_checked = True
                        nursery.start_soon(self._check, one)
                    else:
                        soonest = min(soonest, due)
                with trio.move_on_at(soonest):
                    await self._changed.wait()

    def _due(self, one: _Watched) -> float:
        pause = next_check(one.source, self._conditions.find(one.source.name), one.failures)
        # A failure that a viewer met brings the next check nearer.
        one.due = float("inf") if pause is None else min(one.due, trio.current_time() + pause)
        return one.due

    async def _check(self, one: _Watched) -> None:
        with trio.CancelScope() as one.scope:
            async with self._limiter:
                await self._check_once(one)
        one.is_being_checked = False
        self.reschedule()

    async def _check_once(self, one: _Watched) -> None:
        source, name = one.source, one.source.name
        known = self._conditions.find(name)
        if self._is_published(source.path) or name in self._frames.running:
            one.due = trio.current_time() + (_BUSY_PAUSE_SECONDS if known.works is not True else CHECK_SECONDS)
            return
        kind = kind_of(source)
        if kind.by_network and not kind.is_fed and not (known.cause is not None and known.cause.needs_picture):
            one.cause = await self._read_packets(one, measured=not known.figures.rate)
            if one.cause is not None and one.cause.slug == "codec" and not one.needs_analysis:
                # Its server does not say the size of the picture: analyse the stream itself, from now on.
                one.needs_analysis = True
                one.cause = await self._read_packets(one, measured=not known.figures.rate)
        else:
            one.cause = await self._take_picture(source)
        one.failures = one.failures + 1 if one.cause else 0
        if one.cause is not None and (known.works is not True or one.failures > 1):
            self._conditions.fails(name, one.cause)
        _log.debug("source_checked", camera=name, cause=one.cause.slug if one.cause else None, failures=one.failures)
        pause = next_check(source, self._conditions.find(name), one.failures)
        one.due = float("inf") if pause is None else trio.current_time() + pause

    async def _take_picture(self, source: CameraSource) -> Cause | None:
        """One picture, as a viewer would get it; its reader reports the condition."""
        try:
            await self._frames.snapshot(source)
        except NoPicture as failure:
            return failure.cause
        except DependencyFailed as failure:
            return replace(causes.NO_FFMPEG, exact=str(failure))
        return None

    async def _read_packets(self, one: _Watched, *, measured: bool) -> Cause | None:
        """Some packets of a camera in the network; why there were none."""
        source, meter, is_late = one.source, RateMeter(), True
        complaints = ffmpeg.Complaints(ffmpeg.secrets_of(source.url or ""), may_redirect=not source.is_pinned)
        seconds = MEASURED_SECONDS if measured else BRIEF_SECONDS
        last = one.cause.slug if one.cause else ""
        try:
            text = kind_of(source).playlist(source, one.failures, last, patient=one.needs_analysis)
        except DependencyFailed as failure:
            return replace(causes.BAD_ADDRESS, exact=str(failure))
        try:
            with trio.move_on_after(_PATIENCE_SECONDS + seconds) as limit, ExitStack() as files:
                playlist = files.enter_context(ffmpeg.private_file(text.encode(), ".ffconcat", self._folder))
                arguments = [self._find_ffmpeg(), *check_arguments(playlist, seconds)]
                async with self._spawn(arguments, stdout=True, stderr=True) as child, trio.open_nursery() as nursery:
                    assert child.stdout is not None, "asked for above"
                    nursery.start_soon(complaints.drain, child)
                    while data := await child.stdout.receive_some(4096):
                        meter.feed(data)
                        if meter.packets:
                            # ffmpeg counts by the stream's own clock, which may stand still.
                            limit.deadline = min(limit.deadline, trio.current_time() + 2 * seconds + _GRACE_SECONDS)
                    is_late = False
        except DependencyFailed as failure:
            return replace(causes.NO_FFMPEG, exact=str(failure))
        except OSError as error:
            return replace(causes.NO_FFMPEG, exact=f"ffmpeg could not be started: {error.strerror}")
        if meter.packets and not complaints.is_refused:
            size = complaints.figures
            self._conditions.works(
                source.name, "check", Figures(size.width, size.height, meter.rate, size.video, size.audio)
            )
            return None
        return complaints.explain(causes.SILENT if is_late else causes.ENDED, network=True, reads_only=True)
