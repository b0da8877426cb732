"""/api/claim: the first administrator of a new box (contract 10.1, 10.14)."""

from __future__ import annotations

import os

from starlette.responses import Response

from edged.operations.own_urls import list_names
from edged.web.bodies import answer_operation
from edged.web.credentials import is_own_page
from edged.web.requests import Request


async def claim(request: Request) -> Response:
    """Make the first administrator, by the code of the box: 201. Refused through a page of another site."""
    if not is_own_page(request.http.headers, list_names(os.uname().nodename)):
        raise request.refuse_origin(
            "ask by the address of this box, by localhost or by its own name, and from no other site"
        )
    return await answer_operation(request)
