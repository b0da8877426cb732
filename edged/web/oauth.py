"""/oauth: is a token good (RFC 7662), and end it (RFC 7009); API keys may stand for tokens (contract 10.1).

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

#: Bytes of a form: it is read before anybody has shown who they are.
LONGEST_FORM: Final = 16 * 1024


async def introspect(request: Request) -> Response:
    """What is known of the token in the form; of one that is not good, for whatever reason, only that."""
    try:
        token = await _read_one(request, "token")
    except InvalidParams as problem:
        return _invalid_request(problem)
    return json_response(await request.call("introspect_token", {"token": token}))


async def revoke(request: Request) -> Response:
    """The token in the form is good no more once this answers 200: also when it never was, and then nothing is done.

    It stands for itself: beside it no credential needs to be shown (RFC 7009, section 2.1; clients have no secrets of
    their own here), and who shows it as Bearer, too, shows nothing else. What is shown besides must be good.
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
    # One that cannot be read is one that nobody could use (RFC 7009, section 2.2).
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
    """A member of the form, which stands there once; members that nobody asks for are not looked at. Raises
    InvalidParams."""
    found = [value for each, value in await _read_form(request) if each == name]
    if len(found) > 1:
        raise InvalidParams(f"{name} stands twice")
    if found and found[0]:
        return found[0]
    if default is None:
        raise InvalidParams(f"{name} is missing")
    return default


def _invalid_request(problem: InvalidParams) -> Response:
    """RFC 6749, section 5.2, and what every error of edged says."""
    told = problem.sentence
    return json_response(
        {"error": "invalid_request", "error_description": told, "detail": told, "code": problem.slug}, 400
    )
