"""Cameras: which there are, and what one is like (contract 3: get_camera_list, get_camera_status)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from edged.cameras.model import Camera, Status
from edged.credentials.callers import Caller
from edged.mediamtx.client import PathState
from edged.mediamtx.process import ServerState
from edged.operations.catalogue import Call, DeviceParams, NoParams, camera_resource, operation
from edged.operations.house import House

#: What a camera of edged can do for a caller, as the list of seed 001's clients (contract C-16).
_ABILITIES = ("snapshot", "stream")
_MOST_LISTS = 64


class CameraRow(msgspec.Struct, frozen=True, omit_defaults=False):
    """One camera in a list or a notification; `resolution` is "WxH" in pixels, `fps` frames a second."""

    device: str
    device_path: str
    camera_id: str
    status: str
    name: str
    resolution: str
    fps: int
    streams: dict[str, str]
    stream_url: str
    capabilities: tuple[str, ...]
    recording: bool = False
    recording_session: str | None = None
    current_file: str | None = None
    elapsed_time: float = 0.0


class CameraList(msgspec.Struct, frozen=True):
    """What the caller may see; the totals count these only (contract S0-6)."""

    cameras: tuple[CameraRow, ...]
    total: int
    connected: int


class StreamMetrics(msgspec.Struct, frozen=True):
    """Bytes sent to viewers, viewers now, seconds since the stream began; all 0 while there is none."""

    bytes_sent: int = 0
    readers: int = 0
    uptime: float = 0.0


class Abilities(msgspec.Struct, frozen=True):
    """Formats by V4L2 name and sizes as "WxH" that the camera itself offers."""

    formats: tuple[str, ...]
    resolutions: tuple[str, ...]


class CameraStatus(msgspec.Struct, frozen=True):
    """One camera in full; `problem` says what is wrong with it, if anything is."""

    device: str
    device_path: str
    camera_id: str
    status: str
    name: str
    resolution: str
    fps: int
    streams: dict[str, str]
    stream_url: str
    capabilities: Abilities
    metrics: StreamMetrics
    recording: bool = False
    problem: str = ""


def list_streams(camera: Camera, host: str, server: ServerState) -> dict[str, str]:
    """Addresses of a camera's picture, by protocol; none of them holds a credential."""
    where = f"[{host}]" if ":" in host and not host.startswith("[") else host
    streams = {}
    if server.status == "ready":
        for protocol, scheme, port in (
            ("rtsp", "rtsp", server.rtsp_port),
            ("hls", "http", server.hls_port),
            ("webrtc", "http", server.webrtc_port),
        ):
            if port:
                streams[protocol] = f"{scheme}://{where}:{port}/{camera.name}"
    return streams


def row(camera: Camera, host: str, server: ServerState) -> CameraRow:
    """A camera as a list, a status and a notification show it."""
    streams = list_streams(camera, host, server)
    return CameraRow(
        device=camera.name,
        device_path=camera.node or "",
        camera_id=camera.name,
        status=camera.status.value,
        name=camera.label,
        resolution=f"{camera.width}x{camera.height}",
        fps=round(camera.rate),
        streams=streams,
        stream_url=streams.get("rtsp", ""),
        capabilities=_ABILITIES,
    )


@dataclass(slots=True)
class _Listing:
    """What a list was made from; it is the same object as long as this holds."""

    cameras: tuple[Camera, ...]
    server: ServerState
    made: CameraList


class Listings:
    """The last lists by who sees what under which host name: most calls ask for what did not change."""

    def __init__(self) -> None:
        self._kept: dict[object, _Listing] = {}

    def get(self, house: House, caller: Caller, host: str) -> CameraList:
        cameras, server = house.cameras.all(), house.mediamtx.state
        key = (host, caller.cameras, caller.grants, "camera:read" in caller.capabilities)
        kept = self._kept.get(key)
        if kept is not None and kept.cameras is cameras and kept.server is server:
            return kept.made
        rows = tuple(
            row(camera, host, server)
            for camera in cameras
            if house.gate.judge(caller, "camera:read", camera_resource(camera)).allowed
        )
        connected = sum(item.status == Status.CONNECTED for item in rows)
        made = CameraList(cameras=rows, total=len(rows), connected=connected)
        if len(self._kept) >= _MOST_LISTS:
            self._kept.clear()
        self._kept[key] = _Listing(cameras, server, made)
        return made


@operation("camera:read")
def get_camera_list(call: Call, params: NoParams) -> CameraList:
    """The cameras that the caller may see: the identical object while nothing changed, so doors may keep its text."""
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"
    return call.house.listings.get(call.house, caller, call.session.peer.host)


@operation("camera:read", on_camera=True)
async def get_camera_status(call: Call, params: DeviceParams) -> CameraStatus:
    """One camera in full."""
    camera, house = call.camera, call.house
    base = row(camera, call.session.peer.host, house.mediamtx.state)
    present = {state.name: state for state in await house.paths.list()}
    stream = present.get(camera.name)
    return CameraStatus(
        device=base.device,
        device_path=base.device_path,
        camera_id=base.camera_id,
        status=base.status,
        name=base.name,
        resolution=base.resolution,
        fps=base.fps,
        streams=base.streams,
        stream_url=base.stream_url,
        capabilities=Abilities(
            formats=tuple(dict.fromkeys(mode.pixel_format for mode in camera.modes)),
            resolutions=tuple(dict.fromkeys(f"{mode.width}x{mode.height}" for mode in camera.modes)),
        ),
        metrics=measure(stream, house.clock.now()) if stream else StreamMetrics(),
        problem=camera.problem,
    )


def measure(stream: PathState, now: float) -> StreamMetrics:
    """A path's figures as a reply shows them; `now` Unix seconds."""
    uptime = 0.0 if stream.ready_since is None else max(0.0, round(now - stream.ready_since, 3))
    return StreamMetrics(bytes_sent=stream.bytes_sent, readers=stream.readers, uptime=uptime)
