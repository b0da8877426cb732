"""A real server on loopback with a session that echoes, and raw clients for the tests of net."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio
from msgspec.structs import replace
from patience import fail_after
from trio_websocket import WebSocketConnection, wrap_client_stream

from edged.config.model import LimitSettings
from edged.credentials.callers import Peer
from edged.metrics import Metrics
from edged.net.handlers import Handlers, Restriction
from edged.net.listeners import Listener, open_tcp
from edged.net.server import Server, serve

LIMITS = LimitSettings()


class EchoSession:
    """Sends back what it gets; a few words make it do something else."""

    def __init__(
        self, served: Served, peer: Peer, headers: Any, subprotocol: str | None, outbox: Any, spawn: Any
    ) -> None:
        self.served, self.peer, self.headers, self.subprotocol = served, peer, headers, subprotocol
        self.outbox, self.spawn = outbox, spawn
        self.authenticated = False
        self.is_closed = False
        self.received: list[bytes] = []

    def receive(self, text: bytes) -> None:
        self.received.append(text)
        if text == b"login":
            self.authenticated = True
            if self.outbox.identify("api_key:somebody"):
                self.outbox.send(b"welcome")
            else:
                self.outbox.close(1013, "too many connections with this credential")
        elif text == b"crash":
            raise ValueError("the session broke")
        elif text == b"task crash":
            self.spawn(self._crash)
        elif text == b"later":
            self.spawn(self._later)
        elif text == b"bye":
            self.outbox.send(b"last")
            self.outbox.close(4401, "revoked")
            self.outbox.send(b"never")
        elif text.startswith(b"give "):
            self.outbox.send(b"x" * int(text[5:]))
        else:
            self.outbox.send(text)

    async def _crash(self) -> None:
        raise ValueError("the task broke")

    async def _later(self) -> None:
        await trio.sleep(self.served.later)
        self.outbox.send(b"done")

    def closed(self) -> None:
        self.is_closed = True


@dataclass
class Served:
    """A running server and what the tests look at."""

    sessions: list[EchoSession] = field(default_factory=list)
    server: Server = field(init=False, repr=False)
    listeners: list[Listener] = field(default_factory=list)
    scopes: list[dict[str, Any]] = field(default_factory=list)
    counts: list[Any] = field(default_factory=list)
    drops: int = 0
    refused: int = 0
    later: float = 0.05
    nursery: trio.Nursery | None = None
    stop: Callable[[], None] = lambda: None

    @property
    def port(self) -> int:
        return self.listeners[0].port

    def open_session(self, *given: Any) -> EchoSession:
        if given[1].get("x-refuse"):
            raise ValueError("no session today")
        self.sessions.append(EchoSession(self, *given))
        return self.sessions[-1]

    def connections_changed(self, number: int) -> None:
        self.counts.append(number)

    def outbox_dropped(self) -> None:
        self.drops += 1

    def peer_refused(self) -> None:
        self.refused += 1


async def serve_unrestricted(
    listeners: list[Listener], handlers: Handlers, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """`serve` with the default limits; every listener takes everybody, and no proxy is trusted."""
    await serve(
        listeners, handlers, LIMITS, counts=Metrics({}), restrictions={}, is_proxy=lambda _address: False,
        task_status=task_status,
    )  # fmt: skip


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body or b"hello"})


@asynccontextmanager
async def running(
    app: Any = plain_app,
    listeners: Any = None,
    admits: Mapping[str, Callable[[str], bool]] | None = None,
    is_proxy: Callable[[str], bool] = lambda _address: False,
    **limits: Any,
) -> AsyncIterator[Served]:
    """A server on 127.0.0.1:0, stopped at the end; nobody's descriptors are left behind.

    `admits`: by the name of a listener, whose addresses it takes.
    """
    before = count_descriptors()
    served = Served()

    async def note(scope: Any, receive: Any, send: Any) -> None:
        served.scopes.append(scope)
        await app(scope, receive, send)

    served.listeners = listeners or [open_tcp("main", "127.0.0.1:0")]
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            served.nursery = nursery
            served.stop = nursery.cancel_scope.cancel

            async def start(task_status: Any) -> None:
                handlers = Handlers(note, served.open_session)
                await serve(
                    served.listeners,
                    handlers,
                    replace(LIMITS, **limits),
                    counts=cast("Metrics", served),
                    restrictions={name: Restriction(handlers, admit) for name, admit in (admits or {}).items()},
                    is_proxy=is_proxy,
                    task_status=task_status,
                )

            served.server = await nursery.start(start)
            yield served
            nursery.cancel_scope.cancel()
    assert count_descriptors() <= before, "a descriptor was left open"
    assert all(each.is_closed for each in served.sessions), "a session was not told that it is over"


def count_descriptors() -> int:
    """Sockets that this process has open (trio keeps a few other descriptors of its own)."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += each.readlink().name.startswith("socket:")
        except OSError:
            continue
    return found


async def connect(port: int, receive_buffer: int = 0) -> trio.SocketStream:
    """A raw TCP connection; with `receive_buffer` its kernel takes little before it is read."""
    sock = trio.socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Until the other side ends; a reset counts as the end."""
    data = b""
    try:
        while chunk := await stream.receive_some(65536):
            data += chunk
    except trio.BrokenResourceError:
        pass
    return data


async def read_reply(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """One reply with Content-Length: its head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some(65536)
        assert chunk, data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += await stream.receive_some(65536)
    return head, body[:length]


async def ask(port: int, data: bytes) -> bytes:
    """Send bytes on a new connection and read until the server ends it."""
    async with await connect(port) as stream:
        await stream.send_all(data)
        return await read_all(stream)


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def open_raw(port: int, receive_buffer: int = 0) -> trio.SocketStream:
    """A WebSocket by hand: the handshake is done, frames are the test's business."""
    stream = await connect(port, receive_buffer)
    await stream.send_all(UPGRADE)
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += await stream.receive_some(1)
    assert data.startswith(b"HTTP/1.1 101 "), data
    return stream


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask = b"\x01\x02\x03\x04" if masked else b""
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    if masked:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


def frames_in(data: bytes) -> list[tuple[int, bytes]]:
    """A server's bytes → (opcode, payload) of each whole frame."""
    found = []
    while len(data) >= 2:
        length, at = data[1], 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < at + length:
            break
        found.append((data[0] & 15, data[at : at + length]))
        data = data[at + length :]
    return found


def close_code(data: bytes) -> int | None:
    """The code of the close frame in a server's bytes."""
    return next((int.from_bytes(payload[:2], "big") for opcode, payload in frames_in(data) if opcode == 8), None)


async def until(is_so: Callable[[], Any], seconds: float = 5) -> None:
    """Wait for something that happens elsewhere."""
    with fail_after(seconds):
        while not is_so():
            await trio.sleep(0.005)


@asynccontextmanager
async def opened(
    served: Served, path: str = "/ws", subprotocols: Any = None, max_message_size: int = 2**20
) -> AsyncIterator[WebSocketConnection]:
    """A trio-websocket client on a stream that is closed here, also where the library forgets it."""
    async with await connect(served.port) as stream, trio.open_nursery() as nursery:
        client = await wrap_client_stream(
            nursery,
            stream,
            f"127.0.0.1:{served.port}",
            path,
            subprotocols=subprotocols,
            max_message_size=max_message_size,
        )
        async with client:
            yield client
        nursery.cancel_scope.cancel()


GET_X = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
