"""What the composition root hands to edged.net: the ASGI app, the sessions of WebSockets, and who may use which.

edged.net knows bytes and formats and decides nothing; what stands behind these callables it does not know.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import msgspec
import structlog

from edged.credentials.callers import Peer
from edged.wire.ports import Outbox, Spawn, TextSession

_log = structlog.get_logger("net")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where a WebSocket may be opened (contract 10.2).
WEBSOCKET_PATHS = frozenset({"/ws", "/ws/", "/"})

#: (peer, request headers by lower-case name, chosen subprotocol, outbox, spawn) → session
OpenSession: TypeAlias = Callable[[Peer, Mapping[str, str], str | None, Outbox, Spawn], TextSession]


class Handlers(msgspec.Struct, frozen=True):
    """What answers on the connections: an ASGI app for HTTP, a session for each WebSocket, and where that opens."""

    app: ASGIApp
    open_session: OpenSession
    websocket_paths: frozenset[str] = WEBSOCKET_PATHS


class Restriction(msgspec.Struct, frozen=True):
    """What one listener is restricted to: handlers of its own, and whose addresses it takes (None: everybody's)."""

    handlers: Handlers
    admits: Callable[[str], bool] | None


def report_incident(event: str, problem: BaseException, **fields: object) -> str:
    """Log an unexpected exception with its traceback, once, and return the short id under which it was logged."""
    incident = secrets.token_hex(4)
    _log.error(event, incident=incident, exc_info=problem, **fields)
    return incident
