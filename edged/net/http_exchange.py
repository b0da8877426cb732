"""One HTTP/1.1 exchange: a request, its answer by an ASGI 3 app, and the client that may leave meanwhile.

- A reply whose body is one piece leaves in one write.
- While the app runs, nothing is read unless the app asks for it. That the client has left is noticed by the watcher,
  which asks the kernel and reads no byte, and at once when the app streams or waits for `http.disconnect`. Bytes of a
  pipelined request that are read meanwhile stay in h11's buffer.
- A client that ends only its own side (half-close) still gets a stream to its end; any other answer in the making is
  given up, since such a client cannot be told from one that has left.
"""

from __future__ import annotations

from collections.abc import Callable

import h11
import trio

from edged.net.handlers import ASGIApp, Message, Scope, report_incident
from edged.net.http_heads import Headers, explain
from edged.net.http_replies import date_header, fault_bytes, reason_of
from edged.net.http_stream import EVENTS_IN_A_ROW, HttpStream
from edged.net.stream import READ_SIZE
from edged.wire.ports import Spawn

_NO_BODY = (204, 304)


class ClientGone(OSError):
    """The client has left; starlette takes an OSError from `send` for that."""


class Exchange:
    """One request and its reply. `streaming`: the reply is a stream, and its body is being sent."""

    def __init__(
        self,
        http: HttpStream,
        request: h11.Request,
        body_limit: int,
        spawn: Spawn,
        closing: Callable[[], bool],
        *,
        unauthenticated_limit: int,
        hold: Callable[[int], bool],
    ) -> None:
        """`body_limit`: the longest body, bytes; `unauthenticated_limit`: the longest before a credential was checked.
        `hold(size)` counts the bytes of a long body that were read; False if the credential has too many."""
        self._hold = hold
        self._http = http
        self._machine = http.machine
        self._request = request
        self._limit = body_limit
        self._unauthenticated_limit = min(unauthenticated_limit, body_limit)
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
        self._refused = False  # answered instead of the app; what that sends or raises afterwards does not matter

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the app answer. Afterwards h11's states say whether the connection can be used again."""
        declared = next((value for name, value in self._request.headers if name == b"content-length"), b"0")
        # h11 has checked that the value is at most twenty digits.
        self._declared = int(declared)
        if self._declared > self._limit:
            self._refused = True
            await self._fail(413, self._too_large(self._limit))
            return
        problem: Exception | None = None
        with self._scope:
            try:
                await app(scope, self.receive, self.send)
            except Exception as raised:  # whatever the app raises, the client gets an answer
                problem = raised
        if self._watching is not None:
            self._watching.cancel()
        if self._refused:
            return
        if self._complete or self._http.stream.closed or self._gone.is_set():
            # What an app raises after its client has left is a consequence of that.
            if problem is not None and not self._gone.is_set() and not self._http.stream.closed:
                report_incident("app_failed", problem, path=scope["path"])
            return
        if (self._started or self._head) and isinstance(problem, trio.BrokenResourceError):
            # The app broke its answer off, perhaps before its first byte: its reader's right has ended.
            self._http.stream.close()
            return
        if problem is None:
            problem = RuntimeError("the app ended without a whole response")
        incident = report_incident("app_failed", problem, path=scope["path"])
        if self._started:
            self._http.stream.close()  # the only way to say that the body is not whole
        else:
            await self._fail(500, f"incident {incident}")

    def is_overdue(self, now: float, seconds: float) -> bool:
        """Whether an unauthenticated client's body is not whole after so many seconds, however steadily it comes."""
        return self.reading_body and not self.is_authenticated and now - self._began > seconds

    def check(self) -> None:
        """Cancel the app if the client has left. Called about once a second."""
        stream = self._http.stream
        if not self._gone.is_set() and (stream.is_broken() if self._outlasts_half_close else stream.is_peer_gone()):
            self._lost()

    @property
    def _outlasts_half_close(self) -> bool:
        """Whether the answer goes on after a half-close: a stream notices soon enough that nobody reads it."""
        return (self.streaming or self._serves_half_closed) and not self._listening

    # -- what the app calls ------------------------------------------------------------------------------

    def serve_half_closed(self) -> None:
        """The app is about to stream: a client that ends its own side from here on has not left."""
        self._serves_half_closed = True

    async def receive(self) -> Message:
        """ASGI receive: the body piece by piece, then http.disconnect when the client leaves."""
        if self._body_done or self._complete:
            if not self._complete:
                self._listening = True
                self._watch()
                await self._gone.wait()
            return {"type": "http.disconnect"}
        most = self._limit if self.is_authenticated else self._unauthenticated_limit
        if self._declared > most:
            await self._end_early(413, self._too_large(most))
        if self._machine.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._send(self._machine.send(go_on))
        self.reading_body = True
        try:
            event = await self._http.body_event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()
            return {"type": "http.disconnect"}
        except h11.RemoteProtocolError as problem:
            if not self._http.ended:
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
        data = self._machine.send(h11.Response(status_code=status, headers=headers, reason=reason_of(status)))
        self._started = True
        return data

    _is_bodyless = False

    def _body_is_in(self) -> bool:
        """Whether the request is whole. Takes what was read: a small body that the app leaves does not cost the
        connection."""
        for _ in range(EVENTS_IN_A_ROW):
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
            await self._http.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()
            raise ClientGone("the client has left") from None

    def _too_large(self, most: int) -> str:
        why = "" if most == self._limit else " before a credential was looked at"
        return f"a body may have at most {most} bytes{why}"

    async def _end_early(self, status: int, detail: str) -> None:
        """Refuse the rest of the request while the app runs, and cancel the app: it must not answer."""
        self._refused = True
        await self._fail(status, detail)
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _fail(self, status: int, detail: str) -> None:
        """Answer instead of the app, if nothing was sent yet; the connection ends."""
        if self._started:
            return
        self._started = self._complete = True
        # Not by h11: it sends nothing more once it has refused what the app sent.
        reply = fault_bytes(status, detail)
        try:
            await self._http.stream.send_all(reply.partition(b"{")[0] if self._request.method == b"HEAD" else reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone.set()

    # -- the client that leaves ---------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._watching is None and (self._body_done or self._body_is_in()):
            self._watching = trio.CancelScope()
            self._spawn(self._read_ahead)

    async def _read_ahead(self) -> None:
        """Read ahead to notice the end of the client's stream; what it pipelines meanwhile is kept."""
        assert self._watching is not None
        with self._watching:
            while self._http.buffered() < self._http.read_size:
                try:
                    await self._http.stream.wait_readable()
                    if self._watching.cancel_called:
                        return
                    data = self._http.stream.receive_now(self._http.read_size)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                if data == b"":
                    if not self._outlasts_half_close or self._http.stream.is_broken():
                        self._lost()
                    return
                if data is not None:
                    self._http.take(data)

    def _lost(self) -> None:
        self._gone.set()
        if self._listening or (self._started and not self._serves_half_closed):
            # The app was told, or is told when it sends on: it may clean up, as close the file that it sends.
            self._scope.deadline = trio.current_time() + 1.0
        else:
            self._scope.cancel()
