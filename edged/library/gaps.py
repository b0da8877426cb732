"""Gaps in recordings that run: between the end of one file and the begin of the next.

Names of files follow the clock. Where that is set forward, or runs ahead of the stream's by 5 s, MediaMTX begins a
file that lies farther away, and nothing is missing: bytes have come all the time. So each look notes when the last ones
came.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from edged.feeds import Feed
from edged.library.active_recordings import ActiveRecording
from edged.library.recording_files import Look, name_of
from edged.library.recording_index import RecordingIndex
from edged.library.spans import GAP_SECONDS
from edged.store.recordings import RecordingRecord

#: A gap that is longer than the time without bytes by so many seconds is none: looks and parts are a second apart each.
DRIFT_SECONDS: Final = 2.5
#: A file's name may say so much less than the file, which is exact; files of a camera that are remembered.
_NAME_SECONDS: Final = 0.01
_MOST_FILES: Final = 8


class Gap(msgspec.Struct, frozen=True):
    """A recording has nothing from `begin` to `end`, Unix seconds.

    Where `end` is the earlier one its files overlap: the clock that names them, or that of the stream, was set back
    (MediaMTX begins a file where the two drift apart by 5 s). `is_continuous`: bytes came all the time, so that the
    clock was set forward.
    """

    record: RecordingRecord
    begin: float
    end: float
    is_continuous: bool = False

    @property
    def event(self) -> str:
        """Its name in contract 3b."""
        return "recording.gap" if self.end > self.begin and not self.is_continuous else "recording.drift"


class _Growth(msgspec.Struct):
    """The files of a camera that were seen being written: begin by its name → (its size, seconds without a byte of the
    camera's until it was seen). `at`: when bytes were last seen to come, monotonic seconds."""

    at: float = -math.inf
    files: dict[float, tuple[int, float]] = msgspec.field(default_factory=dict)

    def note(self, begin: float, size: int, now: float) -> None:
        before, silence = self.files.get(begin, (0, now - self.at))
        self.files[begin] = (size, silence)
        if size > before:
            self.at = now
        while len(self.files) > _MOST_FILES:
            del self.files[next(iter(self.files))]

    def silence_before(self, begin: float) -> float:
        """Seconds without a byte before a file of this begin; infinite where that was not seen."""
        found = [silence for named, (_, silence) in self.files.items() if abs(named - begin) < _NAME_SECONDS]
        return min(found, default=math.inf)


class Gaps:
    """Finds them in what each look finds, and publishes each once: when the file behind it has begun."""

    def __init__(self) -> None:
        self.changes: Feed[Gap] = Feed()
        #: How many each camera has had since the start.
        self.counts: Counter[str] = Counter()
        #: Where the files of a camera end so far, and where the newest one began.
        self._ends: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._growth: dict[str, _Growth] = {}

    async def load(self, index: RecordingIndex, active: Mapping[str, ActiveRecording]) -> None:
        """Go on behind the files of recordings that an earlier run left running. Raises StoreFailed."""
        for camera, end in (await index.last_ends(list(active))).items():
            if end > active[camera].record.began:
                self._ends[camera] = end

    def note(
        self, look: Look, active: Mapping[str, ActiveRecording], held: Collection[str], *, now: float
    ) -> None:  # fmt: skip
        """What a look at `now`, monotonic seconds, found. Of `held` cameras, which are recorded into memory, only
        closed files count: one that is open may follow some that are not on the disk yet."""
        for camera in self._ends.keys() - active.keys():
            del self._ends[camera]
            self._begun.pop(camera, None)
            self._growth.pop(camera, None)
        for file in look.writing:
            if file.camera in active and (begin := name_of(file.path)) is not None:
                self._growth.setdefault(file.camera, _Growth()).note(begin, file.size, now)
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
            growth = self._growth.get(camera, _Growth())
            is_continuous = begin - last > growth.silence_before(begin) + DRIFT_SECONDS
            gap = Gap(record, last, begin, is_continuous)
            self.counts[camera] += gap.event == "recording.gap"
            self.changes.publish(gap)
        self._ends[camera] = end if is_new else max(last, end)
        self._begun[camera] = begin
