"""Memory that a burst took and nobody needs any more goes back to the system."""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache
from pathlib import Path
from typing import Final

#: Bytes by which the process must have grown before its heap is looked through.
GROWN: Final = 4 << 20
#: Seconds from one time to the next; more where the last one found little.
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 20.0
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Bursts:
    """Gives free memory back while the process is larger than it was at its smallest.

    What a burst took is free only when the burst is over, and nobody says when that is: so it is tried again and again.
    """

    def __init__(self) -> None:
        self._least = resident()
        self._pause = FIRST_PAUSE
        self._due = -math.inf

    def wait_for(self, now: float) -> float:
        """Seconds until `give_back` should be called; `now` monotonic seconds. Infinite while there was no burst."""
        held = resident()
        self._least = min(self._least, held)
        if held - self._least < GROWN:
            self._pause = FIRST_PAUSE
            return math.inf
        return max(0.0, self._due - now)

    def give_back(self, now: float) -> None:
        """Takes milliseconds, in which others may run: call it in a thread."""
        held = resident()
        give_back()
        is_much = held - resident() >= GROWN // 4
        self._pause = FIRST_PAUSE if is_much else min(2 * self._pause, LONGEST_PAUSE)
        self._due = now + self._pause


def resident() -> int:
    """Bytes of this process that are in memory (proc_pid_statm(5))."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE


def give_back() -> None:
    """Hand the free pages of the C library's heap back (malloc_trim(3)); nothing where there is no such call.

    glibc by itself gives back only what lies at the end of its heap: a small block that lives on keeps all below it.
    """
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
