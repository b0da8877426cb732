"""Listening sockets: TCP, unix and those that systemd hands over, and what is wrong with one that cannot be opened."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from edged.config.addresses import expand, parse_address
from edged.config.model import LISTENERS
from edged.errors import StartFailed

_BACKLOG = 1024
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class Listener(msgspec.Struct, frozen=True):
    """A listening socket and its name: main, compat, local, tokens, unix. `path` is a socket file that edged made."""

    name: str
    socket: socket.socket
    path: Path | None = None

    @property
    def port(self) -> int:
        """The TCP port, 0 for a unix socket."""
        return 0 if self.socket.family == socket.AF_UNIX else int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """`127.0.0.1:8003`, `[::]:8002`, or the path of a unix socket."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return str(name)
        return f"[{name[0]}]:{name[1]}" if self.socket.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"

    def close(self) -> None:
        """Stop listening; removes `path`."""
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
    """Whether this error means that the system has no IPv6, rather than that it lacks one address."""
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
