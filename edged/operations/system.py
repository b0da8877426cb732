"""How the box is doing (contract 3, get_system_status)."""

from __future__ import annotations

import msgspec

from edged.operations.catalogue import Call, NoParams, camera_resource, operation
from edged.operations.clock import ClockReport, report
from edged.operations.house import House


class MediaServer(msgspec.Struct, frozen=True):
    """MediaMTX: its state, what is wrong, and what to do about it."""

    status: str
    detail: str
    remedy: str
    version: str


class SystemStatus(msgspec.Struct, frozen=True):
    """`status` is ready, or partial while some part of the box does not work; `message` says which."""

    status: str
    message: str
    available_cameras: list[str]
    discovery_active: bool
    mediamtx: MediaServer
    clock: ClockReport


@operation("system:read")
def get_system_status(call: Call, params: NoParams) -> SystemStatus:
    """The whole box in a few words; without MediaMTX everything but its streams goes on."""
    house = call.house
    server = show_media_server(house)
    cameras = [
        camera.name
        for camera in house.cameras.all()
        if house.gate.judge(call.session.caller, "camera:read", camera_resource(camera)).allowed
    ]
    whole = server.status in ("ready", "off")
    return SystemStatus(
        status="ready" if whole else "starting" if server.status == "starting" else "partial",
        message="everything works" if whole else f"MediaMTX: {server.detail or server.status}",
        available_cameras=cameras,
        discovery_active=house.cameras.discovery_active,
        mediamtx=server,
        clock=report(house.clock),
    )


def show_media_server(house: House) -> MediaServer:
    """MediaMTX's state as replies show it."""
    state = house.mediamtx.state
    return MediaServer(status=state.status, detail=state.detail, remedy=state.remedy, version=state.version)
