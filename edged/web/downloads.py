"""GET /files/snapshots/{name}, /files/recordings/{name} and /files/segments/{name}: kept files, for those who may see
the camera that they are of (contract 5.4, C-38)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edged.credentials.callers import Resource
from edged.errors import Refused
from edged.library.recording_names import no_recording, no_segment
from edged.library.snapshots import no_snapshot
from edged.operations.catalogue import camera_resource
from edged.web.faults import respond
from edged.web.file_bytes import BadRange, open_file, send_file
from edged.web.requests import Request, ResponseAborted, Route, Sent

_GOOD_RANGE: Final = "Range is bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT, within the file"


class Kept(NamedTuple):
    """A file, the name that it is saved under, and the camera that it is of."""

    path: Path
    name: str
    camera: str


async def download_snapshot(request: Request) -> Response:
    """The picture's bytes: 200, or 206 for a Range."""
    return Download(request, partial(find_snapshot, request, request.http.path_params["name"]))


async def download_recording(request: Request) -> Response:
    """The recording's bytes: 200, or 206 for a Range. Several segments are joined first."""
    return Download(request, partial(find_recording, request, request.http.path_params["name"]))


async def download_segment(request: Request) -> Response:
    """The bytes of one segment, as it was sealed: 200, or 206 for a Range."""
    return Download(request, partial(find_segment, request, request.http.path_params["name"]))


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

    def __init__(self, request: Request, find: Callable[[], Awaitable[Kept]], disposition: str = "attachment") -> None:
        """`find()` gives the file. `disposition` as in Content-Disposition."""
        super().__init__()
        self._request = request
        self._find = find
        self._disposition = disposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the caller before the first checkpoint, then find and send. Raises NotFound, InvalidParams, Refused."""
        sent = Sent(send)
        with self._request.admitted() as admitted:
            sent.count = admitted.count
            kept = await self._find()
            may_go_on = partial(may_see, self._request, kept.camera)
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


async def find_snapshot(request: Request, name: str) -> Kept:
    """The newest picture of this name, of a camera that the caller may see. Raises NotFound, InvalidParams."""
    snapshots = request.services.snapshots
    for path in await snapshots.find(name):
        if may_see(request, snapshots.camera_of(path)):
            return Kept(path, path.name, snapshots.camera_of(path))
    raise no_snapshot(name)


async def find_segment(request: Request, name: str) -> Kept:
    """A segment by CAMERA/DAY/NAME. Raises NotFound."""
    index = request.services.recordings.index
    row = await index.find(name)
    if row is None or not may_see(request, row.camera):
        raise no_segment(name)
    path = index.files.find(row.file)
    return Kept(path, path.name, row.camera)


async def find_recording(request: Request, name: str) -> Kept:
    """The recording of this name as one file. Raises NotFound, InvalidParams, and as `Recordings.find_file`."""
    recordings = request.services.recordings
    record = await recordings.find(name)
    if not may_see(request, record.camera):
        raise no_recording(name)
    path = await recordings.find_file(record)
    # To join its segments may have taken minutes.
    if not may_see(request, record.camera):
        raise no_recording(name)
    return Kept(path, record.filename, record.camera)


def may_see(request: Request, camera: str) -> bool:
    """Whether the caller may see a camera; one that is gone keeps its name, and its files stay with those who may."""
    known = request.services.cameras.find(camera)
    resource = camera_resource(known) if known else Resource.of_camera(camera)
    return request.services.gate.judge(request.caller, "camera:read", resource).allowed


def explain(problem: BadRange) -> Response:
    """JSON, as every fault (contract C-35)."""
    headers = {"Content-Range": problem.extent} if problem.extent is not None else {}
    return respond(problem.status, "bad_range", "Bad range", _GOOD_RANGE, headers)
