"""Permissions, cameras and streams are checked before anything is made: a typing error would give nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import click

from edged.cli.asking import ask_all

#: Where there are more, the nearest of them are shown.
_MOST_SHOWN = 20


def check_rights(rights: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Raises UsageError for a permission that edged does not know, or a camera that the daemon does not know."""
    from edged.credentials.roles import find_nearest, has_effect, list_known

    for word in rights.get("permissions") or ():
        if not has_effect(word):
            near = find_nearest(word)
            meant = f"; did you mean {near}?" if near else f"; known are {', '.join(list_known())}"
            raise click.UsageError(f"--permission {word!r} is unknown{meant}")
    wanted = [name for name in rights.get("camera_access") or () if name != "*"]
    known = {str(name) for camera in _list_cameras(where) for name in list_names(camera)} if wanted else set()
    for name in wanted:
        if name not in known:
            raise click.UsageError(
                f"--camera {name!r} is unknown; {_show(known, name)}; --force accepts it all the same"
            )


def check_streams(streams: Mapping[str, list[str]], where: Mapping[str, Any], *, elsewhere: bool) -> None:
    """Raises UsageError for a stream that no camera of the daemon has, by its name or by how it begins; where the right
    holds `elsewhere`, too, that is only said."""
    from edged.credentials.stream_names import beginning_of

    wanted = [(option, name) for option, names in streams.items() for name in names if name != "*"]
    known = {str(name) for camera in _list_cameras(where) for name in list_names(camera)} if wanted else set()
    for option, name in wanted:
        begins = beginning_of(name)
        if name in known or (begins and any(each.startswith(begins) for each in known)):
            continue
        told = f"--{option} {name!r}: no camera here has this stream; {_show(known, name)}"
        if not elsewhere:
            raise click.UsageError(f"{told}; --force accepts it all the same")
        click.echo(f"{told}. It is good for a MediaMTX elsewhere only.", err=True)


def list_capabilities(role: str) -> list[str]:
    """All that a role may do."""
    from edged.credentials.roles import ROLES, canonical_role

    return sorted(ROLES.get(canonical_role(role), ()))


def summarise(item: Mapping[str, Any]) -> str:
    """What a key may do, for a column: all of its role, nothing, or its permissions; then its cameras and streams."""
    may: list[str] = item["effective_permissions"]
    if not may:
        return "nothing"
    told = "all of its role" if may == list_capabilities(item["role"]) else ", ".join(may)
    cameras, streams = item.get("camera_access"), item.get("streams")
    if cameras is not None and "*" not in cameras:
        told += f"; of {', '.join(cameras) or 'no camera'}"
    if streams is not None:
        told += "".join(f"; {what}: {', '.join(streams[what]) or 'no stream'}" for what in ("read", "publish"))
    return told


def list_names(camera: Mapping[str, Any]) -> list[object]:
    """The label first, then id, device file and path of one entry of get_camera_list."""
    path = str(camera.get("stream_url") or "").rpartition("/")[2]
    return [camera["name"], *filter(None, (camera.get("device"), camera.get("device_path"), path))]


def _list_cameras(where: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed: list[Mapping[str, Any]] = ask_all("get_camera_list", "cameras", {}, **{**where, "as_json": False})[
        "cameras"
    ]
    return listed


def _show(known: Iterable[str], name: str) -> str:
    names = sorted(known)
    if not names:
        return "there is no camera yet"
    near = get_close_matches(name, names, n=_MOST_SHOWN, cutoff=0.4) if len(names) > _MOST_SHOWN else names
    return f"known are {', '.join(near or names[:_MOST_SHOWN])}"
