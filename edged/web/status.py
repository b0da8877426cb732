"""GET /api/status: how the box is doing, for whoever may read it (contract 3, get_system_status)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web.requests import Request, Route, json_response


async def show(request: Request) -> Response:
    """The whole box in a few words."""
    return json_response(await request.call("get_system_status", {}))


ROUTES = (Route(method="GET", path="/api/status", answer=show, operation="get_system_status"),)
