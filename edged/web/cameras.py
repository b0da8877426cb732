"""/api/cameras: the answers of the list and of one camera, a change of a camera, and a still image.

`{device}` is `cameraN` or the camera's path at MediaMTX. Only administrators see device files (contract C-7).
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edged.cameras.model import Camera
from edged.clock import iso
from edged.errors import InvalidParams, Refused
from edged.operations.cameras import CameraStatus
from edged.operations.catalogue import camera_resource, find_camera
from edged.operations.listings import CameraList, CameraRow
from edged.operations.pages import PageParams
from edged.operations.pictures import check_attached, explained_to
from edged.operations.snapshots import Quality
from edged.web import bodies
from edged.web.credentials import is_json
from edged.web.faults import not_json
from edged.web.requests import Request, Route, json_response

_IMAGE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def list_all(request: Request) -> Response:
    """The cameras that the caller may see (contract 5.4)."""
    params = bodies.read_query_params(request, PageParams)
    found: CameraList = await request.call("get_camera_list", params)
    body = {
        "status": "success",
        "timestamp": iso(request.services.clock.now()),
        "cameras": [_show(request, row) for row in found.cameras],
        "total": found.total,
        "connected": found.connected,
    }
    if found.next_cursor:
        body["next_cursor"] = found.next_cursor
    return json_response(body)


async def show(request: Request) -> Response:
    """One camera in full."""
    return json_response(_show(request, await request.call("get_camera_status", request.http.path_params)))


async def change(request: Request) -> Response:
    """Change what the body names. A reply may be sent back whole, whichever name of the camera the path has."""
    if not is_json(request.http.headers):
        return not_json()
    body, device = bodies.parse_object(await bodies.read_body(request) or b"{}"), request.http.path_params["device"]
    named = body.get("device", device)
    if named != device:
        camera = find_camera("system:admin", device, request.services, request.session)
        if not isinstance(named, str) or named not in camera.every_name:
            raise InvalidParams("device in the body is not the camera in the path", hint="leave it out of the body")
    return json_response(await request.call("update_camera", {**body, "device": device}))


class StillParams(msgspec.Struct, frozen=True):
    """`quality` of the JPEG."""

    quality: Quality | None = None


async def take_still(request: Request) -> Response:
    """One JPEG, taken now and kept nowhere."""
    return StillImage(request, request.camera, bodies.read_query_struct(request, StillParams).quality)


ROUTES = (
    Route(
        method="GET", path="/api/cameras/{camera}/snapshot.jpg", answer=take_still, capability="stream:read",
        on_camera=True, takes_ticket=True, takes_basic=True,
    ),
)  # fmt: skip


class StillImage(Response):
    """One picture. Raises DependencyFailed or Refused before anything is sent."""

    def __init__(self, request: Request, camera: Camera, quality: int | None) -> None:
        super().__init__(headers=_IMAGE_HEADERS, media_type="image/jpeg")
        self._request = request
        self._camera = camera
        self._quality = quality

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the viewer before the first checkpoint, take the picture, send it. HEAD takes none."""
        if scope["method"] == "HEAD":
            del self.headers["content-length"]
        else:
            camera = self._camera
            with self._request.admitted(camera.name, "stream:read", camera_resource(camera)) as admitted:
                self.body = await take(self._request, camera, self._quality)
            if admitted.cause is not None:
                raise Refused(admitted.cause)
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


async def take(request: Request, camera: Camera, quality: int | None) -> bytes:
    """One picture as JPEG; the source stays open for a while. Raises DependencyFailed."""
    check_attached(camera, request.caller)
    frames = request.services.frames
    with explained_to(request.caller):
        async with frames.watch(camera) as pictures:
            if quality is None:
                return await pictures.settled()
            return await frames.snapshot(camera, quality=quality)


def _show(request: Request, item: CameraRow | CameraStatus) -> CameraRow | CameraStatus:
    """With a `device_path` that is never empty and is a device file for administrators only."""
    path = item.device_path if request.caller.role == "admin" and item.device_path else item.device
    return item if path == item.device_path else msgspec.structs.replace(item, device_path=path)
