"""WebSocket (RFC 6455) on the Sans-I/O core of `websockets`; the only file that knows that library.

Rules:
- Replies to one read leave in one write. Nothing here waits for a client to read: what the kernel does not take
  is kept, 256 messages or 1 MiB of it, then the client is given up with 1013 (contract 10.3, 10.22).
- Reading never stops because of writing.
- No task, scope or clock per message: a watcher looks at `heard` and at `stalled_since`.
- Text of one frame that arrives whole, by far the most common read, is unmasked here; everything else
  (fragments, control frames, half frames, errors) is the core's. Both ways end in `_message`.
- A read of many frames gives way to other tasks after `TURN_SECONDS`; one frame a read pays nothing for that.
- The core buffers a frame up to the limit after authentication; before it, the limit is kept here, because
  the core takes its limit only when it is made.
"""

from __future__ import annotations

import base64
import binascii
import logging
import struct
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Literal, TypeAlias

import trio
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - builds without a C compiler
    from websockets.utils import apply_mask

from edged.net.doors import WEBSOCKET_PATHS, Counts, Limits, Spawn, WebSocketSession, report_incident
from edged.net.shares import Payer
from edged.net.stream import READ_SIZE, TURN_SECONDS, Stream

#: Subprotocols that we speak; the client's first of these is chosen.
SUBPROTOCOLS = ("jsonrpc-2.0", "camera-v1")
#: How long a client has to answer our close.
CLOSE_SECONDS = 5.0

#: Counts bytes that wait for one connection: ("in" or "out", how many) → whether so many may.
Hold: TypeAlias = Callable[[Literal["in", "out"], int], bool]

_SHORT = tuple(struct.pack("!BB", 0x81, length) for length in range(126))
_WHOLE_TEXT = 0x81
_FLUSH_AT = 65536

# The core logs frames and headers at DEBUG, credentials included.
_silent = logging.getLogger("edged.net.websocket.core")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


class Outbox:
    """The way out of one WebSocket. `send` and `close` never wait and never raise.

    `corked` is set while a read is being answered; `done` is set when the last byte is out or nothing more can be.
    """

    __slots__ = ("_blocked", "_counts", "_limits", "_payer", "_protocol", "_queue", "_rest", "_size", "_spawn",
                 "_stream", "closed", "corked", "done", "hold", "identify")  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        protocol: ServerProtocol,
        limits: Limits,
        counts: Counts,
        spawn: Spawn,
        identify: Callable[[str], bool],
        hold: Hold,
        payer: Payer,
    ) -> None:
        """`identify(account)` counts the connection among that credential's; False if there are too many.
        `hold(what, size)` counts bytes that wait, "in" or "out"; False if those are too many."""
        self.identify = identify
        self.hold = hold
        self._payer = payer
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
        """Whether the client reads too slowly for the kernel at present."""
        return self._blocked

    def spend_since(self, began: float) -> None:
        """Charge the time since then (`perf_counter`) to the client."""
        self._payer.share.spend_since(began)

    async def wait_turn(self) -> None:
        """Give way until something is left of the client's share of the event loop."""
        await self._payer.share.wait()

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
        """One whole frame as it goes on the wire."""
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
        """Queue what the core wants to send; True if it wants to end the stream after it."""
        ended = False
        for frame in self._protocol.data_to_send():
            if frame:
                self.put(frame)
            else:
                ended = True
        return ended

    def flush(self) -> None:
        """Hand the queue to the kernel; what it does not take waits for a task of its own."""
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
        """Nothing more goes out: the reading task is woken and ends."""
        self.closed = True
        self._queue.clear()
        self._size = 0
        self.done.set()
        self._stream.close()

    def _uncork_if_idle(self) -> None:
        if not self.corked:
            self.flush()

    def _overflow(self) -> None:
        """Too far behind: what is not on its way is dropped, the client is told 1013 if it ever reads again."""
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
        """Until everything queued is with the kernel, or never can be."""
        self.flush()
        while self._blocked and not self._stream.closed:
            await self.done.wait()


