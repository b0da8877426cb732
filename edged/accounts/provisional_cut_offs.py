"""Cut-offs "up to now" that are drawn while the clock is not trusted.

Such a cut-off says at which second of which boot it was drawn, until the clock is trusted: then it becomes firm, at
the time of its drawing, as it is known how long ago that was; or at the time at which this boot began, if it was drawn
in an earlier one. So it moves as far as the clock was wrong, up or down.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from edged.access.cut_offs import CutOffs
from edged.clock import Boot, Clock
from edged.credentials.identities import Identity
from edged.store.revocations import CutOff, Drawn


class ProvisionalCutOffs:
    """Those that wait for a clock that is trusted, by scope; never waits itself."""

    def __init__(self, cut_offs: CutOffs, clock: Clock, boot: Boot) -> None:
        self._cut_offs = cut_offs
        self._clock = clock
        self._boot = boot
        self._lines: dict[Identity, CutOff] = {}
        cut_offs.place = self._place

    def draw(self, scope: Identity, now: float, epoch: int, reason: str) -> CutOff:
        """A new one, in force when this returns; `now` is what the clock says, Unix seconds."""
        line = CutOff(scope, now, now, reason, None, epoch, Drawn(self._boot.name, self._boot.seconds()))
        self.keep(line)
        return line

    def keep(self, line: CutOff) -> None:
        """One from the disk is in force."""
        self._lines[line.scope] = line
        self._cut_offs.draw_provisionally(line.scope, self._second_of(line), line.epoch)

    def settle(self) -> Iterator[tuple[CutOff, float]]:
        """If the clock is trusted by now, every line with its time, Unix seconds: it is firm and provisional no more.

        A firm line of the same scope stays what it is.
        """
        if not self._lines:
            return
        self._clock.now()  # looks, if the clock has jumped
        if not self._clock.is_trusted:
            return
        lines, self._lines = self._lines, {}
        for scope, line in lines.items():
            before = self._cut_offs.settle(scope)
            self._cut_offs.draw(scope, before, None, line.epoch)
            yield line, before

    def as_told_now(self, line: CutOff) -> CutOff:
        """A line with its time as the clock tells it now; a firm one as it is."""
        return line if line.drawn is None else replace(line, before=self._place(self._second_of(line)))

    def _second_of(self, line: CutOff) -> float:
        """The second of this boot at which a line was drawn: one of an earlier boot before this began."""
        assert line.drawn is not None
        return min(line.drawn.seconds, self._boot.seconds()) if line.drawn.boot == self._boot.name else 0.0

    def _place(self, second: float) -> float:
        """A second of this boot as the clock tells it now, Unix seconds."""
        passed = self._boot.since(second)
        return self._clock.now() - passed
