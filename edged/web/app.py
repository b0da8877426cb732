"""The HTTP side of every listener: a router over the route table, and errors as responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route as RouterPath
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edged.access.asking import asking
from edged.credentials.roles import CAPABILITIES, OPEN, SELF
from edged.errors import EdgedError, NotBuilt
from edged.operations.catalogue import Catalogue
from edged.operations.entry import Entry, entry_of
from edged.operations.not_built import WHERE, is_path
from edged.operations.services import Services
from edged.web.faults import BASIC, fault, respond, sole, unexpected
from edged.web.foreign_pages import answer_preflight, is_for_pages, shared
from edged.web.metrics import HttpMetrics
from edged.web.requests import Request, ResponseAborted, Route
from edged.web.routes import list_routes


def make_app(
    catalogue: Catalogue,
    services: Services,
    metrics: HttpMetrics,
    *,
    is_ready: Callable[[], bool] = lambda: True,
    show_metrics: bool = True,
) -> ASGIApp:
    """The ASGI app. Each request's scope must hold `edged.peer`, the Peer at its other end.

    `is_ready` says whether every listener is open, `show_metrics` is the setting metrics.enabled. Raises ValueError for
    a route that names no known capability.
    """
    routes = list_routes(catalogue, services, metrics, is_ready, show_metrics=show_metrics)
    return build_router(routes, catalogue, services, metrics)


def build_router(routes: Iterable[Route], catalogue: Catalogue, services: Services, metrics: HttpMetrics) -> ASGIApp:
    """A router over these routes. Raises ValueError for one without a known capability: default deny at start-up."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        _check(route, catalogue)
        if route.method in table.setdefault(route.path, {}):
            raise ValueError(f"two routes are {route.method} {route.path}")
        table[route.path][route.method] = route
    # The first that matches answers: a literal segment goes before a parameter.
    ordered = sorted(table, key=lambda path: [segment.startswith("{") for segment in path.split("/")])
    entry = entry_of(services)
    paths = [RouterPath(path, Endpoint(table[path], catalogue, services, entry, metrics)) for path in ordered]
    return Router(paths, redirect_slashes=False, default=NotFoundEndpoint(metrics, tells_plans=True))


class Endpoint:
    """The ASGI app of one path, `routes` by method: asks the gate, answers, and turns every error into JSON."""

    def __init__(
        self, routes: Mapping[str, Route], catalogue: Catalogue, services: Services, entry: Entry, metrics: HttpMetrics
    ) -> None:
        self._routes = routes
        self._catalogue = catalogue
        self._services, self._entry = services, entry
        self._metrics = metrics
        self._allow = ", ".join(sorted({*routes, *(["HEAD"] if "GET" in routes else [])}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. HEAD is answered as GET; the connection drops the body."""
        route = self._routes.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None and self._is_preflight(scope):
            await answer_preflight()(scope, receive, _Counted(send, self._metrics))
            return
        is_shared = route is not None and is_for_pages(route, scope)
        counted = _Counted(shared(send) if is_shared else send, self._metrics)
        if route is None:
            refusal = respond(
                405,
                "method_not_allowed",
                "Method not allowed",
                f"this path knows {self._allow}",
                {"Allow": self._allow},
            )
            await refusal(scope, receive, counted)
            return
        request = Request.of(HttpRequest(scope, receive), self._catalogue, self._services, self._entry)
        request.session.doing = f"{scope['method']} {scope['path']}"
        asking.set(request.session)
        try:
            if route.read_client is not None:
                request.client = await route.read_client(request)
            # The gate decides and admits in one step: there is no checkpoint in between.
            request.enter(route)
            response = await route.answer(request)
            await response(scope, receive, counted)
        except (ClientDisconnect, ResponseAborted):
            raise
        except Exception as problem:
            if counted.lost:
                raise
            response = _explain(problem)
            if counted.started:
                raise ResponseAborted from None
            if response.status_code == 401 and request.offers_basic(route):
                # A header line of its own: some browsers read only the first challenge of a line.
                response.headers.append("WWW-Authenticate", BASIC)
            await response(scope, receive, counted)

    def _is_preflight(self, scope: Scope) -> bool:
        """Whether a browser asks if a page of another origin may fetch what a signed link opens."""
        asks = scope["method"] == "OPTIONS" and any(
            name == b"access-control-request-method" for name, _ in scope["headers"]
        )
        return asks and "GET" in self._routes and is_for_pages(self._routes["GET"], scope)


class NotFoundEndpoint:
    """The answer where no route is."""

    def __init__(self, metrics: HttpMetrics, *, tells_plans: bool = False) -> None:
        """`tells_plans`: 501 for the paths of a later version (operations.not_built)."""
        self._metrics = metrics
        self._tells_plans = tells_plans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """404, or 501."""
        response = respond(404, "not_found", "Not found", "there is nothing at this path")
        if self._tells_plans and is_path(scope["path"]):
            response = fault(NotBuilt("what belongs at this path is not built yet", hint=WHERE))
        await response(scope, receive, _Counted(send, self._metrics))


class PathFilter:
    """The same app with some of its paths hidden: answered as if there were no such route."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, shows: Callable[[str], bool]) -> None:
        """`shows(path)` says whether a path, as the router reads it, is visible."""
        self._app = app
        self._not_found = NotFoundEndpoint(metrics)
        self._shows = shows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app's answer, or 404."""
        await (self._app if self._shows(scope["path"]) else self._not_found)(scope, receive, send)


class _Counted:
    """A send that counts the status of the answer, once."""

    def __init__(self, send: Send, metrics: HttpMetrics) -> None:
        self._send = send
        self._metrics = metrics
        self.started = False
        self.lost = False

    async def __call__(self, message: Message) -> None:
        if not self.started:
            self.started = True
            self._metrics.http_answered(message["status"])
        try:
            await self._send(message)
        except OSError:
            self.lost = True  # the client has left: not news
            raise


def _explain(problem: Exception) -> Response:
    cause = sole(problem)
    return fault(cause) if isinstance(cause, EdgedError) else unexpected(problem)


#: POST routes that accept a credential by Basic (contract 5).
_BASIC_POSTS: Final = frozenset({"/oauth/introspect", "/oauth/revoke"})


def _check(route: Route, catalogue: Catalogue) -> None:
    name = f"{route.method} {route.path}"
    if route.takes_basic and route.method != "GET" and not (route.method == "POST" and route.path in _BASIC_POSTS):
        raise ValueError(f"{name} takes Basic, which a browser adds to requests of its own accord")
    if route.operation:
        if route.capability or route.operation not in catalogue.operations:
            raise ValueError(f"{name} names no operation alone: {route.operation!r}")
    elif route.capability not in CAPABILITIES and route.capability not in (OPEN, SELF):
        raise ValueError(f"{name} names no known capability: {route.capability!r}")
