"""Listening sockets, the accept loop, the caps, the watcher of times, and stopping in order.

`serve` owns every connection. It ends only by cancellation, and then in the order of architecture 15: nothing new
is accepted, calls drain for up to two seconds, WebSockets are closed with 1001, then everything is cut.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import structlog
import trio

from edged import memory
from edged.config.addresses import expand, parse_address
from edged.config.model import LISTENERS
from edged.descriptors import EXHAUSTED, is_exhausted
from edged.errors import StartFailed
from edged.net.connection import Connection
from edged.net.doors import Counts, Doors, Limits, NoCounts, Restriction, report_incident
from edged.net.http import fault_bytes
from edged.net.peers import peer_of
from edged.net.pools import Full, Pools, place_of_peer
from edged.net.shares import counting
from edged.net.stream import Stream
from edged.repeats import Repeats
from edged.sockets import Address

_log = structlog.get_logger("listener")

_BACKLOG = 1024
#: Connections taken from one listener before the others get a turn.
_ACCEPTS_IN_A_ROW = 32
#: The system has no descriptor or memory left; it may have again in a moment.
_EXHAUSTED = EXHAUSTED | {errno.ENOBUFS, errno.ENOMEM}
#: Connections of strangers that are closed at a time where the unix socket cannot be answered for want of descriptors.
_SHED = 16
#: When this many connections have become half as many, their memory is given back, so often at most.
_CROWD = 32
_GIVE_BACK_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
DRAIN_SECONDS = 2.0
_GOODBYE_SECONDS = 1.0
#: How often the log tells of peers that one listener does not take.
_TELL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and its name: main, compat, local, tokens, unix. `path` is a socket file of our own making."""

    name: str
    socket: socket.socket
    path: Path | None = None

    @property
    def port(self) -> int:
        """The TCP port, 0 for a unix socket."""
        return 0 if self.socket.family == socket.AF_UNIX else int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """What it listens on, as people write it: `127.0.0.1:8003`, `[::]:8002`, or a socket's path."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return str(name)
        return f"[{name[0]}]:{name[1]}" if self.socket.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"

    def close(self) -> None:
        """Stop listening; removes the socket file that was made here."""
        self.socket.close()
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def open_tcp(name: str, address: str) -> Listener:
    """Bind and listen at HOST:PORT or [IPV6]:PORT. An IPv6 socket takes IPv6 only.

    Raises StartFailed naming the address and the remedy."""
    try:
        host, port = parse_address(address)
    except ValueError as problem:
        raise StartFailed(f"cannot listen on {address!r}: {problem}", hint="change the [listen] settings") from None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as problem:
        raise _start_failed(address, problem) from problem
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as problem:
        sock.close()
        raise _start_failed(address, problem) from problem
    return Listener(name, sock)


def open_all_tcp(name: str, addresses: Iterable[str], without: list[str] | None = None) -> list[Listener]:
    """`open_tcp` for each; :PORT is every address, IPv4 and IPv6.

    Where the system has no IPv6, IPv6 addresses are left out and added to `without`, unless there is nothing else to
    listen on. Raises StartFailed; what was opened before is closed.
    """
    opened: list[Listener] = []
    missing: list[tuple[str, StartFailed]] = []
    with ExitStack() as undo:
        undo.callback(_close_all, opened)
        for address in addresses:
            first: Listener | None = None
            for each in expand(address):
                # :0 is one port that the kernel picks, the same for both families.
                at = f"{each.rpartition(':')[0]}:{first.port}" if first is not None else each
                try:
                    listener = open_tcp(name, at)
                except StartFailed as problem:
                    if "[" in at and is_without_ipv6(problem.__cause__):
                        missing.append((at, problem))
                        continue
                    raise
                opened.append(listener)
                first = listener
        if missing and not opened:
            raise missing[0][1]
        undo.pop_all()
    if without is not None:
        without += [address for address, _ in missing]
    return opened


def is_without_ipv6(problem: BaseException | None) -> bool:
    """Whether this is what a system says that has no IPv6, and not that one address is missing."""
    if not isinstance(problem, OSError) or problem.errno not in _NO_FAMILY:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return True
    return False


def _close_all(listeners: Iterable[Listener]) -> None:
    for each in listeners:
        each.close()


def open_unix(name: str, path: Path, mode: int = 0o660) -> Listener:
    """Listen on a socket file. A stale one is replaced only if nobody answers on it. Raises StartFailed."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # The mode is on the file before anyone can connect: nobody can before listen().
            sock.bind(str(path))
            path.chmod(mode)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as problem:
        raise _start_failed(str(path), problem) from problem
    return Listener(name, sock, path)


