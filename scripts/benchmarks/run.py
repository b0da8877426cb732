"""Measure a running edged against bare servers, each pair in one run. Prints ratios, and the promises of README.md.

    scripts/bench [start] [calls] [slow] [hook] [auth] [idle] [revoke] [kill] [input] [durability]
                                          all of them without a name

The daemon runs on core 0, the load on core 1. CPU figures are user and system time of the server process alone.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, open_websocket_url

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))
from durability import bench_durability  # noqa: E402
from rtsp_client import RtspReader, RtspRefused  # noqa: E402

from edged.cli.client import connect  # noqa: E402
from edged.cli.demo import pick_port  # noqa: E402
from edged.mediamtx.settings import find_binary  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "bench-shared-secret-of-forty-characters!"


def pinned(core: int) -> Callable[[], None]:
    """For a child: stay on one core, where there is more than one."""
    cores = sorted(os.sched_getaffinity(0))
    return partial(os.sched_setaffinity, 0, {cores[core % len(cores)]})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_megabytes(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def children_of(pid: int) -> list[int]:
    """Every process whose parent is `pid`, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        mine = [child for child, its in parents.items() if its == parent]
        found += mine
        todo += mine
    return found


def find_mediamtx() -> str | None:
    return find_binary("", os.environ.get("PATH", "")).path


class Daemon:
    """An edged of its own folder and ports."""

    def __init__(self, folder: Path, *, cameras: int = 2, mediamtx: bool = True) -> None:
        self.folder, self.runtime = folder, folder / "run"
        self.port, self.local, self.rtsp = (pick_port(0) for _ in range(3))
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        conf = folder / "conf.d"
        conf.mkdir()
        lines = [
            f'[paths]\nstate = "{folder / "state"}"\nruntime = "{self.runtime}"',
            f'[listen]\nmain = ["127.0.0.1:{self.port}"]\ncompat = []\ntokens = []\nlocal = ["127.0.0.1:{self.local}"]',
            f'[auth.shared_secrets]\nbench = "{secret}"',
            f'[mediamtx]\nenabled = {str(mediamtx).lower()}\nrtsp = "127.0.0.1:{self.rtsp}"',
            f'hls = "127.0.0.1:{pick_port(0)}"\nwebrtc = "off"',
            *(f'[[camera]]\nname = "bench {number}"\nsource = "test"' for number in range(cameras)),
        ]
        (conf / "bench.toml").write_text("\n".join(lines) + "\n")
        self.conf = conf
        self.log = folder / "edged.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

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
            if "Traceback" in (log := daemon.log.read_text()):
                print("! a traceback stands in the daemon's log:\n" + log[-3000:])


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


def load(pid: int, kind: str, port: int, send: str, **options: object) -> dict[str, Any]:
    """One run of load.py beside the server `pid`; adds the server's CPU, µs a request."""
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    command = [sys.executable, str(HERE / "load.py"), kind, str(port), "--send", send, *words]
    before = cpu_seconds(pid)
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pinned(1))
    spent = cpu_seconds(pid) - before
    if done.returncode:
        raise SystemExit(f"load failed: {done.stderr[-2000:]}")
    result = json.loads(done.stdout)
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
    ratio = cpu["ours"] / cpu["bare"]
    print(
        f"{name}: {ratio:.2f} times bare (limit {limit}): {cpu['ours']:.1f} against {cpu['bare']:.1f} µs of CPU a call, "
        f"{rounds} rounds, client at most {client:.0f} % of its core, {errors} errors",
        flush=True,
    )
    return ratio


def bench_start(_: argparse.Namespace) -> None:
    """exec → first ping, beside `python -c 'import trio'`."""
    ours, imports = [], []
    for _round in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import trio"], check=True, preexec_fn=pinned(0))
        imports.append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            daemon = Daemon(Path(folder), mediamtx=False)
            ours.append(daemon.start())
            daemon.stop()
    ratio = statistics.median(ours) / statistics.median(imports)
    print(
        f"start: {ratio:.1f} times `import trio` (limit 5): {statistics.median(ours):.2f} s "
        f"({min(ours):.2f}-{max(ours):.2f}) to the first ping, import {statistics.median(imports):.2f} s, 7 rounds"
    )


def authentication(daemon: Daemon, role: str = "viewer") -> tuple[str, str]:
    """The text of an `authenticate` call with a new key; and the key."""
    key = trio.run(partial(daemon.call, "create_key", name="bench", role=role))["api_key"]
    return request("authenticate", auth_token=key), key


