"""Cameras, ffmpegs and a MediaMTX for the tests of publishers and pictures."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import trio
from patience import fail_after

from edged import children
from edged.errors import DependencyFailed
from edged.mediamtx.client import ControlApi, PathState

PASSWORD = "planted-SECRET_password0"


@dataclass(frozen=True)
class Camera:
    """A source of the tests' own."""

    name: str = "camera0"
    kind: Literal["usb", "rtsp", "http", "push", "rpi", "test"] = "test"
    node: str | None = None
    url: str | None = None
    pixel_format: str = ""
    width: int = 160
    height: int = 120
    rate: float = 10.0
    bitrate: int = 200_000
    encoder: str = ""
    always_on: bool = False
    transport: Literal["auto", "tcp", "udp"] = "auto"
    is_pinned: bool = False
    is_held_in_memory: bool = False
    still_seconds: float = 0.2
    audio: bool = False
    audio_codec: str = ""
    ribbon: int = 0
    stream: str = ""

    @property
    def path(self) -> str:
        return self.stream or self.name


@dataclass
class Spawner:
    """The real spawn; notes what was started."""

    started: list[children.Child] = field(default_factory=list)
    arguments: list[Sequence[str]] = field(default_factory=list)

    def __call__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: bool = True,
        stderr: bool = True,
    ) -> children.Child:
        child = children.spawn(
            arguments,
            environment=dict(os.environ),
            landlock=None,
            folder=folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.started.append(child)
        self.arguments.append(arguments)
        return child

    @property
    def alive(self) -> list[children.Child]:
        return [child for child in self.started if child.returncode is None]


def write_script(folder: Path, body: str) -> Callable[[], str]:
    """An ffmpeg that is a shell script: what it does is `body`."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return lambda: str(path)


def command_lines() -> str:
    """The argument lists of all processes, as every local user can read them."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(found)


async def eventually(fact: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it is so."""
    with fail_after(seconds):
        while not fact():
            await trio.sleep(0.02)


@dataclass
class Server:
    """A running MediaMTX; everybody may do anything, but reading `locked` needs user `u` and PASSWORD."""

    rtsp: str
    client: ControlApi
    child: children.Child
    api: str = ""

    async def list_paths(self) -> list[PathState]:
        return await self.client.list_paths()

    async def find(self, name: str) -> PathState:
        return next(path for path in await self.list_paths() if path.name == name)

    async def until(self, fact: Callable[[PathState], bool], name: str = "camera0", seconds: float = 30.0) -> PathState:
        """Wait until the path is so."""
        with fail_after(seconds):
            while True:
                path = await self.find(name)
                if fact(path):
                    return path
                await trio.sleep(0.05)


@asynccontextmanager
async def open_mediamtx(folder: Path, *, transport: Literal["tcp", "udp"] = "tcp") -> AsyncIterator[Server]:
    """The real MediaMTX with internal users, on loopback and ports of its own; paths camera0, camera1 and locked."""
    even = _free_pair()
    rtsp, api = (f"127.0.0.1:{port}" for port in free_ports(2))
    anybody = [{"action": "publish"}, {"action": "api"}, *({"action": "read", "path": f"camera{n}"} for n in (0, 1))]
    settings = {
        "rtspAddress": rtsp, "rtspTransports": [transport], "rtspEncryption": "no", "api": True, "apiAddress": api,
        "rtpAddress": f"127.0.0.1:{even}", "rtcpAddress": f"127.0.0.1:{even + 1}",
        "hls": False, "webrtc": False, "rtmp": False, "srt": False, "moq": False,
        "authInternalUsers": [
            {"user": "any", "permissions": anybody},
            {"user": "edged", "pass": PASSWORD, "permissions": [{"action": "publish"}, {"action": "read"}]},
            {"user": "u", "pass": PASSWORD, "permissions": [{"action": "read"}]},
        ],
        "paths": {"camera0": {"overridePublisher": True}, "camera1": {"overridePublisher": True}, "locked": {}},
    }  # fmt: skip
    file = folder / "mediamtx.json"
    file.write_text(json.dumps(settings))
    child = children.spawn(["mediamtx", str(file)], environment=dict(os.environ), landlock=None)
    async with child, trio.open_nursery() as nursery:
        for stream in (child.stdout, child.stderr):
            assert stream is not None
            nursery.start_soon(_drain, stream)
        host, port = api.split(":")
        server = Server(rtsp, ControlApi(host, int(port), "any", "", protocols=("rtsp",)), child, api)
        with fail_after(30):
            while not await _answers(server):
                await trio.sleep(0.05)
        yield server
        child.kill()
        nursery.cancel_scope.cancel()


async def _answers(server: Server) -> bool:
    try:
        await server.list_paths()
    except DependencyFailed:
        return False
    return True


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some(65536):
        pass


def _free_pair() -> int:
    """An even port and the next, both free for UDP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with suppress(OSError):
                two.bind(("127.0.0.1", port + 1))
                if port % 2 == 0:
                    return port


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@asynccontextmanager
async def publish(server: Server, name: str, *, transport: str = "tcp") -> AsyncIterator[None]:
    """A test picture on a path, by an ffmpeg of the test's own."""
    arguments = [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "5"),
        *("-f", "rtsp", "-rtsp_transport", transport, f"rtsp://{server.rtsp}/{name}"),
    ]
    spawn = partial(children.spawn, environment=dict(os.environ), landlock=None, stdout=False, stderr=False)
    async with spawn(arguments):
        await server.until(lambda path: path.ready, name)
        yield
