"""ffmpeg, as the publishers and the pictures use it: where it is, how it reads a source, and what it complains of.

ffmpeg shows its argument list to every local user. So the address of an RTSP camera, which may hold a password, never
stands there: it goes into a playlist for ffmpeg's `concat` reader, in a file that only we can read. An address to
publish to cannot be given in another way; it is that of a relay and holds no password (relay.py).
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import trio

from edged.children import Child
from edged.errors import DependencyFailed
from edged.mediamtx.sources import Source

#: What every ffmpeg is told: no banner, no questions, complaints only.
QUIET: Final = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "error")
#: Seconds without a byte after which ffmpeg gives an RTSP source up.
SILENCE_SECONDS: Final = 5

#: V4L2's names of formats → ffmpeg's; any other is left to the driver.
_INPUT_FORMATS: Final = {
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "H264": "h264",
    "HEVC": "hevc",
    "YUYV": "yuyv422",
    "UYVY": "uyvy422",
    "NV12": "nv12",
    "YU12": "yuv420p",
    "GREY": "gray",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
}
#: How the names of private files begin.
_PRIVATE: Final = "edged-private-"
_COMPLAINT_LINES: Final = 20
_LINE_BYTES: Final = 8192
_LINE_CHARACTERS: Final = 300
#: Characters; a shorter secret is not searched for in texts of others.
LEAST_SEARCHED: Final = 6
_USERINFO = re.compile(r"://[^/\s]*@")


class Spawn(Protocol):
    """Starts a child; `edged.children.spawn` with its environment filled in."""

    def __call__(self, arguments: Sequence[str], *, stdout: bool, stderr: bool) -> Child: ...


#: Where ffmpeg is; asked before each start, so that an ffmpeg installed later is found. Raises DependencyFailed.
FindFfmpeg = Callable[[], str]


def find_ffmpeg(configured: str = "", path: str | None = None) -> str:
    """The ffmpeg to run: as configured, else on PATH, else the one in the wheel `imageio-ffmpeg`.

    Raises DependencyFailed naming the remedy.
    """
    if configured:
        if found := shutil.which(configured, path=path):
            return found
        raise DependencyFailed(f"no ffmpeg at {configured!r}", hint="correct the setting, or leave it empty")
    found = shutil.which("ffmpeg", path=path) or _find_wheel()
    if found:
        return found
    raise DependencyFailed("no ffmpeg", hint="install it: apt install ffmpeg")


@cache
def _find_wheel() -> str:
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return ""


def picture_of(source: Source) -> tuple[object, ...]:
    """What an ffmpeg is started for; if any of it changes, it has to start again."""
    size = (source.width, source.height, source.rate, source.bitrate)
    return (source.kind, source.path, source.node, source.url, source.pixel_format, source.encoder, *size)


def number(value: float) -> str:
    """As ffmpeg reads it: 15, 29.97."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def read_device(source: Source, rate: float) -> list[str]:
    """Arguments that read a USB camera at this many frames a second, in its chosen format and size."""
    if not source.node:
        raise DependencyFailed(f"{source.name} has no device file", hint="plug it in again", camera=source.name)
    chosen = _INPUT_FORMATS.get(source.pixel_format)
    size = f"{source.width}x{source.height}"
    return [
        *("-f", "v4l2"),
        *(("-input_format", chosen) if chosen else ()),
        *("-framerate", number(rate), "-video_size", size, "-i", source.node),
    ]


def read_test_picture(source: Source, rate: float) -> list[str]:
    """Arguments that make a moving picture in real time."""
    return ["-re", "-f", "lavfi", "-i", f"testsrc2=size={source.width}x{source.height}:rate={number(rate)}"]


def read_playlist(playlist: str) -> list[str]:
    """Arguments that read the RTSP address in a playlist file."""
    reader = ("-f", "concat", "-safe", "0", "-protocol_whitelist", "file,rtsp,rtp,tcp,udp,tls,crypto")
    # The playlist's own reader knows the stream already; looking twice would take a second more.
    return [*reader, "-analyzeduration", "0", "-probesize", "32", "-i", playlist]


