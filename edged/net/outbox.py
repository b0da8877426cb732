"""What waits to be sent on one WebSocket. Replies to one read leave in one write.

Nothing here waits for a client to read: what the kernel does not take is kept, 256 messages or 1 MiB of it, then the
client is given up with 1013 (contract 10.3, 10.22).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio
from websockets.protocol import State
from websockets.server import ServerProtocol

from edged.config.model import LimitSettings
from edged.net.pools import Member
from edged.net.stream import Stream
from edged.wire.ports import Spawn

if TYPE_CHECKING:
    from edged.metrics import Metrics

#: Counts bytes that wait for one connection: ("in" or "out", how many) → whether so many may.
Hold: TypeAlias = Callable[[Literal["in", "out"], int], bool]

#: Heads of text frames by the length of their payload.
_SHORT: Final = tuple(struct.pack("!BB", 0x81, length) for length in range(126))
_WHOLE_TEXT: Final = 0x81
#: Bytes of answers to one read after which a first part is sent.
_FLUSH_AT: Final = 65536


class WebSocketOutbox:
    """The outbox of one WebSocket (edged.wire.ports.Outbox). `send` and `close` never wait and never raise.

    `corked` is set while a read is being answered; `done` is set when everything is with the kernel or cannot be sent.
    """

    __slots__ = ("_blocked", "_counts", "_limits", "_member", "_protocol", "_queue", "_rest", "_size", "_spawn",
                 "_stream", "closed", "corked", "done", "hold", "identify")  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        protocol: ServerProtocol,
        limits: LimitSettings,
        counts: Metrics,
        spawn: Spawn,
        identify: Callable[[str], bool],
        hold: Hold,
        member: Member,
    ) -> None:
        """`identify(account)` counts the connection with that credential; False if it has too many. `hold(what, size)`
        counts bytes in memory, "in" or "out"; False if those are too many."""
        self.identify = identify
        self.hold = hold
        self._member = member
        self._stream = stream
        self._protocol = protocol
        self._limits = limits
        self._counts = counts
        self._spawn = spawn
        self._queue: list[bytes] = []
        self._size = 0
        self._rest = memoryview(b"")
        self._blocked = False
        self.closed = False
        self.corked = True
        self.done = trio.Event()

    @property
    def is_blocked(self) -> bool:
        """Whether the kernel takes nothing now, because the client reads too slowly."""
        return self._blocked

    def spend_since(self, began: float) -> None:
        """Charge the time since then (`perf_counter`) to the client."""
        self._member.share.spend_since(began)

    async def wait_turn(self) -> None:
        """Let other tasks run until something is left of the client's share of the event loop."""
        await self._member.share.wait()

    def send(self, text: bytes) -> None:
        """One text message, UTF-8. After `close` it is dropped."""
        if self.closed:
            return
        length = len(text)
        if length < 126:
            frame = _SHORT[length] + text
        elif length < 65536:
            frame = struct.pack("!BBH", _WHOLE_TEXT, 126, length) + text
        else:
            frame = struct.pack("!BBQ", _WHOLE_TEXT, 127, length) + text
        self.put(frame)

    def put(self, frame: bytes) -> None:
        """Queue one whole frame."""
        if self._blocked and (
            len(self._queue) >= self._limits.outbox_messages
            or self._size + len(frame) > self._limits.outbox_bytes
            or not self.hold("out", len(self._rest) + self._size + len(frame))
        ):
            self._overflow()
            return
        self._queue.append(frame)
        self._size += len(frame)
        if not self.corked or self._size > _FLUSH_AT:
            self.flush()

    def close(self, code: int, reason: str = "") -> None:
        """Send what is queued, then a close frame; `reason` is cut to the 123 bytes that a frame can hold."""
        if self.closed:
            return
        self.closed = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason.encode()[:123].decode(errors="ignore"))
            self.put_core_frames()
        self._uncork_if_idle()

    def put_core_frames(self) -> bool:
        """Queue the core's frames; True if the core ends the stream after them."""
        ended = False
        for frame in self._protocol.data_to_send():
            if frame:
                self.put(frame)
            else:
                ended = True
        return ended

    def flush(self) -> None:
        """Hand the queue to the kernel; a task sends what the kernel does not take."""
        queue = self._queue
        if self._blocked or not queue:
            return
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        queue.clear()
        self._size = 0
        try:
            sent = self._stream.try_send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.give_up()
            return
        if sent != len(data):
            self._rest = memoryview(data)[sent:]
            self._blocked = True
            self._stream.stalled_since = trio.current_time()
            self._spawn(self._drain)

    def give_up(self) -> None:
        """Send nothing more and close the stream, which ends the reading task."""
        self.closed = True
        self._queue.clear()
        self._size = 0
        self.done.set()
        self._stream.close()

    def _uncork_if_idle(self) -> None:
        if not self.corked:
            self.flush()

    def _overflow(self) -> None:
        """Drop what is queued and close with 1013, which a client that reads again will see."""
        if self.closed:
            return
        self._counts.outbox_dropped()
        self._queue.clear()
        self._size = 0
        self.close(1013, "too slow")

    async def _drain(self) -> None:
        try:
            while True:
                while self._rest:
                    await self._stream.wait_writable()
                    sent = self._stream.try_send(self._rest)
                    if sent:
                        self._rest = self._rest[sent:]
                        self._stream.stalled_since = trio.current_time()
                if not self._queue:
                    break
                self._rest = memoryview(b"".join(self._queue))
                self._queue.clear()
                self._size = 0
            self._blocked = False
            self.hold("out", 0)
            self._stream.stalled_since = None
            self.done.set()
            self.done = trio.Event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.give_up()

    async def wait_sent(self) -> None:
        """Until everything queued is with the kernel, or cannot be sent."""
        self.flush()
        while self._blocked and not self._stream.closed:
            await self.done.wait()
