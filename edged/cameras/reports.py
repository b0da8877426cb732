"""What a reader of a camera's source reports → the camera as it is shown. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from edged.cameras.model import Camera, Status
from edged.config.sources import KINDS


class Report(msgspec.Struct, frozen=True):
    """`cause` names the cause why it gives no picture, "" while it gives one or that is not known; `problem` says it
    in words; `is_unreachable`: it cannot be reached. Size in pixels and frames a second of the stream, 0 for unknown;
    codecs, "" for unknown, that of the sound "none" for no sound.
    """

    cause: str = ""
    problem: str = ""
    is_unreachable: bool = False
    width: int = 0
    height: int = 0
    rate: float = 0.0
    video_codec: str = ""
    audio_codec: str = ""


def shown(camera: Camera, report: Report) -> Camera:
    """The camera with what the report says of it. One that is unplugged, or does not answer, stays so."""
    if not camera.is_attached:
        return camera
    if KINDS[camera.kind].tells_figures:
        # Only such a stream is what it is: of any other we choose size and rate.
        camera = replace(
            camera, width=report.width, height=report.height, rate=report.rate, video_codec=report.video_codec,
            audio_codec=report.audio_codec,
        )  # fmt: skip
    status = Status.CONNECTED if not report.cause else Status.DISCONNECTED if report.is_unreachable else Status.ERROR
    return replace(camera, status=status, cause=report.cause, problem=report.problem)


def carry(previous: Camera | None, camera: Camera) -> Camera:
    """A camera that is shown anew, with what was reported of the same source before: reading the settings or asking the
    device again shows nothing of its picture."""
    if previous is None or not previous.is_attached or camera.status is not Status.CONNECTED:
        return camera
    if _source(previous) != _source(camera):
        return camera
    carried = replace(camera, status=previous.status, cause=previous.cause, problem=previous.problem)
    if KINDS[camera.kind].tells_figures:
        carried = replace(
            carried, width=previous.width, height=previous.height, rate=previous.rate,
            video_codec=previous.video_codec, audio_codec=previous.audio_codec,
        )  # fmt: skip
    return carried


def _source(camera: Camera) -> tuple[object, ...]:
    made = (camera.width, camera.height, camera.rate) if not KINDS[camera.kind].tells_figures else ()
    settings = (camera.pixel_format, camera.encoder, camera.bitrate, camera.transport, camera.is_pinned)
    return (camera.kind, camera.node, camera.url, camera.path, *settings, *made)
