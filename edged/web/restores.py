"""/api/trust/confirm-restore: the restored trust database is right as it is (contract 10.10)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.exchange import Exchange, Way


async def confirm(asked: Exchange) -> Response:
    """On the unix socket only."""
    return await bodies.act(asked, "confirm_restore")


WAYS = (Way(method="POST", path="/api/trust/confirm-restore", answer=confirm, operation="confirm_restore"),)
