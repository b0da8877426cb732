"""WebSocket frames in (RFC 6455), on the Sans-I/O core of `websockets`; outbox.py has those that go out.

- Reading never stops because of writing.
- No task, scope or clock per message: the watcher looks at `heard` and at the stream's `stalled_since`.
- All whole frames of one read are answered one after the other, their answers leave in one write; after `TURN_SECONDS`
  other tasks get their turn. A long message is read in steps, with such turns in between.
- A text frame that arrives whole, by far the most common, is unmasked here; everything else (fragments, control frames,
  half frames, errors) is the core's. Both ways end in `_message`.
- The core buffers a frame up to the limit after authentication; the limit before it is kept here, because the core
  takes its limit only when it is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Final

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - builds without a C compiler
    from websockets.utils import apply_mask

from edged.config.model import LimitSettings
from edged.net.handlers import report_incident
from edged.net.outbox import Hold, WebSocketOutbox
from edged.net.pools import Member
from edged.net.stream import READ_SIZE, Stream
from edged.wire.ports import TURN_SECONDS, Spawn, TextSession

if TYPE_CHECKING:
    from edged.metrics import Metrics

#: How long a client has to answer our close.
CLOSE_SECONDS: Final = 5.0
#: The first byte of a text frame that is a whole message.
_WHOLE_TEXT: Final = 0x81
#: The longest head of a frame: of its last, masked and largest kind.
_HEAD_BYTES: Final = 14

# The core logs frames and headers at DEBUG, credentials included.
_silent = logging.getLogger("edged.net.websocket.core")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


class WebSocket:
    """Reads frames and gives whole messages to its session, which is made with the outbox and set before `run`."""

    __slots__ = (
        "_closing_at", "_counts", "_half_since", "_head", "_heard_at", "_hold", "_is_clean", "_is_over", "_largest",
        "_limits", "_member", "_missing", "_parts", "_pinged_at", "_protocol", "_small", "_steps", "_stream", "heard",
        "outbox", "session",
    )  # fmt: skip

    session: TextSession

    def __init__(
        self,
        stream: Stream,
        limits: LimitSettings,
        counts: Metrics,
        spawn: Spawn,
        now: float,
        *,
        identify: Callable[[str], bool],
        hold: Hold,
        member: Member,
    ) -> None:
        self._stream = stream
        self._member = member
        self._limits = limits
        self._counts = counts
        self._protocol = ServerProtocol(state=State.OPEN, max_size=limits.message_bytes, logger=_silent)
        self.outbox = WebSocketOutbox(stream, self._protocol, limits, counts, spawn, identify, hold, member)
        self._hold = hold
        self._parts: bytearray | None = None
        self._steps: Iterator[None] | None = None  # what is left to do of a long message
        self._is_clean = True  # the core holds no half frame and no half message
        #: Since when half a message is there, monotonic; None while the core holds nothing. Set by the watcher.
        self._half_since: float | None = None
        self._head = b""  # the beginning of a frame whose length is not known yet
        self._missing = 0  # bytes of the core's frame that have not been read
        self._is_over = False
        self._small = limits.message_bytes_unauthenticated
        self._largest = limits.message_bytes
        self.heard = True
        self._heard_at = self._pinged_at = now
        self._closing_at: float | None = None

    async def run(self, data: bytes) -> None:
        """Read until either side ends; `data` is what was read behind the handshake."""
        self.outbox.corked = False
        self.outbox.flush()
        receive, take, member = self._stream.receive, self._take, self._member
        try:
            if data:
                await self._take_rest(data, 0)
            while not self._is_over and not member.is_hurried:
                data = await receive(READ_SIZE)
                self.heard = True
                if not data:
                    return
                if self._head:
                    data, self._head = self._head + data, b""
                if member.share.is_used_up:
                    await member.share.wait()
                began = perf_counter()
                at = take(data, 0, began)
                member.share.spend(perf_counter() - began)
                if at < len(data) or self._steps is not None:
                    await member.share.wait()
                    await self._take_rest(data, at)
            self._forget()
            if member.is_hurried:
                return
            await self.outbox.wait_sent()
            if self._protocol.close_rcvd is None:
                await self._stream.linger()
        finally:
            self.outbox.closed = True
            self._forget()
            self._protocol.parser.close()  # a generator that holds the core, which holds the generator

    def _forget(self) -> None:
        """Drop what is not whole: its memory need not wait for the garbage collector."""
        self._protocol.reader.buffer.clear()
        self._parts, self._head, self._steps = None, b"", None

    def _take(self, data: bytes, at: int, began: float) -> int:
        """Answer the frames of a read from `at` on, until its end or the end of the turn that has begun at `began`
        (`perf_counter`); the answers leave in one write. Returns where the next frame begins."""
        outbox, size = self.outbox, len(data)
        outbox.corked = True
        try:
            while True:
                # A text frame that is whole, masked and shorter than 65,536 bytes needs no parser (RFC 6455 5.2).
                end = 0
                if data[at] == _WHOLE_TEXT and self._is_clean and size - at >= 8:
                    length = data[at + 1]
                    if 128 <= length < 254:
                        start = at + 6
                        end = start + length - 128
                    elif length == 254:
                        start = at + 8
                        end = start + (data[at + 2] << 8 | data[at + 3])
                if 0 < end <= size and end - start <= self._largest:
                    self._message(apply_mask(data[start:end], data[start - 4 : start]))
                    at = end
                else:
                    at = self._take_frame(data, at)
                if at == size or self._is_over or self._steps is not None or perf_counter() - began > TURN_SECONDS:
                    return at
        finally:
            outbox.corked = False
            outbox.flush()

    async def _take_rest(self, data: bytes, at: int) -> None:
        """Answer what is left of a read, turn by turn."""
        while (at < len(data) or self._steps is not None) and not self._is_over and not self._stream.closed:
            began = perf_counter()
            if self._steps is None:
                at = self._take(data, at, began)
            else:
                self._take_step(self._steps)
            share = self._member.share  # that of the credential, once there is one
            share.spend_since(began)
            if at < len(data) or self._steps is not None:
                await share.wait()

    def _take_step(self, steps: Iterator[None]) -> None:
        """The next step of a long message."""
        try:
            next(steps)
        except StopIteration:
            self._steps = None
        except Exception as problem:
            self._steps = None
            self._fail(problem)
        if self._steps is None:
            self._hold("in", 0)

    def _take_frame(self, data: bytes, at: int) -> int:
        """Give the frame, or the part of one, that begins at `at` to the core; returns where the next one begins."""
        if self._missing:
            end = min(at + self._missing, len(data))
            self._missing -= end - at
            self._take_by_core(data[at:end])
            return end
        found = find_frame(data, at)
        if found is None:
            self._head, self._is_clean = data[at:], False
            return len(data)
        end = found[1]
        self._missing = max(end - len(data), 0)
        self._take_by_core(data[at:end])
        return min(end, len(data))

    def _take_by_core(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for frame in protocol.events_received():
            if self.outbox.closed:
                break
            if isinstance(frame, Frame):
                self._frame(frame)
        if self.outbox.put_core_frames():
            self._is_over = True
            self.outbox.closed = True
        waiting = len(protocol.reader.buffer)
        is_whole = not waiting and not self._missing and self._parts is None
        self._is_clean = is_whole and protocol.state is State.OPEN
        held = waiting + (len(self._parts) if self._parts is not None else 0)
        if self._steps is not None:
            pass  # the long message that has just come is counted until its last step
        elif not self._hold("in", held if held > READ_SIZE else 0) and not self._is_over:
            self.outbox.close(1013, "too much is being sent with this credential at a time")
        if self.outbox.closed and held > self._small + _HEAD_BYTES:
            # Our close frame is sent: what comes now is read and dropped.
            self._is_over = True
        if waiting > self._small + _HEAD_BYTES and not self._is_over and not self.session.authenticated:
            self._too_big()

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT and frame.fin:
            self._message(bytes(frame.data))
        elif opcode is Opcode.TEXT or (opcode is Opcode.CONT and self._parts is not None):
            if self._parts is None:
                self._parts = bytearray()
            self._parts += frame.data
            if len(self._parts) > self._small and not self.session.authenticated:
                self._too_big()
            elif frame.fin:
                whole, self._parts = bytes(self._parts), None
                self._message(whole)
        elif opcode is Opcode.BINARY:
            self.outbox.close(1003, "text only")

    def _message(self, text: bytes) -> None:
        self._half_since = None
        if self.outbox.closed:
            return
        if len(text) > self._small and not self.session.authenticated:
            self._too_big()
            return
        try:
            if not text.isascii():
                text.decode()
        except UnicodeDecodeError:
            self.outbox.close(1007, "text must be UTF-8")
            return
        try:
            self._steps = self.session.receive(text)
        except Exception as problem:
            self._fail(problem)

    def _fail(self, problem: Exception) -> None:
        """A defect ends this connection alone."""
        self.outbox.close(1011, f"incident {report_incident('session_failed', problem)}")

    def _too_big(self) -> None:
        self.outbox.close(1009, f"at most {self._small} bytes before authentication")

    def _is_too_slow(self, now: float) -> bool:
        """Whether an unauthenticated client has sent half a message for too long, however steadily the rest comes."""
        if self._is_clean or self.session.authenticated:
            self._half_since = None
        elif self._half_since is None:
            self._half_since = now
        return self._half_since is not None and now - self._half_since > self._limits.head_seconds

    # -- the watcher ------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Send a ping if one is due; end a connection that stalls or is silent. Called about once a second."""
        stalled = self._stream.stalled_since
        if self.heard:
            self.heard, self._heard_at = False, now
        if stalled is not None and now - stalled > self._limits.stall_seconds:
            if not self.outbox.closed:
                self._counts.outbox_dropped()
            self._stream.abort()
        elif self.outbox.closed:
            self._closing_at = now if self._closing_at is None else self._closing_at
            is_late = self._member.is_hurried or now - self._closing_at > CLOSE_SECONDS
            if is_late and not self.outbox.is_blocked:
                self._stream.close()
        elif self._is_too_slow(now):
            self.outbox.close(1008, "the message took too long")
        elif now - self._heard_at > self._limits.silence_seconds:
            self.outbox.close(1001, "silent for too long")
            self._stream.close()
        elif now - self._pinged_at > self._limits.ping_seconds:
            self._pinged_at = now
            if not self.outbox.is_blocked:
                self._protocol.send_ping(b"")
                self.outbox.put_core_frames()


def find_frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and where the frame ends, which may be beyond `data`; None until
    its length is known (RFC 6455 5.2)."""
    if at + 2 > len(data):
        return None
    length, start = data[at + 1] & 0x7F, at + 2
    if length > 125:
        size = 2 if length == 126 else 8
        if start + size > len(data):
            return None
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    if data[at + 1] & 0x80:
        start += 4
    return start, start + length
