"""The `[listen]` settings → open listeners, what each of them shows and to whom, and serving."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from edged import descriptors, systemd
from edged.config.model import LISTENERS, OFF, Config, LimitSettings, ListenSettings
from edged.credentials.policies import Policy
from edged.errors import StartFailed
from edged.metrics import Metrics
from edged.net.handlers import WEBSOCKET_PATHS, Handlers, Restriction
from edged.net.listeners import Listener, inherit, open_all_tcp, open_unix
from edged.net.server import Server, serve
from edged.web.app import PathFilter

_log = structlog.get_logger("edged")


@asynccontextmanager
async def serving(
    listeners: list[Listener], handlers: Handlers, config: Config, metrics: Metrics
) -> AsyncIterator[Server]:
    """Serve while the block runs; afterwards stop in order (edged.net.server)."""
    async with trio.open_nursery() as nursery:
        restrictions = read_restrictions(config.listen, handlers, metrics)
        proxies = config.listen.trusted_proxies
        is_proxy = Policy((), proxies).admits if proxies else (lambda _address: False)
        yield await nursery.start(
            partial(serve, listeners, handlers, fit_limits(config.limits), counts=metrics, restrictions=restrictions,
                    is_proxy=is_proxy)
        )  # fmt: skip
        nursery.cancel_scope.cancel()


def fit_limits(limits: LimitSettings) -> LimitSettings:
    """As many connections as this process may have open files for, less those that everything else needs."""
    files = descriptors.raise_limit()
    fitting = descriptors.connections_within(files, limits.connections)
    if fitting < limits.connections:
        _log.warning(
            "connections_limited", connections=fitting, wanted=limits.connections, open_files=files,
            remedy="raise LimitNOFILE in edged.service, or ulimit -n",
        )  # fmt: skip
    return msgspec.structs.replace(limits, connections=fitting)


def open_listeners(settings: ListenSettings) -> list[Listener]:
    """Every socket of the settings; the unix socket is systemd's where systemd gives one. Raises StartFailed."""
    listeners: list[Listener] = []
    with ExitStack() as undo:
        undo.callback(_close_all, listeners)
        given = systemd.listen_fds()
        for sock in given.values():
            undo.callback(sock.close)
        for name, sock in given.items():
            # systemd's second socket of a name is called NAME.2 there; here it is one more of the same kind.
            plain, _, number = name.rpartition(".")
            listeners.append(inherit(plain if number.isdecimal() else name, sock))
        if settings.unix != OFF and all(each.name != "unix" for each in listeners):
            listeners.append(open_unix("unix", Path(settings.unix)))
        without: list[str] = []
        listeners += open_all_tcp("main", settings.main, without)
        listeners += open_all_tcp("compat", settings.compat, without)
        listeners += open_all_tcp("local", settings.local, without)
        listeners += open_tokens(settings, without)
        undo.pop_all()
    if without:
        _log.warning("no_ipv6", addresses=without, effect="this system has no IPv6: edged does not listen there")
    return listeners


def open_tokens(settings: ListenSettings, without: list[str]) -> list[Listener]:
    """The listener from which MediaMTX servers fetch the JWKS. Its usual port is one that other programs like too, and
    the same is served elsewhere: a taken port is logged and is no error (contract S4-1)."""
    try:
        return open_all_tcp("tokens", settings.tokens, without)
    except StartFailed as problem:
        _log.warning(
            "listener_not_opened", listener="tokens", problem=str(problem),
            remedy="the other listeners serve the same: free the port, or name another in listen.tokens",
        )  # fmt: skip
        return []


def read_policies(settings: ListenSettings) -> dict[str, Policy]:
    """The `[listen.policy.NAME]` by listener, without those that show everything to everybody."""
    policies = {}
    for name in LISTENERS:
        given = getattr(settings.policy, name)
        policy = Policy(given.paths, given.networks)
        if not (policy.shows_everything and policy.admits_everybody):
            policies[name] = policy
    return policies


def read_restrictions(settings: ListenSettings, handlers: Handlers, metrics: Metrics) -> dict[str, Restriction]:
    """What each listener with a policy is held to. Decided here once, so that a request to any other costs nothing."""
    found = {}
    for name, policy in read_policies(settings).items():
        restricted = handlers
        if not policy.shows_everything:
            app = PathFilter(handlers.app, metrics, policy.shows)
            restricted = Handlers(app, handlers.open_session, frozenset(filter(policy.shows, WEBSOCKET_PATHS)))
        found[name] = Restriction(restricted, None if policy.admits_everybody else policy.admits)
    return found


def _close_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()
