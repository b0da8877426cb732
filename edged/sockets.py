"""Who holds a TCP socket of this machine: user id and inode by NETLINK_SOCK_DIAG on the exact four-tuple
(sock_diag(7)), or from /proc/net/tcp where the kernel has no sock_diag; and which inodes a process group holds.

A socket that its owner has closed already is reported as uid 0 and inode 0: only one in state ESTABLISHED with an
inode counts (contract 5.1, measured).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

_SOCK_DIAG_BY_FAMILY: Final = 20
_NETLINK_SOCK_DIAG: Final = 4
_NLM_F_REQUEST: Final = 1
_NLMSG_HDR: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQ_V2: Final = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKID: Final = struct.Struct("!HH16s16s")  # source port, destination port, source, destination
_NO_COOKIE: Final = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
_MSG_HEAD: Final = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_MSG_TAIL: Final = struct.Struct("=IIIII")  # expires, read queue, write queue, uid, inode
_ESTABLISHED: Final = 1
_PROC: Final = Path("/proc")

#: An address of TCP: (host, port) or (host, port, flow, scope).
Address: TypeAlias = tuple[Any, ...]


class Owner(NamedTuple):
    """Of a live socket."""

    uid: int
    inode: int


def find_owner(family: int, theirs: Address, ours: Address) -> Owner | None:
    """Who holds the other end of the connection theirs → ours, right now.

    None if there is no such socket, it is not ESTABLISHED, its owner has closed it, or the kernel does not say.
    """
    try:
        return ask_kernel(family, theirs, ours)
    except OSError:
        return find_in_table(family, theirs, ours)


def ask_kernel(family: int, theirs: Address, ours: Address) -> Owner | None:
    """The same by sock_diag alone. Raises OSError where that is not to be had."""
    wanted = _SOCKID.pack(theirs[1], ours[1], _pad(family, theirs[0]), _pad(family, ours[0]))
    body = _REQ_V2.pack(family, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED) + wanted + _NO_COOKIE
    head = _NLMSG_HDR.pack(_NLMSG_HDR.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)  # the kernel answers within the send; this is for a kernel that does not
        netlink.sendto(head + body, (0, 0))
        return read_answer(netlink.recv(8192), family, wanted)


def read_answer(answer: bytes, family: int, wanted: bytes) -> Owner | None:
    """One sock_diag reply → the owner, or None if it is not about a live socket with this four-tuple."""
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
    return Owner(int(uid), int(inode))


def find_in_table(family: int, theirs: Address, ours: Address, proc: Path = _PROC) -> Owner | None:
    """The same from the table of all connections, proc(5) net/tcp."""
    wanted = [_spell(family, theirs), _spell(family, ours), f"{_ESTABLISHED:02X}"]
    name = "tcp6" if family == socket.AF_INET6 else "tcp"
    with contextlib.suppress(OSError, ValueError, IndexError):
        for row in (proc / "net" / name).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[1:4] == wanted and fields[9] != "0":
                return Owner(int(fields[7]), int(fields[9]))
    return None


def holds(group: int, inode: int, proc: Path = _PROC) -> bool:
    """Whether a process of this process group has a socket open; the group's leader is looked at first.

    Looks into processes of our own user only, as the kernel allows; no privilege is needed for that.
    """
    wanted = f"socket:[{inode}]"
    if wanted in _links(proc / str(group)):
        return True
    return any(wanted in _links(process) for process in _members(group, proc))


def _members(group: int, proc: Path) -> Iterator[Path]:
    for process in proc.iterdir():
        if process.name.isdigit() and process.name != str(group):
            with contextlib.suppress(OSError, IndexError, ValueError):
                # pid (comm) state ppid pgrp …; comm may hold anything, also parentheses.
                stat = (process / "stat").read_text("utf-8", "replace")
                if int(stat.rpartition(")")[2].split()[2]) == group:
                    yield process


def _links(process: Path) -> Iterator[str]:
    # Processes end while we look, and those of others may not be looked into.
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(link.readlink())


def _spell(family: int, address: Address) -> str:
    """As net/tcp does: words of 32 bits in the machine's own byte order, and the port."""
    packed = socket.inet_pton(family, address[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


def _pad(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address).ljust(16, b"\0")
