"""/api/cameras: the answers of the list and of one camera, a change of a camera, and a still image.

`{device}` is `cameraN` or the camera's path at MediaMTX. Only administrators see device files (contract C-7).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edged.cameras.model import Camera
from edged.errors import InvalidParams, Refused
from edged.operations.cameras import CameraStatus
from edged.operations.catalogue import camera_resource, find_camera
from edged.operations.clock import tell_time
from edged.operations.event_pictures import LONGEST_BEFORE, EventId, find_event, read_kept
from edged.operations.listings import CameraList, CameraRow
from edged.operations.pages import PageParams
from edged.operations.params import read_moment
from edged.operations.pictures import check_attached, explained_to, take_jpeg
from edged.operations.snapshots import Quality, take_recorded
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
        "timestamp": tell_time(request.services),
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
    """`quality` of the JPEG; `at`: out of what was recorded then, ISO 8601 with a zone or Unix seconds; `event`: of the
    event with this id."""

    quality: Quality | None = None
    at: str | None = None
    event: EventId | None = None


async def take_still(request: Request) -> Response:
    """One JPEG, taken now or out of a recording, and kept nowhere."""
    params = bodies.read_query_struct(request, StillParams)
    if params.at is None and params.event is None:
        return StillImage(request, request.camera, "stream:read", partial(take, params.quality))
    # Whoever may see what a camera shows now may not therefore see what it has shown.
    find_camera("camera:read", request.camera.name, request.services, request.session)
    if params.event is not None:
        if params.at is not None:
            raise InvalidParams("only one of at and event can be given", field="at")
        return StillImage(
            request, request.camera, "camera:read", partial(take_of_event, params.event, params.quality)
        )  # fmt: skip
    assert params.at is not None, "one of them is given"
    at = read_moment("at", params.at)
    return StillImage(request, request.camera, "camera:read", partial(take_past, at, params.quality))


ROUTES = (
    Route(
        method="GET", path="/api/cameras/{camera}/snapshot.jpg", answer=take_still, capability="stream:read",
        on_camera=True, takes_ticket=True, takes_basic=True,
    ),
)  # fmt: skip


class StillImage(Response):
    """One picture. Raises DependencyFailed or Refused before anything is sent."""

    def __init__(
        self, request: Request, camera: Camera, capability: str, take: Callable[[Request, Camera], Awaitable[bytes]]
    ) -> None:
        """`take(request, camera)` gives the picture, while the caller has `capability` on the camera."""
        super().__init__(headers=_IMAGE_HEADERS, media_type="image/jpeg")
        self._request = request
        self._camera = camera
        self._capability = capability
        self._take = take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the viewer before the first checkpoint, take the picture, send it. HEAD takes none."""
        if scope["method"] == "HEAD":
            del self.headers["content-length"]
        else:
            camera = self._camera
            with self._request.admitted(camera.name, self._capability, camera_resource(camera)) as admitted:
                self.body = await self._take(self._request, camera)
            if admitted.cause is not None:
                raise Refused(admitted.cause)
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


async def take_past(at: float, quality: int | None, request: Request, camera: Camera) -> bytes:
    """The last picture recorded at a time or before, as JPEG. Raises what `take_recorded` raises."""
    picture, _ = await take_recorded(request.services, camera.name, at, "jpg", quality)
    return picture


async def take_of_event(event_id: str, quality: int | None, request: Request, camera: Camera) -> bytes:
    """The picture that was kept of an event, else the last one recorded then, as JPEG. Raises NotFound, StoreFailed,
    and what `take_recorded` raises."""
    at, kept = await find_event(request.services, camera.name, event_id)
    if kept is not None and kept.suffix != ".png":
        return await read_kept(request.services, kept)
    picture, _ = await take_recorded(request.services, camera.name, at, "jpg", quality, LONGEST_BEFORE)
    return picture


async def take(quality: int | None, request: Request, camera: Camera) -> bytes:
    """One picture as JPEG; the source stays open for a while. Raises DependencyFailed."""
    check_attached(camera, request.caller)
    with explained_to(request.caller):
        return await take_jpeg(request.services, camera, quality)


def _show(request: Request, item: CameraRow | CameraStatus) -> CameraRow | CameraStatus:
    """With a `device_path` that is never empty and is a device file for administrators only."""
    path = item.device_path if request.caller.role == "admin" and item.device_path else item.device
    return item if path == item.device_path else msgspec.structs.replace(item, device_path=path)
