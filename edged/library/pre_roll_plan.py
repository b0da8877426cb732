"""Which pieces in memory go to the disk, and which go altogether; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from edged.library.pre_roll_files import Piece

#: Seconds that a piece stays longer than the pre-roll of its camera reaches back.
SPARE_SECONDS: Final = 2.0


class Plan(msgspec.Struct, frozen=True):
    """Pieces to keep on the disk, pieces that are too old, and pieces for which there is no memory; oldest first."""

    keep: tuple[Piece, ...]
    old: tuple[Piece, ...]
    excess: tuple[Piece, ...]


def plan(
    pieces: Iterable[Piece], belongs: Callable[[Piece], bool], seconds: Mapping[str, float], *, now: float,
    open_bytes: int, limit: int, can_keep: bool,
) -> Plan:  # fmt: skip
    """`belongs`: whether a recording needs a piece; `seconds` of pre-roll by camera; `now` Unix seconds.

    `open_bytes` of files being written count against `limit` bytes, as does what cannot be kept now (`can_keep`): the
    oldest pieces go first. A piece from the future is one from before the clock was set.
    """
    keep: list[Piece] = []
    old: list[Piece] = []
    held: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.began, str(piece.path))):
        if belongs(piece):
            (keep if can_keep else held).append(piece)
        elif piece.camera not in seconds or not (
            now - seconds[piece.camera] - SPARE_SECONDS <= piece.ended and piece.began <= now + SPARE_SECONDS
        ):
            old.append(piece)
        else:
            held.append(piece)
    left = open_bytes + sum(piece.size for piece in held)
    excess: list[Piece] = []
    for piece in held:
        if left <= limit:
            break
        excess.append(piece)
        left -= piece.size
    return Plan(tuple(keep), tuple(old), tuple(excess))
