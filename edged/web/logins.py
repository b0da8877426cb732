"""POST /api/token: a token for streams, for a user's name and password (contract 5.2, S4-3)."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from edged.credentials.decision import outside_reason
from edged.errors import InvalidParams, Refused
from edged.web.bodies import FORM, is_form, parse_form, parse_object, read_body
from edged.web.credentials import is_json
from edged.web.faults import respond
from edged.web.requests import Request, json_response, read_query

_MEMBERS: Final = ("username", "password", "alg")


async def create_stream_token(request: Request) -> Response:
    """{"username", "password"} as JSON or as a form; `?alg=ES256`, or beside them, for a shorter token. 401 whatever is
    wrong."""
    body = _read(request.http.headers, await read_body(request))
    if body is None:
        return respond(415, "unsupported_media_type", "Unsupported media type", f"send application/json or {FORM}")
    if (alg := read_query(request, "alg")) is not None:
        if body.get("alg", alg) != alg:
            raise InvalidParams("alg in the body is not the one in the query", hint="say it once")
        body["alg"] = alg
    try:
        made = await request.call("create_stream_token", body)
    except Refused as problem:
        code = outside_reason(problem.reason)
        return respond(401, code, "Invalid credentials", "this user name and this password do not belong together")
    return json_response(made)


def _read(headers: Headers, body: bytes) -> dict[str, object] | None:
    """The members that count, None for a body of another type. Raises InvalidParams for one that cannot be read."""
    if is_json(headers):
        members = parse_object(body)
    elif is_form(headers):
        members = dict(parse_form(body))
    else:
        return None
    return {name: members[name] for name in _MEMBERS if name in members}
