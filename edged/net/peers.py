"""Who is at the other end: the address that the kernel gives, and the user id that it vouches for.

The uid of a loopback TCP peer comes from NETLINK_SOCK_DIAG on the exact four-tuple (sock_diag(7)). A socket
that its owner has closed already is reported as uid 0: only one in state ESTABLISHED with an inode counts
(contract 5.1, measured).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from edged.credentials.callers import Peer

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_NLM_F_REQUEST = 1
_NLMSG_HDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQ_V2 = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKID = struct.Struct("!HH16s16s")  # source port, destination port, source, destination
_NO_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
_MSG_HEAD = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_MSG_TAIL = struct.Struct("=IIIII")  # expires, read queue, write queue, uid, inode
_ESTABLISHED = 1

#: An address of TCP: (host, port) or (host, port, flow, scope).
Address = tuple[Any, ...]


def peer_of(sock: socket.socket, listener: str, address: Address | str | bytes | None = None) -> Peer:
    """The other end of an accepted socket; `address` is what accept() said of it, if it is at hand.

    `host` is our own address as the peer reached it, ready for a URL (IPv6 in brackets). Raises OSError
    when the peer is gone already.
    """
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return Peer(listener, uid=struct.unpack("iII", credentials)[1])
    theirs: Address = address if isinstance(address, tuple) else sock.getpeername()
    ours: Address = sock.getsockname()
    host = f"[{ours[0]}]" if ":" in ours[0] else ours[0]
    if not is_loopback(theirs[0]):
        return Peer(listener, theirs[0], theirs[1], host=host)
    look: Callable[[], int | None] = partial(find_uid, sock.family, theirs[:2], ours[:2])
    return Peer(listener, theirs[0], theirs[1], host=host, find_uid=look)


def is_loopback(address: str) -> bool:
    """Whether an IP address that the kernel gave is this very machine."""
    return address.startswith("127.") or address == "::1"


def find_uid(family: int, theirs: Address, ours: Address) -> int | None:
    """The uid that owns the peer's end of the connection theirs → ours, right now.

    None if there is no such socket, it is not ESTABLISHED, its owner has closed it, or the kernel does not say.
    """
    wanted = _SOCKID.pack(theirs[1], ours[1], _packed(family, theirs[0]), _packed(family, ours[0]))
    body = _REQ_V2.pack(family, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED) + wanted + _NO_COOKIE
    head = _NLMSG_HDR.pack(_NLMSG_HDR.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)  # the kernel answers within the send; this is for a kernel that does not
        netlink.sendto(head + body, (0, 0))
        return read_answer(netlink.recv(8192), family, wanted)
    return None


def read_answer(answer: bytes, family: int, wanted: bytes) -> int | None:
    """One sock_diag reply → the uid, or None if it is not about a live socket with this four-tuple."""
    at = _NLMSG_HDR.size
    if len(answer) < at + _MSG_HEAD.size + 48 + _MSG_TAIL.size:
        return None
    if _NLMSG_HDR.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    found_family, state, _, _ = _MSG_HEAD.unpack_from(answer, at)
    found = answer[at + _MSG_HEAD.size : at + _MSG_HEAD.size + len(wanted)]
    _, _, _, uid, inode = _MSG_TAIL.unpack_from(answer, at + _MSG_HEAD.size + 48)
    if found_family != family or found != wanted or state != _ESTABLISHED or inode == 0:
        return None
    return int(uid)


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address).ljust(16, b"\0")
