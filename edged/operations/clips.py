"""Clips: an interval of what was recorded of a camera, kept under a name (contract 3)."""

from __future__ import annotations

import msgspec

from edged.clock import iso_exact
from edged.library.recording_index import Measured
from edged.operations.catalogue import OperationCall, operation
from edged.operations.file_params import grant_on
from edged.operations.params import read_moment
from edged.operations.recordings import download_url
from edged.operations.rest import create


class CreateClipParams(msgspec.Struct, frozen=True):
    """Of which camera, from when to when: ISO 8601 with a zone, or Unix seconds; under which name."""

    device: str
    start: str | float
    end: str | float
    filename: str | None = None


class Missing(msgspec.Struct, frozen=True):
    """A stretch of which nothing is recorded; ISO 8601."""

    start_time: str
    end_time: str


class ClipCreated(msgspec.Struct, frozen=True):
    """A clip. `start_time` and `end_time` are those of its first picture and of the end of its last; `duration` seconds
    of video, without what is `missing` of the interval that was asked for; `source_size` bytes of the recorded files
    that it is cut from."""

    success: bool
    device: str
    recording_id: str
    filename: str
    status: str
    start_time: str
    end_time: str
    duration: float
    source_size: int
    format: str
    download_url: str
    missing: list[Missing]


@operation("camera:write", on_camera=True, rest=create("/api/cameras/{device}/clips"), counted_as="recordings")
async def create_clip(call: OperationCall, params: CreateClipParams) -> ClipCreated:
    """Keep an interval of what was recorded of a camera as a recording of its own: one mp4, cut to the key frame."""
    caller, camera = call.session.caller, call.camera.name
    assert caller is not None, "the gate lets nobody in without a caller"
    clip = await call.services.clips.create(
        camera, read_moment("start", params.start), read_moment("end", params.end), filename=params.filename,
        made_by=caller.who, grant=grant_on(call, "camera:write", camera),
    )  # fmt: skip
    measured: Measured = clip.measured
    record = measured.record
    return ClipCreated(
        success=True,
        device=camera,
        recording_id=record.recording_id,
        filename=record.filename,
        status="STOPPED",
        start_time=iso_exact(clip.begin),
        end_time=iso_exact(clip.end),
        duration=max(0.0, clip.end - clip.begin - sum(end - begin for begin, end in measured.gaps)),
        source_size=measured.size,
        format=record.format,
        download_url=download_url(record.filename),
        missing=[Missing(iso_exact(begin), iso_exact(end)) for begin, end in clip.missing],
    )
