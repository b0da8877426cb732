"""Keys that are made and revoked in one life of the daemon: what they cost in memory and at the next start, and that each
of them is still refused as revoked."""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio
from measure import Daemon, cpu_seconds, resident_megabytes

from edged.cli.client import connect

#: Conversations that make and revoke keys side by side.
WORKERS = 16
#: Keys that are made and revoked before the memory is measured, so that what any daemon needs for that is there.
WARM = 500
STARTS = 7


def bench_ended(args: argparse.Namespace) -> None:
    """`--ended` keys, made and revoked."""
    # Bytecode, as a package installs it: else the first start compiles and the second does not.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "edged"], check=True)
    with (
        tempfile.TemporaryDirectory(prefix="edged-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="edged-bench-") as other,
    ):
        daemon, empty = (Daemon(Path(each), cameras=0, mediamtx=False) for each in (folder, other))
        daemon.start()
        try:
            trio.run(partial(_make_and_revoke, daemon, WARM))
            before = resident_megabytes(daemon.pid)
            secrets = trio.run(partial(_make_and_revoke, daemon, args.ended))
            grown = resident_megabytes(daemon.pid) - before
            refused = _count_refused(daemon, secrets)
            counted = trio.run(partial(_count_by_status, daemon))
            daemon.stop()
            starts = [(_start(daemon), _start(empty)) for _ in range(STARTS)]
            daemon.start()
            resident = resident_megabytes(daemon.pid)
            again = _count_refused(daemon, secrets[:: max(1, len(secrets) // 10_000)])
        finally:
            daemon.stop()
            empty.stop()
    wall, cpu = (statistics.median(mine[at] - its[at] for mine, its in starts) for at in (0, 1))
    print(
        f"ended: {args.ended} keys made and revoked: {grown:+.1f} MB resident (limit 20), {1024 * grown / args.ended:.2f} KiB each;\n"
        f"  refused as revoked: {refused} of {args.ended}, listed as revoked: {counted - WARM};\n"
        f"  a start afterwards: {wall:+.2f} s to the first ping (limit 0.3), {cpu:+.2f} s of CPU, {resident:.1f} MB, "
        f"{again} of {len(secrets[:: max(1, len(secrets) // 10_000)])} refused as revoked",
        flush=True,
    )


def _start(daemon: Daemon) -> tuple[float, float]:
    """Seconds to the first ping, and of CPU until then."""
    wall = daemon.start()
    spent = cpu_seconds(daemon.pid)
    daemon.stop()
    return wall, spent


async def _make_and_revoke(daemon: Daemon, count: int) -> list[str]:
    """So many keys, each revoked right after it was made; their secrets."""
    secrets: list[str] = []

    async def work(share: int) -> None:
        async with connect(daemon.socket) as client:
            for number in range(share):
                made = await client.call("create_key", {"name": f"key {number}", "role": "viewer"})
                secrets.append(made["api_key"])
                await client.call("revoke_key", {"key_id": made["key_id"]})

    async with trio.open_nursery() as nursery:
        for worker in range(WORKERS):
            nursery.start_soon(work, len(range(worker, count, WORKERS)))
    return secrets


async def _count_by_status(daemon: Daemon) -> int:
    """How many revoked keys the metrics tell of."""
    async with connect(daemon.socket):
        pass
    found = re.search(r'^edged_api_keys\{state="revoked"\} (\S+)$', _scrape(daemon), re.MULTILINE)
    return int(float(found[1])) if found else 0


def _count_refused(daemon: Daemon, secrets: Sequence[str]) -> int:
    """Show each of these once; how many were refused because they are revoked."""
    before = _count_revoked(daemon)
    connection = http.client.HTTPConnection("127.0.0.1", daemon.local, timeout=30)
    for secret in secrets:
        connection.request("GET", "/api/whoami", headers={"X-API-Key": secret})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 401, f"a revoked key was answered {answer.status}"
    connection.close()
    return _count_revoked(daemon) - before


def _count_revoked(daemon: Daemon) -> int:
    lines = re.findall(r'^edged_auth_failures_total\{.*reason="revoked".*\} (\S+)$', _scrape(daemon), re.MULTILINE)
    return int(sum(map(float, lines)))


def _scrape(daemon: Daemon) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.local, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text
