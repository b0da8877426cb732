"""This tree beside an older commit, in one run: is a call, a question, an authentication, a revocation, a start dearer?

Three daemons run at a time: two of the older commit and one of this tree. How far the two old ones differ is what this
machine cannot tell apart. The new one may be worse than old by that much, and never by more than WORST. Memory and
start are printed only: their budgets are those of `idle` and `start`.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trio
from measure import Daemon, authentication, hook_address, load, question, request, resident_megabytes, running, sign
from rtsp_client import RtspReader

HERE = Path(__file__).parent
WORST = 0.05
NAMES = ("old", "old again", "new")

Measure = Callable[[Daemon], float]


def bench_beside(args: argparse.Namespace) -> None:
    """Prints each figure's ratio new / old with its limit; ends with an error if one is exceeded."""
    with older_tree(args.beside) as tree:
        missed = [name for name, bad in _compare_all(tree, args).items() if bad]
    if missed:
        raise SystemExit(f"beside {args.beside}: worse than before: {', '.join(missed)}")


@contextmanager
def older_tree(commit: str) -> Iterator[Path]:
    """The files of this project as they were at `commit`, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="edged-older-") as folder:
        packed = subprocess.run(["git", "archive", commit], cwd=HERE, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        yield Path(folder)


@contextmanager
def three(tree: Path, **settings: object) -> Iterator[dict[str, Daemon]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(running(code=None if name == "new" else tree, **settings)) for name in NAMES}


def _compare_all(tree: Path, args: argparse.Namespace) -> dict[str, bool]:
    found: dict[str, bool] = {}

    def compare(
        name: str, measures: Mapping[str, Callable[[], float]], rounds: int = args.rounds, *, judged: bool = True
    ) -> None:
        values: dict[str, list[float]] = {kind: [] for kind in NAMES}
        for _ in range(rounds):
            for kind in random.sample(NAMES, len(NAMES)):
                values[kind].append(measures[kind]())
        found[name] = judge(name, values) and judged

    with three(tree, cameras=4, mediamtx=False) as daemons:
        firsts = {kind: authentication(daemon) for kind, daemon in daemons.items()}
        for method in ("ping", "get_camera_list"):
            compare(f"{method}, CPU", {
                kind: partial(_cpu, daemon, request(method), first=firsts[kind][0], connections=50, seconds=args.seconds)
                for kind, daemon in daemons.items()
            })  # fmt: skip
        compare("authenticate with an API key, CPU", {
            kind: partial(_cpu, daemon, firsts[kind][0], connections=20, seconds=args.seconds)
            for kind, daemon in daemons.items()
        })  # fmt: skip
        now = int(time.time())
        claims = {"user_id": "bench", "role": "viewer", "iat": now, "exp": now + 3600}
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder) / "lines"
            texts = [sign(claims | {"jti": f"bench-{number}"}) for number in range(5000)]
            lines.write_text("\n".join(request("authenticate", auth_token=text) for text in texts))
            compare("authenticate with an HS256 token, CPU", {
                kind: partial(_cpu, daemon, None, lines=lines, connections=20, seconds=args.seconds)
                for kind, daemon in daemons.items()
            })  # fmt: skip
        compare("memory after that", {kind: partial(_memory, daemon) for kind, daemon in daemons.items()},
                1, judged=False)  # fmt: skip
    if args.with_media:
        with three(tree, cameras=2) as daemons:
            for daemon in daemons.values():
                trio.run(daemon.wait_media)
            keys = {kind: authentication(daemon)[1] for kind, daemon in daemons.items()}
            compare("hook, API key question, CPU", {
                kind: partial(_hook, daemon, keys[kind], args.seconds) for kind, daemon in daemons.items()
            })  # fmt: skip
            compare("revoked to stream's end", {
                kind: partial(trio.run, _revoke, daemon) for kind, daemon in daemons.items()
            }, max(args.rounds, args.tries))  # fmt: skip
            compare("memory with streams", {kind: partial(_memory, daemon) for kind, daemon in daemons.items()},
                1, judged=False)  # fmt: skip
    starts = {kind: partial(_start, None if kind == "new" else tree) for kind in NAMES}
    compare("start", starts, 11, judged=False)
    return found


def judge(name: str, values: Mapping[str, list[float]]) -> bool:
    """Print one comparison of medians; whether new is worse than it may be."""
    old, again, new = (statistics.median(values[kind]) for kind in NAMES)
    differ = abs(old - again) / min(old, again)
    allowed = min(differ, WORST)
    ratio = 2 * new / (old + again)
    bad = ratio > 1 + allowed
    print(
        f"{name}: {ratio:.3f} times old ({new:.4g} against {old:.4g} and {again:.4g}, which differ by "
        f"{100 * differ:.1f} %; limit {1 + allowed:.3f}){' WORSE' if bad else ''}",
        flush=True,
    )
    return bad


def _cpu(daemon: Daemon, send: str | None, **options: object) -> float:
    return float(load(daemon.pid, "ws", daemon.port, send, **options)["cpu_us"])


def _hook(daemon: Daemon, key: str, seconds: float) -> float:
    address = hook_address(daemon)
    port, path = int(address.split(":")[2].split("/")[0]), "/" + address.split("/", 3)[3]
    text = question(user="viewer", password=key, token=key)
    return float(load(daemon.pid, "post", port, text, path=path, connections=16, seconds=seconds)["cpu_us"])


def _memory(daemon: Daemon) -> float:
    return resident_megabytes(daemon.pid)


async def _revoke(daemon: Daemon) -> float:
    """Milliseconds from the call to the end of a viewer's stream."""
    made = await daemon.call("create_key", name="viewer", role="viewer")
    reader = RtspReader(daemon.rtsp, "camera0", "viewer", made["api_key"])
    try:
        await reader.play()
        await reader.wait_packet()
        took = math.inf
        async with trio.open_nursery() as nursery:
            began = time.perf_counter()

            async def watch() -> None:
                nonlocal took
                await reader.wait_end()
                took = 1000 * (time.perf_counter() - began)

            nursery.start_soon(watch)
            await daemon.call("revoke_key", key_id=made["key_id"])
    finally:
        await reader.aclose()
    return took


def _start(tree: Path | None) -> float:
    """Seconds from exec to the first answered ping."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), mediamtx=False, code=tree)
        took = daemon.start()
        daemon.stop()
    return took
