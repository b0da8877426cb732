"""POST /api/token/refresh (contract 5.2)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web.credentials import read_credential, text_of
from edged.web.requests import Request, json_response


async def refresh(request: Request) -> Response:
    """The successor of the token in Authorization: Bearer, which may have expired up to five minutes ago."""
    text = text_of(read_credential(request.http.headers, request.session.peer))
    made = await request.call("refresh_token", {"token": text} if text else {})
    told = {"token": made.token, "token_type": made.token_type, "expires_in": made.expires_in}
    return json_response({**told, "permissions": made.permissions})
