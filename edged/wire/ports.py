"""The two sides of a WebSocket, as each sees the other: edged.net has the frames, edged.rpc what is said in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol, TypeAlias

#: Seconds of work after which other tasks get their turn.
TURN_SECONDS: Final = 0.001

#: Starts a task that ends with the connection at the latest.
Spawn: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]


class Outbox(Protocol):
    """Where the answers on one WebSocket go. Nothing here raises, and only `wait_turn` waits.

    `identify(account)` counts the connection among those of this credential; False if there are too many of them.
    `send` queues one text, UTF-8; `close` sends what is queued first. `spend_since` charges the time since then
    (`perf_counter`) to the client; `wait_turn` lets other tasks run until something is left of the client's share of
    the event loop.
    """

    @property
    def closed(self) -> bool: ...
    def identify(self, account: str) -> bool: ...
    def send(self, text: bytes) -> None: ...
    def close(self, code: int, reason: str = "") -> None: ...
    def spend_since(self, began: float) -> None: ...
    async def wait_turn(self) -> None: ...


class TextSession(Protocol):
    """What answers on one WebSocket. `receive` gets one whole message of valid UTF-8 and must not wait.

    A long message is read in steps: each `next` of what `receive` returns is one. The next message must not be given to
    the session before these have ended.
    """

    @property
    def authenticated(self) -> bool: ...
    def receive(self, text: bytes) -> Iterator[None] | None: ...
    def closed(self) -> None: ...
