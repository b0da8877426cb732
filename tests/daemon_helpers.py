"""A whole edged in the test's own loop: real databases, real sockets on free ports, real children."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from edged import app, children
from edged.accounts.passwords import Passwords
from edged.config.model import (
    AuthSettings,
    CameraSettings,
    Config,
    ListenSettings,
    MediaMTXSettings,
    PathSettings,
)
from edged.credentials.passwords import Cost
from edged.daemon import access
from edged.landlock import Landlock, try_landlock

SECRET = "a-shared-secret-of-more-than-32-bytes"

_are_passwords_costly: ContextVar[bool] = ContextVar("_are_passwords_costly", default=True)


def make_passwords(*, at_least: int) -> Passwords:
    """As a daemon makes it, but for the cost: a tenth of a second of a core for each password, and three at the first,
    are a quarter of what the tests of whole daemons compute."""
    return Passwords(at_least=at_least) if _are_passwords_costly.get() else Passwords(cost=Cost(8, at_least))


access.Passwords = make_passwords  # type: ignore[assignment, attr-defined]

#: PATH → why its setpriv has no Landlock.
_no_landlock: dict[str, str] = {}


def try_landlock_once(landlock: Landlock, path: str) -> str:
    """As edged.landlock.try_landlock; a refusal is remembered. Each daemon asks, and has a thousand entries of folders
    listed for that: a third of what its start computes, for the same answer."""
    if path not in _no_landlock and (why := try_landlock(landlock, path)):
        _no_landlock[path] = why
    return _no_landlock.get(path, "")


children.try_landlock = try_landlock_once  # type: ignore[attr-defined]


_given: set[int] = set()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """One that nobody has now. Below those that the kernel hands out: a client's own end could take one of these
    between our look and the listener. None is given twice: two listeners of one box would get the same now and then."""
    while True:
        port = random.randrange(12_000, 32_000)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket(socket.AF_INET, kind) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def make_config(folder: Path, *, cameras: int = 2, mediamtx: bool = False) -> Config:
    """Settings of a box on loopback with free ports and test pictures."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    return Config(
        paths=PathSettings(state=folder / "state", runtime=folder / "run"),
        listen=ListenSettings(
            main=(f"127.0.0.1:{free_port()}",),
            compat=(f"127.0.0.1:{free_port()}",),
            local=(f"127.0.0.1:{free_port()}",),
            tokens=(),
        ),
        auth=AuthSettings(shared_secrets={"test": str(secret)}, demo_login=True),
        mediamtx=MediaMTXSettings(
            enabled=mediamtx,
            rtsp=f"127.0.0.1:{free_port()}",
            hls=f"127.0.0.1:{free_port()}",
            webrtc=f"127.0.0.1:{free_port()}",
            webrtc_udp=f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
        ),
        camera=tuple(CameraSettings(name=f"test {number}", source="test", size="320x240") for number in range(cameras)),
    )


def port_of(addresses: tuple[str, ...]) -> int:
    return int(addresses[0].rpartition(":")[2])


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Conversation:
    """JSON-RPC over one WebSocket; what came unasked is kept in `news`."""

    connection: WebSocketConnection
    news: list[Any] = field(default_factory=list)
    serial: int = 0

    async def ask(self, method: str, **params: object) -> Any:
        """The whole reply, whatever it says."""
        self.serial += 1
        call = {"jsonrpc": "2.0", "id": self.serial, "method": method, "params": params}
        await self.connection.send_message(json.dumps(call))
        while True:
            message = json.loads(await self.connection.get_message())
            if message.get("id") == self.serial:
                return message
            self.news.append(message)

    async def call(self, method: str, **params: object) -> Any:
        """The result; an error fails the test."""
        reply = await self.ask(method, **params)
        assert "error" not in reply, reply
        return reply["result"]

    async def hear(self, method: str) -> Any:
        """The params of the next notification of this name."""
        while True:
            for news in self.news:
                if news["method"] == method:
                    self.news.remove(news)
                    return news["params"]
            self.news.append(json.loads(await self.connection.get_message()))


