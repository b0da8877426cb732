"""Who watches through MediaMTX, and putting them out.

MediaMTX looks at credentials when a session begins and never again. So a revoked viewer is kicked, by protocol and by
the session id that MediaMTX told the hook. `kick` returns at once (it is a way out, called while denying); workers do
it. A kick that finds nothing is the sweep's business: whoever revokes lists again after some time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import structlog
import trio

from edged.errors import DependencyFailed
from edged.mediamtx.client import PROTOCOLS, Client, MediaSession

#: Kicks at a time.
WORKERS = 4
#: Kicks that may wait; beyond them the sweep has to find the sessions.
QUEUE = 1024
#: Seconds before a kick that MediaMTX did not answer is tried again.
RETRIES = (0.1, 0.3, 1.0)
_log = structlog.get_logger("viewers")


class Server(Protocol):
    """What this file needs of the supervisor."""

    @property
    def client(self) -> Client | None: ...


class Viewers:
    """Lists and kicks sessions of whichever MediaMTX is ready; without one there are none."""

    def __init__(self, server: Server, kicked: Callable[[str, float], None] = lambda _protocol, _seconds: None) -> None:
        """`kicked` hears of each session that `kick` put out, and how many seconds that took from the call."""
        self._server = server
        self._kicked = kicked
        # What the latest list of each protocol held; and what is being ended, or has been and may still be listed.
        self._listed: dict[str, frozenset[str]] = {}
        self._ending: dict[str, set[str]] = {protocol: set() for protocol in PROTOCOLS}
        self._put, self._take = trio.open_memory_channel[tuple[str, str, float]](QUEUE)

    def kick(self, protocol: str, session: str) -> None:
        """Put a session out as soon as possible; returns at once and never fails."""
        try:
            self._put.send_nowait((protocol, session, trio.current_time()))
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
            self._listed[protocol] = frozenset(each.id for each in found if each.protocol == protocol)
            self._ending[protocol] &= self._listed[protocol]
        return found

    async def kick_all(self, sessions: Iterable[MediaSession]) -> int:
        """Put these out; returns how many there were to put out. Failures are logged, not raised."""
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
        """Carry out kicks, several at a time; for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)
            task_status.started()

    async def _work(self) -> None:
        while True:
            protocol, session, asked_at = await self._take.receive()
            if await self._kick(protocol, session):
                self._kicked(protocol, trio.current_time() - asked_at)

    async def _kick(self, protocol: str, session: str) -> bool:
        """Try until MediaMTX answers or the patience ends; whether a session was put out."""
        for pause in (*RETRIES, None):
            client = self._server.client
            if client is None:
                return False  # its sessions ended with it
            began = trio.current_time()
            try:
                found = await self._kick_once(client, protocol, session)
            except DependencyFailed as error:
                _log.warning("kick_failed", protocol=protocol, session=session, why=str(error))
                if pause is not None:
                    await trio.sleep(pause)
                continue
            ms = round(1000 * (trio.current_time() - began), 1)
            _log.info("kicked" if found else "not_there", protocol=protocol, session=session, ms=ms)
            return found
        return False

    async def _kick_once(self, client: Client, protocol: str, session: str) -> bool:
        """Kick what is there: MediaMTX writes an error for each id that is not.

        Before 1.19.3 it told the hook the id of an RTSP connection, not that of its session.
        """
        if session in self._listed.get(protocol, ()):
            names = [session]
        else:
            listed = await client.list_sessions_of(protocol)
            names = [
                one.id for one in listed if session == one.id or (protocol == "rtsp" and session in one.connections)
            ]
        ending = self._ending[protocol]
        found = False
        for name in names:
            if name not in ending:
                ending.add(name)
                try:
                    found |= await client.kick(protocol, name)
                except DependencyFailed:
                    ending.discard(name)
                    raise
        return found
