"""A hook, a MediaMTX (real or stand-in) and a small RTSP publisher for the tests of edged.mediamtx."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import trio

from edged.children import spawn
from edged.config.model import MediaMTXSettings
from edged.mediamtx.process import Supervisor
from edged.mediamtx.server_run import Timing
from edged.mediamtx.server_state import ServerState

REAL = shutil.which("mediamtx")
STANDIN = Path(__file__).parent / "standin_mediamtx.py"
#: Everything on loopback, on ports that the system picks.
LOOPBACK = MediaMTXSettings(rtsp="127.0.0.1:0", hls="127.0.0.1:0", webrtc="127.0.0.1:0", webrtc_udp="127.0.0.1:0")
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}
QUICK = Timing(first_pause=0.05, longest_pause=0.2, health_every=0.1, health_within=20.0, ready_within=40.0)


@dataclass
class Hook:
    """A tiny auth hook: keeps what it was asked, says 204 to what `allow` likes, else 401."""

    allow: Callable[[dict[str, object]], bool]
    questions: list[dict[str, object]] = field(default_factory=list)
    url: str = ""
    #: Secrets of the supervisor that are good now.
    secrets: set[str] = field(default_factory=set)

    def new_secret(self, path: str, action: str, uses: int | None) -> str:
        assert (path, action, uses) == ("", "api", None)
        secret = secrets.token_urlsafe(24)
        self.secrets.add(secret)
        return secret

    def drop_secret(self, secret: str) -> None:
        self.secrets.discard(secret)

    def judge(self, question: dict[str, object]) -> bool:
        if question["action"] == "api":
            return question["user"] == "edged" and question["password"] in self.secrets
        return self.allow(question)

    async def answer(self, stream: trio.SocketStream) -> None:
        data = b""
        try:
            while b"\r\n\r\n" not in data:
                data += (piece := await stream.receive_some())
                if not piece:
                    return
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            while len(body) < length:
                body += await stream.receive_some()
            question = json.loads(body)
            self.questions.append(question)
            status = b"204 No Content" if self.judge(question) else b"401 Unauthorized"
            await stream.send_all(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def open_hook(allow: Callable[[dict[str, object]], bool] = lambda question: True) -> AsyncIterator[Hook]:
    """A hook that listens."""
    hook = Hook(allow)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, hook.answer, 0, host="127.0.0.1"))
        hook.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/asks/{secrets.token_hex(8)}"
        yield hook
        nursery.cancel_scope.cancel()


def install_standin(folder: Path, *, version: str = "v1.20.1") -> Path:
    """A program file that runs the stand-in; its orders are read from the file `orders` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "mediamtx"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -I -S {STANDIN} --version-is {version} --orders {folder}/orders "$@"\n'
    )
    program.chmod(0o755)
    return program


def order(folder: Path, *words: str) -> None:
    """From its next look on the stand-in in this folder does these; none for good behaviour."""
    scratch = folder / "orders.new"
    scratch.write_text(" ".join(words))
    scratch.replace(folder / "orders")


def supervisor(hook: Hook, runtime: Path, binary: str | Path, *, timing: Timing = QUICK, **more: object) -> Supervisor:
    """A supervisor on loopback with the hook's secrets. `more`: settings, or `wanted_paths`."""
    wanted = {"wanted_paths": more.pop("wanted_paths")} if "wanted_paths" in more else {}
    settings = msgspec.structs.asdict(LOOPBACK) | {"binary": str(binary), **more}
    return Supervisor(
        MediaMTXSettings(**settings),
        hook_url=lambda: hook.url,
        new_secret=hook.new_secret,
        drop_secret=hook.drop_secret,
        spawn=partial(spawn, environment=ENVIRONMENT, landlock=None),
        search_path=ENVIRONMENT["PATH"],
        folder=runtime,
        timing=timing,
        **wanted,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def running(*tasks: Callable[..., Awaitable[object]]) -> AsyncIterator[None]:
    """These tasks, started one after the other and cancelled at the end."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            await nursery.start(task)
        yield
        nursery.cancel_scope.cancel()


async def until(server: Supervisor, *statuses: str) -> ServerState:
    """Wait for one of these states."""
    with server.states.subscribe() as states:
        state: object = server.state
        while not (isinstance(state, ServerState) and state.status in statuses):
            state = await states.receive()
        return state


async def eventually(fact: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own deadline ends it."""
    while not fact():
        await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
    "a=fmtp:96 packetization-mode=1; "
    "sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==; profile-level-id=42C01E\r\n"
)


class RtspClient:
    """One RTSP connection; `publish` or `read`. Enough of RFC 2326 for sessions to exist and to end."""

    def __init__(self, stream: trio.SocketStream, url: str) -> None:
        self._stream = stream
        self._url = url
        self._sequence = 0
        self._buffer = b""
        self.session = ""

    async def ask(self, method: str, target: str = "", body: str = "", **headers: str) -> int:
        """Send one request, return the status."""
        self._sequence += 1
        lines = [f"{method} {target or self._url} RTSP/1.0", f"CSeq: {self._sequence}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if self.session:
            lines.append(f"Session: {self.session}")
        if body:
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        await self._stream.send_all(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        return await self._read_status()

    async def _read_status(self) -> int:
        while True:
            if self._buffer[:1] == b"$" and len(self._buffer) >= 4:
                size = 4 + int.from_bytes(self._buffer[2:4], "big")
                if len(self._buffer) >= size:
                    self._buffer = self._buffer[size:]
                    continue
            elif b"\r\n\r\n" in self._buffer:
                head, _, rest = self._buffer.partition(b"\r\n\r\n")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.decode().split("\r\n")[1:])
                }
                length = int(headers.get("content-length", "0"))
                if len(rest) >= length:
                    self._buffer = rest[length:]
                    self.session = headers.get("session", self.session).partition(";")[0]
                    return int(head.split(b" ")[1])
            self._buffer += (piece := await self._stream.receive_some())
            if not piece:
                raise EOFError("the server closed the connection")

    async def publish(self) -> None:
        assert await self.ask("ANNOUNCE", body=SDP) == 200
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"
        assert await self.ask("SETUP", f"{self._url}/trackID=0", Transport=transport) == 200
        assert await self.ask("RECORD") == 200

    async def read(self) -> None:
        assert await self.ask("DESCRIBE", Accept="application/sdp") == 200
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
        assert await self.ask("SETUP", f"{self._url}/trackID=0", Transport=transport) == 200
        assert await self.ask("PLAY") == 200

    async def wait_closed(self) -> None:
        """Until the server ends the connection."""
        try:
            while await self._stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def open_rtsp(port: int | None, path: str) -> AsyncIterator[RtspClient]:
    """A connection to `rtsp://127.0.0.1:port/path`."""
    assert port is not None
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield RtspClient(stream, f"rtsp://127.0.0.1:{port}/{path}")
