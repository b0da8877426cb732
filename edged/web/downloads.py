"""GET /files/snapshots/{name}: kept pictures, to whoever may see the camera they are of (contract 5.4, C-38)."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from edged.credentials.callers import Resource
from edged.errors import NotFound, Refused
from edged.operations.catalogue import camera_resource
from edged.web.exchange import CutOff, Exchange, Sent, Way


async def download_snapshot(asked: Exchange) -> Response:
    """The picture's bytes: 200, or 206 for a Range."""
    return Download(asked, asked.request.path_params["name"])


WAYS = (
    Way(method="GET", path="/files/snapshots/{name:path}", answer=download_snapshot, capability="camera:read"),
)  # fmt: skip


class Download(Response):
    """A kept file; the transfer ends with the credential that asked for it."""

    def __init__(self, asked: Exchange, name: str) -> None:
        super().__init__()
        self._asked = asked
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let them in before the first checkpoint, then find and send. Raises NotFound, InvalidParams, Refused."""
        sent = Sent(send)
        with self._asked.staying() as stay:
            path = await self._find()
            headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
            await FileResponse(path, headers=headers, filename=path.name)(scope, receive, sent)
        if stay.cause is None or sent.complete:
            return
        if sent.started:
            raise CutOff
        raise Refused(stay.cause)

    async def _find(self) -> Path:
        """The file, if it is of a camera that the caller may see; else it is not there."""
        house = self._asked.house
        path = await house.snapshots.find(self._name)
        camera = house.snapshots.camera_of(path)
        # A camera that is gone keeps its name, and its pictures stay with whoever may see it.
        known = house.cameras.find(camera)
        resource = camera_resource(known) if known else Resource.of_camera(camera)
        if not house.gate.judge(self._asked.caller, "camera:read", resource).allowed:
            raise NotFound(
                f"no snapshot {self._name!r}", hint="take_snapshot makes one", resource="file", id=self._name
            )
        return path
