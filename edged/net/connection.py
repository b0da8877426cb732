"""One connection from accept to close: HTTP exchanges one after another, or an upgrade to a WebSocket.

The first byte tells TLS (0x16) from HTTP; TLS has its place here and is refused for now. Times are kept by a
watcher that calls `check` about once a second, never by a deadline a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal

import h11
import trio

from edged.credentials.callers import Peer
from edged.credentials.places import client_of
from edged.net.doors import Counts, Doors, Limits, Scope, report_incident
from edged.net.http import (
    BadHead,
    Exchange,
    Headers,
    HeadTooLarge,
    Wire,
    explain,
    fault_bytes,
    headers_of,
    host_of,
    make_scope,
    target_of,
)
from edged.net.pools import Full, Pools
from edged.net.shares import REQUEST_SECONDS, Share
from edged.net.stream import READ_SIZE, Stream
from edged.net.websocket import WebSocket, choose_subprotocol, refuse_upgrade, upgrade_headers

_TLS_HANDSHAKE = 0x16
#: How long a client may take to close after our last word.
_LINGER_SECONDS = 2.0
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

Phase = Literal["head", "idle", "linger"]


class Connection:
    """Speaks on one accepted stream. `is_stopping` says that replies should end their connections."""

    def __init__(
        self,
        stream: Stream,
        peer: Peer,
        doors: Doors,
        limits: Limits,
        counts: Counts,
        is_stopping: Callable[[], bool],
        *,
        place: str,
        pools: Pools,
        is_proxy: Callable[[str], bool],
    ) -> None:
        """`place` is where its client is (net.pools); the caller has added it to `pools`, and removes it."""
        self.stream = stream
        self.place = place
        self.account = ""
        self.share: Share
        self.held = 0
        self._holds = {"in": 0, "out": 0}
        self._pools = pools
        self._is_proxy = is_proxy
        self._is_proxied = bool(peer.address) and is_proxy(peer.address)
        self.peer = peer
        self._doors = doors
        self._limits = limits
        self._counts = counts
        self._is_stopping = is_stopping
        self._wire = Wire(stream, limits.head_bytes)
        self._phase: Phase = "head"
        self._since = trio.current_time()
        self._exchange: Exchange | None = None
        self._websocket: WebSocket | None = None
        self._nursery: trio.Nursery | None = None
        self._works = 0
        self._is_identified = False

    # -- what the listener asks ---------------------------------------------------------------------------

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody known is on it: then it does not count against its address."""
        return self._websocket.session.authenticated if self._websocket else self._is_identified

    @property
    def is_busy(self) -> bool:
        """Whether a call is being answered. A stream that runs for hours is no call."""
        if self._exchange is not None:
            return not self._exchange.streaming
        return self._works > 0

    def stop(self, code: int) -> None:
        """Say goodbye: close a WebSocket with `code`, anything else at once."""
        if self._websocket is not None:
            self._websocket.outbox.close(code, "stopping")
        else:
            self.stream.close()

    def check(self, now: float) -> None:
        """End what takes too long. Called about once a second by the listener's watcher."""
        if self.stream.closed:
            return
        if self._websocket is not None:
            self._websocket.check(now)
            return
        stalled, limits, wire = self.stream.stalled_since, self._limits, self._wire
        if stalled is not None:
            if now - stalled > limits.stall_seconds:
                self.stream.abort()
        elif self._exchange is not None:
            self._check_exchange(self._exchange, now)
        elif self._phase == "linger":
            if now - self._since > _LINGER_SECONDS:
                self.stream.close()
        elif self._phase == "idle" and wire.heard:
            self._enter("head", now)
        elif now - self._since > (limits.head_seconds if self._phase == "head" else limits.keep_alive_seconds):
            self._time_out("the request's head took too long" if self._phase == "head" and wire.heard else "")

    def _check_exchange(self, exchange: Exchange, now: float) -> None:
        exchange.check()
        if exchange.is_overdue(now, self._limits.head_seconds):
            self._time_out("the request's body took too long")
        elif not exchange.reading_body or self._wire.heard:
            self._wire.heard, self._since = False, now
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

    # -- speaking ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Speak until either side ends. Never raises anything but Cancelled; the stream is closed afterwards."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await self._speak()
                except _GONE:
                    pass  # the client has left, or the watcher ended it
                except Exception as problem:  # one connection's trouble is nobody else's
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
        """`spawn` for an answer in the making: stopping waits a while for it."""
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
        except Exception as problem:  # see run
            incident = report_incident("task_failed", problem, listener=self.peer.listener)
            if self._websocket is not None:
                self._websocket.outbox.close(1011, f"incident {incident}")
            else:
                self.stream.close()

    async def _speak(self) -> None:
        data = await self.stream.receive(self._wire.read_size)
        if not data:
            return
        if data[0] == _TLS_HANDSHAKE:
            await self._say(fault_bytes(400, "TLS is not on at this port; use http:// or ws://"))
            return
        self._wire.take(data)
        while await self._take_request():
            self._wire.machine.start_next_cycle()
            if self._wire.has_next():
                self._enter("head")
                await self.share.wait()  # whoever pipelines must not keep the others waiting
            else:
                self._wire.heard = False
                self._enter("idle")

    async def _say(self, last_word: bytes) -> None:
        self._enter("linger")
        await self.stream.linger(last_word)

    async def _take_request(self) -> bool:
        """One request and its answer; True if another may follow."""
        try:
            request = await self._wire.head()
            if request is None:
                return False
            if self.share.is_used_up:
                await self.share.wait()
            self.share.spend(REQUEST_SECONDS)
            target = target_of(request.target)
        except HeadTooLarge as problem:
            await self._say(fault_bytes(431, str(problem)))
            return False
        except BadHead as problem:
            await self._say(fault_bytes(400, str(problem)))
            return False
        except h11.RemoteProtocolError as problem:
            await self._say(fault_bytes(problem.error_status_hint, explain(problem)))
            return False
        if request.method == b"CONNECT":
            await self._say(fault_bytes(400, "the request's target must be a path"))
            return False
        headers = headers_of(request, target)
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            # Two lengths: a proxy in front may believe the other one (RFC 9112 6.1, request smuggling).
            await self._say(fault_bytes(400, "Content-Length and Transfer-Encoding exclude each other"))
            return False
        peer, full = self._find_client(request)
        if full is not None:
            await self._say(fault_bytes(full.status, full.detail, (b"Retry-After", b"10")))
            return False
        host = next((host_of(value) for name, value in headers if name == b"host"), None)
        if (host and host != peer.host) or request.http_version == b"1.0":
            peer = replace(peer, host=host or peer.host, is_http10=request.http_version == b"1.0")
        upgrade = next((value for name, value in headers if name == b"upgrade"), b"")
        if upgrade and upgrade.strip().lower() == b"websocket":
            await self._upgrade(request, target.path, headers, peer)
            return False
        at = target.path
        if not upgrade and at in self._doors.websocket_paths and at != "/" and request.method == b"GET":
            await self._say(fault_bytes(426, "only a WebSocket opens here", (b"Upgrade", b"websocket")))
            return False
        return await self._answer(request, make_scope(request, target, headers, peer))

    def _find_client(self, request: h11.Request) -> tuple[Peer, Full | None]:
        """Who asks: the peer, or whoever a trusted proxy speaks for; and why they get no place, if they get none."""
        if not self._is_proxied:
            return self.peer, None
        said = [value.decode("latin-1") for name, value in request.headers if name == b"x-forwarded-for"]
        address = client_of(self.peer.address, said, self._is_proxy)
        port = self.peer.port if address == self.peer.address else 0
        peer = replace(self.peer, address=address, port=port, proxy=self.peer.address)
        return peer, self._pools.move(self, address)

    async def _answer(self, request: h11.Request, scope: Scope) -> bool:
        limits = self._limits
        exchange = Exchange(
            self._wire, request, limits.message_bytes, self.spawn, self._is_stopping,
            strangers_limit=limits.message_bytes_unauthenticated, hold=partial(self.hold, "in"),
        )  # fmt: skip
        scope["edged.authenticated"] = self.identify
        scope["edged.break_off"] = exchange.break_off
        scope["edged.serve_half_closed"] = exchange.serve_half_closed
        self._exchange = exchange
        self._enter("idle")
        try:
            await exchange.run(self._doors.app, scope)
        finally:
            self._exchange = None
            self.hold("in", 0)
        machine = self._wire.machine
        if self.stream.closed:
            return False
        if machine.our_state is h11.DONE and machine.their_state is h11.DONE:
            return True
        if machine.their_state not in (h11.MUST_CLOSE, h11.CLOSED, h11.DONE) or self._wire.buffered():
            await self._say(b"")
        return False

    def identify(self, account: str) -> bool:
        """A good credential of `account` was shown on it; False if that has too many connections already."""
        if not self._pools.identify(self, account):
            return False
        self._is_identified = True
        self._wire.read_size = READ_SIZE
        if self._exchange is not None:
            self._exchange.is_authenticated = True
        return True

    def hold(self, what: Literal["in", "out"], size: int) -> bool:
        """So many bytes are held for its client; False if those of its credential together are too many."""
        if size == self._holds[what]:
            return True
        if not self._pools.hold(self, self.held - self._holds[what] + size):
            return False
        self._holds[what] = size
        return True

    async def _upgrade(self, request: h11.Request, path: str, pairs: Headers, peer: Peer) -> None:
        found: dict[bytes, list[bytes]] = {}
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        headers = {name.decode("ascii"): b", ".join(values).decode("latin-1") for name, values in found.items()}
        refusal = refuse_upgrade(headers, request.method, path, self._doors.websocket_paths)
        if refusal is None and request.http_version == b"1.0":
            refusal = (400, "a WebSocket is opened by HTTP/1.1 (RFC 6455 4.2.1)")
        machine = self._wire.machine
        if refusal is None and not isinstance(machine.next_event(), h11.EndOfMessage):
            refusal = (400, "a WebSocket's request has no body")
        if refusal is not None:
            version = ((b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")) if refusal[0] == 426 else ()
            await self._say(fault_bytes(*refusal, *version))
            return
        websocket = WebSocket(
            self.stream, self._limits, self._counts, self.spawn, trio.current_time(),
            identify=self.identify, hold=self.hold, payer=self,
        )  # fmt: skip
        subprotocol = choose_subprotocol(headers.get("sec-websocket-protocol"))
        try:
            websocket.session = self._doors.open_session(peer, headers, subprotocol, websocket.outbox, self.spawn_call)
        except Exception as problem:  # no session, no upgrade
            await self._say(fault_bytes(500, f"incident {report_incident('session_failed', problem)}"))
            return
        try:
            accept = upgrade_headers(headers["sec-websocket-key"], subprotocol)
            reply = h11.InformationalResponse(status_code=101, headers=accept, reason=b"Switching Protocols")
            await self.stream.send_all(machine.send(reply))
            self._websocket = websocket
            await websocket.run(machine.trailing_data[0])
        finally:
            websocket.outbox.closed = True
            try:
                websocket.session.closed()
            except Exception as problem:  # see run
                report_incident("session_failed", problem)
