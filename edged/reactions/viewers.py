"""Who watches through MediaMTX is looked up in its lists, so that each viewer counts once, with bytes, while here."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from edged.access.admissions import Admissions
from edged.errors import EdgedError
from edged.mediamtx.viewers import Viewers

#: Seconds between two looks while somebody watches; and from an admission to the first look, time for MediaMTX to list
#: the session. Nobody is asked while nobody watches.
LOOK_SECONDS: Final = 1.5
FIRST_LOOK_SECONDS: Final = 0.25
_log = structlog.get_logger("viewers")


async def follow(admissions: Admissions, viewers: Viewers) -> None:
    """Compare the admissions with the lists of the protocols that are in use; runs for ever."""
    while True:
        pause = LOOK_SECONDS if admissions.watched_protocols() else None
        with trio.move_on_after(float("inf") if pause is None else pause) as waited:
            await admissions.wait_watched()
        if not waited.cancelled_caught:
            await trio.sleep(FIRST_LOOK_SECONDS)
        await look(admissions, viewers)


async def look(admissions: Admissions, viewers: Viewers) -> None:
    """One look. A MediaMTX that does not answer tells nothing; one that is gone has no sessions. Raises nothing."""
    protocols, asked_at = admissions.watched_protocols(), trio.current_time()
    try:
        admissions.compare(await viewers.list(protocols), protocols, asked_at)
    except EdgedError as problem:
        _log.debug("not listed", problem=str(problem))
