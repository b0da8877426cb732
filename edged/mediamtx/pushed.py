"""Cameras that publish to their path themselves: whether they do, judged by the bytes that move. Pure.

MediaMTX closes a publisher that is silent for `readTimeout` (10 s); that a path has one shows nothing else.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from edged.mediamtx import causes
from edged.mediamtx.causes import Cause
from edged.mediamtx.client import PathState
from edged.mediamtx.progress import Progress, follow_progress, is_stalled

#: Seconds that somebody who was let in has until MediaMTX lists the stream: it waits for what the tracks are.
ARRIVAL_SECONDS: Final = 30.0


def follow(path: PathState | None, before: Progress, now: float) -> Progress:
    """How far the stream came, after a look at its path; one that is not there, or another, begins anew."""
    if path is None or not path.ready:
        return Progress(now)
    received = 0 if path.bytes_received < before.received else before.received
    return follow_progress(replace(before, received=received), path.bytes_received, now)


def find_fault(
    path: PathState | None, progress: Progress, silence: float, now: float, never: Cause = causes.NO_PUBLISHER
) -> Cause | None:
    """What is wrong with it, None for nothing (yet). `progress` after this look; `silence`: seconds without a
    new byte that may pass; `never`: why there is no stream."""
    if path is None or not path.ready:
        return never
    if is_stalled(progress, now, silence):
        return causes.STALLED
    return causes.NO_VIDEO if path.figures.audio and not path.figures.video else None
