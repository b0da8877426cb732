"""What watches the box in the demo: a WebSocket client, a reader of live.mjpeg, and ffmpeg over RTSP."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from edged.cli.demo_box import StepFailed, expect, request
from edged.errors import EdgedError
from edged.mediamtx.ffmpeg import find_ffmpeg

#: Different pictures that show that a stream moves.
FRAMES: Final = 10
_HASHES: Final = ("-map", "0:v", "-f", "framemd5", "-flush_packets", "1", "-")


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
            if len(self._frames) < FRAMES * 4:
                self._frames.append(data)
            self._arrived.set()

        def read() -> None:
            path = f"/api/cameras/{self._camera}/live.mjpeg?fps=10"
            with request(self._port, "GET", path, self._key) as response:
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
        # A player's URL stands in its argument list; this key lives as long as this demo.
        self._url = f"rtsp://viewer:{key}@127.0.0.1:{port}/{path}"
        self._hashes: set[bytes] = set()
        self._arrived = trio.Event()
        self.ended = trio.Event()
        self.ended_at = 0.0

    async def start(self, nursery: trio.Nursery) -> str:
        nursery.start_soon(self._run)
        while len(self._hashes) < FRAMES:
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
