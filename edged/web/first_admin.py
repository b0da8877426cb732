"""/api/claim: the first administrator of a new box (contract 10.1, 10.14)."""

from __future__ import annotations

import os

from starlette.responses import Response

from edged.credentials.decision import Reason
from edged.web.bodies import answer_operation
from edged.web.credentials import is_own_page
from edged.web.requests import Request


async def claim(request: Request) -> Response:
    """Make the first administrator, by the code of the box: 201. Refused through a page of another site."""
    if not is_own_page(request.http.headers, own_names()):
        refusal = request.services.gate.refuse(Reason.ORIGIN_DENIED, "none", request.session.transport)
        refusal.hint = "ask by the address of this box, by localhost or by its own name, and from no other site"
        raise refusal
    return await answer_operation(request)


def own_names() -> frozenset[str]:
    """What this machine is called by itself and, by mDNS, by its neighbours; no DNS is asked."""
    name = os.uname().nodename.lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"})
