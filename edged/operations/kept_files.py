"""Kept files as they are fetched: which one a name means to a caller, and where it is (contract 5.4)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edged.credentials.callers import Caller
from edged.library.recording_names import no_recording, no_segment
from edged.library.snapshots import no_snapshot
from edged.operations.file_params import may
from edged.operations.services import Services


class Kept(NamedTuple):
    """A file, the name that it is saved under, and the camera that it is of."""

    path: Path
    name: str
    camera: str


async def find_snapshot(services: Services, caller: Caller, name: str) -> Kept:
    """The newest picture of this name, of a camera that the caller may see. Raises NotFound, InvalidParams."""
    for path in await services.snapshots.find(name):
        camera = services.snapshots.camera_of(path)
        if may_see(services, caller, camera):
            return Kept(path, path.name, camera)
    raise no_snapshot(name)


async def find_segment(services: Services, caller: Caller, name: str) -> Kept:
    """A segment by CAMERA/DAY/NAME. Raises NotFound."""
    index = services.recordings.index
    row = await index.find(name)
    if row is None or not may_see(services, caller, row.camera):
        raise no_segment(name)
    path = index.files.find(row.file)
    return Kept(path, path.name, row.camera)


async def find_recording(services: Services, caller: Caller, name: str) -> Kept:
    """The recording of this name as one file. Raises NotFound, InvalidParams, and as `Recordings.find_file`."""
    record = await services.recordings.find(name)
    if not may_see(services, caller, record.camera):
        raise no_recording(name)
    path = await services.recordings.find_file(record)
    # To join its segments may have taken minutes.
    if not may_see(services, caller, record.camera):
        raise no_recording(name)
    return Kept(path, record.filename, record.camera)


def may_see(services: Services, caller: Caller, camera: str) -> bool:
    """Whether the caller may see a camera; one that is gone keeps its name, and its files stay with those who may."""
    return may(services, caller, "camera:read", camera)