def request(method: str, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "id": 1} | ({"params": params} if params else {}))


def bench_calls(args: argparse.Namespace) -> None:
    """ping and get_camera_list at 50 connections."""
    with running(cameras=4, mediamtx=False) as daemon, tempfile.TemporaryDirectory() as folder:
        first, _ = authentication(daemon)
        for method, limit in (("ping", 1.6), ("get_camera_list", 1.4)):
            answer = Path(folder) / f"{method}.json"
            answer.write_bytes(trio.run(partial(raw_result, daemon, first, method)))
            with bare("bare_websocket", str(answer)) as (pid, port):
                options = {"connections": 50, "seconds": args.seconds}
                compare(
                    f"{method} at 50 connections",
                    args.rounds,
                    partial(load, daemon.pid, "ws", daemon.port, request(method), first=first, **options),
                    partial(load, pid, "ws", port, request(method), **options),
                    limit,
                )


async def raw_result(daemon: Daemon, first: str, method: str) -> bytes:
    """The exact bytes of `result` in an answer."""
    async with open_websocket_url(f"ws://127.0.0.1:{daemon.port}/ws") as connection:
        await connection.send_message(first)
        await connection.get_message()
        await connection.send_message(request(method))
        text: str = await connection.get_message()
    begin = text.index('"result":') + len('"result":')
    result, _ = json.JSONDecoder().raw_decode(text[begin:])
    end = json.JSONDecoder().raw_decode(text, begin)[1]
    assert json.loads(text[begin:end]) == result
    return text[begin:end].encode()


def bench_slow(args: argparse.Namespace) -> None:
    """A client that stops reading: what the others feel."""
    with running(cameras=4, mediamtx=False) as daemon:
        first, _ = authentication(daemon)
        rounds = 15
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        measure = partial(
            load, daemon.pid, "ws", daemon.port, request("get_camera_list"), first=first, connections=20, seconds=5
        )
        for number in range(rounds):
            results: dict[bool, dict[str, Any]] = {}
            for stalled in random.sample([True, False], 2):
                with stalling(daemon, first) if stalled else nothing():
                    results[stalled] = measure()
            pairs.append((results[True], results[False]))
            print(
                f"  round {number + 1}: p99 {results[True]['p99_ms']:.1f} / {results[False]['p99_ms']:.1f} ms",
                flush=True,
            )
        for name, limit in (("p99_ms", 1.3), ("cpu_us", 1.2)):
            ratio = statistics.median(with_[name] / without[name] for with_, without in pairs)
            print(
                f"slow reader, {name} of the others: {ratio:.2f} times (limit {limit}), median of {rounds} rounds",
                flush=True,
            )


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def stalling(daemon: Daemon, first: str) -> Iterator[None]:
    """One client that asks and does not read."""
    command = [
        sys.executable, str(HERE / "load.py"), "stall", str(daemon.port), "--send", request("get_camera_list"),
        "--first", first, "--connections", "1", "--seconds", "60",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=pinned(1))
    time.sleep(0.3)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def question(**fields: str) -> str:
    """A question as MediaMTX asks it."""
    base = {
        "user": "", "password": "", "token": "", "ip": "127.0.0.1", "action": "read", "path": "camera0",
        "protocol": "rtsp", "id": "6e3b3a4e-0000-4000-8000-000000000000", "query": "", "userAgent": "",
    }  # fmt: skip
    return json.dumps(base | fields)


