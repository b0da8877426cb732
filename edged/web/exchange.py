"""One HTTP question on its way through the services, and the table row that says who may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import structlog
import trio
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

from edged.access.admissions import Admission, Cause
from edged.cameras.model import Camera
from edged.credentials.callers import (
    NOTHING,
    Caller,
    Credential,
    LocalUser,
    NoCredential,
    Peer,
    Resource,
    Ticket,
    Transport,
)
from edged.credentials.decision import Reason
from edged.credentials.roles import OPEN, SELF
from edged.errors import InvalidParams, RateLimited, Refused
from edged.operations.catalogue import Catalogue, find_camera
from edged.operations.services import Services
from edged.operations.session import Session
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
#: Something was sent, and not in a way that is read where it went.
_OTHER_SCHEME = "the scheme of its Authorization is not taken here: "
#: A page or a proxy that speaks for somebody else takes this away, and nothing but a credential helps (10.14).
_DIRECTLY = "at http://localhost with no browser and no proxy in between"
_HOW_LOCAL = f"{_HOW}; on this machine root needs none (sudo), {_DIRECTLY}"
_OR_BASIC = "; Basic is good here, too: any user name, the key or token as the password"
_NOT_BY_BASIC = "Basic is taken from no page of another origin: send Authorization: Bearer, or X-API-Key"
_HOW_OPEN = f"{_HOW}; on this machine the listener for it (listen.local) needs none, {_DIRECTLY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One row of the route table: a method on a path, who may go there, and what answers.

    Either `operation`, which the catalogue then guards (an open one is asked without a credential), or `capability`:
    one of the roles' (asked for the camera in the path parameter `camera` if `on_camera`), "self" (any good credential)
    or "none". `open_if` lets some askers in without a credential; `root_may` is the credential-free rule of contract
    5.1; `takes_ticket` lets in by ?ticket=, `takes_basic` by a key or token as the password of Basic: for what only
    reads, and for OAuth clients, never for anything else that a browser could be made to send (contract 5).
    `read_client` gives what the body holds as a credential, for OAuth clients; it is called before the gate is asked.
    `at_files` is said of those under /v1/files: X-Service-Token and files tokens are good there and nowhere else.
    """

    method: str
    path: str
    answer: Callable[[Exchange], Awaitable[Response]]
    operation: str = ""
    capability: str = ""
    on_camera: bool = False
    open_if: Callable[[Exchange], bool] | None = None
    root_may: bool = False
    takes_ticket: bool = False
    takes_basic: bool = False
    read_client: Callable[[Exchange], Awaitable[Credential]] | None = None
    at_files: bool = False


