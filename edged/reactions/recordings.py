"""Cameras that come, go or change → which of them are recorded always or by schedule, or have a pre-roll, and how long
recordings of each are kept."""

from __future__ import annotations

from edged.cameras.model import Camera, CameraChanged
from edged.cameras.registry import Registry
from edged.feeds import Reader
from edged.library.recordings import Recordings
from edged.library.retention import DAY_SECONDS, GIGABYTE, CameraPolicy


async def follow(changes: Reader[CameraChanged], cameras: Registry, recordings: Recordings) -> None:
    """Keep the cameras that are recorded by themselves, the pre-rolls, and the limits of each camera, as their settings
    say; runs until cancelled.

    One that is unplugged stays among them: it is recorded when it returns.
    """
    while True:
        there = cameras.all()
        recordings.sweep.policies.set_cameras({camera.name: read_limits(camera) for camera in there})
        recordings.set_hours({camera.name: camera.schedule for camera in there if camera.is_recorded_by_hours})
        recordings.set_pre_rolls(
            {camera.name: camera.pre_roll for camera in there if camera.pre_roll},
            [camera.name for camera in there if camera.is_held_in_memory],
        )
        await changes.receive()


def read_limits(camera: Camera) -> CameraPolicy | None:
    """The limits of its recordings; None if it has none of its own."""
    if not camera.max_age_days and not camera.max_size_gb:
        return None
    return CameraPolicy(
        max_age=camera.max_age_days * DAY_SECONDS or None, max_bytes=int(camera.max_size_gb * GIGABYTE) or None
    )
