"""/metrics: open to this machine on the local listener, for a metrics:read credential elsewhere (contract 5.4)."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol

import trio
from starlette.responses import Response

from edged.operations.file_params import check_unlimited
from edged.web.credentials import is_direct
from edged.web.requests import Request, Route

PATH: Final = "/metrics"


class HttpMetrics(Protocol):
    """Renders the metrics and counts responses; metrics.Metrics in the daemon."""

    def render(self, accept: str) -> tuple[bytes, str]: ...
    def http_answered(self, status: int) -> None: ...


def metrics_routes(metrics: HttpMetrics) -> tuple[Route, ...]:
    """The row of the route table."""
    is_imported = False

    async def scrape(request: Request) -> Response:
        """Prometheus text, or OpenMetrics where Accept asks for it. For callers that may see all cameras, or a program
        of this machine."""
        nonlocal is_imported
        if (caller := request.session.caller) is not None:
            check_unlimited(caller)
        if not is_imported:
            await trio.to_thread.run_sync(import_module, "edged.metrics.exposition")
            is_imported = True
        body, content_type = metrics.render(request.http.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return (
        Route(
            method="GET", path=PATH, answer=scrape, capability="metrics:read", open_if=is_local_scrape,
            takes_basic=True,
        ),
    )  # fmt: skip


def is_local_scrape(request: Request) -> bool:
    """A program of this machine on the local listener, not a browser and not through a proxy (contract 10.14)."""
    peer = request.session.peer
    return peer.listener == "local" and is_direct(request.http.headers, peer)
