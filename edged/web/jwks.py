"""/jwks-path and /.well-known/jwks.json: the public halves of our signing keys, for everybody (contract 5.2, S4-2)."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from edged.operations.signing_keys import publish_keys
from edged.web.faults import respond
from edged.web.requests import Request, Route

#: Verifiers may keep it for five minutes; a page of any origin may read it: it holds public keys only.
_HEADERS: Final = {"Cache-Control": "max-age=300", "Access-Control-Allow-Origin": "*"}


async def show(request: Request) -> Response:
    """A JWK set (RFC 7517); 503 while no key may be relied on."""
    published = publish_keys(request.services)
    if published.problem:
        return respond(503, "dependency_failed", "No signing key", published.problem)
    return Response(published.text, 200, _HEADERS, media_type="application/json")


ROUTES = (
    Route(method="GET", path="/jwks-path", answer=show, capability="none"),
    Route(method="GET", path="/.well-known/jwks.json", answer=show, capability="none"),
)
