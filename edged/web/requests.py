"""One HTTP request, and the row of the route table that says who may send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import msgspec
import structlog
import trio
from starlette.datastructures import QueryParams
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Message, Send

from edged.access.admissions import Admission, Cause
from edged.cameras.model import Camera
from edged.credentials.callers import (
    NOTHING,
    Caller,
    Credential,
    Link,
    LocalUser,
    NoCredential,
    Peer,
    Resource,
    Ticket,
    Transport,
)
from edged.credentials.decision import Reason
from edged.credentials.links import target_of
from edged.credentials.roles import OPEN, SELF
from edged.errors import InvalidParams, RateLimited, Refused
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import Catalogue, find_camera
from edged.operations.entry import Entry
from edged.operations.services import Services
from edged.structs import Discreet
from edged.web.credentials import (
    is_cross_origin,
    is_direct,
    may_go_without,
    read_basic,
    read_credential,
    read_service_token,
)

#: Members of a query string; a list takes three.
_MOST_QUERY_MEMBERS = 64
_log = structlog.get_logger("web")
_LONGEST_AGENT = 64
_NO_STORE = {"Cache-Control": "no-store"}
_HOW = "send Authorization: Bearer with an API key or a token, or X-API-Key"
_HOW_AT_FILES = "send X-Service-Token, or Authorization: Bearer with a token for files"
#: Something was sent in Authorization, by a scheme that this route does not take.
_OTHER_SCHEME = "the scheme of its Authorization is not taken here: "
#: Not through a page or a proxy: those need a credential (10.14).
_DIRECTLY = "at http://localhost with no browser and no proxy in between"
_HOW_LOCAL = f"{_HOW}; on this machine root needs none (sudo), {_DIRECTLY}"
_OR_BASIC = "; Basic is good here, too: any user name, the key or token as the password"
_NOT_BY_BASIC = "Basic is taken from no page of another origin: send Authorization: Bearer, or X-API-Key"
_HOW_OPEN = f"{_HOW}; on this machine the listener for it (listen.local) needs none, {_DIRECTLY}"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the route table: a method on a path, who may send it, and what answers.

    Either `operation`, whose declaration says who may call it (an open one needs no credential), or `capability`: one
    of the roles' (asked for the camera in the path parameter `camera` if `on_camera`), "self" (any good credential) or
    "none". `open_if` names requests that need no credential; `root_may` is the credential-free rule of contract 5.1;
    `takes_ticket` accepts ?ticket=; `link` accepts a signed link, bound to these members of the query besides the path
    (contract 10.25); `takes_basic` a key or token as the password of Basic: for what only reads, and for
    OAuth clients, never for anything else that a browser could be made to send (contract 5). `read_client` returns the
    credential in the body of an OAuth client; it is called before the gate is asked. `at_files` is set for those under
    /v1/files: X-Service-Token and files tokens are accepted there and nowhere else.
    """

    method: str
    path: str
    answer: Callable[[Request], Awaitable[Response]]
    operation: str = ""
    capability: str = ""
    on_camera: bool = False
    open_if: Callable[[Request], bool] | None = None
    root_may: bool = False
    takes_ticket: bool = False
    link: tuple[str, ...] | None = None
    takes_basic: bool = False
    read_client: Callable[[Request], Awaitable[Credential]] | None = None
    at_files: bool = False


