"""/api/keys: make, list, show, change, rotate, suspend, resume and revoke API keys (contract 5.1, 10.1)."""

from __future__ import annotations

import math

from starlette.responses import Response

from edged.errors import InvalidParams
from edged.operations.api_keys import MOST_DAYS
from edged.web import bodies
from edged.web.requests import Request, Route, json_response, read_query

_FILTERS = ("role", "status", "owner")


async def create(request: Request) -> Response:
    """A new key: 201, and the only answer that ever holds its secret."""
    return await bodies.create(request, "create_key")


async def list_all(request: Request) -> Response:
    """All keys, or those of ?role=, ?status=, ?owner=, ?unused_days=."""
    params: dict[str, object] = {name: text for name in _FILTERS if (text := read_query(request, name)) is not None}
    if (days := read_query(request, "unused_days")) is not None:
        params["unused_days"] = _read_days(days)
    return json_response(await request.call("list_keys", params))


async def show(request: Request) -> Response:
    """One key, to an administrator or to the key itself."""
    return json_response(await request.call("get_key", request.http.path_params))


async def update(request: Request) -> Response:
    """Change what stands in the body; null lifts a restriction."""
    return await bodies.change(request, "update_key")


async def suspend(request: Request) -> Response:
    """Refuse a key until it is resumed; 200 also the second time."""
    return json_response(await request.call("suspend_key", request.http.path_params))


async def resume(request: Request) -> Response:
    """A suspended key is good again; 200 also the second time."""
    return json_response(await request.call("resume_key", request.http.path_params))


async def rotate(request: Request) -> Response:
    """The same key with a new secret; the old one lives for `grace_seconds`. The body is optional."""
    return await bodies.act(request, "rotate_key")


async def revoke(request: Request) -> Response:
    """End a key and everything that it opened, with ?include_made=true also the keys that it made; 200 also the second
    time."""
    params = dict(request.http.path_params)
    if (said := read_query(request, "include_made")) is not None:
        if said.lower() not in ("true", "false"):
            raise InvalidParams("include_made is neither true nor false")
        params["include_made"] = said.lower() == "true"
    return json_response(await request.call("revoke_key", params))


ROUTES = (
    Route(method="POST", path="/api/keys", answer=create, operation="create_key", root_may=True),
    Route(method="GET", path="/api/keys", answer=list_all, operation="list_keys", root_may=True),
    Route(method="GET", path="/api/keys/{key_id}", answer=show, operation="get_key", root_may=True),
    Route(method="PATCH", path="/api/keys/{key_id}", answer=update, operation="update_key", root_may=True),
    Route(method="POST", path="/api/keys/{key_id}/suspend", answer=suspend, operation="suspend_key", root_may=True),
    Route(method="POST", path="/api/keys/{key_id}/resume", answer=resume, operation="resume_key", root_may=True),
    Route(method="POST", path="/api/keys/{key_id}/rotate", answer=rotate, operation="rotate_key", root_may=True),
    Route(method="DELETE", path="/api/keys/{key_id}", answer=revoke, operation="revoke_key", root_may=True),
)


def _read_days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MOST_DAYS:
        raise InvalidParams(f"unused_days must be a number of days from 0 to {MOST_DAYS}")
    return days
