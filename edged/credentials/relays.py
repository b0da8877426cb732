"""Whether a program on this machine asks for itself, or somebody elsewhere through it (contract 5.1).

What a door does for this machine alone it does for nobody whom a reverse proxy or a browser speaks for: their
connections come from loopback, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final

#: Headers that browsers and proxies send.
_RELAYED: Final = ("origin", "via", "forwarded", "x-real-ip")
_RELAYED_PREFIXES: Final = ("sec-fetch-", "x-forwarded-")
_OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


def is_direct(address: str, names: Iterable[str], hosts: Sequence[str]) -> bool:
    """Whether no browser, no proxy, and no name that DNS could rebind stands between a program on this machine and us.

    `address` as the kernel gives it, `names` of the request's headers in lower case, `hosts` what its Host says.
    """
    if not _is_loopback(address) or len(hosts) != 1:
        return False
    name, _, port = hosts[0].lower().rpartition(":")
    if not port.isdigit():
        name = hosts[0].lower()
    return name in _OWN_NAMES and not any(item in _RELAYED or item.startswith(_RELAYED_PREFIXES) for item in names)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
