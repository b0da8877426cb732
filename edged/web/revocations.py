"""/api/revocations: what is denied, and denying more (contract 10.1)."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from edged.web.credentials import is_json
from edged.web.exchange import Exchange, Way, json_response, read_page
from edged.web.faults import not_json


async def list_all(asked: Exchange) -> Response:
    """Everything that is denied, the newest first."""
    return json_response(await asked.call("list_revocations", read_page(asked)))


async def add(asked: Exchange) -> Response:
    """Deny: 201 once it is durable; it was in force before."""
    if not is_json(asked.request.headers):
        return not_json()
    return json_response(await asked.call("revoke", msgspec.Raw(await asked.request.body() or b"{}")), 201)


WAYS = (
    Way(method="GET", path="/api/revocations", answer=list_all, operation="list_revocations"),
    Way(method="POST", path="/api/revocations", answer=add, operation="revoke"),
)
