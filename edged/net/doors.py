"""What net is handed by the composition root, and the little that all of its files share.

net knows bytes and formats, no decisions: the ASGI app, the session of a WebSocket and the limits come
from outside, and nothing here knows what is behind them.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import structlog

from edged.credentials.callers import Peer

_log = structlog.get_logger("net")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where a WebSocket may be opened (contract 10.2).
WEBSOCKET_PATHS = frozenset({"/ws", "/ws/", "/"})

#: Starts a task that lives no longer than the connection.
Spawn: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]


class Limits(Protocol):
    """The `limits` section of the settings; sizes in bytes, times in seconds (contract 10.13, 10.22)."""

    @property
    def connections(self) -> int: ...
    @property
    def unauthenticated_per_address(self) -> int: ...
    @property
    def connections_per_credential(self) -> int: ...
    @property
    def head_bytes(self) -> int: ...
    @property
    def message_bytes(self) -> int: ...
    @property
    def message_bytes_unauthenticated(self) -> int: ...
    @property
    def outbox_messages(self) -> int: ...
    @property
    def outbox_bytes(self) -> int: ...
    @property
    def stall_seconds(self) -> float: ...
    @property
    def head_seconds(self) -> float: ...
    @property
    def keep_alive_seconds(self) -> float: ...
    @property
    def ping_seconds(self) -> float: ...
    @property
    def silence_seconds(self) -> float: ...


class Outbox(Protocol):
    """The way out of one WebSocket. Nothing here raises, and nothing but `wait_turn` waits.

    `identify` says whose credential is good on it now, and is False if there are too many connections of that one.
    `spend_since` charges the time since then (`perf_counter`) to the client; `wait_turn` gives way until something is
    left of its share of the event loop (net.shares).
    """

    @property
    def closed(self) -> bool: ...
    def identify(self, account: str) -> bool: ...
    def send(self, text: bytes) -> None: ...
    def close(self, code: int, reason: str = "") -> None: ...
    def spend_since(self, began: float) -> None: ...
    async def wait_turn(self) -> None: ...


class WebSocketSession(Protocol):
    """What answers on a WebSocket. `receive` gets one whole message of valid UTF-8 and must not wait."""

    @property
    def authenticated(self) -> bool: ...
    def receive(self, text: bytes) -> None: ...
    def closed(self) -> None: ...


#: (peer, request headers by lower-case name, chosen subprotocol, outbox, spawn) → session
OpenSession: TypeAlias = Callable[[Peer, Mapping[str, str], str | None, Outbox, Spawn], WebSocketSession]


class Counts(Protocol):
    """Where net counts; metrics.py in the daemon."""

    def connections_changed(self, number: int) -> None: ...
    def outbox_dropped(self) -> None: ...
    def peer_refused(self) -> None: ...


class NoCounts:
    """Counts nothing."""

    def connections_changed(self, number: int) -> None:
        """Connections open now."""

    def outbox_dropped(self) -> None:
        """One WebSocket was given up because its client does not read."""

    def peer_refused(self) -> None:
        """Somebody came from outside of a listener's networks."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What is behind the connections: an ASGI app for HTTP, a session for each WebSocket, and where that opens."""

    app: ASGIApp
    open_session: OpenSession
    websocket_paths: frozenset[str] = WEBSOCKET_PATHS


@dataclass(frozen=True, slots=True)
class Restriction:
    """What one listener is held to: doors of its own, and whose addresses it takes (None: everybody's)."""

    doors: Doors
    admits: Callable[[str], bool] | None = None


def report_incident(event: str, problem: BaseException, **fields: object) -> str:
    """Log an exception that nobody expected, once, and return the short id under which it was logged."""
    incident = secrets.token_hex(4)
    _log.error(event, incident=incident, exc_info=problem, **fields)
    return incident
