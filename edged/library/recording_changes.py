"""How recordings begin, end and go in trust.db: each by the grant of whoever asks, and with what takes it back."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Commit, Grant
from edged.clock import Clock
from edged.errors import EdgedError, InvalidState, StoreFailed
from edged.library.active_recordings import ActiveRecording, deadline_of
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import Measured, RecordingIndex
from edged.library.recording_names import insert_named, no_recording
from edged.library.spans import is_touched, merge_spans
from edged.repeats import Lasting
from edged.store import recordings as rows
from edged.store.database import Database
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

#: What helps where a disk refuses.
_REMEDY: Final = "look at the disk, and at the rights of its folders: it is tried again until then"
T = TypeVar("T")
_log: Final = structlog.get_logger("recordings")


async def insert(record: RecordingRecord, commit: Commit) -> RecordingRecord:
    """It begins, under a name that is free. Raises InvalidState."""
    undo = partial(rows.forget, recording_id=record.recording_id)
    return await commit(partial(insert_named, record=record), undo=undo)


async def end(record: RecordingRecord, before: RecordingRecord, commit: Commit) -> None:
    """It has ended, and was as `before` says."""
    assert record.ended is not None, "it has ended"
    name = record.recording_id
    await commit(
        partial(rows.end, recording_id=name, began=record.began, ended=record.ended),
        undo=partial(rows.resume, recording_id=name, began=before.began),
    )


async def prolong(active: ActiveRecording, until: float, clock: Clock, grant: Grant) -> None:
    """One that ends by itself goes on until a later time, Unix seconds. Raises InvalidState, and as the grant does."""
    before = active.record
    longer = replace(before, until=until)

    async def write(commit: Commit) -> None:
        undo = partial(rows.shorten, recording_id=before.recording_id, until=before.until)
        if not await commit(partial(rows.prolong, recording_id=before.recording_id, until=until), undo=undo):
            raise InvalidState(f"the recording of {before.camera} begins or ends just now", hint="ask again")
        active.record, active.deadline = longer, deadline_of(longer, clock)

    try:
        with trio.CancelScope(shield=True):
            await grant(write)
    except BaseException:
        if active.record is longer:
            active.record, active.deadline = before, deadline_of(before, clock)
        raise


async def protect(record: RecordingRecord, is_protected: bool, commit: Commit) -> None:
    """It is kept from now on, or not any more. Raises NotFound if it was deleted meanwhile."""
    name = record.recording_id
    undo = partial(rows.protect, recording_id=name, is_protected=record.is_protected)
    if not await commit(partial(rows.protect, recording_id=name, is_protected=is_protected), undo=undo):
        raise no_recording(record.filename)
    _log.info("recording_protected" if is_protected else "recording_unprotected", recording=name)


class Deletion(msgspec.Struct):
    """A recording that is to go, at that Unix time."""

    record: RecordingRecord
    at: float
    reason: str
    is_done: bool = False

    async def commit(self, commit: Commit) -> None:
        """Its row says that it is deleted; its bytes are not gone yet. Raises InvalidState if it is protected."""
        await commit(self._delete, undo=partial(rows.keep, recording_ids=[self.record.recording_id], at=self.at))
        self.is_done = True

    def _delete(self, connection: sqlite3.Connection) -> None:
        if rows.is_protected(connection, self.record.recording_id):
            raise InvalidState(
                f"{self.record.filename} is protected", hint="unprotect_recording ends that", resource="recording",
                filename=self.record.filename,
            )  # fmt: skip
        rows.delete(connection, [self.record.recording_id], self.at, self.reason)


async def remove_useless(trust: Database, index: RecordingIndex, measured: Measured, reason: str) -> int:
    """The files of a deleted recording go that no other one needs; their bytes. Raises StoreFailed, also where the disk
    keeps one of them: it goes later."""
    await index.forget_joined(measured.record.recording_id)
    async with index.choosing:
        useless = await find_useless(trust, measured)
        gone = await index.remove(useless, dict.fromkeys((row.file for row in useless), reason))
    if kept := len(useless) - len(gone):
        raise StoreFailed(
            f"{measured.record.filename} is deleted, but the disk has kept {kept} of its files",
            hint="is it read-only, or failing? They are deleted as soon as it lets them", in_force=True,
        )  # fmt: skip
    return sum(row.size for row in useless if row.file in gone)


async def find_useless(trust: Database, measured: Measured) -> list[SegmentRow]:
    """The files of a deleted recording that no other one needs; never one that is being written."""
    if not measured.files:
        return []
    others = await trust.read(
        partial(
            rows.list_overlapping,
            camera=measured.record.camera,
            begin=min(row.began for row in measured.files),
            end_=max(row.ended for row in measured.files),
        )
    )
    needed = merge_spans((each.began, math.inf if each.ended is None else each.ended) for each in others)
    useless = [row for row in measured.files if not is_touched(needed, row.began, row.ended)]
    return [row for row in useless if not RecordingFiles.is_open(row)]


class Guard:
    """Does what a full disk, a failing one or a busy database may refuse, and what is therefore done again later.

    The log says when something begins to be refused, and when it is done again.
    """

    def __init__(self) -> None:
        self._lasting = Lasting()

    async def __call__(self, doing: str, work: Callable[[], Awaitable[object]]) -> None:
        """`doing` names it in the log."""
        await self.get(doing, work, None)

    async def get(self, doing: str, work: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """The same; what it gives, or `otherwise` where it was refused."""
        try:
            done = await work()
        except EdgedError as problem:
            if self._lasting.begins(doing, str(problem)):
                _log.warning("recordings_not_saved", doing=doing, problem=str(problem))
        except OSError as problem:
            if self._lasting.begins(doing, str(problem.strerror)):
                _log.warning("recordings_unreadable", doing=doing, problem=problem.strerror, remedy=_REMEDY)
        else:
            if self._lasting.ends(doing):
                _log.info("recordings_again", doing=doing)
            return done
        return otherwise
