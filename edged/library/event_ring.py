"""The ring of events: what happened to cameras, recordings, pictures and the box, in order, also before a restart.

Events are in memory at once and on disk about a second later, all that came meanwhile in one transaction. Where more
than `DAY_BYTES` a day would be written, the pauses grow, and of the events that do not fit into the memory of a pause
only the number is kept: whoever reads on is told of a gap. Events may be lost, and do not wear out an SD card: a power
cut costs those of the last seconds, and again a reader is told.

A reader has a position, the number of the last event it was shown and the run of the daemon that this is of. It is told
of a gap where events behind its position are not to be had any more: the ring has gone on without it, the database was
begun anew, or a run did not end in order.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged import __version__
from edged.clock import Clock
from edged.errors import EdgedError
from edged.feeds import Feed
from edged.repeats import Lasting
from edged.store import events as rows
from edged.store.database import Database
from edged.store.events import LOST, EventRow, Run, Wanted

#: Events that are kept, and how many are deleted at a time.
RING_ROWS: Final = 20_000
TRIM_ROWS: Final = 1_000
#: Seconds from the first event to the transaction that saves it, and between two.
FLUSH_SECONDS: Final = 1.0
#: Between two tries to save what could not be saved.
RETRY_SECONDS: Final = 60.0
#: What may be written in any day, and at once after a start.
DAY_BYTES: Final = 1_000_000
START_BYTES: Final = 100_000
#: Events, and bytes of them, that wait in memory at most; and bytes of the details of one.
MOST_WAITING: Final = 500
MOST_WAITING_BYTES: Final = 100_000
MOST_DETAILS: Final = 2_600
#: What a transaction writes to the log beside its events, and for each of their bytes; measured.
_COMMIT_BYTES: Final = 5_000
_SHARE: Final = 1.3
_ROW_BYTES: Final = 40
_MOST_FOUND: Final = 100
_log = structlog.get_logger("events")


class WriteBudget:
    """How much may be written: half of `day_bytes` at once, and the other half over a day; so no day has more.

    All times are seconds of one clock.
    """

    def __init__(self, day_bytes: float, left: float, now: float) -> None:
        """`left` may be written at once."""
        self._most = day_bytes / 2
        self._rate = self._most / 86_400
        self._left, self._at = min(left, self._most), now

    def pause(self, size: float, now: float) -> float:
        """Seconds until so many bytes may be written; 0 for now. What is larger than half a day's waits for that."""
        self._fill(now)
        return max(0.0, (min(size, self._most) - self._left) / self._rate)

    def spend(self, size: float, now: float) -> None:
        """So many bytes were written."""
        self._fill(now)
        self._left -= size

    def _fill(self, now: float) -> None:
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now


class Position(msgspec.Struct, frozen=True):
    """Where a reader is: it has seen the event of this number of the run of this name, and all before."""

    run: str
    number: int


class Page(msgspec.Struct, frozen=True):
    """Events in order; where the reader is then; whether some behind its last position are not to be had; whether there
    are more."""

    events: tuple[EventRow, ...]
    position: Position
    has_gap: bool
    has_more: bool


