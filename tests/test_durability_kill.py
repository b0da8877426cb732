"""kill -9 at a random moment, and start again, with the real store and registrar in a real child.

EDGED_KILL_CYCLES says how often (`scripts/bench durability` does it 1,000 times).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from durability_cycles import run_cycles

CYCLES = int(os.environ.get("EDGED_KILL_CYCLES", "40"))


@pytest.mark.slow
def test_no_revocation_that_was_told_is_lost_by_a_kill(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every key of which it was told that it, or its user, is no more is refused at every start after, and the file is
    sound."""
    tally = run_cycles(tmp_path / "state" / "trust.db", CYCLES, random.Random())
    with capfd.disabled():
        print(f"\n{tally}")
    assert tally.cycles == CYCLES
    assert len(tally.told) >= CYCLES / 2
    assert tally.looked >= CYCLES / 2
    assert tally.damaged == []
    assert tally.lost == []
