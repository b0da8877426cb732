"""The disk of recordings, looked at each second while anything is recorded: the files on it, its space, retention in
its turns, and whether a medium that can be taken out is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
import trio

from edged.library.obstacles import ABSENT, Obstacle
from edged.library.recording_changes import Guard
from edged.library.recording_files import Look
from edged.library.recording_index import RecordingIndex
from edged.library.retention_sweep import RetentionSweep

#: Seconds between two fdatasyncs of files being written.
SYNC_SECONDS: Final = 5.0
#: Seconds between two sweeps of retention; and where the disk is short of space, after a sweep that has made some and
#: after one that has not.
SWEEP_SECONDS: Final = 15.0
SHORT_SECONDS: Final = 1.0
VAIN_SECONDS: Final = 5.0
_log = structlog.get_logger("recordings")


class DiskWatch:
    """`obstacle` is why nothing is recorded now; `changed` is called when that is another one."""

    def __init__(
        self, index: RecordingIndex, sweep: RetentionSweep, guard: Guard, changed: Callable[[Obstacle | None], None]
    ) -> None:
        self._index, self._sweep, self._guard, self._changed = index, sweep, guard, changed
        self._short = trio.Event()
        self._synced_at = -math.inf
        #: The device number of the medium at the last look; None before the first.
        self._device: int | None = None
        #: What was told last.
        self._told = self.obstacle

    @property
    def obstacle(self) -> Obstacle | None:
        """Why nothing is recorded now."""
        return self._sweep.obstacle if self._index.medium.is_there else ABSENT

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

    async def take_up(self) -> None:
        """The start: what the disk holds is in the index afterwards, if its medium is there."""
        if self._index.medium.is_removable:
            await self.look_for_medium()
        else:
            await self._guard("look", self._index.look)
            await self._guard("reconcile", self._index.reconcile)

    async def look(self, held: Look) -> Look:
        """One look at the files; `held` as `RecordingIndex.look`. What is being written is synced in its turns."""
        if not self._index.medium.is_there:
            return held
        look = await self._guard.get("look", partial(self._index.look, held), held)
        if look.writing and trio.current_time() - self._synced_at >= SYNC_SECONDS:
            self._synced_at = trio.current_time()
            await self._guard("sync", partial(self._index.sync, look))
        if look.writing or look.closed:
            await self._guard("space", self._look_at_space)
        return look

    async def look_for_medium(self) -> None:
        """Whether it is there. What it holds is indexed anew when it has returned."""
        medium = self._index.medium
        if not medium.is_removable:
            return
        await self._index.look_for_medium()
        if medium.device == self._device:
            return
        self._device = medium.device
        if medium.is_there:
            await self._guard("prepare", self._index.prepare)
        self._tell()
        if medium.is_there:
            _log.info("recording_medium_there")
            await self._guard("look", self._index.look)
            await self._guard("reconcile", self._index.reconcile)
        else:
            _log.error("recording_medium_absent", problem=ABSENT.message, remedy=ABSENT.remedy)

    async def _look_at_space(self) -> None:
        if self._sweep.is_short(*await self._index.free()):
            self._short.set()

    def _tell(self) -> None:
        if (found := self.obstacle) != self._told:
            self._told = found
            self._changed(found)
