"""Cameras in rights are resolved to ids once, when the right is given (contract 10.23).

A path or a device file can be the name of another camera later. Stored and signed rights name cameras by id
(`camera0`), so that a camera that gets a freed path gets no right of the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET

from edged.cameras.model import Camera

P = TypeVar("P", bound=msgspec.Struct)


class Cameras(Protocol):
    """The part of the registry that is needed here."""

    def find(self, device: str) -> Camera | None: ...
    def all(self) -> tuple[Camera, ...]: ...


def resolve_rights(params: P, cameras: Cameras) -> P:
    """Params that give rights, with every camera in them named by id; the same object where nothing changes.

    Looks at `camera_access`, `permissions` (`camera:read:entrance`) and `streams` (`read`, `publish`), where the
    struct has them. A name that no camera has stays.
    """
    changes: dict[str, Any] = {}
    for member, resolve in (("camera_access", to_id), ("permissions", _resolve_permission)):
        names = getattr(params, member, None)
        if isinstance(names, list):
            changes[member] = _resolve_each(names, resolve, cameras)
    streams: Any = getattr(params, "streams", None)
    if streams is not None and streams is not UNSET:
        changes["streams"] = msgspec.structs.replace(
            streams,
            read=_resolve_each(streams.read, to_id, cameras),
            publish=_resolve_each(streams.publish, to_id, cameras),
        )
    changes = {name: value for name, value in changes.items() if value != getattr(params, name)}
    return msgspec.structs.replace(params, **changes) if changes else params


def to_id(name: str, cameras: Cameras) -> str:
    """`entrance`, `/dev/video0` or the label `Entrance` → `camera0`, if one camera has that name now; else the name
    itself.

    A label is free text, and a USB camera brings its own: none takes over what names cameras otherwise.
    """
    camera = cameras.find(name)
    if camera is None and not _is_other_name(name):
        labelled = [each for each in cameras.all() if each.label == name]
        camera = labelled[0] if len(labelled) == 1 else None
    return name if camera is None else camera.name


def _is_other_name(name: str) -> bool:
    """Whether whoever says this means no label: all cameras or a beginning (`*`, `cam*`), an id, a device file."""
    return name.endswith("*") or name.startswith("/") or (name.startswith("camera") and name[6:].isdecimal())


def paths_of(cameras: Cameras) -> dict[str, str]:
    """Camera id → MediaMTX path, of those cameras where these are different names."""
    return {camera.name: camera.path for camera in cameras.all() if camera.path != camera.name}


def _resolve_permission(permission: str, cameras: Cameras) -> str:
    """`camera:read:entrance` → `camera:read:camera0`; a capability alone, or another pattern, stays."""
    parts = permission.split(":", 2)
    if len(parts) < 3 or parts[0] not in ("camera", "stream"):
        return permission
    return ":".join((*parts[:2], to_id(parts[2], cameras)))


def _resolve_each(names: list[str], resolve: Callable[[str, Cameras], str], cameras: Cameras) -> list[str]:
    resolved = [resolve(name, cameras) for name in names]
    # Two names of one camera become one; a list without any stays as it was, so that its limits are checked.
    return names if resolved == names else list(dict.fromkeys(resolved))