class EventRing:
    """The events of the box. `run` must be running for them to reach the disk."""

    def __init__(self, usage: Database, clock: Clock) -> None:
        self._usage, self._clock = usage, clock
        #: Every event, as it happens.
        self.added: Feed[EventRow] = Feed()
        self._run = Run(secrets.token_hex(8), 1, is_whole=False)
        self._last = 0
        self._waiting: deque[EventRow] = deque()
        self._waiting_bytes = 0
        #: Events that were not kept since the last transaction.
        self._lost = 0
        #: How many rows the disk holds at most, None until that was looked up.
        self._kept: int | None = None
        self._cameras: set[str] | None = None
        self._is_ending = False
        self._lasting = Lasting()
        self._stirred = trio.Event()
        self._budget = WriteBudget(DAY_BYTES, START_BYTES, clock.monotonic())

    def load(self) -> None:
        """Go on behind the events of earlier runs. Raises StoreFailed."""
        self._last = self._usage.read_now(rows.load_end)
        self._run = replace(self._run, first=self._last + 1)

    def put(self, kind: str, camera: str = "", details: Mapping[str, object] | None = None) -> float:
        """Something has happened now: kept for readers, and published. Never waits; the time, Unix seconds.

        `camera` is its name, "" for the box. Details beyond `MOST_DETAILS` bytes are left out.
        """
        text = msgspec.json.encode(details or {})
        if len(text) > MOST_DETAILS:
            text = b"{}"
        row = EventRow(self._last + 1, self._clock.system, kind, camera, text.decode())
        if self._cameras is not None:
            self._cameras.add(camera)
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES:
            self._lost += 1
        else:
            self._append(row)
        self.added.publish(row)
        return row.at

    async def list_cameras(self) -> frozenset[str]:
        """The cameras that have, or had, an event; "" among them if the box has. Raises StoreFailed."""
        if self._cameras is None:
            found = await self._usage.read(rows.list_cameras)
            self._cameras = found | {row.camera for row in self._waiting}
        return frozenset(self._cameras)

    async def read(self, after: Position | None, wanted: Wanted, limit: int) -> Page:
        """The first `limit` wanted events behind a position; without a position the newest. Raises StoreFailed.

        Whoever reads on from the page's position is shown each event that is kept once.
        """
        # What is saved meanwhile is in both, with the same number.
        waiting, last = tuple(self._waiting), self._last
        if after is None:
            found = await self._usage.read(partial(rows.list_newest, wanted=wanted, limit=limit))
            events = _merge(found, [row for row in waiting if wanted.has(row)], last)
            return Page(tuple(events[max(0, len(events) - limit) :]), Position(self._run.name, last), False, False)
        read = partial(
            rows.read_on, run=after.run, number=after.number, wanted=wanted, limit=limit, current=self._run, last=last
        )
        disk = await self._usage.read(read)
        events = disk.rows
        if not disk.is_cut:
            events = _merge(events, [row for row in waiting if row.number > disk.start and wanted.has(row)], last)
        has_more = disk.is_cut or len(events) > limit
        events = events[:limit]
        end = events[-1].number if has_more else last
        has_gap = disk.has_gap or any(row.kind == LOST and disk.start < row.number <= end for row in waiting)
        run = next((each.name for each in reversed(disk.runs) if each.first <= end), self._run.name)
        return Page(tuple(events), Position(run, end), has_gap, has_more)

    async def list_between(
        self, wanted: Wanted, begin: tuple[float, int], end: float, limit: int
    ) -> list[EventRow]:  # fmt: skip
        """The first that are wanted, by their times, and at the same one by their numbers: behind `begin` (Unix
        seconds, number), before `end`. Raises StoreFailed."""
        waiting = [row for row in self._waiting if begin < (row.at, row.number) and row.at < end and wanted.has(row)]
        found = await self._usage.read(partial(rows.list_between, wanted=wanted, begin=begin, end=end, limit=limit))
        return sorted(_merge(found, waiting, self._last), key=lambda row: (row.at, row.number))[:limit]

    async def find(self, camera: str, text: str) -> list[EventRow]:
        """The events of a camera that have a text in their details, oldest first, some hundred at most. Raises
        StoreFailed."""
        waiting = [row for row in self._waiting if row.camera == camera and text in row.details]
        read = partial(rows.list_containing, camera=camera, text=text, limit=_MOST_FOUND)
        return _merge(await self._usage.read(read), waiting, self._last)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Save what happens; until cancelled, and then what is left."""
        self.put("system.startup", details={"version": __version__})
        task_status.started()
        try:
            while True:
                await self._stirred.wait()
                # What comes within this time is one transaction with the first.
                await trio.sleep(FLUSH_SECONDS)
                await trio.sleep(self._budget.pause(self._size(), self._clock.monotonic()))
                if not await self._save():
                    await trio.sleep(RETRY_SECONDS)
        finally:
            self.end()
            with trio.CancelScope(shield=True):
                self._run = replace(self._run, is_whole=True)
                await self._save()

    def end(self) -> None:
        """edged begins to stop: an event, the first time that this is called."""
        if not self._is_ending:
            self._is_ending = True
            self.put("system.shutdown")

    async def _save(self) -> bool:
        """One transaction; whether it was committed. What could not be saved waits on."""
        if self._lost and len(self._waiting) < MOST_WAITING * 2:
            self._append(EventRow(self._last + 1, self._clock.system, LOST, "", f'{{"count":{self._lost}}}'))
            self._lost = 0
        saving = tuple(self._waiting)
        size = self._size()
        self._stirred = trio.Event()
        try:
            if self._kept is None:
                begin = await self._usage.read(rows.load_begin)
                self._kept = 0 if begin is None else self._run.first - begin
            kept = self._kept + len(saving)
            before = self._last - RING_ROWS if kept > RING_ROWS + TRIM_ROWS else None
            await self._usage.write(partial(_write, run=self._run, saving=saving, before=before))
        except EdgedError as problem:
            self._stirred.set()
            if self._lasting.begins("save", str(problem)):
                _log.warning("events_not_saved", events=len(saving), problem=problem.sentence, remedy=problem.hint)
            return False
        if self._lasting.ends("save"):
            _log.info("events_saved_again", events=len(saving))
        self._kept = kept if before is None else RING_ROWS
        self._budget.spend(size, self._clock.monotonic())
        for _ in saving:
            self._waiting_bytes -= _measure(self._waiting.popleft())
        if self._waiting or self._lost:
            self._stirred.set()
        return True

    def _append(self, row: EventRow) -> None:
        self._last = row.number
        self._waiting.append(row)
        self._waiting_bytes += _measure(row)
        self._stirred.set()

    def _size(self) -> float:
        """Bytes that saving what waits writes, about."""
        return _COMMIT_BYTES + _SHARE * self._waiting_bytes


def _write(connection: sqlite3.Connection, run: Run, saving: Sequence[EventRow], before: int | None) -> None:
    rows.save(connection, run, saving)
    if before is not None:
        rows.trim(connection, before)


def _merge(saved: Iterable[EventRow], waiting: Iterable[EventRow], last: int) -> list[EventRow]:
    """In order, each once, up to this number."""
    known = {row.number: row for row in (*saved, *waiting) if row.number <= last}
    return [known[number] for number in sorted(known)]


def _measure(row: EventRow) -> int:
    """Bytes that it takes on disk, about."""
    return _ROW_BYTES + len(row.details)
