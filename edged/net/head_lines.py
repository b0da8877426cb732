"""The lines of a request's head, counted as its bytes come (RFC 9112 2.2); keeps three bytes whatever the reads are."""

from __future__ import annotations

_END = b"\r\n\r\n"


class HeadLines:
    """`number` of lines so far; `is_bare`: one of them ends in LF alone; `is_whole`: the empty line was there."""

    __slots__ = ("_tail", "is_bare", "is_whole", "number")

    def __init__(self) -> None:
        self._tail = b""
        self.number = 0
        self.is_bare = False
        self.is_whole = False

    def feed(self, data: bytes) -> None:
        """The next bytes; what stands behind the head is not looked at."""
        if self.is_whole:
            return
        start, data = len(self._tail), self._tail + data
        end = data.find(_END)
        stop = len(data) if end < 0 else end + len(_END)
        found = data.count(b"\n", start, stop)
        self.number += found
        # The CR of a LF that comes first is the last byte of what came before.
        self.is_bare = self.is_bare or found != data.count(b"\r\n", max(start - 1, 0), stop)
        self.is_whole = end >= 0
        self._tail = data[-3:]
