"""What there is of a camera in a time: recorded spans, gaps in recordings, and events in between (contract 3)."""

from __future__ import annotations

from typing import Final

import msgspec
import trio
from msgspec import UNSET, UnsetType

from edged.clock import iso_exact
from edged.errors import InvalidParams
from edged.library.spans import Interval
from edged.library.timelines import Span, Timeline, read_timeline
from edged.operations.catalogue import OperationCall, find_camera, operation
from edged.operations.file_params import confirmation, may
from edged.operations.pages import Cursor, Limit, NextCursor, read_cursor, write_cursor
from edged.operations.params import read_interval, read_moment
from edged.operations.rest import get
from edged.store.events import EventRow

_DAY: Final = 86_400.0
#: What a number in a cursor may be at most.
_HIGHEST: Final = 2**53


class GetTimelineParams(msgspec.Struct, frozen=True):
    """Of which camera, from when to when (ISO 8601 with a zone, or Unix seconds): without `end` until now, without
    `start` a day before the end. At most `limit` spans and so many events, behind those of the reply whose
    `next_cursor` is given as `cursor`."""

    device: str
    start: str | float | None = None
    end: str | float | None = None
    limit: Limit = 500
    cursor: Cursor | None = None


class TimelineSpan(msgspec.Struct, frozen=True):
    """The camera is recorded from `start` to `end`; `growing`: it is being recorded now."""

    start: str
    end: str
    growing: bool | UnsetType = UNSET


class TimelineGap(msgspec.Struct, frozen=True):
    """A recording was to run from `start` to `end`, and there is nothing of it."""

    start: str
    end: str


class TimelineEvent(msgspec.Struct, frozen=True):
    """One event of the camera; `details` an object that belongs to the kind."""

    time: str
    kind: str
    details: msgspec.Raw


class TimelinePage(msgspec.Struct, frozen=True):
    """What there is from `start` to before `end`, each in the order of time; a span that goes on in the next page is
    cut there."""

    device: str
    start: str
    end: str
    spans: list[TimelineSpan]
    gaps: list[TimelineGap]
    events: list[TimelineEvent]
    next_cursor: NextCursor = UNSET


@operation("camera:read", rest=get("/api/cameras/{device}/timeline"), counted_as="recordings")
async def get_timeline(call: OperationCall, params: GetTimelineParams) -> TimelinePage:
    """Which times of a camera are recorded, what is missing of its recordings, and its events in between."""
    services = call.services
    camera = await find_recorded(call, params.device)
    now = services.clock.system
    begin, end = _read_times(params, now)
    after = (begin, -1) if params.cursor is None else _read_place(call, params.cursor, end)
    found = await read_timeline(
        services.recordings, services.events, camera, after, end, now=now, limit=params.limit
    )  # fmt: skip
    shown = await trio.to_thread.run_sync(_show, call.operation.name, camera, found)
    # What was read took time, in which a right may have ended.
    confirmation(call, "camera:read", camera)()
    return shown


async def find_recorded(call: OperationCall, device: str) -> str:
    """The name of a camera whose recordings the caller may see; of one that is gone they are here yet.

    Raises CameraNotFound, also for a camera that the caller may not see, Refused.
    """
    services = call.services
    is_seen = services.cameras.find(device) is None and may(services, call.session.caller, "camera:read", device)
    if is_seen and device in await services.recordings.list_cameras():
        return device
    return find_camera("camera:read", device, services, call.session).name


def _read_times(params: GetTimelineParams, now: float) -> tuple[float, float]:
    """Raises InvalidParams."""
    if params.start is not None and params.end is not None:
        begin, end = read_interval(params.start, params.end)
    elif params.start is None:
        end = now if params.end is None else read_moment("end", params.end)
        begin = max(0.0, end - _DAY)
    else:
        begin, end = read_moment("start", params.start), now
    if begin >= now:
        field = "end" if params.start is None else "start"
        sentence = "start lies in the future" if params.start is not None else "end lies more than a day in the future"
        raise InvalidParams(sentence, hint="without end the timeline goes until now", field=field)
    return begin, end


def _read_place(call: OperationCall, text: str, end: float) -> tuple[float, int]:
    """Raises InvalidParams."""
    at, number = read_cursor(call.operation.name, text)
    is_number = number.removeprefix("-").isdecimal() and len(number) <= len(str(_HIGHEST)) and number.isascii()
    if not (is_number and 0 <= at < end):
        raise InvalidParams("cursor is none of this timeline", hint="give the same end, and the next_cursor before it")
    return at, int(number)


def _show(name: str, camera: str, found: Timeline) -> TimelinePage:
    following = found.following
    return TimelinePage(
        device=camera,
        start=iso_exact(found.begin),
        end=iso_exact(found.end),
        spans=list(map(_show_span, found.spans)),
        gaps=list(map(_show_gap, found.gaps)),
        events=list(map(_show_event, found.events)),
        next_cursor=UNSET if following is None else write_cursor(name, (following[0], str(following[1]))),
    )


def _show_span(span: Span) -> TimelineSpan:
    return TimelineSpan(iso_exact(span.begin), iso_exact(span.end), span.is_growing or UNSET)


def _show_gap(gap: Interval) -> TimelineGap:
    return TimelineGap(iso_exact(gap[0]), iso_exact(gap[1]))


def _show_event(row: EventRow) -> TimelineEvent:
    return TimelineEvent(iso_exact(row.at), row.kind, msgspec.Raw(row.details.encode()))
