"""One connection from accept to close: HTTP exchanges one after another, or an upgrade to a WebSocket.

The first byte tells TLS (0x16), which is refused, from HTTP. Time limits are kept by a watcher that calls `check` about
once a second: a deadline for each request would cost more than many a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import h11
import trio

from edged.config.model import LimitSettings
from edged.credentials.callers import Peer
from edged.credentials.places import client_of
from edged.net.handlers import Handlers, Scope, report_incident
from edged.net.http_exchange import Exchange
from edged.net.http_heads import BadHead, Headers, HeadTooLarge, explain, headers_of, host_of, make_scope, target_of
from edged.net.http_replies import fault_bytes
from edged.net.http_stream import HttpStream
from edged.net.pools import Full, Member, Pools
from edged.net.shares import REQUEST_SECONDS
from edged.net.stream import READ_SIZE, Stream
from edged.net.upgrades import choose_subprotocol, refuse_upgrade, upgrade_headers
from edged.net.websocket import WebSocket

if TYPE_CHECKING:
    from edged.metrics import Metrics

_TLS_HANDSHAKE: Final = 0x16
#: How long a client may take to close after our last reply.
_LINGER_SECONDS: Final = 2.0
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

#: What an HTTP connection is doing between two exchanges.
Phase: TypeAlias = Literal["head", "idle", "linger"]


class Connection:
    """Serves one accepted stream. `is_stopping`: whether replies should end their connections."""

    __slots__ = (
        "_counts", "_exchange", "_handlers", "_held_in", "_held_out", "_http", "_is_proxied", "_is_proxy",
        "_is_stopping", "_limits", "_nursery", "_phase", "_pools", "_since", "_websocket", "_works", "member", "peer",
        "stream",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        peer: Peer,
        handlers: Handlers,
        limits: LimitSettings,
        counts: Metrics,
        is_stopping: Callable[[], bool],
        *,
        place: str,
        pools: Pools,
        is_proxy: Callable[[str], bool],
    ) -> None:
        """`place` is where its client is (edged.net.pools). The caller adds `member` to `pools` and removes it."""
        self.stream = stream
        self.member = Member(peer, place)
        self._held_in = self._held_out = 0
        self._pools = pools
        self._is_proxy = is_proxy
        self._is_proxied = bool(peer.address) and is_proxy(peer.address)
        self.peer = peer
        self._handlers = handlers
        self._limits = limits
        self._counts = counts
        self._is_stopping = is_stopping
        self._http = HttpStream(stream, limits.head_bytes)
        self._phase: Phase = "head"
        self._since = trio.current_time()
        self._exchange: Exchange | None = None
        self._websocket: WebSocket | None = None
        self._nursery: trio.Nursery | None = None
        self._works = 0

    # -- what the server asks ---------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a call is being answered; a stream, which may run for hours, does not count."""
        if self._exchange is not None:
            return not self._exchange.streaming
        return self._works > 0

    def stop(self, code: int) -> None:
        """Close a WebSocket with `code`, any other connection at once."""
        if self._websocket is not None:
            self._websocket.outbox.close(code, "stopping")
        else:
            self.stream.close()

    def check(self, now: float) -> None:
        """End the connection if something takes too long. Called about once a second by the server's watcher."""
        if self.stream.closed:
            return
        if self._websocket is not None:
            self._websocket.check(now)
            return
        stalled, limits, http = self.stream.stalled_since, self._limits, self._http
        if stalled is not None:
            if now - stalled > limits.stall_seconds:
                self.stream.abort()
        elif self._exchange is not None:
            self._check_exchange(self._exchange, now)
        elif self._phase == "linger":
            if now - self._since > _LINGER_SECONDS:
                self.stream.close()
        elif self._phase == "idle" and http.heard:
            self._enter("head", now)
        elif now - self._since > (limits.head_seconds if self._phase == "head" else limits.keep_alive_seconds):
            self._time_out("the request's head took too long" if self._phase == "head" and http.heard else "")

    def _check_exchange(self, exchange: Exchange, now: float) -> None:
        exchange.check()
        if exchange.is_overdue(now, self._limits.head_seconds):
            self._time_out("the request's body took too long")
        elif not exchange.reading_body or self._http.heard:
            self._http.heard, self._since = False, now
        elif now - self._since > self._limits.stall_seconds:
            self._time_out("the request's body took too long")

    def _time_out(self, detail: str) -> None:
        if detail:
            with suppress(*_GONE):
                self.stream.try_send(fault_bytes(408, detail))
        self.stream.close()

    def _enter(self, phase: Phase, now: float | None = None) -> None:
        self._phase = phase
        self._since = trio.current_time() if now is None else now

    # -- serving ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until either side ends. Raises nothing but Cancelled; the stream is closed afterwards."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await self._speak()
                except _GONE:
                    pass  # the client has left, or the watcher ended it
                except Exception as problem:  # a defect ends this connection alone
                    report_incident("connection_failed", problem, listener=self.peer.listener)
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self.stream.close()

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start a task that ends with the connection; an exception in it is logged and ends the connection."""
        if self._nursery is not None and not self.stream.closed:
            self._nursery.start_soon(self._run_work, work)

    def spawn_call(self, work: Callable[[], Awaitable[None]]) -> None:
        """`spawn` for a call: a stop waits DRAIN_SECONDS for its answer."""
        self._works += 1
        self.spawn(lambda: self._run_call(work))

    async def _run_call(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._works -= 1

    async def _run_work(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except _GONE:
            self.stream.close()
        except Exception as problem:  # a defect ends this connection alone
            incident = report_incident("task_failed", problem, listener=self.peer.listener)
            if self._websocket is not None:
                self._websocket.outbox.close(1011, f"incident {incident}")
            else:
                self.stream.close()

    async def _speak(self) -> None:
        data = await self.stream.receive(self._http.read_size)
        if not data:
            return
        if data[0] == _TLS_HANDSHAKE:
            await self._end_with(fault_bytes(400, "TLS is not on at this port; use http:// or ws://"))
            return
        self._http.take(data)
        while await self._take_request():
            self._http.machine.start_next_cycle()
            if self._http.has_next():
                self._enter("head")
                await self.member.share.wait()  # a client that pipelines must not delay the others
            else:
                self._http.heard = False
                self._enter("idle")

    async def _end_with(self, reply: bytes) -> None:
        self._enter("linger")
        await self.stream.linger(reply)

    async def _take_request(self) -> bool:
        """One request and its answer; True if another may follow."""
        try:
            request = await self._http.head()
            if request is None:
                return False
            share = self.member.share
            if share.is_used_up:
                await share.wait()
            share.spend(REQUEST_SECONDS)
            target = target_of(request.target)
        except HeadTooLarge as problem:
            await self._end_with(fault_bytes(431, str(problem)))
            return False
        except BadHead as problem:
            await self._end_with(fault_bytes(400, str(problem)))
            return False
        except h11.RemoteProtocolError as problem:
            await self._end_with(fault_bytes(problem.error_status_hint, explain(problem)))
            return False
        if request.method == b"CONNECT":
            await self._end_with(fault_bytes(400, "the request's target must be a path"))
            return False
        headers = headers_of(request, target)
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            # Two lengths: a proxy in front may take the other one (RFC 9112 6.1, request smuggling).
            await self._end_with(fault_bytes(400, "Content-Length and Transfer-Encoding exclude each other"))
            return False
        peer, full = self._find_client(request)
        if full is not None:
            await self._end_with(fault_bytes(full.status, full.detail, (b"Retry-After", b"10")))
            return False
        host = next((host_of(value) for name, value in headers if name == b"host"), None)
        if (host and host != peer.host) or request.http_version == b"1.0":
            peer = replace(peer, host=host or peer.host, is_http10=request.http_version == b"1.0")
        upgrade = next((value for name, value in headers if name == b"upgrade"), b"")
        if upgrade and upgrade.strip().lower() == b"websocket":
            await self._upgrade(request, target.path, headers, peer)
            return False
        at = target.path
        if not upgrade and at in self._handlers.websocket_paths and at != "/" and request.method == b"GET":
            await self._end_with(fault_bytes(426, "only a WebSocket opens here", (b"Upgrade", b"websocket")))
            return False
        return await self._answer(request, make_scope(request, target, headers, peer))

    def _find_client(self, request: h11.Request) -> tuple[Peer, Full | None]:
        """The client: the peer, or the one that a trusted proxy names; and why it is refused, if it is."""
        if not self._is_proxied:
            return self.peer, None
        said = [value.decode("latin-1") for name, value in request.headers if name == b"x-forwarded-for"]
        address = client_of(self.peer.address, said, self._is_proxy)
        port = self.peer.port if address == self.peer.address else 0
        peer = replace(self.peer, address=address, port=port, proxy=self.peer.address)
        return peer, self._pools.move(self.member, address)

    async def _answer(self, request: h11.Request, scope: Scope) -> bool:
        limits = self._limits
        exchange = Exchange(
            self._http, request, limits.message_bytes, self.spawn, self._is_stopping,
            unauthenticated_limit=limits.message_bytes_unauthenticated, hold=partial(self.hold, "in"),
        )  # fmt: skip
        scope["edged.authenticated"] = self.identify
        scope["edged.serve_half_closed"] = exchange.serve_half_closed
        self._exchange = exchange
        self._enter("idle")
        try:
            await exchange.run(self._handlers.app, scope)
        finally:
            self._exchange = None
            self.hold("in", 0)
        machine = self._http.machine
        if self.stream.closed:
            return False
        if machine.our_state is h11.DONE and machine.their_state is h11.DONE:
            return True
        if machine.their_state not in (h11.MUST_CLOSE, h11.CLOSED, h11.DONE) or self._http.buffered():
            await self._end_with(b"")
        return False

    def identify(self, account: str) -> bool:
        """A good credential of `account` was shown; False if that has too many connections."""
        if not self._pools.identify(self.member, account):
            return False
        self.member.is_identified = True
        self._http.read_size = READ_SIZE
        if self._exchange is not None:
            self._exchange.is_authenticated = True
        return True

    def hold(self, what: Literal["in", "out"], size: int) -> bool:
        """`size` bytes are in memory for it; False if those of its credential together are too many."""
        more = size - (self._held_in if what == "in" else self._held_out)
        if not more:
            return True
        if not self._pools.hold(self.member, self.member.held + more):
            return False
        if what == "in":
            self._held_in = size
        else:
            self._held_out = size
        return True

    async def _upgrade(self, request: h11.Request, path: str, pairs: Headers, peer: Peer) -> None:
        found: dict[bytes, list[bytes]] = {}
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        headers = {name.decode("ascii"): b", ".join(values).decode("latin-1") for name, values in found.items()}
        refusal = refuse_upgrade(headers, request.method, path, self._handlers.websocket_paths)
        if refusal is None and request.http_version == b"1.0":
            refusal = (400, "a WebSocket is opened by HTTP/1.1 (RFC 6455 4.2.1)")
        machine = self._http.machine
        if refusal is None and not isinstance(machine.next_event(), h11.EndOfMessage):
            refusal = (400, "a WebSocket's request has no body")
        if refusal is not None:
            version = ((b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")) if refusal[0] == 426 else ()
            await self._end_with(fault_bytes(*refusal, *version))
            return
        websocket = WebSocket(
            self.stream, self._limits, self._counts, self.spawn, trio.current_time(),
            identify=self.identify, hold=self.hold, member=self.member,
        )  # fmt: skip
        subprotocol = choose_subprotocol(headers.get("sec-websocket-protocol"))
        try:
            websocket.session = self._handlers.open_session(
                peer, headers, subprotocol, websocket.outbox, self.spawn_call
            )
        except Exception as problem:  # no session, no upgrade
            await self._end_with(fault_bytes(500, f"incident {report_incident('session_failed', problem)}"))
            return
        try:
            accept = upgrade_headers(headers["sec-websocket-key"], subprotocol)
            reply = h11.InformationalResponse(status_code=101, headers=accept, reason=b"Switching Protocols")
            await self.stream.send_all(machine.send(reply))
            self._websocket, self.member.session = websocket, websocket.session
            await websocket.run(machine.trailing_data[0])
        finally:
            websocket.outbox.closed = True
            try:
                websocket.session.closed()
            except Exception as problem:  # a defect ends this connection alone
                report_incident("session_failed", problem)
            # The session holds this connection: its memory must not wait for the garbage collector.
            self._websocket = self.member.session = None
