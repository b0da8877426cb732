"""Addresses and networks in settings: how they are written, and which of them overlap. Pure."""

from __future__ import annotations

from ipaddress import ip_network

#: The value of an address that is switched off.
OFF = "off"
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a setting without a host asks for


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8003`, `[::]:8002` or `:8554` → (host, port); no host means every interface, "".

    Port 0 lets the kernel choose. Raises ValueError with what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address is written in brackets, [{host}]:{port}")
    return host, int(port)


def expand(address: str) -> tuple[str, ...]:
    """:PORT → every IPv4 and every IPv6 address, `localhost:PORT` → both of loopback, others as they are.

    Raises ValueError as `parse_address` does.
    """
    host, port = parse_address(address)
    if host == "localhost":
        return (f"127.0.0.1:{port}", f"[::1]:{port}")
    return (address,) if host else (f"0.0.0.0:{port}", f"[::]:{port}")


def overlap(one: str, other: str) -> bool:
    """Whether two sockets cannot listen on these two addresses at the same time; port 0 never collides."""
    port = parse_address(one)[1]
    if port == 0 or port != parse_address(other)[1]:
        return False
    for mine, _ in map(parse_address, expand(one)):
        for theirs, _ in map(parse_address, expand(other)):
            same_family = (":" in mine) == (":" in theirs)
            if mine == theirs or (same_family and {mine, theirs} & _EVERYWHERE):
                return True
    return False


def check_network(text: str, key: str = "networks") -> None:
    if "%" in text:
        raise ValueError(f"{key}: {text!r}: a network has no interface (%)")
    try:
        wide = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{key}: {text!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32") from None
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{key}: {text!r} has host bits set: the network is {wide}") from None
