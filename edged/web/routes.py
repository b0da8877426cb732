"""The route table: a row for each operation that declares one (operations.rest), and those without an operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.responses import Response

from edged.operations import gather
from edged.operations.catalogue import Catalogue, Operation
from edged.operations.services import Services
from edged.web import cameras, downloads, files, first_admin, jwks, live, logins, oauth, pages, playback, refreshes
from edged.web.bodies import answer_operation
from edged.web.health import PATHS as HEALTH_PATHS
from edged.web.health import HealthEndpoints
from edged.web.metrics import PATH as METRICS_PATH
from edged.web.metrics import HttpMetrics, metrics_routes
from edged.web.requests import Request, Route

#: Operations with an answer of their own in place of `answer_operation`.
_ANSWERS: Final[Mapping[str, Callable[[Request], Awaitable[Response]]]] = {
    "claim": first_admin.claim,
    "create_stream_token": logins.create_stream_token,
    "refresh_token": refreshes.refresh,
    "generate_files_token": files.generate_token,
    "introspect_token": oauth.introspect,
    "revoke_token": oauth.revoke,
    "get_camera_list": cameras.list_all,
    "get_camera_status": cameras.show,
    "update_camera": cameras.change,
}
#: Operations of OAuth clients, which authenticate by Basic or in the form (RFC 6749 2.3.1).
_OAUTH: Final = frozenset({"introspect_token", "revoke_token"})
#: Rows without an operation.
_FIXED: Final = (*jwks.ROUTES, *cameras.ROUTES, *live.ROUTES, *downloads.ROUTES, *playback.ROUTES, *pages.ROUTES)


def list_routes(
    catalogue: Catalogue,
    services: Services,
    metrics: HttpMetrics,
    is_ready: Callable[[], bool] = lambda: True,
    *,
    show_metrics: bool = True,
) -> tuple[Route, ...]:
    """The whole table. `is_ready` and `show_metrics` as `web.app.make_app`."""
    return (
        *_list_operations(catalogue),
        *_FIXED,
        *HealthEndpoints(services, is_ready).routes(),
        *(metrics_routes(metrics) if show_metrics else ()),
    )


def list_paths() -> frozenset[str]:
    """The paths of the route table, whatever is switched off."""
    routes = (*_list_operations(gather()), *_FIXED)
    return frozenset({*(route.path for route in routes), *HEALTH_PATHS, METRICS_PATH})


def _list_operations(catalogue: Catalogue) -> list[Route]:
    return [_make_route(item) for item in catalogue.operations.values() if item.rest is not None]


def _make_route(item: Operation) -> Route:
    assert item.rest is not None
    is_oauth = item.name in _OAUTH
    return Route(
        method=item.rest.method,
        path=item.rest.path,
        answer=_ANSWERS.get(item.name, answer_operation),
        operation=item.name,
        root_may=item.rest.root_may,
        at_files=item.rest.at_files,
        takes_basic=is_oauth,
        read_client=oauth.read_client if is_oauth else None,
    )
