"""Where somebody is, as far as it counts: who is one neighbour, and which address a trusted proxy speaks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

#: No more members of X-Forwarded-For than this are looked at.
_MOST_HOPS = 32


@lru_cache(maxsize=1024)
def place_of(address: str) -> str:
    """Who is one neighbour: an IPv4 address, also as IPv6 writes it, or an IPv6 /64. Other texts are themselves."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"


def client_of(peer: str, forwarded: Sequence[str], is_trusted: Callable[[str], bool]) -> str:
    """The client for whom a trusted proxy at `peer` speaks: the right-most address of X-Forwarded-For that is no
    trusted proxy's own. Whatever stands to the left of it anybody could have written.

    `forwarded` are the values of that header in their order. `peer` itself if they say nothing that can be read.
    """
    found = peer
    for hop in reversed(",".join(forwarded).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
        address = read_hop(hop)
        if address is None:
            break
        found = address
        if not is_trusted(address):
            break
    return found


def read_hop(text: str) -> str | None:
    """One member of X-Forwarded-For → its address, without a port; None if it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return None
        return str(found.ipv4_mapped or found)
    return str(found)
