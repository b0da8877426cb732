"""The folder of recordings beside the index, a page at a time: unknown files, and rows without a file."""

from __future__ import annotations

from collections.abc import Sequence

from edged.library.recording_files import RecordingFiles
from edged.store.segments import SegmentRow


class Comparison:
    """The folder beside the index, both in the order of names."""

    def __init__(self, files: RecordingFiles, *, most: int) -> None:
        """At most so many unknown files are read at once."""
        self._files, self._most = files, most
        self._left = files.list_kept()
        self._next: tuple[str, str] | None = None
        self._is_begun = False
        self._page: set[str] | None = None

    def compare(self, page: Sequence[str], upto: str | None) -> tuple[list[SegmentRow], list[str], bool]:
        """(files that the index does not know, files of the page that are gone, whether the page is done), of the
        files up to the name `upto`, None for all that are left. To be called again with the same page until it is
        done. In a thread."""
        self._page = waiting = set(page) if self._page is None else self._page
        if not self._is_begun:
            self._is_begun, self._next = True, next(self._left, None)
        new: list[SegmentRow] = []
        while self._next is not None and (upto is None or self._next[1] <= upto):
            camera, file = self._next
            if file in waiting:
                waiting.discard(file)
            elif (row := self._files.describe(camera, file)) is not None:
                new.append(row)
            self._next = next(self._left, None)
            if len(new) == self._most:
                return new, [], False
        self._page = None
        # A folder may have been listed before a file was put there.
        return new, [file for file in sorted(waiting) if not self._files.find(file).exists()], True
