"""Retention at work: files that the policy does not keep are deleted, and a disk that stays full is noticed."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from edged.access.grants import Commit, Grant
from edged.clock import Clock
from edged.library.recording_index import BATCH, RecordingIndex
from edged.library.retention import DAY_SECONDS, GIGABYTE, KeptFile, Policy, Removal, plan
from edged.store import recordings as rows
from edged.store import retention
from edged.store.database import Database
from edged.store.retention import RetentionSetting
from edged.store.segments import FIRST, SegmentRow

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
_log = structlog.get_logger("recordings")


class RetentionSweep:
    """Carries a policy out. `is_full`: even so the disk is too full to record."""

    def __init__(
        self, index: RecordingIndex, trust: Database, clock: Clock, policy: Policy, *, stop_bytes: int
    ) -> None:
        """Below `stop_bytes` of free space nothing is recorded; the policy keeps more free."""
        self._index, self._trust, self._clock = index, trust, clock
        self.policy = policy
        #: What an administrator has set; None: the settings hold.
        self._setting: RetentionSetting | None = None
        self._stop_bytes = stop_bytes
        self._one = trio.Lock()
        self._buried_at = -math.inf
        self.is_full = False
        #: How many files it has deleted since the start.
        self.files_deleted = 0

    def load(self) -> None:
        """Take up what an administrator has set."""
        self._setting = self._trust.read_now(retention.load)
        if self._setting is not None:
            self.policy = merge(self.policy, self._setting)

    async def set_policy(self, setting: RetentionSetting, grant: Grant) -> None:
        """Keep recordings by this instead of the settings: durable when this returns. Raises what the grant raises."""
        await grant(partial(self._set_policy, setting))

    async def _set_policy(self, setting: RetentionSetting, commit: Commit) -> None:
        undo = partial(retention.save, setting=self._setting)
        await commit(partial(retention.save, setting=setting), undo=undo)
        self._setting, self.policy = setting, merge(self.policy, setting)
        _log.info("retention_changed", **msgspec.structs.asdict(setting))

    async def clean_up(self) -> tuple[int, int]:
        """Delete now what the policy does not keep: (files, bytes). Raises StoreFailed."""
        before = self.files_deleted
        deleted = await self.run_once()
        return self.files_deleted - before, sum(deleted.values())

    async def run_once(self) -> dict[str, int]:
        """Delete what the policy does not keep, one sweep at a time. Reason → bytes deleted. Raises StoreFailed."""
        async with self._one:
            return await self._sweep()

    async def _sweep(self) -> dict[str, int]:
        await self._index.remove_old_joined(self._clock.system - _JOINED_SECONDS)
        free, total = await self._index.free()
        policy = self._fitting(total)
        if free < policy.keep_free_bytes:
            # Joined files can be made again: before any recording goes, they go.
            await self._index.remove_old_joined(self._clock.system - _FETCHING_SECONDS)
            free, total = await self._index.free()
        sums = {camera: size for camera, (_, size) in (await self._index.sums()).items()}
        deleted: dict[str, int] = {}
        after, files = FIRST, 0
        # Nobody needs to look at files while nothing can exceed a limit.
        while policy.max_age is not None or self._is_short(sums, policy, free):
            oldest = await self._index.list_oldest(after)
            removals = await self._plan(oldest, sums, policy, free)
            chosen = {removal.file: removal.reason for removal in removals}
            going = [row for row in oldest if row.file in chosen]
            size = await self._index.remove(going, chosen)
            files += len(going)
            for row in going:
                sums[row.camera] -= row.size
                deleted[chosen[row.file]] = deleted.get(chosen[row.file], 0) + row.size
            free += size
            after = (oldest[-1].began, oldest[-1].file) if oldest else after
            is_old = bool(oldest) and oldest[-1].file in chosen and chosen[oldest[-1].file] == "age"
            if len(oldest) < BATCH or not (is_old or self._is_short(sums, policy, free)):
                break
        self.files_deleted += files
        for reason, size in deleted.items():
            _log.info("recordings_deleted", reason=reason, bytes=size)
        now = self._clock.monotonic()
        if files or now - self._buried_at >= _BURY_SECONDS:
            self._buried_at = now
            await self._bury()
        await self._judge()
        return deleted

    async def _plan(
        self, oldest: Sequence[SegmentRow], sums: Mapping[str, int], policy: Policy, free: int
    ) -> list[Removal]:
        now = self._clock.now() if self._clock.is_trusted else None
        protected = await self._trust.read(partial(_protected_files, files=oldest))
        kept = [KeptFile(row.file, row.camera, row.ended, row.size, row.file in protected) for row in oldest]
        return plan(kept, sums, policy, free_bytes=free, now=now)

    def keep_free(self, total: int) -> int:
        """Bytes of a disk of `total` bytes that stay free: those of the policy, on a small disk a tenth of it."""
        return min(self.policy.keep_free_bytes, total // _SMALL_SHARE)

    def _fitting(self, total: int) -> Policy:
        keep_free = self.keep_free(total)
        return replace(self.policy, keep_free_bytes=keep_free)

    @staticmethod
    def _is_short(sums: Mapping[str, int], policy: Policy, free: int) -> bool:
        """Whether a limit of size or space is still exceeded."""
        over = policy.max_bytes is not None and sum(sums.values()) > policy.max_bytes
        camera_over = any(sums.get(camera, 0) > limit for camera, limit in policy.camera_bytes.items())
        return over or camera_over or free < policy.keep_free_bytes

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


def merge(policy: Policy, setting: RetentionSetting) -> Policy:
    """A policy whose age and size are those that an administrator has set."""
    by_age = setting.enabled and setting.policy_type == "age"
    by_size = setting.enabled and setting.policy_type == "size"
    return replace(
        policy,
        max_age=setting.max_age_days * DAY_SECONDS if by_age else None,
        max_bytes=int(setting.max_size_gb * GIGABYTE) if by_size else None,
    )


def _protected_files(connection: sqlite3.Connection, files: Sequence[SegmentRow]) -> set[str]:
    """Those that a protected recording needs."""
    return {row.file for row in files if rows.is_protected(connection, row.camera, row.began, row.ended)}
