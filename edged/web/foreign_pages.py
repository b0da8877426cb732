"""Pages of other origins: what a signed link opens, their scripts may read (contract 10.14).

Whoever has the link has its bytes by any other way, too; a browser alone keeps a page from reading them. A request by a
link carries nothing that the browser adds of its own accord, so the answers are for every page, and never with its
credentials mode. Nothing else of edged is answered like that, but for the key sets.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.types import Message, Scope, Send

from edged.web.requests import Route

#: What a player reads of an answer beside its body; Content-Type and Last-Modified need no word.
_EXPOSED: Final = "Accept-Ranges, Content-Length, Content-Range, ETag"
_HEADERS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", _EXPOSED.encode()),
)
#: Seconds for which a browser need not ask again: Chromium's most.
_PREFLIGHT_SECONDS: Final = 7200
#: Credentials that a request shows beside a link, and that count before it.
_OWN: Final = frozenset({b"authorization", b"x-api-key", b"x-service-token", b"cookie"})


def is_for_pages(route: Route, scope: Scope) -> bool:
    """Whether a request is by a signed link and by nothing else."""
    is_link = route.link is not None and any(member.startswith(b"sig=") for member in scope["query_string"].split(b"&"))
    return is_link and not any(name in _OWN for name, _ in scope["headers"])


def shared(send: Send) -> Send:
    """A send whose answer the scripts of every page may read, an error, too."""

    async def send_shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_HEADERS]}
        await send(message)

    return send_shared


def answer_preflight() -> Response:
    """What a browser is told that asks before a request with a Range (Fetch, 4.8): it may."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "Range, If-Range", "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
        },
    )  # fmt: skip
