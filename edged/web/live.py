"""GET /api/cameras/{camera}/live.mjpeg: a moving picture by edged itself (contract 10.24).

One source per camera feeds all its viewers. Each viewer takes the newest picture when it is ready for one: a viewer
that does not read loses pictures and delays no other.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import structlog
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edged.cameras.model import Camera
from edged.errors import EdgedError, Refused
from edged.operations.catalogue import camera_resource
from edged.operations.pictures import check_attached, explained_to, watch_pictures
from edged.web.bodies import read_query_struct
from edged.web.faults import sole
from edged.web.requests import Request, ResponseAborted, Route, Sent

BOUNDARY: Final = b"edged-picture"
_log = structlog.get_logger("live")


class LiveParams(msgspec.Struct, frozen=True):
    """`fps`: pictures a second at most."""

    fps: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5


async def watch(request: Request) -> Response:
    """The picture, at most ?fps= a second, until the viewer goes or its credential ends."""
    params = read_query_struct(request, LiveParams)
    return LivePicture(request, request.camera, 1.0 / params.fps)


ROUTES = (
    Route(
        method="GET", path="/api/cameras/{camera}/live.mjpeg", answer=watch, capability="stream:read", on_camera=True,
        takes_ticket=True, takes_basic=True,
    ),
)  # fmt: skip


class LivePicture(Response):
    """JPEG parts until the end. Raises DependencyFailed or Refused as long as nothing has been sent."""

    def __init__(self, request: Request, camera: Camera, interval: float) -> None:
        """`interval`: seconds from one part to the next."""
        super().__init__()
        self.raw_headers = [
            (b"content-type", b"multipart/x-mixed-replace; boundary=" + BOUNDARY),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-accel-buffering", b"no"),
        ]
        self._request = request
        self._camera = camera
        self._interval = interval

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Admit the viewer before the first checkpoint, and send pictures."""
        sent = Sent(send)
        if scope["method"] == "HEAD":
            await sent(self._head())
            await sent(_body(b"", more=False))
            return
        # Also before the first picture, which can take seconds.
        scope.get("edged.serve_half_closed", _tell_nobody)()
        try:
            with self._request.admitted(self._camera.name, "stream:read", camera_resource(self._camera)) as admitted:
                sent.count = admitted.count
                await self._show(sent)
        except Exception as problem:
            cause = sole(problem)
            if not sent.started or not isinstance(cause, EdgedError):
                raise cause from None
            _log.info("live_picture_ended", camera=self._camera.name, reason=str(cause))
        if admitted.cause is not None and not sent.started:
            raise Refused(admitted.cause)
        if sent.midway:
            # Anything after half a part would be read as a part of the picture.
            raise ResponseAborted
        await sent(_body(b"", more=False))

    async def _show(self, send: Send) -> None:
        check_attached(self._camera, self._request.caller)
        with explained_to(self._request.caller):
            await self._send_pictures(send)

    async def _send_pictures(self, send: Send) -> None:
        async with watch_pictures(self._request.services, self._camera) as pictures:
            number, jpeg = await pictures.next(0)
            await send(self._head())
            await send(_body(b"--%s\r\n" % BOUNDARY))
            due = trio.current_time()
            while True:
                await send(_body(part(jpeg)))
                due = max(due + self._interval, trio.current_time())
                await trio.sleep_until(due)
                number, jpeg = await pictures.next(number)

    def _head(self) -> dict[str, object]:
        return {"type": "http.response.start", "status": 200, "headers": self.raw_headers}


def _tell_nobody() -> None:
    """The default where there is no listener, in tests."""


def part(jpeg: bytes) -> bytes:
    """One picture and the boundary behind it, so that a browser shows it at once instead of with the next."""
    return b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n--%s\r\n" % (len(jpeg), jpeg, BOUNDARY)


def _body(data: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": more}
