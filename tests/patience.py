"""What makes tests longer: deadlines for a slow machine (EDGED_TEST_PATIENCE), all repetitions (EDGED_TEST_FULL)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import trio

FACTOR = float(os.environ.get("EDGED_TEST_PATIENCE", "1"))
#: EDGED_TEST_FULL=1: random moments, histories and inputs are tried as often as they were meant to, not a tenth of it.
IS_FULL = os.environ.get("EDGED_TEST_FULL", "") == "1"


def fail_after(seconds: float) -> AbstractContextManager[trio.CancelScope]:
    """`trio.fail_after` for a test: TooSlowError after `seconds` times EDGED_TEST_PATIENCE."""
    return trio.fail_after(seconds * FACTOR)


def times(full: int, least: int = 1) -> int:
    """How often to try something random: `full` with EDGED_TEST_FULL=1, else a tenth, and `least` at least."""
    return full if IS_FULL else min(full, max(least, full // 10))


def until_seen(full: int, seen: Counter[str], *outcomes: str) -> Iterator[int]:
    """0, 1, … for `times(full)` repetitions, and for more until each outcome was counted in `seen`; `full` at most."""
    for number in range(full):
        if number >= times(full) and all(seen[name] for name in outcomes):
            return
        yield number
