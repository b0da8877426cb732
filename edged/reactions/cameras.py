"""A camera changes → MediaMTX's paths and edged's publishers follow; and the picture sources with them."""

from __future__ import annotations

from edged.cameras.model import Camera, CameraChanged, Status
from edged.cameras.registry import Registry
from edged.feeds import Reader
from edged.mediamtx.frames import Frames
from edged.mediamtx.paths import Paths
from edged.mediamtx.publisher import Publishers


async def follow(
    changes: Reader[CameraChanged], cameras: Registry, paths: Paths, publishers: Publishers, frames: Frames
) -> None:
    """Keep paths and publishers as the cameras are; runs for ever.

    A path exists for every known camera, also for one that is unplugged: its viewers get "no stream"
    rather than "no such path", and come back by themselves. Only connected cameras are published.
    """
    while True:
        apply(cameras.all(), paths, publishers, frames)
        await changes.receive()


def apply(known: tuple[Camera, ...], paths: Paths, publishers: Publishers, frames: Frames) -> None:
    """Tell MediaMTX's side which cameras there are."""
    paths.set_wanted(known)
    present = tuple(camera for camera in known if camera.status is Status.CONNECTED)
    publishers.set_sources(present)
    frames.set_sources(present)
