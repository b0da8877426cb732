"""Where an address that MediaMTX listens on is reached, and how a URL names it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import trio

from edged.config.addresses import parse_address

#: Every interface → where such a listener is reached on this machine.
_EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)


def join_address(host: str, port: int) -> str:
    """As a URL or a setting spells it: `127.0.0.1:8554`, `[::1]:8554`."""
    return f"{_bracket(host)}:{port}"


def reach(address: str) -> tuple[str, int]:
    """Host and port to connect to from this machine."""
    host, port = parse_address(address)
    return _EVERYWHERE.get(host, host), port


def host_of(address: str) -> str:
    """The one host that a listener is bound to, ready for a URL; "" where that is every interface."""
    host, _ = parse_address(address)
    return "" if host in _EVERYWHERE else _bracket(host)


async def connect(host: str, port: int, bound: Callable[[int], None] | None = None) -> trio.SocketStream:
    """A TCP connection to an address or a name, to the first of its addresses that answers.

    `bound` is told our own port before each try. Raises OSError with the errno of the last try
    (`trio.open_tcp_stream` drops it).
    """
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = trio.socket.socket(family, kind, protocol)
        try:
            if bound is not None:
                await sock.bind(("", 0))
                bound(sock.getsockname()[1])
            await sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return trio.SocketStream(sock)
    raise problem


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
