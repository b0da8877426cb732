"""[[camera]] and [sources]: cameras that are described in the settings, and where added ones may be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from edged.config.addresses import check_network
from edged.config.sections import Section

_LABEL = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,63}\Z")
_PATH = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_SLOT_NAME = re.compile(r"camera[0-9]+\Z")
_CAMERA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})\Z")
_UDEV_MATCH = re.compile(r"[A-Z][A-Z0-9_]*=[^,]+(,[A-Z][A-Z0-9_]*=[^,]+)*\Z")


class CameraSettings(Section, frozen=True, kw_only=True):
    """A camera that udev cannot find by itself, or how one that it finds is to be used."""

    name: Annotated[str, Meta(description="What people call it; no two alike.")]
    source: Annotated[
        str,
        Meta(description='An rtsp:// URL, "test" for a test picture, or what udev says of it, such as ID_SERIAL=….'),
    ]
    mode: Annotated[
        Literal["on_demand", "always"],
        Meta(description="on_demand: it streams while somebody watches; always: all the time."),
    ] = "on_demand"
    size: Annotated[str, Meta(description="WIDTHxHEIGHT of the stream, or the nearest there is.")] = "640x480"
    rate: Annotated[float, Meta(gt=0, le=240, description="Frames a second, or the nearest there is.")] = 15.0
    bitrate: Annotated[int, Meta(ge=10_000, description="Bits a second when edged encodes.")] = 1_000_000
    encoder: Annotated[str, Meta(description='ffmpeg\'s name of the encoder; "" chooses.')] = ""
    path: Annotated[
        str,
        Meta(
            description="The name of its stream, as in rtsp://HOST:8554/front_door: up to 32 of a-z, 0-9, _ and -, a "
            'letter first, no two alike; "" is its id, cameraN.'
        ),
    ] = ""
    id: Annotated[
        str,
        Meta(
            description="By which it is recognised when its source has changed: up to 64 of A-Z, a-z, 0-9, ., _ and -. "
            "Without one it is its source, whatever user name and password; a test picture, its name."
        ),
    ] = ""
    rtsp_transport: Annotated[
        Literal["auto", "tcp", "udp"],
        Meta(description="How an rtsp:// camera sends: tcp, udp, or auto: TCP, and UDP where it has no TCP."),
    ] = "auto"

    def __post_init__(self) -> None:
        if not _LABEL.match(self.name):
            raise ValueError("name is 1 to 64 characters without / and does not begin with a dot")
        if not (self.is_test or self.is_rtsp or _UDEV_MATCH.match(self.source)):
            raise ValueError("source is rtsp://…, test, or a udev match such as ID_SERIAL=Vendor_Camera_0001")
        if self.path and (not _PATH.match(self.path) or _SLOT_NAME.match(self.path)):
            raise ValueError("path is up to 32 of a-z, 0-9, _ and -, a letter first, and not camera and a number")
        if self.id and not _CAMERA_ID.match(self.id):
            raise ValueError("id is up to 64 of A-Z, a-z, 0-9, ., _ and -, a letter or digit first")
        if not _SIZE.match(self.size):
            raise ValueError("size is WIDTHxHEIGHT, such as 640x480")

    @property
    def is_test(self) -> bool:
        """A picture that edged makes itself."""
        return self.source == "test"

    @property
    def is_rtsp(self) -> bool:
        """A camera in the network."""
        return self.source.startswith(("rtsp://", "rtsps://"))

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[1])


class SourceSettings(Section, frozen=True, kw_only=True):
    """Where cameras may be that calls add (add_camera, update_camera); a [[camera]] may be anywhere."""

    also_allowed: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks that are refused otherwise: this box itself, link-local and multicast. 127.0.0.0/8 "
            "lets calls add a stream that this box serves."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for network in self.also_allowed:
            check_network(network, "also_allowed")
