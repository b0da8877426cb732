"""Recordings: begin, end, list, describe and delete (contract 3)."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from edged.clock import iso
from edged.errors import InvalidParams, Refused
from edged.library.recording_index import Summary
from edged.library.recording_names import no_recording
from edged.library.recordings import LONGEST_SECONDS
from edged.operations.catalogue import DeviceParams, OperationCall, operation
from edged.operations.file_params import (
    FilenameParams,
    FilePageParams,
    cut_page,
    grant_on,
    keep_seen,
    may,
    read_after,
    resource_of,
)
from edged.operations.pages import NextCursor, show_rows
from edged.operations.rest import create, delete, get, put
from edged.store.recordings import RecordingRecord

#: In the metrics.
_COUNTED_AS: Final = "recordings"
_Length: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class StartRecordingParams(msgspec.Struct, frozen=True):
    """Of which camera; for how long, in one of the units, None until `stop_recording`; under which name."""

    device: str
    duration: _Length | None = None
    duration_seconds: _Length | None = None
    duration_minutes: _Length | None = None
    duration_hours: _Length | None = None
    format: Literal["fmp4", "mp4", "mkv"] = "fmp4"
    filename: str | None = None


class ActiveFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """A running recording as v1 clients read it: `start_time` Unix seconds, `duration` seconds. `device_path` is the
    camera's name here; clients that are shown device files get that of the list."""

    device_path: str
    recording_id: str
    filename: str
    start_time: float
    status: str
    duration: float | msgspec.UnsetType = msgspec.UNSET


class RecordingStarted(msgspec.Struct, frozen=True):
    """A recording that has begun. `status` STARTING until the camera gives bytes; `duration` seconds, if given;
    `pre_roll` seconds before the call that it begins, where it does."""

    success: bool
    device: str
    session_id: str
    recording_id: str
    filename: str
    status: str
    start_time: str
    format: str
    recording: ActiveFacts
    duration: float | msgspec.UnsetType = msgspec.UNSET
    pre_roll: float | msgspec.UnsetType = msgspec.UNSET


class RecordingStopped(msgspec.Struct, frozen=True):
    """A recording that has ended; `duration` seconds, `file_size` bytes."""

    success: bool
    device: str
    session_id: str
    recording_id: str
    filename: str
    status: str
    start_time: str
    end_time: str
    duration: float
    file_size: int
    format: str


class RecordingState(msgspec.Struct, frozen=True):
    """A running recording: `start_time` Unix seconds, `duration` seconds so far."""

    recording_id: str
    filename: str
    start_time: float
    duration: float
    status: str


class RecordingFile(msgspec.Struct, frozen=True):
    """One recording: bytes, seconds, ISO 8601 times; `status` RECORDING while it runs, else STOPPED.

    `pre_roll`: seconds that it begins before it was asked for, where it does.
    """

    filename: str
    file_size: int
    duration: float
    created_time: str
    modified_time: str
    download_url: str
    format: str
    device: str
    recording_id: str
    status: str
    protected: bool
    gaps: int
    pre_roll: float | msgspec.UnsetType = msgspec.UNSET


class RecordingList(msgspec.Struct, frozen=True):
    """A part of the recordings that the caller may see, newest first; `total` of these."""

    files: list[RecordingFile]
    total: int
    limit: int
    offset: int
    next_cursor: NextCursor = UNSET


class Protection(msgspec.Struct, frozen=True):
    """Whether a recording is protected now."""

    filename: str
    protected: bool
    message: str


class RecordingDeleted(msgspec.Struct, frozen=True):
    """A recording is gone."""

    filename: str
    deleted: bool
    message: str


@operation(
    "camera:write",
    on_camera=True,
    rest=create("/api/cameras/{device}/recording", source="optional body"),
    counted_as=_COUNTED_AS,
)
async def start_recording(call: OperationCall, params: StartRecordingParams) -> RecordingStarted:
    """Record a camera, until `stop_recording` or for a given time; one that is away is recorded when it returns."""
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody in without a caller"
    seconds = read_length(params)
    record = await call.services.recordings.start(
        call.camera.name, filename=params.filename, form=params.format, seconds=seconds, made_by=caller.who,
        grant=grant_on(call, "camera:write", call.camera.name),
    )  # fmt: skip
    active = call.services.recordings.active.get(call.camera.name)
    status = active.status if active is not None and active.record.recording_id == record.recording_id else "STARTING"
    shown = msgspec.UNSET if seconds is None else seconds
    return RecordingStarted(
        success=True,
        device=call.camera.name,
        session_id=record.recording_id,
        recording_id=record.recording_id,
        filename=record.filename,
        status=status,
        start_time=iso(record.began),
        format=record.format,
        recording=ActiveFacts(call.camera.name, record.recording_id, record.filename, record.began, "active", shown),
        duration=shown,
        pre_roll=record.pre_roll or msgspec.UNSET,
    )


@operation("camera:write", on_camera=True, rest=delete("/api/cameras/{device}/recording"), counted_as=_COUNTED_AS)
async def stop_recording(call: OperationCall, params: DeviceParams) -> RecordingStopped:
    """End the recording of a camera; the reply comes when its last file is closed."""
    measured = await call.services.recordings.stop(call.camera.name, grant_on(call, "camera:write", call.camera.name))
    record = measured.record
    assert record.ended is not None, "it was stopped"
    return RecordingStopped(
        success=True,
        device=call.camera.name,
        session_id=record.recording_id,
        recording_id=record.recording_id,
        filename=record.filename,
        status="STOPPED",
        start_time=iso(record.began),
        end_time=iso(record.ended),
        duration=measured.duration,
        file_size=measured.size,
        format=record.format,
    )


