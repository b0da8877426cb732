"""Files of the running daemon, over its unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket as sockets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from edged.cli.asking import find_socket
from edged.cli.client import Answered, Unreachable
from edged.cli.output import errors_shown
from edged.errors import EdgedError, InvalidState, StoreFailed

#: Seconds without a byte: several files are joined before the first.
_SECONDS: Final = 600.0
_CHUNK: Final = 1024 * 1024


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Raises OSError."""
        self.sock = sockets.socket(sockets.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def fetch(url: str, target: Path, *, socket: Path | None, directory: Path, as_json: bool) -> int:
    """Write what the daemon has at this path into a new file; bytes. Errors end the command, and leave no file."""
    with errors_shown(as_json=as_json), _create(target) as file:
        connection = _Connection(socket or find_socket(directory))
        try:
            connection.request("GET", quote(url))
            reply = connection.getresponse()
            if reply.status != 200:
                raise _read_fault(reply.read(_CHUNK))
            return _write(reply, file, target)
        except (OSError, http.client.HTTPException) as problem:
            raise Unreachable(f"the daemon does not answer: {problem}") from problem
        finally:
            connection.close()


@contextmanager
def _create(target: Path) -> Iterator[BinaryIO]:
    """A new file, which goes if the block fails. Raises InvalidState if there is one, StoreFailed."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        raise InvalidState(f"{target} exists", hint="name another file with --to") from None
    except OSError as problem:
        raise StoreFailed(f"{target} cannot be written: {problem.strerror}") from problem
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _read_fault(body: bytes) -> EdgedError:
    try:
        told = json.loads(body)
        return Answered(0, told["detail"])
    except (ValueError, KeyError, TypeError):
        return Answered(0, "the daemon's answer cannot be read")


def _write(reply: http.client.HTTPResponse, file: BinaryIO, target: Path) -> int:
    size = 0
    while data := reply.read(_CHUNK):
        try:
            file.write(data)
        except OSError as problem:
            raise StoreFailed(f"{target} cannot be written: {problem.strerror}") from problem
        size += len(data)
    if size != int(reply.headers["Content-Length"]):
        raise http.client.IncompleteRead(b"")
    return size
