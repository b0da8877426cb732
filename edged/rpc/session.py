"""The JSON-RPC session of one WebSocket: calls in, answers out.

- Calls start in the order of their arrival (rpc/scheduler.py). What answers from memory is answered at once, in the
  task that reads; only an operation that waits gets a task.
- A batch is one call; its members run one after the other. A batch that takes longer than `TURN_SECONDS` goes on in a
  task, and of the batches of one connection only one has its turn at a time.
- With `calls_in_flight` unanswered the next call is answered "rate limited" at once; reading never stops.
- A revoked credential closes the connection (4401); if the revocation is this session's own call, behind the answer to
  that call. After an expired one the session goes on without a credential (rpc/login.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Final

import trio

from edged.access.admissions import Cause
from edged.access.asking import asking
from edged.credentials.callers import Caller, Credential, LocalUser, NoCredential, Peer, Transport
from edged.credentials.relays import is_direct
from edged.errors import DependencyFailed, EdgedError, RateLimited, Refused, StoreFailed
from edged.operations.caller_sessions import Session
from edged.operations.links import with_links
from edged.rpc import dialects
from edged.rpc.context import Context
from edged.rpc.credentials import header_credentials, presented, read_authenticate
from edged.rpc.dialects import View
from edged.rpc.failures import failed_login, hide_paths, no_such_method, too_many_calls
from edged.rpc.login import Login
from edged.rpc.methods import Method, Waiting
from edged.rpc.scheduler import Scheduler
from edged.wire import jsonrpc
from edged.wire.jsonrpc import ABSENT, Batch, Call, Invalid
from edged.wire.ports import TURN_SECONDS, Outbox, Spawn

CLOSE_REVOKED: Final = 4401
CLOSE_OVERLOADED: Final = 1013
#: Why the connection is closed → the reason in the close frame.
_CLOSE_REASONS: Final[Mapping[Cause, str]] = MappingProxyType(
    {"revoked": "credential revoked", "suspended": "credential suspended", "ended": "session ended"}
)
#: The uid that the kernel shows for a user that our namespace has no number for (contract 10.2).
_UNMAPPED_UID: Final = 65534
#: What calls of unknown methods are counted under, whatever the client called them.
_NO_METHOD: Final = "unknown"


class RpcSession:
    """The session of one connection; edged.net gives it each text and says when the connection has ended."""

    __slots__ = (
        "_batches",
        "_context",
        "_dialect",
        "_is_dialect_settled",
        "_login",
        "_outbox",
        "_scheduler",
        "_spawn",
        "_view",
        "_view_caller",
        "session",
    )  # fmt: skip

    def __init__(
        self, context: Context, peer: Peer, headers: Mapping[str, str], subprotocol: str | None, outbox: Outbox,
        spawn: Spawn,
    ) -> None:  # fmt: skip
        self._context = context
        self._outbox = outbox
        self._spawn = spawn
        # The upgrade counts for everything that is sent on it; the headers themselves are not kept.
        direct = not peer.proxy and is_direct(peer.address, headers, [headers.get("host", "")])
        transport: Transport = "uds" if peer.is_local_socket else "ws"
        self.session = Session(peer, transport, end=self._end, is_direct=lambda: direct)
        # This task reads what the client sends, and starts the tasks of calls that wait.
        asking.set(self.session)
        forced = dialects.SUBPROTOCOLS.get(subprotocol or "")
        self._is_dialect_settled = forced is not None
        self._dialect = forced or dialects.of_listener(peer.listener)
        self.session.pushed = self._dialect.pushed
        self._view: View = dialects.view_of(self._dialect, None)
        self._view_caller: Caller | None = None
        self._scheduler = Scheduler(context.calls_in_flight, partial(_is_barrier, context.methods))
        self._login = Login()
        self._batches: trio.Lock | None = None  # which batch has its turn, once one has become a task

    # --- what edged.net sees --------------------------------------------------------------------------------------

    @property
    def authenticated(self) -> bool:
        """Whether the client has a credential that was good when it was checked."""
        return self.session.caller is not None

    def receive(self, text: bytes) -> Iterator[None] | None:
        """One message of the client; the steps in which a long one is read. Never raises, never waits."""
        if len(text) > jsonrpc.LONGEST_AT_ONCE:
            return self._receive_in_steps(text)
        self._place(jsonrpc.parse(text, longest_batch=self._context.longest_batch))
        return None

    def _receive_in_steps(self, text: bytes) -> Iterator[None]:
        message = yield from jsonrpc.parse_in_steps(text, longest_batch=self._context.longest_batch)
        yield
        if not self._outbox.closed:
            self._place(message)

    def _place(self, message: Call | Batch | Invalid) -> None:
        if not self._scheduler.in_flight or isinstance(message, Invalid):
            self._begin(message)
            return
        place = self._scheduler.place(message)
        if place == "now":
            self._begin(message)
        elif place == "refused":
            self._refuse(message)

    def closed(self) -> None:
        """The connection has ended."""
        self._scheduler.clear()
        self._context.forget(self.session)
        # Both lead back here: the memory of a connection must not wait for the garbage collector.
        self.session.end, self.session.admission = _end_nothing, None

    # --- what notifications see -----------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """How cameras are named to this client."""
        caller = self.session.caller
        if caller is not self._view_caller:
            self._view, self._view_caller = dialects.view_of(self._dialect, caller), caller
        return self._view

    def push(self, text: bytes) -> None:
        """Send a notification. The outbox limits how many may wait."""
        if not self._outbox.closed:
            self._outbox.send(text)

    # --- running calls --------------------------------------------------------------------------------------------

    def _begin(self, message: Call | Batch | Invalid) -> None:
        """Answer a message from memory, or give it a task if its operation waits."""
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
        if self._login.is_pending:
            self._follow_answer()

    def _begin_batch(self, batch: Batch) -> None:
        replies: list[bytes] = []
        until = perf_counter() + TURN_SECONDS
        for at, member in enumerate(batch.members, start=1):
            outcome = self._perform_member(member)
            if isinstance(outcome, Waiting):
                self._launch(batch, partial(self._run_batch, outcome, batch.members[at:], replies))
                return
            if outcome is not None:
                replies.append(outcome)
            if perf_counter() > until and at < len(batch.members):
                self._launch(batch, partial(self._run_batch, None, batch.members[at:], replies))
                return
        if replies:
            self._outbox.send(jsonrpc.join(replies))

    def _perform_member(self, member: Call | Invalid) -> bytes | Waiting | None:
        if isinstance(member, Invalid):
            return dialects.invalid(member).encode(member.id, self._dialect)
        return self._perform(member)

    def _perform(self, call: Call) -> bytes | Waiting | None:
        """Run a call: its answer, None if nobody waits for one, or the rest of an operation that waits."""
        context, session = self._context, self.session
        method = context.methods.get(call.method)
        if method is None:
            slug, answer = no_such_method(call, self._dialect)
            context.counts.rpc_answered(_NO_METHOD, slug)
            return answer
        operation = method.operation
        session.doing = operation.name
        try:
            if session.caller is None and method.credentials:
                self._enter_by_call(call, method)
            elif operation.name == "authenticate":
                self._choose_dialect(call)
            result = context.start(operation, call.params, context.services, session)
            if operation.waits:
                return Waiting(call, method, result)
            if method.is_barrier and session.caller is not None:
                self._entered()
            if call.id is ABSENT:
                return None
            return jsonrpc.reply(call.id, context.presenter.encode(operation.name, result, self.view))
        except Exception as problem:
            return self._failed(call, method, problem)

    def _launch(self, message: Call | Batch, work: Callable[[], Awaitable[None]]) -> None:
        self._scheduler.launch(message)
        self._spawn(work)

    async def _run_call(self, waiting: Waiting) -> None:
        self._done(await self._finish(waiting))

    async def _run_batch(self, waiting: Waiting | None, rest: tuple[Call | Invalid, ...], replies: list[bytes]) -> None:
        """The rest of a batch, after a member that waits or after the end of its first turn."""
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

    def _take_turn(self, members: deque[Call | Invalid], replies: list[bytes]) -> Waiting | None:
        """Run members of a batch until the turn is over or one waits, which is returned."""
        until = perf_counter() + TURN_SECONDS
        while members:
            outcome = self._perform_member(members.popleft())
            if isinstance(outcome, Waiting):
                return outcome
            if outcome is not None:
                replies.append(outcome)
            if perf_counter() > until:
                break
        return None

    async def _finish(self, waiting: Waiting) -> bytes | None:
        call, method = waiting.call, waiting.method
        self.session.doing = method.operation.name
        try:
            result = await waiting.result
            if self._dialect.signs_links:
                result = await with_links(result, self._context.services, self.session)
            if method.is_barrier and self.session.caller is not None:
                self._entered()
            if call.id is ABSENT:
                return None
            return jsonrpc.reply(call.id, self._context.presenter.encode(method.operation.name, result, self.view))
        except Exception as problem:
            return self._failed(call, method, problem)

    def _done(self, answer: bytes | None) -> None:
        """A task has ended: send its answer, and start what had to wait for it."""
        scheduler = self._scheduler
        if self._outbox.closed:
            scheduler.clear()
            return
        if answer is not None:
            self._outbox.send(answer)
        scheduler.finish()
        if self._login.is_pending:
            self._follow_answer()
        while (message := scheduler.take()) is not None:
            self._begin(message)

    # --- failing --------------------------------------------------------------------------------------------------

    def _refuse(self, message: Call | Batch) -> None:
        context = self._context
        context.counts.rpc_answered(_NO_METHOD, RateLimited.slug)
        answer = too_many_calls(message, context.calls_in_flight, self._dialect)
        if answer is not None:
            self._outbox.send(answer)

    def _failed(self, call: Call, method: Method, problem: Exception) -> bytes | None:
        """What an operation raised → the answer; None for a notification."""
        name, dialect = method.operation.name, self._dialect
        if not isinstance(problem, EdgedError):
            self._context.counts.rpc_answered(name, "internal")
            fault = dialects.incident(name, problem)
        else:
            if name == "authenticate":
                self._login.try_again()
            if isinstance(problem, (DependencyFailed, StoreFailed)) and not self.session.peer.is_local_socket:
                hide_paths(problem)
            fault = dialects.fault(problem, lost=self._login.lost)
        if fault.is_unauthenticated:
            self._login.refuse()
        if call.is_notification:
            return None
        if name == "authenticate" and dialect.soft_authenticate and isinstance(problem, Refused):
            return failed_login(call, fault, dialect)
        if fault.row == "camera_not_found" and name in dialect.null_cameras:
            return jsonrpc.reply(call.id, jsonrpc.NULL)
        return fault.encode(call.id, dialect)

    # --- credentials ----------------------------------------------------------------------------------------------

    def enter_unasked(self, headers: Mapping[str, str]) -> None:
        """Log the client in by the unix socket, or by a good credential in the head of the upgrade."""
        peer = self.session.peer
        if peer.is_local_socket:
            self._enter(LocalUser(_UNMAPPED_UID if peer.uid is None else peer.uid))
            return
        for credential in header_credentials(headers):
            # A bad one is ignored: the answer to the client's own authenticate will say so (C-42).
            if self._context.gate.is_good(credential, self.session.transport):
                self._enter(credential)
                return

    def _enter_by_call(self, call: Call, method: Method) -> None:
        """Log in a stateless client, which shows its credential with every call (contract 3). Raises Refused."""
        credential = presented(call, method.credentials)
        if not isinstance(credential, NoCredential):
            self._enter(credential)

    def _enter(self, credential: Credential) -> None:
        session, gate = self.session, self._context.gate
        caller = gate.authenticate(credential, session.peer, session.transport)
        session.admission = gate.admit(caller, session.transport, session.end, name=session.id, is_fresh=True)
        session.caller = caller
        self._entered()

    def _entered(self) -> None:
        """The session has a credential, perhaps a new one: what became of the one before matters no more."""
        self._login.enter()
        self.session.expired = None
        caller = self.session.caller
        if caller is not None and not self._outbox.identify(caller.account):
            self._outbox.close(CLOSE_OVERLOADED, "too many connections with this credential")

    def _choose_dialect(self, call: Call) -> None:
        """The first authenticate that carries a credential settles the dialect (contract 0)."""
        if self._is_dialect_settled:
            return
        given = read_authenticate(call)
        found = given and dialects.of_authenticate(given.token, given.auth_token, given.auth_type)
        if found:
            self._dialect, self._is_dialect_settled = found, True
            self.session.pushed = found.pushed
            self._view_caller = _NOBODY

    def _end(self, cause: Cause, by: str) -> None:
        """Called by the session's admission: its credential is revoked, by the session `by`, or has expired."""
        session, is_expired = self.session, cause == "expired"
        session.expired = session.caller if is_expired else None
        session.caller = session.admission = None
        if is_expired:
            action = self._login.expire(tells=self._dialect.tells_expiry, at_once=bool(session.topics))
        else:
            action = self._login.end(cause, task=trio.lowlevel.current_task() if by == session.id else None)
        if action == "tell_expiry":
            self._send_expiry()
        elif action == "close":
            self._outbox.close(CLOSE_REVOKED, _CLOSE_REASONS[cause])

    def _follow_answer(self) -> None:
        """Do what is due behind the answer that was just sent."""
        login = self._login
        for action in login.answered(trio.lowlevel.current_task, is_last=not self._scheduler.in_flight):
            if action == "tell_expiry":
                self._send_expiry()
            elif login.leaving is not None:
                self._outbox.close(CLOSE_REVOKED, _CLOSE_REASONS[login.leaving])

    def _send_expiry(self) -> None:
        """Send `auth_expired`, once and to clients that expect it. A client that subscribed to nothing gets it only
        behind an answer: it may take the next text for the answer to its own call (contract S0-32, 10.3, C-22)."""
        told = jsonrpc.encode({"session_id": self.session.id, "reason": "expired"})
        self.push(jsonrpc.notification("auth_expired", told))


#: Never a session's caller: makes the view be chosen again.
_NOBODY: Final = Caller(method="none", subject="", roles=frozenset(), capabilities=frozenset())


def _is_barrier(methods: Mapping[str, Method], message: Call | Batch) -> bool:
    calls = message.members if isinstance(message, Batch) else (message,)
    found = (methods.get(call.method) for call in calls if isinstance(call, Call))
    return any(method is not None and method.is_barrier for method in found)


def _end_nothing(_cause: Cause, _by: str) -> None:
    """`end` of a session whose connection is gone."""
