"""/v1/files: tokens for the files of a user (contract 5.3)."""

from __future__ import annotations

from typing import Final

import structlog
from starlette.responses import Response

from edged.web.bodies import answer_operation
from edged.web.requests import Request

_LONGEST_AGENT: Final = 100
_log = structlog.get_logger("files")


async def generate_token(request: Request) -> Response:
    """A token for ?user_id= that lives for ?expires_hours=; the body is ignored (contract S3-4)."""
    response = await answer_operation(request)
    # Logged, and never used for a decision (contract S3-14).
    agent = request.http.headers.get("user-agent", "")[:_LONGEST_AGENT]
    _log.info("files_token_requested", by=request.caller.who, agent=agent)
    return response
