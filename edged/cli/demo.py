"""`edged demo`: a whole box on loopback with two test pictures; with `--once` it plays its own story and judges it.

The daemon runs as a child, as a user's would; everything here is what a client can do: HTTP, WebSocket,
RTSP, and deleting the file that stands for a test camera's plug.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url, open_websocket_url

from edged.children import Child
from edged.errors import EdgedError
from edged.mediamtx.ffmpeg import find_ffmpeg
from edged.mediamtx.settings import find_binary

_CAMERAS: Final = ("front door", "workshop")
#: Their streams; "" is cameraN. The example of the MediaMTX token server asks for camera_one.
_PATHS: Final = ("", "camera_one")
_FRAMES: Final = 10
_START_SECONDS: Final = 20.0
_STEP_SECONDS: Final = 30.0
_PREFIX: Final = "edged-demo-"
#: Each ends the demo in order.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Box:
    """Where the demo's daemon keeps its things and listens."""

    state: Path
    config: Path
    ports: Mapping[str, int]
    mediamtx: str | None

    @property
    def main(self) -> int:
        return self.ports["main"]

    def plug(self, camera: str) -> Path:
        """The file that stands for a test camera's plug."""
        return self.state / "test-cameras" / camera


class StepFailed(Exception):
    """A step of the story did not hold; the sentence says what was seen instead."""


@dataclass
class Story:
    """Steps with their outcome and their time, printed as they end."""

    passed: int = 0
    failed: int = 0
    not_run: int = 0

    async def step(self, name: str, action: Callable[[], Any], *, unless: str = "") -> bool:
        """Run one step; `unless` is why it cannot run here. Returns whether it held."""
        if unless:
            self.not_run += 1
            print(f"  --     {name}: not run: {unless}", flush=True)
            return False
        began = time.perf_counter()
        try:
            with trio.fail_after(_STEP_SECONDS):
                note = await action()
        except (StepFailed, OSError, trio.TooSlowError, ConnectionClosed, http.client.HTTPException) as problem:
            self.failed += 1
            print(
                f"  FAILED {name} ({time.perf_counter() - began:.2f} s): {problem or type(problem).__name__}",
                flush=True,
            )
            return False
        self.passed += 1
        print(f"  ok     {name} ({time.perf_counter() - began:.2f} s){f': {note}' if note else ''}", flush=True)
        return True


def main(*, once: bool) -> int:
    """Serve until Ctrl-C, SIGTERM or a closed terminal, or play the story; returns the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores it for what it starts with &; whoever sends it means it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return trio.run(partial(_main, once=once))


async def _main(*, once: bool) -> int:
    heeded = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    code = 0
    remove_abandoned(Path(tempfile.gettempdir()))
    # The folder outlives everything in it, whatever ends the demo.
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, held(Path(folder)):
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                nonlocal code
                with trio.open_signal_receiver(*heeded) as signals:
                    async for number in signals:
                        code = 128 + number
                        nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            box = prepare(Path(folder), any_port=once)
            async with run_daemon(box, quiet=once) as daemon:
                code = await play(box, daemon) if once else await serve(box, daemon)
            nursery.cancel_scope.cancel()
    return code


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While the block runs, or until this process is killed, the folder is somebody's (see remove_abandoned)."""
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of demos that were killed: each is ours, and its lock is free."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


def prepare(folder: Path, *, any_port: bool) -> Box:
    """Write the settings of a box on loopback, with two test cameras."""
    wanted = {"main": 8002, "local": 8003, "rtsp": 8554, "hls": 8888, "webrtc": 8889}
    ports = {name: pick_port(0 if any_port else port) for name, port in wanted.items()}
    binary = find_binary("", os.environ.get("PATH", "")).path
    conf, state = folder / "conf.d", folder / "state"
    conf.mkdir()
    lines = [
        "[paths]",
        f'state = "{state}"',
        f'runtime = "{folder / "run"}"',
        "[listen]",
        f'main = ["127.0.0.1:{ports["main"]}"]',
        "compat = []",
        f'local = ["127.0.0.1:{ports["local"]}"]',
        "tokens = []",
        "[auth]",
        "demo_login = true",
        "[mediamtx]",
        f'rtsp = "127.0.0.1:{ports["rtsp"]}"',
        f'hls = "127.0.0.1:{ports["hls"]}"',
        f'webrtc = "127.0.0.1:{ports["webrtc"]}"',
        f'webrtc_udp = "127.0.0.1:{pick_port(0, socket.SOCK_DGRAM)}"',
    ]
    for camera, path in zip(_CAMERAS, _PATHS, strict=True):
        lines += ["[[camera]]", f'name = "{camera}"', 'source = "test"', *([f'path = "{path}"'] if path else [])]
    (conf / "demo.toml").write_text("\n".join(lines) + "\n")
    return Box(state, conf, ports, binary)


