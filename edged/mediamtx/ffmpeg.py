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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import trio
from msgspec.structs import replace

from edged.children import Child
from edged.config.camera_urls import find_fault
from edged.config.sources import RtspTransport
from edged.errors import DependencyFailed
from edged.mediamtx.causes import REDIRECTED, Cause, find_cause, told
from edged.mediamtx.figures import NO_AUDIO, Figures, read_codec, read_size

#: What every ffmpeg is told: no banner, no questions, complaints only, each line with its level.
QUIET: Final = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error")
#: The same where it reads an RTSP address: it also says when that is open, and what the stream is.
TELLING: Final = (*QUIET[:-1], "level+info")
#: Seconds without a byte after which ffmpeg gives an RTSP source up (contract 10.24).
SILENCE_SECONDS: Final = 10
#: Seconds that it looks at a stream whose size its server does not tell.
_ANALYSIS_SECONDS: Final = 25

#: How the names of private files begin.
_PRIVATE: Final = "edged-private-"
_COMPLAINT_LINES: Final = 20
_LINE_BYTES: Final = 8192
_LINE_CHARACTERS: Final = 300
#: Characters; a shorter secret is not searched for in texts of others.
LEAST_SEARCHED: Final = 6
_USERINFO = re.compile(r"://[^/\s]*@")
_LEVEL = re.compile(
    r"(?P<who>(?:\[[^\]]{1,80}\] )*)\[(?P<level>panic|fatal|error|warning|info|verbose|debug|trace)\] ?(?P<text>.*)"
)
_COMPONENT = re.compile(r"\[([^\]@]{1,60}?)(?: @ [0-9a-fx]+)?\]")
_REDIRECT = re.compile(r"Status 3\d\d: Redirecting to ")
_COMPLAINTS: Final = frozenset({"panic", "fatal", "error"})


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


