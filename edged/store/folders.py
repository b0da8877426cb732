"""Folders of which this process is the only master: one edged per state folder, one per runtime folder.

Two daemons on one state folder would not know of each other's revocations; two on one runtime folder would rewrite
the configuration of each other's MediaMTX. The kernel lets a lock go when its process ends, however it ends.

What is locked is a file of mode 0600 in the folder, not the folder: whoever may open that could hold the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from edged.errors import StartFailed

LOCK = ".lock"


@asynccontextmanager
async def hold_folders(state: Path, runtime: Path) -> AsyncIterator[None]:
    """Make them where they are missing (0700 and 0755), and hold them while the block runs. Raises StartFailed."""
    with ExitStack() as held:
        modes = {state: 0o700, runtime: 0o755}
        for folder, mode in modes.items():
            try:
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as problem:
                raise _failed(folder, problem) from problem
        for folder in {path.resolve() for path in modes}:
            _hold(folder, held)
        yield


def _hold(folder: Path, held: ExitStack) -> None:
    try:
        while not _lock(folder / LOCK, folder.stat(), held):
            pass
    except BlockingIOError:
        raise StartFailed(
            f"another edged runs on {folder}", hint="stop it, or give this one other [paths]", folder=str(folder)
        ) from None
    except OSError as problem:
        raise _failed(folder, problem) from problem


def _lock(path: Path, owner: os.stat_result, held: ExitStack) -> bool:
    """Lock this file until `held` is left, which removes it; False if whoever held it has removed it meanwhile.

    Raises BlockingIOError if somebody holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as undo:
        descriptor = os.open(path, flags, 0o600)
        undo.callback(os.close, descriptor)
        if os.geteuid() == 0:
            # A command of root's must not keep the daemon out, whose folder this is.
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            is_there = os.path.samestat(os.fstat(descriptor), path.lstat())
        except FileNotFoundError:
            is_there = False
        if is_there:
            held.push(undo.pop_all())
            held.callback(path.unlink, missing_ok=True)
    return is_there


def _failed(folder: Path, problem: OSError) -> StartFailed:
    return StartFailed(
        f"folder {folder} cannot be used: {problem.strerror}",
        hint="make it writable for the user that edged runs as, or change [paths]",
        folder=str(folder),
    )
