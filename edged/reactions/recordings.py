"""Cameras that come, go or change → which of them are recorded always or by schedule, or have a pre-roll."""

from __future__ import annotations

from edged.cameras.model import CameraChanged
from edged.cameras.registry import Registry
from edged.feeds import Reader
from edged.library.recordings import Recordings


async def follow(changes: Reader[CameraChanged], cameras: Registry, recordings: Recordings) -> None:
    """Keep the cameras that are recorded by themselves, and the pre-rolls, as their settings say; runs until cancelled.

    One that is unplugged stays among them: it is recorded when it returns.
    """
    while True:
        there = cameras.all()
        recordings.set_hours({camera.name: camera.schedule for camera in there if camera.is_recorded_by_hours})
        recordings.set_pre_rolls(
            {camera.name: camera.pre_roll for camera in there if camera.pre_roll},
            [camera.name for camera in there if camera.is_held_in_memory],
        )
        await changes.receive()
