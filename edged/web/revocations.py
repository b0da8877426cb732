"""/api/revocations: what is denied, and denying more (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.requests import Request, Route, json_response, read_page


async def list_all(request: Request) -> Response:
    """Everything that is denied, the newest first."""
    return json_response(await request.call("list_revocations", read_page(request)))


async def add(request: Request) -> Response:
    """Deny: 201 once it is durable; it was in force before."""
    return await bodies.create(request, "revoke")


ROUTES = (
    Route(method="GET", path="/api/revocations", answer=list_all, operation="list_revocations"),
    Route(method="POST", path="/api/revocations", answer=add, operation="revoke"),
)
