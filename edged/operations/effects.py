"""The effective rights of a key, a user or a token, and the words of its rights that have no effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from edged.credentials import stream_names
from edged.credentials.callers import Caller, Streams
from edged.credentials.roles import has_effect
from edged.operations.camera_names import Cameras


def list_effective(caller: Caller) -> list[str]:
    """Capabilities and rights for one thing (`camera:read:camera1`) that the caller has, sorted."""
    return list(_sort(caller.capabilities, caller.grants))


@lru_cache(maxsize=256)
def _sort(capabilities: frozenset[str], grants: frozenset[str]) -> tuple[str, ...]:
    """Called for each key of a list; few are different."""
    return tuple(sorted(capabilities | grants))


def list_without_effect(
    permissions: Iterable[str] | None,
    camera_access: Sequence[str] | None,
    cameras: Cameras,
    streams: Streams | None = None,
) -> list[str]:
    """Permissions that are unknown, and cameras and streams that are not known (yet), in their order.

    `streams` are those of a key: the rights of a user and a token hold at a MediaMTX elsewhere, too.
    """
    idle = [word for word in permissions or () if not has_effect(word)]
    idle += [name for name in camera_access or () if name != "*" and cameras.find(name) is None]
    named = sorted(streams.read | streams.publish) if streams is not None else ()
    return idle + [name for name in named if stream_names.is_name(name) and cameras.find(name) is None]
