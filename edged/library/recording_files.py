"""The folder of recordings: what MediaMTX writes, and where it is kept.

    open/CAMERA/PATH/SECONDS-MICROSECONDS.mp4    being written by MediaMTX, named by the Unix time of its begin
    CAMERA/YYYY-MM-DD/SECONDS-MICROSECONDS.mp4   closed, in the folder of its day (UTC); never changed again
    CAMERA/YYYY-MM-DD/….mp4.seal                 its seal (sealing)
    joined/RECORDING.mp4                         recordings of several segments in one file, made when asked for
    joined/RECORDING.open.mp4                    the same, made while its last segment was being written
    damaged/…                                    files in open/ that are no fragmented MP4

A file is closed when nobody has it open for writing, by the kernel's word (a read lease, fcntl(2)): it is moved on the
same file system, so that nothing is copied and a crash leaves it at one place or the other. Everything here runs in a
thread, and follows no symbolic link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog

from edged.library.disks import check_writable
from edged.library.fmp4 import NotASegment, Segment, read_segment
from edged.library.layouts import write_layout
from edged.library.seal_files import SUFFIX, remove_seal
from edged.repeats import Lasting
from edged.store.segments import SegmentRow

OPEN: Final = "open"
JOINED: Final = "joined"
DAMAGED: Final = "damaged"
_NAME: Final = re.compile(r"([0-9]{1,12})-([0-9]{6})(?:-[0-9]{1,3})?\.mp4\Z", re.ASCII)
_CAMERA: Final = re.compile(r"camera[0-9]{1,6}\Z", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)
_JOINED_NAME: Final = re.compile(r"\.?rec_[0-9a-f]{16}(?:\.open)?\.(?:mp4|mkv)(?:\.part|\.seal)?\Z", re.ASCII)
#: MediaMTX writes once a second.
_QUIET_SECONDS: Final = 15.0
_MOST_OF_A_NAME: Final = 100
_log = structlog.get_logger("recordings")


class OpenFile(msgspec.Struct, frozen=True):
    """A file that MediaMTX is writing; `size` bytes so far."""

    camera: str
    path: Path
    size: int


class Look(msgspec.Struct, frozen=True):
    """What one look at open/ found: files being written, and those that were closed since, at their new places."""

    writing: tuple[OpenFile, ...]
    closed: tuple[SegmentRow, ...]


class RecordingFiles:
    """The folder. `root` is made when something is to be written there."""

    def __init__(self, root: Path, link: Path | None = None) -> None:
        """`link`: where a symbolic link to open/ is made, by which MediaMTX writes. A link that leads nowhere cannot be
        made a folder, so that nothing is written into the empty mount point of a medium."""
        self.root, self._link = root, link
        self._lasting = Lasting()

    def record_path(self, camera: str) -> str:
        """MediaMTX's `recordPath` for a camera."""
        return f"{self._link or self.root / OPEN}/{camera}/%path/%s-%f"

    def make_link(self) -> None:
        """Make the link, if there is to be one. Raises OSError."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.root / OPEN)

    def prepare(self) -> None:
        """Make the folder. Raises OSError, also where nothing can be written into it."""
        (self.root / OPEN).mkdir(mode=0o750, parents=True, exist_ok=True)
        check_writable(self.root / OPEN)

    def look(self) -> Look:
        """Look at open/ and put closed files where they are kept. A disk error leaves a file where it is, for later."""
        writing: list[OpenFile] = []
        closed: list[SegmentRow] = []
        failures: list[tuple[Path, OSError]] = []
        for camera, path in self._list_open():
            try:
                if is_being_written(path):
                    writing.append(OpenFile(camera, path, path.stat().st_size))
                elif (row := self._keep(camera, path)) is not None:
                    closed.append(row)
            except FileNotFoundError:
                continue
            except OSError as problem:
                failures.append((path, problem))
        self._tell("look", failures, "recording_not_kept", "recordings_kept_again")
        return Look(tuple(writing), tuple(closed))

    def _tell(self, doing: str, failures: Sequence[tuple[Path, OSError]], event: str, over: str) -> None:
        """Say once that files could not be moved or deleted, by the first of them, and once when all could be."""
        if not failures:
            if self._lasting.ends(doing):
                _log.info(over)
            return
        path, problem = failures[0]
        if self._lasting.begins(doing, str(problem.strerror)):
            _log.warning(
                event, file=str(path.relative_to(self.root)), files=len(failures), problem=problem.strerror,
                remedy="look at the disk, and at the rights of the folder: it is tried again until then",
            )  # fmt: skip

    def list_writing(self, camera: str) -> tuple[Path, ...]:
        """The files of a camera that are in open/, whether they are being written or wait for the next look."""
        return tuple(path for owner, path in self._list_open() if owner == camera)

    def remove_joined(self, recording_id: str) -> None:
        """Delete the joined files of a recording."""
        for path in self.list_joined(recording_id):
            path.unlink(missing_ok=True)

    def remove_old_joined(self, before: float) -> None:
        """Delete joined files that nobody has fetched since a time, Unix seconds; they can be made again."""
        for name in _names(self.root / JOINED, _JOINED_NAME):
            path = self.root / JOINED / name
            if not name.endswith(SUFFIX):
                with suppress(OSError):
                    found = path.stat()
                    if max(found.st_atime, found.st_mtime) < before:
                        path.unlink()
                        remove_seal(path)

    def joined_path(self, recording_id: str, ending: str, *, is_open: bool) -> Path:
        """Where the joined file of a recording is kept; `is_open`: its last segment is still being written."""
        return self.root / JOINED / f"{recording_id}{'.open' if is_open else ''}{ending}"

    def list_joined(self, recording_id: str) -> tuple[Path, ...]:
        """The joined files of a recording."""
        names = _names(self.root / JOINED, _JOINED_NAME)
        return tuple(self.root / JOINED / name for name in names if name.startswith((recording_id, f".{recording_id}")))

    def read_joined_seal(self, recording_id: str) -> bytes:
        """The seal beside the joined file of a recording; empty where there is none."""
        for path in self.list_joined(recording_id):
            if path.name.endswith(SUFFIX):
                with suppress(OSError):
                    return path.read_bytes()
        return b""

    def sync(self, files: tuple[OpenFile, ...]) -> None:
        """Have what was written on the disk (fdatasync): MediaMTX never asks for that."""
        for file in files:
            with suppress(OSError):
                descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)

    def list_kept(self) -> Iterator[tuple[str, str]]:
        """(camera, file below the root) of every kept segment, in the order of their names."""
        for camera in _names(self.root, _CAMERA):
            for day in _names(self.root / camera, _DAY):
                for name in _names(self.root / camera / day, _NAME):
                    yield camera, f"{camera}/{day}/{name}"

    def describe(self, camera: str, file: str) -> SegmentRow | None:
        """A kept segment as the index knows it; None for what is no segment."""
        path = self.root / file
        try:
            with path.open("rb") as data:
                return _describe(camera, file, path, read_segment(data))
        except (OSError, NotASegment):
            return None

    def find(self, file: str) -> Path:
        """Where a segment of the index is."""
        return self.root / file

    def describe_open(self, camera: str) -> list[SegmentRow]:
        """The segments of a camera that are being written, each up to its last whole part, oldest first."""
        rows = []
        for path in self.list_writing(camera):
            with suppress(OSError, NotASegment), path.open("rb") as data:
                if (segment := read_segment(data)).parts:
                    rows.append(_describe(camera, str(path.relative_to(self.root)), path, segment, segment.size))
        return sorted(rows, key=lambda row: row.began)

    @staticmethod
    def is_open(row: SegmentRow) -> bool:
        """Whether a row is of `describe_open`: the file may grow, and move to where it is kept."""
        return row.file.startswith(f"{OPEN}/")

    def read(self, row: SegmentRow) -> BinaryIO:
        """A segment, opened, also if it has been closed and moved meanwhile. Raises OSError."""
        try:
            return (self.root / row.file).open("rb")
        except FileNotFoundError:
            if not self.is_open(row):
                raise
            folder, stem = self.find_place(row.camera, row.began)
            return (folder / f"{stem}.mp4").open("rb")

    def remove(self, files: tuple[str, ...]) -> tuple[str, ...]:
        """Delete kept segments; those that are gone now. A file that cannot be deleted stays, and is not among them."""
        gone: list[str] = []
        failures: list[tuple[Path, OSError]] = []
        for file in files:
            try:
                (self.root / file).unlink(missing_ok=True)
                remove_seal(self.root / file)
            except OSError as problem:
                failures.append((self.root / file, problem))
            else:
                gone.append(file)
        if failures or gone:
            self._tell("remove", failures, "recording_not_deleted", "recordings_deleted_again")
        for folder in {(self.root / file).parent for file in gone}:
            with suppress(OSError):  # not empty
                folder.rmdir()
        return tuple(gone)

    def count_lone_seals(self) -> tuple[int, str, str]:
        """How many segments somebody else deleted, by the seals that stayed; the first and the last of them."""
        count, first, last = 0, "", ""
        for camera in _names(self.root, _CAMERA):
            for day in _names(self.root / camera, _DAY):
                for name in _lone(self.root / camera / day):
                    count, last = count + 1, f"{camera}/{day}/{name}"
                    first = first or last
        return count, first, last

    def remove_lone_seals(self, camera: str, before: str) -> tuple[str, ...]:
        """Delete the seals of vanished segments of a camera that come before a file of it, and before the first segment
        that is there; those segments."""
        gone: list[str] = []
        for day in _names(self.root / camera, _DAY):
            folder = self.root / camera / day
            first = next(iter(_names(folder, _NAME)), "")
            end = min(before, f"{camera}/{day}/{first}") if first else before
            for file in (f"{camera}/{day}/{name}" for name in _lone(folder)):
                if file < end:
                    with suppress(OSError):
                        remove_seal(self.root / file)
                        gone.append(file)
            if first or f"{camera}/{day}/" > before:
                break
            with suppress(OSError):  # not empty
                folder.rmdir()
        return tuple(gone)

    def free(self) -> tuple[int, int]:
        """(free, total) bytes of the file system that holds the folder. Raises OSError."""
        there = next((each for each in (self.root, *self.root.parents) if each.exists()), self.root)
        figures = os.statvfs(there)
        usable = figures.f_bfree if os.geteuid() == 0 else figures.f_bavail
        return usable * figures.f_frsize, figures.f_blocks * figures.f_frsize

    def _list_open(self) -> Iterator[tuple[str, Path]]:
        return list_written(self.root / OPEN)

    def _keep(self, camera: str, path: Path) -> SegmentRow | None:
        """Move a closed file of open/ where it is kept. Raises OSError; None for an empty file or one that is none."""
        try:
            with path.open("rb") as data:
                segment = read_segment(data)
        except NotASegment as problem:
            self._set_aside(path, str(problem))
            return None
        if not segment.parts:
            path.unlink()
            return None
        folder, stem = self.find_place(camera, begin_of(path, segment))
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        return self.make_row(camera, move(path, folder, stem), segment)

    def find_place(self, camera: str, began: float) -> tuple[Path, str]:
        """(folder, name without its ending) where a segment of a camera is kept; `began` Unix seconds."""
        folder = self.root / camera / f"{datetime.fromtimestamp(began, UTC):%Y-%m-%d}"
        return folder, f"{int(began)}-{round(began % 1 * 1_000_000) % 1_000_000:06d}"

    def make_row(self, camera: str, path: Path, segment: Segment) -> SegmentRow:
        """What the index says of a segment that is kept at `path`. Raises OSError."""
        return _describe(camera, str(path.relative_to(self.root)), path, segment)

    def _set_aside(self, path: Path, why: str) -> None:
        if not path.stat().st_size:
            path.unlink()
            return
        folder = self.root / DAMAGED
        folder.mkdir(mode=0o750, exist_ok=True)
        target = folder / path.name
        path.replace(target)
        _log.warning("recording_damaged", file=str(target), problem=why, remedy="look at the file, and delete it")


def is_being_written(path: Path) -> bool:
    """Whether somebody has the file open for writing (fcntl(2), F_SETLEASE). Raises OSError.

    Network file systems know no leases: there a file counts as closed once nothing was written for `_QUIET_SECONDS`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # If somebody opens it for writing meanwhile, the kernel sends this signal, which is ignored; without F_SETSIG
        # it is SIGIO, which ends a process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        return time.time() - os.fstat(descriptor).st_mtime < _QUIET_SECONDS
    finally:
        os.close(descriptor)
    return False


