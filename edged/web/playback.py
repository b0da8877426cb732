"""GET /api/cameras/{camera}/playback.m3u8: a recorded time for a player (contract 10.27)."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from edged.errors import InvalidParams
from edged.operations.playback import write_list
from edged.web.requests import Request, Route, read_query

_HEADERS: Final = {
    "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"
}  # fmt: skip


async def show_playlist(request: Request) -> Response:
    """The playlist of a time. Raises what `write_list` raises."""
    start, end = read_query(request, "start"), read_query(request, "end")

    def read_times() -> tuple[str, str]:
        if start is None or end is None:
            raise InvalidParams("start and end are required", hint="for example start=2027-01-31T00:00:00Z")
        return start, end

    device = request.http.path_params["camera"]
    text = await write_list(request.services, request.caller, request.session.transport, device, read_times)
    return Response(text, headers=_HEADERS, media_type="application/vnd.apple.mpegurl")


ROUTES: Final = (
    Route(
        method="GET", path="/api/cameras/{camera}/playback.m3u8", answer=show_playlist, capability="camera:read",
        link=("start", "end"),
    ),
)  # fmt: skip
