"""Retention at work: files that the policies do not keep are deleted, and a disk that stays full is noticed."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
import trio

from edged.access.grants import Grant
from edged.clock import Clock
from edged.library.recording_changes import protect
from edged.library.recording_index import BATCH, RecordingIndex
from edged.library.retention import Policy, Removal, list_unprotected, plan
from edged.library.retention_policies import RetentionPolicies
from edged.library.spans import Spans, merge_spans
from edged.store import recordings as rows
from edged.store import segments
from edged.store.database import Database
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

#: Seconds after its end that the last file of a recording may need to be closed.
_CLOSING_SECONDS: Final = 60.0
#: Joined files that nobody has fetched for so long are deleted, seconds.
_JOINED_SECONDS: Final = 86400.0
#: The same where the disk is short of space: somebody may just be fetching one.
_FETCHING_SECONDS: Final = 60.0
#: Between two looks for recordings without files, where nothing was deleted, seconds.
_BURY_SECONDS: Final = 600.0
#: On a disk too small for the setting this share of it stays free, and half of that before recording stops.
_SMALL_SHARE: Final = 10
#: Oldest files of a camera that are read at once.
_PAGE: Final = 100
_log = structlog.get_logger("recordings")


class RetentionSweep:
    """Carries the policies out. `is_full`: even so the disk is too full to record."""

    def __init__(
        self, index: RecordingIndex, trust: Database, clock: Clock, policies: RetentionPolicies, *, stop_bytes: int
    ) -> None:
        """Below `stop_bytes` of free space nothing is recorded; the policy keeps more free."""
        self._index, self._trust, self._clock = index, trust, clock
        self.policies = policies
        self._stop_bytes = stop_bytes
        self._one = trio.Lock()
        #: Held while files are chosen and deleted: what is protected is protected before or after that.
        self._deleting = trio.Lock()
        self._buried_at = -math.inf
        self.is_full = False
        #: How many files it has deleted since the start.
        self.files_deleted = 0

    async def clean_up(self) -> tuple[int, int]:
        """Delete now what the policies do not keep: (files, bytes). Raises StoreFailed."""
        before = self.files_deleted
        deleted = await self.run_once()
        return self.files_deleted - before, sum(deleted.values())

    async def protect(self, record: RecordingRecord, is_protected: bool, grant: Grant) -> None:
        """Have a recording kept, or not any more: durable when this returns, and for every file that is still there.

        Raises NotFound if it was deleted meanwhile, StoreFailed, and what the grant raises.
        """
        async with self._deleting:
            await grant(partial(protect, record, is_protected))

    async def run_once(self) -> dict[str, int]:
        """Delete what the policies do not keep, one sweep at a time. Reason → bytes deleted. Raises StoreFailed."""
        async with self._one:
            return await self._sweep()

    def keep_free(self, total: int) -> int:
        """Bytes of a disk of `total` bytes that stay free: those of the policy, on a small disk a tenth of it."""
        return min(self.policies.policy.keep_free_bytes, total // _SMALL_SHARE)

    async def _sweep(self) -> dict[str, int]:
        await self.policies.save()
        await self._index.remove_old_joined(self._clock.system - _JOINED_SECONDS)
        free, total = await self._index.free()
        keep_free = self.keep_free(total)
        if free < keep_free:
            # Joined files can be made again: before any recording goes, they go.
            await self._index.remove_old_joined(self._clock.system - _FETCHING_SECONDS)
            free, total = await self._index.free()
        removed = await self._delete(replace(self.policies.policy, keep_free_bytes=keep_free), free)
        deleted: dict[str, int] = {}
        for removal in removed:
            deleted[removal.reason] = deleted.get(removal.reason, 0) + removal.row.size
        for reason, size in deleted.items():
            files = [removal.row.file for removal in removed if removal.reason == reason]
            _log.info("recordings_deleted", reason=reason, bytes=size, files=len(files), oldest=files[0])
        self.files_deleted += len(removed)
        now = self._clock.monotonic()
        if removed or now - self._buried_at >= _BURY_SECONDS:
            self._buried_at = now
            await self._bury()
        await self._judge()
        return deleted

    async def _delete(self, policy: Policy, free: int) -> list[Removal]:
        """What was deleted."""
        removed: list[Removal] = []
        stuck: set[str] = set()
        while True:
            async with self._deleting:
                chosen = await self._choose(policy, free, stuck)
                reasons: Mapping[str, str] = {removal.row.file: removal.reason for removal in chosen}
                gone = await self._index.remove([removal.row for removal in chosen], reasons)
            removed += [removal for removal in chosen if removal.row.file in gone]
            free += sum(removal.row.size for removal in chosen if removal.row.file in gone)
            stuck |= reasons.keys() - gone
            # Where a file could not be deleted another may have to go in its place.
            if len(chosen) < BATCH and reasons.keys() <= gone:
                return removed

    async def _choose(self, policy: Policy, free: int, stuck: Collection[str]) -> list[Removal]:
        """What goes next, at most BATCH; none of `stuck`."""
        now = self._clock.now() if self._clock.is_trusted else None
        protected = await self._read_protected()

        def choose(connection: sqlite3.Connection) -> list[Removal]:
            sums = {camera: size for camera, (_, size) in segments.sums(connection).items()}
            # Nobody needs to look at files while nothing can exceed a limit.
            if not policy.has_ages and not policy.is_exceeded(sums, free):
                return []
            loose = {
                camera: (row for row in _list_loose(connection, camera, protected) if row.file not in stuck)
                for camera in sums
            }
            return plan(loose, sums, policy, free_bytes=free, now=now, most=BATCH)

        return await self._index.choose(choose)

    async def _read_protected(self) -> dict[str, Spans]:
        """Camera → when its protected recordings begin and end."""
        found: dict[str, Spans] = {}
        for camera, began, ended in await self._trust.read(rows.list_protected):
            found.setdefault(camera, []).append((began, ended))
        return {camera: merge_spans(spans) for camera, spans in found.items()}

    async def _bury(self) -> None:
        """Recordings that have ended and have no files left count as deleted."""
        now = self._clock.system
        candidates = await self._trust.read(partial(rows.list_ended, limit=BATCH))
        old = [record for record in candidates if record.ended is not None and now - record.ended > _CLOSING_SECONDS]
        empty = [item.record.recording_id for item in await self._index.summarize(old, now) if not item.files]
        if empty:
            _log.info("recordings_without_files", recordings=len(empty))
            await self._trust.write(partial(rows.delete, recording_ids=empty, at=now, reason="retention"))

    async def _judge(self) -> None:
        """Whether the disk is too full to record."""
        free, total = await self._index.free()
        limit = min(self._stop_bytes, total // (2 * _SMALL_SHARE))
        if free < limit and not self.is_full:
            self.is_full = True
            _log.error(
                "recording_stopped_disk_full", free_bytes=free, needed_bytes=limit,
                remedy="delete recordings or add space: recording goes on by itself then",
            )  # fmt: skip
        elif self.is_full and free > limit + limit // 4:
            self.is_full = False
            _log.info("recording_resumed", free_bytes=free)


def _list_loose(connection: sqlite3.Connection, camera: str, protected: Mapping[str, Spans]) -> Iterator[SegmentRow]:
    """The files of a camera that may go, oldest first."""
    page = partial(segments.list_oldest, connection, camera, _PAGE)
    return list_unprotected(page, protected.get(camera, ()))
