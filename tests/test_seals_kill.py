"""kill -9 at random moments while segments are sealed: the series goes on, and verifies as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Final

import pytest
import trio
from patience import fail_after
from seal_helpers import sealing_box
from test_library_seal_evidence import fetch, judge

from edged.store.segments import SegmentRow, list_oldest

pytestmark = pytest.mark.slow

ROUNDS: Final = 20 if os.environ.get("EDGED_TEST_FULL") else 4
#: Records and seals until it is killed.
CHILD: Final = """
import sys, trio
from pathlib import Path
from seal_helpers import sealing_box

async def main():
    async with sealing_box(Path(sys.argv[1]), written=int(sys.argv[2])) as box:
        print("ready", flush=True)
        while True:
            await box.record(1, wait=box.written % 3 == 0)

trio.run(main)
"""


def kill_one(folder: Path, random: Random) -> None:
    written = len(list((folder / "recordings").rglob("*.mp4")))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(written)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert any("ready" in line for line in child.stdout)
        time.sleep(random.uniform(0.0, 0.4))
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


async def test_no_number_is_lost_or_given_twice_whenever_it_is_killed(tmp_path: Path) -> None:
    random = Random(7)
    for _ in range(ROUNDS):
        await trio.to_thread.run_sync(kill_one, tmp_path, random)
    written = len(list((tmp_path / "recordings").rglob("*.mp4")))
    with fail_after(60):
        async with sealing_box(tmp_path, written=written) as box:
            await box.record(1)
            rows: list[SegmentRow] = await box.usage.read(lambda db: list_oldest(db, "camera0", 100_000))
            while len(list((box.root / "camera0").rglob("*.seal"))) < len(rows):
                await trio.sleep(0.01)
            await box.until_head()
            verdict = judge(box, await fetch(box, tmp_path / "evidence", rows))
            assert (verdict.problems, verdict.notes) == ([], [])
            assert verdict.segments == len(rows) > ROUNDS
            # The box's own folder, and its own heads.
            assert judge(box, box.root).problems == []
