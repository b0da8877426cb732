"""Options that say what a key, a user or a token may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, cast

import click

from edged.cli.options import F
from edged.cli.words import check_rights, check_streams

_cameras = click.option(
    "--camera", "cameras", multiple=True, metavar="CAMERA", help="Only this camera; may be repeated."
)
_permissions = click.option(
    "--permission", "permissions", multiple=True, help="Only this permission of the role; may be repeated."
)
_read = click.option(
    "--read",
    multiple=True,
    metavar="STREAMS",
    help="Streams to read (a,b; cam* for a prefix; * for all); may be repeated.",
)
_publish = click.option(
    "--publish", multiple=True, metavar="STREAMS", help="Streams to publish to, in the same form; may be repeated."
)
_force = click.option(
    "--force", is_flag=True, help="Accept unknown names, for example of a camera that is not connected yet."
)
_all_cameras = click.option("--all-cameras", is_flag=True, help="Remove the restriction to cameras.")
_all_permissions = click.option("--all-permissions", is_flag=True, help="Remove the restriction to permissions.")
_camera_streams = click.option(
    "--camera-streams", is_flag=True, help="Remove the list of streams: those of the allowed cameras."
)


def gives_rights(*, elsewhere: bool) -> Callable[[F], F]:
    """Options that say what somebody may do; the command gets them as `rights`, members of its params.

    Unknown words end the command before it begins, unless --force is given; an unknown stream is only named where the
    rights hold at a MediaMTX `elsewhere`, too.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def run(
            *, cameras: tuple[str, ...], permissions: tuple[str, ...], read: tuple[str, ...], publish: tuple[str, ...],
            force: bool, **given: Any,
        ) -> Any:  # fmt: skip
            streams = {"read": _split(read), "publish": _split(publish)}
            rights: dict[str, object] = {
                "camera_access": list(cameras) or None,
                "permissions": list(permissions) or None,
                "streams": streams if read or publish else None,
            }
            if not force:
                where = {name: given[name] for name in ("socket", "directory")}
                check_rights(rights, where)
                check_streams(streams, where, elsewhere=elsewhere)
            return command(rights=rights, **given)

        return cast(F, _cameras(_permissions(_read(_publish(_force(run))))))

    return decorate


def changes_rights(*, elsewhere: bool) -> Callable[[F], F]:
    """As `gives_rights`, and options that lift a restriction; the command gets these as `lifted`, for `list_lifted`."""

    def decorate(command: F) -> F:
        @wraps(command)
        def run(*, all_cameras: bool, all_permissions: bool, camera_streams: bool, **given: Any) -> Any:
            lifted = {"camera_access": all_cameras, "permissions": all_permissions, "streams": camera_streams}
            return command(lifted=lifted, **given)

        return gives_rights(elsewhere=elsewhere)(cast(F, _all_cameras(_all_permissions(_camera_streams(run)))))

    return decorate


def list_lifted(params: Mapping[str, object], lifted: Mapping[str, bool]) -> list[str]:
    """The params that are to become null. Raises UsageError if one of them is given, too."""
    nulls = [member for member, lift in lifted.items() if lift]
    if any(params.get(member) is not None for member in nulls):
        raise click.UsageError("two of these options contradict each other")
    return nulls


def list_limits(rights: Mapping[str, object]) -> dict[str, object]:
    """The cameras and streams that somebody is limited to, to be shown beside a reply without them."""
    return {name: rights[name] for name in ("camera_access", "streams") if rights[name] is not None}


def _split(lists: tuple[str, ...]) -> list[str]:
    return [name for text in lists for name in text.split(",") if name]
