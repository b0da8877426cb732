"""What a camera is: plain values, which hold nothing of pyudev or V4L2."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from edged.config.cameras import SUB
from edged.config.schedules import Window
from edged.config.sources import RtspTransport, SourceKind

#: What can happen to a camera (contract 3b).
CONNECTED: Final = "camera.connected"
DISCONNECTED: Final = "camera.disconnected"
STATUS_CHANGE: Final = "camera.status_change"


class Status(StrEnum):
    """As contract 3b spells it."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    ERROR = "ERROR"


class Mode(msgspec.Struct, frozen=True):
    """One way a camera can deliver: V4L2 pixel format (`MJPG`, `YUYV`, `H264`), pixels, frames a second."""

    pixel_format: str
    width: int
    height: int
    rates: tuple[float, ...]


class Camera(msgspec.Struct, frozen=True, kw_only=True):
    """One camera as it is now.

    `name` is its persisted slot (`camera0`), by which rights are stored; `path` its MediaMTX path, `name` unless the
    operator gave another (contract 10.23); `label` what people call it;
    `node` today's device file (`/dev/video0`), None without one; `url` an RTSP source, which may hold
    credentials and is never shown; `width`, `height` pixels, `rate` frames a second of the stream to make;
    both 0 for a network camera until its stream has said them; `transport` how an RTSP source sends.
    `binding`: why the device that is plugged in is this camera, one sentence, "" for a camera that somebody described.
    `problem` says why the status is not CONNECTED, and what to do, for administrators; `cause` names the cause where
    the device is there and its source gives no picture: such a camera is tried again.
    """

    name: str
    label: str
    kind: SourceKind
    status: Status
    node: str | None = None
    url: str | None = None
    always_on: bool = False
    record_always: bool = False
    schedule: tuple[Window, ...] = ()
    #: Seconds before start_recording that its recordings begin.
    pre_roll: float = 0.0
    #: Limits of its recordings, 0.0 for none of its own.
    max_age_days: float = 0.0
    max_size_gb: float = 0.0
    pixel_format: str = ""
    width: int = 640
    height: int = 480
    rate: float = 15.0
    bitrate: int = 1_000_000
    encoder: str = ""
    modes: tuple[Mode, ...] = ()
    problem: str = ""
    cause: str = ""
    path: str = ""
    transport: RtspTransport = "auto"
    binding: str = ""
    #: A call has added it: `url` holds the literal address that was judged, and nothing else may be opened for it.
    is_pinned: bool = False
    #: The device file that a test picture can be asked for by, while no device has it. It is no name of the camera:
    #: nothing is stored by it, and it is not shown.
    stand_in: str = ""
    #: Which camera of a Raspberry Pi it is, of those at its ribbons.
    ribbon: int = 0
    #: Codecs of its stream where that says what it is, "" for unknown; "none" for a stream without sound.
    video_codec: str = ""
    audio_codec: str = ""
    #: Whether its sound is published.
    audio: bool = False
    #: The address of a smaller stream; as `url` it is never shown.
    sub_url: str | None = None
    #: Between two pictures of a source that gives one at a time.
    still_seconds: float = 1.0

    def __post_init__(self) -> None:
        """Not called by msgspec.structs.replace before msgspec 0.20: whoever takes a path away names the next."""
        if not self.path:
            msgspec.structs.force_setattr(self, "path", self.name)

    @property
    def sub(self) -> Camera | None:
        """Its smaller stream as a source of its own, None without one. It is no camera: nobody lists or names it,
        and who may see this camera may see it."""
        if not self.sub_url:
            return None
        return replace(
            self, name=f"{self.name}{SUB}", path=f"{self.path}{SUB}", url=self.sub_url, sub_url=None, always_on=False,
            record_always=False, schedule=(), pre_roll=0.0, width=0, height=0, rate=0.0,
        )  # fmt: skip

    @property
    def is_attached(self) -> bool:
        """Whether there is a source that can be tried, whatever came of it last."""
        return self.status is Status.CONNECTED or bool(self.cause)

    @property
    def is_recorded_by_hours(self) -> bool:
        """Whether its settings record it: always, or in the windows of `schedule`."""
        return self.record_always or bool(self.schedule)

    @property
    def is_unplugged(self) -> bool:
        """Whether it is a USB camera that is not there."""
        return self.kind == "usb" and self.node is None

    @property
    def is_held_in_memory(self) -> bool:
        """Whether it is recorded into memory, for the pre-roll of recordings; one always recorded is on the disk."""
        return self.pre_roll > 0 and not self.record_always

    @property
    def names(self) -> frozenset[str]:
        """By what stored rights name this camera. Never its path: another camera may have that one tomorrow."""
        return frozenset({self.name, self.node} if self.node else {self.name})

    @property
    def every_name(self) -> frozenset[str]:
        """Everything that this camera answers to (contract 3: `device`)."""
        return self.names if self.path == self.name else self.names | {self.path}


class CameraChanged(msgspec.Struct, frozen=True):
    """A camera appeared, went, or changed; `previous` is None for one seen for the first time."""

    camera: Camera
    previous: Camera | None

    @property
    def event(self) -> str:
        """Its name in contract 3b. One that is seen for the first time is connected, or its status has changed."""
        status, before = self.camera.status, self.previous.status if self.previous else None
        if status is Status.CONNECTED and before is not Status.CONNECTED:
            return CONNECTED
        if status is Status.DISCONNECTED and before not in (None, Status.DISCONNECTED):
            return DISCONNECTED
        return STATUS_CHANGE
