"""get_system_status (contract 3)."""

from __future__ import annotations

import msgspec

from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.clock import ClockReport, report
from edged.operations.file_params import sight_of
from edged.operations.health import assess_services
from edged.operations.rest import get
from edged.operations.services import Services


class MediaServer(msgspec.Struct, frozen=True):
    """MediaMTX: its state, what is wrong, and the remedy."""

    status: str
    detail: str
    remedy: str
    version: str


class ProblemReport(msgspec.Struct, frozen=True):
    """Something that does not work: its part (operations.health.PARTS), and the remedy."""

    part: str
    message: str
    remedy: str


class SystemStatus(msgspec.Struct, frozen=True):
    """`status` is ready, or partial while some part does not work; `message` says which, `problems` has each of
    them; `discovery`: how cameras that are plugged in are noticed (events, polling, off). From the same assessment as
    /health."""

    status: str
    message: str
    available_cameras: list[str]
    discovery_active: bool
    discovery: str
    mediamtx: MediaServer
    clock: ClockReport
    problems: list[ProblemReport]


@operation("system:read", rest=get("/api/status"))
def get_system_status(call: OperationCall, params: NoParams) -> SystemStatus:
    """The state of the box, and of the cameras that the caller may see; without MediaMTX everything but its streams
    works."""
    services = call.services
    server = show_media_server(services)
    sees = sight_of(services, call.session.caller)
    found = assess_services(services, sees)
    return SystemStatus(
        status=found.status,
        message=found.message,
        available_cameras=[camera.name for camera in services.cameras.all() if sees(camera.name)],
        discovery_active=services.cameras.discovery_active,
        discovery=services.cameras.discovery,
        mediamtx=server,
        clock=report(services.clock),
        problems=[ProblemReport(each.part, each.message, each.remedy) for each in found.problems],
    )


def show_media_server(services: Services) -> MediaServer:
    """The state of MediaMTX in replies."""
    state = services.mediamtx.state
    return MediaServer(status=state.status, detail=state.detail, remedy=state.remedy, version=state.version)
