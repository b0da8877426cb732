"""Whether a publisher works: its bytes move. That its process exists shows nothing. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

#: Seconds without a new byte after which a publisher is started again; at its start it has longer.
STALL_SECONDS: Final = 5.0
START_SECONDS: Final = 10.0


class Progress(msgspec.Struct, frozen=True):
    """How far a publisher came: bytes seen last, when they last grew (or it started), whether they ever did."""

    moved_at: float
    received: int = 0
    moving: bool = False


def follow_progress(progress: Progress, received: int, now: float) -> Progress:
    """After a reading of the path. `received`: bytes so far; fewer than before is a new count, not a movement."""
    if received > progress.received:
        return Progress(now, received, moving=True)
    return replace(progress, received=received)


def is_stalled(progress: Progress, now: float, least: float = 0.0) -> bool:
    """Whether this publisher should be started again. `now`: monotonic seconds, as in `progress`; `least`: seconds
    that this source may be silent in any case."""
    return now - progress.moved_at >= max(least, STALL_SECONDS if progress.moving else START_SECONDS)