def make_playlist(url: str, *, at_once: bool) -> str:
    """The text of a playlist of one RTSP address, read over TCP.

    With `at_once` nothing is probed: what the server says of the stream is enough, and the first picture is the
    first key frame. Raises DependencyFailed for what is not an RTSP address.
    """
    if not url.startswith(("rtsp://", "rtsps://")) or any(ord(letter) <= 0x20 for letter in url):
        raise DependencyFailed("the camera's address is not an rtsp:// URL", hint="correct it in the settings")
    options = ["rtsp_transport tcp", f"timeout {SILENCE_SECONDS * 1_000_000}"]
    options += ["analyzeduration 0", "probesize 32", "fflags nobuffer"] if at_once else []
    quoted = url.replace("'", "%27").replace("\\", "%5C")
    return "\n".join(["ffconcat version 1.0", f"file '{quoted}'", *(f"option {option}" for option in options), ""])


@contextmanager
def private_file(content: bytes, suffix: str, folder: Path | None = None) -> Iterator[str]:
    """A file that only we can read, gone afterwards; in `folder`, else where the system keeps such. Yields its path."""
    descriptor, name = tempfile.mkstemp(prefix=_PRIVATE, suffix=suffix, dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the private files of an edged that was killed; nobody else may run on this folder."""
    for path in folder.glob(f"{_PRIVATE}*"):
        path.unlink(missing_ok=True)


def password_of(url: str) -> str:
    """The password in an address as it stands there, "" without one."""
    return urlsplit(url).password or ""


def secrets_of(url: str) -> frozenset[str]:
    """Everything in an address that must not be shown: the whole, what stands before its host, the password, the query.

    A password or query of fewer than LEAST_SEARCHED characters would be found in words that have nothing to do with it:
    such a one is masked only where it stands, in the address and in front of its host.
    """
    try:
        password, query = password_of(url), urlsplit(url).query
    except ValueError:
        return frozenset({url})
    searched = {text for text in (password, unquote(password), query) if len(text) >= LEAST_SEARCHED}
    return frozenset({url, *searched, f"?{query}" if query else ""} - {""})


class Complaints:
    """What one ffmpeg writes to its standard error: masked at once, the last lines kept."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.lines: deque[str] = deque(maxlen=_COMPLAINT_LINES)
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._rest = b""
        self._skipping = False

    def hide(self, text: str) -> None:
        """Mask this as well, from here on."""
        self._secrets.append(text)

    def feed(self, data: bytes | bytearray) -> None:
        """Bytes as they came; a line may come in pieces. Of a line without end only the beginning is kept."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._skipping:
                self._take(line)
            self._skipping = False
        if self._skipping:
            rest = b""
        elif len(rest) > _LINE_BYTES:
            self._take(rest)
            self._skipping, rest = True, b""
        self._rest = rest

    def finish(self) -> None:
        """The stream has ended: what is left is a line."""
        self._take(self._rest)
        self._rest = b""

    async def drain(self, stream: trio.abc.ReceiveStream) -> None:
        """Read the stream to its end: a full pipe would stop ffmpeg."""
        try:
            while data := await stream.receive_some(4096):
                self.feed(data)
        finally:
            self.finish()

    def explain(self) -> str:
        """Why it ended, in one line: what ffmpeg said, and what to do where we know it; "" if it said nothing."""
        for line in reversed(self.lines):
            for mark, remedy in _REMEDIES:
                if mark in line:
                    return f"{line}: {remedy}"
        return self.lines[-1] if self.lines else ""

    def _take(self, raw: bytes) -> None:
        # Masked before it is cut, so that no half of a secret is left at the cut.
        text = self._mask(raw.decode("utf-8", "replace").strip())
        if text:
            self.lines.append(text[:_LINE_CHARACTERS])

    def _mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _USERINFO.sub("://***@", text)


#: What ffmpeg says → what to do.
_REMEDIES: Final = (
    ("Device or resource busy", "another program holds the camera; close it"),
    ("No space left on device", "the USB bandwidth is used up; choose a smaller size, a lower rate or another port"),
    ("Permission denied", "edged may not open it; its user belongs into the group video"),
    ("No such device", "it was unplugged"),
    ("No such file or directory", "it was unplugged"),
    ("401 Unauthorized", "the user name or password was refused"),
    ("404 Not Found", "there is no such stream; check the path in the address"),
    ("Connection refused", "nothing listens there"),
    ("Unknown encoder", "choose another encoder in the camera's settings"),
)


async def read_to_end(stream: trio.abc.ReceiveStream, limit: int) -> bytes:
    """All of a child's output; nothing at all if it is longer than `limit` bytes, and then it is not read on."""
    data = bytearray()
    while piece := await stream.receive_some(65536):
        data += piece
        if len(data) > limit:
            return b""
    return bytes(data)
