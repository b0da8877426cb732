"""Who is at the other end of a connection: its address, and on this machine its user id, both from the kernel.

The uid of a loopback TCP peer is read from the kernel's record of that connection (edged.sockets).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from edged.credentials.callers import Peer
from edged.sockets import Address, ask_kernel
from edged.urls import is_loopback


def peer_of(sock: socket.socket, listener: str, address: Address | str | bytes | None = None) -> Peer:
    """The other end of an accepted socket; `address` is what accept() returned, None to ask the kernel.

    `host` is our own address that the peer connected to, as in a URL (IPv6 in brackets). Raises OSError if the peer has
    gone already.
    """
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return Peer(listener, uid=struct.unpack("iII", credentials)[1])
    theirs: Address = address if isinstance(address, tuple) else sock.getpeername()
    ours: Address = sock.getsockname()
    host = f"[{ours[0]}]" if ":" in ours[0] else ours[0]
    reached = f"{host}:{ours[1]}"
    if not is_loopback(theirs[0]):
        return Peer(listener, theirs[0], theirs[1], host=host, reached=reached)
    look: Callable[[], int | None] = partial(find_uid, sock.family, theirs[:2], ours[:2])
    return Peer(listener, theirs[0], theirs[1], host=host, reached=reached, find_uid=look)


def find_uid(family: int, theirs: Address, ours: Address) -> int | None:
    """The uid that owns the peer's end of the connection theirs → ours, right now.

    None if there is no such socket, it is not ESTABLISHED, its owner has closed it, or the kernel does not say.
    """
    with suppress(OSError):
        owner = ask_kernel(family, theirs, ours)
        return None if owner is None else owner.uid
    return None
