"""The index of recorded files beside the files themselves: what a look finds is noted, what is deleted is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from edged.errors import EdgedError, StoreFailed
from edged.library.index_comparison import Comparison
from edged.library.medium import Medium
from edged.library.obstacles import ABSENT
from edged.library.recording_files import Look, RecordingFiles, name_of
from edged.library.removed_files import RemovedFiles
from edged.library.sealing import Sealing
from edged.library.spans import GAP_SECONDS, Interval, merge
from edged.repeats import Lasting
from edged.store import segments
from edged.store.database import Database
from edged.store.recordings import RecordingRecord
from edged.store.segments import LaidOut, SegmentRow

#: Rows of one transaction, and of one page of the index.
BATCH: Final = 500
_PAGE: Final = 2000
#: Recordings that are measured at once: between, others read the index.
_MEASURED: Final = 200
#: A file that is being written is closed so many seconds after its begin, at the latest.
_OPEN_SECONDS: Final = 180.0
#: Rows that wait in memory for a database that takes them: three days of one camera.
_MOST_UNSAVED: Final = 5000
#: A look that found nothing.
NOTHING: Final = Look((), ())
_log = structlog.get_logger("recordings")
T = TypeVar("T")


class Measured(msgspec.Struct, frozen=True):
    """What there is of a recording: bytes, seconds and files; `gaps` (begin, end) Unix seconds between its files."""

    record: RecordingRecord
    size: int
    duration: float
    files: tuple[SegmentRow, ...]
    gaps: tuple[tuple[float, float], ...] = ()

    @property
    def summary(self) -> Summary:
        """The same without its files."""
        last = self.files[-1].ended if self.files else 0.0
        return Summary(self.record, self.size, self.duration, len(self.files), len(self.gaps), last)


class Summary(msgspec.Struct, frozen=True):
    """`Measured` without its files: how many there are, how many `gaps` are between them, and when the last ends (Unix
    seconds, 0.0 for none)."""

    record: RecordingRecord
    size: int
    duration: float
    files: int
    gaps: int
    last: float


class Recorded(msgspec.Struct):
    """Bytes and seconds of the files of a camera that were closed since the start."""

    size: int = 0
    seconds: float = 0.0


class RecordingIndex:
    """What is on the disk, one use of the disk at a time."""

    def __init__(
        self,
        files: RecordingFiles,
        usage: Database,
        count_removal: Callable[[str, int], None] = lambda _why, _size: None,
        sealing: Sealing | None = None,
        medium: Medium | None = None,
    ) -> None:
        """`count_removal(reason, bytes)` is told of each deleted file; `sealing` of each that is closed or to go;
        `medium`: None for a disk that stays where it is."""
        self.files = files
        self.medium = medium or Medium(files.root, is_removable=False)
        self._usage = usage
        self._count_removal = count_removal
        self.sealing = sealing
        self._disk = trio.CapacityLimiter(1)
        self._lasting = Lasting()
        self._unsaved: list[SegmentRow] = []  # of closed files, which the database did not take yet
        #: By camera, for metrics; and when the oldest file began at the last look for it, Unix seconds, 0.0 for none.
        self.recorded: dict[str, Recorded] = {}
        self.removed = RemovedFiles()
        self.oldest = 0.0
        #: Held while it is decided which files a deletion takes, and while a clip is made over files that are there.
        self.choosing = trio.Lock()
        #: Held while closed files are moved and indexed: each is in open/ or in the index.
        self._moving = trio.Lock()

    def require_medium(self) -> None:
        """Raises StoreFailed while it is not there."""
        if not self.medium.is_there:
            raise ABSENT.error

    async def look_for_medium(self) -> None:
        """Look whether the medium is there."""
        await trio.to_thread.run_sync(self.medium.look, limiter=self._disk)

    async def _use(self, work: Callable[[], T]) -> T:
        """Do something in a thread that changes the folder or believes it: never in the empty mount point of a medium.
        Raises OSError, also where the medium is not there any more."""
        return await trio.to_thread.run_sync(partial(self.medium.use, work), limiter=self._disk)

    async def _change(self, work: Callable[[], T]) -> T:
        """`_use` that raises StoreFailed."""
        try:
            return await self._use(work)
        except OSError as problem:
            message = f"the folder of recordings could not be changed: {problem.strerror}"
            raise StoreFailed(message, hint="see recording.folder") from problem

    async def prepare(self) -> None:
        """Make the folder. Raises OSError, also where nothing can be written into it."""
        await self._use(self.files.prepare)

    async def look(self, held: Look = NOTHING) -> Look:
        """Put closed files at their places and into the index. Raises OSError.

        `held` is what there is of the same kind in memory; it is in the index and in the answer, too. A row that could
        not be saved now is saved with those of a later look.
        """
        async with self._moving:
            look = await self._use(self.files.look)
            look = Look((*look.writing, *held.writing), (*look.closed, *held.closed))
            for row in look.closed:
                counted = self.recorded.setdefault(row.camera, Recorded())
                counted.size, counted.seconds = counted.size + row.size, counted.seconds + row.duration
            if self.sealing is not None:
                self.sealing.note(look.closed, {file.camera for file in look.writing})
            await self._insert(look.closed)
        return look

    async def find_oldest(self) -> None:
        """Look when the oldest file began. Raises StoreFailed."""
        self.oldest = await self._usage.read(lambda connection: segments.first_begin(connection) or 0.0)

    async def sync(self, look: Look) -> None:
        """What is being written is on the disk afterwards."""
        await trio.to_thread.run_sync(self.files.sync, look.writing, limiter=self._disk)

    async def has_open(self, camera: str) -> bool:
        """Whether a file of this camera is being written, or waits for the next look."""
        return bool(await trio.to_thread.run_sync(self.files.list_writing, camera, limiter=self._disk))

    async def free(self) -> tuple[int, int]:
        """(free, total) bytes. Raises StoreFailed."""
        try:
            return await trio.to_thread.run_sync(self.files.free, limiter=self._disk)
        except OSError as problem:
            raise StoreFailed(f"the disk for recordings cannot be read: {problem.strerror}") from problem

    async def sums(self) -> dict[str, tuple[int, int]]:
        """Camera → (files, bytes)."""
        return await self._usage.read(segments.sums)

    async def list_between(self, camera: str, begin: float, end: float) -> list[SegmentRow]:
        """The files of a camera that share some time with [begin, end), Unix seconds."""
        return await self._usage.read(partial(segments.list_between, camera=camera, begin=begin, end=end))

    async def list_spans(self, camera: str, begin: float, end: float, most: int) -> tuple[list[Interval], float]:
        """(when a camera is recorded in [begin, end), in order; up to when this is told): of so many files at most."""
        return await self._usage.read(partial(_list_spans, camera=camera, begin=begin, end=end, most=most))

    async def list_layouts(self, camera: str, begin: float, end: float, most: int) -> list[LaidOut]:
        """The first so many files of a camera in [begin, end), Unix seconds, oldest first."""
        layouts = partial(segments.list_layouts, camera=camera, begin=begin, end=end, limit=most)
        return await self._usage.read(layouts)

    async def save_layouts(self, layouts: Mapping[str, bytes]) -> None:
        """File → how it is laid out, of files that were indexed before that was kept. Raises StoreFailed."""
        await self._usage.write(partial(segments.save_layouts, layouts=layouts))

    async def list_begins(self, camera: str) -> list[float]:
        """When the files of a camera begin that are being written, by their names, Unix seconds."""
        paths = await trio.to_thread.run_sync(self.files.list_writing, camera, limiter=self._disk)
        return [began for path in paths if (began := name_of(path)) is not None]

    async def find(self, file: str) -> SegmentRow | None:
        """A segment by its path below the folder of recordings."""
        return await self._usage.read(partial(segments.find, file=file))

    async def last_ends(self, cameras: Sequence[str]) -> dict[str, float]:
        """Camera → where its newest file ends, Unix seconds; of those that have one."""
        return await self._usage.read(
            lambda connection: {
                camera: end for camera in cameras if (end := segments.last_end(connection, camera)) is not None
            }
        )

    async def choose(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the index. Raises StoreFailed."""
        return await self._usage.read(query)

    async def measure(self, records: Sequence[RecordingRecord], now: float) -> list[Measured]:
        """What there is of each recording; `now` Unix seconds, the end of one that runs."""
        found = await self._usage.read(lambda connection: [_measure(connection, record, now) for record in records])
        short = {item.record.camera for item in found if _lacks_its_end(item)}
        if not short:
            return found
        # Files that are still being written hold the end of a recording where the camera is recorded on.
        async with self._moving:
            being_written = {camera: await self._describe_open(camera) for camera in short}
            return await self._usage.read(
                lambda connection: [
                    _measure(connection, item.record, now, being_written[item.record.camera])
                    if _lacks_its_end(item)
                    else item
                    for item in found
                ]
            )

    async def list_with_open(self, camera: str, begin: float, end: float) -> list[SegmentRow]:
        """The files of a camera that share some time with [begin, end), Unix seconds, also the one that is being
        written, up to its last whole part; oldest first."""
        async with self._moving:
            being_written = await self._describe_open(camera)
            closed = await self._usage.read(partial(segments.list_between, camera=camera, begin=begin, end=end))
        return [*closed, *(row for row in being_written if row.began < end and row.ended > begin)]

    async def find_before(self, camera: str, at: float) -> SegmentRow | None:
        """The last file of a camera that began at a time or before, Unix seconds; also one that is being written."""
        async with self._moving:
            being_written = await self._describe_open(camera)
            closed = await self._usage.read(partial(segments.find_before, camera=camera, at=at))
        found = [row for row in (closed, *being_written) if row is not None and row.began <= at]
        return max(found, key=lambda row: row.began, default=None)

    async def _describe_open(self, camera: str) -> list[SegmentRow]:
        return await trio.to_thread.run_sync(self.files.describe_open, camera, limiter=self._disk)

    async def summarize(self, records: Sequence[RecordingRecord], now: float) -> list[Summary]:
        """`measure` without reading the files one by one, but for those that have ended just now."""
        found: list[Summary] = []
        for begin in range(0, len(records), _MEASURED):
            part = records[begin : begin + _MEASURED]
            found += await self._usage.read(partial(_summarize, records=part, now=now))
        short = [
            item.record for item in found if _lacks_its_end(item) and now - (item.record.ended or now) < _OPEN_SECONDS
        ]
        if not short:
            return found
        exact = {item.record.recording_id: item.summary for item in await self.measure(short, now)}
        return [exact.get(item.record.recording_id, item) for item in found]

    async def remove(self, going: Sequence[SegmentRow], reasons: Mapping[str, str]) -> frozenset[str]:
        """Delete files and their rows; `reasons` by file. Those that are gone now. Raises StoreFailed."""
        if not going:
            return frozenset()
        await self._change(lambda: None)
        if self.sealing is not None:
            await self.sealing.bury(going, reasons)
        played = await self._find_played(going)
        gone = frozenset(await self._change(partial(self.files.remove, tuple(row.file for row in going))))
        for camera, laid_out in played.items():
            self.removed.note(camera, laid_out, gone)
        # What is gone with the medium was not deleted.
        await self._change(lambda: None)
        if gone:
            await self._usage.write(partial(segments.remove, files=gone))
            if self.sealing is not None:
                await self.sealing.forget(gone)
        for row in going:
            if row.file in gone:
                self._count_removal(reasons[row.file], row.size)
        return gone

    async def _find_played(self, going: Sequence[SegmentRow]) -> dict[str, list[LaidOut]]:
        """Camera → those of these files that a list which grows may name."""
        by_camera = {
            camera: [row.file for row in going if row.camera == camera] for camera in self.removed.list_watched()
        }
        find = {camera: partial(segments.find_layouts, files=files) for camera, files in by_camera.items() if files}
        return {camera: await self._usage.read(query) for camera, query in find.items()}

    async def remove_lone_seals(self, before: Mapping[str, str]) -> None:
        """Delete the seals of vanished segments that come before a file of the same camera. Raises StoreFailed."""
        for camera, file in before.items():
            gone = await self._change(partial(self.files.remove_lone_seals, camera, file))
            if gone and self.sealing is not None:
                await self.sealing.forget(gone)

    async def forget_joined(self, recording_id: str) -> None:
        """Delete the joined files of a recording. Raises StoreFailed."""
        await self._change(partial(self.files.remove_joined, recording_id))

    async def remove_old_joined(self, before: float) -> None:
        """Delete joined files that nobody has fetched since a time, Unix seconds. Raises StoreFailed."""
        await self._change(partial(self.files.remove_old_joined, before))

    async def reconcile(self) -> None:
        """Make the index what the disk holds: unknown files are added, rows without a file removed.

        Both are in the order of names, and compared page by page. Raises StoreFailed, OSError.
        """
        comparison = Comparison(self.files, most=BATCH)
        added = missing = 0
        after: str | None = ""
        while after is not None:
            page = await self._usage.read(partial(segments.list_files, after=after, limit=_PAGE))
            after = page[-1] if len(page) == _PAGE else None
            is_whole = False
            while not is_whole:
                compare = partial(comparison.compare, page, after)
                new, gone, is_whole = await self._use(compare)
                # A medium that was pulled out meanwhile has its files still.
                await self._use(lambda: None)
                await self._insert(new)
                if gone:
                    await self._usage.write(partial(segments.remove, files=gone))
                added, missing = added + len(new), missing + len(gone)
        if added or missing:
            _log.info("recordings_reconciled", added=added, missing=missing)
        lone, first, last = await trio.to_thread.run_sync(self.files.count_lone_seals, limiter=self._disk)
        if lone:
            _log.warning(
                "recordings_vanished", files=lone, first=first, last=last,
                remedy="edged did not delete them; edged recording verify FOLDER names each one",
            )  # fmt: skip
        if self.sealing is not None:
            self.sealing.begin()

    async def _insert(self, closed: Sequence[SegmentRow]) -> None:
        rows, self._unsaved = [*self._unsaved, *closed], []
        if not rows:
            return
        try:
            await self._usage.write(partial(segments.insert, rows=rows))
        except EdgedError as problem:
            # What is more than that is found again by `reconcile`.
            self._unsaved = [*rows, *self._unsaved][-_MOST_UNSAVED:]
            if self._lasting.begins("insert", str(problem)):
                _log.warning(
                    "recordings_not_indexed", file=rows[0].file, problem=str(problem),
                    remedy="free space: they are in no list until usage.db takes them",
                )  # fmt: skip
        else:
            if self._lasting.ends("insert"):
                _log.info("recordings_indexed_again")


