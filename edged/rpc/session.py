"""One WebSocket conversation in JSON-RPC: what arrives, in which order it runs, and what goes back.

Rules (contract 10.3, 10.4):
- Calls start in the order of their arrival. What answers from memory is answered here, in the task that
  reads; only an operation that waits gets a task.
- A batch is one call; its members run one after the other. One that takes longer than `TURN_SECONDS` goes on in a
  task, and of the batches of one connection only one has its turn at a time.
- A barrier (`authenticate`, or a batch that holds one) starts when everything before it is done, and nothing
  behind it starts before it is done. What has to wait for that is held, and counts as in flight.
- With 32 in flight the next is answered "rate limited" at once; reading never stops.
- A revoked credential closes the conversation (4401); if the revocation is this conversation's own call, after
  the answer to that call. An expired one only leaves it without a credential.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final

import msgspec
import trio

from edged.access.admissions import Cause
from edged.access.asking import asking
from edged.credentials.callers import (
    ApiKey,
    Caller,
    Credential,
    LocalUser,
    NoCredential,
    Peer,
    Token,
    Transport,
    parse_credential,
)
from edged.credentials.decision import outside_reason
from edged.credentials.relays import is_direct
from edged.errors import DependencyFailed, EdgedError, RateLimited, Refused, StoreFailed, without_paths
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import Catalogue
from edged.operations.not_built import unknown_method
from edged.operations.services import Services
from edged.operations.sessions import AuthenticateParams
from edged.rpc import dialects
from edged.rpc.dialects import Fault, Presenter, View
from edged.rpc.methods import Method, table
from edged.wire import jsonrpc
from edged.wire.jsonrpc import ABSENT, Batch, Call, Invalid
from edged.wire.ports import Outbox, Spawn

CALLS_IN_FLIGHT: Final = 32
CLOSE_REVOKED: Final = 4401
CLOSE_OVERLOADED: Final = 1013
#: Why → what the close says.
_FAREWELLS: Final[Mapping[Cause, str]] = MappingProxyType(
    {"revoked": "credential revoked", "suspended": "credential suspended", "ended": "session ended"}
)
#: What the kernel calls a user that our namespace has no number for (contract 10.2).
_UNMAPPED_UID: Final = 65534
_RETRY_AFTER_MS: Final = 100
#: How long the members of a batch run before other tasks get their turn.
TURN_SECONDS: Final = 0.005
#: What calls of methods that do not exist are counted under, whatever they were called.
_NO_METHOD: Final = "unknown"


class _Waiting:
    """A call whose operation waits: `result` is its coroutine, not yet started."""

    __slots__ = ("call", "method", "result")

    def __init__(self, call: Call, method: Method, result: Coroutine[Any, Any, object]) -> None:
        self.call = call
        self.method = method
        self.result = result

    def __del__(self) -> None:
        # A connection that ends just now starts no task any more, and says nothing: no coroutine is left unawaited.
        self.result.close()


class Rpc:
    """What all conversations share: the methods, the services, the presenter, and the limits."""

    def __init__(
        self,
        catalogue: Catalogue,
        services: Services,
        *,
        calls_in_flight: int = CALLS_IN_FLIGHT,
        longest_batch: int = jsonrpc.LONGEST_BATCH,
    ) -> None:
        self.start = catalogue.start
        self.services = services
        self.methods = table(catalogue)
        self.presenter = Presenter(self._node_of)
        self.calls_in_flight = calls_in_flight
        self.longest_batch = longest_batch
        self._conversations: dict[str, RpcSession] = {}
        #: The conversations of now by session id: where notifications find their way out.
        self.conversations: Mapping[str, RpcSession] = MappingProxyType(self._conversations)

    def open(
        self, peer: Peer, headers: Mapping[str, str], subprotocol: str | None, outbox: Outbox, spawn: Spawn
    ) -> RpcSession:
        """A conversation with a client that has just connected; `headers` by their lower-case names."""
        conversation = RpcSession(self, peer, headers, subprotocol, outbox, spawn)
        conversation.enter_unasked(headers)
        self._conversations[conversation.session.id] = conversation
        self.services.sessions.add(conversation.session)
        return conversation

    def forget(self, session: Session) -> None:
        """The connection is gone."""
        self._conversations.pop(session.id, None)
        self.services.sessions.remove(session)
        session.is_closed = True
        if session.admission is not None:
            self.services.gate.admissions.remove(session.admission)

    def _node_of(self, device: str) -> str | None:
        camera = self.services.cameras.find(device)
        return camera.node if camera is not None else None


class RpcSession:
    """One conversation; the door hands it each text and tells it when the connection is gone."""

    __slots__ = (
        "_barred", "_batches", "_chosen", "_dialect", "_expiry_due", "_farewell", "_held", "_in_flight", "_leaving",
        "_lost", "_outbox", "_rpc", "_spawn", "_tell_expiry", "_view", "_view_caller", "session",
    )  # fmt: skip

    def __init__(
        self, rpc: Rpc, peer: Peer, headers: Mapping[str, str], subprotocol: str | None, outbox: Outbox, spawn: Spawn
    ) -> None:
        self._rpc = rpc
        self._outbox = outbox
        self._spawn = spawn
        # Its upgrade speaks for all that is said here; the headers themselves are not kept.
        direct = not peer.proxy and is_direct(peer.address, headers, [headers.get("host", "")])
        transport: Transport = "uds" if peer.is_local_socket else "ws"
        self.session = Session(peer, transport, end=self._end, is_direct=lambda: direct)
        # This task reads what the client says, and starts the tasks of what waits.
        asking.set(self.session)
        forced = dialects.SUBPROTOCOLS.get(subprotocol or "")
        #: Whether the dialect is settled for as long as this connection lives.
        self._chosen = forced is not None
        self._dialect = forced or dialects.of_listener(peer.listener)
        self.session.pushed = self._dialect.pushed
        self._view: View = dialects.view_of(self._dialect, None)
        self._view_caller: Caller | None = None
        self._in_flight = 0  # tasks and held messages
        self._held: deque[Call | Batch] = deque()
        self._barred = False  # a barrier is running in a task
        self._batches: trio.Lock | None = None  # whose turn it is, once a batch has become a task
        self._lost: str | None = None  # why there is no credential any more
        self._expiry_due = False  # the client has yet to hear of the expiry
        self._tell_expiry = False  # ... and now is the time: right behind this answer
        self._leaving: Cause | None = None  # why a call of our own has put us out
        self._farewell: trio.lowlevel.Task | None = None  # the task of that call

    # --- what the door sees ---------------------------------------------------------------------------------------

    @property
    def authenticated(self) -> bool:
        """Whether the client has a credential that was good when it was looked at."""
        return self.session.caller is not None

    def receive(self, text: bytes) -> None:
        """One message of the client. Never raises, never waits."""
        message = jsonrpc.parse(text, longest_batch=self._rpc.longest_batch)
        if not self._in_flight or isinstance(message, Invalid):
            self._begin(message)
        elif self._in_flight >= self._rpc.calls_in_flight:
            self._turn_away(message)
        elif self._held or self._barred or self._is_barrier(message):
            self._in_flight += 1
            self._held.append(message)
        else:
            self._begin(message)

    def closed(self) -> None:
        """The connection is gone."""
        self._held.clear()
        self._rpc.forget(self.session)

    # --- what notifications see -----------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """How cameras are named to this client."""
        caller = self.session.caller
        if caller is not self._view_caller:
            self._view, self._view_caller = dialects.view_of(self._dialect, caller), caller
        return self._view

    def push(self, text: bytes) -> None:
        """Send a notification. The door bounds what may pile up."""
        if not self._outbox.closed:
            self._outbox.send(text)

    # --- running calls --------------------------------------------------------------------------------------------

    def _begin(self, message: Call | Batch | Invalid) -> None:
        """Answer a message now if memory can, else give it a task."""
        if type(message) is Call:
            outcome = self._perform(message)
            if isinstance(outcome, bytes):
                self._outbox.send(outcome)
            elif outcome is not None:
                self._launch(message, partial(self._run_call, outcome))
        elif type(message) is Batch:
            self._begin_batch(message)
        else:
            assert type(message) is Invalid
            self._outbox.send(dialects.invalid(message).encode(message.id, self._dialect))
        if self._tell_expiry or self._leaving:
            self._say_afterwards()

    def _begin_batch(self, batch: Batch) -> None:
        replies: list[bytes] = []
        until = perf_counter() + TURN_SECONDS
        for at, member in enumerate(batch.members, start=1):
            outcome = self._perform_member(member)
            if isinstance(outcome, _Waiting):
                self._launch(batch, partial(self._run_batch, outcome, batch.members[at:], replies))
                return
            if outcome is not None:
                replies.append(outcome)
            if perf_counter() > until and at < len(batch.members):
                self._launch(batch, partial(self._run_batch, None, batch.members[at:], replies))
                return
        if replies:
            self._outbox.send(jsonrpc.join(replies))

    def _perform_member(self, member: Call | Invalid) -> bytes | _Waiting | None:
        if isinstance(member, Invalid):
            return dialects.invalid(member).encode(member.id, self._dialect)
        return self._perform(member)

    def _perform(self, call: Call) -> bytes | _Waiting | None:
        """Run a call: its answer, None if nobody waits for one, or the rest of an operation that waits."""
        rpc, session = self._rpc, self.session
        method = rpc.methods.get(call.method)
        if method is None:
            return self._unknown(call)
        operation = method.operation
        session.doing = operation.name
        try:
            if session.caller is None and method.credentials:
                self._enter_by_call(call, method)
            elif operation.name == "authenticate":
                self._choose_dialect(call)
            result = rpc.start(operation, call.params, rpc.services, session)
            if operation.waits:
                return _Waiting(call, method, result)
            if method.is_barrier and session.caller is not None:
                self._entered()
            if call.id is ABSENT:
                return None
            return jsonrpc.reply(call.id, rpc.presenter.encode(operation.name, result, self.view))
        except Exception as problem:
            return self._failed(call, method, problem)

    def _launch(self, message: Call | Batch, work: Callable[[], Awaitable[None]]) -> None:
        self._in_flight += 1
        self._barred = self._is_barrier(message)
        self._spawn(work)

    async def _run_call(self, waiting: _Waiting) -> None:
        self._done(await self._finish(waiting))

    async def _run_batch(
        self, waiting: _Waiting | None, rest: tuple[Call | Invalid, ...], replies: list[bytes]
    ) -> None:
        """The rest of a batch, behind a member that waits or a turn that is over."""
        if self._batches is None:
            self._batches = trio.Lock()
        members = deque(rest)
        while waiting is not None or members:
            if waiting is not None:
                outcome = await self._finish(waiting)
                if outcome is not None:
                    replies.append(outcome)
            async with self._batches:
                await self._outbox.wait_turn()
                began = perf_counter()
                waiting = self._take_turn(members, replies)
                self._outbox.spend_since(began)
        self._done(jsonrpc.join(replies) if replies else None)

    def _take_turn(self, members: deque[Call | Invalid], replies: list[bytes]) -> _Waiting | None:
        """Run members of a batch until the turn is over or one waits, which is returned."""
        until = perf_counter() + TURN_SECONDS
        while members:
            outcome = self._perform_member(members.popleft())
            if isinstance(outcome, _Waiting):
                return outcome
            if outcome is not None:
                replies.append(outcome)
            if perf_counter() > until:
                break
        return None

    async def _finish(self, waiting: _Waiting) -> bytes | None:
        call, method = waiting.call, waiting.method
        self.session.doing = method.operation.name
        try:
            result = await waiting.result
            if method.is_barrier and self.session.caller is not None:
                self._entered()
            if call.id is ABSENT:
                return None
            return jsonrpc.reply(call.id, self._rpc.presenter.encode(method.operation.name, result, self.view))
        except Exception as problem:
            return self._failed(call, method, problem)

    def _done(self, answer: bytes | None) -> None:
        """A task has come to its end: send what it made, and start what had to wait for it."""
        if self._outbox.closed:
            self._held.clear()
            return
        if answer is not None:
            self._outbox.send(answer)
        self._in_flight -= 1
        self._barred = False
        if self._tell_expiry or self._leaving:
            self._say_afterwards()
        while self._held and not self._barred:
            running = self._in_flight - len(self._held)
            if running and self._is_barrier(self._held[0]):
                return
            self._in_flight -= 1
            self._begin(self._held.popleft())

    def _is_barrier(self, message: Call | Batch) -> bool:
        methods = self._rpc.methods
        calls = message.members if isinstance(message, Batch) else (message,)
        found = (methods.get(call.method) for call in calls if isinstance(call, Call))
        return any(method is not None and method.is_barrier for method in found)

    # --- refusing -------------------------------------------------------------------------------------------------

    def _turn_away(self, message: Call | Batch) -> None:
        self._rpc.services.counts.rpc_answered(_NO_METHOD, RateLimited.slug)
        problem = RateLimited(
            f"{self._rpc.calls_in_flight} calls are in flight on this connection", retry_after_ms=_RETRY_AFTER_MS
        )
        fault = dialects.fault(problem)
        if isinstance(message, Call):
            if not message.is_notification:
                self._outbox.send(fault.encode(message.id, self._dialect))
            return
        replies = [
            fault.encode(member.id, self._dialect)
            for member in message.members
            if isinstance(member, Invalid) or not member.is_notification
        ]
        if replies:
            self._outbox.send(jsonrpc.join(replies))

    def _unknown(self, call: Call) -> bytes | None:
        problem = unknown_method(call.method)
        self._rpc.services.counts.rpc_answered(_NO_METHOD, problem.slug)
        if call.is_notification:
            return None
        return dialects.fault(problem).encode(call.id, self._dialect)

    def _failed(self, call: Call, method: Method, problem: Exception) -> bytes | None:
        """Whatever an operation raised → the answer."""
        name, dialect = method.operation.name, self._dialect
        if not isinstance(problem, EdgedError):
            self._rpc.services.counts.rpc_answered(name, "internal")
            fault = dialects.incident(name, problem)
        else:
            if name == "authenticate":
                self._lost = None  # what became of the credential before this try matters no more
            if isinstance(problem, (DependencyFailed, StoreFailed)) and not self.session.peer.is_local_socket:
                problem.sentence, problem.hint = without_paths(problem.sentence), without_paths(problem.hint)
                problem.fields = {
                    name: without_paths(value) if isinstance(value, str) else value
                    for name, value in problem.fields.items()
                }
            fault = dialects.fault(problem, lost=self._lost)
        if fault.is_unauthenticated and self._expiry_due:
            self._expiry_due, self._tell_expiry = False, True
        if call.is_notification:
            return None
        if name == "authenticate" and dialect.soft_authenticate and isinstance(problem, Refused):
            return self._refuse_softly(call, fault)
        if fault.row == "camera_not_found" and name in dialect.null_cameras:
            return jsonrpc.reply(call.id, jsonrpc.NULL)
        return fault.encode(call.id, dialect)

    def _refuse_softly(self, call: Call, fault: Fault) -> bytes:
        """A failed authenticate for clients that read `result.authenticated` (contract C-2, C-3)."""
        presented = _presented(call)
        if fault.row == "auth_required":
            told = dialects.failed_authentication("Authentication required")
            return fault.encode(call.id, self._dialect, result=told)
        return jsonrpc.reply(call.id, dialects.failed_authentication(dialects.authentication_text(presented)))

    # --- who is there ---------------------------------------------------------------------------------------------

    def enter_unasked(self, headers: Mapping[str, str]) -> None:
        """By the unix socket, or by a credential in the head of the upgrade; a bad one there counts for nothing."""
        peer = self.session.peer
        if peer.is_local_socket:
            self._enter(LocalUser(_UNMAPPED_UID if peer.uid is None else peer.uid))
            return
        for credential in _header_credentials(headers):
            # A bad one does not count: the client will be told by its own authenticate (C-42).
            if self._rpc.services.gate.is_good(credential, self.session.transport):
                self._enter(credential)
                return

    def _enter_by_call(self, call: Call, method: Method) -> None:
        """Stateless clients show their credential with every call (contract 3). Raises Refused for a bad one."""
        presented = _presented(call, method.credentials)
        if not isinstance(presented, NoCredential):
            self._enter(presented)

    def _enter(self, credential: Credential) -> None:
        session, gate = self.session, self._rpc.services.gate
        caller = self._rpc.services.limiter.authenticate(gate, credential, session.peer, session.transport)
        session.admission = gate.admit(caller, session.transport, session.end, name=session.id)
        session.caller = caller
        self._entered()

    def _entered(self) -> None:
        """There may be a new credential: what became of the one before is past."""
        self._lost, self._expiry_due, self.session.expired = None, False, None
        caller = self.session.caller
        if caller is not None and not self._outbox.identify(caller.account):
            self._outbox.close(CLOSE_OVERLOADED, "too many connections with this credential")

    def _choose_dialect(self, call: Call) -> None:
        """The first authenticate that carries a credential settles it (contract 0)."""
        if self._chosen:
            return
        given = _read(call)
        found = given and dialects.of_authenticate(given.token, given.auth_token, given.auth_type)
        if found:
            self._dialect, self._chosen = found, True
            self.session.pushed = found.pushed
            self._view_caller = _NOBODY

    def _end(self, cause: Cause, by: str) -> None:
        """The way out that the admission holds: the credential is revoked, or has expired."""
        session = self.session
        session.expired = session.caller if cause == "expired" else None
        session.caller, session.admission, self._lost = None, None, outside_reason(cause)
        if cause == "expired":
            self._expiry_due = self._dialect.tells_expiry
            if session.topics and self._expiry_due:
                self._expiry_due = False
                self._send_expiry()
        elif by == session.id:
            self._leaving, self._farewell = cause, trio.lowlevel.current_task()
        else:
            self._outbox.close(CLOSE_REVOKED, _FAREWELLS[cause])

    def _say_afterwards(self) -> None:
        """What is due behind an answer: that the credential has expired, or the close of who revoked itself."""
        if self._tell_expiry:
            self._tell_expiry = False
            self._send_expiry()
        # Should the revocation have come by another task than the call's own, the last call in flight closes.
        if self._leaving and (self._farewell is trio.lowlevel.current_task() or not self._in_flight):
            self._outbox.close(CLOSE_REVOKED, _FAREWELLS[self._leaving])

    def _send_expiry(self) -> None:
        """Once, to clients that expect it; to a client that subscribed to nothing only behind an answer, because
        such a client may take the next text for the answer to its own call (contract S0-32, 10.3, C-22)."""
        told = jsonrpc.encode({"session_id": self.session.id, "reason": "expired"})
        self.push(jsonrpc.notification("auth_expired", told))


#: Never a session's caller: makes the view be looked at again.
_NOBODY = Caller(method="none", subject="", roles=frozenset(), capabilities=frozenset())
_decode_authenticate = msgspec.json.Decoder(AuthenticateParams).decode


def _read(call: Call) -> AuthenticateParams | None:
    """The credential members of a call's params; None where there is no sense in them."""
    if call.params is ABSENT:
        return None
    try:
        return _decode_authenticate(call.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _presented(call: Call, members: frozenset[str] | None = None) -> Credential:
    """The credential in a call's params; with `members`, only in these."""
    given = _read(call)
    if given is None:
        return NoCredential()
    token = given.token if members is None or "token" in members else None
    text = token if token is not None else given.auth_token
    return parse_credential(text or "", given.auth_type or "auto")


def _header_credentials(headers: Mapping[str, str]) -> list[ApiKey | Token]:
    """What the head of the upgrade shows, in the order of contract 5."""
    found: list[ApiKey | Token] = []
    scheme, _, text = headers.get("authorization", "").partition(" ")
    shown = parse_credential(text.strip()) if scheme.lower() == "bearer" else None
    if isinstance(shown, (ApiKey, Token)):
        found.append(shown)
    if key := headers.get("x-api-key", "").strip():
        found.append(ApiKey(key))
    return found
