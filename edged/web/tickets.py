"""/api/tickets: a URL for a player that can only take a URL (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.requests import Request, Route


async def create(request: Request) -> Response:
    """A new ticket: 201, and the only answer that ever holds it."""
    return await bodies.create(request, "create_ticket")


ROUTES = (Route(method="POST", path="/api/tickets", answer=create, operation="create_ticket"),)
