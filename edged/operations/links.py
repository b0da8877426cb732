"""Signed links: URLs of one file for whoever can send no header (contract 10.25)."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Any, Final, Literal

import msgspec
import trio

from edged.clock import iso
from edged.credentials.callers import Caller, Peer
from edged.credentials.links import CAPABILITY, target_of
from edged.errors import EdgedError
from edged.operations import recordings, snapshots
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import OperationCall, operation
from edged.operations.pages import TURN_SECONDS
from edged.operations.rest import create
from edged.operations.services import Services

#: Seconds that a link is good for, unless it is said.
USUAL: Final = 600
Ttl = Annotated[int, msgspec.Meta(ge=5, le=3600)]


class CreateFileLinkParams(msgspec.Struct, frozen=True):
    """Of which kept file; `ttl` seconds in which it can be opened."""

    filename: str
    kind: Literal["recording", "snapshot"] = "recording"
    ttl: Ttl = USUAL


class FileLink(msgspec.Struct, frozen=True):
    """A link to one file: `url` absolute, or a path where edged cannot know by what name it is reached."""

    filename: str
    url: str
    expires_at: str


@operation("camera:read", rest=create("/api/links"), counted_as="create_ticket")
async def create_file_link(call: OperationCall, params: CreateFileLinkParams) -> FileLink:
    """A URL that opens one recording or snapshot, any number of times during its life, to whoever has it.

    It ends with the credential of this call, and opens nothing that that credential may not see.
    """
    if params.kind == "recording":
        record = await recordings.find(call, params.filename, CAPABILITY)
        name, path = record.filename, recordings.download_url(record.filename)
    else:
        name = (await snapshots.find(call, params.filename)).name
        path = snapshots.download_url(name)
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody in without a caller"
    url = sign_url(call.services, caller, call.session.peer, path, (), params.ttl)
    return FileLink(filename=name, url=url, expires_at=end_of(call.services, caller, params.ttl))


def sign_url(
    services: Services, caller: Caller, peer: Peer, path: str, members: tuple[tuple[str, str], ...], seconds: float
) -> str:
    """An absolute link in the name of a caller. Raises RateLimited, Overloaded."""
    target = target_of(path, members)
    query = services.gate.links.signer(caller, seconds)(target)
    return f"{services.own_urls.base(peer)}{target}{'&' if members else ''}{query}"


async def with_links(result: Any, services: Services, session: Session) -> Any:
    """A result whose `download_url`, and those of its `files`, are absolute signed links: for clients that open them as
    they are. The same object where there are none, on the unix socket, and where too many credentials have links.

    There is no checkpoint but in a list that takes longer than a turn.
    """
    files = getattr(result, "files", None)
    rows: list[Any] = files if isinstance(files, list) else []
    first = rows[0] if rows else result
    caller, peer = session.caller, session.peer
    if caller is None or peer.is_local_socket or not isinstance(getattr(first, "download_url", None), str):
        return result
    try:
        sign = services.gate.links.signer(caller, USUAL)
    except EdgedError:
        return result
    base = services.own_urls.base(peer)

    def signed(row: Any) -> Any:
        target = target_of(row.download_url, ())
        return msgspec.structs.replace(row, download_url=f"{base}{target}{sign(target)}")

    if first is result:
        return signed(result)
    shown, until = [], perf_counter() + TURN_SECONDS
    for row in rows:
        shown.append(signed(row))
        if perf_counter() > until:
            await trio.lowlevel.checkpoint()
            until = perf_counter() + TURN_SECONDS
    return msgspec.structs.replace(result, files=shown)


def end_of(services: Services, caller: Caller, seconds: float) -> str:
    """When a link ends that a caller makes now, ISO 8601."""
    left = services.gate.seconds_left(caller)
    return iso(services.clock.now() + (seconds if left is None else min(seconds, left)))
