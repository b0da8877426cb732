"""The picture of an event that somebody has reported: the one that was kept of it, else what was recorded then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
import trio

from edged.errors import NotFound
from edged.library.event_kinds import FAMILIES
from edged.library.pre_rolls import Claim
from edged.operations.services import Services
from edged.store.events import EventRow

#: The id of an event, as create_event gives it.
EventId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
#: A picture that was recorded so many seconds before an event is not one of it.
LONGEST_BEFORE: Final = 10.0
#: Seconds around an event of which a pre-roll is put on the disk.
_AROUND: Final = 0.1


class ReportedMoment(NamedTuple):
    """When an event was reported, Unix seconds; and the newest picture that was kept of it, if there is one."""

    at: float
    kept: Path | None


async def find_event(services: Services, camera: str, event_id: str) -> ReportedMoment:
    """An event of a camera by its id. Raises NotFound also for one of another camera; StoreFailed."""
    rows = [
        (row, details)
        for row in await services.events.find(camera, event_id)
        if (details := _read(row)).get("event_id") == event_id
    ]
    event = next((row for row, _ in rows if row.kind.partition(".")[0] not in FAMILIES), None)
    if event is None:
        raise NotFound(
            f"no event {event_id!r} of {camera}", hint="get_events names those that are kept", resource="event",
            id=event_id,
        )  # fmt: skip
    for row, details in reversed(rows):
        if row.kind == "snapshot.taken" and (path := await _find_kept(services, camera, details)) is not None:
            return ReportedMoment(event.at, path)
    return ReportedMoment(event.at, None)


async def read_kept(services: Services, path: Path) -> bytes:
    """The bytes of a kept picture. Raises NotFound, StoreFailed."""
    return await services.snapshots.read(path)


async def fetch_held(services: Services, camera: str, at: float) -> None:
    """Have on the disk what only memory holds of the time of an event, Unix seconds."""
    await services.recordings.fetch_held(Claim(camera, at - _AROUND, at + _AROUND))


def _read(row: EventRow) -> dict[str, Any]:
    return msgspec.json.decode(row.details, type=dict[str, Any])


async def _find_kept(services: Services, camera: str, details: dict[str, Any]) -> Path | None:
    """The file that an event of a picture names, unless it was deleted, or its name is another one's now."""
    try:
        paths = await services.snapshots.find(str(details["filename"]))
    except NotFound:
        return None
    size = details["file_size"]
    return await trio.to_thread.run_sync(
        lambda: next((each for each in paths if each.parent.name == camera and _size(each) == size), None)
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
