"""The connection of an ffmpeg that publishes to MediaMTX, through edged.

Every local user can read an argument list, and ffmpeg takes the address to publish to only from there. So that address
holds no password: it is a listener of edged, made for this one ffmpeg. Only this ffmpeg, or a process of its group, is
accepted, by what the kernel says of the connection (edged.sockets). The password is added to its ANNOUNCE (RFC 2326,
10.3), and everything after that is passed on unchanged.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import structlog
import trio

from edged import sockets
from edged.config.addresses import parse_address
from edged.descriptors import is_exhausted
from edged.mediamtx.addresses import connect

#: Bytes of one request's head that are taken from ffmpeg; its own have some 150.
_HEAD_BYTES: Final = 16 * 1024
#: Bytes handed on at a time.
_PIECE_BYTES: Final = 64 * 1024
#: Bytes from ffmpeg after its ANNOUNCE of which some are media: its requests have some 500.
_MEDIA_BYTES: Final = 4096
#: Connections of others that may wait.
_BACKLOG: Final = 16
#: Seconds until we look for a free descriptor again.
_PAUSE_SECONDS: Final = 0.1
_log = structlog.get_logger("publisher")


class Authorizer:
    """A publisher's bytes → the same with a password in its first ANNOUNCE. Feed it bytes; it does no I/O."""

    def __init__(self, user: str, password: str) -> None:
        credentials = base64.b64encode(f"{user}:{password}".encode())
        self._header = b"Authorization: Basic " + credentials + b"\r\n"
        self._buffer = b""
        self._body_left = 0
        #: From here on nothing is looked at any more.
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """Bytes as they came → those to send on. Raises ValueError for what is no RTSP request."""
        if self.is_done:
            return data
        self._buffer += data
        sent = b""
        while not self.is_done:
            body, self._buffer = self._buffer[: self._body_left], self._buffer[self._body_left :]
            self._body_left -= len(body)
            sent += body
            end = self._buffer.find(b"\r\n\r\n", 0, _HEAD_BYTES)
            if self._body_left or end < 0:
                break
            head, self._buffer = self._buffer[: end + 2], self._buffer[end + 2 :]
            self.is_done = head.startswith(b"ANNOUNCE ")
            self._body_left = 2 + _content_length(head)  # the empty line belongs to it
            sent += head + (self._header if self.is_done else b"")
        if self.is_done:
            sent, self._buffer = sent + self._buffer, b""
        elif len(self._buffer) >= _HEAD_BYTES:
            raise ValueError("the head of a request does not end")
        return sent


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            text = value.strip()
            if not text.isdigit() or len(text) > 9:
                raise ValueError("a request without a usable length")
            return int(text)
    return 0


class Relay:
    """Waits for one child on a port of its own, and hands its stream on to MediaMTX at `target` (`127.0.0.1:8554`).

    `address` is where the child publishes to; `problem` says why it ended, where that was no fault of the child.
    `published()` hears that the child sends media, `intruded(uid)` of each connection of somebody else (None: the
    kernel did not say whose), `unreachable()` that MediaMTX did not take ours.
    """

    def __init__(
        self,
        listener: trio.SocketListener,
        target: str,
        authorizer: Authorizer,
        *,
        published: Callable[[], None],
        intruded: Callable[[int | None], None],
        unreachable: Callable[[], None],
    ) -> None:
        self._published = published
        self._listener = listener
        self._target = target
        self._authorizer = authorizer
        self._intruded = intruded
        self._unreachable = unreachable
        self.address = "{}:{}".format(*listener.socket.getsockname())
        self.problem = ""

    @asynccontextmanager
    async def serving(self, group: int) -> AsyncIterator[None]:
        """The child that leads this process group is served while the block runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run, group)
            yield
            nursery.cancel_scope.cancel()

    async def run(self, group: int) -> None:
        """Serve the child that leads this process group, until its stream ends at either side. Never raises OSError."""
        try:
            async with await self._await_child(group) as child:
                try:
                    server = await connect(*parse_address(self._target))
                except OSError as error:
                    why = os.strerror(error.errno) if error.errno else str(error)
                    self.problem = f"MediaMTX's RTSP listener {self._target} could not be reached: {why}"
                    self._unreachable()
                    return
                async with server:
                    await self._hand_on(child, server)
        except (OSError, trio.BrokenResourceError) as error:
            _log.debug("relay_ended", why=str(error))

    async def _await_child(self, group: int) -> trio.SocketStream:
        """The connection of the child, of which there is one; every other connection is closed."""
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as error:
                if not is_exhausted(error):
                    raise
                await trio.sleep(_PAUSE_SECONDS)
                continue
            owner = _owner_of(stream.socket)
            # The user id is checked first: another user must not cause a search through all processes.
            if owner is not None and owner.uid == os.getuid() and sockets.holds(group, owner.inode):
                await self._listener.aclose()
                return stream
            self._intruded(None if owner is None else owner.uid)
            await trio.aclose_forcefully(stream)

    async def _hand_on(self, child: trio.SocketStream, server: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_copy, server, child, end=nursery.cancel_scope))
            try:
                while not self._authorizer.is_done and (data := await child.receive_some(_PIECE_BYTES)):
                    await server.send_all(self._authorizer.feed(data))
            except (OSError, trio.BrokenResourceError, ValueError) as error:
                _log.debug("relay_ended", why=str(error))
            else:
                await _copy(child, server, published=self._published)
            nursery.cancel_scope.cancel()


async def _copy(
    source: trio.SocketStream,
    sink: trio.SocketStream,
    *,
    published: Callable[[], None] | None = None,
    end: trio.CancelScope | None = None,
) -> None:
    """Hand bytes on until either side ends; then cancel `end`. `published()` hears once that there is media in them."""
    buffer = memoryview(bytearray(_PIECE_BYTES))
    left = _MEDIA_BYTES
    try:
        while published and left > 0 and (size := await source.socket.recv_into(buffer)):
            await sink.send_all(buffer[:size])
            left -= size
            if left <= 0:
                published()
        while size := await source.socket.recv_into(buffer):
            await sink.send_all(buffer[:size])
    except (OSError, trio.BrokenResourceError) as error:
        _log.debug("relay_ended", why=str(error))
    if end is not None:
        end.cancel()


def _owner_of(sock: trio.socket.SocketType) -> sockets.Owner | None:
    try:
        return sockets.find_owner(sock.family, sock.getpeername(), sock.getsockname())
    except OSError:
        return None  # it has gone already


@contextmanager
def open_relay(
    target: str,
    authorizer: Authorizer,
    *,
    published: Callable[[], None] = lambda: None,
    intruded: Callable[[int | None], None],
    unreachable: Callable[[], None],
) -> Iterator[Relay]:
    """A relay that listens from here on, until its child has come or the block ends. Raises OSError."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    sock.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    try:
        yield Relay(listener, target, authorizer, published=published, intruded=intruded, unreachable=unreachable)
    finally:
        listener.socket.close()
