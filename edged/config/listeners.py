"""[listen] and [listen.policy.NAME]: the addresses edged listens on, and who may use which paths there."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edged.config.addresses import check_network, parse_address
from edged.config.sections import Section


class ListenerPolicy(Section, frozen=True, kw_only=True):
    ""

    """What one listener serves, and to whom: [listen.policy.NAME], NAME being main, compat, local or tokens."""

    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="Allowed URL paths: exact ones, or a prefix followed by *; any other path is answered "
            "with 404. WebSocket clients need /ws, or / if they connect there."
        ),
    ] = ("/*",)
    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Allowed client networks (CIDR) or addresses; others are answered with 403. This machine "
            "is 127.0.0.0/8 and ::1; behind a proxy the client is the proxy."
        ),
    ] = ("0.0.0.0/0", "::/0")

    def __post_init__(self) -> None:
        for path in self.paths:
            _check_listed_path(path)
        for network in self.networks:
            check_network(network)
        for name in ("paths", "networks"):
            if not getattr(self, name):
                raise ValueError(f'{name} is empty: to disable a listener, set its addresses to "off"')


def _check_public_url(text: str) -> str:
    """The URL without a slash at its end. Raises ValueError."""
    url = urlsplit(text)
    _ = url.port  # raises for one that is none
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
        raise ValueError("public_url is http:// or https:// and a host, with a port or a path where there is one")
    if not text.isascii() or not text.isprintable() or any(sign in text for sign in ' ?#\\"<>'):
        raise ValueError("public_url holds a sign that no URL has")
    return text.rstrip("/")


def _check_listed_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"paths: {path!r} must begin with /")
    if "*" in path[:-1]:
        raise ValueError(f"paths: {path!r}: * is allowed at the end only")
    if not path.isprintable() or any(sign in path for sign in " ?#%"):
        raise ValueError(f"paths: {path!r} must be a path without query, blanks and %-encoding")


class ListenPolicies(Section, frozen=True, kw_only=True):
    """The policy of each TCP listener. The unix socket has none: its file mode decides who may open it."""

    main: Annotated[ListenerPolicy, Meta(description="Policy of listen.main.")] = ListenerPolicy()
    compat: Annotated[ListenerPolicy, Meta(description="Policy of listen.compat.")] = ListenerPolicy()
    local: Annotated[ListenerPolicy, Meta(description="Policy of listen.local.")] = ListenerPolicy()
    tokens: Annotated[ListenerPolicy, Meta(description="Policy of listen.tokens.")] = ListenerPolicy()


class ListenSettings(Section, frozen=True, kw_only=True):
    """Addresses to listen on: HOST:PORT, [IPV6]:PORT or :PORT (all interfaces), one or a list; "off" or [] is none."""

    main: Annotated[tuple[str, ...], Meta(description="Addresses of the main listener: WebSocket and HTTP.")] = (
        "0.0.0.0:8002",
        "[::]:8002",
    )
    compat: Annotated[
        tuple[str, ...],
        Meta(description="Addresses of the listener for older clients that only know port 8080 (JSON-RPC dialect v1)."),
    ] = (
        "0.0.0.0:8080",
        "[::]:8080",
    )
    local: Annotated[
        tuple[str, ...],
        Meta(description="Addresses for health checks and metrics without a credential; loopback only."),
    ] = (
        "127.0.0.1:8003",
        "[::1]:8003",
    )
    tokens: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses where MediaMTX servers on this machine fetch the JWKS. If a port is in use, "
            "edged starts without it."
        ),
    ] = ("127.0.0.1:3000", "[::1]:3000")
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Trusted reverse proxies (networks or addresses). The client address is the right-most "
            "address in their X-Forwarded-For that is not itself a trusted proxy; it is used for limits, service "
            "token networks and the log."
        ),
    ] = ()
    public_url: Annotated[
        str,
        Meta(
            description="What stands in front of the paths of absolute links, for example https://cameras.example.org, "
            'and whose host the addresses of streams have; "" means the address that the client has reached. Needed '
            "behind a proxy."
        ),
    ] = ""
    unix: Annotated[
        str,
        Meta(
            description='Path of the unix socket; "" means edged.sock in paths.runtime. Everyone who may open '
            "it has the role admin."
        ),
    ] = ""
    policy: Annotated[
        ListenPolicies,
        Meta(
            description="Access policy per listener: [listen.policy.main], compat, local or tokens; in the "
            "environment for example EDGED_LISTEN_POLICY_MAIN_PATHS."
        ),
    ] = ListenPolicies()

    def __post_init__(self) -> None:
        for name in ("main", "compat", "local", "tokens"):
            for address in getattr(self, name):
                parse_address(address)
        for network in self.trusted_proxies:
            check_network(network, "trusted_proxies")
        if self.public_url:
            msgspec.structs.force_setattr(self, "public_url", _check_public_url(self.public_url))


#: The names of the listeners that have a policy, each with its section [listen.policy.NAME].
LISTENERS: tuple[str, ...] = ListenPolicies.__struct_fields__
POLICIES: dict[str, type[Section]] = {f"listen.policy.{name}": ListenerPolicy for name in LISTENERS}