def sign(claims: dict[str, object]) -> str:
    """An HS256 token, by hand: an implementation other than the daemon's."""

    def encode(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{encode(claims)}"
    mac = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def bench_hook(args: argparse.Namespace) -> None:
    """MediaMTX's question: empty, with an API key, with a token."""
    with running(cameras=2) as daemon, bare("bare_hook") as (pid, port):
        trio.run(daemon.wait_media)
        address = hook_address(daemon)
        _, key = authentication(daemon)
        token = sign({"user_id": "bench", "role": "viewer", "iat": int(time.time()), "exp": int(time.time()) + 3600})
        hook_port, path = int(address.split(":")[2].split("/")[0]), "/" + address.split("/", 3)[3]
        ratios = []
        for name, text in (
            ("empty", question()),
            ("API key", question(user="viewer", password=key, token=key)),
            ("HS256", question(token=token)),
        ):
            options = {"connections": 16, "seconds": args.seconds}
            ratios.append(
                compare(
                    f"hook, {name} question",
                    args.rounds,
                    partial(load, daemon.pid, "post", hook_port, text, path=path, **options),
                    partial(load, pid, "post", port, text, **options),
                    1.45,
                )
            )
        print(f"hook: {statistics.mean(ratios):.2f} times bare (limit 1.45), mean of the three", flush=True)


def hook_address(daemon: Daemon) -> str:
    """Where MediaMTX was told to ask: its settings lie in the daemon's runtime folder."""
    for file in daemon.runtime.rglob("*"):
        if file.is_file() and b"authHTTPAddress" in (data := file.read_bytes()):
            return str(json.loads(data)["authHTTPAddress"])
    raise SystemExit("MediaMTX's settings were not found in the runtime folder")


def bench_auth(args: argparse.Namespace) -> None:
    """A key at the gate, beside its hash and look-up; a token, beside joserfc's decode of it. CPU of this process."""
    from joserfc import jwt

    from edged.access.admissions import Admissions
    from edged.access.gate import Gate
    from edged.access.ledger import Ledger
    from edged.clock import Clock
    from edged.credentials import api_keys, tokens
    from edged.credentials.callers import ApiKey
    from edged.credentials.claims import Trust
    from edged.credentials.signing_keys import ALGORITHMS, PrivateKey, VerifyingKey, generate, public_part, read_key
    from edged.metrics import Metrics

    ledger, now = Ledger(), time.time()
    made = [api_keys.mint() for _ in range(1000)]
    for key_id, _, digest in made:
        ledger.put_key(api_keys.KeyRecord(key_id=key_id, name="bench", role="viewer", digest=digest, created_at=now))
    gate = Gate(ledger, Admissions(monotonic=time.monotonic), Clock(monotonic=time.monotonic), Metrics({}))
    text, known_keys = made[500].secret, {key.digest: key for key in made}
    ours, plain = [], []
    for _ in range(max(args.rounds, 7)):
        ours.append(cpu_each(lambda: gate.authenticate(ApiKey(text), "ws"), 20_000))
        plain.append(cpu_each(lambda: known_keys[hashlib.sha256(text.encode()).digest()], 20_000))
    above = statistics.median(ours) - statistics.median(plain)
    print(
        f"auth, API key: {above:.1f} µs of CPU above hash and look-up (limit 5): {statistics.median(ours):.1f} against "
        f"{statistics.median(plain):.1f}, among 1000 keys, {len(ours)} rounds",
        flush=True,
    )
    secret = tokens.SharedSecret("bench", SECRET)
    claims = tokens.issue_claims(
        "bench", role="viewer", now=now, expires_in=3600, permissions=["camera:read"], camera_access=["camera0"]
    )
    cases: list[tuple[str, Any, dict[str, VerifyingKey]]] = [("HS256", secret, {})]
    for algorithm in ALGORITHMS:
        pair = generate(algorithm)
        public = VerifyingKey("key-1", algorithm, read_key(public_part(pair)), Trust(frozenset({"edged"})))
        cases.append((algorithm, PrivateKey("key-1", algorithm, read_key(pair)), {"key-1": public}))
    for name, key, known in cases:
        text = tokens.sign(claims | ({"iss": "edged"} if known else {}), key)
        verify = partial(tokens.verify, text, [secret], now=now, find_key=known.get)
        decode = partial(jwt.decode, text, known["key-1"].key if known else secret.key, algorithms=[name])
        ours, library = [], []
        for _ in range(max(args.rounds, 7)):
            ours.append(cpu_each(verify))
            library.append(cpu_each(decode))
        ratio = statistics.median(ours) / statistics.median(library)
        print(
            f"auth, {name} token: {ratio:.2f} times joserfc's decode (limit 1.5): {statistics.median(ours):.1f} "
            f"against {statistics.median(library):.1f} µs of CPU, {len(ours)} rounds, {len(text)} characters",
            flush=True,
        )


def cpu_each(work: Callable[[], object], times: int = 2000) -> float:
    """CPU of this process, µs a call."""
    began = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - began) / times


def bench_idle(args: argparse.Namespace) -> None:
    """Memory and CPU of a daemon that nobody asks."""
    with running(cameras=2) as daemon:
        if find_mediamtx() is not None:
            trio.run(daemon.wait_media)
        time.sleep(3)
        before = cpu_seconds(daemon.pid)
        time.sleep(60)
        share = 100 * (cpu_seconds(daemon.pid) - before) / 60
        print(
            f"idle: {resident_megabytes(daemon.pid):.1f} MB resident (limit 60), {share:.2f} % of a core over 60 s (limit 0.5)"
        )


