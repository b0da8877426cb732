"""What edged.mediamtx needs to know of a camera, and what its parts ask about each kind of source.

edged.cameras is in the same layer and cannot be imported; its Camera fits the protocol here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from edged.config.sources import RtspTransport, SourceKind
from edged.mediamtx import causes
from edged.mediamtx.causes import Cause


class CameraSource(Protocol):
    """Something that can be published at a path of its own.

    `name` is the camera (`camera0`), `path` its path at MediaMTX; `node` a device file, `url` an address in the network
    (either may be None); `pixel_format` what the device delivers (`H264`, `MJPG`, `YUYV`); `width`, `height` pixels,
    `rate` frames a second, `bitrate` bits a second of the stream to make; `encoder` ffmpeg's name of one, "" to choose;
    `always_on` whether it is published while nobody watches; `is_held_in_memory` whether it is recorded into memory all
    the time, for the pre-roll of recordings. Where the stream itself says width, height and rate (config.sources), they
    are 0 until it has, and nothing is made by them. `is_pinned`: nothing but the address in `url` may be opened for it,
    whatever its server says. `still_seconds`: between two pictures of a source that gives one at a time.
    `ribbon`: which of the cameras of a Raspberry Pi it is; `audio`: whether its sound is published; `audio_codec` what
    it is, as far as it is known.
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
    @property
    def still_seconds(self) -> float: ...
    @property
    def ribbon(self) -> int: ...
    @property
    def audio(self) -> bool: ...
    @property
    def audio_codec(self) -> str: ...


class Kind:
    """One kind of source. A module of this folder answers what is different for its own."""

    #: Whether it is read over the network: ffmpeg's complaints mean something else then (causes.find_cause), it reports
    #: what it has passed on, and the source is asked for some packets now and then.
    by_network: ClassVar[bool] = False
    #: Whether it is a device file, which one process at a time can have open.
    is_device: ClassVar[bool] = False
    #: Whether somebody else publishes it to its path at MediaMTX, so that there is nothing to read; and whether that is
    #: MediaMTX itself, as soon as somebody watches.
    is_pushed: ClassVar[bool] = False
    is_read_by_mediamtx: ClassVar[bool] = False
    #: Seconds that such a stream may take to begin, once somebody was let in.
    arrival: ClassVar[float] = 0.0
    #: Whether edged reads its pictures itself (read_jpegs), and ffmpeg gets them at its standard input.
    is_fed: ClassVar[bool] = False
    #: Whether it comes at whatever rate it is asked for.
    has_any_rate: ClassVar[bool] = False
    #: Seconds that it may be silent while it streams, whatever holds for others: then its ffmpeg is begun anew.
    silence: ClassVar[float] = 0.0
    #: Why there is no picture if nothing ever came in time.
    never: ClassVar[Cause] = causes.NO_PICTURES

    def picture_of(self, source: CameraSource) -> tuple[object, ...]:
        """What an ffmpeg is started for; if any of it changes, it has to start again."""
        size = (source.width, source.height, source.rate, source.bitrate)
        return (source.kind, source.path, source.node, source.pixel_format, source.encoder, *size)

    def sets_key_frames(self, source: CameraSource) -> bool:  # noqa: ARG002
        """Whether the camera itself decides how far apart key frames are: its stream is passed on as it is."""
        return False

    def gives_jpegs(self, source: CameraSource) -> bool:  # noqa: ARG002
        """Whether its pictures are JPEGs, which need not be decoded to be shown."""
        return False

    def playlist(self, source: CameraSource, failures: int, cause: str, *, patient: bool) -> str:  # noqa: ARG002
        """The text of the private file that holds its address (ffmpeg.py says why), "" for a kind without one.

        `failures` in a row, the last one for `cause` (causes.SLUGS); `patient`: its server does not say the size of the
        picture. Raises DependencyFailed for an address that cannot be used.
        """
        return ""

    async def read_jpegs(self, source: CameraSource, put: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        """Hand each of its pictures to `put` until there are no more; `opened()` hears when they begin. Of a kind that
        `is_fed`. Always raises NoPicture."""
        raise NotImplementedError

    def read(self, source: CameraSource, rate: float) -> list[str]:
        """ffmpeg's arguments that read it at this many frames a second; of a kind without a playlist. Raises
        DependencyFailed if there is nothing to read."""
        raise NotImplementedError

    def find_idle_fault(self, source: CameraSource) -> Cause | None:  # noqa: ARG002
        """What is wrong with a stream of somebody else's that nobody sends now, None for nothing."""
        return None

    def path_keys(self, source: CameraSource) -> Mapping[str, object]:  # noqa: ARG002
        """Keys of its path at MediaMTX that say where the stream comes from."""
        return {"source": "publisher"}

    def sound(self, source: CameraSource) -> list[str]:  # noqa: ARG002
        """ffmpeg's arguments about the sound of what is published."""
        return ["-an"]

    def publish(self, source: CameraSource, playlist: str) -> list[str]:
        """ffmpeg's arguments that read it, from the file `playlist` if there is one, and make the stream to publish."""
        raise NotImplementedError
