"""What stands in the bodies of requests, JSON objects and forms, and what is asked with it."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from edged.errors import InvalidParams
from edged.nesting import depth_of
from edged.operations.params import explain_unreadable
from edged.web.credentials import has_body, is_json, media_type
from edged.web.faults import not_json
from edged.web.requests import Request, json_response

FORM: Final = "application/x-www-form-urlencoded"
_MOST_MEMBERS: Final = 16
#: Bytes of a form, two of the longest tokens: the library takes half a microsecond for each that is escaped.
_LONGEST_FORM: Final = 32768
#: Brackets in a JSON body that is read without a struct: every object of it is one of Python's.
_MOST_BRACKETS: Final = 4096
_DEEPEST: Final = 64


async def create(request: Request, operation: str) -> Response:
    """Ask for something new, which the body, a JSON object, describes: 201."""
    if not is_json(request.http.headers):
        return not_json()
    return json_response(await request.call(operation, msgspec.Raw(await read_body(request) or b"{}")), 201)


async def change(request: Request, operation: str) -> Response:
    """Ask for a change of what the path names; the body, a JSON object, says of what kind.

    What was read by GET may be sent back whole; a body that names another thing than the path is refused.
    """
    if not is_json(request.http.headers):
        return not_json()
    body, named = parse_object(await read_body(request) or b"{}"), request.http.path_params
    for name in named:
        if body.get(name, named[name]) != named[name]:
            raise InvalidParams(f"{name} in the body is not the one in the path", hint="leave it out of the body")
    return json_response(await request.call(operation, {**body, **named}))


async def act(request: Request, operation: str) -> Response:
    """Ask for something that is done to what the path names; as `change`, but the body may be left out."""
    if has_body(request.http.headers):
        return await change(request, operation)
    return json_response(await request.call(operation, request.http.path_params))


async def read_body(request: Request) -> bytes:
    """The body as it was sent. Raises InvalidParams for one that says that it is compressed."""
    coding = request.http.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise InvalidParams("the body is compressed", hint="send it without Content-Encoding")
    return await request.http.body()


def parse_object(body: bytes) -> dict[str, object]:
    """A JSON object. Raises InvalidParams."""
    depth = depth_of(body, _MOST_BRACKETS)
    if depth is None or depth > _DEEPEST:
        raise InvalidParams("the body has too many arrays and objects, or they are nested too deeply")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        sentence, hint = explain_unreadable(body, problem)
        raise InvalidParams(f"the body cannot be read: {sentence}", hint=hint) from None
    if not isinstance(value, dict):
        raise InvalidParams("the body must be a JSON object")
    return value


def is_form(headers: Headers) -> bool:
    """Whether the body says that it is a form."""
    return media_type(headers) == FORM


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """Names and values of a form, in its order; a name may stand there more than once. Raises InvalidParams."""
    if len(body) > _LONGEST_FORM:
        raise InvalidParams(f"the form is longer than {_LONGEST_FORM} bytes")
    if body.count(b"&") >= _MOST_MEMBERS:
        raise InvalidParams(f"the form has more than {_MOST_MEMBERS} members")
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_MEMBERS)
    except ValueError:
        hint = "write every other character as % and two digits"
        raise InvalidParams("the form cannot be read: it is not percent-encoded ASCII", hint=hint) from None