@asynccontextmanager
async def talk(stream: trio.SocketStream, **options: Any) -> AsyncIterator[Conversation]:
    """A conversation over a stream that is closed here: trio-websocket forgets it when the server closes first."""
    async with stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(nursery, stream, "localhost", "/ws", **options)
        yield Conversation(connection)
        await connection.aclose()
        nursery.cancel_scope.cancel()


@dataclass
class RunningDaemon:
    """Where a running edged is, and how a client talks to it."""

    config: Config
    log: Path

    @property
    def port(self) -> int:
        return port_of(self.config.listen.main)

    @property
    def rtsp(self) -> int:
        return port_of((self.config.mediamtx.rtsp,))

    @property
    def hls(self) -> int:
        return port_of((self.config.mediamtx.hls,))

    def plug(self, camera: int) -> Path:
        """The file that stands for a test camera's plug."""
        return self.config.paths.state / "test-cameras" / f"test {camera}"

    @asynccontextmanager
    async def websocket(self, port: int | None = None, **options: Any) -> AsyncIterator[Conversation]:
        """A client on a TCP listener, the main one unless told otherwise."""
        async with talk(await trio.open_tcp_stream("127.0.0.1", port or self.port), **options) as conversation:
            yield conversation

    @asynccontextmanager
    async def local(self) -> AsyncIterator[Conversation]:
        """Over the unix socket, as an administrator."""
        async with talk(await trio.open_unix_socket(self.config.listen.unix)) as conversation:
            yield conversation

    async def create_key(self, role: str = "viewer", **params: object) -> tuple[str, str]:
        """(key id, secret) of a new key."""
        async with self.local() as admin:
            made = await admin.call("create_key", name=f"test {role}", role=role, **params)
        return made["key_id"], made["api_key"]

    async def revoke_key(self, key_id: str) -> None:
        async with self.local() as admin:
            await admin.call("revoke_key", key_id=key_id)

    async def request(
        self, method: str, path: str, *, key: str = "", body: object = None, port: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:  # fmt: skip
        """One HTTP exchange by a client that knows no proxies."""

        def exchange() -> Reply:
            connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
            sent = dict(headers or {}) | ({"X-API-Key": key} if key else {})
            data = None
            if body is not None:
                sent.setdefault("Content-Type", "application/json")
                data = json.dumps(body).encode()
            connection.request(method, path, body=data, headers=sent)
            with connection.getresponse() as response:
                found = {name.lower(): value for name, value in response.getheaders()}
                reply = Reply(response.status, found, response.read())
            connection.close()
            return reply

        return await trio.to_thread.run_sync(exchange, abandon_on_cancel=True)

    async def wait_media(self) -> None:
        """Until MediaMTX is ready."""
        async with self.local() as admin:
            while (await admin.call("get_system_status"))["mediamtx"]["status"] != "ready":
                await trio.sleep(0.05)


@asynccontextmanager
async def running_daemon(
    folder: Path, *, config: Config | None = None, costly_passwords: bool = False, **settings: Any
) -> AsyncIterator[RunningDaemon]:
    """A daemon that serves while the block runs and is stopped in order at its end.

    `costly_passwords` for a test in which it matters how long a hash takes, or what it costs.
    """
    config = config or make_config(folder, **settings)
    serving = trio.Event()
    async with trio.open_nursery() as nursery:
        before = _are_passwords_costly.set(costly_passwords)
        nursery.start_soon(partial(app.run, config, started=lambda _server: serving.set()))
        _are_passwords_costly.reset(before)
        await serving.wait()
        yield RunningDaemon(config, folder / "log")
        nursery.cancel_scope.cancel()


async def reason_of(client: Conversation, method: str, **params: object) -> str:
    """Why a call was refused, as the caller is told."""
    return str((await client.ask(method, **params))["error"]["data"]["reason"])


async def ended(conversation: Conversation) -> int:
    """Read until the server closes; its close code."""
    with suppress(ConnectionClosed):
        while True:
            await conversation.connection.get_message()
    reason = conversation.connection.closed
    return int(reason.code) if reason else 0