class WebSocket:
    """Reads frames and gives whole messages to its session. `session` is set before `run`."""

    session: WebSocketSession

    def __init__(
        self,
        stream: Stream,
        limits: Limits,
        counts: Counts,
        spawn: Spawn,
        now: float,
        *,
        identify: Callable[[str], bool],
        hold: Hold,
        payer: Payer,
    ) -> None:
        self._stream = stream
        self._payer = payer
        self._limits = limits
        self._counts = counts
        self._protocol = ServerProtocol(state=State.OPEN, max_size=limits.message_bytes, logger=_silent)
        self.outbox = Outbox(stream, self._protocol, limits, counts, spawn, identify, hold, payer)
        self._hold = hold
        self._parts: bytearray | None = None
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
        """From the handshake's last byte to the end; `data` is what came right behind the handshake."""
        self.outbox.corked = False
        self.outbox.flush()
        receive, take, payer = self._stream.receive, self._take, self._payer
        try:
            if data and not take(data):
                await self._take_many(data)
            while not self._is_over:
                data = await receive(READ_SIZE)
                self.heard = True
                if not data:
                    return
                if payer.share.is_used_up:
                    await payer.share.wait()
                began = perf_counter()
                if take(data):
                    payer.share.spend(perf_counter() - began)
                else:
                    await self._take_many(data)
            self._forget()
            await self.outbox.wait_sent()
            if self._protocol.close_rcvd is None:
                await self._stream.linger()
        finally:
            self.outbox.closed = True
            self._forget()

    def _forget(self) -> None:
        """What is not whole by now never will be: its memory is not to wait until the garbage is collected."""
        self._protocol.reader.buffer.clear()
        self._parts, self._head = None, b""

    def _take(self, data: bytes) -> bool:
        """Answer a read that is one whole text frame; False if it is anything else."""
        if not self._is_clean or data[0] != _WHOLE_TEXT or len(data) <= 6:
            return False
        # Masked, as a client's frame must be: no need of the core's parser.
        length = data[1]
        if 128 <= length < 254 and len(data) == length - 122:  # 128 + payload, and 6 bytes before it
            start = 6
        elif length == 254 and len(data) > 133 and len(data) == 8 + (data[2] << 8 | data[3]):
            start = 8
        else:
            return False
        if len(data) - start > self._largest:
            return False
        outbox = self.outbox
        outbox.corked = True
        try:
            self._message(apply_mask(data[start:], data[start - 4 : start]))
        finally:
            outbox.corked = False
            outbox.flush()
        return True

    async def _take_many(self, data: bytes) -> None:
        """Answer everything in one read, frame by frame; what is answered in one turn leaves in one write."""
        outbox, at = self.outbox, 0
        if self._head:
            data, self._head = self._head + data, b""
        while at < len(data) and not self._is_over and not self._stream.closed:
            began = perf_counter()
            outbox.corked = True
            try:
                while at < len(data) and not self._is_over:
                    at = self._take_frame(data, at)
                    if perf_counter() > began + TURN_SECONDS:
                        break
            finally:
                outbox.corked = False
                outbox.flush()
            self._payer.share.spend_since(began)
            if at < len(data):
                await self._payer.share.wait()

    def _take_frame(self, data: bytes, at: int) -> int:
        """Answer the frame, or the part of one, that begins at `at`; returns where the next one begins."""
        if self._missing:
            end = min(at + self._missing, len(data))
            self._missing -= end - at
            self._take_by_core(data[at:end])
            return end
        found = find_frame(data, at)
        if found is None:
            self._head, self._is_clean = data[at:], False
            return len(data)
        payload, end = found
        is_plain = self._is_clean and data[at] == _WHOLE_TEXT and data[at + 1] & 0x80
        if is_plain and end <= len(data) and end - payload <= self._largest:
            self._message(apply_mask(data[payload:end], data[payload - 4 : payload]))
            return end
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
        if not self._hold("in", held if held > READ_SIZE else 0) and not self._is_over:
            self.outbox.close(1013, "too much is being sent with this credential at a time")
        if self.outbox.closed and held > self._small + 14:
            # Our goodbye is said: what comes now is read, and kept no more.
            self._is_over = True
        if waiting > self._small + 14 and not self._is_over and not self.session.authenticated:
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
            self.session.receive(text)
        except Exception as problem:  # a session that breaks must not take the log or the neighbours with it
            incident = report_incident("session_failed", problem)
            self.outbox.close(1011, f"incident {incident}")

    def _too_big(self) -> None:
        self.outbox.close(1009, f"at most {self._small} bytes before authentication")

    def _is_dawdling(self, now: float) -> bool:
        """Whether a stranger has sent half a message for too long, however steadily the rest comes."""
        if self._is_clean or self.session.authenticated:
            self._half_since = None
        elif self._half_since is None:
            self._half_since = now
        return self._half_since is not None and now - self._half_since > self._limits.head_seconds

    # -- the watcher's looks ----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Ping, and end what stalls or is silent. Called about once a second."""
        stalled = self._stream.stalled_since
        if self.heard:
            self.heard, self._heard_at = False, now
        if stalled is not None and now - stalled > self._limits.stall_seconds:
            if not self.outbox.closed:
                self._counts.outbox_dropped()
            self._stream.abort()
        elif self.outbox.closed:
            self._closing_at = now if self._closing_at is None else self._closing_at
            if now - self._closing_at > CLOSE_SECONDS and not self.outbox.is_blocked:
                self._stream.close()
        elif self._is_dawdling(now):
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


def refuse_upgrade(
    headers: Mapping[str, str], method: bytes, path: str, paths: frozenset[str] = WEBSOCKET_PATHS
) -> tuple[int, str] | None:
    """Why an upgrade is refused: status and detail; None if it is answered 101 (RFC 6455 4.2.1).

    `paths` are those of this listener; one that opens no WebSocket at /ws says what it says of any other path.
    """
    if path not in paths:
        return 404, "a WebSocket opens at /ws" if "/ws" in paths else "there is nothing at this path"
    if method != b"GET":
        return 405, "a WebSocket is opened by GET"
    if "upgrade" not in {token.strip().lower() for token in headers.get("connection", "").split(",")}:
        return 400, "the Connection header must say Upgrade"
    if headers.get("sec-websocket-version") != "13":
        return 426, "Sec-WebSocket-Version must be 13"
    try:
        key = base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    return None if len(key) == 16 else (400, "Sec-WebSocket-Key must be 16 bytes in base64")


def choose_subprotocol(offered: str | None) -> str | None:
    """The first of the client's subprotocols that we speak."""
    return next((name for each in (offered or "").split(",") if (name := each.strip()) in SUBPROTOCOLS), None)


def upgrade_headers(key: str, subprotocol: str | None) -> list[tuple[bytes, bytes]]:
    """The headers of the 101."""
    found = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    found.append((b"sec-websocket-accept", accept_key(key).encode()))
    if subprotocol:
        found.append((b"sec-websocket-protocol", subprotocol.encode()))
    return found
