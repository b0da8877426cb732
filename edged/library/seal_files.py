"""Seals beside the files that they are of: `NAME.seal` beside `NAME`. Everything here runs in a thread."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from edged.credentials.seals import LONGEST_STATEMENT, Content

SUFFIX: Final = ".seal"


def seal_of(path: Path) -> Path:
    """Where the seal of a file stands."""
    return path.with_name(path.name + SUFFIX)


def measure(path: Path) -> Content:
    """The digest and the size of a file, which is read once. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Content(digest, file.tell())


def write_seal(path: Path, text: bytes) -> None:
    """Put a seal beside a file: whole and on the disk, or not at all. Raises OSError."""
    target = seal_of(path)
    part = target.with_name(f".{target.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fdatasync(file.fileno())
        part.replace(target)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def read_seal(path: Path) -> bytes | None:
    """The seal beside a file; None where there is none. Raises OSError."""
    try:
        descriptor = os.open(seal_of(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LONGEST_STATEMENT + 4096)


def remove_seal(path: Path) -> None:
    """It goes with its file. Raises OSError."""
    seal_of(path).unlink(missing_ok=True)
