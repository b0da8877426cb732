"""The authentication hook that MediaMTX calls: loopback, a port that the kernel picks, one path.

MediaMTX opens a connection for every request and sends the request at once. A request that has arrived by the time its
connection is accepted is answered in the accepting task; a slower one gets a task. Each reply ends its connection. Any
program on this machine can connect here and send nothing: such connections have a deadline, and above a number of them
the oldest is closed, so that they cannot keep a request of MediaMTX out. h11 parses; the replies, which have only four
shapes, are written here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from http import HTTPStatus

import h11
import structlog
import trio

from edged.errors import StartFailed
from edged.net.handlers import report_incident
from edged.net.head_lines import HeadLines
from edged.net.stream import Stream
from edged.repeats import Repeats

_log = structlog.get_logger("hook")


def _log_failure(error: str, times: int, *, others: bool) -> None:  # noqa: ARG001 - the signature of Repeats
    _log.error("accept_failed", error=error, times=times)


Answer = Callable[[bytes], tuple[int, bytes]]

_HEAD_BYTES = 16384
_HEAD_LINES = 64
_BODY_BYTES = 65536
#: Connections that wait for bytes at a time; seconds that one may be silent, and for a whole request.
_MOST_WAITING = 64
_SILENT_SECONDS = 2.0
_SECONDS = 5.0
_ACCEPTS_IN_A_ROW = 32
_PAUSE_SECONDS = 0.05


class HookExchange:
    """One request of MediaMTX as its bytes arrive; `take` returns the reply as soon as there is one."""

    __slots__ = ("_answer", "_body", "_lines", "_machine", "_path", "_size", "has_begun", "is_whole", "reply")

    def __init__(self, answer: Answer, path: bytes) -> None:
        self._answer = answer
        self._path = path
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._lines = HeadLines()
        self._body: list[bytes] | None = None
        self._size = 0
        #: Whether any of the request was read, and the whole; the reply once there is one.
        self.has_begun = False
        self.is_whole = False
        self.reply: bytes | None = None

    def take(self, data: bytes) -> bytes | None:
        """Bytes that arrived (b"": the end) → the whole reply, b"" if the client has left, None if more is needed."""
        self.has_begun = True
        self.reply = self._take(data)
        return self.reply

    def _take(self, data: bytes) -> bytes | None:
        machine, lines = self._machine, self._lines
        lines.feed(data)
        if lines.number > _HEAD_LINES or lines.is_bare:
            # MediaMTX does not send that, and h11 would take long over it.
            return reply(431 if lines.number > _HEAD_LINES else 400)
        try:
            machine.receive_data(data)
            while True:
                event = machine.next_event()
                if isinstance(event, h11.Request):
                    refusal = self._refuse(event)
                    if refusal:
                        return refusal
                    self._body = []
                    if machine.they_are_waiting_for_100_continue:
                        return reply(417)
                elif isinstance(event, h11.Data):
                    self._size += len(event.data)
                    if self._size > _BODY_BYTES:
                        return reply(413)
                    assert self._body is not None
                    self._body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    assert self._body is not None
                    self.is_whole = True
                    return reply(*self._answer(self._body[0] if len(self._body) == 1 else b"".join(self._body)))
                elif event is h11.NEED_DATA:
                    return None
                else:
                    return b""
        except h11.RemoteProtocolError as problem:
            return reply(problem.error_status_hint) if data else b""
        except Exception as problem:  # a defect in `answer`; MediaMTX takes every status but 2xx for a refusal
            report_incident("hook_failed", problem)
            return reply(500)

    def _refuse(self, request: h11.Request) -> bytes | None:
        if request.target != self._path:
            return reply(404)
        return None if request.method == b"POST" else reply(405)


def reply(status: int, body: bytes = b"") -> bytes:
    """A whole HTTP reply that ends its connection."""
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (_head(status), len(body), body) if status != 204 else _NO_CONTENT


def _head(status: int) -> bytes:
    found = _HEADS.get(status)
    if found is None:
        found = b"HTTP/1.1 %d \r\nConnection: close\r\nContent-Type: text/plain" % status
    return found


_HEADS = {
    each.value: b"HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/plain" % (each.value, each.phrase.encode())
    for each in HTTPStatus
}
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


async def serve_hook(
    answer: Answer, *, path: str, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer POSTs to `path` on 127.0.0.1 until cancelled; reports its port.

    `answer` gets the body and returns a status and a short body; it must not wait. Raises StartFailed.
    """
    try:
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    except OSError as problem:
        hint = "the loopback interface must be up"
        raise StartFailed(f"cannot listen on 127.0.0.1: {problem}", hint=hint) from problem
    with listening:
        listening.setblocking(False)
        async with trio.open_nursery() as nursery:
            task_status.started(listening.getsockname()[1])
            await _accept(listening, answer, path.encode(), nursery)


async def _accept(listening: socket.socket, answer: Answer, path: bytes, nursery: trio.Nursery) -> None:
    waiting: dict[Stream, None] = {}  # the oldest first
    failures = Repeats(_log_failure)
    nursery.start_soon(failures.run)
    while True:
        await trio.lowlevel.wait_readable(listening)
        for _ in range(_ACCEPTS_IN_A_ROW):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                break
            except OSError as problem:
                failures.note("accept", trio.current_time(), str(problem))
                await trio.sleep(_PAUSE_SECONDS)
                break
            sock.setblocking(False)
            exchange = HookExchange(answer, path)
            if not _answer_now(sock, exchange):
                if len(waiting) >= _MOST_WAITING:
                    # MediaMTX writes as soon as it is connected: the connection that has waited longest is another's.
                    next(iter(waiting)).close()
                    del waiting[next(iter(waiting))]
                stream = Stream(sock)
                waiting[stream] = None
                nursery.start_soon(_wait_and_answer, stream, exchange, waiting)


def _answer_now(sock: socket.socket, exchange: HookExchange) -> bool:
    """Answer what has arrived already; False if the request is not whole yet or was refused before its end."""
    try:
        data = sock.recv(65536)
        found = exchange.take(data)
        if found is None or (found and not exchange.is_whole):
            return False
        if sock.send(found) == len(found):
            sock.close()
            return True
    except BlockingIOError:
        return False
    except OSError:
        pass
    sock.close()
    return True


async def _wait_and_answer(stream: Stream, exchange: HookExchange, waiting: dict[Stream, None]) -> None:
    try:
        with trio.move_on_after(_SECONDS):
            if not exchange.has_begun:
                with trio.move_on_after(_SILENT_SECONDS) as silence:
                    await stream.wait_readable()
                if silence.cancelled_caught:
                    return
            while exchange.reply is None:
                exchange.take(await stream.receive())
            if exchange.is_whole:
                await stream.send_all(exchange.reply)
            elif exchange.reply:
                await stream.linger(exchange.reply)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        waiting.pop(stream, None)
        stream.close()
