"""Requests whose body may be left out: the rest of a change that the path names."""

from __future__ import annotations

from starlette.responses import Response

from edged.web.credentials import has_body, is_json
from edged.web.exchange import Exchange, json_response, read_object
from edged.web.faults import not_json


async def change(asked: Exchange, operation: str) -> Response:
    """Ask for an operation on what the path names; a body, if there is one, is a JSON object of further params."""
    body: dict[str, object] = {}
    if has_body(asked.request.headers):
        if not is_json(asked.request.headers):
            return not_json()
        body = await read_object(asked)
    return json_response(await asked.call(operation, {**body, **asked.request.path_params}))
