"""[[camera]] and [sources]: cameras that are described in the settings, and where added ones may be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from msgspec import Meta

from edged.config.addresses import check_network
from edged.config.schedules import Window, read_windows
from edged.config.sections import Section
from edged.config.sources import RtspTransport, SourceKind, fault_of_sub, is_network, kind_of

#: Bytes of memory for the pre-rolls of all cameras.
PRE_ROLL_BYTES: Final = 64_000_000
#: Seconds of a camera in memory besides its pre-roll: the piece that is being written, and the one cut by its begin.
PIECE_SLACK_SECONDS: Final = 4.0
#: What the path of a camera's smaller stream has behind the camera's own.
SUB: Final = "_sub"
_LABEL = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,63}\Z")
_PATH = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_SLOT_NAME = re.compile(r"camera[0-9]+\Z")
_CAMERA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})\Z")
_UDEV_MATCH = re.compile(r"[A-Z][A-Z0-9_]*=[^,]+(,[A-Z][A-Z0-9_]*=[^,]+)*\Z")


class CameraSettings(Section, frozen=True, kw_only=True):
    """A camera: a network camera, one that somebody publishes, a test picture, or settings for a USB camera that edged
    finds by itself."""

    name: Annotated[str, Meta(description="Display name; must be unique.")]
    source: Annotated[
        str,
        Meta(
            description="Source of the picture: an rtsp:// or rtsps:// URL, an http:// or https:// "
            'URL of an MJPEG stream or a still image, "push" for a camera that publishes to '
            'its path (rtsp, webrtc, rtmp and srt of [mediamtx]) with the right stream:publish, "rpi:0" for the '
            'first camera at the ribbon of a Raspberry Pi, "test" for a test '
            "picture, or udev properties of a USB camera such as ID_SERIAL=…."
        ),
    ]
    mode: Annotated[
        Literal["on_demand", "always"],
        Meta(description="When to stream: on_demand (while there is a viewer) or always."),
    ] = "on_demand"
    record: Annotated[
        Literal["manual", "always", "schedule"],
        Meta(
            description="When to record: manual (when a client asks for it), always, or schedule; the latter two in "
            "one recording an hour."
        ),
    ] = "manual"
    schedule: Annotated[
        tuple[str, ...],
        Meta(
            description='With record = "schedule": when to record each day, up to 8 windows of local time such as '
            '"08:00-18:00" or "22:00-06:00".'
        ),
    ] = ()
    pre_roll_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=30,
            description="Seconds before start_recording that a recording begins; they are kept in memory, and the "
            "camera streams always. 0: none.",
        ),
    ] = 0
    max_age_days: Annotated[
        float,
        Meta(ge=0, le=3650, description="Age at which its recordings are deleted, days; 0: recording.max_age_days."),
    ] = 0.0
    max_size_gb: Annotated[
        float,
        Meta(ge=0, le=1_000_000, description="Size above which its oldest recordings are deleted, GB; 0: none."),
    ] = 0.0
    size: Annotated[
        str, Meta(description="Picture size, WIDTHxHEIGHT; the nearest size that the camera supports is used.")
    ] = "640x480"
    rate: Annotated[
        float, Meta(gt=0, le=240, description="Frames per second; the nearest rate that the camera supports is used.")
    ] = 15.0
    bitrate: Annotated[int, Meta(ge=10_000, description="Bit rate of the encoder, bits per second.")] = 1_000_000
    encoder: Annotated[str, Meta(description='Name of the ffmpeg encoder; "" selects one automatically.')] = ""
    path: Annotated[
        str,
        Meta(
            description="Name of the stream in URLs, as in rtsp://HOST:8554/entrance: up to 32 characters of "
            'a-z, 0-9, _ and -, first a letter; must be unique. "" means the camera id, such as camera0.'
        ),
    ] = ""
    id: Annotated[
        str,
        Meta(
            description="Permanent identifier that lets the camera be recognised when its source changes: up to "
            "64 characters of A-Z, a-z, 0-9, ., _ and -. Without it a camera is identified by its source without "
            "user name and password, a test picture or one that is published by its name."
        ),
    ] = ""
    rtsp_transport: Annotated[
        RtspTransport,
        Meta(description="Transport of an rtsp:// source: tcp, udp, or auto (TCP, then UDP)."),
    ] = "auto"

    audio: Annotated[
        bool,
        Meta(
            description="Publish the sound of an rtsp:// camera too, as Opus; without it there is none. A camera "
            "that is published (push) sends what it sends."
        ),
    ] = False
    sub_source: Annotated[
        str,
        Meta(
            description="rtsp:// or rtsps:// URL of a smaller stream of the same camera, at the host of source; "
            "without a user name it is read with that of source. Its path is the camera's with _sub behind it."
        ),
    ] = ""
    still_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=5,
            description="Seconds between two pictures of an http:// source that gives one picture at a time; a stream "
            "of pictures (MJPEG) comes as it is.",
        ),
    ] = 1.0

    def __post_init__(self) -> None:
        if not _LABEL.match(self.name):
            raise ValueError("name must be 1 to 64 characters without / and must not begin with a dot")
        if self.kind == "usb" and not _UDEV_MATCH.match(self.source):
            raise ValueError(
                "source must be an rtsp:// URL, an http:// URL, push, rpi:0, test, or udev properties such as"
                " ID_SERIAL=Vendor_Camera_0001"
            )
        if self.path and (not _PATH.match(self.path) or _SLOT_NAME.match(self.path)):
            raise ValueError("path must be up to 32 characters of a-z, 0-9, _ and -, first a letter, and not cameraN")
        if self.path.endswith(SUB):
            raise ValueError(f"path must not end in {SUB}: so end the paths of smaller streams (sub_source)")
        if self.sub_source and (fault := fault_of_sub(self.sub_source, self.source)):
            raise ValueError(fault)
        if self.id and not _CAMERA_ID.match(self.id):
            raise ValueError("id must be up to 64 characters of A-Z, a-z, 0-9, ., _ and -, first a letter or digit")
        if not read_windows(self.schedule) and self.record == "schedule":
            raise ValueError('record = "schedule" needs a schedule, such as ["08:00-18:00"]')
        if not _SIZE.match(self.size):
            raise ValueError("size must be WIDTHxHEIGHT, such as 640x480")

    @property
    def windows(self) -> tuple[Window, ...]:
        """When it is recorded each day; none unless it has a schedule."""
        return read_windows(self.schedule) if self.record == "schedule" else ()

    @property
    def kind(self) -> SourceKind:
        """What sort of source this is."""
        return kind_of(self.source)

    @property
    def ribbon(self) -> int:
        """Which of the cameras at the ribbons of a Raspberry Pi it is, 0 for the first, and for every other kind."""
        return int(self.source.partition(":")[2]) if self.kind == "rpi" else 0

    @property
    def is_network(self) -> bool:
        """Whether it is a network camera."""
        return is_network(self.source)

    @property
    def is_always_on(self) -> bool:
        """Whether it is published while nobody watches."""
        return self.mode == "always" or self.pre_roll_seconds > 0

    @property
    def pre_roll_bytes(self) -> int:
        """Memory that its pre-roll needs by its bit rate. A camera that is always recorded has it on the disk."""
        if not self.pre_roll_seconds or self.record == "always":
            return 0
        return math.ceil(self.bitrate / 8 * (self.pre_roll_seconds + PIECE_SLACK_SECONDS))

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[1])


def complain_of_pre_rolls(cameras: Iterable[CameraSettings]) -> str:
    """Why the pre-rolls of these cameras are refused: they need more memory than there is for them; "" if not."""
    need = sum(camera.pre_roll_bytes for camera in cameras)
    if need <= PRE_ROLL_BYTES:
        return ""
    return (
        f"the pre-rolls need {need / 1e6:.1f} MB of memory by the cameras' bit rates; there are"
        f" {PRE_ROLL_BYTES / 1e6:.0f} MB"
    )


class SourceSettings(Section, frozen=True, kw_only=True):
    """Addresses that cameras added at run time (add_camera, update_camera) may have; a [[camera]] may have any."""

    also_allowed: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks that are allowed in addition. By default this machine, link-local and "
            "multicast addresses are refused; 127.0.0.0/8 allows streams served by this machine."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for network in self.also_allowed:
            check_network(network, "also_allowed")
