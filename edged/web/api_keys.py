"""/api/keys: make, list, show, change, rotate, suspend, resume and revoke API keys (contract 5.1, 10.1)."""

from __future__ import annotations

import math

from starlette.responses import Response

from edged.errors import InvalidParams
from edged.operations.api_keys import MOST_DAYS
from edged.web import bodies
from edged.web.exchange import Exchange, Way, json_response, read_query

_FILTERS = ("role", "status", "owner")


async def create(asked: Exchange) -> Response:
    """A new key: 201, and the only answer that ever holds its secret."""
    return await bodies.create(asked, "create_key")


async def list_all(asked: Exchange) -> Response:
    """All keys, or those of ?role=, ?status=, ?owner=, ?unused_days=."""
    params: dict[str, object] = {name: text for name in _FILTERS if (text := read_query(asked, name)) is not None}
    if (days := read_query(asked, "unused_days")) is not None:
        params["unused_days"] = _read_days(days)
    return json_response(await asked.call("list_keys", params))


async def show(asked: Exchange) -> Response:
    """One key, to an administrator or to the key itself."""
    return json_response(await asked.call("get_key", asked.request.path_params))


async def update(asked: Exchange) -> Response:
    """Change what stands in the body; null lifts a restriction."""
    return await bodies.change(asked, "update_key")


async def suspend(asked: Exchange) -> Response:
    """Refuse a key until it is resumed; 200 also the second time."""
    return json_response(await asked.call("suspend_key", asked.request.path_params))


async def resume(asked: Exchange) -> Response:
    """A suspended key is good again; 200 also the second time."""
    return json_response(await asked.call("resume_key", asked.request.path_params))


async def rotate(asked: Exchange) -> Response:
    """The same key with a new secret; the old one lives for `grace_seconds`. The body is optional."""
    return await bodies.act(asked, "rotate_key")


async def revoke(asked: Exchange) -> Response:
    """End a key and everything that it opened, with ?include_made=true also the keys that it made; 200 also the second
    time."""
    params = dict(asked.request.path_params)
    if (said := read_query(asked, "include_made")) is not None:
        if said.lower() not in ("true", "false"):
            raise InvalidParams("include_made is neither true nor false")
        params["include_made"] = said.lower() == "true"
    return json_response(await asked.call("revoke_key", params))


WAYS = (
    Way(method="POST", path="/api/keys", answer=create, operation="create_key", root_may=True),
    Way(method="GET", path="/api/keys", answer=list_all, operation="list_keys", root_may=True),
    Way(method="GET", path="/api/keys/{key_id}", answer=show, operation="get_key", root_may=True),
    Way(method="PATCH", path="/api/keys/{key_id}", answer=update, operation="update_key", root_may=True),
    Way(method="POST", path="/api/keys/{key_id}/suspend", answer=suspend, operation="suspend_key", root_may=True),
    Way(method="POST", path="/api/keys/{key_id}/resume", answer=resume, operation="resume_key", root_may=True),
    Way(method="POST", path="/api/keys/{key_id}/rotate", answer=rotate, operation="rotate_key", root_may=True),
    Way(method="DELETE", path="/api/keys/{key_id}", answer=revoke, operation="revoke_key", root_may=True),
)


def _read_days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MOST_DAYS:
        raise InvalidParams(f"unused_days must be a number of days from 0 to {MOST_DAYS}")
    return days
