"""A moving picture that edged makes itself."""

from __future__ import annotations

from typing import ClassVar

from edged.mediamtx import ffmpeg
from edged.mediamtx.sources.base import CameraSource, Kind
from edged.mediamtx.sources.encoding import encode_arguments


class TestPicture(Kind):
    """ffmpeg's test picture, in real time."""

    has_any_rate: ClassVar[bool] = True

    def read(self, source: CameraSource, rate: float) -> list[str]:
        size = f"{source.width}x{source.height}"
        return ["-re", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={ffmpeg.number(rate)}"]

    def publish(self, source: CameraSource, playlist: str) -> list[str]:  # noqa: ARG002
        return self.read(source, source.rate) + encode_arguments(source)
