"""One connection or request of a caller, and all the connections that notifications may go to."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from edged.access.admissions import Admission, Cause
from edged.credentials.callers import Caller, Peer, Transport


class Session:
    """One WebSocket, or a single HTTP request.

    `end(cause, by)` is called by a revocation: the endpoint closes the connection, after the reply to the call in
    progress if `by` is the id of this session. `topics` are its subscriptions.
    """

    __slots__ = (
        "_is_direct", "admission", "caller", "doing", "end", "expired", "id", "is_closed", "only_device", "peer",
        "pushed", "topics", "transport",
    )  # fmt: skip

    def __init__(
        self,
        peer: Peer,
        transport: Transport,
        *,
        end: Callable[[Cause, str], None] | None = None,
        is_direct: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_direct()`: whether a program on this machine asks for itself (credentials.relays), by its headers."""
        self.id = f"session_{secrets.token_hex(8)}"
        self.peer = peer
        self.transport = transport
        self.caller: Caller | None = None
        #: The caller whose credential has expired; a token can still be refreshed. None if none has.
        self.expired: Caller | None = None
        #: Whether the connection is gone.
        self.is_closed = False
        self.admission: Admission | None = None
        self.end = end or (lambda _cause, _by: None)
        self.topics: set[str] = set()
        #: Notifications of this camera only; None for all.
        self.only_device: str | None = None
        #: True where the dialect sends every notification unasked (contract 0, v1).
        self.pushed = False
        self._is_direct = is_direct
        #: The call in progress, for the log: a JSON-RPC method, or an HTTP method and path.
        self.doing = ""

    @property
    def is_near(self) -> bool:
        """Whether the caller is a program on this machine and no proxy."""
        return self.peer.is_local_socket or self._is_direct()


class Sessions:
    """The connections that notifications may go to."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        self._sessions[session.id] = session

    def remove(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)
