"""Which operation a JSON-RPC method name means, and what the session must know about it before it runs.

Adding a method is adding an operation: every operation of the catalogue is a method of the same name.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from edged.credentials.roles import OPEN
from edged.operations.catalogue import CREDENTIAL_MEMBERS, Catalogue, Operation
from edged.wire.jsonrpc import Call

#: Other names that real clients call operations by (contract 3).
ALIASES: Mapping[str, str] = MappingProxyType({"get_system_health": "get_status"})

#: Nothing before these may still run, and nothing behind them starts until they are done (contract 10.4).
BARRIERS = frozenset({"authenticate", "refresh_token"})

#: Told by us, never asked of us: called as methods they are unknown (contract 3, last row).
NOTIFICATIONS = frozenset(
    {"auth_expired", "camera_status_update", "recording_status_update", "system_health_update", "mediamtx.stream"}
)


class Method(msgspec.Struct, frozen=True):
    """An operation under the name that a client used.

    `credentials` are the params by which a stateless client may present itself with this very call: those
    of contract 3 that the operation has no param of its own for; none where it does not matter who asks.
    """

    operation: Operation
    credentials: frozenset[str]
    is_barrier: bool


class Waiting:
    """A call whose operation waits: `result` is its coroutine, not started yet."""

    __slots__ = ("call", "method", "result")

    def __init__(self, call: Call, method: Method, result: Coroutine[Any, Any, object]) -> None:
        self.call = call
        self.method = method
        self.result = result

    def __del__(self) -> None:
        # A connection that is ending starts no task any more: its coroutine must not be left unawaited.
        self.result.close()


def table(catalogue: Catalogue) -> Mapping[str, Method]:
    """All methods by name. Raises ValueError if an operation has the name of a notification."""
    if clash := NOTIFICATIONS & catalogue.operations.keys():
        raise ValueError(f"these are notifications, never operations: {', '.join(sorted(clash))}")
    methods = {name: _method(operation) for name, operation in catalogue.operations.items()}
    aliases = {alias: methods[name] for alias, name in ALIASES.items() if name in methods}
    return MappingProxyType(methods | aliases)


def _method(operation: Operation) -> Method:
    own = set(operation.params.__struct_fields__)
    is_for_all = operation.capability == OPEN and not operation.minds_caller
    members = frozenset() if is_for_all else frozenset(CREDENTIAL_MEMBERS) - own
    return Method(operation, members, operation.name in BARRIERS)
