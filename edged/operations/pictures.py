"""Pictures of a camera for a caller: whether there can be one, and what is told where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edged.cameras.model import Camera
from edged.credentials.callers import Caller
from edged.errors import DependencyFailed
from edged.mediamtx.causes import NoPicture

#: What is told of a problem to those who may not know its cause: that may tell of the network of the cameras.
NO_PICTURE: Final = "no picture from its source"


def may_know_causes(caller: Caller | None) -> bool:
    """Whether the cause of a camera's problem is for this caller: administrators only."""
    return caller is not None and "system:admin" in caller.capabilities


def describe_problem(camera: Camera, caller: Caller | None) -> str:
    """What is wrong with a camera, "" if nothing is: the cause for an administrator, that something is for others."""
    return camera.problem if may_know_causes(caller) or not camera.problem else NO_PICTURE


@contextmanager
def explained_to(caller: Caller | None) -> Iterator[None]:
    """An administrator is told the cause of a missing picture, anybody else that there is none."""
    try:
        yield
    except NoPicture as failure:
        raise (failure.explained() if may_know_causes(caller) else failure) from None


def check_attached(camera: Camera, caller: Caller | None) -> None:
    """Raises DependencyFailed for a camera that is unplugged or does not answer: nobody needs to try it."""
    if camera.is_attached:
        return
    raise DependencyFailed(
        f"{camera.name} is {camera.status.value.lower()}",
        hint=describe_problem(camera, caller) or "plug it in, then try again",
        camera=camera.name,
    )