def bench_revoke(args: argparse.Namespace) -> None:
    """Revoke → the RTSP viewer's stream ends, with eight others coming and going."""
    if find_mediamtx() is None:
        print("revoke: not run: mediamtx not found")
        return
    with running(cameras=3) as daemon:
        trio.run(partial(_revoke, daemon, args.tries))


@dataclass
class Try:
    """One revocation. Seconds: from the call to the viewer's end; from the reply to the end of what was in flight."""

    stream_ended: float = 99.0
    handshake_ended: float = 99.0
    admitted_after: int = 0
    readers_left: int = -1


async def _revoke(daemon: Daemon, tries: int) -> None:
    await daemon.wait_media()
    others = (await daemon.call("create_key", name="others", role="viewer"))["api_key"]
    came: list[int] = []
    results: list[Try] = []
    async with trio.open_nursery() as nursery:
        warm = [RtspReader(daemon.rtsp, path, "warm", others) for path in ("camera0", "camera1", "camera2")]
        for reader in warm:
            await reader.play()
            nursery.start_soon(reader.wait_end)
        for _ in range(8):
            nursery.start_soon(come_and_go, daemon.rtsp, others, came)
        # MediaMTX lets whoever showed a wrong credential wait up to 4 s: they wait in a nursery of their own.
        async with trio.open_nursery() as waiting:
            for _ in range(tries):
                results.append(await revoke_once(daemon, waiting))
        nursery.cancel_scope.cancel()
    took = sorted(1000 * result.stream_ended for result in results)
    flights = [1000 * result.handshake_ended for result in results]
    print(
        f"revoke: p99 {took[math.ceil(0.99 * len(took)) - 1]:.0f} ms (limit 100), median {statistics.median(took):.0f}, "
        f"worst {took[-1]:.0f}, over {tries} tries while {len(came)} others came and went;\n"
        f"  {sum(result.admitted_after for result in results)} admissions after the reply (limit 0); "
        f"of the handshakes in flight {sum(time > 0 for time in flights)} were let in before it, "
        f"gone at most {max(flights):.0f} ms after it (limit 1000); "
        f"still listed after their end: {sum(result.readers_left != 1 for result in results)} (limit 0)",
        flush=True,
    )


async def come_and_go(port: int, key: str, came: list[int]) -> None:
    """A viewer that reconnects for ever."""
    while True:
        reader = RtspReader(port, "camera1", "others", key)
        with suppress(OSError, RtspRefused):
            await reader.play()
            await reader.wait_packet()
            came.append(1)
        await reader.aclose()


async def revoke_once(daemon: Daemon, waiting: trio.Nursery) -> Try:
    """A viewer, another whose handshake is in flight, the revocation, and one that comes too late."""
    result = Try()
    key = await daemon.call("create_key", name="viewer", role="viewer")
    viewer = RtspReader(daemon.rtsp, "camera0", "viewer", key["api_key"])
    await viewer.play()
    await viewer.wait_packet()
    ended = trio.Event()

    async def watch() -> None:
        await viewer.wait_end()
        result.stream_ended = time.perf_counter() - began
        ended.set()

    async def fly() -> None:
        flight = RtspReader(daemon.rtsp, "camera2", "viewer", key["api_key"])
        result.handshake_ended = 0.0
        with suppress(OSError, RtspRefused):
            await flight.play()
            await flight.wait_end()
            result.handshake_ended = max(0.001, time.perf_counter() - replied)
        await flight.aclose()

    async def come_late() -> None:
        late = RtspReader(daemon.rtsp, "camera2", "viewer", key["api_key"])
        with suppress(OSError, RtspRefused):
            await late.play()
            result.admitted_after = 1
        await late.aclose()

    waiting.start_soon(watch)
    replied = math.inf
    waiting.start_soon(fly)
    await trio.sleep(random.random() * 0.006)
    began = time.perf_counter()
    await daemon.call("revoke_key", key_id=key["key_id"])
    replied = time.perf_counter()
    waiting.start_soon(come_late)
    with trio.move_on_after(5):
        await ended.wait()
    streams = await daemon.call("get_streams")
    result.readers_left = next(stream["readers"] for stream in streams if stream["name"] == "camera0")
    await viewer.aclose()
    return result


