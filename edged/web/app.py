"""The HTTP side of every listener: one table of routes, each of which names who may ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edged.access.asking import asking
from edged.credentials.roles import CAPABILITIES, OPEN, SELF
from edged.errors import EdgedError, NotBuilt
from edged.operations.catalogue import Catalogue
from edged.operations.not_built import WHERE, is_path
from edged.operations.services import Services
from edged.web import (
    api_keys,
    cameras,
    downloads,
    files,
    first_admin,
    jwks,
    live,
    logins,
    oauth,
    pages,
    restores,
    revocations,
    service_tokens,
    sessions,
    signing_keys,
    status,
    tickets,
    tokens,
    users,
)
from edged.web.exchange import CutOff, Exchange, Way
from edged.web.faults import BASIC, fault, respond, sole, unexpected
from edged.web.health import PATHS as HEALTH_PATHS
from edged.web.health import Health
from edged.web.metrics import PATH as METRICS_PATH
from edged.web.metrics import Metrics, metrics_ways

#: The rows that need nothing to be made of.
_FIXED: Final = (
    *api_keys.WAYS,
    *service_tokens.WAYS,
    *files.WAYS,
    *users.WAYS,
    *logins.WAYS,
    *tokens.WAYS,
    *oauth.WAYS,
    *signing_keys.WAYS,
    *jwks.WAYS,
    *sessions.WAYS,
    *revocations.WAYS,
    *first_admin.WAYS,
    *restores.WAYS,
    *cameras.WAYS,
    *live.WAYS,
    *status.WAYS,
    *pages.WAYS,
    *tickets.WAYS,
    *downloads.WAYS,
)


def make_app(
    catalogue: Catalogue,
    services: Services,
    metrics: Metrics,
    *,
    is_ready: Callable[[], bool] = lambda: True,
    show_metrics: bool = True,
) -> ASGIApp:
    """The ASGI app. Each request's scope must hold `edged.peer`, the Peer at its other end.

    `is_ready` says whether every door is open, `show_metrics`
    the setting metrics.enabled. Raises ValueError if a way names nobody who may go it.
    """
    ways = list_ways(services, metrics, is_ready, show_metrics=show_metrics)
    return route(ways, catalogue, services, metrics)


def list_ways(
    services: Services,
    metrics: Metrics,
    is_ready: Callable[[], bool] = lambda: True,
    *,
    show_metrics: bool = True,
) -> tuple[Way, ...]:
    """The whole route table, from the arguments of `make_app`."""
    return (*_FIXED, *Health(services, is_ready).ways(), *(metrics_ways(metrics) if show_metrics else ()))


def list_paths() -> frozenset[str]:
    """The paths of the route table, whatever is switched off."""
    return frozenset({*(way.path for way in _FIXED), *HEALTH_PATHS, METRICS_PATH})


def route(ways: Iterable[Way], catalogue: Catalogue, services: Services, metrics: Metrics) -> ASGIApp:
    """A router over these ways. Raises ValueError for one without a known capability: default deny at start-up."""
    table: dict[str, dict[str, Way]] = {}
    for way in ways:
        _check(way, catalogue)
        if way.method in table.setdefault(way.path, {}):
            raise ValueError(f"two ways are {way.method} {way.path}")
        table[way.path][way.method] = way
    routes = [Route(path, Door(doors, catalogue, services, metrics)) for path, doors in table.items()]
    return Router(routes, redirect_slashes=False, default=Wall(metrics, tells_plans=True))


class Door:
    """The ASGI app of one path: gate, answer, and every error in the same clothes."""

    def __init__(self, ways: Mapping[str, Way], catalogue: Catalogue, services: Services, metrics: Metrics) -> None:
        self._ways = ways
        self._catalogue = catalogue
        self._services = services
        self._metrics = metrics
        self._allow = ", ".join(sorted({*ways, *(["HEAD"] if "GET" in ways else [])}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. HEAD is asked as GET; the door below drops the body."""
        counted = _Counted(send, self._metrics)
        way = self._ways.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if way is None:
            refusal = respond(
                405,
                "method_not_allowed",
                "Method not allowed",
                f"this path knows {self._allow}",
                {"Allow": self._allow},
            )
            await refusal(scope, receive, counted)
            return
        asked = Exchange.of(Request(scope, receive), self._catalogue, self._services)
        asked.session.doing = f"{scope['method']} {scope['path']}"
        asking.set(asked.session)
        try:
            if way.read_client is not None:
                asked.client = await way.read_client(asked)
            # The gate's word and what it lets in are one step: no checkpoint lies between them.
            asked.enter(way)
            response = await way.answer(asked)
            await response(scope, receive, counted)
        except (ClientDisconnect, CutOff):
            raise
        except Exception as problem:
            if counted.lost:
                raise
            response = _explain(problem)
            if counted.started:
                raise CutOff from None
            if response.status_code == 401 and asked.offers_basic(way):
                # In a line of its own: not every browser finds a second challenge in one.
                response.headers.append("WWW-Authenticate", BASIC)
            await response(scope, receive, counted)


class Wall:
    """Where no way leads."""

    def __init__(self, metrics: Metrics, *, tells_plans: bool = False) -> None:
        """`tells_plans`: where a later version will have something, that is said."""
        self._metrics = metrics
        self._tells_plans = tells_plans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """404, or 501."""
        response = respond(404, "not_found", "Not found", "there is nothing at this path")
        if self._tells_plans and is_path(scope["path"]):
            response = fault(NotBuilt("what belongs at this path is not built yet", hint=WHERE))
        await response(scope, receive, _Counted(send, self._metrics))


class Curtain:
    """The same app with some of its paths hidden: as if no way led there."""

    def __init__(self, app: ASGIApp, metrics: Metrics, shows: Callable[[str], bool]) -> None:
        """`shows` says of a path, as the router reads it, whether it is to be seen."""
        self._app = app
        self._wall = Wall(metrics)
        self._shows = shows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app's answer, or 404."""
        await (self._app if self._shows(scope["path"]) else self._wall)(scope, receive, send)


class _Counted:
    """A send that counts the status on its way, once."""

    def __init__(self, send: Send, metrics: Metrics) -> None:
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


#: What is asked by POST, and yet may be shown a credential by Basic (contract 5).
_BASIC_POSTS: Final = frozenset({"/oauth/introspect", "/oauth/revoke"})


def _check(way: Way, catalogue: Catalogue) -> None:
    name = f"{way.method} {way.path}"
    if way.takes_basic and way.method != "GET" and not (way.method == "POST" and way.path in _BASIC_POSTS):
        raise ValueError(f"{name} takes Basic, which a browser adds to requests of its own accord")
    if way.operation:
        if way.capability or way.operation not in catalogue.operations:
            raise ValueError(f"{name} names no operation alone: {way.operation!r}")
    elif way.capability not in CAPABILITIES and way.capability not in (OPEN, SELF):
        raise ValueError(f"{name} names no known capability: {way.capability!r}")
