"""/oauth: introspection (RFC 7662) and revocation (RFC 7009) of tokens, and of API keys as well (contract 10.1).

OAuth clients show who they are by HTTP Basic or by client_id and client_secret in the form (RFC 6749 2.3.1): the
secret is an API key or a token, and the client id is free.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import Final

from starlette.responses import Response

from edged.credentials.callers import Credential, NoCredential, parse_credential
from edged.errors import InvalidParams
from edged.web.bodies import FORM, is_form, parse_form
from edged.web.credentials import text_of
from edged.web.requests import Request, json_response

#: Bytes of a form: it is read before the caller is authenticated.
LONGEST_FORM: Final = 16 * 1024


async def introspect(request: Request) -> Response:
    """Introspect the token in the form; of one that is not active nothing else is told (RFC 7662 2.2)."""
    try:
        token = await _read_one(request, "token")
    except InvalidParams as problem:
        return _invalid_request(problem)
    return json_response(await request.call("introspect_token", {"token": token}))


async def revoke(request: Request) -> Response:
    """Revoke the token in the form: 200, also for one that was never good (RFC 7009, section 2.2).

    The token is credential enough (RFC 7009, section 2.1; clients have no secrets of their own here), also where it is
    sent as Bearer as well. Another credential that is shown must be good.
    """
    try:
        token = await _read_one(request, "token")
        include_made = (await _read_one(request, "include_made", "false")).lower()
        if include_made not in ("true", "false"):
            raise InvalidParams("include_made is neither true nor false")
    except InvalidParams as problem:
        return _invalid_request(problem)
    assert request.route is not None, "the endpoint has asked the gate"
    shown = request.read_shown(request.route)
    if not isinstance(shown, NoCredential) and text_of(shown) != token:
        request.identify(shown)
    # A malformed token is no error (RFC 7009, section 2.2).
    with suppress(InvalidParams):
        await request.call("revoke_token", {"token": token, "include_made": include_made == "true"})
    return json_response({})


async def read_client(request: Request) -> Credential:
    """client_secret of the form, as a credential; nothing where the head shows one: a client authenticates by one
    method only (RFC 6749 2.3). A malformed form is reported later, to callers who may send it."""
    if "authorization" in request.http.headers or "x-api-key" in request.http.headers:
        return NoCredential()
    try:
        return parse_credential(await _read_one(request, "client_secret", ""))
    except InvalidParams:
        return NoCredential()


async def _read_form(request: Request) -> list[tuple[str, str]]:
    """Names and values. Raises InvalidParams."""
    if not is_form(request.http.headers):
        raise InvalidParams(f"send Content-Type: {FORM}")
    if request.body is None:
        body = bytearray()
        async with aclosing(request.http.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > LONGEST_FORM:
                    break
        request.body = bytes(body)
    if len(request.body) > LONGEST_FORM:
        raise InvalidParams(f"the form is longer than {LONGEST_FORM} bytes")
    return parse_form(request.body)


async def _read_one(request: Request, name: str, default: str | None = None) -> str:
    """A member of the form. Raises InvalidParams if it stands there twice, or not at all and without `default`."""
    found = [value for each, value in await _read_form(request) if each == name]
    if len(found) > 1:
        raise InvalidParams(f"{name} stands twice")
    if found and found[0]:
        return found[0]
    if default is None:
        raise InvalidParams(f"{name} is missing")
    return default


def _invalid_request(problem: InvalidParams) -> Response:
    """400 with the members of RFC 6749, section 5.2, and those of every error of edged."""
    told = problem.sentence
    return json_response(
        {"error": "invalid_request", "error_description": told, "detail": told, "code": problem.slug}, 400
    )
