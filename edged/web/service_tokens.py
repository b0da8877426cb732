"""/api/service-tokens: make, list, rotate and revoke service tokens (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.exchange import Exchange, Way, json_response


async def create(asked: Exchange) -> Response:
    """A new token: 201, and the only answer that ever holds its secret."""
    return await bodies.create(asked, "create_service_token")


async def list_all(asked: Exchange) -> Response:
    """All of them; their secrets are known to nobody any more."""
    return json_response(await asked.call("list_service_tokens", {}))


async def rotate(asked: Exchange) -> Response:
    """The same token with a new secret; the old one lives for `grace_seconds`. The body is optional."""
    return await bodies.act(asked, "rotate_service_token")


async def revoke(asked: Exchange) -> Response:
    """End a token; 200 also the second time."""
    return json_response(await asked.call("revoke_service_token", asked.request.path_params))


WAYS = (
    Way(method="POST", path="/api/service-tokens", answer=create, operation="create_service_token"),
    Way(method="GET", path="/api/service-tokens", answer=list_all, operation="list_service_tokens"),
    Way(method="POST", path="/api/service-tokens/{token_id}/rotate", answer=rotate, operation="rotate_service_token"),
    Way(method="DELETE", path="/api/service-tokens/{token_id}", answer=revoke, operation="revoke_service_token"),
)
