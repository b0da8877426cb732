"""HTTP/1.1: h11's machine on a stream, and one exchange with an ASGI 3 app.

- The head is counted here, by our own limit: h11 looks at its limit only while a head is incomplete.
- One CRLF before a request line is ignored; a line that ends in a bare LF is refused (RFC 9112 2.2).
- The target may be a whole http:// URL, whose authority then counts as Host (RFC 9112 3.2.2).
- A body in many small chunks gives way to other tasks after `_EVENTS_IN_A_ROW`.
- A reply whose body is one piece leaves in one write.
- While the app runs, nobody reads unless the app asks: a client that leaves is noticed by the watcher, which asks
  the kernel and steals no byte, and at once when the app streams or waits for `http.disconnect`. Bytes
  of a pipelined request that are read meanwhile stay in h11's buffer.
- A client that only ends its own side (half-close) still gets a stream to its end; any other answer in the making is
  given up, since nothing tells it from a client that has left.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import h11
import msgspec
import trio

from edged.credentials.callers import Peer
from edged.net.doors import ASGIApp, Message, Scope, Spawn, report_incident
from edged.net.head_lines import HeadLines
from edged.net.stream import READ_SIZE, Stream

Headers = list[tuple[bytes, bytes]]
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
#: Lines of a head, the empty one included; h11 takes some 4 µs for each.
_MOST_LINES = 128
#: Pieces of a body that are read before other tasks get their turn; h11 takes some 10 µs for each.
_EVENTS_IN_A_ROW = 64
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
    """The request's head is longer than the limit, or has too many lines; the text says which."""


class BadHead(Exception):
    """The request's head is not what RFC 9112 wants; the text says why."""


class Target(NamedTuple):
    """A request's target: `path` decoded, `raw` and `query` as sent, `authority` (host and port) of a whole URL."""

    path: str
    raw: bytes
    query: bytes
    authority: bytes | None = None


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

    __slots__ = ("_events", "_limit", "ended", "heard", "machine", "read_size", "stream")

    def __init__(self, stream: Stream, head_bytes: int) -> None:
        self.stream = stream
        self.machine = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes)
        self._limit = head_bytes
        self._events = 0
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
            # Nothing of the next request is here: the connection is as idle as before.
            self.heard = False
        if self.ended:
            self.machine.receive_data(b"")
        return data[2:]

    def buffered(self) -> int:
        """How many bytes were read that no event has used up."""
        return len(self.machine.trailing_data[0])

    def has_next(self) -> bool:
        """Whether more of a next request was read than the empty line that some clients send behind a body."""
        return self.machine.trailing_data[0] not in (b"", b"\r", b"\r\n")

    async def body_event(self) -> Any:
        """The next event of the request's body."""
        self._events += 1
        if not self._events % _EVENTS_IN_A_ROW:
            await trio.lowlevel.checkpoint()
        while (event := self.machine.next_event()) is h11.NEED_DATA:
            await self.read()
        return event


def target_of(target: bytes) -> Target:
    """A request's target, taken apart. Raises BadHead if it is neither a path nor a whole http:// URL."""
    authority = None
    if not target.startswith(b"/"):
        if target == b"*":
            return Target("*", b"*", b"")
        scheme, mark, rest = target.partition(b"://")
        if not mark or scheme.lower() != b"http":
            raise BadHead("the request's target must be a path, or an http:// URL")
        at = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        authority, target = rest[:at], rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]
        if host_of(authority) is None:
            raise BadHead("the URL in the request's target names no host that there can be")
    raw, _, query = target.partition(b"?")
    path = raw.decode("ascii", "replace")
    return Target(unquote(path) if "%" in path else path, raw, query, authority)


def headers_of(request: h11.Request, target: Target) -> Headers:
    """The request's headers. The authority of a whole URL stands in the place of Host (RFC 9112 3.2.2)."""
    if target.authority is None:
        return list(request.headers)
    return [(b"host", target.authority), *(pair for pair in request.headers if pair[0] != b"host")]


def make_scope(request: h11.Request, target: Target, headers: Headers, peer: Peer) -> Scope:
    """The ASGI scope; `edged.peer` is who asks."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": target.path,
        "raw_path": target.raw,
        "query_string": target.query,
        "root_path": "",
        "headers": headers,
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
        hold: Callable[[int], bool],
    ) -> None:
        """`strangers_limit`: the longest body, bytes, of a request whose credential nobody has looked at yet;
        `hold(size)` is told how much of a long body is here, and False if that is too much."""
        self._hold = hold
        self._wire = wire
        self._machine = wire.machine
        self._request = request
        self._limit = body_limit
        self._strangers_limit = min(strangers_limit, body_limit)
        self._declared = 0
        self._began = trio.current_time()
        #: Whether this request showed a good credential.
        self.is_authenticated = False
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
        self._serves_half_closed = False
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
        return self.reading_body and not self.is_authenticated and now - self._began > seconds

    def check(self) -> None:
        """The watcher's look: cancel the app of a client that has left."""
        stream = self._wire.stream
        if not self._gone.is_set() and (stream.is_broken() if self._outlasts_half_close else stream.is_peer_gone()):
            self._lost()

    @property
    def _outlasts_half_close(self) -> bool:
        """Whether the answer goes on for a client that sends no more: a stream soon finds out who reads none of it."""
        return (self.streaming or self._serves_half_closed) and not self._listening

    # -- what the app calls ------------------------------------------------------------------------------

    def break_off(self) -> None:
        """Close the connection under an answer: what the app sends next fails, and it has a moment to tidy up."""
        self._listening = True
        self._wire.stream.close()

    def serve_half_closed(self) -> None:
        """The app is about to stream, and a client that ends its own side meanwhile has not left."""
        self._serves_half_closed = True

    async def receive(self) -> Message:
        """ASGI receive: the body piece by piece, then http.disconnect when the client leaves."""
        if self._body_done or self._complete:
            if not self._complete:
                self._listening = True
                self._watch()
                await self._gone.wait()
            return {"type": "http.disconnect"}
        most = self._limit if self.is_authenticated else self._strangers_limit
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
            if self._taken > READ_SIZE and not self._hold(self._taken):
                await self._end_early(429, "too much is being sent with this credential at a time")
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
        for _ in range(_EVENTS_IN_A_ROW):
            if self._body_done or self._taken > self._limit or self._machine.their_state is not h11.SEND_BODY:
                break
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
                    if not self._outlasts_half_close or self._wire.stream.is_broken():
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
