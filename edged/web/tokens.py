"""/api/tokens: sign a token (contract 10.1)."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from edged.web.credentials import is_json
from edged.web.exchange import Exchange, Way, json_response
from edged.web.faults import not_json


async def issue(asked: Exchange) -> Response:
    """A new token: 201, and the only answer that holds it."""
    if not is_json(asked.request.headers):
        return not_json()
    return json_response(await asked.call("issue_token", msgspec.Raw(await asked.request.body() or b"{}")), 201)


WAYS = (Way(method="POST", path="/api/tokens", answer=issue, operation="issue_token"),)
