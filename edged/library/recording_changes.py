"""How recordings begin, end and go in trust.db: each by the grant of whoever asks, and with what takes it back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import structlog
import trio

from edged.access.grants import Commit, Grant
from edged.clock import Clock
from edged.errors import EdgedError, InvalidState
from edged.library.active_recordings import ActiveRecording, deadline_of
from edged.library.recording_index import Measured
from edged.library.recording_names import insert_named
from edged.store import recordings as rows
from edged.store.database import Database
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

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


@dataclass(slots=True)
class Deletion:
    """A recording that is to go, at that Unix time."""

    recording_id: str
    at: float
    reason: str
    is_done: bool = False

    async def commit(self, commit: Commit) -> None:
        """Its row says that it is deleted; its bytes are not gone yet."""
        names = [self.recording_id]
        await commit(
            partial(rows.delete, recording_ids=names, at=self.at, reason=self.reason),
            undo=partial(rows.keep, recording_ids=names, at=self.at),
        )
        self.is_done = True


async def find_useless(trust: Database, measured: Measured) -> list[SegmentRow]:
    """The files of a deleted recording that no other one needs."""
    needed = await trust.read(
        lambda connection: {
            row.file for row in measured.files if rows.list_overlapping(connection, row.camera, row.began, row.ended)
        }
    )
    return [row for row in measured.files if row.file not in needed]


async def guard(work: Callable[[], Awaitable[Any]]) -> None:
    """Do something that a full disk or a busy database may refuse: it is done again later."""
    try:
        await work()
    except EdgedError as problem:
        _log.warning("recordings_not_saved", problem=str(problem))
    except OSError as problem:
        _log.warning("recordings_unreadable", problem=problem.strerror)
