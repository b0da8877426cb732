"""Why a source gives no picture: what ffmpeg and MediaMTX say → a cause in plain words, and what to do about it.

The lines are ffmpeg's at error level, of version 5.1 and later, which word many things differently. A cause holds no
address, user name or password; `exact` is the line that it was found by, masked, for the log and administrators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from edged.errors import DependencyFailed

#: What was going on when the line was written: the source being opened or read, or its stream being made and sent on.
Stage: TypeAlias = Literal["source", "stream"]


class Cause(msgspec.Struct, frozen=True):
    """Why there is no picture.

    `slug`: one of SLUGS, for metrics and comparison; `sentence` and `remedy` for people; `is_unreachable`: the camera
    cannot be reached at all; `needs_picture`: only a picture shows that it is over, packets do not;
    `exact`: the tool's own line, "" if it said nothing.
    """

    slug: str
    sentence: str
    remedy: str
    is_unreachable: bool = False
    needs_picture: bool = False
    exact: str = ""

    def __str__(self) -> str:
        return f"{self.sentence}: {self.remedy}"

    @property
    def is_ours(self) -> bool:
        """Whether the source may be good, and what is made of it is not: only its publisher can tell."""
        return self.slug in ("encoder", "odd_size", "server")


class NoPicture(DependencyFailed):
    """A camera gives no picture. The sentence is for every caller, `cause` for administrators and the log."""

    def __init__(self, camera: str, cause: Cause) -> None:
        super().__init__(
            f"{camera} gives no picture from its source", hint="an administrator is shown the cause", camera=camera
        )
        self.cause = cause
        self.camera = camera

    def explained(self) -> DependencyFailed:
        """The same with its cause, for an administrator."""
        return DependencyFailed(f"{self.camera}: {self.cause.sentence}", hint=self.cause.remedy, camera=self.camera)


class _Row(msgspec.Struct, frozen=True):
    """One line of the table: `marks` are parts of ffmpeg's lines, `network` says for which sources it holds."""

    cause: Cause
    marks: tuple[str, ...]
    stage: Stage | None = None
    network: bool | None = None


def _cause(slug: str, sentence: str, remedy: str, *, unreachable: bool = False, picture: bool = False) -> Cause:
    return Cause(slug, sentence, remedy, is_unreachable=unreachable, needs_picture=picture)


NAME_UNKNOWN = _cause(
    "name_unknown", "the host name in its address is not known", "correct the name, or the name server of this box",
    unreachable=True,
)  # fmt: skip
REFUSED = _cause(
    "refused", "nothing listens at its address and port",
    "check that the camera is on and serves RTSP, and the port in its address", unreachable=True,
)  # fmt: skip
UNREACHABLE = _cause(
    "unreachable", "there is no route to its address", "check the cable, the network and the address", unreachable=True
)
SILENT = _cause(
    "silent", "no byte came from it in time", "check that the camera is on, and the network between", unreachable=True
)
PASSWORD = _cause(
    "password", "it refused the user name or password", "correct them in its address; there @ is %40 and # is %23"
)
FORBIDDEN = _cause("forbidden", "this user may not watch it", "allow it in the camera's own user settings")
NO_STREAM = _cause("no_stream", "it has no such stream", "check the path in its address against the camera's manual")
TRANSPORT = _cause(
    "transport", "it does not send by the transport that is set",
    'set rtsp_transport = "auto", or "udp" if it sends by UDP only',
)  # fmt: skip
NO_VIDEO = _cause(
    "no_video", "it sends no video", "choose a stream with video: the path in its address, or the camera's settings"
)
CODEC = _cause("codec", "its video format cannot be read", "set the camera to H.264", picture=True)
NOT_RTSP = _cause(
    "not_rtsp", "what answers at its address does not speak RTSP", "check the port in its address; 554 is usual"
)
TLS = _cause(
    "tls", "no encrypted connection came about", "use rtsp:// instead of rtsps://, or switch TLS on in the camera"
)
REDIRECTED = _cause(
    "redirected", "its server leads to another address, which is not followed for a camera that a call has added",
    "give the address that it leads to, which the log names",
)  # fmt: skip
BAD_ADDRESS = _cause(
    "bad_address", "its address cannot be used", "run `edged config check`, which says what is wrong with it"
)
ENDED = _cause("ended", "it ended its stream", "look at the camera's own log, if this comes again", unreachable=True)
KEY_FRAMES = _cause(
    "key_frames", "it sends, but no whole picture came in 30 s: its key frames are too far apart",
    "set the key frame interval (I-frame interval, GOP) in the camera to 1 or 2 seconds", picture=True,
)  # fmt: skip
NO_PICTURES = _cause("no_pictures", "no picture came from it in time", "unplug it and plug it in again", picture=True)
BUSY = _cause("busy", "another program holds it", "`fuser -v` with its device file names the program; stop it")
BANDWIDTH = _cause(
    "bandwidth", "the USB bandwidth is used up", "choose a smaller size, a lower rate, or a port of another controller"
)
PERMISSION = _cause("permission", "edged may not open it", "add the user that runs edged to the group video")
UNPLUGGED = _cause("unplugged", "it was unplugged", "plug it in again", unreachable=True)
FORMAT = _cause("format", "it does not deliver in the size and format that it lists", "choose another size or rate")
ODD_SIZE = _cause("odd_size", "the encoder wants an even width and height", "set another size for this camera")
ENCODER = _cause("encoder", "its picture could not be encoded", 'correct the setting encoder; "" chooses one')
NO_M2M = _cause(
    "encoder",
    "this machine has no hardware encoder of the kind that is set (V4L2 M2M, /dev/video11 on a Raspberry Pi 4)",
    'set encoder = "", which chooses one; a Raspberry Pi 5 has none, and others need the group video and their driver',
)
NO_HARDWARE = _cause("hardware", "this machine cannot read it", "use a camera by USB or in the network")
NO_MEDIAMTX_PICTURE = _cause(
    "hardware", "MediaMTX gives no picture of it", "its lines in the log say why; look at the ribbon and its ends"
)
SERVER = _cause("server", "MediaMTX does not take its stream", "MediaMTX's lines in the log say why")
NO_PUBLISHER = _cause(
    "no_publisher", "nobody publishes to its path",
    "send there with a credential that has stream:publish; create_ticket with the action publish gives the addresses",
    unreachable=True,
)  # fmt: skip
STALLED = _cause("stalled", "its stream stands still", "look at the camera and the network between", unreachable=True)
NO_FFMPEG = _cause("no_ffmpeg", "ffmpeg cannot be started", "apt install ffmpeg")
UNKNOWN = _cause("unknown", "ffmpeg gave up", "the log has its own words")

