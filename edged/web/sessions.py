"""/api/sessions: who is inside now, and putting one out (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web.requests import Request, Route, json_response, read_page


async def list_all(request: Request) -> Response:
    """Everybody, or one's own."""
    return json_response(await request.call("list_sessions", read_page(request)))


async def end(request: Request) -> Response:
    """Put one out; the credential stays good."""
    return json_response(await request.call("end_session", request.http.path_params))


ROUTES = (
    Route(method="GET", path="/api/sessions", answer=list_all, operation="list_sessions"),
    Route(method="DELETE", path="/api/sessions/{session_id}", answer=end, operation="end_session"),
)
