"""Snapshots: take a picture and keep it (contract 3, take_snapshot)."""

from __future__ import annotations

import math
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET

from edged.clock import iso, iso_exact
from edged.errors import DependencyFailed, InvalidParams, StoreFailed
from edged.library.snapshots import SavedSnapshot, Snapshots, complete_name, no_snapshot
from edged.operations.catalogue import OperationCall, operation
from edged.operations.event_pictures import LONGEST_BEFORE, EventId, fetch_held, find_event
from edged.operations.file_params import (
    FilenameParams,
    FilePageParams,
    confirmation,
    cut_page,
    keep_seen,
    may,
    read_after,
    resource_of,
)
from edged.operations.pages import NextCursor, show_rows
from edged.operations.params import read_moment
from edged.operations.pictures import NO_PICTURE, check_attached, explained_to
from edged.operations.rest import create, delete, get
from edged.operations.services import Services

#: In the metrics.
_COUNTED_AS: Final = "recordings"

#: Of a JPEG.
Quality = Annotated[int, msgspec.Meta(ge=1, le=100)]
#: In a call: 0 is as without it. Clients in Go send their zero value for what nobody has set.
_QualityOrNone = Annotated[int, msgspec.Meta(ge=0, le=100)]


class SnapshotParams(msgspec.Struct, frozen=True):
    """Of which camera, under which name, in which format; `quality` 1 to 100 of a JPEG, 0 is as without it."""

    device: str
    filename: str | None = None
    format: Literal["jpg", "jpeg", "png"] = "jpg"
    quality: _QualityOrNone | None = None


class RecordedSnapshotParams(SnapshotParams, frozen=True, kw_only=True):
    """The same, of the time `at`: ISO 8601 with a zone, or Unix seconds; or of the event with this id."""

    at: str | float | None = None
    event: EventId | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """A kept picture; sizes in bytes, `timestamp` ISO 8601, `file_path` the file's name only."""

    success: bool
    device: str
    filename: str
    status: str
    timestamp: str
    file_size: int
    size_bytes: int
    file_path: str
    download_url: str


class SnapshotFile(msgspec.Struct, frozen=True):
    """A kept picture in a list; bytes, ISO 8601 times."""

    filename: str
    file_size: int
    created_time: str
    modified_time: str
    download_url: str
    device: str
    format: str


class SnapshotInfo(SnapshotFile, frozen=True):
    """The same, with `resolution` "WxH" in pixels, "unknown" if the file does not say it."""

    resolution: str


class SnapshotList(msgspec.Struct, frozen=True):
    """A part of the pictures that the caller may see, newest first; `total` of these."""

    files: list[SnapshotFile]
    total: int
    limit: int
    offset: int
    next_cursor: NextCursor = UNSET


class SnapshotDeleted(msgspec.Struct, frozen=True):
    """A picture is gone."""

    filename: str
    deleted: bool
    message: str


@operation("camera:write", on_camera=True, rest=create("/api/cameras/{device}/snapshots", source="optional body"))
async def take_snapshot(call: OperationCall, params: SnapshotParams) -> Snapshot:
    """Take one picture now and keep it. Raises DependencyFailed if the camera gives none in time."""
    saved = await keep_picture(call, params)
    return _show(call.camera.name, saved, iso(saved.created_at))


async def keep_picture(call: OperationCall, params: SnapshotParams, event_id: str = "") -> SavedSnapshot:
    """Take a picture of the call's camera and keep it; `event_id` of the event that it is of. A failure is one, too.

    Raises DependencyFailed, StoreFailed, InvalidParams, and Refused if the caller has lost the right meanwhile.
    """
    camera, services = call.camera, call.services
    kind: Literal["jpg", "png"] = "png" if params.format == "png" else "jpg"
    # Raises for a name that is none, before a camera is asked for its picture.
    complete_name(params.filename, camera.name, kind, services.clock.now())
    try:
        check_attached(camera, call.session.caller)
        with explained_to(call.session.caller):
            picture = await services.frames.snapshot(camera, format=kind, quality=params.quality or None)
        confirmation(call, "camera:write", camera.name)()
        return await services.snapshots.save(
            params.filename, camera.name, picture, format=kind, now=services.clock.now(), event_id=event_id
        )
    except (DependencyFailed, StoreFailed) as problem:
        # Not its cause, which others are told of here.
        sentence = problem.sentence if isinstance(problem, StoreFailed) else NO_PICTURE
        services.snapshots.fail(camera.name, sentence, event_id)
        raise


