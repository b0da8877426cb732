"""A port whose contact comes and goes: how long it is waited for, and when it is left alone.

A device that comes back is a flap. Up to three within a minute are settled as usual; from then on each doubles the time
that the port must be quiet before anything is done, and the tenth quarantines it: nothing is probed, stored or streamed
there until nothing came for a minute, or somebody releases it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Seconds without an event after which a device counts as settled.
DEBOUNCE: Final = 0.3
#: Seconds in which flaps are counted; how many are settled as usual, and how many quarantine the port.
WINDOW: Final = 60.0
FREE_FLAPS, MOST_FLAPS = 3, 10
#: The longest pause before the quarantine, and how long a port that is left alone must be quiet, seconds.
LONGEST_PAUSE: Final = 10.0
QUIET: Final = 60.0


class Contact:
    """One port. Times are monotonic seconds."""

    __slots__ = ("_flaps", "has_left", "is_quarantined")

    def __init__(self) -> None:
        self._flaps: deque[float] = deque(maxlen=MOST_FLAPS)
        #: It is left alone.
        self.is_quarantined = False
        #: Its device went, and has not come back.
        self.has_left = False

    def flap(self, now: float) -> bool:
        """A device came back; whether that quarantines the port."""
        self._forget(now)
        self._flaps.append(now)
        if self.is_quarantined or len(self._flaps) < MOST_FLAPS:
            return False
        self.is_quarantined = True
        return True

    def pause(self, now: float) -> float:
        """Seconds without an event after which what is there counts."""
        if self.is_quarantined:
            return QUIET
        self._forget(now)
        return min(DEBOUNCE * 2.0 ** max(0, len(self._flaps) - FREE_FLAPS), LONGEST_PAUSE)

    def release(self) -> None:
        """It was quiet, or somebody says that it is mended."""
        self._flaps.clear()
        self.is_quarantined = False

    def is_steady(self, now: float) -> bool:
        """Whether nothing is to be remembered of it."""
        self._forget(now)
        return not self.is_quarantined and not self._flaps

    def _forget(self, now: float) -> None:
        while self._flaps and self._flaps[0] <= now - WINDOW:
            self._flaps.popleft()
