"""What the command line says when there is no daemon, or something else in its place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cli_helpers import Shell
from patience import fail_after
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from edged.cli import client
from edged.cli.client import Answered, Unreachable, call_once, connect

Answer = Callable[[WebSocketConnection, dict[str, Any]], Awaitable[None]]


@asynccontextmanager
async def listening(path: Path, handle: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[None]:
    """Something that is not edged on a unix socket."""
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            connection, _ = await listener.accept()
            async with trio.SocketStream(connection) as stream:
                await handle(stream)

        nursery.start_soon(accept)
        try:
            yield
        finally:
            listener.close()
            nursery.cancel_scope.cancel()


def answering(path: Path, answer: Answer) -> Any:
    """A WebSocket server that answers each question in its own way."""

    async def handle(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            socket_ = await request.accept()
            try:
                while True:
                    await answer(socket_, msgspec.json.decode(await socket_.get_message()))
            except ConnectionClosed:
                nursery.cancel_scope.cancel()

    return listening(path, handle)


async def reply(socket_: WebSocketConnection, **members: object) -> None:
    await socket_.send_message(msgspec.json.encode({"jsonrpc": "2.0", **members}).decode())


async def test_the_result_of_the_question_comes_back(tmp_path: Path) -> None:
    """Notifications, other answers and rubbish before it are passed over."""

    async def answer(socket_: WebSocketConnection, question: dict[str, Any]) -> None:
        await reply(socket_, method="camera_status_update", params={})
        await reply(socket_, id=999, result="another's")
        await socket_.send_message("rubbish")
        await socket_.send_message("[]")
        await reply(socket_, id=question["id"], result=[question["method"], question["params"]])

    with fail_after(20):
        async with answering(tmp_path / "s", answer), connect(tmp_path / "s") as daemon:
            assert await daemon.call("first") == ["first", {}]
            assert await daemon.call("second", {"a": 1}) == ["second", {"a": 1}]


DENIED = {"code": -32002, "message": "Permission denied", "data": {"required": "keys:admin"}}
MISSING = {"code": -32010, "message": "Not found", "data": {"detail": "no key", "hint": "list"}}


@pytest.mark.parametrize(
    ("error", "sentence", "hint"),
    [
        (DENIED, "Permission denied", "needs keys:admin"),
        (MISSING, "Not found: no key", "list"),
        ({"code": -32602, "message": "Invalid params: x", "data": {"detail": "x"}}, "Invalid params: x", ""),
        ({"code": -32603, "message": "Internal error", "data": {"sentence": 1, "code": 2}}, "Internal error", ""),
        (
            {"code": -32603, "message": "Internal error", "data": {"detail": "in force now", "hint": "free space"}},
            "in force now",
            "free space",
        ),
        ({"message": "odd", "data": 7}, "odd", ""),
        ("odd", "error", ""),
    ],
)
async def test_an_error_is_an_error_with_its_hint(tmp_path: Path, error: object, sentence: str, hint: str) -> None:
    """Whatever its shape; and not wrapped in a nursery's group."""

    async def answer(socket_: WebSocketConnection, question: dict[str, Any]) -> None:
        await reply(socket_, id=question["id"], error=error)

    with fail_after(20):
        async with answering(tmp_path / "s", answer):
            with pytest.raises(Answered) as raised:
                await call_once(tmp_path / "s", "ping")
    assert (raised.value.sentence, raised.value.hint) == (sentence, hint)


async def test_a_daemon_that_goes_away_is_told(tmp_path: Path) -> None:
    """No answer is not an empty answer."""

    async def answer(socket_: WebSocketConnection, question: dict[str, Any]) -> None:
        await socket_.aclose(1001, "stopping")

    with fail_after(20):
        async with answering(tmp_path / "s", answer):
            with pytest.raises(Unreachable, match="ping: no answer"):
                await call_once(tmp_path / "s", "ping")


