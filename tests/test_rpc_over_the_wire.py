"""The same conversations over real sockets, with a client that is another implementation (trio-websocket)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from net_helpers import serve_unrestricted
from patience import fail_after
from rpc_helpers import NOW, Box, camera, row
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from edged.net.handlers import Handlers
from edged.net.listeners import open_tcp
from edged.rpc import camera_notifications


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """Nothing but WebSockets here."""


@asynccontextmanager
async def opened(name: str = "main") -> AsyncIterator[tuple[Box, int]]:
    """A services behind a real listener, and its port."""
    with fail_after(20):
        async with trio.open_nursery() as nursery:
            box = Box(nursery)
            listener = open_tcp(name, "127.0.0.1:0")
            await nursery.start(serve_unrestricted, [listener], Handlers(no_app, box.rpc.open))
            yield box, listener.port
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(port: int, *subprotocols: str) -> AsyncIterator[WebSocketConnection]:
    """A client, on a stream that is closed here also where its library forgets it (the server closed first)."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        client = await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", "/ws", subprotocols=subprotocols)
        async with client:
            yield client
        nursery.cancel_scope.cancel()


async def ask(socket: WebSocketConnection, method: str, **params: Any) -> Any:
    await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}))
    answer = json.loads(await socket.get_message())
    assert answer["id"] == method
    return answer


async def test_a_client_logs_in_lists_takes_a_picture_and_hears_of_a_camera() -> None:
    """The whole of a quiet day, in v2."""
    async with opened() as (box, port), connected(port, "jsonrpc-2.0") as socket:
        assert socket.subprotocol == "jsonrpc-2.0"
        assert (await ask(socket, "ping"))["result"] == "pong"
        assert (await ask(socket, "authenticate", auth_token=box.make_key()))["result"]["authenticated"]
        assert (await ask(socket, "get_camera_list"))["result"]["total"] == 2
        assert (await ask(socket, "take_snapshot", device="camera0"))["result"] == {
            "success": True,
            "device": "camera0",
        }
        (session,) = box.sessions
        session.topics.add("camera.connected")
        told = camera_notifications.notify(
            camera(0), "camera.connected", box.sessions, box.rpc.conversations, box.gate, row, NOW
        )
        assert told == 1
        assert json.loads(await socket.get_message())["method"] == "camera.connected"


async def test_calls_pipelined_behind_the_login_are_authenticated() -> None:
    """Clients send on without waiting for their login's answer, and texts arrive in any cut."""
    async with opened("compat") as (box, port), connected(port) as socket:
        for method, params in (("authenticate", {"token": box.make_key()}), ("get_camera_list", {}), ("ping", {})):
            await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}))
        login, cameras, ping = [json.loads(await socket.get_message()) for _ in range(3)]
        assert login["result"]["authenticated"]
        assert cameras["result"]["cameras"][0]["device"] == "/dev/video4"
        assert ping["result"] == "pong"


async def test_a_revoked_client_is_closed_with_4401() -> None:
    """While it waits for nothing."""
    async with opened() as (box, port), connected(port) as socket:
        await ask(socket, "authenticate", auth_token=box.make_key())
        (session,) = box.sessions
        assert session.caller is not None
        box.admissions.end(session.caller.identities, "revoked")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 4401
        while len(box.sessions):
            await trio.sleep(0.01)
        assert len(box.admissions) == 0


async def test_who_revokes_itself_reads_the_answer_before_the_close() -> None:
    """The answer is on the wire before the close frame."""
    async with opened() as (box, port), connected(port) as socket:
        await ask(socket, "authenticate", auth_token=box.make_key("admin"))
        box.open_gate("commit")
        assert (await ask(socket, "revoke_key"))["result"] == "revoked"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 4401
