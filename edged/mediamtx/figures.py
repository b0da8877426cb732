"""The size, rate and codecs of a stream, as ffmpeg says them of one that it passes on, and MediaMTX of a path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

_VIDEO: Final = ": Video: "
_AUDIO: Final = ": Audio: "
#: Codecs that ffmpeg or MediaMTX name otherwise than they are called here.
_CALLED: Final = {
    "hevc": "H265", "h264": "H264", "mjpeg": "M-JPEG", "opus": "Opus", "aac": "AAC", "MPEG-4 Audio": "AAC",
    "pcm_alaw": "G711", "pcm_mulaw": "G711", "adpcm_g722": "G722", "adpcm_g726": "G726", "mp2": "MPEG-1/2 Audio",
    "mp3": "MPEG-1/2 Audio", "ac3": "AC-3",
}  # fmt: skip
_SIZE = re.compile(r"[ ,](\d{2,5})x(\d{2,5})[ ,\[]")
#: Packets that a rate is measured over, at least; and its seconds.
_FEWEST_PACKETS: Final = 2
_LEAST_SECONDS: Final = 1.0
#: A rate is told again once it differs by so much of itself: no two measurements are equal.
_TOLERANCE: Final = 0.15


class Figures(msgspec.Struct, frozen=True):
    """Pixels and frames a second; 0 for unknown. Names of the codecs of picture and sound; "" for unknown, NO_AUDIO for
    a stream without sound."""

    width: int = 0
    height: int = 0
    rate: float = 0.0
    video: str = ""
    audio: str = ""

    def updated(self, newer: Figures) -> Figures:
        """These, with what `newer` knows; a rate that is nearly the same stays."""
        is_new = newer.rate and abs(newer.rate - self.rate) > self.rate * _TOLERANCE
        size = (newer.width, newer.height) if newer.width and newer.height else (self.width, self.height)
        rate = newer.rate if is_new else self.rate
        return Figures(*size, rate, newer.video or self.video, newer.audio or self.audio)


#: The codec of the sound of a stream without sound.
NO_AUDIO: Final = "none"
UNKNOWN_FIGURES: Final = Figures()
#: Video codecs as MediaMTX names them.
_VIDEO_CODECS: Final = frozenset({"H264", "H265", "AV1", "VP8", "VP9", "M-JPEG", "MPEG-4 Video", "MPEG-1/2 Video"})


def figures_of_tracks(tracks: Iterable[tuple[str, int, int]]) -> Figures:
    """MediaMTX's tracks of a path, each codec, width, height (0 where it does not say) → what the stream is; without
    tracks nothing is known."""
    found = UNKNOWN_FIGURES
    for codec, width, height in tracks:
        found = found if found.audio else Figures(audio=NO_AUDIO)
        if codec in _VIDEO_CODECS:
            found = found.updated(Figures(width, height, video=codec))
        elif codec != "Generic":
            found = found.updated(Figures(audio=_CALLED.get(codec, codec)))
    return found


def read_size(line: str) -> tuple[int, int] | None:
    """Width and height in a line such as `Stream #0:0: Video: h264 (Main), yuv420p, 1280x720, 15 fps`."""
    before, _, codec = line.partition(_VIDEO)
    found = _SIZE.search(codec) if "Stream #" in before else None
    return (int(found[1]), int(found[2])) if found else None


def read_codec(line: str) -> tuple[str, str]:
    """`video` or `audio` and the codec in such a line, "" and "" for any other line."""
    for kind, mark in (("video", _VIDEO), ("audio", _AUDIO)):
        before, found, rest = line.partition(mark)
        if found and "Stream #" in before:
            word = rest.replace(",", " ").partition(" ")[0][:32]
            return kind, _CALLED.get(word, word.upper())
    return "", ""


class RateMeter:
    """ffmpeg's `-progress` output → the rate of what it copies. Feed it bytes; it does no I/O."""

    def __init__(self) -> None:
        self._rest = b""
        self._frame = 0
        self._at = 0.0
        self._first: tuple[int, float] | None = None
        #: Packets so far, and frames a second, 0 until they can be told.
        self.packets = 0
        self.rate = 0.0

    def feed(self, data: bytes | bytearray) -> None:
        """Bytes as they came."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:256]
        for line in lines:
            name, _, value = line.strip().partition(b"=")
            text = value.strip()
            if name == b"frame" and text.isdigit():
                self._frame = int(text[:12])
            elif name == b"out_time_us" and text.isdigit():
                self._at = int(text[:18]) / 1e6
            elif name == b"progress" and (text == b"continue" or not self.rate):
                self._measure()
                if text == b"end" and not self.rate and self._frame > _FEWEST_PACKETS and self._at >= _LEAST_SECONDS:
                    # A long analysis had read all of it: it was passed on at once, and told of once.
                    self.rate = round((self._frame - 1) / self._at, 2)

    def _measure(self) -> None:
        self.packets = self._frame
        if not self._frame:
            return
        if self._first is None:
            self._first = (self._frame, self._at)
            return
        packets, seconds = self._frame - self._first[0], self._at - self._first[1]
        if packets >= _FEWEST_PACKETS and seconds >= _LEAST_SECONDS:
            self.rate = round(packets / seconds, 2)
