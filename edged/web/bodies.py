"""What stands in the bodies of requests: JSON objects and forms."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from edged.errors import InvalidParams
from edged.web.credentials import has_body, is_json, media_type
from edged.web.exchange import Exchange, json_response
from edged.web.faults import not_json

FORM: Final = "application/x-www-form-urlencoded"
_MOST_MEMBERS: Final = 16


async def change(asked: Exchange, operation: str) -> Response:
    """Ask for an operation on what the path names; a body, if there is one, is a JSON object of further params."""
    body: dict[str, object] = {}
    if has_body(asked.request.headers):
        if not is_json(asked.request.headers):
            return not_json()
        body = await read_object(asked)
    return json_response(await asked.call(operation, {**body, **asked.request.path_params}))


async def read_object(asked: Exchange) -> dict[str, object]:
    """The body, a JSON object; none at all is an empty one. Raises InvalidParams."""
    return parse_object(await asked.request.body() or b"{}")


def parse_object(body: bytes) -> dict[str, object]:
    """A JSON object. Raises InvalidParams."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidParams("the body cannot be read as JSON") from None
    if not isinstance(value, dict):
        raise InvalidParams("the body must be a JSON object")
    return value


def is_form(headers: Headers) -> bool:
    """Whether the body says that it is a form."""
    return media_type(headers) == FORM


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """Names and values of a form, in its order; a name may stand there more than once. Raises InvalidParams."""
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_MEMBERS)
    except ValueError:
        raise InvalidParams("the form cannot be read") from None
