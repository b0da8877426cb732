"""/v1/files: tokens for the files of a user (contract 5.3)."""

from __future__ import annotations

from typing import Final

import structlog
from starlette.responses import Response

from edged.operations.files import MOST_HOURS
from edged.web.requests import Request, Route, json_response, read_int, read_query

_LONGEST_AGENT: Final = 100
_log = structlog.get_logger("files")


async def generate_token(request: Request) -> Response:
    """A token for ?user_id= that lives for ?expires_hours=; a body is not looked at (contract S3-4)."""
    params = {
        "user_id": read_query(request, "user_id"),
        "expires_hours": read_int(request, "expires_hours", None, least=1, most=MOST_HOURS),
    }
    given = {name: value for name, value in params.items() if value is not None}
    made = await request.call("generate_files_token", given)
    # Who calls itself what decides nothing (contract S3-14).
    agent = request.http.headers.get("user-agent", "")[:_LONGEST_AGENT]
    _log.info("asked", what="generate-token", by=request.caller.who, agent=agent)
    return json_response(made)


ROUTES = (
    Route(
        method="POST",
        path="/v1/files/generate-token",
        answer=generate_token,
        operation="generate_files_token",
        at_files=True,
    ),
)
