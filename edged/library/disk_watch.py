"""Retention in its turns, and whether anything hinders recording: a full disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from edged.library.recording_changes import Guard
from edged.library.recording_index import RecordingIndex
from edged.library.retention_sweep import Obstacle, RetentionSweep

#: Seconds between two sweeps of retention; and where the disk is short of space, after a sweep that has made some and
#: after one that has not.
SWEEP_SECONDS: Final = 15.0
SHORT_SECONDS: Final = 1.0
VAIN_SECONDS: Final = 5.0


class DiskWatch:
    """`obstacle` is why nothing is recorded now; `changed` is called when that is another one."""

    def __init__(
        self, index: RecordingIndex, sweep: RetentionSweep, guard: Guard, changed: Callable[[Obstacle | None], None]
    ) -> None:
        self._index, self._sweep, self._guard, self._changed = index, sweep, guard, changed
        self._short = trio.Event()
        #: What was told last.
        self._told = self.obstacle

    @property
    def obstacle(self) -> Obstacle | None:
        """Why nothing is recorded now."""
        return self._sweep.obstacle

    async def run(self) -> None:
        """Sweep in turns, and sooner where the disk is short of space; runs until cancelled."""
        await self._sweep.policies.known.wait()
        while True:
            self._short = trio.Event()
            none: dict[str, int] = {}
            deleted = await self._guard.get("retention", self._sweep.run_once, none)
            await self._guard("oldest", self._index.find_oldest)
            self._tell()
            least = SHORT_SECONDS if deleted else VAIN_SECONDS
            await trio.sleep(least)
            with trio.move_on_after(SWEEP_SECONDS - least):
                await self._short.wait()

    async def look_at_space(self) -> None:
        """While something is being written. Raises StoreFailed."""
        if self._sweep.is_short(*await self._index.free()):
            self._short.set()

    def _tell(self) -> None:
        if (found := self.obstacle) != self._told:
            self._told = found
            self._changed(found)
