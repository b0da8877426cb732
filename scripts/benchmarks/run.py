"""Measure a running edged against bare servers, each pair in one run. Prints ratios, and the promises of docs/promises.md.

    scripts/bench [start] [calls] [slow] [hook] [auth] [idle] [revoke] [kill] [input] [durability]
                  [hostile] [ended] [library] [media]
                                          all of them without a name; library takes a minute,
                                          media 13 minutes, with --tries 3 three
    scripts/bench --beside COMMIT         this tree beside an older one, with what two runs of the older one differ by

The daemon runs on core 0, the load on core 1. CPU figures are user and system time of the server process alone.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

# What the benches share with the tests.
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))
from auth import bench_auth
from beside import bench_beside
from durability import bench_durability
from ended import bench_ended
from hostile import WITH_CREDENTIAL, WITHOUT_CREDENTIAL, bench_hostile
from library import bench_library
from measure import (
    HERE,
    Daemon,
    NotRun,
    authentication,
    bare,
    compare,
    hook_address,
    load,
    pinned,
    question,
    raw_result,
    request,
    resident_megabytes,
    running,
    sign,
)  # fmt: skip
from media import bench_media
from rtsp_client import RtspReader, RtspRefused
from start import bench_idle, bench_start
from trio_websocket import ConnectionClosed, open_websocket_url

from edged.mediamtx.settings import find_binary


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


def bench_calls(args: argparse.Namespace) -> None:
    """ping and get_camera_list at 50 connections."""
    with running(cameras=4, mediamtx=False) as daemon, tempfile.TemporaryDirectory() as folder:
        first, _ = authentication(daemon)
        for method, limit in (("ping", 1.6), ("get_camera_list", 1.4)):
            answer = Path(folder) / f"{method}.json"
            answer.write_bytes(trio.run(partial(raw_result, daemon, first, request(method))))
            with bare("bare_websocket", str(answer)) as (pid, port):
                options = {"connections": 50, "seconds": args.seconds}
                compare(
                    f"{method} at 50 connections",
                    args.rounds,
                    partial(load, daemon.pid, "ws", daemon.port, request(method), first=first, **options),
                    partial(load, pid, "ws", port, request(method), **options),
                    limit,
                )


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


def bench_hook(args: argparse.Namespace) -> None:
    """MediaMTX's question: empty, with an API key, with a token."""
    if find_mediamtx() is None:
        raise NotRun("mediamtx not found")
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


def bench_revoke(args: argparse.Namespace) -> None:
    """Revoke → the RTSP viewer's stream ends, with eight others coming and going."""
    if find_mediamtx() is None:
        raise NotRun("mediamtx not found")
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
        raise NotRun("mediamtx not found")
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
    "hostile": bench_hostile,
    "ended": bench_ended,
    "library": bench_library,
    "media": bench_media,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="which to run; all without one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of one round")
    parser.add_argument("--tries", type=int, default=200, help="revocations to measure; of media at most 30")
    parser.add_argument("--cycles", type=int, default=1000, help="kills of durability")
    parser.add_argument("--ended", type=int, default=10_000, metavar="KEYS", help="keys that ended revokes")
    parser.add_argument("--segments", type=int, default=100_000, help="segments in the index of library")
    parser.add_argument("--attack-seconds", type=float, default=60, help="length of one attack of hostile")
    attacks = [*WITHOUT_CREDENTIAL, *WITH_CREDENTIAL]
    parser.add_argument(
        "--attack", dest="attacks", action="append", choices=attacks, help="one of hostile's; all without"
    )
    parser.add_argument("--beside", metavar="COMMIT", help="compare this tree with an older commit instead")
    parser.add_argument(
        "--facts", action="store_true", help="what library and media measure decides nothing, only what is wrong"
    )
    args = parser.parse_args()
    args.with_media = find_mediamtx() is not None
    if args.beside:
        bench_beside(args)
        return 0
    not_run = 0
    names = args.names or list(BENCHES)
    for name in names:
        try:
            BENCHES[name](args)
        except NotRun as reason:
            print(f"{name}: not run: {reason}", flush=True)
            not_run += 1
    # 77: nothing of what was asked for can be tried on this machine.
    return 77 if not_run == len(names) else 0


if __name__ == "__main__":
    sys.exit(main())
