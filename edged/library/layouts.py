"""Where a segment can be begun and left: pieces of some seconds for a player, as the index keeps them. Pure.

A file of MediaMTX's is cut into parts by duration, wherever its key frames are. A *fragment* is some parts: it ends
before the next part that begins with a key frame, so that a player can begin with any. Where there is none for long,
it begins with a part in which there is a key frame, and at last with any.

To read this from the file takes milliseconds, too many for a list of a thousand files: it is found when a file is
closed and is read anyway, and kept in 8 bytes a fragment.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final, NamedTuple
from zlib import crc32

from edged.library.fmp4 import Part, Segment

#: Seconds after which a fragment ends before a part that begins with a key frame, that holds one, and before any.
FRAGMENT_SECONDS: Final = 4
LONG_SECONDS: Final = 10
LONGEST_SECONDS: Final = 15
#: A key frame so soon after the begin of a part, seconds, is its first picture: sound may begin a little sooner.
_AT_ONCE: Final = Fraction(1, 10)
#: Version, bytes of the header, offset of the first fragment, and its begin in microseconds; and the CRC-32 of the
#: codecs of its tracks, which a layout of the first version does not have.
_HEAD: Final = struct.Struct(">BIQI")
_CODECS: Final = struct.Struct(">I")
#: Bytes, and microseconds, of which the highest bit says that it begins with a key frame.
_FRAGMENT: Final = struct.Struct(">II")
_FIRST_VERSION: Final = 1
_VERSION: Final = 2
_KEY: Final = 1 << 31
_MICRO: Final = 1_000_000


class Fragment(NamedTuple):
    """Bytes of a segment that are played in one piece: `size` from `offset` on; `begin` seconds from the segment's
    begin, and how many; `is_independent`: it begins with a key frame."""

    offset: int
    size: int
    begin: float
    seconds: float
    is_independent: bool

    @property
    def end(self) -> float:
        """Seconds from the segment's begin."""
        return self.begin + self.seconds


class Layout(NamedTuple):
    """The first `header_size` bytes of a segment are its header; its fragments follow one another without a gap.

    `codecs` are equal for equal codecs of its tracks, None where that was not kept.
    """

    header_size: int
    fragments: list[Fragment]
    codecs: int | None = None


def write_layout(segment: Segment) -> bytes:
    """What the index keeps of a segment; empty where there is nothing to play."""
    pieces = list(_cut(segment))
    if not pieces:
        return b""
    bounds = [pieces[0][0].begin, *(piece[0].begin for piece in pieces[1:]), max(part.end for part in pieces[-1])]
    offsets = [*(piece[0].offset for piece in pieces), segment.size]
    # Each from its place, so that nothing adds up.
    times = [max(0, round(bound * _MICRO)) for bound in bounds]
    try:
        data = _HEAD.pack(_VERSION, segment.header_size, offsets[0], times[0]) + _CODECS.pack(crc32(segment.codecs))
        for number, piece in enumerate(pieces):
            length = times[number + 1] - times[number]
            if not 0 <= length < _KEY:
                return b""
            key = _KEY if _is_independent(piece[0], segment) else 0
            data += _FRAGMENT.pack(offsets[number + 1] - offsets[number], length | key)
    except struct.error:
        # Four gigabytes in one fragment.
        return b""
    return data


def read_layout(
    data: bytes, begin: float = -math.inf, end: float = math.inf, seconds: float = 0.0
) -> Layout | None:  # fmt: skip
    """What was kept of [begin, end), seconds from the segment's begin, from the key frame at or before the begin on;
    fragments are one as long as they are not longer than `seconds` together.

    None where nothing is, and for what a later version has written.
    """
    if len(data) < _HEAD.size or data[0] not in (_FIRST_VERSION, _VERSION):
        return None
    version, header_size, offset, at = _HEAD.unpack_from(data)
    codecs, head = None, _HEAD.size
    if version == _VERSION:
        if len(data) < head + _CODECS.size:
            return None
        (codecs,) = _CODECS.unpack_from(data, head)
        head += _CODECS.size
    first, last, most = begin * _MICRO, end * _MICRO, seconds * _MICRO
    # Offset, bytes, begin, length, key. Numbers alone, since there are many.
    found: list[list[int]] = []
    usable = len(data) - (len(data) - head) % _FRAGMENT.size
    for size, length in _FRAGMENT.iter_unpack(data[head:usable]):
        key, micro = length & _KEY, length & ~_KEY
        if at >= last:
            break
        if key and at <= first:
            found.clear()
        if found and found[-1][3] + micro <= most:
            found[-1][1] += size
            found[-1][3] += micro
        else:
            found.append([offset, size, at, micro, key])
        offset, at = offset + size, at + micro
    fragments = [
        Fragment(offset, size, at / _MICRO, micro / _MICRO, bool(key)) for offset, size, at, micro, key in found
    ]
    return Layout(header_size, fragments, codecs)


def _cut(segment: Segment) -> Iterator[Sequence[Part]]:
    """The parts of each fragment."""
    first = 0
    parts = segment.parts
    for number in range(1, len(parts)):
        seconds = parts[number].begin - parts[first].begin
        if (
            (seconds >= FRAGMENT_SECONDS and _is_independent(parts[number], segment))
            or (seconds >= LONG_SECONDS and parts[number].keys)
            or seconds >= LONGEST_SECONDS
        ):
            yield parts[first:number]
            first = number
    if parts:
        yield parts[first:]


def _is_independent(part: Part, segment: Segment) -> bool:
    """Whether a player can begin with this part: sound alone can be begun anywhere."""
    if not any(track.kind == "vide" for track in segment.tracks):
        return True
    return bool(part.keys) and part.keys[0] - part.begin < _AT_ONCE