class Request(Discreet, msgspec.Struct):
    """One request: the session that lasts as long as it does, and the camera that it names. `services` are handed on to
    operations, and not looked into."""

    hidden: ClassVar = frozenset({"body", "client", "_as_root"})

    http: HttpRequest
    catalogue: Catalogue
    services: Services
    entry: Entry
    session: Session
    #: The row that answers it; set by `enter`.
    route: Route | None = None
    #: The body, where it was read already, and the credential that it holds.
    body: bytes | None = None
    client: Credential = msgspec.field(default_factory=NoCredential)
    _as_root: bool = False
    _camera: Camera | None = None

    @classmethod
    def of(cls, request: HttpRequest, catalogue: Catalogue, services: Services, entry: Entry) -> Request:
        """From a request whose scope holds `edged.peer`."""
        peer: Peer = request.scope["edged.peer"]
        transport: Transport = "uds" if peer.is_local_socket else "http"
        session = Session(peer, transport, is_direct=partial(is_direct, request.headers, peer))
        return cls(request, catalogue, services, entry, session)

    @property
    def camera(self) -> Camera:
        """The camera in the path; only on a route that is declared `on_camera`."""
        assert self._camera is not None, "this route is not declared on_camera"
        return self._camera

    @property
    def caller(self) -> Caller:
        """The authenticated caller; only on a route that requires a credential."""
        assert self.session.caller is not None, "this route requires a credential"
        return self.session.caller

    @property
    def query(self) -> QueryParams:
        """The members of the query string. Raises InvalidParams for more than 64 of them."""
        if self.http.scope["query_string"].count(b"&") >= _MOST_QUERY_MEMBERS:
            raise InvalidParams(f"the query has more than {_MOST_QUERY_MEMBERS} members")
        return self.http.query_params

    def enter(self, route: Route) -> None:
        """Ask the gate. Raises Refused, or CameraNotFound for a camera that the caller may not see."""
        self.route = route
        if self._is_open(route) or (route.open_if is not None and route.open_if(self)):
            return
        self._authenticate(route)
        if route.on_camera:
            device = self.http.path_params["camera"]
            self._camera = find_camera(route.capability, device, self.services, self.session)
        elif route.capability and route.capability != SELF:
            self.entry.gate.authorize(self.session.caller, route.capability, self.session.transport)

    def read_shown(self, route: Route) -> Credential:
        """The credential that the request shows. Raises Refused for Basic by a page of another origin."""
        headers = self.http.headers
        credential = read_credential(headers, self.session.peer)
        if isinstance(credential, NoCredential) and route.takes_ticket and "ticket" in self.query:
            return Ticket(self.query["ticket"])
        if isinstance(credential, NoCredential) and route.link is not None and "sig" in self.query:
            return self._read_link(route.link)
        if isinstance(credential, NoCredential) and route.takes_basic:
            credential = read_basic(headers)
            if route.read_client is not None and not isinstance(credential, NoCredential):
                self.client = credential
            if not isinstance(credential, NoCredential) and is_cross_origin(headers):
                raise self.refuse_origin(_NOT_BY_BASIC)
        # A credential in the body counts before the user of the unix socket.
        return self.client if isinstance(credential, (NoCredential, LocalUser)) and self.shows_client else credential

    def _read_link(self, bound: tuple[str, ...]) -> Link:
        """The signed link that the request is. Raises InvalidParams for a member that stands twice."""
        said = {name: read_query(self, name) for name in (*bound, "exp", "by", "sig")}
        members = [(name, text) for name in bound if (text := said[name]) is not None]
        target = target_of(self.http.scope["path"], members)
        return Link(target, said["exp"] or "", said["by"] or "", said["sig"] or "")

    @property
    def shows_client(self) -> bool:
        """Whether the body holds a credential."""
        return not isinstance(self.client, NoCredential)

    def offers_basic(self, route: Route) -> bool:
        """Whether a refusal may offer Basic, on which a browser asks its user for a password: not where a credential of
        another kind was sent, as by a page's script."""
        headers = self.http.headers
        if not route.takes_basic or "x-api-key" in headers or (route.takes_ticket and "ticket" in self.query):
            return False
        return headers.get("authorization", "basic").partition(" ")[0].lower() == "basic"

    def refuse_origin(self, hint: str) -> Refused:
        """The gate's refusal of a page of another site, counted there; `hint` says what to do."""
        refused = self.entry.gate.refuse(Reason.ORIGIN_DENIED, "none", self.session.transport)
        refused.hint = hint
        return refused

    def identify(self, credential: Credential, *, at_files: bool = False) -> None:
        """Ask the gate whose credential this is. Raises Refused, RateLimited."""
        session = self.session
        try:
            session.caller = self.entry.gate.authenticate(
                credential, session.peer, session.transport, at_files=at_files
            )
        except Refused as problem:
            if credential is self.client:
                problem.fields["oauth"] = "invalid_client"
            raise
        # From here on the listener does not count this connection among the unauthenticated ones of its address.
        if not self.http.scope.get("edged.authenticated", _tell_nobody)(session.caller.account):
            raise RateLimited(
                "this credential has as many connections as one may have (limits.connections_per_credential)",
                retry_after_ms=10_000,
            )

    async def call(self, operation: str, params: msgspec.Raw | Mapping[str, object]) -> Any:
        """Call an operation. A caller that was taken for root by the owner of its socket is checked again.

        A socket that was closed meanwhile reads as uid 0, so its owner is looked up again right before the effect.
        """
        if self._as_root and self.session.peer.find_uid() != 0:
            raise self._no_credential(_HOW_LOCAL)
        return await self.catalogue.call(operation, params, self.services, self.session)

    @contextmanager
    def admitted(self, path: str = "", capability: str = "", resource: Resource = NOTHING) -> Iterator[AdmittedRequest]:
        """Admit the caller for as long as this block runs; revocation, expiry, and the loss of `capability` on
        `resource` cancel it."""
        admitted = AdmittedRequest()
        admission = self.entry.gate.admit(
            self.caller, self.session.transport, admitted.terminate, path=path, name=self.session.id,
            capability=capability, resource=resource,
        )  # fmt: skip
        admission.bytes_moved = 0
        admitted.admission = admission
        try:
            with admitted.scope:
                yield admitted
        finally:
            self.entry.gate.admissions.remove(admission)
            admitted.admission = None  # which holds `admitted.terminate`: no garbage collector need come for it

    def _is_open(self, route: Route) -> bool:
        """Whether no credential is needed, by the declaration of the route or of its operation."""
        return (self.catalogue.find(route.operation).capability if route.operation else route.capability) == OPEN

    def _authenticate(self, route: Route) -> None:
        peer = self.session.peer
        shown = read_service_token(self.http.headers, peer) if route.at_files else None
        # A service token wins over a token, also a wrong one over a good token (contract S3-9).
        credential = shown or self.read_shown(route)
        if isinstance(credential, NoCredential):
            local = route.root_may and self.entry.root_needs_no_key
            self._as_root = local and may_go_without(self.http.method, self.http.headers, peer)
            if not self._as_root or peer.find_uid() != 0:
                raise self._no_credential(_how(route, self.entry))
            credential = LocalUser(0)
            _log.warning(
                "root_without_credential", address=peer.address, port=peer.port, listener=peer.listener,
                method=self.http.method, path=self.http.url.path,
                agent=self.http.headers.get("user-agent", "")[:_LONGEST_AGENT],
            )  # fmt: skip
        try:
            self.identify(credential, at_files=route.at_files)
        except Refused as problem:
            if route.at_files:
                # The texts that clients of the upload service know (contract 5.3).
                problem.fields["text"] = "Invalid token" if shown is None else "Invalid service token"
            raise

    def _no_credential(self, how: str) -> Refused:
        """The gate's refusal of a request without a credential, counted there; `how` is its hint."""
        try:
            self.entry.gate.authenticate(NoCredential(), self.session.peer, self.session.transport)
        except Refused as problem:
            problem.hint = _OTHER_SCHEME + how if "authorization" in self.http.headers else how
            return problem
        raise AssertionError("the gate accepts no missing credential")


