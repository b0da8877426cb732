"""Recordings of cameras: started, stopped, listed, deleted.

A recording is an interval of a camera; its bytes are the segments that MediaMTX wrote meanwhile (recording_files). The
recorder of a camera's path is switched on when its recording begins and off after it has ended, and not touched in
between. A row in the trust database stands before anything is recorded, so a recording survives a restart of edged, of
MediaMTX and of the encoder: it goes on, with a gap that its segments show.

Intervals are by the system clock, as the names of files are: on a box without a clock chip both may be wrong, but not
differently. Where the clock is set while a recording runs, its interval holds every file that it gave.

While anything is recorded, and until the last file is closed, a look each second moves closed files to their places,
indexes them, and keeps the encoders awake.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Commit, Grant, Upkeep
from edged.clock import Clock
from edged.config.schedules import Window
from edged.errors import InvalidParams, InvalidState, StoreFailed
from edged.feeds import Feed
from edged.library import recording_changes as changes
from edged.library.active_recordings import (
    ALWAYS,
    ActiveRecording,
    ActiveRecordings,
    Recorders,
    RecordingChanged,
    Status,
    deadline_of,
    new_id,
)
from edged.library.disk_watch import DiskWatch
from edged.library.gaps import Gaps
from edged.library.joins import Joins
from edged.library.obstacles import Obstacle
from edged.library.pre_rolls import Claim, PreRolls
from edged.library.recorded_hours import RecordedHours
from edged.library.recording_changes import Deletion, Guard
from edged.library.recording_files import Look
from edged.library.recording_index import NOTHING, Measured, RecordingIndex, Summary
from edged.library.recording_names import complete_name, no_recording
from edged.library.retention_sweep import RetentionSweep
from edged.library.snapshots import check_name
from edged.library.tails import await_tail, fetch_pieces
from edged.store import recordings as rows
from edged.store.database import Database
from edged.store.recordings import Format, RecordingRecord

#: Seconds between two looks, and that `stop` waits for the last file to be closed.
LOOK_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 5.0
#: Longest recording that can be asked for, seconds.
LONGEST_SECONDS: Final = 7 * 86400
_log = structlog.get_logger("recordings")


class Recordings:
    """All recordings. `run` must be running for anything to be recorded."""

    def __init__(
        self, index: RecordingIndex, trust: Database, clock: Clock, recorders: Recorders, sweep: RetentionSweep,
        joins: Joins, pre_rolls: PreRolls | None = None,
    ) -> None:  # fmt: skip
        """`recorders` write what `index` finds; `sweep` keeps the disk from filling up; `joins` makes single files;
        `pre_rolls` has what was there before."""
        self.index, self._joins, self.sweep = index, joins, sweep
        self._pre_rolls = pre_rolls or PreRolls(None, index, clock)
        self._trust, self._clock, self._recorders = trust, clock, recorders
        self.changes: Feed[RecordingChanged] = Feed()
        self.gaps, self._upkeep, self._active, self._guard = Gaps(), Upkeep(trust), ActiveRecordings(), Guard()
        self._disk = DiskWatch(index, sweep, self._guard, self._hindered)
        self._hours = RecordedHours(self._active, clock, partial(self._begin, grant=self._upkeep), self._end_due)
        self._stirred, self._looked, self._looking = trio.Event(), trio.Event(), trio.Lock()
        self._switched_at = -math.inf
        self._nursery: trio.Nursery | None = None

    def load(self) -> None:
        """Take up the recordings that an earlier run left running: they go on."""
        for record in self._trust.read_now(rows.load_running):
            self._active.add(ActiveRecording(record, self._clock.monotonic(), deadline_of(record, self._clock)))
        self.sweep.policies.load()
        self._switch()

    def set_hours(self, plans: Mapping[str, tuple[Window, ...]]) -> None:
        """From here on these cameras are recorded in windows of local time, none for always, and no others."""
        if self._hours.set_plans(plans):
            self._switch()

    def set_pre_rolls(self, seconds: Mapping[str, float], held: Collection[str]) -> None:
        """From here on recordings of these cameras begin so much sooner; `held` are recorded into memory for that."""
        if self._pre_rolls.set_cameras(seconds, held):
            self._switch()

    @property
    def active(self) -> Mapping[str, ActiveRecording]:
        """The recordings that run, by camera: where two do, the one that was asked for."""
        return self._active.by_camera

    @property
    def silent(self) -> list[str]:
        """Cameras that are to be recorded and have given no byte for a minute, while the disk has space."""
        return [] if self.obstacle else self._active.list_silent(self._clock.monotonic())

    @property
    def obstacle(self) -> Obstacle | None:
        """Why nothing is recorded now."""
        return self._disk.obstacle

    async def start(
        self, camera: str, *, filename: str | None, form: Format, seconds: float | None, made_by: str, grant: Grant,
    ) -> RecordingRecord:  # fmt: skip
        """Begin a recording: durable when this returns. There are bytes as soon as the camera gives a picture.

        `seconds` is its length, None until it is stopped. Raises InvalidParams for an unsafe name, InvalidState if the
        camera is recorded already, StorageFull, StoreFailed, and what the grant raises.
        """
        if seconds is not None and not 0 < seconds <= LONGEST_SECONDS:
            raise InvalidParams(f"duration must be more than 0 and at most {LONGEST_SECONDS} seconds", field="duration")
        now = self._clock.system
        named = complete_name(filename, camera, form, now)
        self._active.refuse_second(camera)
        if (obstacle := self.obstacle) is not None:
            raise obstacle.error
        began = await self._pre_rolls.reach_back(camera, now)
        self._active.refuse_second(camera)
        record = RecordingRecord(
            recording_id=new_id(), filename=named, camera=camera, format=form, began=began, pre_roll=now - began,
            until=None if seconds is None else now + seconds, made_by=made_by,
        )  # fmt: skip
        return await self._begin(record, grant)

    async def _begin(self, record: RecordingRecord, grant: Grant) -> RecordingRecord:
        """Make it durable, then record. There is no checkpoint between telling of it and the return: whoever asked has
        the reply before the notification. Raises InvalidState, StoreFailed, and what the grant raises."""
        active = ActiveRecording(record, self._clock.monotonic(), deadline_of(record, self._clock), is_told=False)
        self._active.add(active)
        is_durable = False

        async def insert(commit: Commit) -> RecordingRecord:
            nonlocal is_durable
            made = active.record = await changes.insert(record, commit)
            is_durable = True
            _log.info("recording_started", camera=made.camera, recording=made.recording_id, by=made.made_by)
            self._switch()
            return made

        try:
            # What is durable must be known here, too: whoever asked may hang up, but not in between.
            with trio.CancelScope(shield=True):
                await self.index.prepare()
                record = await grant(insert)
        except OSError as problem:
            raise StoreFailed(f"nothing can be recorded: {problem.strerror}", hint="see recording.folder") from problem
        finally:
            if is_durable:
                self._enter(active, active.status)
            else:
                self._active.remove(active)
        return record

    async def cover(self, camera: str, seconds: float, *, made_by: str, grant: Grant) -> tuple[RecordingRecord, bool]:
        """Have a camera recorded for so many seconds from now: (by which recording, whether that is a new one).

        One that was asked for goes on, for longer if it would end sooner. Raises what `start` raises; InvalidState also
        for one that has not begun yet, or has just ended.
        """
        active, until = self._active.find_asked(camera), self._clock.system + seconds
        if active is None:
            begun = await self.start(camera, filename=None, form="fmp4", seconds=seconds, made_by=made_by, grant=grant)
            return begun, True
        if active.record.until is not None and active.record.until < until:
            await changes.prolong(active, until, self._clock, grant)
        return active.record, False

    async def stop(self, camera: str, grant: Grant) -> Measured:
        """End the recording of a camera, and wait until its last file is closed, at most `CLOSE_SECONDS`.

        Raises InvalidState if it is not being recorded, StoreFailed, and what the grant raises.
        """
        active = self._active.find_asked(camera)
        if active is None:
            hint = "its settings record it always" if self._active.find_hour(camera) else "start_recording begins it"
            raise InvalidState(f"nobody has asked for a recording of {camera}", hint=hint)
        record = await self._end(active, self._clock.system, "stopped", grant)
        try:
            return await self._finish(record)
        except trio.Cancelled:
            # Whoever stopped it has left; others are told.
            self._finish_later(record)
            raise

    async def find(self, name: str) -> RecordingRecord:
        """By file name, with or without its ending, or by id. Raises NotFound, InvalidParams for an unsafe name."""
        record = await self._trust.read(partial(rows.find, name=check_name(name)))
        if record is None:
            raise no_recording(name)
        return record

    async def list_cameras(self) -> list[str]:
        """The cameras that have a recording, also those that are gone."""
        return await self._trust.read(rows.list_cameras)

    async def list_between(self, camera: str, begin: float, end: float) -> list[RecordingRecord]:
        """The recordings of a camera that share some time with [begin, end), Unix seconds, oldest first."""
        return await self._trust.read(partial(rows.list_overlapping, camera=camera, begin=begin, end_=end))

    async def list_page(
        self, cameras: Collection[str], *, limit: int, offset: int, after: tuple[float, str] | None = None
    ) -> tuple[list[Summary], int]:
        """(recordings of these cameras, newest first; how many there are in all). `after` as store.recordings."""
        page = partial(rows.list_page, cameras=cameras, limit=limit, offset=offset, after=after)
        found, total = await self._trust.read(page)
        now = self._clock.system
        return [self._active.with_open(item, now) for item in await self.index.summarize(found, now)], total

    async def summarize(self, record: RecordingRecord) -> Summary:
        """What there is of a recording now, without its files."""
        now = self._clock.system
        return self._active.with_open((await self.index.summarize([record], now))[0], now)

    async def measure(self, record: RecordingRecord) -> Measured:
        """What there is of a recording now."""
        now = self._clock.system
        return self._active.with_open((await self.index.measure([record], now))[0], now)

    async def find_file(self, record: RecordingRecord) -> Path:
        """A recording as one file. Raises what `Joins.find` and `await_tail` raise, StoreFailed without the medium."""
        self.index.require_medium()
        goes_on = record.camera in self.active or self._pre_rolls.holds(record.camera)
        await await_tail(
            record, self.index, self._pre_rolls, goes_on=goes_on, clock=self._clock, wait_look=self._wait_look
        )
        return await self._joins.find(await self.measure(record))

    async def fetch_held(self, claim: Claim) -> bool:
        """Have on the disk what is in memory of an interval; whether it is, as `fetch_pieces`."""
        is_whole = await fetch_pieces(claim, self._pre_rolls, clock=self._clock, wait_look=self._wait_look)
        await self._settle()
        return is_whole

    async def delete(self, record: RecordingRecord, reason: str, grant: Grant) -> int:
        """Delete a recording that has ended, and the files that no other recording needs. Returns bytes.

        Raises InvalidState while it runs or is protected, StoreFailed, and what the grant raises.
        """
        if record.is_running:
            raise InvalidState(f"{record.filename} is being recorded", hint="stop_recording first")
        self.index.require_medium()
        await self._settle()
        measured = await self.measure(record)
        deletion = Deletion(record, self._clock.system, reason)
        try:
            await grant(deletion.commit)
        finally:
            # Also if whoever asked was revoked after the commit.
            size = 0
            if deletion.is_done:
                self._pre_rolls.forget(record.recording_id)
                size = await changes.remove_useless(self._trust, self.index, measured, reason)
        return size

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up what is on the disk, then look each second while anything is recorded; runs until cancelled."""
        task_status.started()
        await self._disk.take_up()
        await self._guard("gaps", partial(self.gaps.load, self.index, self.active))
        await self._guard("pre-roll", partial(self._pre_rolls.load, self._trust))
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._disk.run)
            while True:
                self._stirred = trio.Event()
                async with self._looking:
                    is_writing = await self._look()
                is_busy = is_writing or self.active or self._hours.plans or self._pre_rolls.held
                with trio.move_on_after(LOOK_SECONDS if is_busy or self.index.medium.is_removable else math.inf):
                    await self._stirred.wait()

    def _hindered(self, obstacle: Obstacle | None) -> None:
        """Something hinders recording now, or (None) nothing any more."""
        self._switch()
        for active in self._active:
            self._enter(active, "ERROR" if obstacle else "STARTING", obstacle.message if obstacle else "")

    async def _look(self) -> bool:
        """One look at the files; whether any is written, or may be yet: the last one may begin when it is to end."""
        await self._disk.look_for_medium()
        look = await self._disk.look(await self._look_back())
        for active, status in self._active.note(look, self._clock.monotonic()):
            if self.obstacle is None:
                self._enter(active, status)
        self.gaps.note(look, self.active, self._pre_rolls.held, now=self._clock.monotonic())
        for camera in self.active:
            self._recorders.wake(camera)
        now = self._clock.system
        for active in self._active:
            if self._clock.monotonic() >= active.deadline or (active.record.reason == ALWAYS and not active.holds(now)):
                await self._guard(f"end {active.record.camera}", partial(self._end_due, active, now))
        if self.index.medium.is_there:
            await self._guard("hours", self._hours.keep)
        self._looked.set()
        self._looked = trio.Event()
        return bool(look.writing) or trio.current_time() - self._switched_at < CLOSE_SECONDS

    async def _look_back(self) -> Look:
        """What there is in memory."""
        halted = self._pre_rolls.halted
        look = partial(self._pre_rolls.look, list(self._active), can_keep=self.obstacle is None)
        held = await self._guard.get("pre-roll", look, NOTHING)
        if self._pre_rolls.halted != halted:
            self._switch()
        return held

    async def close(self) -> None:
        """Put on the disk what recordings have in memory. Call it when nothing writes any more."""
        await self._disk.look(await self._look_back())

    async def _end_due(self, active: ActiveRecording, at: float) -> None:
        record = await self._end(active, at, "duration", self._upkeep)
        self._hours.note_end(record, at)
        # This task is the one that sees the last file closed.
        self._finish_later(record)

    def _finish_later(self, record: RecordingRecord) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._guard, f"finish {record.camera}", partial(self._finish, record))

    async def _finish(self, record: RecordingRecord) -> Measured:
        """Wait until the last file is closed, then tell. There is no checkpoint between that and the return: whoever
        stopped it has the reply before the notification."""
        with trio.move_on_after(CLOSE_SECONDS):
            while (
                await self.index.has_open(record.camera) and record.camera not in self._recorded
            ) or await self._pre_rolls.is_waiting(record):
                await self._wait_look()
            await self._settle()
        measured = await self.measure(record)
        self.changes.publish(RecordingChanged(record, "STOPPED", "", measured.duration, measured.size))
        return measured

    def _enter(self, active: ActiveRecording, status: Status, problem: str = "") -> None:
        active.status, active.is_told = status, True
        self.changes.publish(RecordingChanged(active.record, status, problem))

    async def _end(self, active: ActiveRecording, at: float, reason: str, grant: Grant) -> RecordingRecord:
        """It has ended: durable when this returns. Raises what the grant raises; it then goes on."""
        began = min(active.record.began, active.first, at)
        record = replace(active.record, began=began, ended=max(active.last, at))

        async def end(commit: Commit) -> None:
            await changes.end(record, active.record, commit)
            if self._active.has(active):
                self._active.remove(active)
                self._pre_rolls.note_end(record)
                self._switch()
                _log.info("recording_stopped", camera=record.camera, recording=record.recording_id, reason=reason)

        with trio.CancelScope(shield=True):
            await grant(end)
        return record

    async def _wait_look(self) -> None:
        """Until the files were looked at once more, at the latest in the time of the next look."""
        await trio.sleep(LOOK_SECONDS / 4)
        self._stirred.set()
        await self._looked.wait()

    async def _settle(self) -> None:
        """Until no look is under way: a file that one has put at its place is in the index then."""
        async with self._looking:
            pass

    @property
    def _recorded(self) -> frozenset[str]:
        """Cameras that are to be recorded now."""
        held = self._pre_rolls.held - self._pre_rolls.halted
        return held if self.obstacle else held.union(self.active, self._hours.cameras)

    def _switch(self) -> None:
        """Have the recorders record what is to be recorded."""
        self._recorders.set_recorded(self._recorded)
        self._switched_at = trio.current_time()
        for camera in self.active:
            self._recorders.wake(camera)
        self._stirred.set()
