"""The bytes of a kept file as an answer: whole, or one range of it (RFC 9110, 14).

The file is open while its answer is sent and closed at its end, whoever ends it: also where the client leaves half-way,
and where the credential is revoked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import trio
from starlette.datastructures import Headers
from starlette.types import Scope, Send

from edged.errors import NotFound, StoreFailed
from edged.web.requests import ResponseAborted

#: Bytes that are read at a time; before each piece it is asked whether it may be sent.
CHUNK: Final = 64 * 1024
#: Digits of a number in Range: no file has more bytes.
_MOST_DIGITS: Final = 18
_TYPES: Final = {".mp4": "video/mp4", ".mkv": "video/x-matroska", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
                 ".png": "image/png"}  # fmt: skip


class BadRange(Exception):
    """The Range is malformed (400) or outside of the file (416). `extent` is the value of Content-Range."""

    def __init__(self, status: int, extent: str | None) -> None:
        super().__init__(status)
        self.status = status
        self.extent = extent


class Span(NamedTuple):
    """Bytes of a file, from `begin` to before `end`; `is_part` where a Range asked for them."""

    begin: int
    end: int
    is_part: bool


class OpenFile:
    """A regular file that is open for reading."""

    def __init__(self, descriptor: int, name: str, found: os.stat_result) -> None:
        self._descriptor = descriptor
        self._found = found
        self.name = name
        self.size = found.st_size

    @property
    def headers(self) -> dict[str, str]:
        """Of every answer with its bytes, apart from Content-Length and Content-Range."""
        return {
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-store",
            "Content-Type": _TYPES.get(Path(self.name).suffix.lower(), "application/octet-stream"),
            "ETag": f'"{self._found.st_mtime_ns:x}-{self.size:x}"',
            "Last-Modified": formatdate(self._found.st_mtime, usegmt=True),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    def choose(self, headers: Headers) -> Span:
        """What a request asks for: all of it where `If-Range` names another state of the file. Raises BadRange."""
        condition, own = headers.get("if-range"), self.headers
        if condition is not None and condition not in (own["ETag"], own["Last-Modified"]):
            return Span(0, self.size, is_part=False)
        said = headers.getlist("range")
        return read_range(said[0], self.size) if len(said) == 1 else Span(0, self.size, is_part=False)

    async def read(self, offset: int, size: int) -> bytes:
        """At most so many bytes from there on. Raises OSError."""
        return await trio.to_thread.run_sync(os.pread, self._descriptor, size, offset)


def read_range(text: str, size: int) -> Span:
    """A Range of a file of so many bytes. One in another unit, and more than one range, count as not sent: the whole
    file (RFC 9110, 14.2). Raises BadRange."""
    unit, equals, ranges = text.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return Span(0, size, is_part=False)
    if "," in ranges:
        return Span(0, size, is_part=False)
    first, dash, last = (part.strip(" \t") for part in ranges.partition("-"))
    if not dash or not (first or last) or not all(map(_is_number, filter(None, (first, last)))):
        raise BadRange(400, None)
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < begin:
            raise BadRange(400, None)
    if begin >= end:
        raise BadRange(416, f"bytes */{size}")
    return Span(begin, end, is_part=True)


def _is_number(text: str) -> bool:
    return len(text) <= _MOST_DIGITS and text.isascii() and text.isdecimal()


@asynccontextmanager
async def open_file(path: Path, name: str) -> AsyncIterator[OpenFile]:
    """Open while the block runs; `name` is what it is saved under. Raises NotFound, StoreFailed."""
    try:
        descriptor = await trio.to_thread.run_sync(_open, path)
    except FileNotFoundError:
        raise NotFound(f"{name} has just been deleted", resource="file", id=name) from None
    except OSError as problem:
        raise StoreFailed(f"{name} cannot be read: {problem.strerror}") from problem
    try:
        yield OpenFile(descriptor, name, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Raises OSError, FileNotFoundError for what is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor


async def send_file(
    file: OpenFile, disposition: str, may_go_on: Callable[[], bool], scope: Scope, send: Send
) -> None:  # fmt: skip
    """Answer a request with the file's bytes. `disposition` is attachment or inline; `may_go_on` is asked before each
    piece.

    Raises BadRange before anything is sent; ResponseAborted where `may_go_on` says no, or the file became shorter.
    """
    span = file.choose(Headers(scope=scope))
    headers = file.headers | {
        "Content-Disposition": f"{disposition}; {_name_of(file.name)}", "Content-Length": str(span.end - span.begin)
    }  # fmt: skip
    if span.is_part:
        headers["Content-Range"] = f"bytes {span.begin}-{span.end - 1}/{file.size}"
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 206 if span.is_part else 200, "headers": raw})
    at = span.end if scope["method"] == "HEAD" else span.begin
    while at < span.end:
        data = await file.read(at, min(CHUNK, span.end - at))
        if not data or not may_go_on():
            raise ResponseAborted
        at += len(data)
        await send({"type": "http.response.body", "body": data, "more_body": at < span.end})
    if scope["method"] == "HEAD" or span.begin == span.end:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _name_of(name: str) -> str:
    """The parameter of Content-Disposition (RFC 6266)."""
    quoted = quote(name)
    return f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
