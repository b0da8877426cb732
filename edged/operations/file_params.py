"""What operations on kept files share: their params, and whose files a caller may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import msgspec
from msgspec import UNSET

from edged.access.grants import Grant
from edged.credentials.callers import Caller, Resource
from edged.credentials.decision import Reason
from edged.credentials.roles import SELF
from edged.errors import Denied
from edged.operations.catalogue import OperationCall, camera_resource
from edged.operations.pages import Cursor, Limit, NextCursor, Offset, Place, read_cursor, write_cursor
from edged.operations.services import Services

R = TypeVar("R")


class FilePageParams(msgspec.Struct, frozen=True):
    """A page, newest first: behind those of the reply whose `next_cursor` is given as `cursor`, or after `offset`."""

    limit: Limit = 100
    offset: Offset = 0
    cursor: Cursor | None = None


def read_after(call: OperationCall, params: FilePageParams) -> Place | None:
    """The place behind which the page begins. Raises InvalidParams."""
    return None if params.cursor is None else read_cursor(call.operation.name, params.cursor)


def cut_page(
    call: OperationCall, params: FilePageParams, found: list[R], place: Callable[[R], Place]
) -> tuple[list[R], NextCursor]:
    """The page of `found`, which has one row more than the page where more follow; and the next cursor."""
    page = found[: params.limit]
    if len(found) <= params.limit:
        return page, UNSET
    return page, write_cursor(call.operation.name, place(page[-1]))


class FilenameParams(msgspec.Struct, frozen=True):
    """A file name, with or without its ending."""

    filename: str


def grant_on(call: OperationCall, capability: str, camera: str) -> Grant:
    """What is handed down for a change that the caller may make of a camera (access.grants)."""
    return call.grant(SELF, confirmation(call, capability, camera))


def confirmation(call: OperationCall, capability: str, camera: str) -> Callable[[], None]:
    """To be called right before an effect: raises Refused if the caller may not do this to the camera any more."""

    def confirm() -> None:
        call.services.gate.authorize(
            call.session.caller, capability, call.session.transport, resource_of(call.services, camera)
        )

    return confirm


def may(services: Services, caller: Caller | None, capability: str, camera: str) -> bool:
    """Whether a caller may do this to a camera, which may be gone."""
    return services.gate.judge(caller, capability, resource_of(services, camera)).allowed


def keep_seen(call: OperationCall, rows: Iterable[R], camera: Callable[[R], str]) -> list[R]:
    """Those rows whose camera the caller may see now: to read them took time, in which a right may have ended."""
    known: dict[str, bool] = {}
    kept = []
    for row in rows:
        name = camera(row)
        if name not in known:
            known[name] = may(call.services, call.session.caller, "camera:read", name)
        if known[name]:
            kept.append(row)
    return kept


def sight_of(services: Services, caller: Caller | None) -> Callable[[str], bool]:
    """Whether a caller may see the camera of a name; it may be gone."""
    return partial(may, services, caller, "camera:read")


def current_caller(call: OperationCall) -> Caller | None:
    """Who asks, with the rights of this moment: those of its credential may have changed since the call began."""
    caller = call.session.caller
    return None if caller is None else call.services.gate.current(caller)


def check_sees_all(call: OperationCall) -> None:
    """Raises Denied for a caller that is limited to some cameras: what it asks for is about all of them."""
    check_unlimited(current_caller(call))


def check_unlimited(caller: Caller | None) -> None:
    """As `check_sees_all`, of a caller as it is now."""
    each = caller
    while each is not None:
        if each.cameras is not None:
            raise Denied(
                Reason.MISSING_SCOPE, "this is about all cameras, and the credential is for some of them",
                hint="use a credential without camera_access",
            )  # fmt: skip
        each = each.parent
    if caller is None:
        raise Denied(Reason.MISSING, "this is about all cameras, and there is no credential")


def resource_of(services: Services, camera: str) -> Resource:
    """A camera as the gate knows it; one that is gone keeps its name."""
    known = services.cameras.find(camera)
    return camera_resource(known) if known else Resource.of_camera(camera)
