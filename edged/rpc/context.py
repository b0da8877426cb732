"""What all JSON-RPC sessions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from edged.operations.caller_sessions import Session
from edged.rpc.dialects import Presenter
from edged.rpc.methods import Method

if TYPE_CHECKING:
    from edged.access.gate import Gate
    from edged.metrics import Metrics
    from edged.operations.services import Services


class Context(msgspec.Struct, frozen=True):
    """`start` runs an operation (Catalogue.start); `services` are for operations only. `calls_in_flight`: unanswered
    calls of one connection; `longest_batch`: calls in one batch. `forget` is told of a session whose connection has
    ended."""

    start: Callable[..., Any]
    services: Services
    methods: Mapping[str, Method]
    presenter: Presenter
    gate: Gate
    counts: Metrics
    calls_in_flight: int
    longest_batch: int
    forget: Callable[[Session], None]
