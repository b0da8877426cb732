"""A recording as one file: its only segment, or its segments joined once and kept.

The segments are read here, their times moved so that each begins where the one before ends, and given to ffmpeg through
its standard input; ffmpeg copies them, without encoding, into an mp4 whose index is at the front, or an mkv. No word of
a caller reaches its arguments, and it may open nothing but its input.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog
import trio

from edged.children import Child, Spawn
from edged.clock import iso, iso_exact
from edged.errors import DependencyFailed, EdgedError, InvalidState, StorageFull, StoreFailed
from edged.library.active_recordings import CLIP
from edged.library.fmp4 import NotASegment, Part, Segment, Track, read_codecs, read_segment, shift_part
from edged.library.joined_files import index_bytes, is_whole
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import Measured
from edged.sharing import Shared
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

#: Seconds that one join may take, and bytes of ffmpeg's complaints that are kept.
LONGEST_SECONDS: Final = 600.0
_LONGEST_COMPLAINT: Final = 2000
#: So many wait for the one join that runs; those who want the same file share it.
MOST_WAITING: Final = 16
#: Bytes that a joined file may have beside twice those of its segments.
_LEAST_ALLOWED: Final = 16 * 1024 * 1024
#: ffmpeg's name of each format.
_MUXERS: Final = {"fmp4": "mp4", "mp4": "mp4", "mkv": "matroska"}
#: Seconds that a recorder may need to be switched off: so much longer a segment is not cut.
_SLACK: Final = 1.0
#: Seconds by which times that are equal may differ.
_ROUNDING: Final = 0.001
#: What ffmpeg says of a full disk; it speaks English, whatever the locale.
_NO_SPACE: Final = os.strerror(errno.ENOSPC).encode()
#: What it says where the space that was kept for the index is too small.
_TOO_LONG: Final = b"reserved_moov_size is too small"
_log = structlog.get_logger("recordings")


class _IndexTooLong(Exception):
    """The index of an mp4 does not fit in front of it."""


class Seal(Protocol):
    """As `Sealing.seal_derived`."""

    async def __call__(
        self, path: Path, segments: Sequence[SegmentRow], *, name: str, began: float, ended: float | None
    ) -> bool: ...


class _Piece(msgspec.Struct, frozen=True):
    """What of a segment belongs to a recording: from `begin` to `end`, seconds from the segment's begin."""

    row: SegmentRow
    begin: float
    end: float


