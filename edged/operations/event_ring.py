"""What has happened, also before a restart: the events of the ring that the caller may know of (contract 3)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from edged.clock import iso
from edged.errors import InvalidParams
from edged.library.event_kinds import read_kinds
from edged.library.event_ring import Position
from edged.operations.catalogue import OperationCall, find_camera, operation
from edged.operations.file_params import may
from edged.operations.pages import Cursor, read_cursor, write_cursor
from edged.operations.rest import get
from edged.store.events import EventRow, Wanted

#: What a number of a cursor may be at most.
_HIGHEST: Final = 2**53


class GetEventsParams(msgspec.Struct, frozen=True):
    """Behind `since`, which is the `cursor` of an earlier reply, the oldest first; without it the newest `limit`. Of
    one camera, of some kinds: kinds or families with commas between them."""

    since: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    device: str | None = None
    kinds: Annotated[str, msgspec.Meta(max_length=600)] | None = None


class EventItem(msgspec.Struct, frozen=True):
    """One event: `time` ISO 8601, `device` "" for one of the box, `details` an object that belongs to the kind."""

    time: str
    kind: str
    device: str
    details: msgspec.Raw


class EventPage(msgspec.Struct, frozen=True):
    """Events in the order in which they happened; `cursor` is the `since` of the next call; `gap`: some behind `since`
    are not to be had any more; `more`: there are more behind `cursor`."""

    events: list[EventItem]
    cursor: str
    gap: bool
    more: bool


@operation("camera:read", rest=get("/api/events"), counted_as="recordings")
async def get_events(call: OperationCall, params: GetEventsParams) -> EventPage:
    """Events of the cameras that the caller may see, and with system:read those of the box."""
    after = None if params.since is None else _read_position(call, params.since)
    kinds = () if params.kinds is None else read_kinds(params.kinds)
    services = call.services
    cameras = tuple(sorted(name for name in await services.events.list_cameras() if _may_know(call, name)))
    if params.device is not None:
        # Of a camera that is gone the events may be here yet.
        is_known = params.device in cameras and params.device != ""
        cameras = (
            params.device if is_known else find_camera("camera:read", params.device, services, call.session).name,
        )
    page = await services.events.read(after, Wanted(cameras, kinds), params.limit)
    # What was read took time, in which a right may have ended.
    known = {name: _may_know(call, name) for name in cameras}
    return EventPage(
        [_show(row) for row in page.events if known[row.camera]],
        write_cursor(call.operation.name, (page.position.number, page.position.run)),
        page.has_gap,
        page.has_more,
    )


def _may_know(call: OperationCall, camera: str) -> bool:
    """Whether the caller may know of events of this camera, "" for those of the box."""
    caller = call.session.caller
    if camera:
        return may(call.services, caller, "camera:read", camera)
    return call.services.gate.judge(caller, "system:read").allowed


def _read_position(call: OperationCall, text: str) -> Position:
    """Raises InvalidParams."""
    try:
        number, run = read_cursor(call.operation.name, text)
    except InvalidParams:
        number, run = -1.0, ""
    if not (0 <= number <= _HIGHEST and number.is_integer()):
        raise InvalidParams("since is no cursor of get_events", hint="give the cursor of an earlier reply, or none")
    return Position(run, int(number))


def _show(row: EventRow) -> EventItem:
    return EventItem(iso(row.at), row.kind, row.camera, msgspec.Raw(row.details.encode()))
