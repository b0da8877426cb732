"""/oauth: is a token good (RFC 7662), and end it (RFC 7009); API keys may stand for tokens (contract 10.1)."""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from edged.credentials.callers import NoCredential
from edged.errors import InvalidParams
from edged.web.bodies import FORM, is_form, parse_form
from edged.web.credentials import read_credential, text_of
from edged.web.exchange import Exchange, Way, json_response


async def introspect(asked: Exchange) -> Response:
    """What is known of the token in the form; of one that is not good, for whatever reason, only that."""
    try:
        token = await _read_token(asked.request)
    except InvalidParams as problem:
        return _invalid_request(problem)
    return json_response(await asked.call("introspect_token", {"token": token}))


async def revoke(asked: Exchange) -> Response:
    """The token in the form is good no more once this answers 200: also when it never was.

    It stands for itself: beside it no credential needs to be shown (RFC 7009, section 2.1; clients have no secrets of
    their own here), and who shows it as Bearer, too, shows nothing else. What is shown besides must be good.
    """
    try:
        token = await _read_token(asked.request)
    except InvalidParams as problem:
        return _invalid_request(problem)
    shown = read_credential(asked.request.headers, asked.session.peer)
    if not isinstance(shown, NoCredential) and text_of(shown) != token:
        asked.identify(shown)
    # One that cannot be read is one that nobody could use (RFC 7009, section 2.2).
    with suppress(InvalidParams):
        await asked.call("revoke_token", {"token": token})
    return json_response({})


WAYS = (
    Way(method="POST", path="/oauth/introspect", answer=introspect, operation="introspect_token"),
    Way(method="POST", path="/oauth/revoke", answer=revoke, operation="revoke_token"),
)


async def _read_token(request: Request) -> str:
    """`token` of the form; `token_type_hint` and whatever else stands there are not looked at. Raises InvalidParams."""
    if not is_form(request.headers):
        raise InvalidParams(f"send Content-Type: {FORM}")
    found = [value for name, value in parse_form(await request.body()) if name == "token"]
    if len(found) != 1 or not found[0]:
        raise InvalidParams("token stands twice" if len(found) > 1 else "token is missing")
    return found[0]


def _invalid_request(problem: InvalidParams) -> Response:
    """RFC 6749, section 5.2, and what every error of edged says."""
    told = problem.sentence
    return json_response(
        {"error": "invalid_request", "error_description": told, "detail": told, "code": problem.slug}, 400
    )
