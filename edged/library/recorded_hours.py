"""Cameras that are recorded because their settings say so, always or in windows of the day.

One recording for each hour of UTC, or for what of it lies in a window; the recorder goes on in between. A window is
what a wall clock shows (local time of the box): where clocks are put forward the missing hour is not recorded, where
they are put back the hour is recorded both times. While the clock is not trusted nobody knows where a window begins,
and such a camera is recorded all the time: rather than not.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from edged.clock import Clock
from edged.config.schedules import Window, is_inside
from edged.library.active_recordings import (
    ALWAYS,
    HOUR_SECONDS,
    ActiveRecording,
    ActiveRecordings,
    end_of_hour,
    new_id,
)
from edged.library.recording_names import complete_name
from edged.store.recordings import RecordingRecord

_REMEDY: Final = "let the clock reach a time server, or set it and confirm that: edged clock reset"
_log = structlog.get_logger("recordings")


def local_minute(at: float) -> int:
    """The minute of the day that a wall clock shows at a time, Unix seconds; by the time zone that is set now."""
    time.tzset()
    local = time.localtime(at)
    return local.tm_hour * 60 + local.tm_min


class RecordedHours:
    """Begins the hour of each camera that is to be recorded, and ends those of others."""

    def __init__(
        self, active: ActiveRecordings, clock: Clock, begin: Callable[[RecordingRecord], Awaitable[object]],
        end: Callable[[ActiveRecording, float], Awaitable[object]],
    ) -> None:  # fmt: skip
        """`begin` makes a recording durable and records; `end` ends one at a time, Unix seconds."""
        #: Camera → its windows, none for always; None until the cameras are known.
        self.plans: Mapping[str, tuple[Window, ...]] | None = None
        self._active, self._clock, self._begin, self._end = active, clock, begin, end
        #: When the last hour of a camera ended.
        self._ended: dict[str, float] = {}
        self._is_ignored = False

    def set_plans(self, plans: Mapping[str, tuple[Window, ...]]) -> bool:
        """From here on these cameras are recorded, and no others; whether that is a change."""
        is_change, self.plans = plans != self.plans, dict(plans)
        return is_change

    @property
    def cameras(self) -> frozenset[str]:
        """Those that are to be recorded now."""
        plans = self.plans or {}
        if not any(plans.values()) or not self._clock.is_trusted:
            return frozenset(plans)
        minute = local_minute(self._clock.system)
        return frozenset(name for name, windows in plans.items() if not windows or is_inside(windows, minute))

    def note_end(self, record: RecordingRecord, at: float) -> None:
        """A recording has ended: the next hour of its camera begins there, if it was an hour."""
        if record.reason == ALWAYS and record.camera in self.cameras:
            self._ended[record.camera] = at

    async def keep(self) -> None:
        """Begin and end what is due. Raises StoreFailed."""
        if self.plans is None:
            return
        self._tell()
        cameras = self.cameras
        for active in self._active:
            if active.record.reason == ALWAYS and active.record.camera not in cameras:
                await self._end(active, self._clock.system)
        for camera in sorted(cameras):
            if self._active.find_hour(camera) is None:
                began = self._clock.system
                ended = self._ended.pop(camera, began)
                # Without a gap to the hour before, if that has just ended.
                began = ended if 0 <= began - ended < HOUR_SECONDS else began
                await self._begin(
                    RecordingRecord(
                        recording_id=new_id(), filename=complete_name(None, camera, "fmp4", began), camera=camera,
                        format="fmp4", began=began, until=end_of_hour(began), reason=ALWAYS, made_by="settings",
                    )
                )  # fmt: skip

    def _tell(self) -> None:
        """Say it once when schedules cannot be followed, and when they are again."""
        is_ignored = any((self.plans or {}).values()) and not self._clock.is_trusted
        if is_ignored and not self._is_ignored:
            _log.warning("schedules_not_followed", why="the clock is not trusted: all is recorded", remedy=_REMEDY)
        elif self._is_ignored and not is_ignored:
            _log.info("schedules_followed")
        self._is_ignored = is_ignored
