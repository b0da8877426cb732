"""Pre-rolls: what a camera sent in the seconds before its recording began.

MediaMTX records such a camera into memory all the time, in pieces of two seconds, and is never told otherwise. A look
each second puts the pieces that a recording needs on the disk, as segments like all others, and deletes those that
are too old. So a recording that begins reaches back to what is in memory: its first look takes it. What was not put on
the disk is lost with the power.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from edged.clock import Clock
from edged.config.cameras import PRE_ROLL_BYTES
from edged.library.active_recordings import ActiveRecording
from edged.library.pre_roll_files import Piece, Pieces, PreRollFiles
from edged.library.pre_roll_plan import Plan, plan
from edged.library.recording_files import Look, name_of
from edged.library.recording_index import NOTHING, RecordingIndex
from edged.store import recordings as rows
from edged.store.database import Database
from edged.store.recordings import RecordingRecord

#: Seconds for which a recording that has ended still gets its last pieces.
CLOSING_SECONDS: Final = 120.0
#: A file's name may say so much less than the file, which is exact.
_NAME_SECONDS: Final = 0.01
_log = structlog.get_logger("recordings")


class Claim(msgspec.Struct, frozen=True, eq=False):
    """An interval of a camera, Unix seconds, of which somebody waits for the pieces."""

    camera: str
    begin: float
    end: float

    def touches(self, piece: Piece) -> bool:
        return piece.camera == self.camera and piece.ended > self.begin and piece.began < self.end


class PreRolls:
    """The pieces in memory. `seconds` of pre-roll by camera; None for `files` where there are none at all."""

    def __init__(self, files: PreRollFiles | None, index: RecordingIndex, clock: Clock) -> None:
        self._files, self._index, self._clock = files, index, clock
        self._one = trio.Lock()
        #: Seconds of pre-roll of every camera that has one, and the cameras that are therefore held in memory.
        self.seconds: Mapping[str, float] = {}
        self.held: frozenset[str] = frozenset()
        #: Cameras whose file grows without a key frame to end it: their recorder is switched off until it is closed.
        self.halted: frozenset[str] = frozenset()
        self._ended: dict[str, tuple[RecordingRecord, float]] = {}
        self._claims: set[Claim] = set()
        self._pieces = Pieces()
        self._limit: int | None = None
        self._is_checked = False
        self._told: set[str] = set()

    async def load(self, trust: Database) -> None:
        """Learn which recordings the pieces of an earlier run belong to. Raises OSError, StoreFailed."""
        if self._files is None:
            return
        pieces = await trio.to_thread.run_sync(self._files.look)
        for camera in {piece.camera for piece in pieces.closed}:
            own = [piece for piece in pieces.closed if piece.camera == camera]
            began, ended = min(piece.began for piece in own), max(piece.ended for piece in own)
            for record in await trust.read(partial(rows.list_overlapping, camera=camera, begin=began, end_=ended)):
                self.note_end(record)

    def set_cameras(self, seconds: Mapping[str, float], held: Collection[str]) -> bool:
        """These cameras have a pre-roll, and those of `held` are recorded into memory; whether that is new."""
        if (seconds, frozenset(held)) == (self.seconds, self.held):
            return False
        self.seconds, self.held = dict(seconds), frozenset(held)
        return True

    def note_end(self, record: RecordingRecord) -> None:
        """A recording has ended; the piece that is being written is its last."""
        now = self._clock.monotonic()
        self._ended = {name: (one, until) for name, (one, until) in self._ended.items() if until > now}
        if record.ended is not None:
            self._ended[record.recording_id] = (record, now + CLOSING_SECONDS)

    def forget(self, recording_id: str) -> None:
        """A recording was deleted: it needs nothing more."""
        self._ended.pop(recording_id, None)

    async def reach_back(self, camera: str, now: float) -> float:
        """Where a recording that is asked for now begins, Unix seconds. Raises StoreFailed."""
        seconds = self.seconds.get(camera, 0.0)
        if not seconds:
            return now
        begin = now - seconds
        found = [piece.began for piece in self._pieces.closed if piece.camera == camera and piece.ended > begin]
        found += [began for file in self._pieces.writing if file.camera == camera if (began := name_of(file.path))]
        # What is on the disk belongs to another recording, too: of that only the seconds that were asked for.
        found += [max(row.began, begin) for row in await self._index.list_between(camera, begin, now)]
        found += [max(named, begin) for named in await self._index.list_begins(camera)]
        return min([now, *(at for at in found if at <= now)])

    async def is_waiting(self, record: RecordingRecord) -> bool:
        """Whether there is more of a recording in memory than was put on the disk."""
        if self._files is None or not self.holds(record.camera) or record.ended is None:
            return False
        begins = await trio.to_thread.run_sync(self._files.list_begins, record.camera)
        return any(record.began - _NAME_SECONDS <= began < record.ended for began in begins.values())

    def holds(self, camera: str) -> bool:
        """Whether what a camera sends is held in memory."""
        return self._files is not None and camera in self.held

    @contextmanager
    def claimed(self, claim: Claim) -> Iterator[None]:
        """While the block runs, each look puts on the disk what is in memory of an interval."""
        self._claims.add(claim)
        try:
            yield
        finally:
            self._claims.discard(claim)

    async def has_some(self, claim: Claim) -> bool:
        """Whether there is something of an interval in memory, also in a piece that is being written."""
        if self._files is None:
            return False
        others = {piece.path for piece in self._pieces.closed if not claim.touches(piece)}
        begins = await trio.to_thread.run_sync(self._files.list_begins, claim.camera)
        return any(began < claim.end for path, began in begins.items() if path not in others)

    async def look(self, active: Collection[ActiveRecording], *, can_keep: bool) -> Look:
        """One look at the pieces: what recordings got, and what is being written for them. Raises OSError."""
        if self._files is None:
            return NOTHING
        async with self._one:
            return await self._look(self._files, active, can_keep=can_keep)

    async def _look(self, files: PreRollFiles, active: Collection[ActiveRecording], *, can_keep: bool) -> Look:
        if self._limit is None:
            await trio.to_thread.run_sync(files.prepare)
            self._limit = await trio.to_thread.run_sync(files.limit, PRE_ROLL_BYTES)
        if self.held and not self._is_checked:
            self._is_checked = True
            if not await trio.to_thread.run_sync(files.is_in_memory):
                _log.warning(
                    "pre_roll_on_disk", folder=str(files.root), remedy="mount a tmpfs there: it is written all the time"
                )
        self._pieces = pieces = await trio.to_thread.run_sync(files.look)
        doing = plan(
            pieces.closed, partial(self._belongs, active, pieces), self._window(), now=self._clock.system,
            open_bytes=sum(file.size for file in pieces.writing), limit=self._limit, can_keep=can_keep,
        )  # fmt: skip
        self._judge(doing, pieces, self._limit)
        await trio.to_thread.run_sync(files.drop, (*doing.old, *doing.excess))
        closed = await trio.to_thread.run_sync(files.keep, doing.keep) if doing.keep else []
        recorded = {each.record.camera for each in active}
        return Look(tuple(file for file in pieces.writing if file.camera in recorded), tuple(closed))

    def _window(self) -> dict[str, float]:
        return {camera: self.seconds.get(camera, 0.0) for camera in self.held}

    def _belongs(self, active: Iterable[ActiveRecording], pieces: Pieces, piece: Piece) -> bool:
        """Whether a recording needs a piece: one that runs needs every new one, whatever the clock says of it."""
        running = [each.record for each in active if each.record.camera == piece.camera]
        if (running and piece.path in pieces.new) or any(claim.touches(piece) for claim in self._claims):
            return True
        ended = [record for record, _ in self._ended.values() if record.camera == piece.camera]
        return any(
            piece.ended > record.began and piece.began < (math.inf if record.ended is None else record.ended)
            for record in (*running, *ended)
        )

    def _judge(self, doing: Plan, pieces: Pieces, limit: int) -> None:
        """Tell of a camera that needs more memory than there is, once; halt one that writes without end."""
        largest = max(pieces.writing, key=lambda file: file.size, default=None)
        is_over = largest is not None and sum(file.size for file in pieces.writing) > limit
        open_cameras = {file.camera for file in pieces.writing}
        self.halted = (self.halted & open_cameras) | ({largest.camera} if largest and is_over else set())
        for camera in {piece.camera for piece in doing.excess} | self.halted:
            if camera not in self._told:
                self._told.add(camera)
                _log.warning(
                    "pre_roll_shortened", camera=camera, limit_bytes=limit,
                    remedy="lower pre_roll_seconds, or the camera's bit rate or distance of key frames",
                )  # fmt: skip
