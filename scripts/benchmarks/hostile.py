"""What a viewer, the watchdog, the memory and an administrator feel while one address attacks.

A network namespace holds the daemon and the viewer, on one core; another holds the attacker (attacks.py), on the other
core: so the attacker has an address that is not exempt from limits, and nothing leaves this machine. Needs root.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from measure import HERE, Daemon, pinned, request, resident_megabytes, running, sign
from rtsp_client import RtspReader, RtspRefused
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

from edged.mediamtx.settings import find_binary

HOST, ATTACKER = "198.51.100.1", "198.51.100.2"
WATCHDOG_SECONDS = 30
CALL_PAUSE = 0.05
#: What each figure may be at most: p99 beside the quiet run; frames; seconds; MB; ms.
LIMITS = {
    "p99": 3.0,
    "lost": 0,
    "beat": WATCHDOG_SECONDS,
    "grown": 40.0,
    "left": 10.0,
    "socket": 100.0,
    "revoke": 200.0,
}
WITHOUT_CREDENTIAL = ("text", "pool", "guess")
WITH_CREDENTIAL = ("viewer-text", "viewer-pool", "viewer-refresh")


@dataclass
class Felt:
    """What was seen in one run. Milliseconds, but for `beats` (seconds between beats) and `memory` (MB)."""

    calls: list[float] = field(default_factory=list)
    failed_calls: int = 0
    packets: int = 0
    lost_packets: int = 0
    stream_ends: int = 0
    beats: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    socket: list[float] = field(default_factory=list)
    revoke: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return sorted(self.calls)[math.ceil(0.99 * len(self.calls)) - 1] if self.calls else math.inf


def bench_hostile(args: argparse.Namespace) -> None:
    """Six attacks, each beside a quiet run of the same daemon."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        print("hostile: not run: needs root and ip (iproute2), for network namespaces")
        return
    if find_binary("", os.environ.get("PATH", "")).path is None:
        print("hostile: not run: mediamtx not found")
        return
    if "BENCH_ATTACKER" not in os.environ:
        with namespaces() as (ours, theirs):
            command = ["ip", "netns", "exec", ours, sys.executable, *sys.argv[:1], "hostile"]
            command += ["--attack-seconds", str(args.attack_seconds)]
            command += [word for name in args.attacks or () for word in ("--attack", name)]
            done = subprocess.run(command, env=os.environ | {"BENCH_ATTACKER": theirs}, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        return
    missed = [
        name
        for name in args.attacks or (*WITHOUT_CREDENTIAL, *WITH_CREDENTIAL)
        if not _bench_attack(name, args.attack_seconds)
    ]
    if missed:
        raise SystemExit(f"hostile: limits exceeded under {', '.join(missed)}")


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them, HOST in the first and ATTACKER in the second."""
    ours, theirs = (f"edged-bench-{os.getpid()}-{side}" for side in "ab")
    steps = [
        f"netns add {ours}", f"netns add {theirs}",
        f"link add veth0 netns {ours} type veth peer name veth0 netns {theirs}",
        f"-n {ours} addr add {HOST}/24 dev veth0", f"-n {theirs} addr add {ATTACKER}/24 dev veth0",
        *[f"-n {name} link set {link} up" for name in (ours, theirs) for link in ("lo", "veth0")],
    ]  # fmt: skip
    try:
        for step in steps:
            subprocess.run(["ip", *step.split()], check=True)
        yield ours, theirs
    finally:
        for name in (ours, theirs):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _bench_attack(name: str, seconds: float) -> bool:
    """One daemon: quiet, attacked, and a minute after. Prints the figures; whether all limits hold."""
    beats = Beats()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    with beats, running(cameras=2, host=HOST, environment=beats.environment) as daemon:
        trio.run(daemon.wait_media)
        made = trio.run(partial(daemon.call, "create_key", name="viewer", role="viewer"))
        mallory = trio.run(partial(daemon.call, "create_key", name="mallory", role="viewer"))
        trio.run(partial(daemon.call, "create_user", name="bench", role="viewer", password="a passphrase for benches"))
        now = int(time.time())
        token = sign({"user_id": "mallory", "role": "viewer", "jti": "bench-mallory", "iat": now, "exp": now + 3600})
        runs: list[Felt] = []
        began = resident_megabytes(daemon.pid)
        for attack in (None, name):
            child = start_attack(attack, daemon.port, seconds, mallory["api_key"], token) if attack else None
            runs.append(trio.run(partial(_feel, daemon, beats, made["api_key"], seconds)))
            if child is not None:
                said = child.communicate(timeout=60)[0].decode().strip()
        quiet, busy = runs
        trio.run(trio.sleep, min(60.0, seconds))
        left = resident_megabytes(daemon.pid)
    base = quiet.memory[-1] if quiet.memory else began
    grown = max(busy.memory, default=base) - base
    figures = {
        "p99": busy.p99 / quiet.p99,
        "lost": float(busy.lost_packets + busy.stream_ends),
        # A short run sees none: the daemon beats each half of what it is given.
        "beat": max(busy.beats, default=seconds),
        "grown": grown,
        "left": left - base,
        "socket": max(busy.socket, default=math.inf),
        "revoke": max(busy.revoke, default=math.inf),
    }
    over = [key for key, limit in LIMITS.items() if figures[key] > limit]
    if busy.failures or busy.failed_calls:
        over.append("failures")
    print(
        f"hostile, {name}, {seconds:g} s: p99 of a viewer's calls {figures['p99']:.2f} times ({busy.p99:.1f} against "
        f"{quiet.p99:.1f} ms; limit {LIMITS['p99']:g}), {busy.failed_calls} of {len(busy.calls)} failed; stream: "
        f"{busy.packets} packets, {busy.lost_packets} lost, ended {busy.stream_ends} times (limit 0); watchdog at most "
        f"{figures['beat']:.1f} s apart (limit {WATCHDOG_SECONDS}); memory {grown:+.1f} MB, later {left - base:+.1f} "
        f"(limits 40, 10); unix socket {statistics.median(busy.socket or [math.inf]):.0f}, at most "
        f"{figures['socket']:.0f} ms (limit 100); revoked in at most {figures['revoke']:.0f} ms (limit 200)"
        f"{'' if not over else '; EXCEEDED: ' + ', '.join(over)}",
        flush=True,
    )
    for failure in sorted(set(busy.failures)):
        print(f"  ! {failure}", flush=True)
    print(f"  sent: {said}", flush=True)
    return not over


def start_attack(name: str, port: int, seconds: float, key: str, token: str) -> subprocess.Popen[bytes]:
    command = ["ip", "netns", "exec", os.environ["BENCH_ATTACKER"], sys.executable, str(HERE / "attacks.py")]
    environment = os.environ | {"BENCH_KEY": key, "BENCH_TOKEN": token}
    return subprocess.Popen(
        [*command, name, HOST, str(port), str(seconds)],
        stdout=subprocess.PIPE, env=environment, preexec_fn=pinned(1),
    )  # fmt: skip


class Beats:
    """Plays systemd: hears the watchdog's beats."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._path = f"/tmp/edged-bench-{os.getpid()}.notify"

    def __enter__(self) -> Beats:
        Path(self._path).unlink(missing_ok=True)
        self._socket.bind(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        Path(self._path).unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self._path, "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}

    def take(self) -> int:
        """How many beats have come since the last look."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                count += b"WATCHDOG=1" in self._socket.recv(4096)
        return count


async def _feel(daemon: Daemon, beats: Beats, key: str, seconds: float) -> Felt:
    felt = Felt()
    beats.take()
    async with trio.open_nursery() as nursery:
        for watch in (_watch_calls, _watch_stream):
            nursery.start_soon(watch, daemon, key, felt)
        for look in (_watch_memory, _watch_socket, _watch_revoke):
            nursery.start_soon(look, daemon, felt)
        nursery.start_soon(_watch_beats, beats, felt)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return felt


async def _watch_calls(daemon: Daemon, key: str, felt: Felt) -> None:
    """A viewer who asks twenty times a second, and comes again when cut off."""
    while True:
        try:
            async with open_websocket_url(f"ws://{HOST}:{daemon.port}/ws") as connection:
                await connection.send_message(request("authenticate", auth_token=key))
                await connection.get_message()
                while True:
                    began = time.perf_counter()
                    await connection.send_message(request("get_camera_list"))
                    answer = json.loads(await connection.get_message())
                    felt.calls.append(1000 * (time.perf_counter() - began))
                    felt.failed_calls += "error" in answer
                    await trio.sleep(CALL_PAUSE)
        except (OSError, ConnectionClosed, HandshakeError) as problem:
            felt.failures.append(f"a viewer's connection: {type(problem).__name__}")
            felt.failed_calls += 1
            await trio.sleep(CALL_PAUSE)


async def _watch_stream(daemon: Daemon, key: str, felt: Felt) -> None:
    """An RTSP viewer; RTP numbers tell what is missing (RFC 3550 5.1, RFC 2326 10.12)."""
    while True:
        reader = RtspReader(daemon.rtsp, "camera0", "viewer", key)
        try:
            await reader.play()
            await _count_packets(reader, felt)
        except (OSError, RtspRefused) as problem:
            felt.stream_ends += 1
            felt.failures.append(f"the stream: {problem}")
            await trio.sleep(0.5)
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()


async def _count_packets(reader: RtspReader, felt: Felt) -> None:
    buffer, expected = bytearray(), None
    while True:
        data = await reader.stream.receive_some(65536)
        if not data:
            raise ConnectionResetError("the server ended the stream")
        buffer += data
        while len(buffer) >= 4:
            if buffer[0] != 0x24:
                # The end of the answer to PLAY.
                start = buffer.find(b"$\0")
                del buffer[: start if start > 0 else len(buffer)]
                continue
            length = int.from_bytes(buffer[2:4], "big")
            if len(buffer) < 4 + length:
                break
            if buffer[1] == 0:
                number = int.from_bytes(buffer[6:8], "big")
                if expected is not None and number != expected:
                    felt.lost_packets += (number - expected) % 65536
                expected = (number + 1) % 65536
                felt.packets += 1
            del buffer[: 4 + length]


async def _watch_memory(daemon: Daemon, felt: Felt) -> None:
    while True:
        felt.memory.append(resident_megabytes(daemon.pid))
        await trio.sleep(0.5)


async def _watch_socket(daemon: Daemon, felt: Felt) -> None:
    """A connection, an upgrade and a call on the unix socket each second."""
    while True:
        began = time.perf_counter()
        try:
            await daemon.call("ping")
            felt.socket.append(1000 * (time.perf_counter() - began))
        except Exception as problem:  # Whatever goes wrong is a figure.
            felt.failures.append(f"the unix socket: {type(problem).__name__}: {problem}"[:150])
        await trio.sleep(1)


async def _watch_revoke(daemon: Daemon, felt: Felt) -> None:
    """An administrator makes a key and revokes it, every three seconds."""
    while True:
        try:
            made: dict[str, Any] = await daemon.call("create_key", name="spare", role="viewer")
            began = time.perf_counter()
            await daemon.call("revoke_key", key_id=made["key_id"])
            felt.revoke.append(1000 * (time.perf_counter() - began))
        except Exception as problem:  # Whatever goes wrong is a figure.
            felt.failures.append(f"an administrator: {type(problem).__name__}: {problem}"[:150])
        await trio.sleep(3)


async def _watch_beats(beats: Beats, felt: Felt) -> None:
    latest = time.perf_counter()
    while True:
        await trio.sleep(0.2)
        now = time.perf_counter()
        if beats.take():
            felt.beats.append(now - latest)
            latest = now
        elif now - latest > WATCHDOG_SECONDS:
            felt.beats.append(now - latest)
