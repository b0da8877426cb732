"""Cameras that are always recorded: one recording for each hour of UTC. The recorder goes on in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edged.clock import Clock
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


class RecordedHours:
    """Begins the hour of each of `cameras`, and ends those of others; `cameras` is None until they are known."""

    def __init__(
        self, active: ActiveRecordings, clock: Clock, begin: Callable[[RecordingRecord], Awaitable[object]],
        end: Callable[[ActiveRecording, float], Awaitable[object]],
    ) -> None:  # fmt: skip
        """`begin` makes a recording durable and records; `end` ends one at a time, Unix seconds."""
        self.cameras: frozenset[str] | None = None
        self._active, self._clock, self._begin, self._end = active, clock, begin, end
        #: When the last hour of a camera ended.
        self._ended: dict[str, float] = {}

    def note_end(self, record: RecordingRecord, at: float) -> None:
        """A recording has ended: the next hour of its camera begins there, if it was an hour."""
        if record.reason == ALWAYS:
            self._ended[record.camera] = at

    async def keep(self) -> None:
        """Begin and end what is due. Raises StoreFailed."""
        if self.cameras is None:
            return
        for active in self._active:
            if active.record.reason == ALWAYS and active.record.camera not in self.cameras:
                await self._end(active, self._clock.system)
        for camera in self.cameras:
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
