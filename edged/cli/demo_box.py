"""A box on loopback in a folder of its own: its settings, its daemon as a child, and calls on its unix socket."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import trio

from edged.children import Child
from edged.mediamtx.settings import find_binary

#: How the names of the folders of demos begin.
PREFIX: Final = "edged-demo-"
CAMERAS: Final = ("entrance", "workshop")
#: Their streams; "" is cameraN. The example of the MediaMTX token server asks for camera_one.
_PATHS: Final = ("", "camera_one")
_START_SECONDS: Final = 20.0


class StepFailed(Exception):
    """What was expected of the box did not hold; the sentence says what was seen instead."""


class Box(msgspec.Struct, frozen=True):
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


def expect(holds: bool, otherwise: str) -> None:
    """Raises StepFailed with what was seen."""
    if not holds:
        raise StepFailed(otherwise)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While the block runs, or until this process is killed, the folder is somebody's (see remove_abandoned)."""
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of demos that were killed: each is ours, and its lock is free."""
    for folder in parent.glob(f"{PREFIX}*"):
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
    for camera, path in zip(CAMERAS, _PATHS, strict=True):
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


def request(port: int, method: str, path: str, key: str | None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    connection.request(method, path, headers={"X-API-Key": key} if key else {})
    return connection.getresponse()


async def status_of(port: int, method: str, path: str, key: str | None = None) -> int:
    """The status of one answer, whose body is not read."""

    def ask() -> int:
        with request(port, method, path, key) as response:
            return response.status

    return await trio.to_thread.run_sync(ask)


async def fetch(port: int, path: str, key: str | None = None) -> bytes:
    """The body of a 200 answer. Raises StepFailed otherwise."""

    def ask() -> tuple[int, bytes]:
        with request(port, "GET", path, key) as response:
            return response.status, response.read()

    status, body = await trio.to_thread.run_sync(ask)
    expect(status == 200, f"HTTP {status} for {path}: {body[:200]!r}")
    return body
