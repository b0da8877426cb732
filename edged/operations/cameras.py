"""Cameras: the list, and one camera in full (contract 3: get_camera_list, get_camera_status)."""

from __future__ import annotations

from bisect import bisect_right

import msgspec
from msgspec import UNSET

from edged.cameras.model import Camera
from edged.config.sources import KINDS
from edged.mediamtx.client import PathState
from edged.mediamtx.figures import NO_AUDIO, UNKNOWN_FIGURES
from edged.operations.catalogue import DeviceParams, OperationCall, camera_resource, find_camera, operation
from edged.operations.listings import CameraFacts, CameraList, CameraRow, facts
from edged.operations.pages import PageParams, Place, read_cursor, write_cursor
from edged.operations.pictures import describe_problem, may_know_causes
from edged.operations.rest import get


class StreamMetrics(msgspec.Struct, frozen=True):
    """Bytes sent to viewers, viewers now, seconds that the stream is up."""

    bytes_sent: int = 0
    readers: int = 0
    uptime: float = 0.0


class Abilities(msgspec.Struct, frozen=True):
    """Formats by V4L2 name and sizes as "WxH" that the camera itself offers."""

    formats: tuple[str, ...]
    resolutions: tuple[str, ...]


class CameraStatus(CameraFacts, frozen=True, kw_only=True):
    """One camera in full; `problem` says why it gives no picture, "" if nothing is wrong; `restarts` counts the
    failures of its publisher since the camera is known; `binding`, for administrators, why the device that is plugged
    in is this camera, "" for a camera that somebody described. `video_codec` and `audio_codec` are those of its source,
    "" until it was seen, the latter "none" for one without sound; `audio`: whether a viewer hears it."""

    capabilities: Abilities
    metrics: StreamMetrics
    problem: str = ""
    restarts: int = 0
    binding: str = ""
    video_codec: str = ""
    audio_codec: str = ""
    audio: bool = False


@operation("camera:read", rest=get("/api/cameras"))
def get_camera_list(call: OperationCall, params: PageParams) -> CameraList:
    """The cameras that the caller may see: the same object while nothing changed, so that its JSON can be kept."""
    services, caller = call.services, call.session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"

    def may_see(camera: Camera) -> bool:
        return services.gate.judge(caller, "camera:read", camera_resource(camera)).allowed

    whole = services.listings.get(
        caller, services.own_urls.stream_host(call.session.peer.host), services.cameras.all(), services.mediamtx.state,
        may_see, services.recordings.active, services.clock.system,
    )  # fmt: skip
    return whole if params.limit is None and params.cursor is None else _take_page(call, whole, params)


def _take_page(call: OperationCall, whole: CameraList, params: PageParams) -> CameraList:
    """Some of the cameras, by number; the totals count all of them."""
    rows = sorted(whole.cameras, key=_place)
    after = None if params.cursor is None else read_cursor(call.operation.name, params.cursor)
    start = 0 if after is None else bisect_right(rows, after, key=_place)
    page = tuple(rows[start:][: params.limit])
    left = start + len(page) < len(rows)
    cursor = write_cursor(call.operation.name, _place(page[-1])) if page and left else UNSET
    return CameraList(page, whole.total, whole.connected, cursor)


def _place(row: CameraRow) -> Place:
    return float(row.camera_id.removeprefix("camera")), ""


@operation("camera:read", on_camera=True, rest=get("/api/cameras/{device}"))
async def get_camera_status(call: OperationCall, params: DeviceParams) -> CameraStatus:
    """One camera in full."""
    camera, services = call.camera, call.services
    stream = next((state for state in await services.paths.list() if state.name == camera.path), None)
    # To ask MediaMTX took time, in which a right may have ended.
    find_camera("camera:read", camera.name, services, call.session)
    published = stream.figures if stream else UNKNOWN_FIGURES
    # Of what edged makes itself the stream is all that there is.
    is_told = KINDS[camera.kind].tells_figures
    heard = published.audio or (camera.audio_codec if camera.audio else "")
    return CameraStatus(
        **{  # type: ignore[arg-type]
            **facts(camera, services.own_urls.stream_host(call.session.peer.host), services.mediamtx.state),
            "recording": camera.name in services.recordings.active,
        },
        capabilities=Abilities(
            formats=tuple(dict.fromkeys(mode.pixel_format for mode in camera.modes)),
            resolutions=tuple(dict.fromkeys(f"{mode.width}x{mode.height}" for mode in camera.modes)),
        ),
        metrics=measure(stream, services.clock.now()) if stream else StreamMetrics(),
        problem=describe_problem(camera, call.session.caller),
        binding=camera.binding if may_know_causes(call.session.caller) else "",
        video_codec=camera.video_codec if is_told else published.video,
        audio_codec=camera.audio_codec if is_told else published.audio,
        audio=heard not in ("", NO_AUDIO),
        restarts=publisher.restarts if (publisher := services.publishers.states.get(camera.path)) else 0,
    )


def measure(stream: PathState, now: float) -> StreamMetrics:
    """Figures of a path as replies show them; `now` Unix seconds."""
    uptime = 0.0 if stream.ready_since is None else max(0.0, round(now - stream.ready_since, 3))
    return StreamMetrics(bytes_sent=stream.bytes_sent, readers=stream.readers, uptime=uptime)
