"""GET /files/snapshots/{name}, /files/recordings/{name} and /files/segments/{name}: kept files, for those who may see
the camera that they are of (contract 5.4, C-38)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edged.credentials.callers import Caller
from edged.errors import Refused
from edged.operations.kept_files import Kept, find_recording, find_segment, find_snapshot, may_see
from edged.operations.services import Services
from edged.web.faults import respond
from edged.web.file_bytes import BadRange, open_file, send_file
from edged.web.requests import Request, ResponseAborted, Route, Sent

#: As the functions of operations.kept_files.
Find: TypeAlias = Callable[[Services, Caller, str], Awaitable[Kept]]
_GOOD_RANGE: Final = "Range is bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT, within the file"


async def download_snapshot(request: Request) -> Response:
    """The picture's bytes: 200, or 206 for a Range."""
    return Download(request, find_snapshot, request.http.path_params["name"])


async def download_recording(request: Request) -> Response:
    """The recording's bytes: 200, or 206 for a Range. Several segments are joined first."""
    return Download(request, find_recording, request.http.path_params["name"])


async def download_segment(request: Request) -> Response:
    """The bytes of one segment, as it was sealed: 200, or 206 for a Range."""
    return Download(request, find_segment, request.http.path_params["name"])


ROUTES = (
    Route(
        method="GET", path="/files/snapshots/{name:path}", answer=download_snapshot, capability="camera:read", link=()
    ),
    Route(
        method="GET", path="/files/recordings/{name:path}", answer=download_recording, capability="camera:read", link=()
    ),
    Route(method="GET", path="/files/segments/{name:path}", answer=download_segment, capability="camera:read", link=()),
)


class Download(Response):
    """A kept file; the transfer ends with the credential that asked for it, and with its right to see the camera."""

    def __init__(self, request: Request, find: Find, name: str, disposition: str = "attachment") -> None:
        """`find` gives the file of this name. `disposition` as in Content-Disposition."""
        super().__init__()
        self._request = request
        self._find = find
        self._name = name
        self._disposition = disposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the caller before the first checkpoint, then find and send. Raises NotFound, InvalidParams, Refused."""
        sent, services, caller = Sent(send), self._request.services, self._request.caller
        with self._request.admitted() as admitted:
            sent.count = admitted.count
            kept = await self._find(services, caller, self._name)
            may_go_on = partial(may_see, services, caller, kept.camera)
            async with open_file(kept.path, kept.name) as file:
                try:
                    await send_file(file, self._disposition, may_go_on, scope, sent)
                except BadRange as problem:
                    await explain(problem)(scope, receive, sent)
        if admitted.cause is None or sent.complete:
            return
        if sent.started:
            raise ResponseAborted
        raise Refused(admitted.cause)


def explain(problem: BadRange) -> Response:
    """JSON, as every fault (contract C-35)."""
    headers = {"Content-Range": problem.extent} if problem.extent is not None else {}
    return respond(problem.status, "bad_range", "Bad range", _GOOD_RANGE, headers)