def _measure(
    connection: sqlite3.Connection, record: RecordingRecord, now: float, being_written: Sequence[SegmentRow] = ()
) -> Measured:
    """From the index and what is being written; files that lie partly outside of the recording count with the seconds
    that lie inside."""
    end = record.ended if record.ended is not None else now
    files = segments.list_between(connection, record.camera, record.began, max(end, record.began))
    files += [row for row in being_written if row.began < end and row.ended > record.began]
    seconds = sum(max(0.0, min(row.ended, end) - max(row.began, record.began)) for row in files)
    gaps = tuple(
        (before.ended, after.began) for before, after in pairwise(files) if after.began - before.ended > GAP_SECONDS
    )
    return Measured(record, sum(row.size for row in files), seconds, tuple(files), gaps)


def _list_spans(
    connection: sqlite3.Connection, camera: str, begin: float, end: float, most: int
) -> tuple[list[Interval], float]:
    files = segments.list_spans(connection, camera, begin, end, most + 1)
    is_cut = len(files) > most and files[-1][0] > begin
    return list(merge(files)), files[-1][0] if is_cut else end


def _summarize(connection: sqlite3.Connection, records: Sequence[RecordingRecord], now: float) -> list[Summary]:
    found: dict[str, Summary] = {}
    for camera in {record.camera for record in records}:
        mine = [record for record in records if record.camera == camera]
        spans = [(each.began, max(each.began, now if each.ended is None else each.ended)) for each in mine]
        for record, sums in zip(mine, segments.sum_each(connection, camera, spans, GAP_SECONDS), strict=True):
            found[record.recording_id] = Summary(record, sums.size, sums.duration, sums.files, sums.gaps, sums.last)
    return [found[record.recording_id] for record in records]


def _lacks_its_end(item: Measured | Summary) -> bool:
    """Whether a recording that has ended has no file at its end."""
    last = (item.summary if isinstance(item, Measured) else item).last
    return item.record.ended is not None and item.record.ended - max(last, item.record.began) > GAP_SECONDS
