"""Room that is kept for denials: blocks beside a database that nobody else can take while the disk is full.

`trust.room` beside `trust.db`, mode 0600, `SIZE` bytes of noise: no file system folds that up, so that the blocks are
real ones without asking which of them knows fallocate(2). When a denial finds no space a piece is cut off the end and
the denial is written again at once; what it did not need is taken back right after its commit, so that neither a grant
nor anybody else gets it. What is used up is made anew when there is space.

`SIZE` and `PIECE` by measurement, with 20,000 rows in each table concerned: a denial that writes three of them puts
30 KiB into the WAL on average and 85 KiB at most; another 32 KiB are the next part of the -shm. So a piece is enough
for any single denial, and the whole for about thirty, more where the log can begin anew in its own blocks.

Not promised where a block that is given back cannot be used at once: below copies on write (btrfs, ZFS, snapshots,
thin volumes) a full disk may need more than that to take anything.

The first `HEADER` bytes are never given up: they hold how many commits the trust database has been through, written
after each commit and before anybody hears of it (store.restores). That is one pwrite(2) without a sync: a power cut may
lose the last of them, the end of this process does not.

Used by one thread at a time. Nothing here raises: without room everything is as it would be without this file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from edged.store.backups import sync_folder

#: Bytes that are kept, and that are given up at a time.
SIZE: Final = 1024 * 1024
PIECE: Final = 128 * 1024
_STEP: Final = 64 * 1024
#: Bytes at the beginning that are kept whatever happens.
HEADER: Final = 4096
_COMMITS: Final = re.compile(rb"edged trust commits ([0-9]{20}) ([0-9a-f]{8})\n")
#: What st_blocks counts in.
_SECTOR: Final = 512
_log = structlog.get_logger("store")


class Room:
    """The file; whoever comes across one that is not ours leaves it alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        #: Of the trust database, as the file says; 0 where it says nothing.
        self.commits = 0
        self._descriptor: int | None = None
        self._used = False
        self._told = False

    @property
    def is_whole(self) -> bool:
        """Whether a disk that fills up now would find all of it."""
        return self.size >= SIZE

    @property
    def is_used(self) -> bool:
        """Whether some of it was given up, and is not there again."""
        return self._used

    def find(self) -> None:
        """Take over what an earlier run left; makes nothing, says nothing."""
        with suppress(OSError):
            self._open(0)

    def grow(self) -> None:
        """Make what is missing, as far as there is space. Says so in the log once, and once when it is whole again."""
        before = self.size
        try:
            self._open(os.O_CREAT)
            assert self._descriptor is not None
            while self.size < SIZE:
                noise = os.urandom(min(_STEP, SIZE - self.size))
                self.size += os.pwrite(self._descriptor, noise, HEADER + self.size)
        except OSError as problem:
            self._keep(before)
            self._tell("room for denials is short", problem)
            return
        if self._keep(before) and (self._told or self._used):
            self._told = self._used = False
            _log.info("room for denials is whole", path=str(self.path))

    def give_up(self) -> bool:
        """Give the disk a piece back, for a denial that is written next; False if there is none left."""
        if self._descriptor is None or not self.size:
            return False
        size = max(0, self.size - PIECE)
        try:
            os.ftruncate(self._descriptor, HEADER + size)
        except OSError:
            return False
        self.size, self._used = size, True
        # Some file systems have the blocks back only with this.
        with suppress(OSError):
            os.fsync(self._descriptor)
        self._tell("room for denials is used", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return True

    def note_commits(self, number: int) -> None:
        """The trust database has been through so many; fewer than before change nothing. Where this cannot be written
        the usage database still says it, a minute later."""
        self.commits = max(number, self.commits)
        if self._descriptor is not None:
            with suppress(OSError):
                os.pwrite(self._descriptor, _write_commits(self.commits), 0)

    def close(self) -> None:
        """The file stays for the next run."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, flags: int) -> None:
        """Raises OSError; of what is not a file of ours, too."""
        if self._descriptor is not None:
            return
        flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
                raise OSError(errno.EEXIST, "it is not a file of edged's own, and was left alone")
            os.fchmod(descriptor, 0o600)
            commits = max(self.commits, _read_commits(descriptor))
            # A copy of it may have holes.
            is_real = found.st_blocks * _SECTOR >= found.st_size
            size = max(0, min(found.st_size - HEADER, SIZE)) if is_real else 0
            if found.st_size > HEADER + size:
                os.ftruncate(descriptor, HEADER + size)
            if flags & os.O_CREAT:
                # Noise behind it, so that the block is a real one.
                begin = _write_commits(commits)
                os.pwrite(descriptor, begin + os.urandom(HEADER - len(begin)), 0)
            if flags & os.O_CREAT:
                sync_folder(self.path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self.size, self.commits = descriptor, size, commits

    def _keep(self, before: int) -> bool:
        """What was written since there were `before` bytes is on the disk, or not there."""
        if self._descriptor is None or self.size == before:
            return self.is_whole
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            with suppress(OSError):
                os.ftruncate(self._descriptor, HEADER + before)
                self.size = before
            self._tell("room for denials is short", problem)
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
            remedy=f"{remedy}: what is denied while the disk is full may not outlive a restart",
        )  # fmt: skip


def read_commits(path: Path) -> int:
    """What the file at this path says of the commits, whoever it belongs to; 0 where there is none, or it says nothing.

    For commands, which root may run for the user that edged runs as.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_commits(descriptor)
        finally:
            os.close(descriptor)
    return 0


def _write_commits(number: int) -> bytes:
    text = b"%020d" % number
    return b"edged trust commits %s %08x\n" % (text, zlib.crc32(text))


def _read_commits(descriptor: int) -> int:
    """0 where there is none, or something else."""
    with suppress(OSError):
        found = _COMMITS.match(os.pread(descriptor, 64, 0))
        if found is not None and int(found[2], 16) == zlib.crc32(found[1]):
            return int(found[1])
    return 0
