"""[listen] and [listen.policy.NAME]: the addresses edged listens on, and who may use which paths there."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edged.config.addresses import check_network, parse_address
from edged.config.sections import Section


class ListenerPolicy(Section, frozen=True, kw_only=True):
    """What one listener shows, and to whom: [listen.policy.NAME], NAME being main, compat, local or tokens."""

    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="The paths that it answers at: exact ones, or a beginning with * behind it; at every other one "
            "there is nothing (404). A WebSocket needs /ws, and / for clients that open it there."
        ),
    ] = ("/*",)
    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Whose connections it takes: networks or single addresses; everybody else is told 403 and no "
            "more. It says exactly who: this machine is 127.0.0.0/8 and ::1, and behind a proxy the peer is the proxy."
        ),
    ] = ("0.0.0.0/0", "::/0")

    def __post_init__(self) -> None:
        for path in self.paths:
            _check_listed_path(path)
        for network in self.networks:
            check_network(network)
        for name in ("paths", "networks"):
            if not getattr(self, name):
                raise ValueError(f'{name} is empty: to shut a listener, set its addresses to "off"')


def _check_listed_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"paths: {path!r} does not begin with /")
    if "*" in path[:-1]:
        raise ValueError(f"paths: {path!r}: a * stands at the end only")
    if not path.isprintable() or any(sign in path for sign in " ?#%"):
        raise ValueError(f"paths: {path!r} is not a path alone: no query, no blanks, nothing %-encoded")


class ListenPolicies(Section, frozen=True, kw_only=True):
    """The policy of each listener; the unix socket has none, its file's mode says who may open it."""

    main: Annotated[ListenerPolicy, Meta(description="Of listen.main.")] = ListenerPolicy()
    compat: Annotated[ListenerPolicy, Meta(description="Of listen.compat.")] = ListenerPolicy()
    local: Annotated[ListenerPolicy, Meta(description="Of listen.local.")] = ListenerPolicy()
    tokens: Annotated[ListenerPolicy, Meta(description="Of listen.tokens.")] = ListenerPolicy()


class ListenSettings(Section, frozen=True, kw_only=True):
    """Where edged answers; addresses are HOST:PORT, [IPV6]:PORT or :PORT (all), several a list, "off" or [] none."""

    main: Annotated[tuple[str, ...], Meta(description="WebSocket and HTTP for everybody.")] = (
        "0.0.0.0:8002",
        "[::]:8002",
    )
    compat: Annotated[
        tuple[str, ...], Meta(description="The same for clients that know only port 8080 (dialect v1).")
    ] = (
        "0.0.0.0:8080",
        "[::]:8080",
    )
    local: Annotated[tuple[str, ...], Meta(description="Health and metrics without a credential: loopback only.")] = (
        "127.0.0.1:8003",
        "[::1]:8003",
    )
    tokens: Annotated[
        tuple[str, ...],
        Meta(
            description="The same where MediaMTX servers on this machine look for the JWKS; a taken port is no error."
        ),
    ] = ("127.0.0.1:3000", "[::1]:3000")
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks or addresses of proxies whose X-Forwarded-For is believed: its right-most address "
            "that is none of these is the client's, for limits, networks of service tokens, and the log."
        ),
    ] = ()
    unix: Annotated[
        str,
        Meta(description='The local socket; "" is edged.sock in paths.runtime. Who may open it is admin.'),
    ] = ""
    policy: Annotated[
        ListenPolicies,
        Meta(
            description="What a listener shows, and to whom: [listen.policy.main], compat, local or tokens; in the "
            "environment EDGED_LISTEN_POLICY_MAIN_PATHS."
        ),
    ] = ListenPolicies()

    def __post_init__(self) -> None:
        for name in ("main", "compat", "local", "tokens"):
            for address in getattr(self, name):
                parse_address(address)
        for network in self.trusted_proxies:
            check_network(network, "trusted_proxies")


#: The names of the listeners that have a policy, each with its section [listen.policy.NAME].
LISTENERS: tuple[str, ...] = ListenPolicies.__struct_fields__
POLICIES: dict[str, type[Section]] = {f"listen.policy.{name}": ListenerPolicy for name in LISTENERS}
