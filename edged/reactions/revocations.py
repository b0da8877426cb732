"""After a credential is revoked or has expired, no MediaMTX session that it opened survives, in whatever state.

Each admission's `on_terminate` has kicked its session at once. A session may not be listed then (an RTSP handshake that
is under way, an HLS reader held on demand), so sweeps read MediaMTX's lists for some time after: whoever is listed and
has no admission is kicked (architecture 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import structlog
import trio

from edged.access.admissions import Admissions, Ended
from edged.errors import EdgedError
from edged.feeds import Lagged, Reader
from edged.mediamtx.client import PROTOCOLS, MediaSession
from edged.mediamtx.viewers import Viewers

#: Seconds after the end of an admission at which the lists are read. An HLS reader held on demand is listed when its
#: picture comes, up to 10 s later, and is kicked within a second. The last sweep is after the longest hold.
SWEEPS: Final = (0.3, *map(float, range(1, 13)))
#: Seconds between sweeps when nothing ended: for what was admitted while edged was away.
_QUIET: Final = 30.0
#: For how long MediaMTX waits for a client's next word, seconds: an idle session that is older has said all it will.
IDLE_SECONDS: Final = 10.0
#: Within this time whatever MediaMTX asks of us is answered, seconds.
_QUESTION: Final = 0.2
#: (protocol, session id)
Name: TypeAlias = tuple[str, str]
_log = structlog.get_logger("revocations")


async def follow(
    endings: Reader[Ended], admissions: Admissions, viewers: Viewers, monotonic: Callable[[], float]
) -> None:
    """Sweep after every end of an admission, and now and then without one; runs until cancelled."""
    due: list[float] = []
    idle: dict[Name, float] = {}
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
        await sweep(admissions, viewers, idle)


async def sweep(admissions: Admissions, viewers: Viewers, idle: dict[Name, float] | None = None) -> int:
    """Kick every session in MediaMTX's lists that has no admission; returns how many. Never raises EdgedError.

    MediaMTX lists whoever has connected, also before it asks us: an idle session is not kicked for as long as it may
    take to say what it wants (`idle`: since when this and earlier sweeps saw each), and nobody is kicked whose question
    may be on its way just now.
    """
    seen, now = {} if idle is None else idle, trio.current_time()
    try:
        sessions = await viewers.list()
        admissions.compare(sessions, PROTOCOLS, now)
        found = _find_strangers(sessions, admissions)
        waiting = {name: seen.get(name, now) for name, session in found.items() if session.state == "idle"}
        seen.clear()
        seen.update(waiting)
        suspects = {name for name in found if now - waiting.get(name, -math.inf) >= IDLE_SECONDS}
        if not suspects:
            return 0
        await trio.sleep(_QUESTION)
        # This list, too, is older than this moment: whoever left since is kicked in vain, which is harmless. There is
        # no checkpoint from here on.
        found = _find_strangers(await viewers.list(), admissions)
        strangers = [session for name, session in found.items() if name in suspects]
        if strangers:
            _log.info("sessions_swept", kicked=len(strangers))
            await viewers.kick_all(strangers)
    except EdgedError as problem:
        _log.debug("sweep_failed", problem=str(problem))
        return 0
    return len(strangers)


def _find_strangers(sessions: Iterable[MediaSession], admissions: Admissions) -> dict[Name, MediaSession]:
    return {
        (session.protocol, session.id): session
        for session in sessions
        if not any(admissions.has_session(session.protocol, name) for name in (session.id, *session.connections))
    }
