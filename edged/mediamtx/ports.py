"""Free ports for MediaMTX, and which process holds a port that is not free."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import msgspec

from edged.config.addresses import parse_address
from edged.config.model import ADDRESSES, UDP_ADDRESSES, MediaMTXSettings
from edged.mediamtx.addresses import join_address
from edged.mediamtx.settings import port_of

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LISTENING = {"tcp": "0A", "udp": "07"}


def pick_ports(settings: MediaMTXSettings) -> tuple[MediaMTXSettings, int]:
    """The settings with each port 0 replaced by a free one, and a free loopback port for the control API.

    All are held at once while they are picked, so they differ. Somebody may take one before MediaMTX does; the
    supervisor then picks anew. Raises OSError if the system has none.
    """
    chosen: dict[str, str] = {}
    with contextlib.ExitStack() as held:
        for name in ADDRESSES:
            address: str = getattr(settings, name)
            if port_of(address) == 0:
                host, _ = parse_address(address)
                chosen[name] = join_address(host, _hold(held, "udp" if name in UDP_ADDRESSES else "tcp", host))
        return msgspec.structs.replace(settings, **chosen), _hold(held, "tcp", "127.0.0.1")


def _hold(held: contextlib.ExitStack, transport: str, host: str) -> int:
    """A free port of the family that the host is of; a name is taken for IPv4."""
    family, place = (socket.AF_INET6, "::1") if ":" in host else (socket.AF_INET, "127.0.0.1")
    holder = held.enter_context(socket.socket(family, _KINDS[transport]))
    holder.bind((place, 0))
    port: int = holder.getsockname()[1]
    return port


def find_holder(port: int, transport: str, proc: Path = Path("/proc")) -> str:
    """Who listens on a port: `ffmpeg (pid 123)`, `a process of user id 0`, or "" if nothing shows it.

    Reads the links of every process: some milliseconds, so not in the loop's thread.
    """
    uid = ""
    inodes: set[str] = set()
    for family in (transport, f"{transport}6"):
        with contextlib.suppress(OSError):
            for row in (proc / "net" / family).read_text().splitlines()[1:]:
                fields = row.split()
                local_port = int(fields[1].rpartition(":")[2], 16)
                if fields[3] == _LISTENING[transport] and local_port == port:
                    uid = fields[7]
                    inodes.add(f"socket:[{fields[9]}]")
    for process in proc.iterdir() if inodes else ():
        if re.fullmatch(r"\d+", process.name) and _has_socket(process, inodes):
            with contextlib.suppress(OSError):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return f"a process of user id {uid}" if uid else ""


def _has_socket(process: Path, inodes: set[str]) -> bool:
    # Processes end while we look, and those of others may not be looked into.
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()) in inodes:
                    return True
    return False