def inherit(name: str, sock: socket.socket) -> Listener:
    """A listening socket that systemd made; its file, if it has one, stays when we stop.

    Whoever may open the socket called unix is an administrator, so its family must bear its name out. Raises
    StartFailed.
    """
    is_unix = sock.family == socket.AF_UNIX
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise StartFailed(
            f"the socket {name!r} from systemd does not listen for connections",
            hint="in its socket unit: ListenStream= and Accept=no", listener=name,
        )  # fmt: skip
    if is_unix != (name == "unix") or (not is_unix and name not in LISTENERS):
        kind = "a unix socket" if is_unix else "a TCP socket"
        names = "unix, and whoever may open it is an administrator" if is_unix else f"one of {', '.join(LISTENERS)}"
        raise StartFailed(
            f"{kind} from systemd is called {name!r}",
            hint=f"in its socket unit, FileDescriptorName= must be {names}", listener=name,
        )  # fmt: skip
    sock.setblocking(False)
    return Listener(name, sock)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        answer = probe.connect_ex(str(path))
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with suppress(FileNotFoundError):
        path.unlink()


def _start_failed(address: str, problem: OSError) -> StartFailed:
    hint = {
        errno.EADDRINUSE: "another program listens there; stop it, or change the [listen] settings",
        errno.EACCES: "this user may not listen there; take a port above 1023 or another folder",
        errno.EPERM: "this user may not listen there; take a port above 1023 or another folder",
        errno.EEXIST: "move the file away, or change the [listen] settings",
    }.get(problem.errno or 0, "change the [listen] settings")
    return StartFailed(f"cannot listen on {address}: {problem.strerror or problem}", hint=hint, address=address)


