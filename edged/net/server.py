"""The accept loop, the limits of connections, the watcher of times, and stopping in order.

`serve` owns every connection. It ends only by cancellation, and then in this order (architecture 15): no connection is
accepted any more, calls have two seconds to end, WebSockets are closed with 1001, then everything is cut off.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Final

import structlog
import trio

from edged import memory
from edged.config.model import LimitSettings
from edged.descriptors import EXHAUSTED, is_exhausted
from edged.net.connection import Connection
from edged.net.handlers import Handlers, Restriction, report_incident
from edged.net.http_replies import fault_bytes
from edged.net.listeners import Listener
from edged.net.peers import peer_of
from edged.net.pools import Full, Pools, place_of_peer
from edged.net.shares import counting
from edged.net.stream import Stream
from edged.repeats import Repeats
from edged.sockets import Address
from edged.wire.ports import TURN_SECONDS

if TYPE_CHECKING:
    from edged.metrics import Metrics

_log = structlog.get_logger("listener")

#: Connections taken from one listener before the others get a turn.
_ACCEPTS_IN_A_ROW: Final = 32
#: The system has no descriptor or memory left; it may have again in a moment.
_EXHAUSTED: Final = EXHAUSTED | {errno.ENOBUFS, errno.ENOMEM}
#: Unauthenticated connections that are closed at a time where the unix socket has no descriptor left to accept with.
_SHED: Final = 16
#: Refused connections that are told why at a time; others are closed after one try to tell them.
_MOST_REFUSALS: Final = 64
_PAUSE_SECONDS: Final = 0.1
DRAIN_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 1.0
#: How often the log says of one listener that peers are refused, seconds.
_LOG_SECONDS: Final = 60.0


class Refusals:
    """Peers that one listener does not take: a line in the log at once, then at most one a minute."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._unlogged = 0
        self._next = -math.inf

    def note(self, address: str, now: float) -> None:
        """One more, at `now` in seconds; the line names the last address and how many came since the line before."""
        self._unlogged += 1
        if now < self._next:
            return
        name = self._listener.name
        _log.warning(
            "peer_refused", listener=name, on=self._listener.address, address=address, times=self._unlogged,
            remedy=f"if it should be let in, name it in listen.policy.{name}.networks",
        )  # fmt: skip
        self._unlogged, self._next = 0, now + _LOG_SECONDS


def _log_exhausted(what: tuple[str, str], times: int, *, others: bool) -> None:
    _log.error("accept_failed", listener="others" if others else what[0], error=what[1], times=times)


def _log_refused(what: tuple[str, str, Full], times: int, *, others: bool) -> None:
    listener, place, full = what
    _log.warning(
        "connection_refused", listener=listener, address="others" if others else place, times=times, why=full.detail,
    )  # fmt: skip


