"""Clips: an interval of a camera under a name of its own, whether or not somebody asked for a recording of it.

A clip is a row like that of a recording which has ended: it is listed, shown and deleted as one, needs the same files,
keeps them from being deleted with a recording, and goes with them when retention takes them. Its mp4 is made when it is
first fetched (joins), so that a clip that nobody fetches costs nothing.

It begins with a key frame at its begin or before, the first one in the part (about a second) that holds the last of
these, and ends with the part that holds its end. Of a file that is being written it takes what is there, up to the last
whole part; for one that is due just now it waits. What is in memory only (pre_rolls) is put on the disk for it, before
it is known whether there will be a clip: where there is none, retention takes it like every other file.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from edged.access.grants import Grant
from edged.clock import Clock, iso
from edged.errors import InvalidParams, InvalidState, NotFound, StoreFailed
from edged.library import recording_changes as changes
from edged.library.active_recordings import CLIP, new_id
from edged.library.fmp4 import NotASegment, Part, Track, read_codecs, read_pictures, read_segment
from edged.library.joins import changed_format, choose_parts, end_in, open_segment, read_part
from edged.library.pre_rolls import Claim
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import Measured
from edged.library.recording_names import complete_name
from edged.library.recordings import Recordings
from edged.library.spans import GAP_SECONDS
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

#: Longest clip, seconds.
LONGEST_SECONDS: Final = 86400.0
#: How far the clock of whoever asks may run ahead of ours, seconds: an end so far in the future is now.
AHEAD_SECONDS: Final = 5.0
#: Seconds at an edge of an interval for which no further file is taken: the times of two files may overlap by so much.
_SLIVER: Final = 0.1
#: Seconds of the picture that its recorder may not have written yet: they are waited for, and if they do not come, they
#: are not missing. And seconds between two looks for them.
_UNWRITTEN: Final = 2.5
_AGAIN: Final = 0.25
_log = structlog.get_logger("recordings")


class Clip(msgspec.Struct, frozen=True):
    """A clip that was made. `begin` and `end` of its pictures, and the stretches of the interval that was asked for of
    which nothing is recorded, as (begin, end); Unix seconds."""

    measured: Measured
    begin: float
    end: float
    missing: tuple[tuple[float, float], ...]


class Moment(msgspec.Struct, frozen=True):
    """One picture of a recording: `at` Unix seconds, when it was taken.

    It is the first one `skip` seconds behind the begin of `parts`, which begin with a key frame or right before one.
    """

    row: SegmentRow
    parts: tuple[Part, ...]
    tracks: tuple[Track, ...]
    skip: float
    at: float

    @property
    def key(self) -> tuple[str, float]:
        """Equal for the same picture."""
        return self.row.camera, self.at


class Clips:
    """Intervals and moments of what was recorded."""

    def __init__(self, recordings: Recordings, clock: Clock) -> None:
        self._recordings, self._index, self._clock = recordings, recordings.index, clock

    async def create(
        self, camera: str, begin: float, end: float, *, filename: str | None, made_by: str, grant: Grant
    ) -> Clip:
        """Keep an interval, Unix seconds, under a name: durable when this returns.

        Raises InvalidParams for an interval that cannot be and for an unsafe name, NotFound where nothing of it is
        recorded, InvalidState where the format of the picture changed in it, StorageFull where the disk does not take
        what is in memory, StoreFailed, and what the grant raises.
        """
        self._index.require_medium()
        now = self._clock.system
        check_interval(begin, end, now)
        name = complete_name(filename, camera, "mp4", now) if filename else None
        end = min(end, now)
        rows = await self._collect(camera, begin, end)
        if self._index.files.is_open(rows[-1]) and end - rows[-1].ended < _UNWRITTEN:
            end = min(end, rows[-1].ended)
        missing = find_missing(rows, begin, end)
        used, begin, end = _without_slivers(rows, begin, end)
        first, last = await self._look(camera, used, begin, end)
        usual = f"{camera}_{datetime.fromtimestamp(begin, UTC):%Y-%m-%d_%H-%M-%S}_clip.mp4"
        record = RecordingRecord(
            recording_id=new_id(), filename=name or usual, camera=camera, format="mp4",
            began=max(begin, used[0].began), ended=min(end, used[-1].ended), reason=CLIP, made_by=made_by,
        )  # fmt: skip
        # A deletion that chooses its files after this finds the clip; what one has deleted before is missed here.
        async with self._index.choosing:
            there = {row.began for row in await self._index.list_with_open(camera, begin, end)}
            if not there.issuperset(row.began for row in used):
                raise _deleted(camera)
            record = await grant(partial(changes.insert, record))
        _log.info("clip_created", camera=camera, recording=record.recording_id, by=made_by)
        (measured,) = await self._index.measure([record], now)
        return Clip(measured, first, last, missing)

    async def _collect(self, camera: str, begin: float, end: float) -> list[SegmentRow]:
        """The files of an interval, Unix seconds, once what is due of it is on the disk. Raises NotFound, StorageFull,
        StoreFailed."""
        edge = min(_SLIVER, (end - begin) / 4)
        is_whole = await self._recordings.fetch_held(Claim(camera, begin + edge, end - edge))
        rows = await self._index.list_with_open(camera, begin, end)
        with trio.move_on_after(_UNWRITTEN):
            while self._is_due(camera, rows, end):
                await trio.sleep(_AGAIN)
                rows = await self._index.list_with_open(camera, begin, end)
        if rows:
            return rows
        if not is_whole and (obstacle := self._recordings.obstacle) is not None:
            raise obstacle.error
        raise NotFound(
            f"nothing is recorded of {camera} from {iso(begin)} to {iso(end)}",
            hint="list_recordings shows what there is" if is_whole
            else "the file that holds it is being written: ask again in some seconds",
            resource="recording", id=camera,
        )  # fmt: skip

    def _is_due(self, camera: str, rows: Sequence[SegmentRow], end: float) -> bool:
        """Whether the end of an interval is recorded and will be in a file just now; `rows` are its files."""
        if (rows and rows[-1].ended >= end) or self._clock.system - end > _UNWRITTEN:
            return False
        return camera in self._recordings.active or (bool(rows) and self._index.files.is_open(rows[-1]))

    async def find_moment(self, camera: str, at: float, within: float = math.inf) -> Moment:
        """The last picture that was recorded at a time, Unix seconds, or before, by so many seconds at most.

        Raises InvalidParams for a time that is still to come, NotFound, InvalidState, StoreFailed.
        """
        self._index.require_medium()
        now = self._clock.system
        if at > now + AHEAD_SECONDS:
            raise InvalidParams(
                f"at lies in the future: it is {iso(now)} here", hint="take_snapshot takes a picture now", field="at"
            )
        row = await self._index.find_before(camera, at)
        moment = None
        if row is not None:
            with _explained(camera):
                moment = await trio.to_thread.run_sync(_find_moment, self._index.files, row, at)
        if moment is None or moment.at < at - within:
            before = "or before" if within == math.inf else f"or in the {within:g} s before"
            raise NotFound(
                f"no picture is recorded of {camera} at {iso(at)} {before}",
                hint="list_recordings shows what there is", resource="recording", id=camera,
            )  # fmt: skip
        return moment

    async def read(self, moment: Moment) -> AsyncGenerator[bytes, None]:
        """What must be decoded for a picture, as a fragmented MP4. Raises InvalidState, StoreFailed."""
        files, row = self._index.files, moment.row
        with _explained(row.camera):
            _, header = await trio.to_thread.run_sync(open_segment, files, row)
        yield header
        for number, part in enumerate(moment.parts):
            with _explained(row.camera):
                piece = await trio.to_thread.run_sync(
                    read_part, files, row, part, moment.tracks, -moment.parts[0].begin, number
                )
            yield piece

    async def _look(self, camera: str, rows: Sequence[SegmentRow], begin: float, end: float) -> tuple[float, float]:
        """Begin and end of the pictures of an interval. Raises InvalidState, StoreFailed."""
        with _explained(camera):
            return await trio.to_thread.run_sync(_look, self._index.files, rows, begin, end)


def _deleted(camera: str) -> InvalidState:
    return InvalidState(
        f"a part of that recording of {camera} has just been deleted", hint="ask again for what is left"
    )


@contextmanager
def _explained(camera: str) -> Iterator[None]:
    """Raises InvalidState, StoreFailed for a file that cannot be read."""
    try:
        yield
    except FileNotFoundError as problem:
        raise _deleted(camera) from problem
    except NotASegment as problem:
        raise InvalidState(f"a file of that recording of {camera} is damaged: {problem}") from problem
    except OSError as problem:
        raise StoreFailed(f"the recording could not be read: {problem.strerror}") from problem


def check_interval(begin: float, end: float, now: float) -> None:
    """Raises InvalidParams for an interval that is empty, reversed, too long, or still to come; Unix seconds."""
    if not begin < end:
        raise InvalidParams("end must be later than start", field="end")
    if end - begin > LONGEST_SECONDS:
        raise InvalidParams(
            f"a clip is {LONGEST_SECONDS / 3600:g} hours long at most", hint="make several", field="end"
        )
    if end > now + AHEAD_SECONDS:
        raise InvalidParams(
            f"end lies in the future: it is {iso(now)} here", hint="a clip holds what was recorded", field="end"
        )
    if begin >= now:
        raise InvalidParams(f"start lies in the future: it is {iso(now)} here", field="start")


def find_missing(rows: Sequence[SegmentRow], begin: float, end: float) -> tuple[tuple[float, float], ...]:
    """The stretches of [begin, end), Unix seconds, that no file holds; of `GAP_SECONDS` and more. `rows` by begin."""
    found: list[tuple[float, float]] = []
    held = begin
    for row in rows:
        if row.began - held > GAP_SECONDS:
            found.append((held, row.began))
        held = max(held, row.ended)
    if end - held > GAP_SECONDS:
        found.append((held, end))
    return tuple(found)


def _without_slivers(rows: Sequence[SegmentRow], begin: float, end: float) -> tuple[Sequence[SegmentRow], float, float]:
    """Without a first or last file that shares less than `_SLIVER` with the interval, which ends there then."""
    if len(rows) > 1 and rows[0].ended - begin < _SLIVER:
        rows, begin = rows[1:], rows[0].ended
    if len(rows) > 1 and end - rows[-1].began < _SLIVER:
        rows, end = rows[:-1], rows[-1].began
    return rows, begin, end


def _look(files: RecordingFiles, rows: Sequence[SegmentRow], begin: float, end: float) -> tuple[float, float]:
    """Begin and end of the pictures that belong to an interval. Raises InvalidState where they change their format,
    NotASegment, OSError."""
    codecs: bytes | None = None
    first, last = begin, end
    for row in rows:
        segment, header = open_segment(files, row)
        if codecs is not None and codecs != read_codecs(header):
            raise changed_format(row)
        codecs = read_codecs(header)
        offset = max(0.0, begin - row.began)
        parts = choose_parts(segment.parts, offset, end_in(row, end))
        if row is rows[0] and parts:
            # A part may hold a later key frame, too; the join begins with the first.
            first = row.began + float(next((key for part in parts for key in part.keys), parts[0].begin))
        if row is rows[-1] and parts:
            last = row.began + float(parts[-1].end)
    return first, last


def _find_moment(files: RecordingFiles, row: SegmentRow, at: float) -> Moment | None:
    """The last picture of a segment at a time or before, Unix seconds. Raises NotASegment, OSError."""
    with files.read(row) as file:
        segment = read_segment(file)
        offset = min(at - row.began, float(segment.duration))
        parts = choose_parts(segment.parts, offset, math.nextafter(offset, math.inf))
        # The last part may hold sound alone up to then.
        pictures = [each for part in parts for each in read_pictures(file, part, segment.tracks)] if parts else []
    if not pictures:
        return None
    earlier = [each for each in pictures if each <= offset] or pictures[:1]
    # Half-way from the picture before: times are rounded on the way.
    skip = float(earlier[-1] - pictures[0])
    if len(earlier) > 1:
        skip -= float(earlier[-1] - earlier[-2]) / 2
    return Moment(row, tuple(parts), segment.tracks, skip, row.began + float(earlier[-1]))
