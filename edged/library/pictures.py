"""Width and height of a JPEG or PNG file, from its first bytes."""

from __future__ import annotations

import struct
from typing import Final

#: Bytes that are enough for every picture that edged takes.
HEAD_BYTES: Final = 65536
_PNG: Final = b"\x89PNG\r\n\x1a\n"
#: Markers of JPEG that begin a frame (ITU T.81, table B.1), and those without a length.
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def read_size(head: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels of a picture that begins with these bytes; None for anything else."""
    if head.startswith(_PNG):
        return struct.unpack_from(">II", head, 16) if len(head) >= 24 else None
    if not head.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            if at + 9 > len(head):
                return None
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", head, at + 2)[0]
    return None
