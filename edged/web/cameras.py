"""/api/cameras: which there are, a still image of one, and adding, changing and removing network cameras.

`{device}` is `cameraN` or the camera's path at MediaMTX. Device files are for administrators (contract C-7).
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
from edged.operations.pictures import check_attached, explained_to
from edged.web import bodies
from edged.web.credentials import is_json
from edged.web.exchange import Exchange, Way, json_response, read_int
from edged.web.faults import not_json

_IMAGE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def list_all(asked: Exchange) -> Response:
    """The cameras that the caller may see (contract 5.4)."""
    found: CameraList = await asked.call("get_camera_list", {})
    body = {
        "status": "success",
        "timestamp": iso(asked.services.clock.now()),
        "cameras": [_show(asked, row) for row in found.cameras],
        "total": found.total,
        "connected": found.connected,
    }
    return json_response(body)


async def show(asked: Exchange) -> Response:
    """One camera in full."""
    return json_response(_show(asked, await asked.call("get_camera_status", asked.request.path_params)))


async def add(asked: Exchange) -> Response:
    """A new network camera: 201."""
    return await bodies.create(asked, "add_camera")


async def change(asked: Exchange) -> Response:
    """What the body names changes; the rest stays. A reply may be sent back whole, whichever name the path used."""
    if not is_json(asked.request.headers):
        return not_json()
    body, device = bodies.parse_object(await bodies.read_body(asked) or b"{}"), asked.request.path_params["device"]
    named = body.get("device", device)
    if named != device:
        camera = find_camera("system:admin", device, asked.services, asked.session)
        if not isinstance(named, str) or named not in camera.every_name:
            raise InvalidParams("device in the body is not the camera in the path", hint="leave it out of the body")
    return json_response(await asked.call("update_camera", {**body, "device": device}))


async def remove(asked: Exchange) -> Response:
    """The added camera in the path is no more."""
    return json_response(await asked.call("remove_camera", asked.request.path_params))


async def take_still(asked: Exchange) -> Response:
    """One JPEG, taken now and kept nowhere; ?quality= 1 to 100."""
    return StillImage(asked, asked.camera, read_int(asked, "quality", None, least=1, most=100))


WAYS = (
    Way(method="GET", path="/api/cameras", answer=list_all, operation="get_camera_list"),
    Way(method="POST", path="/api/cameras", answer=add, operation="add_camera"),
    Way(method="GET", path="/api/cameras/{device}", answer=show, operation="get_camera_status"),
    Way(method="PATCH", path="/api/cameras/{device}", answer=change, operation="update_camera"),
    Way(method="DELETE", path="/api/cameras/{device}", answer=remove, operation="remove_camera"),
    Way(
        method="GET", path="/api/cameras/{camera}/snapshot.jpg", answer=take_still, capability="stream:read",
        on_camera=True, takes_ticket=True, takes_basic=True,
    ),
)  # fmt: skip


class StillImage(Response):
    """One picture. Raises DependencyFailed or Refused before anything is sent."""

    def __init__(self, asked: Exchange, camera: Camera, quality: int | None) -> None:
        super().__init__(headers=_IMAGE_HEADERS, media_type="image/jpeg")
        self._asked = asked
        self._camera = camera
        self._quality = quality

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the viewer in before the first checkpoint, take the picture, send it. HEAD takes none."""
        if scope["method"] == "HEAD":
            del self.headers["content-length"]
        else:
            camera = self._camera
            with self._asked.staying(camera.name, "stream:read", camera_resource(camera)) as stay:
                self.body = await take(self._asked, camera, self._quality)
            if stay.cause is not None:
                raise Refused(stay.cause)
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


async def take(asked: Exchange, camera: Camera, quality: int | None) -> bytes:
    """One picture. Whoever asks again soon finds its source open. Raises DependencyFailed."""
    check_attached(camera, asked.caller)
    frames = asked.services.frames
    with explained_to(asked.caller):
        async with frames.watch(camera) as pictures:
            if quality is None:
                return await pictures.settled()
            return await frames.snapshot(camera, quality=quality)


def _show(asked: Exchange, item: CameraRow | CameraStatus) -> CameraRow | CameraStatus:
    """`device_path` as it may be told: never empty, and a device file to administrators only."""
    path = item.device_path if asked.caller.role == "admin" and item.device_path else item.device
    return item if path == item.device_path else msgspec.structs.replace(item, device_path=path)
