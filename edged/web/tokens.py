"""/api/tokens: sign a token (contract 10.1); /api/token/refresh: a token for a token (contract 5.2)."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from edged.credentials.callers import Token
from edged.web.credentials import is_json, read_credential
from edged.web.exchange import Exchange, Way, json_response
from edged.web.faults import not_json


async def issue(asked: Exchange) -> Response:
    """A new token: 201, and the only answer that holds it."""
    if not is_json(asked.request.headers):
        return not_json()
    return json_response(await asked.call("issue_token", msgspec.Raw(await asked.request.body() or b"{}")), 201)


async def refresh(asked: Exchange) -> Response:
    """The successor of the token in Authorization: Bearer, which may have ended a few minutes ago."""
    shown = read_credential(asked.request.headers, asked.session.peer)
    made = await asked.call("refresh_token", {"token": shown.text} if isinstance(shown, Token) else {})
    told = {"token": made.token, "token_type": made.token_type, "expires_in": made.expires_in}
    return json_response({**told, "permissions": made.permissions})


def _anybody(_asked: Exchange) -> bool:
    """What the token opens is judged by the operation, which takes one that has just ended."""
    return True


WAYS = (
    Way(method="POST", path="/api/tokens", answer=issue, operation="issue_token"),
    Way(method="POST", path="/api/token/refresh", answer=refresh, operation="refresh_token", open_if=_anybody),
)
