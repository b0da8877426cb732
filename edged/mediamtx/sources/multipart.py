"""Streams of JPEGs over HTTP (multipart/x-mixed-replace, RFC 2046, 5.1) → the pictures; and the size of a JPEG. Pure.

Cameras spell their boundary in many ways, with or without its two dashes: so the first line that begins with two dashes
is what divides. Of a part without a length the next such line is the end.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: Bytes of one picture, of one line of a part's head, and of all lines in front of a picture.
PICTURE_BYTES: Final = 16 * 1024 * 1024
_LINE_BYTES: Final = 4096
_HEAD_BYTES: Final = 16 * 1024
#: Segments of a JPEG that are looked at for its size.
_SEGMENTS: Final = 64
#: Start of frame, of every kind of JPEG (ITU T.81, B.2.2); C4, C8 and CC are other markers.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Part(NamedTuple):
    """One part: its type in lower case, "" where it says none, and its content."""

    kind: str
    content: bytes


class PartsParser:
    """Feed it bytes as they come; it does no I/O, and its work grows with their number."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._delimiter = b""
        self._is_head = self._is_body = False
        self._kind = ""
        self._length: int | None = None
        self._skipped = 0

    def feed(self, data: bytes | bytearray) -> list[Part]:
        """Bytes as they came → the parts that are now complete. Raises ValueError for what is no such stream."""
        self._buffer += data
        parts: list[Part] = []
        while self._take_part(parts) if self._is_body else self._take_line():
            pass
        return parts

    def _take_line(self) -> bool:
        end = self._buffer.find(b"\n", self._searched)
        self._skipped += (end + 1 if end >= 0 else len(self._buffer)) - self._searched
        if end < 0:
            self._searched = len(self._buffer)
        if self._skipped > _HEAD_BYTES or self._searched > _LINE_BYTES:
            raise ValueError("what divides its pictures does not end")
        if end < 0:
            return False
        line = bytes(self._buffer[:end]).strip()
        del self._buffer[: end + 1]
        self._searched = 0
        if self._is_head:
            self._read_head(line)
        elif line.startswith(self._delimiter or b"--"):
            self._delimiter, self._is_head = self._delimiter or line, True
            self._kind, self._length = "", None
        return True

    def _read_head(self, line: bytes) -> None:
        if not line:
            self._is_head, self._is_body, self._skipped = False, True, 0
            return
        name, _, value = line.partition(b":")
        text = value.strip().decode("latin-1")
        if name.strip().lower() == b"content-type":
            self._kind = text.partition(";")[0].strip().lower()
        elif name.strip().lower() == b"content-length":
            if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > PICTURE_BYTES:
                raise ValueError("a picture without a usable length")
            self._length = int(text)

    def _take_part(self, parts: list[Part]) -> bool:
        if self._length is not None:
            end, begin = self._length, self._length
            if len(self._buffer) < end:
                return False
        else:
            mark = b"\n" + self._delimiter
            end = self._buffer.find(mark, max(0, self._searched - len(mark)))
            self._searched = len(self._buffer)
            if end < 0:
                if len(self._buffer) > PICTURE_BYTES:
                    raise ValueError("a picture does not end")
                return False
            begin = end + 1
        content = bytes(self._buffer[:end])
        del self._buffer[:begin]
        self._searched, self._is_body = 0, False
        if content:
            parts.append(Part(self._kind, content))
        return True


def is_jpeg(content: bytes) -> bool:
    """Whether this begins as a JPEG."""
    return content.startswith(b"\xff\xd8\xff")


def read_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG, pixels; (0, 0) where its first segments do not say them."""
    at = 2
    for _ in range(_SEGMENTS):
        if at + 9 > len(jpeg) or jpeg[at] != 0xFF:
            break
        marker = jpeg[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(jpeg[at + 7 : at + 9], "big"), int.from_bytes(jpeg[at + 5 : at + 7], "big")
        # Fill bytes may stand before a marker; some markers have no length.
        at += 1 if marker == 0xFF else 2 if marker in (0x01, *range(0xD0, 0xD8)) else _length_at(jpeg, at)
    return 0, 0


def _length_at(jpeg: bytes, at: int) -> int:
    return 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