def number(value: float) -> str:
    """As ffmpeg reads it: 15, 29.97."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def read_playlist(playlist: str) -> list[str]:
    """Arguments that read the RTSP address in a playlist file."""
    reader = ("-f", "concat", "-safe", "0", "-protocol_whitelist", "file,rtsp,rtp,tcp,udp,tls,crypto")
    # The playlist's own reader knows the stream already; looking twice would take a second more.
    return [*reader, "-analyzeduration", "0", "-probesize", "32", "-i", playlist]


def make_playlist(url: str, *, transport: RtspTransport = "tcp", patient: bool = False, has_sound: bool = False) -> str:
    """The text of a playlist of one RTSP address.

    What the server says of the stream is enough, so that slow streams begin with their first packet; `patient` looks
    at the stream itself, for servers that do not say its size; `has_sound` does so until picture and sound are known,
    since a packet of sound is no picture. Raises DependencyFailed for what is no RTSP address.
    """
    if not url.startswith(("rtsp://", "rtsps://")) or any(ord(letter) <= 0x20 for letter in url):
        raise DependencyFailed("the camera's address is not an rtsp:// URL", hint="correct it in the settings")
    if fault := find_fault(url):
        raise DependencyFailed("the camera's address cannot be used", hint=fault)
    options = ["rtsp_transport udp+tcp", "rtsp_flags prefer_tcp"] if transport == "auto" else []
    options = options or [f"rtsp_transport {transport}"]
    options.append(f"timeout {SILENCE_SECONDS * 1_000_000}")
    if patient or has_sound:
        options += ["fpsprobesize 0"] if has_sound else []
        options.append(f"analyzeduration {_ANALYSIS_SECONDS * 1_000_000}")
    else:
        options += ["analyzeduration 0", "probesize 32", "fflags nobuffer"]
    quoted = url.replace("'", "%27").replace("\\", "%5C")
    return "\n".join(["ffconcat version 1.0", f"file '{quoted}'", *(f"option {option}" for option in options), ""])


def choose_transport(wanted: RtspTransport, failures: int, cause: str) -> RtspTransport:
    """The transport of the next try after so many failures in a row, the last one for `cause` (causes.SLUGS).

    ffmpeg itself takes UDP where a server says that it has no TCP (461); one that says nothing, or refuses in another
    way, is asked by turns.
    """
    return "udp" if wanted == "auto" and cause in ("silent", "transport") and failures % 2 else wanted


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
    """What one ffmpeg writes to its standard error: masked at once, the last complaints kept; and what else it tells
    of its source: that it is open, the size of its picture, and that its server leads to another address.

    ffmpeg follows an RTSP redirect (RFC 2326, 11.3) and has no option against it. Where that is not allowed it is
    killed as soon as it says so: it may have connected there by then, and no picture of it is shown.
    """

    def __init__(
        self, secrets: Iterable[str] = (), opened: Callable[[], None] = lambda: None, *, may_redirect: bool
    ) -> None:
        """`opened()` is called once when the source is open; `may_redirect`: whether a redirect may be followed."""
        self._may_redirect = may_redirect
        self._redirect = ""
        self.lines: deque[str] = deque(maxlen=_COMPLAINT_LINES)
        self.is_open = False
        self.figures = Figures()
        #: Whether what it tells now is told of its source.
        self._is_input = False
        self._opened = opened
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

    @property
    def is_refused(self) -> bool:
        """Whether its server led to another address, which is not allowed."""
        return bool(self._redirect) and not self._may_redirect

    async def drain(self, child: Child) -> None:
        """Read ffmpeg's standard error to its end, as a full pipe would stop it. Kills it if it is `is_refused`."""
        assert child.stderr is not None, "every ffmpeg is started with it"
        try:
            while data := await child.stderr.receive_some(4096):
                self.feed(data)
                if self.is_refused:
                    child.kill()
        finally:
            self.finish()

    def explain(self, otherwise: Cause, *, network: bool, reads_only: bool = False) -> Cause:
        """Why it ended; `otherwise` if it said nothing. See causes.find_cause."""
        if self.is_refused:
            return replace(REDIRECTED, exact=self._redirect)
        found = find_cause(self.lines, network=network, opened=self.is_open, reads_only=reads_only)
        return found or told(self.lines, otherwise)

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip()
        levelled = _LEVEL.match(line)
        if levelled and levelled["level"] not in _COMPLAINTS:
            self._note(levelled["text"])
            return
        # Masked before it is cut, so that no half of a secret is left at the cut.
        text = self._mask(line.strip())
        if text and not text.startswith("To ignore this"):
            self.lines.append(_shorten(text)[:_LINE_CHARACTERS])

    def _note(self, text: str) -> None:
        if text.startswith("Input #0"):
            self.is_open = self._is_input = True
            self._opened()
        elif _REDIRECT.match(text):
            self._redirect = self._mask(text)[:_LINE_CHARACTERS]
        elif text.startswith(("Output #0", "Stream mapping")):
            self._is_input = False
            if self.figures.video and not self.figures.audio:
                self.figures = replace(self.figures, audio=NO_AUDIO)
        elif self._is_input:
            kind, codec = read_codec(text)
            if kind == "video" and not self.figures.width:
                width, height = read_size(text) or (0, 0)
                self.figures = replace(self.figures, width=width, height=height, video=codec)
            elif kind == "audio" and not self.figures.audio:
                self.figures = replace(self.figures, audio=codec)

    def _mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _USERINFO.sub("://***@", text)
        return " ".join(map(_hide_file, text.split(" "))) if _PRIVATE in text else text


def _hide_file(word: str) -> str:
    """The path of a private file is left out: it does not help a reader."""
    return word if _PRIVATE not in word else "its source:" if word.endswith(":") else "its source"


def _shorten(line: str) -> str:
    """A line without its level and the addresses of ffmpeg's objects: two of the same cause are the same."""
    found = _LEVEL.match(line)
    if found is None:
        return line
    names = _COMPONENT.findall(found["who"])
    return f"[{names[-1]}] {found['text']}" if names else str(found["text"])


async def read_to_end(stream: trio.abc.ReceiveStream, limit: int) -> bytes:
    """All of a child's output; nothing at all if it is longer than `limit` bytes, and then it is not read on."""
    data = bytearray()
    while piece := await stream.receive_some(65536):
        data += piece
        if len(data) > limit:
            return b""
    return bytes(data)
