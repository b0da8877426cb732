"""/api/signing-keys: list, make, promote and retire the key pairs that sign tokens (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.requests import Request, Route, json_response


async def list_all(request: Request) -> Response:
    """Every key pair; nothing private."""
    return json_response(await request.call("list_signing_keys", {}))


async def create(request: Request) -> Response:
    """The next key of an algorithm: 201."""
    return await bodies.create(request, "create_signing_key")


async def promote(request: Request) -> Response:
    """The key in the path signs from now on; the body {"force": true} is optional."""
    return await bodies.act(request, "promote_signing_key")


async def retire(request: Request) -> Response:
    """The key in the path is given up; the body {"distrust": true} is for one that leaked."""
    return await bodies.act(request, "retire_signing_key")


ROUTES = (
    Route(method="GET", path="/api/signing-keys", answer=list_all, operation="list_signing_keys"),
    Route(method="POST", path="/api/signing-keys", answer=create, operation="create_signing_key"),
    Route(method="POST", path="/api/signing-keys/{kid}/promote", answer=promote, operation="promote_signing_key"),
    Route(method="POST", path="/api/signing-keys/{kid}/retire", answer=retire, operation="retire_signing_key"),
)