class Joins:
    """Joined files, one being made at a time; whoever wants the same one meanwhile waits for that."""

    def __init__(
        self, files: RecordingFiles, spawn: Spawn, find_ffmpeg: Callable[[], str], keep_free: Callable[[int], int],
        seal: Seal | None = None,
    ) -> None:  # fmt: skip
        """Nothing is joined where less than `keep_free(bytes of the disk)` would stay free: retention would delete
        recordings for it. `seal` puts a seal beside what was joined (`Sealing.seal_derived`)."""
        self._files, self._spawn, self._find_ffmpeg = files, spawn, find_ffmpeg
        self._keep_free = keep_free
        self._seal = seal
        self._shared: Shared[None] = Shared("recordings as one file", at_once=1, waiting=MOST_WAITING)

    async def find(self, measured: Measured) -> Path:
        """The file of a recording that has ended; made now if it must be.

        Raises InvalidState while it runs, if its parts cannot be one file, or if they have just been deleted;
        StorageFull; Overloaded where too many wait; DependencyFailed; StoreFailed.
        """
        record = measured.record
        if record.is_running:
            raise InvalidState(f"{record.filename} is being recorded", hint="stop_recording first")
        if not measured.files:
            raise InvalidState(f"{record.filename} has no bytes", hint="its camera gave no picture meanwhile")
        try:
            if len(measured.files) == 1 and record.format == "fmp4" and self._is_whole(measured.files[0], record):
                path = self._files.find(measured.files[0].file)
                await trio.to_thread.run_sync(path.stat)
                return path
            is_open = any(map(self._files.is_open, measured.files))
            find = partial(self._files.joined_path, record.recording_id, Path(record.filename).suffix)
            target = find(is_open=is_open)
            if not await trio.to_thread.run_sync(_touch, target):
                await self._shared.share(target, partial(self._make_once, measured, target, can_seal=not is_open))
                if not is_open:
                    await trio.to_thread.run_sync(partial(find(is_open=True).unlink, missing_ok=True))
            return target
        except FileNotFoundError as problem:
            raise InvalidState(f"{record.filename} has just been deleted, at least in part") from problem
        except OSError as problem:
            raise StoreFailed(f"the recording could not be read or joined: {problem.strerror}") from problem

    async def _make_once(self, measured: Measured, target: Path, *, can_seal: bool) -> None:
        """`_make`, unless another one has made it between the look for it and this one's turn."""
        if not await trio.to_thread.run_sync(_touch, target):
            await self._make(measured, target, can_seal=can_seal)

    async def _make(self, measured: Measured, target: Path, *, can_seal: bool) -> None:
        """`can_seal`: all of its segments are closed. Raises OSError, besides what `find` raises."""
        free, total = await trio.to_thread.run_sync(self._files.free)
        if free - measured.size < self._keep_free(total):
            raise _full()
        part = target.with_name(f".{target.name}.part")
        await trio.to_thread.run_sync(partial(target.parent.mkdir, mode=0o750, parents=True, exist_ok=True))
        try:
            await self._convert(measured, part)
            await trio.to_thread.run_sync(part.rename, target)
            if self._seal is not None and can_seal:
                record = measured.record
                await self._seal(target, measured.files, name=record.filename, began=record.began, ended=record.ended)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(part.unlink, missing_ok=True))

    def _cut(self, row: SegmentRow, record: RecordingRecord) -> _Piece:
        end = math.inf if record.ended is None or self._is_whole(row, record) else end_in(row, record.ended)
        return _Piece(row, max(0.0, record.began - row.began), end)

    def _is_whole(self, row: SegmentRow, record: RecordingRecord) -> bool:
        """Whether a segment belongs to a recording from its begin to its end, which is not the end of one that is being
        written."""
        return _is_inside(row, record) and not self._files.is_open(row)

    async def _convert(self, measured: Measured, part: Path) -> None:
        pieces = [self._cut(row, measured.record) for row in measured.files]
        muxer = _MUXERS[measured.record.format]
        if muxer != "mp4":
            await self._copy(measured, pieces, part, muxer, [])
            return
        # To move the index to the front afterwards reads and writes the whole file once more. How long it gets is about
        # known; if it is longer, it is moved.
        space = await self._find_index_bytes(pieces)
        try:
            await self._copy(measured, pieces, part, muxer, ["-moov_size", str(space)])
        except _IndexTooLong:
            _log.info("joined_again", recording=measured.record.recording_id, reserved=space)
            await self._copy(measured, pieces, part, muxer, ["-movflags", "+faststart"])

    async def _find_index_bytes(self, pieces: Sequence[_Piece]) -> int:
        """About how long the index of an mp4 of these is at most. Raises InvalidState, OSError."""
        seconds = sum(max(0.0, min(piece.end, piece.row.duration) - piece.begin) for piece in pieces)

        def look(piece: _Piece) -> int:
            with self._files.read(piece.row) as file:
                segment = read_segment(file)
                parts = choose_parts(segment.parts, piece.begin, piece.end)
                # It begins with the key frame before.
                return index_bytes(file, parts, seconds + float(segment.duration)) if parts else 0

        try:
            for piece in pieces:
                if found := await trio.to_thread.run_sync(look, piece):
                    return found
        except NotASegment as problem:
            raise InvalidState(f"a file of the recording is damaged: {problem}") from problem
        return 0

    async def _copy(
        self, measured: Measured, pieces: Sequence[_Piece], part: Path, muxer: str, options: Sequence[str]
    ) -> None:
        """Raises _IndexTooLong, besides what `find` raises."""
        # What is copied does not grow by more than its index.
        most = 2 * measured.size + _LEAST_ALLOWED
        arguments = [
            self._find_ffmpeg(), "-nostdin", "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "pipe",
            "-f", "mp4", "-i", "pipe:0", "-map", "0", "-c", "copy", "-avoid_negative_ts", "make_zero", *options,
            "-fs", str(most), "-f", muxer, "-y",
            f"file:{part}",
        ]  # fmt: skip
        reading, writing = os.pipe()
        async with trio.lowlevel.FdStream(writing) as pipe:
            try:
                child = self._spawn(arguments, stdin=reading, stdout=False)
            finally:
                os.close(reading)
            complaint = bytearray()
            failure: Exception | None = None
            code = 0
            # Nothing in here outlives a cancellation, also where ffmpeg hangs and reads no more: leaving ends it.
            with trio.move_on_after(LONGEST_SECONDS) as limit:
                async with child, trio.open_nursery() as nursery:
                    nursery.start_soon(_listen, child, complaint)
                    try:
                        # Where it ends before its input does, its exit code says so.
                        with suppress(trio.BrokenResourceError):
                            await self._feed(pieces, pipe)
                        await pipe.aclose()
                        code = await child.wait()
                    except (EdgedError, OSError) as problem:
                        failure = problem
                        nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if limit.cancelled_caught:
            raise DependencyFailed(f"ffmpeg took longer than {LONGEST_SECONDS:g} s to join the recording")
        if code == 0 and (await trio.to_thread.run_sync(part.stat)).st_size >= most:
            raise DependencyFailed("ffmpeg made a file of twice the recording's size, which was not kept")
        # ffmpeg 5 ends with 0, too, where it could not write its last bytes.
        if code != 0 or not await trio.to_thread.run_sync(is_whole, part):
            if _TOO_LONG in complaint:
                raise _IndexTooLong
            said = complaint.decode(errors="replace").strip().splitlines()
            _log.warning("join_failed", recording=measured.record.recording_id, code=code, said=said[-1:])
            if _NO_SPACE in complaint:
                raise _full()
            raise DependencyFailed("ffmpeg could not join the recording", hint="see edged's log")

    async def _feed(self, pieces: Sequence[_Piece], pipe: trio.abc.SendStream) -> None:
        """One fragmented MP4 of several segments. Raises InvalidState, OSError of a segment, BrokenResourceError.

        A piece begins with the part that holds the last key frame before its begin: ffmpeg leaves out what comes before
        a key frame.
        """
        codecs: bytes | None = None
        position, number = Fraction(0), 0
        for piece in pieces:
            try:
                segment, header = await trio.to_thread.run_sync(open_segment, self._files, piece.row)
                if not (parts := choose_parts(segment.parts, piece.begin, piece.end)):
                    continue
                if codecs is None:
                    codecs = read_codecs(header)
                    await pipe.send_all(header)
                elif codecs != read_codecs(header):
                    raise changed_format(piece.row)
                for part in parts:
                    by = position - parts[0].begin
                    await pipe.send_all(
                        await trio.to_thread.run_sync(
                            read_part, self._files, piece.row, part, segment.tracks, by, number
                        )
                    )
                    number += 1
            except NotASegment as problem:
                raise InvalidState(f"a file of the recording is damaged: {problem}") from problem
            position += parts[-1].end - parts[0].begin


