"""Snapshots: take a picture and keep it (contract 3, take_snapshot)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edged.clock import iso
from edged.operations.catalogue import OperationCall, operation
from edged.operations.pictures import check_attached, explained_to
from edged.operations.rest import create


class SnapshotParams(msgspec.Struct, frozen=True):
    """Of which camera, under which name, in which format; `quality` 1 to 100."""

    device: str
    filename: str | None = None
    format: Literal["jpg", "jpeg", "png"] = "jpg"
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None


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


@operation("camera:write", on_camera=True, rest=create("/api/cameras/{device}/snapshots", source="optional body"))
async def take_snapshot(call: OperationCall, params: SnapshotParams) -> Snapshot:
    """Take one picture now and keep it. Raises DependencyFailed if the camera gives none in time."""
    camera, services = call.camera, call.services
    check_attached(camera, call.session.caller)
    kind: Literal["jpg", "png"] = "png" if params.format == "png" else "jpg"
    with explained_to(call.session.caller):
        picture = await services.frames.snapshot(camera, format=kind, quality=params.quality)
    now = services.clock.now()
    saved = await services.snapshots.save(params.filename, camera.name, picture, format=kind, now=now)
    return Snapshot(
        success=True,
        device=camera.name,
        filename=saved.filename,
        status="SUCCESS",
        timestamp=iso(now),
        file_size=saved.size,
        size_bytes=saved.size,
        file_path=saved.filename,
        download_url=f"/files/snapshots/{saved.filename}",
    )