@operation("camera:read", on_camera=True, rest=get("/api/cameras/{device}/recording"), counted_as=_COUNTED_AS)
def get_recording_status(call: OperationCall, params: DeviceParams) -> RecordingState | None:
    """The running recording of a camera; null where there is none."""
    active = call.services.recordings.active.get(call.camera.name)
    if active is None:
        return None
    record = active.record
    duration = max(0.0, call.services.clock.system - record.began) if active.status == "RECORDING" else 0.0
    status = "active" if active.status == "RECORDING" else active.status
    return RecordingState(record.recording_id, record.filename, record.began, duration, status)


@operation("camera:read", rest=get("/api/recordings"), counted_as=_COUNTED_AS)
async def list_recordings(call: OperationCall, params: FilePageParams) -> RecordingList:
    """Recordings of the cameras that the caller may see, newest first."""
    services, caller = call.services, call.session.caller
    cameras = [name for name in await services.recordings.list_cameras() if may(services, caller, "camera:read", name)]
    found, total = await services.recordings.list_page(
        cameras, limit=params.limit + 1, offset=params.offset, after=read_after(call, params)
    )
    page, cursor = cut_page(call, params, found, lambda item: (item.record.began, item.record.recording_id))
    files = keep_seen(call, await show_rows(call, page, show), attrgetter("device"))
    return RecordingList(files, total, params.limit, params.offset, cursor)


@operation("camera:read", rest=get("/api/recordings/{filename}"), counted_as=_COUNTED_AS)
async def get_recording_info(call: OperationCall, params: FilenameParams) -> RecordingFile:
    """One recording by its file name."""
    record = await find(call, params.filename, "camera:read")
    found = await call.services.recordings.summarize(record)
    # To sum it up took time, in which a right may have ended.
    check(call, record, params.filename, "camera:read")
    return show(found)


@operation("camera:delete", rest=delete("/api/recordings/{filename}"), counted_as=_COUNTED_AS)
async def delete_recording(call: OperationCall, params: FilenameParams) -> RecordingDeleted:
    """Delete a recording and its bytes."""
    record = await find(call, params.filename, "camera:delete")
    await call.services.recordings.delete(record, "request", grant_on(call, "camera:delete", record.camera))
    return RecordingDeleted(record.filename, True, f"{record.filename} was deleted")


@operation(
    "camera:write", rest=put("/api/recordings/{filename}/protection", source="optional body"), counted_as=_COUNTED_AS
)
async def protect_recording(call: OperationCall, params: FilenameParams) -> Protection:
    """Keep a recording: retention passes over its files, and it cannot be deleted. Repeating it changes nothing."""
    record = await find(call, params.filename, "camera:write")
    await call.services.recordings.sweep.protect(record, True, grant_on(call, "camera:write", record.camera))
    return Protection(record.filename, True, f"{record.filename} is protected")


@operation("camera:delete", rest=delete("/api/recordings/{filename}/protection"), counted_as=_COUNTED_AS)
async def unprotect_recording(call: OperationCall, params: FilenameParams) -> Protection:
    """End the protection of a recording: from here on it goes when its time has come."""
    record = await find(call, params.filename, "camera:delete")
    await call.services.recordings.sweep.protect(record, False, grant_on(call, "camera:delete", record.camera))
    return Protection(record.filename, False, f"{record.filename} is not protected any more")


def read_length(params: StartRecordingParams) -> float | None:
    """Seconds, by the one unit that was given. Raises InvalidParams for two of them, or for too long."""
    units = (
        (params.duration, 1.0),
        (params.duration_seconds, 1.0),
        (params.duration_minutes, 60.0),
        (params.duration_hours, 3600.0),
    )
    given = [value * unit for value, unit in units if value is not None]
    if len(given) > 1:
        raise InvalidParams("the duration is given more than once", hint="give one of the duration params")
    if given and given[0] > LONGEST_SECONDS:
        raise InvalidParams(f"the duration is longer than {LONGEST_SECONDS} seconds", field="duration")
    return given[0] if given else None


async def find(call: OperationCall, filename: str, capability: str) -> RecordingRecord:
    """A recording on whose camera the caller may do this. Raises Refused, NotFound if they may not see the camera."""
    record = await call.services.recordings.find(filename)
    check(call, record, filename, capability)
    return record


def check(call: OperationCall, record: RecordingRecord, filename: str, capability: str) -> None:
    """Raises Refused, NotFound as `find` does, of a recording that was asked for by this name."""
    caller = call.session.caller
    if not may(call.services, caller, "camera:read", record.camera):
        raise no_recording(filename)
    resource = resource_of(call.services, record.camera)
    try:
        call.services.gate.authorize(caller, capability, call.session.transport, resource)
    except Refused as problem:
        if problem.reason == "camera_denied":
            raise no_recording(filename) from problem
        raise


def show(found: Summary) -> RecordingFile:
    """A recording as lists and replies show it."""
    record = found.record
    last = found.last if found.files else record.ended or record.began
    return RecordingFile(
        filename=record.filename,
        file_size=found.size,
        duration=found.duration,
        created_time=iso(record.began),
        modified_time=iso(max(last, record.began)),
        download_url=download_url(record.filename),
        format=record.format,
        device=record.camera,
        recording_id=record.recording_id,
        status="RECORDING" if record.is_running else "STOPPED",
        protected=record.is_protected,
        gaps=found.gaps,
        pre_roll=record.pre_roll or msgspec.UNSET,
    )


def download_url(filename: str) -> str:
    """Where a recording is fetched from, without a host."""
    return f"/files/recordings/{filename}"
