"""/api/revocations: what is denied, and denying more (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.exchange import Exchange, Way, json_response, read_page


async def list_all(asked: Exchange) -> Response:
    """Everything that is denied, the newest first."""
    return json_response(await asked.call("list_revocations", read_page(asked)))


async def add(asked: Exchange) -> Response:
    """Deny: 201 once it is durable; it was in force before."""
    return await bodies.create(asked, "revoke")


WAYS = (
    Way(method="GET", path="/api/revocations", answer=list_all, operation="list_revocations"),
    Way(method="POST", path="/api/revocations", answer=add, operation="revoke"),
)
