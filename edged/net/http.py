"""HTTP/1.1: h11's machine on a stream, and one exchange with an ASGI 3 app.

- The head is counted here, by our own limit: h11 looks at its limit only while a head is incomplete.
- A reply whose body is one piece leaves in one write.
- While the app runs, nobody reads unless the app asks: a client that leaves is noticed by the watcher, which asks
  the kernel and steals no byte, and at once when the app streams or waits for `http.disconnect`. Bytes
  of a pipelined request that are read meanwhile stay in h11's buffer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import h11
import msgspec
import trio

from edged.credentials.callers import Peer
from edged.net.doors import ASGIApp, Message, Scope, Spawn, report_incident
from edged.net.stream import READ_SIZE, Stream

Headers = list[tuple[bytes, bytes]]
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
#: Where h11's sentences begin to quote what was sent.
_PRINTED_BYTES = re.compile(r":? (?:bytearray\()?b['\"]")
_NO_BODY = (204, 304)
_SLUGS = {400: "bad_request", 403: "address_denied", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
          413: "too_large", 426: "upgrade_required", 429: "rate_limited", 431: "head_too_large", 500: "internal",
          501: "unsupported", 503: "overloaded"}  # fmt: skip
_WORDS = {400: "Bad request", 403: "Address denied", 404: "Not found", 405: "Method not allowed",
          408: "Request timeout", 413: "Request too large", 426: "Upgrade required", 429: "Too many connections",
          431: "Request head too large", 500: "Internal error", 501: "Not implemented",
          503: "Service unavailable"}  # fmt: skip


class ClientGone(OSError):
    """The client has left; starlette knows an OSError from `send` as just that."""


class HeadTooLarge(Exception):
    """The request's head is longer than the limit."""


def fault_body(status: int, detail: str) -> bytes:
    """The JSON body of a refusal (contract C-35)."""
    return msgspec.json.encode(
        {"error": _WORDS.get(status, "Error"), "detail": detail, "code": _SLUGS.get(status, "error")}
    )


def fault_bytes(status: int, detail: str, *extra: tuple[bytes, bytes]) -> bytes:
    """A whole refusal that ends its connection, for a peer whose request no machine may have understood."""
    body = fault_body(status, detail)
    lines = [b"HTTP/1.1 %d %s" % (status, _WORDS.get(status, "Error").encode()), b"Date: " + date_header()]
    lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close"]
    lines += [name + b": " + value for name, value in extra]
    return b"\r\n".join([*lines, b"", body])


def explain(problem: h11.RemoteProtocolError) -> str:
    """What is wrong with a request, without the client's own bytes as Python would print them."""
    return _PRINTED_BYTES.split(str(problem))[0]


def date_header() -> bytes:
    """The value of `Date`, made once a second."""
    return _date_of(int(time.time()))


@lru_cache(maxsize=1)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def host_of(value: bytes) -> str | None:
    """The host in a Host header, without its port; None if it is not one."""
    found = _HOST.fullmatch(value.decode("latin-1"))
    return found[1] if found else None


class Wire:
    """h11's machine on a stream. `heard` is set with each read; a watcher clears it."""

    __slots__ = ("_limit", "ended", "heard", "machine", "read_size", "stream")

    def __init__(self, stream: Stream, head_bytes: int) -> None:
        self.stream = stream
        self.machine = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes)
        self._limit = head_bytes
        #: Asked of the kernel at once: before authentication no more than is kept.
        self.read_size = min(head_bytes, READ_SIZE)
        self.heard = False
        self.ended = False

    def take(self, data: bytes) -> None:
        """Bytes that were read; b"" is the end."""
        self.heard = True
        self.ended = not data
        self.machine.receive_data(data)

    async def read(self) -> None:
        """Read once."""
        self.take(await self.stream.receive(self.read_size))

    async def head(self) -> h11.Request | None:
        """The next request's head; None when the client ends instead.

        Raises HeadTooLarge, h11.RemoteProtocolError.
        """
        machine = self.machine
        fed = self.buffered()
        while (event := machine.next_event()) is h11.NEED_DATA:
            if fed > self._limit:
                raise HeadTooLarge
            data = await self.stream.receive(self.read_size)
            fed += len(data)
            self.take(data)
        if fed > self._limit and fed - self.buffered() > self._limit:
            raise HeadTooLarge
        return event if isinstance(event, h11.Request) else None

    def buffered(self) -> int:
        """How many bytes were read that no event has used up."""
        return len(self.machine.trailing_data[0])

    async def body_event(self) -> Any:
        """The next event of the request's body."""
        while (event := self.machine.next_event()) is h11.NEED_DATA:
            await self.read()
        return event


