"""What a kill loses (nothing), and how long the loop is held up by a disk that takes 2 s for a sync."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

import trio
from durability_cycles import run_cycles
from durability_helpers import Disk, compile_disk, running_box

SYNC_SECONDS = 2.0
REVOCATIONS = 5


def bench_durability(args: argparse.Namespace) -> None:
    """Deny, be told, `kill -9`, start again; then revocations on a slow disk. Exits with 1 if anything was lost."""
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
        tally = run_cycles(Path(folder) / "trust.db", args.cycles, random.Random())
        print(f"durability: {tally} (limit: 0 lost, 0 shut out, 0 damaged)", flush=True)
        if shutil.which("gcc") is None:
            print("durability on a slow disk: not run: gcc not found (apt-get install gcc)")
        else:
            trio.run(_hold_up, Path(folder))
    if not tally.is_whole:
        sys.exit(
            f"durability: {len(tally.lost)} lost, {len(tally.shut_out)} shut out, {tally.damaged or 'not'} damaged"
        )


async def _hold_up(folder: Path) -> None:
    disk = Disk(folder, compile_disk(folder))
    async with running_box(folder, disk) as box, box.admin() as admin, box.admin() as other:
        keys = [(await admin.call("create_key", name="k", role="viewer"))["key_id"] for _ in range(REVOCATIONS)]
        disk.behave(delay=SYNC_SECONDS)
        box.forget_gaps()
        longest = 0.0
        done = trio.Event()

        async def revoke() -> None:
            for key_id in keys:
                await admin.call("revoke_key", key_id=key_id)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(revoke)
            while not done.is_set():
                began = trio.current_time()
                await other.call("ping")
                longest = max(longest, trio.current_time() - began)
                await trio.sleep(0.005)
        whole, own = box.longest_gaps()
        print(
            f"durability on a slow disk: {REVOCATIONS} revocations with a sync of {SYNC_SECONDS:g} s each: the loop was"
            f" held up {1e3 * whole:.1f} ms at most, computing {1e3 * own:.1f} at a time (limit 50);"
            f" longest ping {1e3 * longest:.1f} ms",
            flush=True,
        )
