"""The medium that recordings are kept on, where it can be taken out: known by a marker file and its device number.

An administrator makes the marker once (`touch FOLDER/.edged-medium`), in the folder of recordings on the medium.
Without it, or where the folder lies on the file system of `/`, nothing is mounted there, and nothing is written. edged
makes no marker: it would make one in the empty mount point.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

#: The file in the folder of recordings.
MARKER: Final = ".edged-medium"
#: Block devices that the kernel has now, by their numbers.
_DEVICES: Final = Path("/sys/dev/block")


T = TypeVar("T")


class Medium:
    """Whether it is there, as it was looked at last; one that is fixed always is."""

    def __init__(self, folder: Path, *, is_removable: bool, system: Path = Path("/")) -> None:
        """`system`: a folder of the file system that is no medium."""
        self._folder, self._system = folder, system
        self.is_removable = is_removable
        self.is_there = not is_removable
        #: Its device number, 0 for none: another one is a medium that was taken out and put back between two looks.
        self.device = 0

    def look(self) -> None:
        """Look now, in the calling thread."""
        if self.is_removable:
            self.device = self._find()
            self.is_there = self.device != 0

    def use(self, work: Callable[[], T]) -> T:
        """Do something with the folder, in the calling thread. Raises OSError where the medium is not there, and what
        the work raises."""
        self.look()
        if not self.is_there:
            raise OSError(errno.ENODEV, "the medium for recordings is not there")
        return work()

    def _find(self) -> int:
        try:
            device = (self._folder / MARKER).lstat().st_dev
            is_elsewhere = device != self._system.stat().st_dev and device == self._folder.stat().st_dev
            # Of a file system whose medium was pulled out without unmounting it the cache may still tell.
            os.statvfs(self._folder)
        except OSError:
            return 0
        return device if is_elsewhere and _is_plugged(device) else 0


def _is_plugged(device: int) -> bool:
    """Whether the kernel has the block device; those without one of their own (tmpfs, btrfs, network) count as such."""
    if os.major(device) == 0 or not _DEVICES.is_dir():
        return True
    return (_DEVICES / f"{os.major(device)}:{os.minor(device)}").exists()
