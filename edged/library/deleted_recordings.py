"""Recordings that were deleted: their rows stay for a while, so that a name is not used again unnoticed.

A crash between the row and its files, a file that was still being written, or one that the disk refused to delete
leaves files of a recording that is no more: they are looked for once more. Recordings whose last files went count as
deleted, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from edged.clock import Clock
from edged.library.recording_changes import find_useless
from edged.library.recording_index import BATCH, RecordingIndex
from edged.store import recordings as rows
from edged.store.database import Database
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

#: Why a recording was deleted: by a caller, or because its files went.
REQUEST: Final = "request"
RETENTION: Final = "retention"
#: Seconds after its end that the last file of a recording may need to be closed; and after its deletion, if its camera
#: was recorded on.
CLOSING_SECONDS: Final = 60.0
SWEPT_SECONDS: Final = 300.0
#: Rows of deleted recordings are kept for so long, seconds.
KEPT_SECONDS: Final = 90 * 86400.0
#: Between two looks for recordings without files, where nothing was deleted, seconds.
_LOOK_SECONDS: Final = 600.0
_log = structlog.get_logger("recordings")


class DeletedRecordings:
    """Sweeps up after them, finds those whose files are gone, and forgets old ones."""

    def __init__(self, index: RecordingIndex, trust: Database, clock: Clock) -> None:
        self._index, self._trust, self._clock = index, trust, clock
        self._looked_at = -math.inf
        #: Behind which recording the next look for those without files begins.
        self._after = rows.FIRST

    async def look(self, removed: Sequence[SegmentRow]) -> None:
        """What is due, after these files were removed. Raises StoreFailed."""
        await self._sweep()
        if removed:
            await self._bury(await self._list_of(removed))
        now = self._clock.monotonic()
        # Where media are exchanged, the files of a recording may be on another one.
        if now - self._looked_at >= _LOOK_SECONDS and not self._index.medium.is_removable:
            self._looked_at = now
            page = await self._trust.read(partial(rows.list_after, after=self._after, limit=BATCH))
            self._after = rows.place_of(page[-1]) if len(page) == BATCH else rows.FIRST
            await self._bury(page)

    async def prune(self, now: float) -> int:
        """Forget those that were deleted long ago; `now` Unix seconds by a trusted clock. Raises StoreFailed."""
        count = 0
        while found := await self._trust.write(partial(rows.prune, before=now - KEPT_SECONDS, limit=BATCH)):
            count += found
        if count:
            _log.info("deleted_recordings_forgotten", recordings=count)
        return count

    async def _sweep(self) -> None:
        """The files of recordings that callers have deleted go, should there be any still."""
        now = self._clock.system
        done: list[str] = []
        deleted = await self._trust.read(partial(rows.list_unswept, limit=BATCH))
        for measured in await self._index.measure(deleted, now):
            record = measured.record
            async with self._index.choosing:
                if left := await find_useless(self._trust, measured):
                    await self._index.remove(left, dict.fromkeys((row.file for row in left), REQUEST))
            if not left and abs(now - (record.deleted_at or now)) > SWEPT_SECONDS:
                done.append(record.recording_id)
        if done:
            await self._trust.write(partial(rows.note_swept, recording_ids=done))

    async def _list_of(self, files: Sequence[SegmentRow]) -> list[RecordingRecord]:
        """The recordings that these belonged to."""
        spans: dict[str, tuple[float, float]] = {}
        for row in files:
            begin, end = spans.get(row.camera, (math.inf, -math.inf))
            spans[row.camera] = (min(begin, row.began), max(end, row.ended))
        return await self._trust.read(
            lambda connection: [
                record
                for camera, (begin, end) in spans.items()
                for record in rows.list_overlapping(connection, camera, begin, end)
            ]
        )

    async def _bury(self, candidates: Iterable[RecordingRecord]) -> None:
        """Recordings that have ended and have no files left count as deleted; but not what is protected."""
        now = self._clock.system
        old = [
            record
            for record in candidates
            if record.ended is not None and not record.is_protected and now - record.ended > CLOSING_SECONDS
        ]
        empty = [item.record.recording_id for item in await self._index.summarize(old, now) if not item.files]
        if empty:
            _log.info("recordings_without_files", recordings=len(empty))
            await self._trust.write(partial(rows.delete, recording_ids=empty, at=now, reason=RETENTION))
