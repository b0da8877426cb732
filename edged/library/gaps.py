"""Gaps in recordings that run: between the end of one file and the begin of the next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edged.feeds import Feed
from edged.library.active_recordings import ActiveRecording
from edged.library.recording_files import Look, name_of
from edged.library.recording_index import GAP_SECONDS, RecordingIndex
from edged.store.recordings import RecordingRecord


@dataclass(frozen=True, slots=True)
class Gap:
    """A recording has nothing from `begin` to `end`, Unix seconds.

    Where `end` is the earlier one its files overlap: the clock that names them, or that of the stream, was set back
    (MediaMTX begins a file where the two drift apart by 5 s).
    """

    record: RecordingRecord
    begin: float
    end: float

    @property
    def event(self) -> str:
        """Its name in contract 3b."""
        return "recording.gap" if self.end > self.begin else "recording.drift"


class Gaps:
    """Finds them in what each look finds, and publishes each once: when the file behind it has begun."""

    def __init__(self) -> None:
        self.changes: Feed[Gap] = Feed()
        #: How many each camera has had since the start.
        self.counts: Counter[str] = Counter()
        #: Where the files of a camera end so far, and where the newest one began.
        self._ends: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    async def load(self, index: RecordingIndex, active: Mapping[str, ActiveRecording]) -> None:
        """Go on behind the files of recordings that an earlier run left running. Raises StoreFailed."""
        for camera, end in (await index.last_ends(list(active))).items():
            if end > active[camera].record.began:
                self._ends[camera] = end

    def note(self, look: Look, active: Mapping[str, ActiveRecording], held: Collection[str]) -> None:
        """What a look found. Of `held` cameras, which are recorded into memory, only closed files count: one that is
        open may follow some that are not on the disk yet."""
        for camera in self._ends.keys() - active.keys():
            del self._ends[camera]
            self._begun.pop(camera, None)
        for row in sorted(look.closed, key=lambda row: row.began):
            if row.camera in active:
                self._take(active[row.camera].record, row.began, row.ended)
        for file in look.writing:
            begin = name_of(file.path)
            if file.camera in active and file.camera not in held and begin is not None:
                self._take(active[file.camera].record, begin, begin)

    def _take(self, record: RecordingRecord, begin: float, end: float) -> None:
        camera, last = record.camera, self._ends.get(record.camera, begin)
        is_new = abs(begin - self._begun.get(camera, -math.inf)) > GAP_SECONDS
        if is_new and abs(begin - last) > GAP_SECONDS:
            gap = Gap(record, last, begin)
            self.counts[camera] += gap.end > gap.begin
            self.changes.publish(gap)
        self._ends[camera] = end if is_new else max(last, end)
        self._begun[camera] = begin
