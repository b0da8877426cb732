"""Files that went while playlists that name them grow: each such list must count what it has lost (RFC 8216, 6.2.2).

Only what somebody may be playing is kept, and in memory: links to a list end with this process, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import trio

from edged.store.segments import LaidOut

#: Seconds without anybody asking for a list of a camera that grows, until it counts as watched no more: a player asks
#: several times a minute.
_WATCHED_SECONDS: Final = 3600.0
#: Files of one camera that are remembered: as many as a list may name.
_MOST: Final = 5000


class RemovedFiles:
    """By camera, those that have gone since it is watched."""

    def __init__(self) -> None:
        self._watched: dict[str, float] = {}
        self._files: dict[str, dict[str, LaidOut]] = {}

    def watch(self, camera: str) -> None:
        """Somebody has a list of this camera that grows."""
        self._watched[camera] = trio.current_time()

    def list_watched(self) -> frozenset[str]:
        """The cameras that are; of others nothing is remembered any more."""
        now = trio.current_time()
        for camera, at in list(self._watched.items()):
            if now - at > _WATCHED_SECONDS:
                del self._watched[camera]
                self._files.pop(camera, None)
        return frozenset(self._watched)

    def note(self, camera: str, rows: Iterable[LaidOut], gone: Collection[str]) -> None:
        """Of these files of a camera those in `gone` are deleted."""
        files = self._files.setdefault(camera, {})
        files.update((row.file, row) for row in rows if row.file in gone)
        for file in list(files)[: max(0, len(files) - _MOST)]:
            del files[file]

    def list_between(self, camera: str, begin: float, end: float) -> list[LaidOut]:
        """Those of a camera that share some time with [begin, end), Unix seconds."""
        rows = self._files.get(camera, {}).values()
        return [row for row in rows if row.began < end and row.began + row.duration > begin]
