"""GET /: a page for a browser, with the pictures of the cameras that a pasted key may see.

The page is four files of the package and sends requests to this box alone. The key stays in the page's memory: it is
sent in headers, and pictures are opened by tickets. The page has no inline scripts, so that none can be injected.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from starlette.responses import Response

from edged.web.requests import Request, Route

#: Path → file of the package, and its type.
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/static/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def show(request: Request) -> Response:
    """One of the files."""
    name, media_type = _FILES[request.http.url.path]
    return Response(_read(name), headers=_HEADERS, media_type=media_type)


ROUTES = tuple(Route(method="GET", path=path, answer=show, capability="none") for path in _FILES)


@cache
def _read(name: str) -> bytes:
    return (Path(__file__).parent / "static" / name).read_bytes()
