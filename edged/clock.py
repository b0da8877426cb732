"""What time it is, and whether to believe it.

A Pi has no clock chip. `now()` never runs behind the persisted high-water mark, which rises by
monotonic time that passed or while the system clock is synchronised, never by an unsynchronised
jump (contract 10.9). Deadlines of live things are monotonic and belong to whoever holds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import trio

#: The last second that a calendar of four-digit years knows, Unix seconds.
_LAST_SECOND = 253402300799.0


def wall_time() -> float:
    """The system clock, Unix seconds."""
    return time.time()


def iso(seconds: float) -> str:
    """Unix seconds → `2026-11-22T10:30:00Z` (contract S1-22); what lies behind the year 9999 is its last second."""
    return datetime.fromtimestamp(int(min(seconds, _LAST_SECOND)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Clock:
    """Now, as Unix seconds, with a floor; and monotonic seconds for deadlines.

    `load()` gives the stored high-water mark (Unix seconds, 0.0 if none); `synchronized()` says
    whether the system clock follows a time server.
    """

    def __init__(
        self,
        load: Callable[[], float] = lambda: 0.0,
        *,
        system: Callable[[], float] = wall_time,
        monotonic: Callable[[], float] = trio.current_time,
        synchronized: Callable[[], bool] = lambda: True,
    ) -> None:
        self._system = system
        self._synchronized = synchronized
        self.monotonic = monotonic
        self._floor = load()
        self._floor_at = monotonic()

    def now(self) -> float:
        """Unix seconds; never less than the high-water mark plus the time that passed since."""
        return max(self._system(), self._floor + (self.monotonic() - self._floor_at))

    def high_water(self) -> float:
        """The mark to store, Unix seconds: raised by time that passed, or to a synchronised clock."""
        at = self.monotonic()
        mark = self._floor + (at - self._floor_at)
        if self._synchronized():
            mark = max(mark, self._system())
        self._floor, self._floor_at = mark, at
        return mark
