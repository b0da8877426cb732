"""GET /files/snapshots/{name} and /files/recordings/{name}: kept files, for those who may see the camera that they are
of (contract 5.4, C-38)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from edged.credentials.callers import Resource
from edged.errors import Refused
from edged.library.recording_names import no_recording
from edged.library.snapshots import no_snapshot
from edged.operations.catalogue import camera_resource
from edged.web.faults import respond
from edged.web.requests import Request, ResponseAborted, Route, Sent

#: Ranges of one request. Starlette before 0.49 compares each with each, and every one is a part of the answer.
MOST_RANGES: Final = 16
_GOOD_RANGE: Final = f"Range is bytes=FIRST-LAST, within the file, and at most {MOST_RANGES} of these"


async def download_snapshot(request: Request) -> Response:
    """The picture's bytes: 200, or 206 for a Range."""
    return Download(request, partial(find_snapshot, request, request.http.path_params["name"]))


async def download_recording(request: Request) -> Response:
    """The recording's bytes: 200, or 206 for a Range. Several segments are joined first."""
    return Download(request, partial(find_recording, request, request.http.path_params["name"]))


ROUTES = (
    Route(method="GET", path="/files/snapshots/{name:path}", answer=download_snapshot, capability="camera:read"),
    Route(method="GET", path="/files/recordings/{name:path}", answer=download_recording, capability="camera:read"),
)


class Download(Response):
    """A kept file; the transfer ends with the credential that asked for it."""

    def __init__(self, request: Request, find: Callable[[], Awaitable[tuple[Path, str]]]) -> None:
        """`find()` gives the file and the name that it is saved under."""
        super().__init__()
        self._request = request
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the caller before the first checkpoint, then find and send. Raises NotFound, InvalidParams, Refused."""
        sent = Sent(send)
        with self._request.admitted() as admitted:
            sent.count = admitted.count
            path, name = await self._find()
            headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
            file = FileResponse(path, headers=headers, filename=name)
            # Half-way through, the connection is closed under the transfer: whoever is cancelled gets no turn to close
            # the file (anyio), and it would stay open until somebody collects the garbage.
            break_off = scope.get("edged.break_off", admitted.scope.cancel)
            admitted.end = lambda: break_off() if sent.started else admitted.scope.cancel()
            try:
                await file(without_foreign_ranges(scope), receive, refuse_faults(sent))
            except BadRange as problem:
                await problem.explain()(scope, receive, sent)
            except OSError:
                if admitted.cause is None:
                    raise
        if admitted.cause is None or sent.complete:
            return
        if sent.started:
            raise ResponseAborted
        raise Refused(admitted.cause)


async def find_snapshot(request: Request, name: str) -> tuple[Path, str]:
    """The newest picture of this name, of a camera that the caller may see. Raises NotFound, InvalidParams."""
    snapshots = request.services.snapshots
    for path in await snapshots.find(name):
        if may_see(request, snapshots.camera_of(path)):
            return path, path.name
    raise no_snapshot(name)


async def find_recording(request: Request, name: str) -> tuple[Path, str]:
    """The recording of this name as one file. Raises NotFound, InvalidParams, and as `Recordings.find_file`."""
    recordings = request.services.recordings
    record = await recordings.find(name)
    if not may_see(request, record.camera):
        raise no_recording(name)
    path = await recordings.find_file(record)
    # To join its segments may have taken minutes.
    if not may_see(request, record.camera):
        raise no_recording(name)
    return path, record.filename


def may_see(request: Request, camera: str) -> bool:
    """Whether the caller may see a camera; one that is gone keeps its name, and its files stay with those who may."""
    known = request.services.cameras.find(camera)
    resource = camera_resource(known) if known else Resource.of_camera(camera)
    return request.services.gate.judge(request.caller, "camera:read", resource).allowed


class BadRange(Exception):
    """The Range is malformed or outside of the file. `extent` is the value of Content-Range."""

    def __init__(self, status: int, extent: str | None) -> None:
        super().__init__(status)
        self.status = status
        self.extent = extent

    def explain(self) -> Response:
        """JSON, as every fault (contract C-35)."""
        headers = {"Content-Range": self.extent} if self.extent is not None else {}
        return respond(self.status, "bad_range", "Bad range", _GOOD_RANGE, headers)


def without_foreign_ranges(scope: Scope) -> Scope:
    """The scope without a Range in another unit than bytes, which is ignored (RFC 9110, 14.2).

    Raises BadRange for more than MOST_RANGES ranges (RFC 9110, 17.15).
    """
    if any(name == b"range" and value.count(b",") >= MOST_RANGES for name, value in scope["headers"]):
        raise BadRange(400, None)
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name != b"range" or value.partition(b"=")[0].strip().lower() == b"bytes"
    ]
    return {**scope, "headers": headers}


def refuse_faults(send: Send) -> Send:
    """A send that raises BadRange in place of Starlette's plain-text error."""

    async def checked(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            extent = dict(message["headers"]).get(b"content-range")
            # Starlette 0.46 leaves out the unit.
            size = None if extent is None else extent.decode("latin-1").removeprefix("bytes ")
            raise BadRange(message["status"], size and f"bytes {size}")
        await send(message)

    return checked
