"""Cameras with a web server: MJPEG over HTTP (ESP32-CAM, mjpg-streamer), or a still image that is asked for again."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from edged.mediamtx import causes
from edged.mediamtx.causes import Cause
from edged.mediamtx.sources.base import CameraSource, Kind
from edged.mediamtx.sources.encoding import encode_arguments
from edged.mediamtx.sources.http_reader import read_jpegs


class Http(Kind):
    """An address, which may hold a user name and password. edged reads the pictures, ffmpeg makes a stream of them."""

    by_network: ClassVar[bool] = True
    is_fed: ClassVar[bool] = True
    #: Three still images, if five seconds lie between them.
    silence: ClassVar[float] = 15.0
    never: ClassVar[Cause] = causes.SILENT

    def picture_of(self, source: CameraSource) -> tuple[object, ...]:
        made = (source.bitrate, source.encoder, source.still_seconds)
        return (source.kind, source.path, source.url, source.is_pinned, *made)

    def gives_jpegs(self, source: CameraSource) -> bool:  # noqa: ARG002
        return True

    async def read_jpegs(self, source: CameraSource, put: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        await read_jpegs(source.name, source.url or "", put, opened, still_seconds=source.still_seconds)

    def publish(self, source: CameraSource, playlist: str) -> list[str]:  # noqa: ARG002
        # Pictures come when they come: the time of each is when it was read.
        read = ("-f", "mjpeg", "-use_wallclock_as_timestamps", "1", "-i", "pipe:0", "-fps_mode", "vfr")
        return [*read, *encode_arguments(source, is_measured=False)]