@operation(
    "camera:write", on_camera=True, rest=create("/api/cameras/{device}/recorded-snapshots"), counted_as=_COUNTED_AS
)
async def get_snapshot(call: OperationCall, params: RecordedSnapshotParams) -> Snapshot:
    """Take a picture out of what was recorded at a time or last before, and keep it. `timestamp` is the picture's.

    Of an event: the picture that was kept of it, if there is one.
    """
    camera, services = call.camera.name, call.services
    kind: Literal["jpg", "png"] = "png" if params.format == "png" else "jpg"
    if (params.at is None) is (params.event is None):
        raise InvalidParams("one of at and event is required", hint="a time, or the event_id of an event", field="at")
    complete_name(params.filename, camera, kind, services.clock.now())
    within, event_id = math.inf, params.event or ""
    if params.event is None:
        assert params.at is not None, "one of them is given"
        at = read_moment("at", params.at)
    else:
        at, kept = await find_event(services, camera, event_id)
        if kept is not None:
            picture, _ = await services.snapshots.describe(kept)
            confirmation(call, "camera:write", camera)()
            return _show(camera, picture, iso(picture.created_at))
        within = LONGEST_BEFORE
        await fetch_held(services, camera, at)
    data, taken_at = await take_recorded(services, camera, at, kind, params.quality or None, within)
    name = params.filename or complete_name(None, camera, kind, taken_at)
    confirmation(call, "camera:write", camera)()
    saved = await services.snapshots.save(
        name, camera, data, format=kind, now=services.clock.now(), event_id=event_id
    )  # fmt: skip
    return _show(camera, saved, iso_exact(taken_at))


async def take_recorded(
    services: Services, camera: str, at: float, kind: Literal["jpg", "png"], quality: int | None,
    within: float = math.inf,
) -> tuple[bytes, float]:  # fmt: skip
    """The last picture that was recorded of a camera at a time or before, `within` so many seconds; and its own time.
    Both Unix seconds.

    Raises InvalidParams for a time that is still to come, NotFound, InvalidState, Overloaded, DependencyFailed.
    """
    moment = await services.clips.find_moment(camera, at, within)
    picture = await services.stills.decode(
        moment.key, partial(services.clips.read, moment), moment.skip, format=kind, quality=quality
    )
    return picture, moment.at


def _show(camera: str, saved: SavedSnapshot, timestamp: str) -> Snapshot:
    return Snapshot(
        success=True,
        device=camera,
        filename=saved.filename,
        status="SUCCESS",
        timestamp=timestamp,
        file_size=saved.size,
        size_bytes=saved.size,
        file_path=saved.filename,
        download_url=download_url(saved.filename),
    )


@operation("camera:read", rest=get("/api/snapshots"), counted_as=_COUNTED_AS)
async def list_snapshots(call: OperationCall, params: FilePageParams) -> SnapshotList:
    """Pictures of the cameras that the caller may see, newest first."""
    services, caller = call.services, call.session.caller
    found, total = await services.snapshots.list_page(
        lambda camera: may(services, caller, "camera:read", camera),
        limit=params.limit + 1,
        offset=params.offset,
        after=read_after(call, params),
    )
    page, cursor = cut_page(call, params, found, lambda picture: picture.place)
    shown = await show_rows(call, page, lambda picture: SnapshotFile(**_facts(picture)))
    files = keep_seen(call, shown, attrgetter("device"))
    return SnapshotList(files, total, params.limit, params.offset, cursor)


@operation("camera:read", rest=get("/api/snapshots/{filename}"), counted_as=_COUNTED_AS)
async def get_snapshot_info(call: OperationCall, params: FilenameParams) -> SnapshotInfo:
    """One picture by its file name."""
    path = await find(call, params.filename)
    picture, size = await call.services.snapshots.describe(path)
    # To read it took time, in which a right may have ended.
    if not may(call.services, call.session.caller, "camera:read", call.services.snapshots.camera_of(path)):
        raise no_snapshot(params.filename)
    return SnapshotInfo(**_facts(picture), resolution="{}x{}".format(*size) if size else "unknown")


@operation("camera:delete", rest=delete("/api/snapshots/{filename}"), counted_as=_COUNTED_AS)
async def delete_snapshot(call: OperationCall, params: FilenameParams) -> SnapshotDeleted:
    """Delete a picture."""
    path = await find(call, params.filename)
    camera = call.services.snapshots.camera_of(path)
    call.services.gate.authorize(
        call.session.caller, "camera:delete", call.session.transport, resource_of(call.services, camera)
    )
    await call.services.snapshots.delete(path)
    return SnapshotDeleted(path.name, True, f"{path.name} was deleted")


async def find(call: OperationCall, filename: str) -> Path:
    """The newest picture of this name, of a camera that the caller may see. Raises NotFound, InvalidParams."""
    snapshots = call.services.snapshots
    for path in await snapshots.find(filename):
        if may(call.services, call.session.caller, "camera:read", snapshots.camera_of(path)):
            return path
    raise no_snapshot(filename)


def _facts(picture: SavedSnapshot) -> dict[str, Any]:
    return {
        "filename": picture.filename,
        "file_size": picture.size,
        "created_time": iso(picture.created_at),
        "modified_time": iso(picture.created_at),
        "download_url": download_url(picture.filename),
        "device": Snapshots.camera_of(picture.path),
        "format": "png" if picture.path.suffix.lower() == ".png" else "jpg",
    }


def download_url(filename: str) -> str:
    """Where a picture is fetched from, without a host."""
    return f"/files/snapshots/{filename}"
