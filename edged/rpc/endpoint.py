"""JSON-RPC over WebSocket as a whole: what all its sessions share, and which sessions there are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edged.access.gate import Gate
from edged.cameras.registry import Registry
from edged.credentials.callers import Peer
from edged.metrics import Metrics
from edged.operations.caller_sessions import Session, Sessions
from edged.operations.catalogue import Catalogue
from edged.operations.services import Services
from edged.rpc.context import Context
from edged.rpc.dialects import Presenter
from edged.rpc.methods import table
from edged.rpc.session import RpcSession
from edged.wire.ports import Outbox, Spawn


class RpcEndpoint:
    """Opens the sessions of WebSockets; `conversations` are those of now by session id, for notifications."""

    def __init__(
        self,
        catalogue: Catalogue,
        services: Services,
        *,
        gate: Gate,
        counts: Metrics,
        cameras: Registry,
        sessions: Sessions,
        calls_in_flight: int,
        longest_batch: int,
    ) -> None:
        """`services` is handed to operations and not looked into. `calls_in_flight`: unanswered calls of one
        connection; `longest_batch`: calls in one batch."""

        def node_of(device: str) -> str | None:
            camera = cameras.find(device)
            return camera.node if camera is not None else None

        self._context = Context(
            catalogue.start, services, table(catalogue), Presenter(node_of), gate, counts, calls_in_flight,
            longest_batch, self._forget,
        )  # fmt: skip
        self._sessions = sessions
        self._admissions = gate.admissions
        self._conversations: dict[str, RpcSession] = {}
        self.conversations: Mapping[str, RpcSession] = MappingProxyType(self._conversations)

    def open(
        self, peer: Peer, headers: Mapping[str, str], subprotocol: str | None, outbox: Outbox, spawn: Spawn
    ) -> RpcSession:
        """The session of a client that has just connected; `headers` by their lower-case names."""
        conversation = RpcSession(self._context, peer, headers, subprotocol, outbox, spawn)
        conversation.enter_unasked(headers)
        self._conversations[conversation.session.id] = conversation
        self._sessions.add(conversation.session)
        return conversation

    def _forget(self, session: Session) -> None:
        """Its connection has ended."""
        self._conversations.pop(session.id, None)
        self._sessions.remove(session)
        session.is_closed = True
        if session.admission is not None:
            self._admissions.remove(session.admission)
