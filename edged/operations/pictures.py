"""Whether a camera can give a picture, and what a caller is told where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from edged.cameras.model import Camera
from edged.credentials.callers import Caller
from edged.errors import DependencyFailed
from edged.mediamtx.causes import NoPicture
from edged.mediamtx.frames import LINGER_SECONDS

if TYPE_CHECKING:
    from edged.mediamtx.live_picture import FrameReader
    from edged.operations.services import Services

#: The problem as callers see it who may not know its cause, which can reveal addresses of the cameras' network.
NO_PICTURE: Final = "no picture from its source"


def may_know_causes(caller: Caller | None) -> bool:
    """Whether the caller is told the cause of a camera's problem: administrators only."""
    return caller is not None and "system:admin" in caller.capabilities


def describe_problem(camera: Camera, caller: Caller | None) -> str:
    """The problem of a camera, "" if there is none: its cause for administrators, that there is one for others."""
    return camera.problem if may_know_causes(caller) or not camera.problem else NO_PICTURE


def watch_pictures(services: Services, camera: Camera) -> AbstractAsyncContextManager[FrameReader]:
    """The pictures of a camera for as long as the block runs. Raises DependencyFailed, NoPicture."""
    return services.frames.watch(camera)


async def take_jpeg(services: Services, camera: Camera, quality: int | None) -> bytes:
    """One picture of this quality, 1 to 100; the source stays open for a while. Raises DependencyFailed, NoPicture."""
    return await services.frames.snapshot(camera, quality=quality, linger=LINGER_SECONDS)


@contextmanager
def explained_to(caller: Caller | None) -> Iterator[None]:
    """Raises a missing picture with its cause for administrators, without it for others."""
    try:
        yield
    except NoPicture as failure:
        raise (failure.explained() if may_know_causes(caller) else failure) from None


def check_attached(camera: Camera, caller: Caller | None) -> None:
    """Raises DependencyFailed for a camera that is unplugged or does not answer."""
    if camera.is_attached:
        return
    raise DependencyFailed(
        f"{camera.name} is {camera.status.value.lower()}",
        hint=describe_problem(camera, caller) or "plug it in, then try again",
        camera=camera.name,
    )