def _names(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if pattern.match(entry.name) and not entry.is_symlink())
    except OSError:
        return []


def _lone(folder: Path) -> list[str]:
    """The names of segments that are not in a folder and whose seal is."""
    try:
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries}
    except OSError:
        return []
    sealed = {name.removesuffix(SUFFIX) for name in there if name.endswith(SUFFIX)}
    return sorted(name for name in sealed - there if _NAME.match(name))


def list_written(folder: Path) -> Iterator[tuple[str, Path]]:
    """(camera, file) of what MediaMTX has written below FOLDER/CAMERA/, in the order of their names."""
    for camera in _names(folder, _CAMERA):
        for path in sorted((folder / camera).rglob("*")):
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield camera, path


def name_of(path: Path) -> float | None:
    """When a file begins by its name, Unix seconds; None for another name than MediaMTX's."""
    found = _NAME.match(path.name)
    return int(found[1]) + int(found[2]) / 1e6 if found else None


def begin_of(path: Path, segment: Segment) -> float:
    """When a segment begins, Unix seconds. Raises OSError."""
    if segment.origin is not None and segment.origin.at_ns > 0:
        return segment.origin.at_ns / 1e9
    named = name_of(path)
    return path.stat().st_mtime if named is None else named


def move(path: Path, folder: Path, stem: str) -> Path:
    """Into the folder under a name that is free. Raises OSError."""
    for count in range(_MOST_OF_A_NAME):
        target = folder / (f"{stem}-{count}.mp4" if count else f"{stem}.mp4")
        try:
            os.link(path, target, follow_symlinks=False)
        except FileExistsError:
            # A crash after the link left both names of the one file.
            if target.samefile(path):
                path.unlink()
                return target
            continue
        path.unlink()
        return target
    raise FileExistsError(f"{_MOST_OF_A_NAME} recordings begin in the same microsecond")


def _describe(camera: str, file: str, path: Path, segment: Segment, size: int | None = None) -> SegmentRow:
    """`size` bytes, those of the file if it is not given."""
    size, duration = path.stat().st_size if size is None else size, float(segment.duration)
    return SegmentRow(
        file, camera, begin_of(path, segment), duration, size, recovered=not segment.is_closed,
        layout=write_layout(segment),
    )  # fmt: skip
