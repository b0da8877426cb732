"""What a start costs, and what a daemon that nobody asks holds: beside `import trio` in the same run."""

from __future__ import annotations

import argparse
import http.client
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import trio
from measure import Daemon, cpu_seconds, pinned, resident_megabytes, running, sign

from edged.cli.client import connect

#: Times `import trio`: from exec to the first answered ping, and the resident memory of a daemon that is idle.
START_LIMIT: Final = 4.2
MEMORY_LIMIT: Final = 2.05
#: Of a core, in percent.
IDLE_LIMIT: Final = 0.5
#: After the start until the memory is looked at: cameras are noticed, MediaMTX runs.
SETTLE_SECONDS: Final = 3.0


class Begun(NamedTuple):
    """Seconds to the first answered ping, and of CPU until then with all children that have ended."""

    wall: float
    cpu: float


def bench_start(args: argparse.Namespace) -> None:
    """A first start, which makes the signing keys; one after it; and the memory when nobody has asked anything yet.

    Each beside `python -c 'import trio'` right before it; from bytecode, as a package installs it. Raises SystemExit
    if a limit is exceeded; one round of a busy machine decides nothing.
    """
    subprocess.run([sys.executable, "-m", "compileall", "-q", "edged"], check=True)
    first, again, imports = list[Begun](), list[Begun](), list[Begun]()
    rounds = 2 * args.rounds + 1
    for _round in range(rounds):
        imports.append(_import_trio())
        with tempfile.TemporaryDirectory() as folder:
            daemon = Daemon(Path(folder), mediamtx=False)
            first.append(_begin(daemon))
            again.append(_begin(daemon))
    missed = []
    for name, found in (("first start", first), ("start", again)):
        # Of each round, because a machine is not as fast in one as in the next.
        wall, cpu = (
            statistics.median(mine[at] / other[at] for mine, other in zip(found, imports, strict=True)) for at in (0, 1)
        )
        print(
            f"{name}: {wall:.2f} times `import trio` (limit {START_LIMIT}), {cpu:.2f} times its CPU: "
            f"{_median(found, 0):.2f} s ({min(found).wall:.2f}-{max(found).wall:.2f}) to the first ping, import "
            f"{_median(imports, 0):.2f} s, {rounds} rounds",
            flush=True,
        )
        if wall > START_LIMIT:
            missed.append(name)
    with running(cameras=2, mediamtx=args.with_media) as daemon:
        ratio = _show_memory(daemon, args.with_media)
    if ratio > MEMORY_LIMIT:
        missed.append("idle memory")
    if missed and args.rounds > 1:
        raise SystemExit(f"limits exceeded: {', '.join(missed)}")


def bench_idle(args: argparse.Namespace) -> None:
    """Memory and CPU of a daemon that nobody asks. Raises SystemExit if a limit is exceeded."""
    with running(cameras=2, mediamtx=args.with_media) as daemon:
        ratio = _show_memory(daemon, args.with_media)
    with running(cameras=2, mediamtx=args.with_media) as daemon:
        _settle(daemon, args.with_media)
        before = cpu_seconds(daemon.pid)
        time.sleep(60)
        share = 100 * (cpu_seconds(daemon.pid) - before) / 60
        print(f"idle: {share:.2f} % of a core over 60 s (limit {IDLE_LIMIT})", flush=True)
    if ratio > MEMORY_LIMIT or share > IDLE_LIMIT:
        raise SystemExit("limits exceeded")


def _median(found: list[Begun], at: int) -> float:
    return statistics.median(each[at] for each in found)


def _import_trio() -> Begun:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", "import trio"], check=True, preexec_fn=pinned(0))
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Begun(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _begin(daemon: Daemon) -> Begun:
    wall = daemon.start()
    cpu = cpu_seconds(daemon.pid, with_children=True)
    daemon.stop()
    return Begun(wall, cpu)


def _settle(daemon: Daemon, with_media: bool) -> None:
    """Cameras are noticed, MediaMTX is ready, and somebody has asked whether it is healthy."""
    if with_media:
        trio.run(daemon.wait_media)
    time.sleep(SETTLE_SECONDS)
    _get(daemon, "/health")


def _show_memory(daemon: Daemon, with_media: bool) -> float:
    """Print what an idle daemon holds, and what it holds once more is used; returns the idle one as times trio."""
    _settle(daemon, with_media)
    alone, alone_own = _memory_of("import trio")

    def show(when: str, limit: str = "") -> float:
        resident, own = resident_megabytes(daemon.pid), unshared_megabytes(daemon.pid)
        print(
            f"memory, {when}: {resident / alone:.2f} times `import trio`{limit}: {resident:.1f} MB resident "
            f"({alone:.1f}), {own:.1f} MB of its own ({alone_own:.1f})",
            flush=True,
        )
        return resident / alone

    ratio = show("idle, health asked once", f" (limit {MEMORY_LIMIT})")
    now = int(time.time())
    token = sign({"user_id": "bench", "role": "viewer", "iat": now, "exp": now + 3600})
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("after a token of a shared secret", lambda: trio.run(_authenticate, daemon, token)),
        ("after a scrape of /metrics as well", lambda: _get(daemon, "/metrics")),
        ("after a token of a key pair as well", lambda: trio.run(_authenticate_by_pair, daemon)),
    )
    for when, use in steps:
        use()
        show(when)
    return ratio


async def _authenticate_by_pair(daemon: Daemon) -> None:
    made = await daemon.call("issue_token", user_id="bench", signing_key="ES256")
    await _authenticate(daemon, made["token"])


async def _authenticate(daemon: Daemon, token: str) -> None:
    async with connect(daemon.socket) as client:
        assert (await client.call("authenticate", {"auth_token": token}))["authenticated"]


def _get(daemon: Daemon, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.local, timeout=30)
    connection.request("GET", path)
    assert connection.getresponse().status == 200
    connection.close()


def unshared_megabytes(pid: int) -> float:
    """What no other process has as well: its unique set size."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1024


def _memory_of(code: str) -> tuple[float, float]:
    """MB of a Python that has run this: resident, and its own."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()"], stdin=-1, stdout=-1
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sizes = resident_megabytes(process.pid), unshared_megabytes(process.pid)
        process.communicate(b"\n")
    return sizes