def _how(route: Route, entry: Entry) -> str:
    """What to send, for a request without a credential."""
    if route.at_files:
        return _HOW_AT_FILES
    if route.root_may and entry.root_needs_no_key:
        return _HOW_LOCAL
    how = _HOW_OPEN if route.open_if is not None else _HOW
    return how + _OR_BASIC if route.takes_basic else how


def _tell_nobody(_account: str) -> bool:
    """The default where there is no listener, in tests."""
    return True


class ResponseAborted(trio.BrokenResourceError):
    """Part of an answer was sent and must not look complete: the listener closes the connection at once."""


class AdmittedRequest:
    """An admission of one request; `cause` says why it was ended, None while it is good."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.cause: Cause | None = None
        self.admission: Admission | None = None
        #: Called to end it.
        self.end: Callable[[], None] = self.scope.cancel

    def count(self, size: int) -> None:
        """Add to the bytes that were sent."""
        if self.admission is not None:
            self.admission.bytes_moved = (self.admission.bytes_moved or 0) + size

    def terminate(self, cause: Cause, _by: str) -> None:
        """The `on_terminate` of the admission."""
        self.cause = cause
        self.end()


class Sent:
    """A send that knows how far the answer is: `started`, `midway` through a message, `complete`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.midway = False
        self.complete = False
        #: Called with the size in bytes of each part of the body.
        self.count: Callable[[int], None] = lambda _size: None

    async def __call__(self, message: Message) -> None:
        self.started = self.midway = True
        await self._send(message)
        self.count(len(message.get("body", b"")))
        self.midway = False
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value that msgspec can write, as JSON; no cache may keep it."""
    return Response(msgspec.json.encode(value), status, {**_NO_STORE, **(headers or {})}, media_type="application/json")


def read_query(request: Request, name: str) -> str | None:
    """A member of the query string, None if it is not there. Raises InvalidParams for one that stands twice."""
    said = request.query.getlist(name)
    if len(said) > 1:
        raise InvalidParams(f"{name} stands twice in the query")
    return said[0] if said else None
