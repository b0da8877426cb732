"""What this room needs to know about a camera; the cameras room's own type satisfies it by shape."""

from __future__ import annotations

from typing import Literal, Protocol


class Source(Protocol):
    """Something that can be published at a path of its own.

    `name` is the camera (`camera0`), `path` its path at MediaMTX; `node` a device file, `url` an RTSP address (either
    may be None); `pixel_format` what the device delivers (`H264`, `MJPG`, `YUYV`); `width`, `height` pixels, `rate`
    frames a second, `bitrate` bits a second of the stream to make; `encoder` ffmpeg's name of one, "" to choose;
    `always_on` whether it is published while nobody watches.
    """

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def kind(self) -> Literal["usb", "rtsp", "test"]: ...
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
