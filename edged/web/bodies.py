"""Reads params from the path, the query and the body (a JSON object or a form), and calls the operation with them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
import trio
from starlette.datastructures import Headers
from starlette.responses import Response

from edged.errors import NOT_JSON, InvalidParams
from edged.nesting import Steps, commas_in_steps, depth_in_steps
from edged.operations.params import explain_unreadable, parse_member
from edged.web.credentials import has_body, is_json, media_type
from edged.web.faults import not_json
from edged.web.requests import Request, json_response, read_query

S = TypeVar("S", bound=msgspec.Struct)

FORM: Final = "application/x-www-form-urlencoded"
_MOST_MEMBERS: Final = 16
#: Bytes of a form, two of the longest tokens: the library takes half a microsecond for each that is escaped.
_LONGEST_FORM: Final = 32768
#: Brackets in a JSON body, and members beside one another: each may cost a Python object.
_MOST_BRACKETS: Final = 4096
_MOST_JSON_MEMBERS: Final = 16384
_DEEPEST: Final = 64


async def answer_operation(request: Request) -> Response:
    """Call the route's operation with the params of the path, and of the query or the body; its result as JSON.

    The result of a GET may be sent back whole by PATCH; a body whose id differs from the path is refused.
    """
    assert request.route is not None, "the endpoint has asked the gate"
    item, named = request.catalogue.find(request.route.operation), request.http.path_params
    assert item.rest is not None, "its declaration has made the route"
    source, params = item.rest.source, dict(named)
    given: msgspec.Raw | Mapping[str, object] = params
    if source == "query":
        params |= read_query_params(request, item.params, named)
    elif source == "body" or has_body(request.http.headers):
        if not is_json(request.http.headers):
            return not_json()
        body = await read_body(request) or b"{}"
        if source == "body" and not named:
            given = msgspec.Raw(body)
        else:
            members = parse_object(body)
            for name in named:
                if members.get(name, named[name]) != named[name]:
                    raise InvalidParams(
                        f"{name} in the body is not the one in the path", hint="leave it out of the body"
                    )
            given = {**members, **named}
    return json_response(await request.call(item.name, given), item.rest.status)


def read_query_params(request: Request, kind: type[msgspec.Struct], named: Container[str] = ()) -> dict[str, object]:
    """The members of a params struct that the query has, without those that the path names.

    Unknown members of the query are ignored. Raises InvalidParams for one that stands twice or has a wrong type.
    """
    texts = ((name, read_query(request, name)) for name in kind.__struct_encode_fields__ if name not in named)
    return {name: parse_member(kind, name, text) for name, text in texts if text is not None}


def read_query_struct(request: Request, kind: type[S]) -> S:
    """A params struct from the query. Raises InvalidParams."""
    return msgspec.convert(read_query_params(request, kind), kind)


async def read_body(request: Request) -> bytes:
    """The body as it was sent. Raises InvalidParams if it is compressed, or JSON with too much in it.

    A long one lets other tasks run in between.
    """
    coding = request.http.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise InvalidParams("the body is compressed", hint="send it without Content-Encoding")
    body = await request.http.body()
    if is_json(request.http.headers):
        for _step in judge(body):
            await trio.lowlevel.checkpoint()
    return body


def judge(body: bytes) -> Steps[None]:
    """Whether a JSON body may be decoded, in steps. Raises InvalidParams."""
    depth = yield from depth_in_steps(body, _MOST_BRACKETS)
    if depth is None or depth > _DEEPEST:
        raise InvalidParams("the body has too many arrays and objects, or they are nested too deeply")
    if body.count(b",") > _MOST_JSON_MEMBERS and (yield from commas_in_steps(body)) > _MOST_JSON_MEMBERS:
        raise InvalidParams(f"the body has more than {_MOST_JSON_MEMBERS} members")


def parse_object(body: bytes) -> dict[str, object]:
    """A JSON object, from what `read_body` returned. Raises InvalidParams."""
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON as problem:
        sentence, hint = explain_unreadable(body, problem)
        raise InvalidParams(f"the body cannot be read: {sentence}", hint=hint) from None
    if not isinstance(value, dict):
        raise InvalidParams("the body must be a JSON object")
    return value


def is_form(headers: Headers) -> bool:
    """Whether Content-Type names a form."""
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
