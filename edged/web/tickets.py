"""/api/tickets: a URL for a player that can only take a URL (contract 10.1)."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from edged.web.credentials import is_json
from edged.web.exchange import Exchange, Way, json_response
from edged.web.faults import respond


async def create(asked: Exchange) -> Response:
    """A new ticket: 201, and the only answer that ever holds it."""
    if not is_json(asked.request.headers):
        return respond(415, "unsupported_media_type", "Unsupported media type", "send Content-Type: application/json")
    body = await asked.request.body()
    return json_response(await asked.call("create_ticket", msgspec.Raw(body or b"{}")), 201)


WAYS = (Way(method="POST", path="/api/tickets", answer=create, operation="create_ticket"),)
