"""What the benches share: a daemon of its own, bare servers, load from another core, and the comparison."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from edged.cli.client import connect
from edged.cli.demo_box import pick_port

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "bench-shared-secret-of-forty-characters!"


def pinned(core: int) -> Callable[[], None]:
    """For a child: stay on one core, where there is more than one."""
    cores = sorted(os.sched_getaffinity(0))
    return partial(os.sched_setaffinity, 0, {cores[core % len(cores)]})


def cpu_seconds(pid: int, *, with_children: bool = False) -> float:
    """User and system time of a process, and of its children that have ended and were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11 : 15 if with_children else 13])) / TICKS


def resident_megabytes(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


class NotRun(Exception):
    """What a bench needs is not on this machine."""


def expect(holds: object, otherwise: str) -> None:
    """Ends the run where something is wrong. Raises SystemExit."""
    if not holds:
        raise SystemExit(f"wrong: {otherwise}")


class Daemon:
    """An edged of its own folder and ports, on `host` beside loopback; `code` is the tree that runs (this one: None)."""

    def __init__(
        self,
        folder: Path,
        *,
        cameras: int = 2,
        mediamtx: bool = True,
        host: str = "",
        environment: Mapping[str, str] | None = None,
        code: Path | None = None,
        camera: str = "",
        more: str = "",
    ) -> None:
        """`camera`: further settings of each camera; `more`: further sections; both as in TOML."""
        self.folder, self.runtime = folder, folder / "run"
        self.port, self.local, self.rtsp = (pick_port(0) for _ in range(3))
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        conf = folder / "conf.d"
        conf.mkdir()
        main = [f"{each}:{self.port}" for each in ("127.0.0.1", host) if each]
        lines = [
            f'[paths]\nstate = "{folder / "state"}"\nruntime = "{self.runtime}"',
            f'[listen]\nmain = {json.dumps(main)}\ncompat = []\ntokens = []\nlocal = ["127.0.0.1:{self.local}"]',
            f'[auth.shared_secrets]\nbench = "{secret}"',
            f'[mediamtx]\nenabled = {str(mediamtx).lower()}\nrtsp = "127.0.0.1:{self.rtsp}"',
            f'hls = "127.0.0.1:{pick_port(0)}"\nwebrtc = "off"',
            more,
            *(f'[[camera]]\nname = "bench {number}"\nsource = "test"\n{camera}' for number in range(cameras)),
        ]
        (conf / "bench.toml").write_text("\n".join(lines) + "\n")
        self.conf = conf
        self.log = folder / "edged.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = os.environ | (environment or {})
        # python -m looks in the working directory first.
        self._code = code

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def media(self) -> Path:
        """The folder of recordings and pictures."""
        return self.folder / "state" / "media"

    @property
    def recordings(self) -> Path:
        return self.media / "recordings"

    async def count_unindexed(self) -> int:
        """How many closed files the index does not name as they are, or names and are not there, or have no seal."""
        found = {}
        for path in self.recordings.glob("camera*/*/*.mp4"):
            found[str(path.relative_to(self.recordings))] = path.stat().st_size
        with closing(sqlite3.connect(f"file:{self.folder}/state/usage.db?mode=ro", uri=True)) as connection:
            rows = dict(connection.execute("SELECT file, size FROM segments"))
        sealed = sum(Path(f"{self.recordings / name}.seal").exists() for name in found)
        return len(found.items() ^ rows.items()) + len(found) - sealed

    @property
    def socket(self) -> Path:
        return self.runtime / "edged.sock"

    def start(self) -> float:
        """Start it; returns the seconds from exec to the first answered ping."""
        began = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edged", "serve", "--directory", str(self.conf)],
                stdout=log, stderr=log, preexec_fn=pinned(0), start_new_session=True,
                env=self._environment, cwd=self._code,
            )  # fmt: skip
        trio.run(self._first_ping)
        return time.perf_counter() - began

    async def _first_ping(self) -> None:
        with trio.fail_after(30):
            while True:
                with suppress(OSError, ConnectionClosed):
                    stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                    await stream.aclose()
                    async with open_websocket_url(f"ws://127.0.0.1:{self.port}/ws") as connection:
                        await connection.send_message('{"jsonrpc":"2.0","id":1,"method":"ping"}')
                        assert json.loads(await connection.get_message())["result"] == "pong"
                        return
                await trio.sleep(0.005)

    async def call(self, method: str, **params: object) -> Any:
        async with connect(self.socket) as client:
            return await client.call(method, params)

    async def wait_media(self) -> None:
        """Until MediaMTX is ready."""
        with trio.fail_after(30):
            while (await self.call("get_system_status"))["mediamtx"]["status"] != "ready":
                await trio.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def running(**settings: Any) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
        daemon = Daemon(Path(folder), **settings)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            log = daemon.log.read_text()
            if "Traceback" in log:
                print("! a traceback stands in the daemon's log:\n" + log[-3000:])
        expect("Traceback" not in log, "a traceback stands in the daemon's log")