def _full() -> StorageFull:
    return StorageFull("the disk has no space for the joined file", hint="delete recordings, or add space")


def _touch(target: Path) -> bool:
    """Whether the file is there and whole, which a power cut right after it was made may undo; it counts as used now.
    Its time of change stays: whoever fetches it in parts goes by that."""
    with suppress(FileNotFoundError):
        if is_whole(target):
            os.utime(target, ns=(time.time_ns(), target.stat().st_mtime_ns))
            return True
    return False


async def _listen(child: Child, complaint: bytearray) -> None:
    assert child.stderr is not None, "asked for above"
    while data := await child.stderr.receive_some(4096):
        complaint += data[: _LONGEST_COMPLAINT - len(complaint)]


def _is_inside(row: SegmentRow, record: RecordingRecord) -> bool:
    """Whether a whole segment belongs to a recording, as far as the recorder can be switched exactly."""
    slack = _ROUNDING if record.reason == CLIP else _SLACK
    return row.began >= record.began - 0.1 and (record.ended is None or row.ended <= record.ended + slack)


def changed_format(row: SegmentRow) -> InvalidState:
    """What begins with this segment cannot be one file with what lies before it."""
    before, behind = (iso_exact((int(row.began * 1000) + more) / 1000) for more in (0, 1))
    return InvalidState(
        f"the camera's picture changed its format at {iso(row.began)}: before and after cannot be one file",
        hint=f"create_clip makes a file of each: one with end {before}, another with start {behind}",
        changed_at=iso(row.began),
    )


def open_segment(files: RecordingFiles, row: SegmentRow) -> tuple[Segment, bytes]:
    """What a segment holds, and the bytes of its header. Raises NotASegment, OSError."""
    with files.read(row) as file:
        segment = read_segment(file)
        file.seek(0)
        return segment, file.read(segment.header_size)


def read_part(
    files: RecordingFiles, row: SegmentRow, part: Part, tracks: tuple[Track, ...], by: Fraction, number: int
) -> bytes:
    """One part, its times moved. Raises NotASegment, OSError."""
    with files.read(row) as file:
        file.seek(part.offset)
        return shift_part(file.read(part.size), tracks, by, number)


def end_in(row: SegmentRow, ended: float) -> float:
    """The end of an interval, Unix seconds, as seconds from the begin of a segment. A part that begins there is not
    needed, however the times were rounded."""
    return ended - row.began - _ROUNDING


def choose_parts(parts: Sequence[Part], begin: float, end: float) -> Sequence[Part]:
    """The parts from the last key frame at or before `begin` until `end`, seconds from the segment's begin."""
    first = 0
    for index, part in enumerate(parts):
        if any(key <= begin for key in part.keys):
            first = index
    return [part for part in parts[first:] if part.begin < end]
