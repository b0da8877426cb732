"""What edged.mediamtx needs to know of a camera. edged.cameras is in the same layer and cannot be imported; its Camera
fits this protocol."""

from __future__ import annotations

from typing import Protocol

from edged.config.sources import RtspTransport, SourceKind


class CameraSource(Protocol):
    """Something that can be published at a path of its own.

    `name` is the camera (`camera0`), `path` its path at MediaMTX; `node` a device file, `url` an RTSP address (either
    may be None); `pixel_format` what the device delivers (`H264`, `MJPG`, `YUYV`); `width`, `height` pixels, `rate`
    frames a second, `bitrate` bits a second of the stream to make; `encoder` ffmpeg's name of one, "" to choose;
    `always_on` whether it is published while nobody watches; `is_held_in_memory` whether it is recorded into memory all
    the time, for the pre-roll of recordings. Width, height and rate of an RTSP source are what it says
    itself, 0 until it has; nothing is made by them. `is_pinned`: nothing but the address in `url` may be opened for it,
    whatever its server says.
    """

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def kind(self) -> SourceKind: ...
    @property
    def node(self) -> str | None: ...
    @property
    def url(self) -> str | None: ...
    @property
    def pixel_format(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def bitrate(self) -> int: ...
    @property
    def encoder(self) -> str: ...
    @property
    def always_on(self) -> bool: ...
    @property
    def is_held_in_memory(self) -> bool: ...
    @property
    def transport(self) -> RtspTransport: ...
    @property
    def is_pinned(self) -> bool: ...


def sets_key_frames(source: CameraSource) -> bool:
    """Whether the camera itself decides how far apart key frames are: its stream is passed on as it is."""
    return source.kind == "rtsp" or source.pixel_format in ("H264", "HEVC")


def picture_of(source: CameraSource) -> tuple[object, ...]:
    """What an ffmpeg is started for; if any of it changes, it has to start again."""
    if source.kind == "rtsp":
        return (source.kind, source.path, source.url, source.transport, source.is_pinned)
    size = (source.width, source.height, source.rate, source.bitrate)
    return (source.kind, source.path, source.node, source.pixel_format, source.encoder, *size)