@dataclass(slots=True)
class Exchange:
    """One request: the services it is asked in, its session of one question, and the camera it names."""

    request: Request
    catalogue: Catalogue
    services: Services
    session: Session
    #: The body, where somebody has read it already, and what it holds as a credential.
    body: bytes | None = field(default=None, repr=False)
    client: Credential = field(default_factory=NoCredential, repr=False)
    _as_root: bool = field(default=False, repr=False)
    _camera: Camera | None = None

    @classmethod
    def of(cls, request: Request, catalogue: Catalogue, services: Services) -> Exchange:
        """From a request whose scope holds `edged.peer`."""
        peer: Peer = request.scope["edged.peer"]
        transport: Transport = "uds" if peer.is_local_socket else "http"
        session = Session(peer, transport, is_direct=partial(is_direct, request.headers, peer))
        return cls(request, catalogue, services, session)

    @property
    def camera(self) -> Camera:
        """The camera in the path; only on a way that is declared `on_camera`."""
        assert self._camera is not None, "this way is not declared on_camera"
        return self._camera

    @property
    def caller(self) -> Caller:
        """Who asks; only on a way that lets nobody in without."""
        assert self.session.caller is not None, "this way lets nobody in without a caller"
        return self.session.caller

    @property
    def query(self) -> QueryParams:
        """The members of the query string. Raises InvalidParams for more of them than anybody needs."""
        if self.request.scope["query_string"].count(b"&") >= _MOST_QUERY_MEMBERS:
            raise InvalidParams(f"the query has more than {_MOST_QUERY_MEMBERS} members")
        return self.request.query_params

    def enter(self, way: Way) -> None:
        """Ask the gate for this way. Raises Refused, or CameraNotFound for a camera that is not there for them."""
        if self._is_open(way) or (way.open_if is not None and way.open_if(self)):
            return
        self._authenticate(way)
        if way.on_camera:
            device = self.request.path_params["camera"]
            self._camera = find_camera(way.capability, device, self.services, self.session)
        elif way.capability and way.capability != SELF:
            self.services.gate.authorize(self.session.caller, way.capability, self.session.transport)

    def read_shown(self, way: Way) -> Credential:
        """What the request presents where it goes. Raises Refused for Basic by a page of another origin."""
        headers = self.request.headers
        credential = read_credential(headers, self.session.peer)
        if isinstance(credential, NoCredential) and way.takes_ticket and "ticket" in self.query:
            return Ticket(self.query["ticket"])
        if isinstance(credential, NoCredential) and way.takes_basic:
            credential = read_basic(headers)
            if way.read_client is not None and not isinstance(credential, NoCredential):
                self.client = credential
            if not isinstance(credential, NoCredential) and is_cross_origin(headers):
                refused = self.services.gate.refuse(Reason.ORIGIN_DENIED, "none", self.session.transport)
                refused.hint = _NOT_BY_BASIC
                raise refused
        # Whoever shows something in a body does not ask as the unix socket's user.
        return self.client if isinstance(credential, (NoCredential, LocalUser)) and self.shows_client else credential

    @property
    def shows_client(self) -> bool:
        """Whether the body holds a credential."""
        return not isinstance(self.client, NoCredential)

    def offers_basic(self, way: Way) -> bool:
        """Whether a refusal may ask for Basic, on which a browser asks its user for a password: never whoever shows a
        credential of another kind, as a page's script does."""
        headers = self.request.headers
        if not way.takes_basic or "x-api-key" in headers or (way.takes_ticket and "ticket" in self.query):
            return False
        return headers.get("authorization", "basic").partition(" ")[0].lower() == "basic"

    def identify(self, credential: Credential, *, at_files: bool = False) -> None:
        """Ask the gate whose this is. Raises Refused, RateLimited."""
        session = self.session
        try:
            session.caller = self.services.limiter.authenticate(
                self.services.gate, credential, session.peer, session.transport, at_files=at_files
            )
        except Refused as problem:
            if credential is self.client:
                problem.fields["oauth"] = "invalid_client"
            raise
        # The listener then counts this connection no more among the strangers of its address.
        if not self.request.scope.get("edged.authenticated", _tell_nobody)(session.caller.account):
            raise RateLimited(
                "this credential has as many connections as one may have (limits.connections_per_credential)",
                retry_after_ms=10_000,
            )

    async def call(self, operation: str, params: msgspec.Raw | Mapping[str, object]) -> Any:
        """Ask the catalogue. Whoever came in as root by the kernel's word must still be root now.

        A socket that was closed meanwhile reads as uid 0, so the word is asked for again right before the effect.
        """
        if self._as_root and self.session.peer.find_uid() != 0:
            raise self._no_credential(_HOW_LOCAL)
        return await self.catalogue.call(operation, params, self.services, self.session)

    @contextmanager
    def staying(self, path: str = "", capability: str = "", resource: Resource = NOTHING) -> Iterator[Stay]:
        """The caller is inside for as long as this block runs; revocation, expiry, and the loss of `capability` on
        `resource` cancel it."""
        stay = Stay()
        admission = self.services.gate.admit(
            self.caller, self.session.transport, stay.leave, path=path, name=self.session.id, capability=capability,
            resource=resource,
        )  # fmt: skip
        admission.bytes_moved = 0
        stay.admission = admission
        try:
            with stay.scope:
                yield stay
        finally:
            self.services.gate.admissions.remove(admission)

    def _is_open(self, way: Way) -> bool:
        """Whether nobody is asked for a credential, by the way's own word or its operation's."""
        return (self.catalogue.find(way.operation).capability if way.operation else way.capability) == OPEN

    def _authenticate(self, way: Way) -> None:
        peer = self.session.peer
        shown = read_service_token(self.request.headers, peer) if way.at_files else None
        # It wins over a token, and a wrong one over a good token (contract S3-9).
        credential = shown or self.read_shown(way)
        if isinstance(credential, NoCredential):
            local = way.root_may and self.services.root_needs_no_key
            self._as_root = local and may_go_without(self.request.method, self.request.headers, peer)
            if not self._as_root or peer.find_uid() != 0:
                raise self._no_credential(_how(way, self.services))
            credential = LocalUser(0)
            _log.warning(
                "root without a credential", address=peer.address, port=peer.port, listener=peer.listener,
                method=self.request.method, path=self.request.url.path,
                agent=self.request.headers.get("user-agent", "")[:_LONGEST_AGENT],
            )  # fmt: skip
        try:
            self.identify(credential, at_files=way.at_files)
        except Refused as problem:
            if way.at_files:
                # What clients of the upload service know it by (contract 5.3).
                problem.fields["text"] = "Invalid token" if shown is None else "Invalid service token"
            raise

    def _no_credential(self, how: str) -> Refused:
        """The gate's own refusal of nothing at all, counted there, with what to do about it."""
        try:
            self.services.gate.authenticate(NoCredential(), self.session.transport)
        except Refused as problem:
            problem.hint = _OTHER_SCHEME + how if "authorization" in self.request.headers else how
            return problem
        raise AssertionError("the gate let nobody in")


