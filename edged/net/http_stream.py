"""h11's machine on a stream: requests as they come, with limits that h11 does not have.

- The head is counted here, by our own limit: h11 looks at its limit only while a head is incomplete.
- One CRLF before a request line is ignored; a line that ends in a bare LF is refused (RFC 9112 2.2).
- A body in many small chunks gives way to other tasks after `EVENTS_IN_A_ROW`.
"""

from __future__ import annotations

from typing import Any, Final

import h11
import trio

from edged.net.head_lines import HeadLines
from edged.net.http_heads import BadHead, HeadTooLarge
from edged.net.stream import READ_SIZE, Stream

#: Lines of a head, the empty one included; h11 takes some 4 µs for each.
_MOST_LINES: Final = 128
#: Pieces of a body that are read before other tasks get their turn; h11 takes some 10 µs for each.
EVENTS_IN_A_ROW: Final = 64


class HttpStream:
    """h11's machine on a stream. `heard` is set with each read; the watcher clears it."""

    __slots__ = ("_events", "_limit", "ended", "heard", "machine", "read_size", "stream")

    def __init__(self, stream: Stream, head_bytes: int) -> None:
        self.stream = stream
        self.machine = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes)
        self._limit = head_bytes
        self._events = 0
        #: Bytes of one read: before authentication no more than may be kept.
        self.read_size = min(head_bytes, READ_SIZE)
        self.heard = False
        self.ended = False

    def take(self, data: bytes) -> None:
        """Give bytes that were read to h11; b"" is the end."""
        self.heard = True
        self.ended = not data
        self.machine.receive_data(data)

    async def read(self) -> None:
        """Read once."""
        self.take(await self.stream.receive(self.read_size))

    async def head(self) -> h11.Request | None:
        """The next request's head; None when the client ends instead.

        Raises HeadTooLarge, BadHead, h11.RemoteProtocolError.
        """
        data = self.machine.trailing_data[0]
        if data[:1] == b"\r":
            data = await self._skip_empty_line(data)
        size, lines = len(data), HeadLines()
        lines.feed(data)
        while lines.number <= _MOST_LINES and (event := self.machine.next_event()) is h11.NEED_DATA:
            if size > self._limit:
                raise HeadTooLarge(f"a head may have at most {self._limit} bytes")
            data = await self.stream.receive(self.read_size)
            self.take(data)
            if not size and data[:1] == b"\r":
                data = await self._skip_empty_line(data)
            size += len(data)
            lines.feed(data)
        if lines.number > _MOST_LINES:
            raise HeadTooLarge(f"a head may have at most {_MOST_LINES} lines")
        if size > self._limit and size - self.buffered() > self._limit:
            raise HeadTooLarge(f"a head may have at most {self._limit} bytes")
        if not isinstance(event, h11.Request):
            return None
        if lines.is_bare:
            raise BadHead("a line of the head ends in LF alone: it must end in CRLF")
        return event

    async def _skip_empty_line(self, data: bytes) -> bytes:
        """`data`, all that was read of the next head, without a CRLF in front; more is read to know the LF."""
        while data == b"\r" and not self.ended:
            more = await self.stream.receive(self.read_size)
            self.take(more)
            data += more
        if data[:2] != b"\r\n":
            return data
        # h11 takes the line for an empty request; the next machine does not see it.
        self.machine = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limit)
        if len(data) > 2:
            self.machine.receive_data(data[2:])
        elif not self.ended:
            # Nothing of the next request was read: the connection is still idle.
            self.heard = False
        if self.ended:
            self.machine.receive_data(b"")
        return data[2:]

    def buffered(self) -> int:
        """How many bytes were read that h11 has not used yet."""
        return len(self.machine.trailing_data[0])

    def has_next(self) -> bool:
        """Whether something of a next request was read, beyond the empty line that some clients send behind a body."""
        return self.machine.trailing_data[0] not in (b"", b"\r", b"\r\n")

    async def body_event(self) -> Any:
        """The next event of the request's body."""
        self._events += 1
        if not self._events % EVENTS_IN_A_ROW:
            await trio.lowlevel.checkpoint()
        while (event := self.machine.next_event()) is h11.NEED_DATA:
            await self.read()
        return event
