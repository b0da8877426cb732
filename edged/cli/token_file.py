"""The saved token of a user: `~/.camera_service_token`, readable by nobody else (contract S0-20)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from edged.errors import ConfigError

NAME: Final = ".camera_service_token"
_LONGEST: Final = 64 * 1024


def path() -> Path:
    """Where it is saved."""
    return Path.home() / NAME


def read() -> str:
    """The token, "" if none is saved. Raises ConfigError for one that others may read or write, or that is no file."""
    file = path()
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise ConfigError(f"{file} cannot be read: {problem.strerror}", hint="edged logout deletes it") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{file} is not a regular file", hint="remove it")
        if found.st_mode & 0o077:
            raise ConfigError(
                f"{file} is readable by others (mode {stat.S_IMODE(found.st_mode):04o})",
                hint=f"chmod 600 {file}; others may have read the token: edged token revoke",
            )
        return os.read(descriptor, _LONGEST).decode(errors="replace").strip()
    finally:
        os.close(descriptor)


def write(text: str) -> None:
    """Save a token instead of the previous one, atomically. Raises ConfigError."""
    file = path()
    part = file.with_name(f"{NAME}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as opened:
                opened.write(f"{text}\n")
                opened.flush()
                os.fsync(descriptor)
            part.rename(file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise ConfigError(f"{file} cannot be written: {problem.strerror}", hint="the token was not saved") from None


def remove() -> bool:
    """Delete it; whether there was one. Raises ConfigError."""
    try:
        path().unlink()
    except FileNotFoundError:
        return False
    except OSError as problem:
        raise ConfigError(f"{path()} cannot be removed: {problem.strerror}", hint="delete it by hand") from None
    return True
