"""Talk to the running daemon: JSON-RPC over a WebSocket on its unix socket, whose file mode says who may.

trio-websocket is the client on purpose: an implementation other than the server's own.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from edged.errors import NOT_JSON, EdgedError, InvalidParams
from edged.wire.jsonrpc import INTERNAL_ERROR

#: A commit to a slow card is answered within this; seconds.
ANSWER_SECONDS: Final = 30.0
#: Seconds until something that does not speak WebSocket is given up.
CONNECT_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 1.0
_BROKEN: Final = (
    ConnectionClosed, ConnectionRejected, ConnectionTimeout, DisconnectionTimeout, HandshakeError,
    trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError,
)  # fmt: skip


class Unreachable(EdgedError):
    """No daemon listens on this socket, this user may not open it, or the daemon does not answer."""

    slug = "unreachable"


class Answered(EdgedError):
    """The daemon answered with an error; `code` is the JSON-RPC one, the fields are its data."""

    slug = "answered"

    def __init__(self, code: int, sentence: str, *, hint: str = "", **fields: object) -> None:
        super().__init__(sentence, hint=hint, **fields)
        self.code = code


class Daemon:
    """An open connection to the daemon."""

    def __init__(self, socket: WebSocketConnection, path: Path) -> None:
        self._socket = socket
        self._path = path
        self._ids = itertools.count(1)

    async def call(self, method: str, params: Mapping[str, object] | None = None) -> Any:
        """The result of one method. Raises Answered, or Unreachable if the answer does not come."""
        request_id = next(self._ids)
        question = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
        try:
            text = msgspec.json.encode(question).decode()
        except UnicodeEncodeError:
            raise InvalidParams(
                f"{_find_broken(question['params'])} is not UTF-8 text",
                hint="the call was not sent; check the encoding of the terminal",
            ) from None
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._socket.send_message(text)
                while True:
                    answer = _read(await self._socket.get_message())
                    if answer.get("id") == request_id:
                        break
        except _BROKEN as problem:
            raise Unreachable(f"{method}: no answer on {self._path}", hint="see journalctl -u edged") from problem
        if (error := answer.get("error")) is not None:
            raise _answered(error)
        return answer.get("result")


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Daemon]:
    """A connection to the daemon whose unix socket this is. Raises Unreachable with what to do."""
    stream = await _open(path)
    stranger = Unreachable(f"what listens on {path} is not edged", hint="name its socket with --socket")
    # Kept aside until everything is closed: a cancellation in between would take its place.
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(CONNECT_SECONDS):
                    socket = await wrap_client_stream(nursery, stream, "localhost", "/ws")
                yield Daemon(socket, path)
                with trio.move_on_after(_CLOSE_SECONDS):
                    await socket.aclose()
            except _BROKEN:
                raised = stranger
            except BaseException as problem:  # A cancellation too; raised again below.
                raised = problem
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
    except BaseExceptionGroup as group:
        # From the library's own reader, which a Ctrl-C may hit as well.
        interrupted, others = group.split(KeyboardInterrupt)
        if interrupted is not None:
            raise KeyboardInterrupt from None
        assert others is not None
        if (unknown := others.split(_BROKEN)[1]) is not None:
            raise unknown from None
        if raised is None or isinstance(raised, trio.Cancelled):
            raised = stranger
    if raised is not None:
        raise raised


async def call_once(path: Path, method: str, params: Mapping[str, object] | None = None) -> Any:
    """Connect, ask one thing, leave. Raises Answered, Unreachable."""
    async with connect(path) as daemon:
        return await daemon.call(method, params)


async def _open(path: Path) -> trio.SocketStream:
    try:
        with trio.fail_after(CONNECT_SECONDS):
            return await trio.open_unix_socket(path)
    except (FileNotFoundError, ConnectionRefusedError):
        raise Unreachable(
            f"edged is not running: no answer on {path}",
            hint="start it (systemctl start edged), or name its socket with --socket or EDGED_SOCKET",
        ) from None
    except PermissionError:
        raise Unreachable(
            f"you may not open {path}", hint="use sudo, or become a member of the group edged-admin"
        ) from None
    except (OSError, ValueError, trio.TooSlowError) as problem:
        raise Unreachable(f"{path} cannot be opened: {problem}", hint="name edged's socket with --socket") from None


def _find_broken(params: object, name: str = "") -> str:
    """The name of the first member with bytes that are no text (they are lone surrogates in Python)."""
    if isinstance(params, Mapping):
        for key, value in params.items():
            if found := _find_broken(key, "a name") or _find_broken(value, str(key)):
                return found
    elif isinstance(params, (list, tuple)):
        return next((found for item in params if (found := _find_broken(item, name))), "")
    elif isinstance(params, str) and not params.isascii():
        try:
            params.encode()
        except UnicodeEncodeError:
            return name
    return ""


def _read(text: str | bytes) -> dict[str, Any]:
    """One message of the daemon. Notifications and what cannot be read have no id and are passed over."""
    try:
        value = msgspec.json.decode(text)
    except NOT_JSON:
        return {}
    return value if isinstance(value, dict) else {}


def _answered(error: Any) -> Answered:
    """A JSON-RPC error object → what the user is told."""
    known = error if isinstance(error, dict) else {}
    data = known.get("data")
    fields: dict[str, object] = dict(data) if isinstance(data, dict) else {}
    sentence, hint = str(known.get("message", "error")), str(fields.pop("hint", ""))
    detail = str(fields.pop("detail", ""))
    code = int(known.get("code", 0))
    if detail and code == INTERNAL_ERROR:
        # What could not be saved, say: nothing of edged's is broken.
        sentence = detail
    elif detail and detail not in sentence:
        sentence = f"{sentence}: {detail}"
    if (required := fields.get("required")) and not hint:
        hint = f"needs {required}"
    fields.pop("sentence", None)
    return Answered(code, sentence, hint=hint, **{k: v for k, v in fields.items() if k != "code"})
