"""Pictures as ffmpeg writes them: the arguments that ask for them, and its multipart output → JPEGs."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from edged.mediamtx import ffmpeg
from edged.mediamtx.sources import CameraSource, kind_of

#: Pictures a second at most; a viewer who wants fewer takes fewer.
HIGHEST_RATE: Final = 10.0
#: ffmpeg's JPEG quality (2 best to 31) where nobody asked for one.
QUALITY: Final = 4
#: Bytes of one picture at most.
PICTURE_BYTES: Final = 64 * 1024 * 1024
_HEAD_BYTES: Final = 1024

Format: TypeAlias = Literal["jpg", "png"]


class PictureParser:
    """ffmpeg's multipart output → whole JPEGs. Feed it bytes; it does no I/O.

    Each part announces its length, so that nothing in a camera's own JPEG, however odd, can be mistaken for its end.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """Bytes as they came → the pictures that are now complete. Raises ValueError for what ffmpeg never sends."""
        self._buffer += data
        pictures = []
        while self._has_length() and len(self._buffer) >= (length := self._length or 0):
            picture = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._length = None
            if picture.startswith(b"\xff\xd8"):
                pictures.append(picture)
        return pictures

    def _has_length(self) -> bool:
        if self._length is None:
            end = self._buffer.find(b"\r\n\r\n", 0, _HEAD_BYTES)
            if end >= 0:
                self._length = _read_length(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
            elif len(self._buffer) >= _HEAD_BYTES:
                raise ValueError("the head of a picture does not end")
        return self._length is not None


def _read_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and (text := value.strip()).isdigit():
            length = int(text[:12])
            if 0 < length <= PICTURE_BYTES:
                return length
    raise ValueError("a picture without a usable length")


def picture_arguments(source: CameraSource, playlist: str = "") -> list[str]:
    """ffmpeg's arguments, without its name, that write JPEGs to its standard output as a multipart stream.

    With `playlist` the picture is read from the RTSP address in that file: MediaMTX's path, or an RTSP camera.
    A USB camera that gives JPEGs is not decoded.
    """
    kind = kind_of(source)
    encode = ["-c:v", "mjpeg", "-q:v", str(QUALITY)]
    # One thread: with more the decoder holds as many pictures back.
    one_by_one = ["-threads", "1", "-flags", "low_delay"]
    if playlist:
        picture = [*one_by_one, *ffmpeg.read_playlist(playlist), "-map", "0:v:0", *_thin_out(), *encode]
    elif kind.has_any_rate:
        picture = kind.read(source, min(source.rate, HIGHEST_RATE)) + encode
    elif kind.gives_jpegs(source):
        picture = [*kind.read(source, source.rate), "-c:v", "copy", *_thin_out_copied(source.rate)]
    else:
        picture = [*one_by_one, *kind.read(source, source.rate), *_thin_out(), *encode]
    told = ffmpeg.TELLING if playlist or kind.sets_key_frames(source) else ffmpeg.QUIET
    return [*told, *picture, "-an", "-flush_packets", "1", "-f", "mpjpeg", "pipe:1"]


def _thin_out() -> list[str]:
    """Keep the first picture of each tenth of a second."""
    step = f"floor(t*{HIGHEST_RATE:g})"
    earlier = f"floor(prev_selected_t*{HIGHEST_RATE:g})"
    return ["-vf", rf"select=isnan(prev_selected_t)+gt({step}\,{earlier})", "-fps_mode", "passthrough"]


def _thin_out_copied(rate: float) -> list[str]:
    """The same for pictures that are not decoded; each is made whole (cameras leave out the usual tables)."""
    filters = ["mjpeg2jpeg"]
    if rate > HIGHEST_RATE:
        share = f"{HIGHEST_RATE:g}/{rate:g}"
        filters.insert(0, rf"noise=amount=0:drop=eq(floor(n*{share})\,floor((n-1)*{share}))")
    return ["-bsf:v", ",".join(filters)]


def convert_arguments(picture: str, form: Format, quality: int | None) -> list[str]:
    """ffmpeg's arguments that write the JPEG in the file `picture` anew. `quality`: 1 to 100, 100 best; JPEG only."""
    encode = encode_arguments(form, quality)
    return [*ffmpeg.QUIET, "-f", "mjpeg", "-i", picture, "-frames:v", "1", *encode, "-f", "image2pipe", "pipe:1"]


def encode_arguments(form: Format, quality: int | None) -> list[str]:
    """ffmpeg's arguments for one picture in this format. `quality` as above."""
    scale = QUALITY if quality is None else 2 + round((100 - quality) * 29 / 99)
    return ["-c:v", "png"] if form == "png" else ["-c:v", "mjpeg", "-q:v", str(scale)]
