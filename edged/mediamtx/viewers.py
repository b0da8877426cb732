"""Who watches through MediaMTX, and the end of their sessions.

MediaMTX checks credentials when a session begins and never again. So a revoked viewer is kicked, by protocol and by
the session id that MediaMTX told the hook. `kick` returns at once, because it is called while a
credential is being revoked; workers carry it out. A kick that finds nothing is left to the sweep
(edged.reactions.revocations), which lists the sessions again after some time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import structlog
import trio

from edged.errors import DependencyFailed
from edged.mediamtx.client import PROTOCOLS, ControlApi, MediaSession
from edged.mediamtx.process import Supervisor

#: Kicks at a time.
WORKERS = 4
#: Kicks that may wait; beyond them the sweep has to find the sessions.
QUEUE = 1024
#: Seconds before a kick that MediaMTX did not answer is tried again.
RETRIES = (0.1, 0.3, 1.0)
_log = structlog.get_logger("viewers")


class Viewers:
    """Lists and kicks sessions of whichever MediaMTX is ready; without one there are none."""

    def __init__(
        self, server: Supervisor, kicked: Callable[[str, float], None] = lambda _protocol, _seconds: None
    ) -> None:
        """`kicked` hears of each session that `kick` has ended, and how many seconds that took from the call."""
        self._server = server
        self._kicked = kicked
        # What is being ended, or has been and may still be listed.
        self._ending: dict[str, set[str]] = {protocol: set() for protocol in PROTOCOLS}
        self._put, self._take = trio.open_memory_channel[tuple[str, str, bool, float]](QUEUE)

    def kick(self, protocol: str, session: str, *, is_half: bool = False) -> None:
        """End a session as soon as possible; returns at once and never fails.

        `is_half`: its id may be that of a connection (RTSP), of which MediaMTX knows no session.
        """
        try:
            self._put.send_nowait((protocol, session, is_half, trio.current_time()))
        except trio.WouldBlock:
            _log.warning("kick_left_to_sweep", protocol=protocol, session=session)

    async def list(self, only: Collection[str] = PROTOCOLS) -> list[MediaSession]:
        """Publishers and readers over these protocols. Raises DependencyFailed if MediaMTX does not answer."""
        client = self._server.client
        if client is None:
            await trio.lowlevel.checkpoint()
            found = []
        else:
            found = await client.list_sessions(only)
        for protocol in only:
            self._ending[protocol] &= {each.id for each in found if each.protocol == protocol}
        return found

    async def kick_all(self, sessions: Iterable[MediaSession]) -> int:
        """End these; returns how many there were. Failures are logged, not raised."""
        kicked: list[bool] = []
        limit = trio.CapacityLimiter(WORKERS)

        async def kick_one(session: MediaSession) -> None:
            async with limit:
                kicked.append(await self._kick(session.protocol, session.id))

        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(kick_one, session)
        return sum(kicked)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out kicks, several at a time; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)
            task_status.started()

    async def _work(self) -> None:
        while True:
            protocol, session, is_half, asked_at = await self._take.receive()
            if await self._kick(protocol, session, is_half):
                self._kicked(protocol, trio.current_time() - asked_at)

    async def _kick(self, protocol: str, session: str, is_half: bool = False) -> bool:
        """Try until MediaMTX answers or the patience ends; whether a session was ended."""
        for pause in (*RETRIES, None):
            client = self._server.client
            if client is None:
                return False  # its sessions ended with it
            began = trio.current_time()
            try:
                found = await self._kick_once(client, protocol, session, is_half)
            except DependencyFailed as error:
                _log.warning("kick_failed", protocol=protocol, session=session, why=str(error))
                if pause is not None:
                    await trio.sleep(pause)
                continue
            ms = round(1000 * (trio.current_time() - began), 1)
            _log.info("session_kicked" if found else "session_not_found", protocol=protocol, session=session, ms=ms)
            return found
        return False

    async def _kick_once(self, client: ControlApi, protocol: str, session: str, is_half: bool) -> bool:
        """Kick a session, once; one that may go by another id is looked up first.

        MediaMTX writes an error for each id that it does not know. Before 1.19.3 it told the hook the id of an RTSP
        connection, not that of its session.
        """
        if not is_half and await self._end(client, protocol, session):
            return True
        if protocol != "rtsp":
            return False
        listed = await client.list_sessions_of("rtsp")
        named = [one.id for one in listed if session in one.connections or (is_half and session == one.id)]
        return any([await self._end(client, "rtsp", name) for name in named])

    async def _end(self, client: ControlApi, protocol: str, session: str) -> bool:
        """Kick this id, unless that is being done already; whether a session was ended."""
        ending = self._ending[protocol]
        if session in ending:
            return False
        ending.add(session)
        found = False
        try:
            found = await client.kick(protocol, session)
        finally:
            if not found:
                ending.discard(session)
        return found
