"""/api/service-tokens: make, list, rotate and revoke service tokens (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.requests import Request, Route, json_response


async def create(request: Request) -> Response:
    """A new token: 201, and the only answer that ever holds its secret."""
    return await bodies.create(request, "create_service_token")


async def list_all(request: Request) -> Response:
    """All of them; their secrets are known to nobody any more."""
    return json_response(await request.call("list_service_tokens", {}))


async def rotate(request: Request) -> Response:
    """The same token with a new secret; the old one lives for `grace_seconds`. The body is optional."""
    return await bodies.act(request, "rotate_service_token")


async def revoke(request: Request) -> Response:
    """End a token; 200 also the second time."""
    return json_response(await request.call("revoke_service_token", request.http.path_params))


ROUTES = (
    Route(method="POST", path="/api/service-tokens", answer=create, operation="create_service_token"),
    Route(method="GET", path="/api/service-tokens", answer=list_all, operation="list_service_tokens"),
    Route(method="POST", path="/api/service-tokens/{token_id}/rotate", answer=rotate, operation="rotate_service_token"),
    Route(method="DELETE", path="/api/service-tokens/{token_id}", answer=revoke, operation="revoke_service_token"),
)
