"""The file systems that edged writes to: how much is free on each, and whether it may write there."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import trio

#: The name of the file system that recording.folder leads to, where it is one of its own.
RECORDING: Final = "recording"
#: Seconds between two looks.
LOOK_SECONDS: Final = 15.0
#: How long a look may take.
PATIENCE_SECONDS: Final = 5.0
#: A disk with less than this is full for everything but denials, which have a reserve of their own, bytes.
_SPENT_BYTES: Final = 512 * 1024
#: On a disk too small for the setting, a tenth of it is enough.
_SMALL_SHARE: Final = 10


def check_writable(folder: Path) -> None:
    """Raises OSError for a folder into which this process can write nothing."""
    if not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number), str(folder))


class Disk(msgspec.Struct, frozen=True):
    """One file system under the name of the setting that led there first (state, runtime and media in [paths], or
    recording, whose folder it is); bytes."""

    name: str
    free_bytes: int
    total_bytes: int
    writable: bool
    low_bytes: int = 0

    @property
    def setting(self) -> str:
        """The setting that leads there."""
        return "recording.folder" if self.name == RECORDING else f"paths.{self.name}"

    @property
    def is_spent(self) -> bool:
        """Whether nothing more can be saved there."""
        return not self.writable or self.free_bytes < min(_SPENT_BYTES, self.total_bytes // _SMALL_SHARE)

    @property
    def is_low(self) -> bool:
        """Whether that is near."""
        return self.free_bytes < min(self.low_bytes, self.total_bytes // _SMALL_SHARE)


class Disks:
    """The last look at each. Two folders on one file system are one disk, under the first of the names."""

    def __init__(self, folders: Mapping[str, Path], low_bytes: int = 0) -> None:
        self._folders = dict(folders)
        self._low_bytes = low_bytes
        self._one = trio.CapacityLimiter(1)
        self._looking_at = ""
        self.latest: tuple[Disk, ...] = ()

    def look(self) -> tuple[Disk, ...]:
        """Look at all of them now, in the calling thread: a network file system may hold it for as long as it likes."""
        found: dict[int | str, Disk] = {}
        for name, folder in self._folders.items():
            self._looking_at = name
            disk, device = self._look_at(name, folder)
            found.setdefault(device, disk)
        self._looking_at = ""
        self.latest = tuple(found.values())
        return self.latest

    async def refresh(self) -> tuple[Disk, ...]:
        """The same in a thread, one at a time. A disk that does not answer in time is shown as one that cannot be
        written to, until it does."""
        with trio.move_on_after(PATIENCE_SECONDS) as limit:
            return await trio.to_thread.run_sync(self.look, limiter=self._one, abandon_on_cancel=True)
        assert limit.cancelled_caught
        silent = self._looking_at
        others = tuple(disk for disk in self.latest if disk.name != silent)
        self.latest = (*others, Disk(silent, 0, 0, writable=False)) if silent else self.latest
        return self.latest

    async def run(self) -> None:
        """Look every 15 seconds; runs until cancelled."""
        while True:
            await self.refresh()
            await trio.sleep(LOOK_SECONDS)

    def _look_at(self, name: str, folder: Path) -> tuple[Disk, int | str]:
        try:
            # A folder that is made when it is needed lies where its parent is.
            there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
            if name == "state":
                there = folder
            figures, device = os.statvfs(there), there.stat().st_dev
        except OSError:
            return Disk(name, 0, 0, writable=False), name
        # The blocks that file systems keep for root count for root only.
        free = figures.f_bfree if os.geteuid() == 0 else figures.f_bavail
        size = figures.f_frsize
        writable = os.access(there, os.W_OK)
        # A disk for recordings alone is full on purpose: retention keeps as much free as its settings say.
        low = 0 if name == RECORDING else self._low_bytes
        return Disk(name, free * size, figures.f_blocks * size, writable, low), device