class Server:
    """The connections of some listeners; `restrictions` are by the names of listeners."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        handlers: Handlers,
        limits: LimitSettings,
        counts: Metrics,
        restrictions: Mapping[str, Restriction],
        is_proxy: Callable[[str], bool],
    ) -> None:
        self.listeners = tuple(listeners)
        self._unrestricted = Restriction(handlers, admits=None)
        self._is_proxy = is_proxy
        self._pools = Pools(limits)
        self._restrictions = restrictions
        self._limits = limits
        self._counts = counts
        self._connections: set[Connection] = set()
        self._refusals = Repeats(_log_refused)
        self._exhausted = Repeats(_log_exhausted)
        self._open_refusals = 0
        self._is_stopping = False
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope(shield=True)
        self._bursts = memory.Bursts()
        self._arrived = trio.Event()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and serve until `close_all`; shielded, so that a cancellation cannot change the order of the stop."""
        with self._everything, counting(self._pools.turns):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._refusals.run)
                nursery.start_soon(self._exhausted.run)
                task_status.started()
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for listener in self.listeners:
                            accepting.start_soon(self._accept, listener, nursery)

    async def close_all(self, code: int = 1001) -> None:
        """Stop in order: accept no more, let calls end, close WebSockets with `code`, cut off what is left."""
        self._is_stopping = True
        self._accepting.cancel()
        for listener in self.listeners:
            trio.lowlevel.notify_closing(listener.socket)
            listener.close()
        await self._wait_until(lambda: not any(each.is_busy for each in self._connections), DRAIN_SECONDS)
        for connection in tuple(self._connections):
            connection.stop(code)
        await self._wait_until(lambda: not self._connections, _CLOSE_SECONDS)
        self._everything.cancel()

    async def _wait_until(self, is_so: Callable[[], bool], seconds: float) -> None:
        with trio.move_on_after(seconds):
            while not is_so():  # noqa: ASYNC110 - an event for each message, for the sake of stopping, would cost each call
                await trio.sleep(0.01)

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        # The mode of its file says who may open a unix socket, whatever its name is.
        restriction = self._unrestricted
        if listener.socket.family != socket.AF_UNIX:
            restriction = self._restrictions.get(listener.name, restriction)
        refusals = Refusals(listener)
        while not self._is_stopping:
            await trio.lowlevel.wait_readable(listener.socket)
            began = perf_counter()
            for _ in range(_ACCEPTS_IN_A_ROW):
                try:
                    sock, address = listener.socket.accept()
                except BlockingIOError:
                    break
                except OSError as problem:
                    # Any other error is about a client that left before it was accepted.
                    if problem.errno in _EXHAUSTED:
                        self._exhausted.note(listener.name, trio.current_time(), (listener.name, str(problem)))
                    if is_exhausted(problem) and listener.socket.family == socket.AF_UNIX:
                        self._shed()
                    await trio.sleep(_PAUSE_SECONDS if problem.errno in _EXHAUSTED else 0.01)
                    break
                self._take(sock, address, listener, restriction, refusals, nursery)
                if perf_counter() - began > TURN_SECONDS:
                    break

    def _take(
        self,
        sock: socket.socket,
        address: Address,
        listener: Listener,
        restriction: Restriction,
        refusals: Refusals,
        nursery: trio.Nursery,
    ) -> None:
        """Serve an accepted socket, or refuse it: its peer is not let in here, or there are too many connections."""
        sock.setblocking(False)
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = peer_of(sock, listener.name, address)
        except OSError:
            sock.close()
            return
        stream = Stream(sock)
        if restriction.admits is not None and not restriction.admits(peer.address):
            # With an answer: an operator who mistyped their own network must see what is wrong.
            self._counts.peer_refused()
            refusals.note(peer.address, trio.current_time())
            where = f"listen.policy.{listener.name}.networks"
            self._refuse(stream, nursery, 403, f"{peer.address} is in none of the networks of {where}")
            return
        place = place_of_peer(peer, sock.family)
        if full := self._pools.find_full(peer, place):
            self._refusals.note((listener.name, full.status, place), trio.current_time(), (listener.name, place, full))
            self._refuse(stream, nursery, full.status, full.detail)
            return
        connection = Connection(
            stream, peer, restriction.handlers, self._limits, self._counts, lambda: self._is_stopping,
            place=place, pools=self._pools, is_proxy=self._is_proxy,
        )  # fmt: skip
        self._pools.add(connection.member)
        self._connections.add(connection)
        self._counts.connections_changed(len(self._connections))
        self._arrived.set()
        nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._pools.remove(connection.member)
            self._counts.connections_changed(len(self._connections))

    def _shed(self) -> None:
        """Close some unauthenticated connections of the network: an administrator who connects to the unix socket may
        be about to revoke a key."""
        connections = tuple(self._connections)
        found = (each for each in connections if each.peer.address and not each.member.is_authenticated)
        for connection in islice(found, _SHED):
            connection.stream.abort()

    def _refuse(self, stream: Stream, nursery: trio.Nursery, status: int, detail: str) -> None:
        later = () if status == 403 else ((b"Retry-After", b"10"),)
        reply = fault_bytes(status, detail, *later)
        if self._open_refusals < _MOST_REFUSALS:
            self._open_refusals += 1
            nursery.start_soon(self._send_refusal, stream, reply)
        else:
            with suppress(trio.BrokenResourceError):
                stream.try_send(reply)
            stream.close()

    async def _send_refusal(self, stream: Stream, reply: bytes) -> None:
        try:
            with trio.move_on_after(_CLOSE_SECONDS), suppress(trio.BrokenResourceError):
                await stream.linger(reply, most=65536)
        finally:
            self._open_refusals -= 1
            stream.close()

    async def _watch(self) -> None:
        """Check every connection's times, and the memory, about once a second; sleeps while there is neither."""
        limits = self._limits
        times = (limits.stall_seconds, limits.head_seconds, limits.keep_alive_seconds, limits.ping_seconds)
        pause = min(1.0, *(each / 4 for each in times))
        while True:
            due_in = self._bursts.wait_for(trio.current_time())
            if not due_in:
                await trio.to_thread.run_sync(self._bursts.give_back, trio.current_time())
            elif not self._connections:
                self._arrived = trio.Event()
                with trio.move_on_after(due_in):
                    await self._arrived.wait()
            await trio.sleep(pause)
            now = trio.current_time()
            for connection in tuple(self._connections):
                try:
                    connection.check(now)
                except Exception as problem:  # one connection's defect must not end the checks of all
                    report_incident("check_failed", problem, listener=connection.peer.listener)
                    connection.stream.close()


async def serve(
    listeners: Sequence[Listener],
    handlers: Handlers,
    limits: LimitSettings,
    *,
    counts: Metrics,
    restrictions: Mapping[str, Restriction],
    is_proxy: Callable[[str], bool],
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then stop in order (`Server.close_all`); the listeners are closed then.

    `restrictions` are by the names of listeners; one that is not among them has these `handlers` and takes everybody.
    `is_proxy(address)`: whether X-Forwarded-For is believed from a peer at this address.
    """
    server = Server(listeners, handlers, limits, counts, restrictions, is_proxy)
    async with trio.open_nursery() as nursery:
        # Not start(): if it is cancelled meanwhile, it waits for its task to end, and this task is shielded.
        nursery.start_soon(server.run)
        task_status.started(server)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await server.close_all()
