"""When a child that has ended is started again: one rule for all of them. Pure.

One that had worked for some seconds is started at once: whatever ended it (a signal, the kernel for want of memory, a
frozen state) says nothing of its next start, and each second is missing in a recording. One that ended before that is
started after a pause, which doubles up to the longest. supervisord does the same (`startsecs`); systemd's growing
pauses (`RestartSteps`) know nothing of how well it ran in between.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: Seconds of work after which a start counts as a good one.
GOOD_SECONDS: Final = 2.0
#: Seconds of the first and of the longest pause. Something may be recording: it is not left for longer than that.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0


class Restarts(msgspec.Struct):
    """The ends of one child. `failures` in a row, of which at most the first came after good work."""

    first: float = FIRST_PAUSE
    longest: float = LONGEST_PAUSE
    good: float = GOOD_SECONDS
    failures: int = 0

    def note(self, worked: float) -> float:
        """It has ended and had done its work for so many seconds, 0 if never: seconds until it is started again."""
        if worked >= self.good:
            self.failures = 1
            return 0.0
        self.failures += 1
        return min(self.longest, self.first * 2.0 ** min(max(0, self.failures - 2), 16))

    def forget(self) -> None:
        """What made it fail may be over: the next failure is the first."""
        self.failures = 0
