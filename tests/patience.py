"""Deadlines of tests, longer on a slow machine: EDGED_TEST_PATIENCE multiplies each."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import trio

FACTOR = float(os.environ.get("EDGED_TEST_PATIENCE", "1"))


def fail_after(seconds: float) -> AbstractContextManager[trio.CancelScope]:
    """`trio.fail_after` for a test: TooSlowError after `seconds` times EDGED_TEST_PATIENCE."""
    return trio.fail_after(seconds * FACTOR)
