"""USB cameras, read by V4L2: what comes as H264 is passed on, everything else is encoded."""

from __future__ import annotations

from typing import ClassVar, Final

from edged.errors import DependencyFailed
from edged.mediamtx import ffmpeg
from edged.mediamtx.sources.base import CameraSource, Kind
from edged.mediamtx.sources.encoding import encode_arguments

#: V4L2's names of formats → ffmpeg's; any other is left to the driver.
_INPUT_FORMATS: Final = {
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "H264": "h264",
    "HEVC": "hevc",
    "YUYV": "yuyv422",
    "UYVY": "uyvy422",
    "NV12": "nv12",
    "YU12": "yuv420p",
    "GREY": "gray",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
}


class Usb(Kind):
    """A device file, in the format, size and rate that were chosen for it."""

    is_device: ClassVar[bool] = True

    def sets_key_frames(self, source: CameraSource) -> bool:
        return source.pixel_format in ("H264", "HEVC")

    def gives_jpegs(self, source: CameraSource) -> bool:
        return source.pixel_format in ("MJPG", "JPEG")

    def read(self, source: CameraSource, rate: float) -> list[str]:
        if not source.node:
            raise DependencyFailed(f"{source.name} has no device file", hint="plug it in again", camera=source.name)
        chosen = _INPUT_FORMATS.get(source.pixel_format)
        size = f"{source.width}x{source.height}"
        return [
            *("-f", "v4l2"),
            *(("-input_format", chosen) if chosen else ()),
            *("-framerate", ffmpeg.number(rate), "-video_size", size, "-i", source.node),
        ]

    def publish(self, source: CameraSource, playlist: str) -> list[str]:  # noqa: ARG002
        passed_on = source.pixel_format == "H264"
        return self.read(source, source.rate) + (["-c:v", "copy"] if passed_on else encode_arguments(source))
