"""/healthz, /health, /health/live, /health/ready: is it well, and may traffic come? Open to all; names nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from starlette.responses import Response

from edged import __version__
from edged.clock import iso
from edged.operations.house import House
from edged.web.exchange import Exchange, Way, json_response

_GIB: Final = 1024**3
#: MediaMTX states in which streams flow, or are not wanted.
_WHOLE: Final = ("ready", "off")


@dataclass(frozen=True, slots=True)
class Disk:
    """Where edged keeps what it must not lose; `free_gb` in GiB."""

    free_gb: float
    writable: bool


def look_at_disk(folder: Path) -> Disk:
    """Free space and whether we may write there; a folder that cannot be looked at is not writable."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return Disk(0.0, writable=False)
    return Disk(round(free / _GIB, 3), os.access(folder, os.W_OK))


class Health:
    """What the four answers are made from; `is_ready` says whether every door is open and none is closing."""

    def __init__(self, house: House, state: Path, is_ready: Callable[[], bool]) -> None:
        self._house = house
        self._state = state
        self._is_ready = is_ready
        self._since = house.clock.monotonic()

    def ways(self) -> tuple[Way, ...]:
        """The rows of the route table."""
        answers = {
            "/healthz": self.show_short,
            "/health": self.show,
            "/health/live": self.show_live,
            "/health/ready": self.show_ready,
        }
        return tuple(Way(method="GET", path=path, answer=answer, capability="none") for path, answer in answers.items())

    async def show_short(self, _asked: Exchange) -> Response:
        """503 when nothing can be kept any more."""
        disk = await trio.to_thread.run_sync(look_at_disk, self._state)
        status = self._status(disk)
        body = {
            "status": status,
            "disk_free_gb": disk.free_gb,
            "writable": disk.writable,
            "version": __version__,
        }
        return json_response(body, 503 if status == "unhealthy" else 200)

    async def show(self, _asked: Exchange) -> Response:
        """The same, with times, how many denials are in force and not on disk, and what is kept for them there."""
        disk = await trio.to_thread.run_sync(look_at_disk, self._state)
        status = self._status(disk)
        uptime = round(self._house.clock.monotonic() - self._since, 3)
        body = {
            "status": status,
            "timestamp": self._now(),
            "version": __version__,
            "uptime": uptime,
            "denials_owed": self._house.registrar.owed,
            "denial_room_bytes": self._house.registrar.room_bytes,
        }
        return json_response(body, 503 if status == "unhealthy" else 200)

    async def show_live(self, _asked: Exchange) -> Response:
        """Whoever gets this answer knows that edged is alive."""
        body = {"alive": True, "status": "alive", "timestamp": self._now(), "message": "edged is running"}
        return json_response(body)

    async def show_ready(self, _asked: Exchange) -> Response:
        """503 while starting and while stopping. Denials that the disk does not take are in force, so that traffic may
        come; how many they are stands there for whoever is about to restart edged, which would undo them."""
        ready, owed = self._is_ready(), self._house.registrar.owed
        message = "edged answers" if ready else "edged is starting or stopping"
        if self._house.registrar.is_late:
            message += f"; not saved yet, so that a restart would undo them: {owed} of what was denied"
        body = {
            "status": "ready" if ready else "not_ready",
            "ready": ready,
            "timestamp": self._now(),
            "message": message,
            "denials_owed": owed,
        }
        return json_response(body, 200 if ready else 503)

    def _status(self, disk: Disk) -> str:
        if not disk.writable:
            return "unhealthy"
        registrar = self._house.registrar
        whole = self._house.mediamtx.state.status in _WHOLE and not registrar.is_late and registrar.has_room
        return "healthy" if whole else "degraded"

    def _now(self) -> str:
        return iso(self._house.clock.now())
