"""/api/trust/confirm-restore: the restored trust database is right as it is (contract 10.10)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.requests import Request, Route


async def confirm(request: Request) -> Response:
    """On the unix socket only."""
    return await bodies.act(request, "confirm_restore")


ROUTES = (Route(method="POST", path="/api/trust/confirm-restore", answer=confirm, operation="confirm_restore"),)
