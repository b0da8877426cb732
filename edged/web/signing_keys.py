"""/api/signing-keys: list, make, promote and retire the key pairs that sign tokens (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.exchange import Exchange, Way, json_response


async def list_all(asked: Exchange) -> Response:
    """Every key pair; nothing private."""
    return json_response(await asked.call("list_signing_keys", {}))


async def create(asked: Exchange) -> Response:
    """The next key of an algorithm: 201."""
    return await bodies.create(asked, "create_signing_key")


async def promote(asked: Exchange) -> Response:
    """The key in the path signs from now on; the body {"force": true} is optional."""
    return await bodies.act(asked, "promote_signing_key")


async def retire(asked: Exchange) -> Response:
    """The key in the path is given up; the body {"distrust": true} is for one that leaked."""
    return await bodies.act(asked, "retire_signing_key")


WAYS = (
    Way(method="GET", path="/api/signing-keys", answer=list_all, operation="list_signing_keys"),
    Way(method="POST", path="/api/signing-keys", answer=create, operation="create_signing_key"),
    Way(method="POST", path="/api/signing-keys/{kid}/promote", answer=promote, operation="promote_signing_key"),
    Way(method="POST", path="/api/signing-keys/{kid}/retire", answer=retire, operation="retire_signing_key"),
)