def bench_kill(args: argparse.Namespace) -> None:
    """`kill -9` of edged leaves nothing; `kill -9` of MediaMTX is mended."""
    if find_mediamtx() is None:
        print("kill: not run: mediamtx not found")
        return
    with running(cameras=2) as daemon:
        trio.run(partial(_kill_mediamtx, daemon))
        children = children_of(daemon.pid)
        began = time.perf_counter()
        os.kill(daemon.pid, signal.SIGKILL)
        assert daemon.process is not None
        daemon.process.wait()
        while any(alive(child) for child in children) and time.perf_counter() - began < 10:
            time.sleep(0.005)
        left = sum(map(alive, children))
        print(
            f"kill -9 of edged: {left} of {len(children)} children left after {1000 * (time.perf_counter() - began):.0f} ms (limit 2000)"
        )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


async def _kill_mediamtx(daemon: Daemon) -> None:
    await daemon.wait_media()
    key = (await daemon.call("create_key", name="viewer", role="viewer"))["api_key"]
    reader = RtspReader(daemon.rtsp, "camera0", "viewer", key)
    await reader.play()
    await reader.wait_packet()
    server = next(pid for pid in children_of(daemon.pid) if "mediamtx" in Path(f"/proc/{pid}/cmdline").read_text())
    began = time.perf_counter()
    os.kill(server, signal.SIGKILL)
    await reader.aclose()
    with trio.fail_after(30):
        while True:
            again = RtspReader(daemon.rtsp, "camera0", "viewer", key)
            try:
                await again.play()
                await again.wait_packet()
                break
            except (OSError, RtspRefused):
                await trio.sleep(0.02)
            finally:
                await again.aclose()
    seconds = time.perf_counter() - began
    names = sorted(stream["name"] for stream in await daemon.call("get_streams"))
    print(f"kill -9 of MediaMTX: streams back after {seconds:.2f} s (limit 5), paths {names}", flush=True)


def bench_input(args: argparse.Namespace) -> None:
    """Two times 10,000 random JSON documents; memory after each."""
    with running(cameras=2, mediamtx=False) as daemon:
        first, _ = authentication(daemon)
        sizes = []
        for seed in range(2):
            trio.run(partial(_throw, daemon, first, seed))
            sizes.append(resident_megabytes(daemon.pid))
        trace = "Traceback" in daemon.log.read_text()
        print(
            f"input: {sizes[0]:.2f} MB after 10,000 random documents, {sizes[1] - sizes[0]:+.2f} MB after 10,000 more (limit 1); traceback in the log: {trace}"
        )


async def _throw(daemon: Daemon, first: str, seed: int) -> None:
    rng = random.Random(seed)
    sent = 0
    while sent < 10_000:
        async with open_websocket_url(f"ws://127.0.0.1:{daemon.port}/ws") as connection:
            await connection.send_message(first)
            await connection.get_message()
            with suppress(ConnectionClosed):
                for _ in range(100):
                    await connection.send_message(
                        json.dumps(
                            {"jsonrpc": "2.0", "id": sent, "method": "ping"} if rng.random() < 0.1 else document(rng, 0)
                        )
                    )
                    sent += 1
                await connection.send_message('{"jsonrpc":"2.0","id":"last","method":"ping"}')
                while json.loads(await connection.get_message()) != {"jsonrpc": "2.0", "result": "pong", "id": "last"}:
                    pass


def document(rng: random.Random, depth: int) -> object:
    """Any JSON value, often one that looks like a call."""
    kind = rng.randrange(9 if depth < 4 else 5)
    if kind < 5:
        return [
            None,
            rng.random() < 0.5,
            rng.randrange(-(2**70), 2**70),
            rng.random() * 1e300,
            "x" * rng.randrange(40),
        ][kind]
    if kind == 5:
        return [document(rng, depth + 1) for _ in range(rng.randrange(5))]
    names = ["jsonrpc", "id", "method", "params", "result", "device", "auth_token", "é\u0000"]
    values = ["2.0", "ping", "get_camera_list", "take_snapshot", "authenticate", "camera0"]
    return {
        rng.choice(names): rng.choice(values) if rng.random() < 0.5 else document(rng, depth + 1)
        for _ in range(rng.randrange(6))
    }


BENCHES = {
    "start": bench_start,
    "calls": bench_calls,
    "slow": bench_slow,
    "hook": bench_hook,
    "auth": bench_auth,
    "idle": bench_idle,
    "revoke": bench_revoke,
    "kill": bench_kill,
    "input": bench_input,
    "durability": bench_durability,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="which to run; all without one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of one round")
    parser.add_argument("--tries", type=int, default=200, help="revocations to measure")
    parser.add_argument("--cycles", type=int, default=1000, help="kills of durability")
    args = parser.parse_args()
    for name in args.names or BENCHES:
        BENCHES[name](args)


if __name__ == "__main__":
    main()