def _how(way: Way, services: Services) -> str:
    """What to do about having shown nothing."""
    if way.at_files:
        return _HOW_AT_FILES
    if way.root_may and services.root_needs_no_key:
        return _HOW_LOCAL
    how = _HOW_OPEN if way.open_if is not None else _HOW
    return how + _OR_BASIC if way.takes_basic else how


def _tell_nobody(_account: str) -> bool:
    """Where no listener is below us."""
    return True


class CutOff(trio.BrokenResourceError):
    """Half an answer was sent and must not look whole: the listener closes the connection without a word."""


class Stay:
    """Someone who is inside; `cause` says why they were put out, None while they may stay."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.cause: Cause | None = None
        self.admission: Admission | None = None
        #: What puts them out.
        self.end: Callable[[], None] = self.scope.cancel

    def count(self, size: int) -> None:
        """So many bytes more have been sent."""
        if self.admission is not None:
            self.admission.bytes_moved = (self.admission.bytes_moved or 0) + size

    def leave(self, cause: Cause, _by: str) -> None:
        """The way out that the gate is given."""
        self.cause = cause
        self.end()


class Sent:
    """A send that knows how far the answer is: `midway` through a message, `started`, `complete`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.midway = False
        self.complete = False
        #: Hears of the bytes of each part of the body.
        self.count: Callable[[int], None] = lambda _size: None

    async def __call__(self, message: Message) -> None:
        self.started = self.midway = True
        await self._send(message)
        self.count(len(message.get("body", b"")))
        self.midway = False
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value that msgspec can write; never kept by anybody on the way."""
    return Response(msgspec.json.encode(value), status, {**_NO_STORE, **(headers or {})}, media_type="application/json")


def read_query(asked: Exchange, name: str) -> str | None:
    """A member of the query string; whoever says it twice could mean either. Raises InvalidParams."""
    said = asked.query.getlist(name)
    if len(said) > 1:
        raise InvalidParams(f"{name} stands twice in the query")
    return said[0] if said else None


def read_int(asked: Exchange, name: str, default: int | None, *, least: int, most: int) -> int | None:
    """A whole number of the query string. Raises InvalidParams naming it."""
    text = read_query(asked, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise InvalidParams(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def read_page(asked: Exchange) -> dict[str, object]:
    """?limit= and ?offset= of a list, as far as they are given. Raises InvalidParams."""
    given = {
        "limit": read_int(asked, "limit", None, least=1, most=1000),
        "offset": read_int(asked, "offset", None, least=0, most=999_999_999),
    }
    return {name: value for name, value in given.items() if value is not None}