def target_of(target: bytes) -> tuple[str, bytes, bytes] | None:
    """A request's target → path, raw path, query; None if it is neither a path nor a whole http URL."""
    if not target.startswith(b"/"):
        scheme, mark, rest = target.partition(b"://")
        if target == b"*":
            return "*", b"*", b""
        if not mark or scheme.lower() not in (b"http", b"https"):
            return None
        at = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        target = rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]
    raw, _, query = target.partition(b"?")
    path = raw.decode("ascii", "replace")
    return (unquote(path) if "%" in path else path), raw, query


def make_scope(request: h11.Request, target: tuple[str, bytes, bytes], peer: Peer) -> Scope:
    """The ASGI scope; `edged.peer` is who asks."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": target[0],
        "raw_path": target[1],
        "query_string": target[2],
        "root_path": "",
        "headers": list(request.headers),
        "client": (peer.address, peer.port) if peer.address else None,
        "server": (peer.host, None),
        "edged.peer": peer,
    }


class Exchange:
    """One request and its reply. `streaming` says that the body of a stream is on its way."""

    def __init__(
        self,
        wire: Wire,
        request: h11.Request,
        body_limit: int,
        spawn: Spawn,
        closing: Callable[[], bool],
        *,
        strangers_limit: int,
    ) -> None:
        """`strangers_limit`: the longest body, bytes, of a request whose credential nobody has looked at yet."""
        self._wire = wire
        self._machine = wire.machine
        self._request = request
        self._limit = body_limit
        self._strangers_limit = min(strangers_limit, body_limit)
        self._declared = 0
        self._began = trio.current_time()
        #: Whether this request showed a good credential.
        self.is_vouched = False
        self._spawn = spawn
        self._closing = closing
        self._scope = trio.CancelScope()
        self._taken = 0
        self._body_done = False
        self._head: Message | None = None  # http.response.start that still waits for its first body
        self._started = False
        self._complete = False
        self._gone = trio.Event()
        self._watching: trio.CancelScope | None = None
        self._listening = False
        self.reading_body = False
        self.streaming = False
        self._refused = False  # answered in the app's stead; what it says or raises after that is no news

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the app answer. Afterwards the machine says whether the connection can go on."""
        declared = next((value for name, value in self._request.headers if name == b"content-length"), b"0")
        # h11 has seen to it that the value is digits, at most twenty of them.
        self._declared = int(declared)
        if self._declared > self._limit:
            self._refused = True
            await self._fail(413, self._too_large(self._limit))
            return
        problem: Exception | None = None
        with self._scope:
            try:
                await app(scope, self.receive, self.send)
            except Exception as raised:  # whatever the app does, the connection answers
                problem = raised
        if self._watching is not None:
            self._watching.cancel()
        if self._refused:
            return
        if self._complete or self._wire.stream.closed or self._gone.is_set():
            # What an app raises after its client has left is a consequence, not news.
            if problem is not None and not self._gone.is_set() and not self._wire.stream.closed:
                report_incident("app_failed", problem, path=scope["path"])
            return
        if self._started and isinstance(problem, trio.BrokenResourceError):
            self._wire.stream.close()  # it broke its answer off on purpose, as whoever reads may stay no longer
            return
        if problem is None:
            problem = RuntimeError("the app ended without a whole response")
        incident = report_incident("app_failed", problem, path=scope["path"])
        if self._started:
            self._wire.stream.close()  # the only way to say that the body is not whole
        else:
            await self._fail(500, f"incident {incident}")

    def is_overdue(self, now: float, seconds: float) -> bool:
        """Whether a stranger's body is still not whole after so many seconds, however steadily it comes."""
        return self.reading_body and not self.is_vouched and now - self._began > seconds

    def check(self) -> None:
        """The watcher's look: cancel the app of a client that has left."""
        if not self._gone.is_set() and self._wire.stream.is_peer_gone():
            self._lost()

    # -- what the app calls ------------------------------------------------------------------------------

    def break_off(self) -> None:
        """Close the connection under an answer: what the app sends next fails, and it has a moment to tidy up."""
        self._listening = True
        self._wire.stream.close()

    async def receive(self) -> Message:
        """ASGI receive: the body piece by piece, then http.disconnect when the client leaves."""
        if self._body_done or self._complete:
            if not self._complete:
                self._listening = True
                self._watch()
                await self._gone.wait()
            return {"type": "http.disconnect"}
        most = self._limit if self.is_vouched else self._strangers_limit
        if self._declared > most:
            await self._end_early(413, self._too_large(most))
        if self._machine.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._send(self._machine.send(go_on))
        self.reading_body = True
        try:
            event = await self._wire.body_event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()
            return {"type": "http.disconnect"}
        except h11.RemoteProtocolError as problem:
            if not self._wire.ended:
                await self._end_early(problem.error_status_hint, explain(problem))
            self._gone.set()
            return {"type": "http.disconnect"}
        finally:
            self.reading_body = False
        if isinstance(event, h11.Data):
            self._taken += len(event.data)
            if self._taken > most:
                await self._end_early(413, self._too_large(most))
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        self._body_done = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """ASGI send: the head goes out with the first piece of the body. Raises ClientGone."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._head is not None or self._started:
                raise RuntimeError("http.response.start came twice")
            self._head = message
            return
        if kind != "http.response.body":
            raise RuntimeError(f"unknown ASGI message {kind!r}")
        if self._gone.is_set():
            raise ClientGone("the client has left")
        if self._complete or (self._head is None and not self._started):
            raise RuntimeError("http.response.body came before the start or after the end")
        more = bool(message.get("more_body", False))
        body = message.get("body", b"")
        data = b"" if self._started else self._start(whole=None if more else len(body))
        if body and not self._is_bodyless:
            data += self._machine.send(h11.Data(data=body))
        if not more:
            data += self._machine.send(h11.EndOfMessage())
        await self._send(data)
        if more:
            self.streaming = True
            self._watch()
            await trio.lowlevel.checkpoint()
        else:
            self._complete = True

    # -- the reply ------------------------------------------------------------------------------------------

    def _start(self, whole: int | None) -> bytes:
        assert self._head is not None
        status = int(self._head["status"])
        headers: Headers = [(bytes(name), bytes(value)) for name, value in self._head.get("headers", ())]
        names = {name.lower() for name, _ in headers}
        if b"date" not in names:
            headers.append((b"date", date_header()))
        if whole is not None and status not in _NO_BODY and not names & {b"content-length", b"transfer-encoding"}:
            headers.append((b"content-length", b"%d" % whole))
        is_last = not self._body_is_in() or self._closing()
        if is_last and b"connection" not in names:
            headers.append((b"connection", b"close"))
        self._is_bodyless = status in _NO_BODY or self._request.method == b"HEAD"
        data = self._machine.send(h11.Response(status_code=status, headers=headers, reason=_reason(status)))
        self._started = True
        return data

    _is_bodyless = False

    def _body_is_in(self) -> bool:
        """Whether the request is whole. Takes what has been read: a small body left unread costs no connection."""
        while not self._body_done and self._taken <= self._limit and self._machine.their_state is h11.SEND_BODY:
            try:
                event = self._machine.next_event()
            except h11.RemoteProtocolError:
                return False
            if isinstance(event, h11.Data):
                self._taken += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._body_done = True
            else:
                break
        return self._machine.their_state is not h11.SEND_BODY

    async def _send(self, data: bytes) -> None:
        try:
            await self._wire.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()
            raise ClientGone("the client has left") from None

    def _too_large(self, most: int) -> str:
        why = "" if most == self._limit else " before a credential was looked at"
        return f"a body may have at most {most} bytes{why}"

    async def _end_early(self, status: int, detail: str) -> None:
        """Refuse what the client sends while the app runs, and end the app: it must not answer that itself."""
        self._refused = True
        await self._fail(status, detail)
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _fail(self, status: int, detail: str) -> None:
        """Answer in the app's stead, if nothing is on its way yet; the connection ends."""
        if self._started:
            return
        self._started = self._complete = True
        # Not through the machine: it may have refused what the app said, and is of no more use then.
        word = fault_bytes(status, detail)
        try:
            await self._wire.stream.send_all(word.partition(b"{")[0] if self._request.method == b"HEAD" else word)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()

    # -- the client that leaves ---------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._watching is None and (self._body_done or self._body_is_in()):
            self._watching = trio.CancelScope()
            self._spawn(self._read_ahead)

    async def _read_ahead(self) -> None:
        """Wait for the end of the client's stream; what it pipelines meanwhile is kept."""
        assert self._watching is not None
        with self._watching:
            while self._wire.buffered() < self._wire.read_size:
                try:
                    await self._wire.stream.wait_readable()
                    if self._watching.cancel_called:
                        return
                    data = self._wire.stream.receive_now(self._wire.read_size)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                if data == b"":
                    self._lost()
                    return
                if data is not None:
                    self._wire.take(data)

    def _lost(self) -> None:
        self._gone.set()
        if self._listening:
            self._scope.deadline = trio.current_time() + 1.0  # the app was told; it may tidy up
        else:
            self._scope.cancel()


@lru_cache(maxsize=64)
def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