_UNREACHABLE_MARKS = ("No route to host", "Network is unreachable", "Network unreachable", "Host is down")

#: The first row with a line wins: what says more stands first.
_TABLE: Final = (
    _Row(ENCODER, ("Unknown encoder", "Encoder not found")),
    _Row(NO_M2M, ("Could not find a valid device",)),
    _Row(ODD_SIZE, ("not divisible by 2", "must be divisible by", "must be a multiple of 2")),
    _Row(ENCODER, ("Error while opening encoder", "can't configure encoder")),
    _Row(NAME_UNKNOWN, ("Failed to resolve hostname",)),
    _Row(NO_VIDEO, ("matches no streams",)),
    _Row(CODEC, ("unspecified size", "dimensions not set", "Could not find codec parameters"), None, network=True),
    _Row(PASSWORD, ("401 Unauthorized", "401 (Unauthorized)"), "source", network=True),
    _Row(FORBIDDEN, ("403 Forbidden", "403 (Forbidden)"), "source", network=True),
    _Row(NO_STREAM, ("404 Not Found", "404 (Not Found)"), "source", network=True),
    _Row(TRANSPORT, ("method SETUP failed", "Nonmatching transport"), "source", network=True),
    _Row(TLS, ("[tls", "Error in the pull function", "TLS", "SSL"), "source", network=True),
    _Row(REFUSED, ("Connection refused",), "source", network=True),
    _Row(UNREACHABLE, _UNREACHABLE_MARKS, "source", network=True),
    _Row(SILENT, ("Connection timed out", "Operation timed out"), "source", network=True),
    _Row(TRANSPORT, ("Protocol not supported",), "source", network=True),
    _Row(BAD_ADDRESS, ("Port missing in uri", "Invalid argument"), "source", network=True),
    _Row(CODEC, ("Decoder (codec", "no decoder found", "Unsupported codec", "Unknown codec", "codec not currently")),
    _Row(NOT_RTSP, ("Invalid data found when processing input",), "source", network=True),
    _Row(BUSY, ("Device or resource busy",), network=False),
    _Row(BANDWIDTH, ("VIDIOC_STREAMON): No space left on device", "No space left on device"), network=False),
    _Row(PERMISSION, ("Permission denied", "Operation not permitted"), network=False),
    _Row(UNPLUGGED, ("No such device", "No such file or directory"), network=False),
    _Row(FORMAT, ("Inappropriate ioctl", "Cannot find a proper format", "VIDIOC_S_FMT"), network=False),
    _Row(SERVER, ("401 Unauthorized", "401 (Unauthorized)", "400 Bad", "400 (Bad", "404 Not", "404 (Not"), "stream"),
    _Row(SERVER, ("Connection refused", "Connection reset", "Broken pipe", "461 ", "Could not write header"), "stream"),
)  # fmt: skip

#: Decoders complain of what comes before the first key frame, and of every lost packet.
_DECODERS: Final = ("[h264]", "[hevc]", "[mjpeg]", "[swscaler]", "[aac]")

#: Every cause, and their names in metrics.
CAUSES: Final = tuple({
    each.slug: each for each in (*(row.cause for row in _TABLE), REDIRECTED, BAD_ADDRESS, NO_PUBLISHER, NO_HARDWARE,
                                 ENDED, KEY_FRAMES, NO_PICTURES, STALLED, NO_FFMPEG, UNKNOWN)
}.values())  # fmt: skip
SLUGS: Final = tuple(each.slug for each in CAUSES)


def find_cause(lines: Sequence[str], *, network: bool, opened: bool, reads_only: bool = False) -> Cause | None:
    """The cause that ffmpeg's lines name, None if they name none.

    `network`: it reads an RTSP address; `opened`: it had opened its source before; `reads_only`: it sends nothing to
    MediaMTX, so that whatever is wrong is the source's.
    """
    for row in _TABLE:
        if row.network is not None and row.network is not network:
            continue
        for line in lines:
            if any(mark in line for mark in row.marks) and (
                row.stage is None or row.stage == _stage_of(line, network, opened, reads_only)
            ):
                return replace(row.cause, exact=line)
    return None


def _stage_of(line: str, network: bool, opened: bool, reads_only: bool) -> Stage:
    if reads_only or "demuxing" in line or "its source" in line:
        return "source"
    return "source" if network and not opened else "stream"


def told(lines: Sequence[str], otherwise: Cause) -> Cause:
    """`otherwise` with the last of ffmpeg's lines; UNKNOWN for a stream that ended with other words."""
    said = [line for line in lines if not line.startswith(_DECODERS)]
    if not said:
        return otherwise
    return replace(UNKNOWN if otherwise is ENDED else otherwise, exact=said[-1])