async def test_a_silent_daemon_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends by itself."""
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.1)

    async def answer(socket_: WebSocketConnection, question: dict[str, Any]) -> None:
        await trio.sleep_forever()

    with fail_after(20):
        async with answering(tmp_path / "s", answer):
            with pytest.raises(Unreachable, match="no answer"):
                await call_once(tmp_path / "s", "ping")


@pytest.mark.parametrize("says", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"220 mail\r\n", b""])
async def test_something_else_on_the_socket_is_told(
    tmp_path: Path, says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as what it is: not edged."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.5)

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if says:
            await stream.send_all(says)

    with fail_after(20):
        async with listening(tmp_path / "s", handle):
            with pytest.raises(Unreachable, match="is not edged"):
                await call_once(tmp_path / "s", "ping")


async def test_something_that_never_speaks_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After ten seconds of the handshake."""

    async def handle(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(tmp_path / "s", handle):
        with pytest.raises(Unreachable):
            await call_once(tmp_path / "s", "ping")


# --- the commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path / "conf.d")


def test_no_daemon_is_3_and_how_to_start_one(shell: Shell, tmp_path: Path) -> None:
    """Whether the socket file is missing or left over; --socket and EDGED_SOCKET name it."""
    missing = tmp_path / "none.sock"
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))
    for path in (missing, left):
        ran = shell.run("key", "list", "--socket", str(path))
        assert (ran.code, ran.out) == (3, "")
        assert str(path) in ran.err
        assert "systemctl start edged" in ran.err
    shell.setenv("EDGED_SOCKET", str(missing))
    ran = shell.run("key", "list", "--json")
    assert ran.code == 3
    assert msgspec.json.decode(ran.err)["code"] == "unreachable"


def test_the_settings_name_the_socket(shell: Shell, tmp_path: Path) -> None:
    """Without --socket the one in the settings; `off` is told as such; a bad setting is 78."""
    (tmp_path / "conf.d").mkdir()
    setting = tmp_path / "conf.d" / "a.toml"
    setting.write_text(f'[listen]\nunix = "{tmp_path}/mine.sock"\n')
    assert f"{tmp_path}/mine.sock" in shell.run("key", "list").err
    setting.write_text('[listen]\nunix = "off"\n')
    off = shell.run("key", "list")
    assert off.code == 78
    assert "--socket" in off.err
    setting.write_text('[listen]\nunx = "x"\n')
    wrong = shell.run("key", "list")
    assert wrong.code == 78
    assert "listen.unx" in wrong.err


def test_a_path_that_can_be_no_socket_is_3(shell: Shell, tmp_path: Path) -> None:
    """Too long for a socket, or a file of another kind."""
    for path in (tmp_path / ("x" * 120), tmp_path):
        assert shell.run("key", "list", "--socket", str(path)).code == 3


async def test_a_socket_that_you_may_not_open_says_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word (root is never refused, so here it is put into its mouth)."""

    async def refuse(_path: Path) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(trio, "open_unix_socket", refuse)
    with pytest.raises(Unreachable, match="edged-admin"):
        await call_once(tmp_path / "s", "ping")


async def test_an_error_of_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    """What a user of the conversation raises is not a fault of the socket."""

    async def answer(socket_: WebSocketConnection, question: dict[str, Any]) -> None:
        await reply(socket_, id=question["id"], result=None)

    with fail_after(20):
        async with answering(tmp_path / "s", answer):
            ask = partial(call_once, tmp_path / "s", "ping")
            assert await ask() is None


def test_a_command_that_another_module_adds_to_a_group_is_found_by_a_process_that_loads_nothing_else() -> None:
    """`edged camera event` stands in edged/cli/events.py."""
    done = subprocess.run(
        [sys.executable, "-m", "edged", "camera", "event", "--help"], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("Usage: ")
    assert "event [OPTIONS] DEVICE KIND" in done.stdout
