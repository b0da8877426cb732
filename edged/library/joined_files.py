"""What ffmpeg makes of a recording: whether it is whole, and how much space its index needs. Reads headers only.

ffmpeg 5 exits with 0 where the disk was full when it wrote its last bytes, and a file whose bytes a power cut took
still has its name, so the file itself is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from edged.library.fmp4 import NotASegment, Part, count_samples, top_boxes

#: Bytes of an mp4's index beside its samples, and of each sample: its size (4), time (8), offset (8), chunk (12).
_LEAST_INDEX: Final = 16 * 1024
_SAMPLE_BYTES: Final = 32
#: So many more samples a second may come than in the file that was looked at.
_MARGIN: Final = 1.25
#: Matroska (RFC 9559): the elements at the top of a file, and how long their sizes are as ffmpeg writes them.
_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
_SIZE_BYTES: Final = 8
_HEAD_BYTES: Final = 128


def is_whole(path: Path) -> bool:
    """Whether an mp4 or mkv was written to its end. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        size = file.seek(0, 2)
        return _is_whole_mkv(head, size) if head.startswith(_EBML) else _is_whole_mp4(file)


def _is_whole_mp4(file: BinaryIO) -> bool:
    kinds = set[bytes]()
    try:
        for kind, _, _, is_complete in top_boxes(file):
            if not is_complete:
                return False
            kinds.add(kind)
    except NotASegment:
        return False
    return kinds >= {b"moov", b"mdat"}


def _is_whole_mkv(head: bytes, size: int) -> bool:
    """The segment's size is written last; before that it says that it is unknown."""
    at = head.find(_SEGMENT)
    begin = at + len(_SEGMENT) + _SIZE_BYTES
    if at < 0 or begin > len(head) or head[begin - _SIZE_BYTES] != 1:
        return False
    return begin + int.from_bytes(head[begin - _SIZE_BYTES + 1 : begin], "big") == size


def index_bytes(file: BinaryIO, parts: Sequence[Part], seconds: float) -> int:
    """About how many bytes the index of an mp4 has at most that goes on for so many seconds as these parts of a segment
    do. Raises NotASegment, OSError."""
    length = float(max(part.end for part in parts) - parts[0].begin)
    samples = sum(count_samples(file, part) for part in parts)
    share = max(1.0, seconds / length) if length > 0 else 1.0
    return _LEAST_INDEX + int(_MARGIN * share * samples * _SAMPLE_BYTES)