class Refusals:
    """Peers that one listener does not take, told in the log at once and then at most once a minute."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._untold = 0
        self._next = -math.inf

    def note(self, address: str, now: float) -> None:
        """One more, at `now` in seconds; the line names the last address and says how many there were since."""
        self._untold += 1
        if now < self._next:
            return
        name = self._listener.name
        _log.warning(
            "peer refused", listener=name, on=self._listener.address, address=address, times=self._untold,
            remedy=f"if it should be let in, name it in listen.policy.{name}.networks",
        )  # fmt: skip
        self._untold, self._next = 0, now + _TELL_SECONDS


def _tell_exhausted(what: tuple[str, str], times: int, *, others: bool) -> None:
    _log.error("accept_failed", listener="others" if others else what[0], error=what[1], times=times)


def _tell_turned_away(what: tuple[str, str, Full], times: int, *, others: bool) -> None:
    listener, place, full = what
    _log.warning(
        "no place", listener=listener, address="others" if others else place, times=times, why=full.detail,
    )  # fmt: skip


class Server:
    """The connections of some listeners; one whose name is in `restrictions` is held to that."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        doors: Doors,
        limits: Limits,
        counts: Counts,
        restrictions: Mapping[str, Restriction],
        is_proxy: Callable[[str], bool],
    ) -> None:
        self.listeners = tuple(listeners)
        self._everybody = Restriction(doors)
        self._is_proxy = is_proxy
        self._pools = Pools(limits)
        self._restrictions = restrictions
        self._limits = limits
        self._counts = counts
        self._connections: set[Connection] = set()
        self._turned_away = Repeats(_tell_turned_away)
        self._exhausted = Repeats(_tell_exhausted)
        self._goodbyes = 0
        self._is_stopping = False
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope(shield=True)
        self._arrived = trio.Event()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and speak until `close_all`; shielded, so that a cancellation cannot break the order."""
        with self._everything, counting(self._pools.turns):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._turned_away.run)
                nursery.start_soon(self._exhausted.run)
                task_status.started()
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for listener in self.listeners:
                            accepting.start_soon(self._accept, listener, nursery)

    async def close_all(self, code: int = 1001) -> None:
        """Stop in order: accept no more, let calls drain, say goodbye with `code`, cut."""
        self._is_stopping = True
        self._accepting.cancel()
        for listener in self.listeners:
            trio.lowlevel.notify_closing(listener.socket)
            listener.close()
        await self._wait_until(lambda: not any(each.is_busy for each in self._connections), DRAIN_SECONDS)
        for connection in tuple(self._connections):
            connection.stop(code)
        await self._wait_until(lambda: not self._connections, _GOODBYE_SECONDS)
        self._everything.cancel()

    async def _wait_until(self, is_so: Callable[[], bool], seconds: float) -> None:
        with trio.move_on_after(seconds):
            while not is_so():  # noqa: ASYNC110 - an event a message for the sake of stopping would be dear
                await trio.sleep(0.01)

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        # The mode of its file says who may open a unix socket, whatever somebody named it.
        held_to = self._everybody
        if listener.socket.family != socket.AF_UNIX:
            held_to = self._restrictions.get(listener.name, held_to)
        refusals = Refusals(listener)
        while not self._is_stopping:
            await trio.lowlevel.wait_readable(listener.socket)
            for _ in range(_ACCEPTS_IN_A_ROW):
                try:
                    sock, address = listener.socket.accept()
                except BlockingIOError:
                    break
                except OSError as problem:
                    # Anything but exhaustion is about a client that left before we looked.
                    if problem.errno in _EXHAUSTED:
                        self._exhausted.note(listener.name, trio.current_time(), (listener.name, str(problem)))
                    if is_exhausted(problem) and listener.socket.family == socket.AF_UNIX:
                        self._shed()
                    await trio.sleep(_PAUSE_SECONDS if problem.errno in _EXHAUSTED else 0.01)
                    break
                self._take(sock, address, listener, held_to, refusals, nursery)

    def _take(
        self,
        sock: socket.socket,
        address: Address,
        listener: Listener,
        held_to: Restriction,
        refusals: Refusals,
        nursery: trio.Nursery,
    ) -> None:
        """Start speaking on an accepted socket, unless its peer is not wanted here or a cap is reached."""
        sock.setblocking(False)
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = peer_of(sock, listener.name, address)
        except OSError:
            sock.close()
            return
        stream = Stream(sock)
        if held_to.admits is not None and not held_to.admits(peer.address):
            # Not cut without a word: an operator who mistyped his own network must see what it is.
            self._counts.peer_refused()
            refusals.note(peer.address, trio.current_time())
            where = f"listen.policy.{listener.name}.networks"
            self._turn_away(stream, nursery, 403, f"{peer.address} is in none of the networks of {where}")
            return
        place = place_of_peer(peer, sock.family)
        if full := self._pools.find_full(peer, place):
            self._turned_away.note(
                (listener.name, full.status, place), trio.current_time(), (listener.name, place, full)
            )
            self._turn_away(stream, nursery, full.status, full.detail)
            return
        connection = Connection(
            stream, peer, held_to.doors, self._limits, self._counts, lambda: self._is_stopping,
            place=place, pools=self._pools, is_proxy=self._is_proxy,
        )  # fmt: skip
        self._pools.add(connection)
        self._connections.add(connection)
        self._counts.connections_changed(len(self._connections))
        self._arrived.set()
        nursery.start_soon(self._speak, connection)

    async def _speak(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._pools.remove(connection)
            self._counts.connections_changed(len(self._connections))

    def _shed(self) -> None:
        """Close some strangers' connections: whoever asks on the unix socket may be about to revoke a key."""
        strangers = (each for each in tuple(self._connections) if each.peer.address and not each.is_authenticated)
        for connection in islice(strangers, _SHED):
            connection.stream.abort()

    def _turn_away(self, stream: Stream, nursery: trio.Nursery, status: int, detail: str) -> None:
        later = () if status == 403 else ((b"Retry-After", b"10"),)
        word = fault_bytes(status, detail, *later)
        if self._goodbyes < 64:
            self._goodbyes += 1
            nursery.start_soon(self._say_no, stream, word)
        else:
            with suppress(trio.BrokenResourceError):
                stream.try_send(word)
            stream.close()

    async def _say_no(self, stream: Stream, word: bytes) -> None:
        try:
            with trio.move_on_after(1.0), suppress(trio.BrokenResourceError):
                await stream.linger(word, most=65536)
        finally:
            self._goodbyes -= 1
            stream.close()

    async def _watch(self) -> None:
        """Look at every connection's times about once a second; sleeps for good while there is none."""
        limits = self._limits
        times = (limits.stall_seconds, limits.head_seconds, limits.keep_alive_seconds, limits.ping_seconds)
        pause = min(1.0, *(each / 4 for each in times))
        peak, given_back = 0, trio.current_time()
        while True:
            now = trio.current_time()
            peak = max(peak, len(self._connections))
            if peak >= _CROWD and 2 * len(self._connections) <= peak and now - given_back >= _GIVE_BACK_SECONDS:
                peak, given_back = len(self._connections), now
                memory.give_back()
            if not self._connections and peak < _CROWD:
                self._arrived = trio.Event()
                await self._arrived.wait()
            await trio.sleep(pause)
            now = trio.current_time()
            for connection in tuple(self._connections):
                try:
                    connection.check(now)
                except Exception as problem:  # the watcher outlives whatever it finds
                    report_incident("check_failed", problem, listener=connection.peer.listener)
                    connection.stream.close()


async def serve(
    listeners: Sequence[Listener],
    doors: Doors,
    limits: Limits,
    *,
    counts: Counts | None = None,
    restrictions: Mapping[str, Restriction] = MappingProxyType({}),
    is_proxy: Callable[[str], bool] = lambda _address: False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then stop in order (`Server.close_all`); the listeners are closed then.

    `restrictions` are by the names of listeners; one that is not among them has these `doors` and takes everybody.
    `is_proxy(address)`: whether what a peer there says in X-Forwarded-For is believed; nobody's is by default.
    """
    server = Server(listeners, doors, limits, counts or NoCounts(), restrictions, is_proxy)
    async with trio.open_nursery() as nursery:
        # Not start(): that waits for its task when it is cancelled meanwhile, and this one is shielded.
        nursery.start_soon(server.run)
        task_status.started(server)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await server.close_all()