@contextmanager
def bare(name: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """A bare server; its pid and port."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), *arguments], stdout=subprocess.PIPE, preexec_fn=pinned(0)
    )
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def load(pid: int, kind: str, port: int, send: str | None = None, **options: object) -> dict[str, Any]:
    """One run of load.py beside the server `pid`; adds the server's CPU, µs a request."""
    options |= {"send": send}
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    command = [sys.executable, str(HERE / "load.py"), kind, str(port), *words]
    before = cpu_seconds(pid)
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pinned(1))
    spent = cpu_seconds(pid) - before
    if done.returncode:
        raise SystemExit(f"load failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"cpu_us": 1e6 * spent / max(1, result["requests"])}


def compare(
    name: str, rounds: int, ours: Callable[[], dict[str, Any]], bare: Callable[[], dict[str, Any]], limit: float
) -> float:
    """Interleaved rounds; prints medians and their ratio."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    kinds = {"ours": ours, "bare": bare}
    for _ in range(rounds):
        for kind in random.sample(sorted(kinds), 2):
            runs[kind].append(kinds[kind]())
    cpu = {kind: statistics.median(run["cpu_us"] for run in results) for kind, results in runs.items()}
    client = max(run["client_percent"] for results in runs.values() for run in results)
    errors = sum(run["errors"] for run in runs["ours"])
    ratio = float(cpu["ours"] / cpu["bare"])
    print(
        f"{name}: {ratio:.2f} times bare (limit {limit}): {cpu['ours']:.1f} against {cpu['bare']:.1f} µs of CPU a call, "
        f"{rounds} rounds, client at most {client:.0f} % of its core, {errors} errors",
        flush=True,
    )
    return ratio


def authentication(daemon: Daemon, role: str = "viewer") -> tuple[str, str]:
    """The text of an `authenticate` call with a new key; and the key."""
    key = trio.run(partial(daemon.call, "create_key", name="bench", role=role))["api_key"]
    return request("authenticate", auth_token=key), key


def request(method: str, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "id": 1} | ({"params": params} if params else {}))


def sign(claims: dict[str, object]) -> str:
    """An HS256 token, by hand: an implementation other than the daemon's."""

    def encode(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{encode(claims)}"
    mac = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


async def raw_result(daemon: Daemon, first: str, send: str) -> bytes:
    """The exact bytes of `result` in the answer to `send`, a call after the call `first`."""
    async with open_websocket_url(f"ws://127.0.0.1:{daemon.port}/ws") as connection:
        await connection.send_message(first)
        await connection.get_message()
        await connection.send_message(send)
        text = await connection.get_message()
    assert isinstance(text, str)
    begin = text.index('"result":') + len('"result":')
    result, _ = json.JSONDecoder().raw_decode(text[begin:])
    end = json.JSONDecoder().raw_decode(text, begin)[1]
    assert json.loads(text[begin:end]) == result
    return text[begin:end].encode()


def cpu_each(work: Callable[[], object], times: int = 2000) -> float:
    """CPU of this process, µs a call."""
    began = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - began) / times


def question(**fields: str) -> str:
    """A question as MediaMTX asks it."""
    base = {
        "user": "", "password": "", "token": "", "ip": "127.0.0.1", "action": "read", "path": "camera0",
        "protocol": "rtsp", "id": "6e3b3a4e-0000-4000-8000-000000000000", "query": "", "userAgent": "",
    }  # fmt: skip
    return json.dumps(base | fields)


def hook_address(daemon: Daemon) -> str:
    """Where MediaMTX was told to ask: its settings lie in the daemon's runtime folder."""
    for file in daemon.runtime.rglob("*"):
        if file.is_file() and b"authHTTPAddress" in (data := file.read_bytes()):
            return str(json.loads(data)["authHTTPAddress"])
    raise SystemExit("MediaMTX's settings were not found in the runtime folder")
