"""Admissions are compared with MediaMTX's lists, so that each viewer counts once, with its bytes, while it reads."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from edged.access.admissions import Admissions
from edged.errors import EdgedError
from edged.mediamtx.viewers import Viewers

#: Seconds between two looks while somebody watches; and from an admission to the first look, time for MediaMTX to list
#: the session. MediaMTX is not asked while there is no viewer.
LOOK_SECONDS: Final = 1.5
FIRST_LOOK_SECONDS: Final = 0.25
#: A look that holds the loop is followed by a pause of so many times its length at least.
SHARE: Final = 200
_log = structlog.get_logger("viewers")


async def follow(admissions: Admissions, viewers: Viewers) -> None:
    """Compare the admissions with the lists of the protocols that are in use; runs until cancelled."""
    pause = LOOK_SECONDS
    while True:
        with trio.move_on_after(pause if admissions.watched_protocols() else float("inf")) as waited:
            await admissions.wait_watched()
        if not waited.cancelled_caught:
            await trio.sleep(FIRST_LOOK_SECONDS if pause == LOOK_SECONDS else pause)
        pause = max(LOOK_SECONDS, SHARE * await look(admissions, viewers))


async def look(admissions: Admissions, viewers: Viewers) -> float:
    """One look; returns the seconds that it held the loop. While MediaMTX does not answer nothing changes;
    one that has ended has no sessions. Raises nothing."""
    protocols, asked_at = admissions.watched_protocols(), trio.current_time()
    try:
        listed = await viewers.list(protocols)
    except EdgedError as problem:
        _log.debug("viewers_not_listed", problem=str(problem))
        return 0.0
    began = trio.current_time()
    admissions.compare(listed, protocols, asked_at)
    return trio.current_time() - began
