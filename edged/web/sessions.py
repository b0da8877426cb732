"""/api/sessions: who is inside now, and putting one out (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web.exchange import Exchange, Way, json_response, read_page


async def list_all(asked: Exchange) -> Response:
    """Everybody, or one's own."""
    return json_response(await asked.call("list_sessions", read_page(asked)))


async def end(asked: Exchange) -> Response:
    """Put one out; the credential stays good."""
    return json_response(await asked.call("end_session", asked.request.path_params))


WAYS = (
    Way(method="GET", path="/api/sessions", answer=list_all, operation="list_sessions"),
    Way(method="DELETE", path="/api/sessions/{session_id}", answer=end, operation="end_session"),
)
