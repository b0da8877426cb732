"""/healthz, /health, /health/live, /health/ready: health and readiness. Open to all; no names in the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import Response

from edged import __version__
from edged.operations.clock import tell_time
from edged.operations.health import begin_uptime, report
from edged.operations.services import Services
from edged.web.requests import Request, Route, json_response

_GIB: Final = 1024**3
PATHS: Final = ("/healthz", "/health", "/health/live", "/health/ready")


class HealthEndpoints:
    """The four answers; `is_ready` says whether every listener is open and none is closing."""

    def __init__(self, services: Services, is_ready: Callable[[], bool]) -> None:
        self._services = services
        self._is_ready = is_ready
        self._since = begin_uptime(services)

    def routes(self) -> tuple[Route, ...]:
        """The rows of the route table."""
        answers = (self.show_short, self.show, self.show_live, self.show_ready)
        return tuple(
            Route(method="GET", path=path, answer=answer, capability="none")
            for path, answer in zip(PATHS, answers, strict=True)
        )

    async def show_short(self, _request: Request) -> Response:
        """503 when nothing can be saved any more."""
        told = await report(self._services, self._since)
        found = told.assessment
        body = {
            "status": found.health,
            "disk_free_gb": round(told.free_bytes / _GIB, 3),
            "writable": found.can_save,
            "version": __version__,
        }
        return json_response(body, 200 if found.can_save else 503)

    async def show(self, _request: Request) -> Response:
        """As /healthz, with times, how many denials are in force but not on disk, and the bytes reserved for them."""
        told = await report(self._services, self._since)
        body = {
            "status": told.assessment.health,
            "timestamp": told.time,
            "version": __version__,
            "uptime": told.uptime,
            "denials_owed": told.pending,
            "denial_room_bytes": told.reserve_bytes,
        }
        return json_response(body, 200 if told.assessment.can_save else 503)

    async def show_live(self, _request: Request) -> Response:
        """Always 200."""
        time = tell_time(self._services)
        return json_response({"alive": True, "status": "alive", "timestamp": time, "message": "edged is running"})

    async def show_ready(self, _request: Request) -> Response:
        """503 while starting and while stopping, and while nothing can be saved. Denials that the disk does not take
        are in force, so that traffic may come; their number is for administrators who are about to restart edged,
        which would undo them."""
        told = await report(self._services, self._since)
        found, is_open = told.assessment, self._is_ready()
        ready = is_open and found.can_save
        message = "edged answers" if is_open else "edged is starting or stopping"
        if is_open and not found.can_save:
            message = "edged answers and streams go on, but nothing can be saved: " + "; ".join(
                problem.message for problem in found.problems if problem.stops_saving
            )
        if told.is_late:
            message += f"; not saved yet, so that a restart would undo them: {told.pending} of what was denied"
        body = {
            "status": "ready" if ready else "not_ready",
            "ready": ready,
            "timestamp": told.time,
            "message": message,
            "denials_owed": told.pending,
        }
        return json_response(body, 200 if ready else 503)
