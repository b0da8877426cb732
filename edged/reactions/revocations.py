"""A credential is revoked or expires → no MediaMTX session that it opened survives, whatever state it was in.

The admissions' ways out have kicked at once. A session may be unlisted then (an RTSP handshake in
flight, an HLS reader held on demand), so sweeps look at the lists again until nothing is left:
whoever is listed and not inside by right is kicked (design 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from edged.access.admissions import Admissions, Ended
from edged.errors import EdgedError
from edged.feeds import Lagged, Reader
from edged.mediamtx.viewers import Viewers

#: Seconds after the end of a right at which the lists are looked at. An HLS reader held on demand is listed when its
#: picture comes, up to 10 s later: it is out again within a second. The last sweep is behind the longest hold.
SWEEPS: Final = (0.3, *map(float, range(1, 13)))
#: Seconds between sweeps when nothing ended: for what was admitted while edged was away.
_QUIET: Final = 30.0
_log = structlog.get_logger("revocations")


async def follow(
    endings: Reader[Ended], admissions: Admissions, viewers: Viewers, monotonic: Callable[[], float]
) -> None:
    """Sweep after every end of a right, and now and then without one; runs for ever."""
    due: list[float] = []
    while True:
        wake = min(due, default=monotonic() + _QUIET)
        with trio.move_on_after(max(0.0, wake - monotonic())):
            news = await endings.receive()
            # A reader that lagged knows only that something ended: the sweep is the same.
            since = monotonic() if isinstance(news, Lagged) else news.at
            due = sorted({*due, *(since + after for after in SWEEPS)})
            continue
        now = monotonic()
        due = [at for at in due if at > now]
        await sweep(admissions, viewers)


async def sweep(admissions: Admissions, viewers: Viewers) -> int:
    """Kick everyone in MediaMTX's lists who is not inside by right; returns how many. Never raises EdgedError."""
    try:
        sessions = await viewers.list()
        # The list is older than this moment: whoever was admitted since is not in it, and whoever
        # left since is kicked in vain. Both are harmless, and there is no checkpoint from here on.
        strangers = [
            session
            for session in sessions
            if not any(admissions.has_session(session.protocol, name) for name in (session.id, *session.connections))
        ]
        admissions.forget_unseen(
            (session.protocol, name) for session in sessions for name in (session.id, *session.connections)
        )
        if strangers:
            _log.info("sweep", kicked=len(strangers))
            await viewers.kick_all(strangers)
    except EdgedError as problem:
        _log.debug("sweep failed", problem=str(problem))
        return 0
    return len(strangers)
