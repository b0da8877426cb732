"""Files and folders that children must not open, shut by Landlock (landlock(7)), which setpriv applies to a child.

MediaMTX and ffmpeg read what strangers send, and run as the user that owns edged's databases and credentials. A child
under Landlock cannot open them, and cannot trace edged or read its memory either (ptrace(2)).

Landlock is a list of what is allowed, and nothing can be taken out of a folder that is allowed. So each folder on the
way to one that is shut is listed, and what stands beside is allowed. Whatever appears in /dev later is thereby allowed.
Needs setpriv of util-linux 2.40 and Linux 6.2 or newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: The rights in a rule for a single file; a rule for a folder names none, which means all.
_PROGRAM: Final = "execute,read-file"
_FILE: Final = "execute,read-file,write-file,truncate"
#: Where files beside a shut folder are allowed one by one; elsewhere only folders are.
_SYSTEM_FILES: Final = "/etc/"
#: What is always allowed as a whole: something in there may appear at any time, such as a camera.
_SYSTEM: Final = frozenset({"/dev", "/proc", "/sys"})
_TRY_SECONDS: Final = 10.0


class Landlock:
    """What children may open: everything but `shut`, and in spite of that `opened`, folders inside of what is shut.

    A folder among `opened` that is shut itself, or above one that is, stays shut (`refused`). What is in /dev, /proc or
    /sys cannot be shut.
    """

    def __init__(self, shut: Iterable[Path], opened: Iterable[Path] = ()) -> None:
        self._shut = frozenset(os.path.realpath(path) for path in shut)
        asked = [os.path.realpath(path) for path in opened]
        self.refused = [path for path in asked if path in self._shut or self._is_above_shut(path)]
        self._opened = [path for path in asked if path not in self.refused]
        #: Every folder above a shut one, with its time of change when it was listed.
        self._listed: dict[str, int] = {}
        self._rules: list[str] = []

    def options(self, program: str) -> list[str]:
        """setpriv's options for a child that runs this file.

        A folder is listed again once it has changed.
        """
        if not self._listed or any(_changed_at(folder) != at for folder, at in self._listed.items()):
            self._listed = {}
            self._rules = [option for rule in self._list("/") for option in ("--landlock-rule", rule)]
        own = [_rule("", folder) for folder in self._opened if Path(folder).is_dir()]
        own.append(_rule(_PROGRAM, program))
        return ["--landlock-access", "fs", *self._rules, *(part for rule in own for part in ("--landlock-rule", rule))]

    def _list(self, folder: str) -> Iterator[str]:
        """Rules for everything beside what is shut."""
        self._listed[folder] = _changed_at(folder)
        # A folder that vanishes meanwhile, or that we may not list ourselves, allows nothing.
        with suppress(OSError), os.scandir(folder) as listing:
            for entry in list(listing):
                target = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if target in _SYSTEM:
                    yield _rule("", target)
                    continue
                if self._is_shut(target):
                    continue
                if self._is_above_shut(target):
                    # A link to a folder that is listed at its own place says nothing more.
                    if not entry.is_symlink():
                        yield from self._list(target)
                elif _is(entry.is_dir):
                    yield _rule("", target)
                elif f"{folder}/".startswith(_SYSTEM_FILES) and _is(entry.is_file):
                    yield _rule(_FILE, target)

    def _is_shut(self, path: str) -> bool:
        return any(path == shut or path.startswith(f"{shut}/") for shut in self._shut)

    def _is_above_shut(self, path: str) -> bool:
        inside = path if path == "/" else f"{path}/"
        return any(shut.startswith(inside) for shut in self._shut)


def try_landlock(landlock: Landlock, path: str) -> str:
    """Start one child under it, by the setpriv on `path` (a PATH variable); returns why that failed, "" if it did not.

    Takes a few milliseconds, in the calling thread.
    """
    guard, program = shutil.which("setpriv", path=path), shutil.which("true", path=path)
    if guard is None or program is None:
        return "no setpriv"
    try:
        command = [guard, *landlock.options(program), "--", program]
        ended = subprocess.run(command, capture_output=True, timeout=_TRY_SECONDS, check=False, env={"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    if ended.returncode == 0:
        return ""
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[0] if said else f"setpriv ended with code {ended.returncode}"


def _rule(rights: str, path: str) -> str:
    return f"path-beneath:{rights}:{path}"


def _is(question: Callable[[], bool]) -> bool:
    """The answer of a directory entry; no, where a link leads to what we may not look at ourselves."""
    try:
        return question()
    except OSError:
        return False


def _changed_at(folder: str) -> int:
    """When an entry of a folder was added or removed last, in nanoseconds; 0 for one that is not there."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0
