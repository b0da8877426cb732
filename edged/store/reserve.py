"""The reserve: disk blocks beside the trust database that are kept free for revocations while the disk is full.

`trust.reserve` beside `trust.db`, mode 0600, holds `SIZE` random bytes: no file system compresses those, so that the
blocks are really allocated, also where fallocate(2) is not supported. When a revocation (any transaction that
`may_stand`, store.database) finds no space, `PIECE` bytes are cut off the end and the transaction is tried again at
once; what it did not need is taken back right after its commit, so that no other writer gets it. What was used is
allocated anew when the disk has space.

`SIZE` and `PIECE` by measurement, with 20,000 rows in each table concerned: a revocation that writes three of them puts
30 KiB into the WAL on average and 85 KiB at most; another 32 KiB are the next part of the -shm. So one piece is enough
for any single revocation, and the whole for about thirty, more where the WAL can begin anew in its own blocks.

Not promised where a freed block cannot be used at once: on copy-on-write storage (btrfs, ZFS, snapshots, thin volumes)
a full disk may need more than that to take anything.

The first `HEADER` bytes are never given up: they hold the number of commits of the trust database, written after each
commit and before its caller is told (store.restores). That is one pwrite(2) without a sync: a power cut may lose the
last of them, the end of this process does not.

Earlier versions called the file `trust.room`; `find` renames it, before anything else reads it.

Used by one thread at a time. Nothing here raises: where there is no reserve, all else works as if it were used up.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from edged.store.backups import sync_folder

#: Bytes that are kept, and how many are freed at a time.
SIZE: Final = 1024 * 1024
PIECE: Final = 128 * 1024
_STEP: Final = 64 * 1024
#: Bytes at the beginning that are never freed.
HEADER: Final = 4096
_COMMITS: Final = re.compile(rb"edged trust commits ([0-9]{20}) ([0-9a-f]{8})\n")
#: Unit of st_blocks, bytes.
_SECTOR: Final = 512
_log = structlog.get_logger("store")


class Reserve:
    """The file at `path`. One that is not a plain file of this user is never changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        #: Of the trust database, as the file says; 0 where it says nothing.
        self.commits = 0
        self._descriptor: int | None = None
        self._used = False
        self._told = False

    @property
    def files(self) -> tuple[Path, Path]:
        """Where it may be found: under its name, and under that of earlier versions."""
        return self.path, _former(self.path)

    @property
    def is_whole(self) -> bool:
        """Whether all `SIZE` bytes are allocated."""
        return self.size >= SIZE

    @property
    def is_used(self) -> bool:
        """Whether some of it was given up and is not yet allocated anew."""
        return self._used

    def find(self) -> None:
        """Open what an earlier run left, renamed if an earlier version made it; creates and logs nothing."""
        with suppress(OSError):
            self._rename_former()
        with suppress(OSError):
            self._open(0)

    def grow(self) -> None:
        """Allocate what is missing, as far as there is space. What is missing then is logged once, and once that it is
        whole again."""
        before = self.size
        try:
            self._open(os.O_CREAT)
            assert self._descriptor is not None
            while self.size < SIZE:
                noise = os.urandom(min(_STEP, SIZE - self.size))
                self.size += os.pwrite(self._descriptor, noise, HEADER + self.size)
        except OSError as problem:
            self._keep(before)
            self._tell("reserve_short", problem)
            return
        if self._keep(before) and (self._told or self._used):
            self._told = self._used = False
            _log.info("reserve_whole", path=str(self.path))

    def give_up(self) -> bool:
        """Free up to `PIECE` bytes for the transaction that is tried next; False if none are left."""
        if self._descriptor is None or not self.size:
            return False
        size = max(0, self.size - PIECE)
        try:
            os.ftruncate(self._descriptor, HEADER + size)
        except OSError:
            return False
        self.size, self._used = size, True
        # Some file systems free the blocks only with this.
        with suppress(OSError):
            os.fsync(self._descriptor)
        self._tell("reserve_used", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return True

    def note_commits(self, number: int) -> None:
        """Write the number of commits of the trust database; a lower one than before changes nothing. Where it cannot
        be written the usage database has it up to a minute later."""
        self.commits = max(number, self.commits)
        if self._descriptor is not None:
            with suppress(OSError):
                os.pwrite(self._descriptor, _write_commits(self.commits), 0)

    def close(self) -> None:
        """Close the file, which stays for the next run."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _rename_former(self) -> None:
        """One rename or one removal, so that a crash at any moment leaves a file with the highest number of commits.

        Where both are there (an earlier version ran again in between) the one with more commits stays. Raises OSError.
        """
        former = _former(self.path)
        commits = _own_commits(former)
        # Known also where the rename fails.
        self.commits = max(self.commits, commits)
        try:
            is_newer = commits > _own_commits(self.path)
        except FileNotFoundError:
            is_newer = True
        if is_newer:
            former.rename(self.path)
        else:
            former.unlink()
        sync_folder(self.path.parent)

    def _open(self, flags: int) -> None:
        """Raises OSError, also of what is no plain file of this user."""
        if self._descriptor is not None:
            return
        flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            found = _check_own(descriptor)
            os.fchmod(descriptor, 0o600)
            commits = max(self.commits, _read_commits(descriptor))
            # A copy of the file may be sparse.
            is_real = found.st_blocks * _SECTOR >= found.st_size
            size = max(0, min(found.st_size - HEADER, SIZE)) if is_real else 0
            if found.st_size > HEADER + size:
                os.ftruncate(descriptor, HEADER + size)
            if flags & os.O_CREAT:
                # Random bytes behind the number, so that the block is really allocated.
                begin = _write_commits(commits)
                os.pwrite(descriptor, begin + os.urandom(HEADER - len(begin)), 0)
                sync_folder(self.path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self.size, self.commits = descriptor, size, commits

    def _keep(self, before: int) -> bool:
        """Sync what was written since there were `before` bytes, or cut it off; whether the reserve is whole then."""
        if self._descriptor is None or self.size == before:
            return self.is_whole
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            with suppress(OSError):
                os.ftruncate(self._descriptor, HEADER + before)
                self.size = before
            self._tell("reserve_short", problem)
        return self.is_whole

    def _tell(self, event: str, problem: OSError) -> None:
        if self._told:
            return
        self._told = True
        said = "it is a symbolic link, and was left alone" if problem.errno == errno.ELOOP else problem.strerror
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space on the disk that holds it"
        else:
            remedy = "move away what stands there, and let edged write into the folder"
        _log.warning(
            event, path=str(self.path), kept_bytes=self.size, wanted_bytes=SIZE, problem=said,
            remedy=f"{remedy}: what is revoked while the disk is full may not outlive a restart",
        )  # fmt: skip


def read_commits(path: Path) -> int:
    """The number of commits that the reserve at `path` says, or the one under the name of earlier versions, whichever
    is higher; 0 where neither says one. Whoever the files belong to: for commands, which root may run for the user that
    edged runs as."""
    return max(_peek(path), _peek(_former(path)))


def _former(path: Path) -> Path:
    return path.with_suffix(".room")


def _peek(path: Path) -> int:
    with suppress(OSError), _opened(path) as descriptor:
        return _read_commits(descriptor)
    return 0


def _own_commits(path: Path) -> int:
    """0 where it says none. Raises OSError where there is no plain file of this user."""
    with _opened(path) as descriptor:
        _check_own(descriptor)
        return _read_commits(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_own(descriptor: int) -> os.stat_result:
    """Raises OSError for what is no plain file of this user."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        raise OSError(errno.EEXIST, "it is not a file of edged's own, and was left alone")
    return found


def _write_commits(number: int) -> bytes:
    text = b"%020d" % number
    return b"edged trust commits %s %08x\n" % (text, zlib.crc32(text))


def _read_commits(descriptor: int) -> int:
    """0 where the file does not begin with a number and its checksum."""
    with suppress(OSError):
        found = _COMMITS.match(os.pread(descriptor, 64, 0))
        if found is not None and int(found[2], 16) == zlib.crc32(found[1]):
            return int(found[1])
    return 0
