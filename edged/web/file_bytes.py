"""The bytes of a kept file as an answer: whole, or one range of it (RFC 9110, 14).

The file is open while its answer is sent and closed at its end, whoever ends it: also where the client leaves half-way,
where the credential is revoked, and where the disk fails. The first bytes are read before the head is sent, so that a
file that cannot be read is an error that the client can read; later the connection is closed, and the log says why.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import structlog
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
#: What helps where a file could not be read, by errno; else the disk is to blame.
_REMEDIES: Final = {
    errno.ESTALE: "nothing but edged may write where it keeps files: fetch it again",
    errno.EACCES: "let edged read it",
    errno.EPERM: "let edged read it",
    errno.ELOOP: "it is a symbolic link, which edged does not follow: put the file itself there",
}
_DISK_REMEDY: Final = "look at the disk: the kernel's log (dmesg) says what it reports"
_log = structlog.get_logger("files")


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

    def __init__(self, descriptor: int, path: Path, name: str, found: os.stat_result) -> None:
        self._descriptor = descriptor
        self._path = path
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
        """At most so many bytes from there on, one at least unless `size` is 0. Raises StoreFailed, also for a file
        that was changed since it was opened: its bytes belong to two states of it."""
        try:
            return await trio.to_thread.run_sync(self._read, offset, size)
        except OSError as problem:
            raise _tell(self._path, self.name, problem, offset) from problem

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        now = os.fstat(self._descriptor)
        changed = (now.st_size, now.st_mtime_ns) != (self.size, self._found.st_mtime_ns)
        if changed or (size and not data):
            raise OSError(errno.ESTALE, "it was changed while it was sent")
        return data


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
        raise _tell(path, name, problem) from problem
    try:
        yield OpenFile(descriptor, path, name, os.fstat(descriptor))
    finally:
        # Whatever a network file system says of it, it is closed.
        with suppress(OSError):
            os.close(descriptor)


def _open(path: Path) -> int:
    """Raises OSError, FileNotFoundError for what is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _tell(path: Path, name: str, problem: OSError, offset: int = 0) -> StoreFailed:
    """Say in the log which file could not be read; the error for the caller, who knows it by its name."""
    remedy = _REMEDIES.get(problem.errno or 0, _DISK_REMEDY)
    _log.warning("file_not_read", file=str(path), offset=offset, problem=problem.strerror, remedy=remedy)
    return StoreFailed(f"{name} cannot be read: {problem.strerror}", hint="the log of edged says what to do")


async def send_file(
    file: OpenFile, disposition: str, may_go_on: Callable[[], bool], scope: Scope, send: Send
) -> None:  # fmt: skip
    """Answer a request with the file's bytes. `disposition` is attachment or inline; `may_go_on` is asked before each
    piece.

    Raises BadRange, StoreFailed or NotFound before anything is sent; afterwards ResponseAborted where `may_go_on` says
    no, or the file cannot be read on.
    """
    span = file.choose(Headers(scope=scope))
    headers = file.headers | {
        "Content-Disposition": f"{disposition}; {_name_of(file.name)}", "Content-Length": str(span.end - span.begin)
    }  # fmt: skip
    if span.is_part:
        headers["Content-Range"] = f"bytes {span.begin}-{span.end - 1}/{file.size}"
    at = span.end if scope["method"] == "HEAD" else span.begin
    data = await file.read(at, min(CHUNK, span.end - at))
    if not may_go_on():
        raise NotFound(f"no file {file.name!r}", resource="file", id=file.name)
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 206 if span.is_part else 200, "headers": raw})
    while True:
        at += len(data)
        await send({"type": "http.response.body", "body": data, "more_body": at < span.end})
        if at >= span.end:
            return
        try:
            data = await file.read(at, min(CHUNK, span.end - at))
        except StoreFailed:
            raise ResponseAborted from None
        if not may_go_on():
            raise ResponseAborted


def _name_of(name: str) -> str:
    """The parameter of Content-Disposition (RFC 6266)."""
    quoted = quote(name)
    return f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
