"""Cameras that come, go or change → which of them are always recorded."""

from __future__ import annotations

from edged.cameras.model import CameraChanged
from edged.cameras.registry import Registry
from edged.feeds import Reader
from edged.library.recordings import Recordings


async def follow(changes: Reader[CameraChanged], cameras: Registry, recordings: Recordings) -> None:
    """Keep the cameras that are always recorded as their settings say; runs until cancelled.

    One that is unplugged stays among them: it is recorded when it returns.
    """
    while True:
        recordings.set_always([camera.name for camera in cameras.all() if camera.record_always])
        await changes.receive()
