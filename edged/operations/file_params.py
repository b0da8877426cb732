"""What operations on kept files share: their params, and whose files a caller may see."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edged.credentials.callers import Caller, Resource
from edged.operations.catalogue import camera_resource
from edged.operations.services import Services


class FilePageParams(msgspec.Struct, frozen=True):
    """Which part of the list, newest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0, le=999_999_999)] = 0


class FilenameParams(msgspec.Struct, frozen=True):
    """A file name, with or without its ending."""

    filename: str


def may(services: Services, caller: Caller | None, capability: str, camera: str) -> bool:
    """Whether a caller may do this to a camera, which may be gone."""
    return services.gate.judge(caller, capability, resource_of(services, camera)).allowed


def resource_of(services: Services, camera: str) -> Resource:
    """A camera as the gate knows it; one that is gone keeps its name."""
    known = services.cameras.find(camera)
    return camera_resource(known) if known else Resource.of_camera(camera)
