"""Retention at work: files that the policies do not keep are deleted, and a disk that stays full is noticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Final, Literal, TypeAlias

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Grant
from edged.clock import Clock
from edged.library.deleted_recordings import DeletedRecordings
from edged.library.obstacles import FULL, ONLY_PROTECTED, STOPPED, UNWRITABLE, Obstacle
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

#: Joined files that nobody has fetched for so long are deleted, seconds.
_JOINED_SECONDS: Final = 86400.0
#: The same where the disk is short of space: somebody may just be fetching one.
_FETCHING_SECONDS: Final = 60.0
#: On a disk too small for the setting this share of it stays free, and half of that before recording stops.
_SMALL_SHARE: Final = 10
#: A file that is so much older than allowed, seconds, should be gone.
_OVERDUE_SECONDS: Final = 600.0
#: Oldest files of a camera that are read at once.
_PAGE: Final = 100
#: What happens where space runs out: the oldest recordings go, or recording stops.
OnFull: TypeAlias = Literal["oldest", "stop"]
_log = structlog.get_logger("recordings")


class Overdue(msgspec.Struct, frozen=True):
    """Cameras that have files which are older than allowed, and why they are still there."""

    cameras: tuple[str, ...]
    why: str
    remedy: str

    @property
    def message(self) -> str:
        """A sentence."""
        return f"recordings of {', '.join(self.cameras)} are older than allowed{self.why}"

    def narrowed(self, sees: Callable[[str], bool]) -> Overdue | None:
        """The same of those cameras that `sees` admits; None without any."""
        cameras = tuple(filter(sees, self.cameras))
        return Overdue(cameras, self.why, self.remedy) if cameras else None


class RetentionSweep:
    """Carries the policies out. `obstacle`: even so the disk is too full to record. `overdue`: something is still there
    that should be gone."""

    def __init__(
        self, index: RecordingIndex, trust: Database, clock: Clock, policies: RetentionPolicies, *, stop_bytes: int,
        on_full: OnFull = "oldest",
    ) -> None:  # fmt: skip
        """Below `stop_bytes` of free space nothing is recorded; with `on_full` "oldest" the policy keeps more free."""
        self._index, self._trust, self._clock = index, trust, clock
        self.policies = policies
        self.deleted = DeletedRecordings(index, trust, clock)
        self._stop_bytes, self._on_full = stop_bytes, on_full
        self._one = trio.Lock()
        #: Held while files are chosen and deleted: what is protected is protected before or after that.
        self._deleting = trio.Lock()
        self.obstacle: Obstacle | None = None
        self.overdue: Overdue | None = None
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
            return await self._sweep() if self._index.medium.is_there else {}

    def keep_free(self, total: int) -> int:
        """Bytes of a disk of `total` bytes that stay free: those of the policy, on a small disk a tenth of it."""
        return min(self.policies.policy.keep_free_bytes, total // _SMALL_SHARE)

    def is_short(self, free: int, total: int) -> bool:
        """Whether a sweep has to be made for the lack of space."""
        return free < (self.keep_free(total) if self._on_full == "oldest" else self._limit(total))

    def _limit(self, total: int) -> int:
        """Bytes of free space below which nothing is recorded."""
        return min(self._stop_bytes, total // (2 * _SMALL_SHARE))

    async def _sweep(self) -> dict[str, int]:
        await self.policies.save()
        await self._index.remove_old_joined(self._clock.system - _JOINED_SECONDS)
        free, total = await self._index.free()
        keep_free = self.keep_free(total)
        if free < keep_free:
            # Joined files can be made again: before any recording goes, they go.
            await self._index.remove_old_joined(self._clock.system - _FETCHING_SECONDS)
            free, total = await self._index.free()
        policy = replace(self.policies.policy, keep_free_bytes=keep_free if self._on_full == "oldest" else 0)
        removed = await self._delete(policy, free)
        deleted: dict[str, int] = {}
        newest: dict[str, str] = {}
        for removal in removed:
            deleted[removal.reason] = deleted.get(removal.reason, 0) + removal.row.size
            newest[removal.row.camera] = max(newest.get(removal.row.camera, ""), removal.row.file)
        # A segment that somebody else deleted would have gone by now: until then its seal says that it is missing.
        await self._index.remove_lone_seals(newest)
        for reason, size in deleted.items():
            files = [removal.row.file for removal in removed if removal.reason == reason]
            _log.info("recordings_deleted", reason=reason, bytes=size, files=len(files), oldest=files[0])
        self.files_deleted += len(removed)
        await self._judge_space()
        await self.deleted.look([removal.row for removal in removed])
        await self._judge_ages(policy)
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

    async def _judge_space(self) -> None:
        """Whether the disk is too full to record, or takes nothing, and why."""
        free, total = await self._index.free()
        limit, before = self._limit(total), self.obstacle
        was_full = before is not None and before.kind == "full"
        self.obstacle = None
        try:
            await self._index.prepare()
        except OSError:
            self.obstacle = UNWRITABLE
        if self.obstacle is None and (free < limit or (was_full and free <= limit + limit // 4)):
            self.obstacle = STOPPED if self._on_full == "stop" else FULL if await self._has_loose() else ONLY_PROTECTED
        if self.obstacle is None and before is not None:
            _log.info("recording_resumed", free_bytes=free)
        elif self.obstacle is not None and self.obstacle != before:
            event = "recording_stopped_disk_full" if self.obstacle.kind == "full" else "recording_stopped_unwritable"
            _log.error(
                event, problem=self.obstacle.message, free_bytes=free, needed_bytes=limit,
                remedy=f"{self.obstacle.remedy}: recording goes on by itself then",
            )  # fmt: skip

    async def _has_loose(self) -> bool:
        """Whether there is a file that may go, or none at all."""
        protected = await self._read_protected()
        return await self._index.choose(
            lambda connection: (
                not (sums := segments.sums(connection))
                or any(next(_list_loose(connection, camera, protected), None) for camera in sums)
            )
        )

    async def _judge_ages(self, policy: Policy) -> None:
        """Whether files are still there that should be gone."""
        now = self._clock.system
        protected = await self._read_protected() if policy.has_ages else {}

        def find(connection: sqlite3.Connection) -> list[str]:
            return [
                camera
                for camera in segments.sums(connection)
                if (age := policy.age_of(camera)) is not None
                and (oldest := next(_list_loose(connection, camera, protected), None)) is not None
                and now - oldest.ended > age + _OVERDUE_SECONDS
            ]

        cameras = tuple(sorted(await self._index.choose(find))) if policy.has_ages else ()
        found = None
        if cameras and not self._clock.is_trusted:
            found = Overdue(
                cameras, ": the clock is not trusted",
                "set the clock or let it reach a time server: nothing goes for its age before that",
            )  # fmt: skip
        elif cameras:
            found = Overdue(
                cameras, " and could not be deleted",
                "see that edged may write to recording.folder; the journal of edged names the files",
            )  # fmt: skip
        if found != self.overdue and found is not None:
            _log.warning("recordings_overdue", cameras=cameras, problem=found.message, remedy=found.remedy)
        elif found is None and self.overdue is not None:
            _log.info("recordings_in_time")
        self.overdue = found


def _list_loose(connection: sqlite3.Connection, camera: str, protected: Mapping[str, Spans]) -> Iterator[SegmentRow]:
    """The files of a camera that may go, oldest first."""
    page = partial(segments.list_oldest, connection, camera, _PAGE)
    return list_unprotected(page, protected.get(camera, ()))
