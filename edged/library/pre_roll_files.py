"""The folder of pre-rolls, in memory: pieces of two seconds of what cameras send now, in case somebody records.

    CAMERA/PATH/SECONDS-MICROSECONDS.mp4    written by MediaMTX, named by the Unix time of its begin

A piece that a recording needs is copied to the disk, in full and durably, before it goes here: a crash leaves it at
one place or at both, which the next look notices. All others go when they are too old. Everything here runs in a
thread, and follows no symbolic link.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from edged.library.fmp4 import NotASegment, Segment, read_segment
from edged.library.recording_files import (
    OpenFile,
    RecordingFiles,
    begin_of,
    is_being_written,
    list_written,
    move,
    name_of,
)
from edged.repeats import Lasting
from edged.store.segments import SegmentRow

#: The folder beside the recordings in which copies are made; what a crash left there is deleted.
MOVING: Final = "moving"
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_log = structlog.get_logger("recordings")


class Piece(msgspec.Struct, frozen=True):
    """A closed file in memory; `began` and `ended` Unix seconds, `size` bytes."""

    path: Path
    camera: str
    began: float
    ended: float
    size: int


class Pieces(msgspec.Struct, frozen=True):
    """What one look found: files being written, pieces, and which of these were not there at the look before."""

    writing: tuple[OpenFile, ...] = ()
    closed: tuple[Piece, ...] = ()
    new: frozenset[Path] = frozenset()


class PreRollFiles:
    """The folder. `kept` is where pieces go that a recording needs."""

    def __init__(self, root: Path, kept: RecordingFiles) -> None:
        self.root = root
        self._kept = kept
        self._known: dict[Path, tuple[Piece, Segment]] = {}
        self._lasting = Lasting()

    def record_path(self, camera: str) -> str:
        """MediaMTX's `recordPath` for a camera that is held in memory."""
        return f"{self.root}/{camera}/%path/%s-%f"

    def prepare(self) -> None:
        """Make the folder, and delete copies that a crash left half done. Raises OSError."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._kept.root / MOVING, ignore_errors=True)

    def limit(self, most: int) -> int:
        """`most` bytes, or half of the file system where that is less. Raises OSError."""
        figures = os.statvfs(self.root)
        return min(most, figures.f_blocks * figures.f_frsize // 2)

    def is_in_memory(self) -> bool:
        """Whether the folder is on a tmpfs. Raises OSError."""
        device = self.root.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return any(line[2] == number and line[line.index("-") + 1] in _MEMORY for line in lines)

    def list_begins(self, camera: str) -> dict[Path, float]:
        """When the files of a camera begin, by their names, Unix seconds."""
        named = ((path, name_of(path)) for owner, path in list_written(self.root) if owner == camera)
        return {path: began for path, began in named if began is not None}

    def look(self) -> Pieces:
        """What is there now. Files without a whole part are deleted: there is nothing in them to see."""
        writing: list[OpenFile] = []
        known: dict[Path, tuple[Piece, Segment]] = {}
        for camera, path in list_written(self.root):
            with suppress(OSError):
                if (there := self._known.get(path)) is not None:
                    known[path] = there
                elif is_being_written(path):
                    writing.append(OpenFile(camera, path, path.stat().st_size))
                elif (read := _read(camera, path)) is not None:
                    known[path] = read
        new = frozenset(known.keys() - self._known.keys())
        self._known = known
        return Pieces(tuple(writing), tuple(piece for piece, _ in known.values()), new)

    def keep(self, pieces: Iterable[Piece]) -> list[SegmentRow]:
        """Put pieces where recordings are kept, and delete them here; one that fails stays, for the next look."""
        rows = []
        for piece in pieces:
            try:
                rows.append(self._keep(piece))
            except OSError as problem:
                if self._lasting.begins("keep", str(problem.strerror)):
                    _log.warning(
                        "pre_roll_not_kept", file=piece.path.name, problem=problem.strerror,
                        remedy="look at the disk of recordings, and at the rights of its folders: until then the pieces"
                        " wait in memory, and the oldest go where that is full",
                    )  # fmt: skip
                break
            del self._known[piece.path]
            if self._lasting.ends("keep"):
                _log.info("pre_roll_kept_again")
        return rows

    def drop(self, pieces: Iterable[Piece]) -> None:
        """Delete pieces that nobody needs."""
        for piece in pieces:
            with suppress(OSError):
                piece.path.unlink(missing_ok=True)
                self._known.pop(piece.path, None)

    def _keep(self, piece: Piece) -> SegmentRow:
        folder, stem = self._kept.find_place(piece.camera, piece.began)
        target = folder / f"{stem}.mp4"
        if not (target.is_file() and filecmp.cmp(piece.path, target, shallow=False)):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            target = move(self._copy(piece.path), folder, stem)
            _sync(folder)
        piece.path.unlink()
        return self._kept.make_row(piece.camera, target, self._known[piece.path][1])

    def _copy(self, path: Path) -> Path:
        """A durable copy beside the recordings."""
        copy = self._kept.root / MOVING / path.name
        copy.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        try:
            with path.open("rb") as source, copy.open("xb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fdatasync(target.fileno())
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        return copy


def _read(camera: str, path: Path) -> tuple[Piece, Segment] | None:
    """Raises OSError; None for what is no segment, which is deleted."""
    try:
        with path.open("rb") as data:
            segment = read_segment(data)
    except NotASegment as problem:
        if path.stat().st_size:
            _log.warning("pre_roll_damaged", file=path.name, problem=str(problem))
        path.unlink()
        return None
    if not segment.parts:
        path.unlink()
        return None
    began = begin_of(path, segment)
    return Piece(path, camera, began, began + float(segment.duration), path.stat().st_size), segment


def _sync(folder: Path) -> None:
    """The names in a folder are on the disk afterwards."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