def pick_port(wanted: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """`wanted` if it is free on loopback, else one that is."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


@asynccontextmanager
async def run_daemon(box: Box, *, quiet: bool) -> AsyncIterator[Child]:
    """A daemon of its own process; its log goes to the terminal, or with `quiet` to a file in its folder.

    It ends with this process, whatever ends that: from the main thread, so that setpriv's signal means this process.
    """
    guard = [found, "--pdeathsig", "TERM", "--"] if (found := shutil.which("setpriv")) else []
    command = [*guard, sys.executable, "-m", "edged", "serve", "--directory", str(box.config)]
    with (box.config.parent / "edged.log").open("wb") as log:
        out = log if quiet else None
        process = _start(command, out)
    daemon = Child(process, "edged serve", None, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.wait)
        try:
            yield daemon
        finally:
            with trio.CancelScope(shield=True):
                await daemon.stop(15)


def _start(command: list[str], out: IO[bytes] | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)


async def serve(box: Box, daemon: Child) -> int:
    """Print where to look, a key and the lines to try; then wait for the daemon's end."""
    await wait_ready(box, daemon)
    key = (await make_key(box, "demo", "admin"))["api_key"]
    await call_local(box, "create_demo_login", {})
    print("\n".join(describe(box, key)), flush=True)
    return await daemon.wait()


def describe(box: Box, key: str) -> list[str]:
    """What a reader can do now, the nearest first; nothing that this machine lacks the program for."""
    at = f"http://127.0.0.1:{box.main}"
    socket_path = box.config.parent / "run" / "edged.sock"
    lines = ["", f"Open this in a browser, and give it the key below:  {at}/", "", f"  {key}", ""]
    if box.mediamtx is None:
        lines += ["MediaMTX was not found: pictures come from edged itself; scripts/get-mediamtx fetches it.", ""]
    lines += [
        "In another terminal:",
        "",
        f"  export EDGED_SOCKET={socket_path}    # for the commands: edged key list, edged session list",
    ]
    if shutil.which("ffplay") and box.mediamtx is not None:
        lines.append(f"  ffplay -rtsp_transport tcp rtsp://demo:{key}@127.0.0.1:{box.ports['rtsp']}/camera0")
    if shutil.which("curl"):
        if shutil.which("ffplay"):
            lines.append(f"  curl -sH 'X-API-Key: {key}' {at}/api/cameras/camera0/live.mjpeg | ffplay -f mpjpeg -")
        lines += [
            f"  curl -H 'X-API-Key: {key}' {at}/api/keys",
            f"  curl {at}/api/token -d 'username=demo&password=demo'    # a token for streams, on this machine only",
            f"  curl http://127.0.0.1:{box.ports['local']}/metrics",
        ]
    lines.append(f"  rm '{box.plug(_CAMERAS[0])}'    # unplugs a camera; touch plugs it in again")
    return [*lines, "", "Ctrl-C stops it."]


async def play(box: Box, daemon: Child) -> int:
    """The story, step by step; 0 only if every step that could run held."""
    story = Story()
    facts: dict[str, Any] = {}
    missing = "" if box.mediamtx else "mediamtx not found"
    began = time.perf_counter()

    async def ready() -> str:
        await wait_ready(box, daemon)
        return f"{time.perf_counter() - began:.2f} s after its start"

    if not await story.step("the daemon starts and is ready", ready):
        print((box.config.parent / "edged.log").read_text()[-4000:])
        return finish(story)

    async def create() -> str:
        facts["key"] = await make_key(box, "viewer", "operator")
        return str(facts["key"]["key_id"])

    if not await story.step("a key is created", create):
        return finish(story)
    key = facts["key"]["api_key"]

    async with trio.open_nursery() as nursery:
        connection = await connect_websocket_url(nursery, f"ws://127.0.0.1:{box.main}/ws")
        client = Client(connection)
        nursery.start_soon(client.read)

        async def authenticate() -> str:
            result = await client.call("authenticate", {"auth_token": key, "auth_type": "api_key"})
            expect(result.get("authenticated") is True, f"answered {result}")
            await client.call("subscribe_events", {"topics": ["camera_status_update"]})
            return f"as {result['role']}"

        async def list_cameras() -> str:
            listed = await client.call("get_camera_list")
            expect(listed["total"] == 2 and listed["connected"] == 2, f"answered {listed}")
            return ", ".join(f"{row['device']} ({row['name']})" for row in listed["cameras"])

        async def snapshot() -> str:
            taken = await client.call("take_snapshot", {"device": "camera0"})
            data = await fetch(box.main, taken["download_url"], key)
            expect(len(data) == taken["file_size"], f"{len(data)} bytes came, {taken['file_size']} were promised")
            pixels = await decode_gray(data)
            expect(len(set(pixels)) > 8, "the picture is one colour")
            return f"{len(data)} bytes, {len(set(pixels))} shades"

        async def replug() -> str:
            plug = box.plug(_CAMERAS[1])
            seen = []
            for change in (plug.unlink, plug.touch):
                change()
                news = await client.notification("camera_status_update")
                seen.append(str(news["status"]))
            expect(seen == ["DISCONNECTED", "CONNECTED"], f"saw {seen}")
            return " then ".join(seen)

        picture = Picture(box.main, "camera0", key)

        async def watch() -> str:
            await nursery.start(picture.run)
            different = await picture.wait_for(_FRAMES)
            return f"{different} different frames"

        async def refuse() -> str:
            status = await status_of(
                box.main, "GET", "/api/cameras/camera0/live.mjpeg", "camera_service_sk_" + "0" * 64
            )
            expect(status == 401, f"HTTP {status}")
            async with open_websocket_url(f"ws://127.0.0.1:{box.main}/ws") as other:
                await other.send_message('{"jsonrpc":"2.0","id":1,"method":"get_camera_list"}')
                error = json.loads(await other.get_message()).get("error", {})
            expect(error.get("code") == -32001, f"answered {error}")
            return "HTTP 401, JSON-RPC -32001"

        async def metrics() -> str:
            text = (await fetch(box.ports["local"], "/metrics")).decode()
            counted = [
                line
                for line in text.splitlines()
                if line.startswith(("edged_auth_failures_total{", "edged_token_uses_total{"))
                and not line.endswith(" 0.0")
            ]
            expect(any('reason="unknown_key"' in line for line in counted), "the wrong key was not counted")
            expect(
                any('method="api_key"' in line and "uses" in line for line in counted), "the key's use was not counted"
            )
            return f"{len(counted)} series moved"

        await story.step("it authenticates over WebSocket", authenticate)
        await story.step("both cameras are listed", list_cameras)
        await story.step("a snapshot is a real picture", snapshot)
        await story.step("a camera is unplugged and plugged in again, and told", replug)
        await story.step("the live picture moves over HTTP", watch)
        rtsp = RtspViewer(box.ports["rtsp"], "camera0", key)
        await story.step("the live picture moves over RTSP", partial(rtsp.start, nursery), unless=missing)
        await story.step("a wrong key and a stranger are refused", refuse)
        await story.step(
            "a stranger is refused over RTSP", partial(refused_over_rtsp, box.ports["rtsp"]), unless=missing
        )
        await story.step("metrics counted it", metrics)

        async def revoke() -> str:
            began = time.perf_counter()
            await revoke_key(box, facts["key"]["key_id"])
            facts["revoked_at"] = time.perf_counter()
            return f"durable after {1000 * (facts['revoked_at'] - began):.0f} ms"

        if await story.step("the key is revoked", revoke):
            since = facts["revoked_at"]

            async def session_ends() -> str:
                code = await client.wait_closed()
                expect(code == 4401, f"close code {code}")
                return f"close code {code}, {1000 * max(0.0, client.closed_at - since):.0f} ms after the reply"

            async def picture_ends() -> str:
                await picture.ended.wait()
                return f"{1000 * max(0.0, picture.ended_at - since):.0f} ms after the reply"

            async def stream_ends() -> str:
                await rtsp.ended.wait()
                return f"{1000 * max(0.0, rtsp.ended_at - since):.0f} ms after the reply"

            await story.step("its session is closed", session_ends)
            await story.step("its picture over HTTP ends", picture_ends)
            await story.step("its stream over RTSP ends", stream_ends, unless=missing)
        nursery.cancel_scope.cancel()
    return finish(story)


def finish(story: Story) -> int:
    """The last line, and the exit code."""
    print(f"{story.passed} passed, {story.failed} failed, {story.not_run} not run", flush=True)
    return 1 if story.failed else 0


def expect(holds: bool, otherwise: str) -> None:
    """Raises StepFailed with what was seen."""
    if not holds:
        raise StepFailed(otherwise)


async def wait_ready(box: Box, daemon: Child) -> None:
    """Until /health/ready says so. Raises StepFailed when the daemon ends or stays silent."""
    with trio.move_on_after(_START_SECONDS):
        while daemon.returncode is None:
            with suppress(OSError):
                if await status_of(box.main, "GET", "/health/ready") == 200:
                    return
            await trio.sleep(0.02)
    raise StepFailed(f"not ready after {_START_SECONDS:.0f} s; exit code {daemon.returncode}")


async def make_key(box: Box, name: str, role: str) -> dict[str, Any]:
    """A key, made over the unix socket as the command line does."""
    body = await call_local(box, "create_key", {"name": name, "role": role})
    expect("api_key" in body, f"answered {body}")
    return body


async def revoke_key(box: Box, key_id: str) -> None:
    await call_local(box, "revoke_key", {"key_id": key_id})


async def call_local(box: Box, method: str, params: Mapping[str, object]) -> dict[str, Any]:
    """One call over the unix socket, where the file mode has let us in."""
    from edged.cli.client import connect

    async with connect(box.config.parent / "run" / "edged.sock") as client:
        result: dict[str, Any] = await client.call(method, params)
        return result


def _request(port: int, method: str, path: str, key: str | None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    connection.request(method, path, headers={"X-API-Key": key} if key else {})
    return connection.getresponse()


async def status_of(port: int, method: str, path: str, key: str | None = None) -> int:
    """The status of one answer, whose body is not read."""

    def ask() -> int:
        with _request(port, method, path, key) as response:
            return response.status

    return await trio.to_thread.run_sync(ask)


async def fetch(port: int, path: str, key: str | None = None) -> bytes:
    """The body of a 200 answer. Raises StepFailed otherwise."""

    def ask() -> tuple[int, bytes]:
        with _request(port, "GET", path, key) as response:
            return response.status, response.read()

    status, body = await trio.to_thread.run_sync(ask)
    expect(status == 200, f"HTTP {status} for {path}: {body[:200]!r}")
    return body


class Client:
    """JSON-RPC over one WebSocket: replies by id, notifications in order."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._replies: dict[int, Any] = {}
        self._news: list[Any] = []
        self._arrived = trio.Condition()
        self._closed = trio.Event()
        self._serial = 0
        self.closed_at = 0.0

    async def read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._connection.get_message())
                async with self._arrived:
                    if "id" in message:
                        self._replies[message["id"]] = message
                    else:
                        self._news.append(message)
                    self._arrived.notify_all()
        self.closed_at = time.perf_counter()
        self._closed.set()

    async def call(self, method: str, params: Mapping[str, object] | None = None) -> Any:
        """The result. Raises StepFailed for an error."""
        self._serial += 1
        ident = self._serial
        await self._connection.send_message(
            json.dumps({"jsonrpc": "2.0", "id": ident, "method": method, "params": params or {}})
        )
        async with self._arrived:
            while ident not in self._replies:
                await self._arrived.wait()
            reply = self._replies.pop(ident)
        expect("error" not in reply, f"{method} answered {reply.get('error')}")
        return reply["result"]

    async def notification(self, method: str) -> Any:
        """The params of the next notification of this method."""
        async with self._arrived:
            while True:
                for at, news in enumerate(self._news):
                    if news["method"] == method:
                        return self._news.pop(at)["params"]
                await self._arrived.wait()

    async def wait_closed(self) -> int:
        """The close code that the daemon sent."""
        await self._closed.wait()
        reason = self._connection.closed
        return int(reason.code) if reason else 0


class Picture:
    """A viewer of live.mjpeg: reads parts until the daemon ends it."""

    def __init__(self, port: int, camera: str, key: str) -> None:
        self._port, self._camera, self._key = port, camera, key
        self._frames: list[bytes] = []
        self._arrived = trio.Event()
        self.ended = trio.Event()
        self.ended_at = 0.0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        token = trio.lowlevel.current_trio_token()

        def note(data: bytes) -> None:
            if len(self._frames) < _FRAMES * 4:
                self._frames.append(data)
            self._arrived.set()

        def read() -> None:
            path = f"/api/cameras/{self._camera}/live.mjpeg?fps=10"
            with _request(self._port, "GET", path, self._key) as response:
                if response.status != 200:
                    return
                with suppress(http.client.HTTPException, OSError):
                    while (length := _read_part_head(response)) is not None:
                        data = response.read(length)
                        if len(data) < length:
                            return
                        token.run_sync_soon(note, data)

        task_status.started()
        try:
            await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        finally:
            self.ended_at = time.perf_counter()
            self.ended.set()

    async def wait_for(self, count: int) -> int:
        """Until so many different pictures were decoded; returns how many were."""
        while True:
            if len(self._frames) >= count:
                different = len(await decode_hashes(b"".join(self._frames)))
                if different >= count:
                    return different
            expect(not self.ended.is_set(), f"it ended after {len(self._frames)} frames")
            self._arrived = trio.Event()
            with trio.move_on_after(1):
                await self._arrived.wait()


def _read_part_head(response: http.client.HTTPResponse) -> int | None:
    """Content-Length of the next part; None at the end."""
    length = None
    while line := response.readline():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
        elif line in (b"\r\n", b"\n") and length is not None:
            return length
    return None


class RtspViewer:
    """ffmpeg watching over RTSP; it prints a hash of each decoded frame."""

    def __init__(self, port: int, path: str, key: str) -> None:
        # A player's URL stands in its argument list; this key lives as long as this story.
        self._url = f"rtsp://viewer:{key}@127.0.0.1:{port}/{path}"
        self._hashes: set[bytes] = set()
        self._arrived = trio.Event()
        self.ended = trio.Event()
        self.ended_at = 0.0

    async def start(self, nursery: trio.Nursery) -> str:
        nursery.start_soon(self._run)
        while len(self._hashes) < _FRAMES:
            expect(not self.ended.is_set(), f"it ended after {len(self._hashes)} frames")
            self._arrived = trio.Event()
            with trio.move_on_after(1):
                await self._arrived.wait()
        return f"{len(self._hashes)} different frames"

    async def _run(self) -> None:
        command = [require_ffmpeg(), "-v", "error", "-rtsp_transport", "tcp", "-i", self._url, *_HASHES]
        try:
            process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                assert process.stdout is not None
                rest = b""
                async for data in process.stdout:
                    *lines, rest = (rest + data).split(b"\n")
                    self._hashes.update(line.rsplit(b",", 1)[-1].strip() for line in lines if not line.startswith(b"#"))
                    self._arrived.set()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
        finally:
            self.ended_at = time.perf_counter()
            self.ended.set()
            self._arrived.set()


_HASHES: Final = ("-map", "0:v", "-f", "framemd5", "-flush_packets", "1", "-")


def require_ffmpeg() -> str:
    """Raises StepFailed where there is none."""
    try:
        return find_ffmpeg()
    except EdgedError as problem:
        raise StepFailed(str(problem)) from None


async def _run_ffmpeg(arguments: list[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [require_ffmpeg(), "-v", "error", *arguments], stdin=data, capture_stdout=True, capture_stderr=True, check=False
    )


async def decode_hashes(jpegs: bytes) -> set[bytes]:
    """Hashes of the decoded frames of JPEGs one after another."""
    done = await _run_ffmpeg(["-f", "mjpeg", "-i", "pipe:0", *_HASHES], jpegs)
    return {line.rsplit(b",", 1)[-1].strip() for line in done.stdout.splitlines() if not line.startswith(b"#")}


async def decode_gray(jpeg: bytes) -> bytes:
    """A picture's pixels, one byte of brightness each. Raises StepFailed if it is none."""
    done = await _run_ffmpeg(
        ["-f", "mjpeg", "-i", "pipe:0", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"], jpeg
    )
    expect(len(done.stdout) > 0, f"not a picture: {done.stderr[-200:].decode(errors='replace')}")
    return done.stdout


async def refused_over_rtsp(port: int) -> str:
    """A viewer with a wrong key, and one without any, get no frame."""
    for login in (f"viewer:camera_service_sk_{'0' * 64}@", ""):
        url = f"rtsp://{login}127.0.0.1:{port}/camera0"
        done = await _run_ffmpeg(["-rtsp_transport", "tcp", "-i", url, "-frames:v", "1", *_HASHES])
        expect(done.returncode != 0 and b"401" in done.stderr, f"it was let in: {done.stderr[-200:]!r}")
    return "401 with a wrong key and without one"
