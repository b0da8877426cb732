"""The last seconds of what is recorded: MediaMTX may be writing the file that holds them, or they are in memory yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from edged.clock import Clock
from edged.errors import InvalidState
from edged.library.active_recordings import CLIP
from edged.library.pre_rolls import Claim, PreRolls
from edged.library.recording_index import RecordingIndex
from edged.store.recordings import RecordingRecord

#: Seconds after its end within which the last file of a recording is closed: a segment, and a group of pictures.
CLOSING_SECONDS: Final = 120.0
#: Seconds that somebody who wants the file waits for that.
WAIT_SECONDS: Final = 5.0
#: So many seconds after it was sent a picture is in a file: of a new one nothing is seen for a second.
UNWRITTEN_SECONDS: Final = 1.5


async def is_open(
    record: RecordingRecord, index: RecordingIndex, pre_rolls: PreRolls, *, goes_on: bool, now: float
) -> bool:
    """Whether a file that is not closed, or in memory, holds some of it, or one may that cannot be seen yet because the
    camera's recorder `goes_on`. `now` Unix seconds.

    A clip ends with a part that was whole when it was made: whether its file is closed does not matter.
    """
    ended = record.ended
    if ended is None or now - ended > CLOSING_SECONDS or record.reason == CLIP:
        return False
    if goes_on and now - ended < UNWRITTEN_SECONDS:
        return True
    return any(begin < ended for begin in await index.list_begins(record.camera)) or await pre_rolls.is_waiting(record)


async def await_tail(
    record: RecordingRecord,
    index: RecordingIndex,
    pre_rolls: PreRolls,
    *,
    goes_on: bool,
    clock: Clock,
    wait_look: Callable[[], Awaitable[None]],
) -> None:
    """Until nothing of it is open any more, so that what is joined then is all of it.

    `goes_on`: its camera is recorded still, by another recording or into memory. `wait_look` waits until the files were
    looked at once more. Raises InvalidState if it takes longer than `WAIT_SECONDS`: another recording of the camera
    goes on, in the same file.
    """
    with trio.move_on_after(WAIT_SECONDS):
        while await is_open(record, index, pre_rolls, goes_on=goes_on, now=clock.system):
            await wait_look()
        return
    raise InvalidState(
        f"the last seconds of {record.filename} are in a file that is being written",
        hint="ask again in a minute: the file is closed then",
    )


async def fetch_pieces(
    claim: Claim, pre_rolls: PreRolls, *, clock: Clock, wait_look: Callable[[], Awaitable[object]]
) -> bool:
    """Have what is in memory of an interval on the disk and in the index; whether all of it is.

    The piece that is being written is waited for, `WAIT_SECONDS` at most. `wait_look` as for `await_tail`.
    """
    if not pre_rolls.holds(claim.camera):
        return True
    with pre_rolls.claimed(claim), trio.move_on_after(WAIT_SECONDS):
        while clock.system - claim.end < UNWRITTEN_SECONDS or await pre_rolls.has_some(claim):
            await wait_look()
        return True
    return False
