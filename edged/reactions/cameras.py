"""A camera changes → MediaMTX's paths and edged's publishers follow; and the picture sources with them."""

from __future__ import annotations

import structlog

from edged.cameras.model import Camera, CameraChanged, Status
from edged.cameras.registry import Registry
from edged.feeds import Lagged, Reader
from edged.mediamtx.paths import Paths
from edged.mediamtx.publisher import Publishers

_log = structlog.get_logger("cameras")


async def follow(changes: Reader[CameraChanged], cameras: Registry, paths: Paths, publishers: Publishers) -> None:
    """Keep paths and publishers as the cameras are; runs for ever.

    A path exists for every known camera, also for one that is unplugged: its viewers get "no stream"
    rather than "no such path", and come back by themselves. Only connected cameras are published.
    """
    while True:
        apply(cameras.all(), paths, publishers)
        change = await changes.receive()
        if not isinstance(change, Lagged):
            camera = change.camera
            _log.info("camera", name=camera.name, label=camera.label, status=camera.status.value, problem=camera.problem)


def apply(known: tuple[Camera, ...], paths: Paths, publishers: Publishers) -> None:
    """Tell MediaMTX's side which cameras there are."""
    paths.set_wanted(known)
    publishers.set_sources(tuple(camera for camera in known if camera.status is Status.CONNECTED))
