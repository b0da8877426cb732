"""library/recordings.py without MediaMTX: files appear as it writes them, and the system clock is set meanwhile."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from fmp4_helpers import make_segment
from grant_helpers import refuse_all
from patience import fail_after
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from edged.access.grants import Commit, Grant, Upkeep
from edged.clock import Clock
from edged.config.schedules import read_windows
from edged.errors import InvalidParams, InvalidState, Refused, StorageFull, StoreFailed
from edged.library import active_recordings
from edged.library import recordings as module
from edged.library.active_recordings import ActiveRecording, RecordingChanged
from edged.library.gaps import Gap, Gaps
from edged.library.joins import Joins
from edged.library.obstacles import FULL
from edged.library.recording_files import Look, OpenFile, RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.recordings import Recordings
from edged.library.retention import Policy
from edged.library.retention_policies import RetentionPolicies
from edged.library.retention_sweep import RetentionSweep
from edged.store import segments
from edged.store.database import Database
from edged.store.migrations import TRUST, USAGE
from edged.store.recordings import RecordingRecord
from edged.store.retention import RetentionSetting
from edged.store.segments import SegmentRow

NOW = 1_796_000_000.0
T = TypeVar("T")


@dataclass
class Box:
    """Recorders that write what a test says, and a system clock that it sets."""

    root: Path
    recordings: Recordings = field(init=False)
    grant: Grant = field(init=False)
    recorded: set[str] = field(default_factory=set)
    now: float = NOW
    is_synchronized: bool = False
    switched: list[frozenset[str]] = field(default_factory=list)

    def set_recorded(self, cameras: Collection[str]) -> None:
        if self.recorded != set(cameras):
            self.switched.append(frozenset(cameras))
        self.recorded = set(cameras)

    def wake(self, camera: str) -> None:
        """An encoder that is always awake."""

    async def write(self, camera: str = "camera0") -> None:
        """A segment of 0.66 s that is closed, named by the system clock of now; until it is kept."""
        path = self.root / "open" / camera / "x" / f"{int(self.now)}-000000.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_segment(at_ns=int(self.now) * 10**9))
        while path.exists():
            self.recordings._stirred.set()
            await trio.sleep(0.01)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Box]:
    with fail_after(30):
        async with (
            Database.open(folder / "trust.db", TRUST, name="trust") as trust,
            Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage,
            trio.open_nursery() as nursery,
        ):
            box = Box(folder / "recordings")
            clock = Clock(system=lambda: box.now, synchronized=lambda: box.is_synchronized)
            files = RecordingFiles(box.root)
            index = RecordingIndex(files, usage, lambda _reason, _size: None)
            policies = RetentionPolicies(trust, Policy())
            sweep = RetentionSweep(index, trust, clock, policies, stop_bytes=0)

            def spawn(*_: object, **__: object) -> None:
                raise AssertionError("nothing is joined here")

            joins = Joins(files, spawn, lambda: "ffmpeg", lambda _total: 0)  # type: ignore[arg-type]
            box.grant = Upkeep(trust)
            box.recordings = Recordings(index, trust, clock, box, sweep, joins)
            box.recordings.load()
            await nursery.start(box.recordings.run)
            yield box
            nursery.cancel_scope.cancel()


async def start(box: Box, **params: object) -> str:
    given = {
        "filename": "yard", "form": "fmp4", "seconds": None, "made_by": "a test", "grant": box.grant, **params,
    }  # fmt: skip
    return (await box.recordings.start("camera0", **given)).filename  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0.0, 7200.0, -7200.0])
async def test_every_file_of_a_recording_is_its_own_also_when_the_clock_is_set_meanwhile(
    tmp_path: Path, step: float
) -> None:
    async with opened(tmp_path) as box:
        await start(box)
        for seconds in (1, 2, step, 3, 4):
            box.now += seconds
            if seconds != step:
                await box.write()
        box.now += 1
        measured = await box.recordings.stop("camera0", box.grant)
        assert len(measured.files) == 4
        assert measured.duration == pytest.approx(4 * 10 * 6000 / 90000)
        assert not box.recorded


async def test_whoever_began_or_ended_a_recording_has_the_reply_before_the_others_are_told(tmp_path: Path) -> None:
    """Also where another task commits it, as the registrar's does."""

    async def grant_elsewhere(work: Callable[[Commit], Awaitable[T]]) -> T:
        values, is_done = [], trio.Event()

        async def do() -> None:
            values.append(await box.grant(work))
            is_done.set()

        nursery.start_soon(do)
        await is_done.wait()
        return values[0]

    heard: list[str] = []

    async def hear(*, task_status: trio.TaskStatus[None]) -> None:
        with box.recordings.changes.subscribe() as reader:
            task_status.started()
            async for change in reader:
                assert isinstance(change, RecordingChanged)
                heard.append(change.status)

    async with opened(tmp_path) as box, trio.open_nursery() as nursery:
        await nursery.start(hear)
        # The order in which trio resumes two tasks is a matter of chance.
        for number in range(16):
            await start(box, filename=f"yard{number}", grant=grant_elsewhere)
            assert heard == []
            await wait_all_tasks_blocked(0.01)
            assert heard == ["STARTING"]
            await box.recordings.stop("camera0", grant_elsewhere)
            assert heard == ["STARTING"]
            await wait_all_tasks_blocked(0.01)
            assert heard == ["STARTING", "STOPPED"]
            heard.clear()
        nursery.cancel_scope.cancel()


async def test_a_file_that_the_index_did_not_take_is_in_the_lists_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = segments.insert

    def refuse(connection: sqlite3.Connection, rows: Sequence[SegmentRow]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with opened(tmp_path) as box:
        await start(box)
        monkeypatch.setattr(segments, "insert", refuse)
        for seconds in (1, 2):
            box.now = NOW + seconds
            await box.write()
        assert (await box.recordings.measure(await box.recordings.find("yard"))).files == ()
        monkeypatch.setattr(segments, "insert", insert)
        box.now = NOW + 3
        await box.write()
        box.now += 1
        assert len((await box.recordings.stop("camera0", box.grant)).files) == 3


async def test_what_a_look_is_putting_into_the_index_counts_when_a_recording_is_stopped_and_goes_when_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow: a file is at its place for a while before the index has it."""
    is_slow, insert = threading.Event(), segments.insert

    def insert_slowly(connection: sqlite3.Connection, rows: Sequence[SegmentRow]) -> None:
        is_slow.set()
        time.sleep(0.7)
        insert(connection, rows)

    async with opened(tmp_path) as box:
        await start(box)
        monkeypatch.setattr(segments, "insert", insert_slowly)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.write)
            while not is_slow.is_set():
                await trio.sleep(0.01)
            box.now += 1
            measured = await box.recordings.stop("camera0", box.grant)
        assert len(measured.files) == 1
        await start(box, filename="second")
        is_slow.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.write)
            while not is_slow.is_set():
                await trio.sleep(0.01)
            box.now += 1
            with trio.move_on_after(0):
                await box.recordings.stop("camera0", box.grant)
            for name in ("yard", "second"):
                await box.recordings.delete(await box.recordings.find(name), "request", box.grant)
        assert list(box.root.rglob("*.mp4")) == []


async def test_a_length_is_counted_whatever_the_clock_does(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await start(box, seconds=0.3)
        box.now += 86400
        await trio.sleep(0.1)
        assert box.recorded == {"camera0"}
        while box.recorded:
            box.recordings._stirred.set()
            await trio.sleep(0.01)


async def test_a_file_that_begins_while_its_recording_ends_is_kept_though_nobody_asks(tmp_path: Path) -> None:
    """MediaMTX closes the file before, and begins another one before it hears of the end. It is moved before the
    deadline."""
    async with opened(tmp_path) as box:
        await start(box)
        await box.write()
        box.now += 1
        await box.recordings.stop("camera0", box.grant)
        # The look that follows the end sees nothing.
        await box.recordings._looked.wait()
        path = box.root / "open" / "camera0" / "x" / f"{int(box.now)}-000000.mp4"
        path.write_bytes(make_segment(at_ns=int(box.now) * 10**9))
        while path.exists():
            await trio.sleep(0.05)


async def test_a_recording_that_ran_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await start(box)
        await box.write()
    async with opened(tmp_path) as box:
        assert box.recorded == {"camera0"}
        box.now += 10
        await box.write()
        box.now += 2
        assert len((await box.recordings.stop("camera0", box.grant)).files) == 2


async def test_a_name_that_is_taken_gets_a_number_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        names = []
        for _ in range(3):
            names.append(await start(box, filename="yard.mp4"))
            await box.recordings.stop("camera0", box.grant)
        assert names == ["yard.mp4", "yard-1.mp4", "yard-2.mp4"]
        bad_names = ("../x", "a/b", ".x", "x.mkv", "a" * 101)
        for bad in bad_names:
            with pytest.raises(InvalidParams):
                await start(box, filename=bad)
        assert not box.recorded
        # Told first, also where nothing could be begun now.
        await start(box)
        for bad in bad_names:
            with pytest.raises(InvalidParams):
                await start(box, filename=bad)


async def test_one_recording_of_a_camera_runs_at_a_time_and_none_on_a_full_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await start(box)
        with pytest.raises(InvalidState, match="is being recorded already"):
            await start(box)
        await box.recordings.stop("camera0", box.grant)
        with pytest.raises(InvalidState, match="nobody has asked"):
            await box.recordings.stop("camera0", box.grant)
        box.recordings.sweep.obstacle = FULL
        with pytest.raises(StorageFull):
            await start(box)


async def test_whoever_hangs_up_has_started_a_recording_or_not(tmp_path: Path) -> None:
    """Cancelled at the first checkpoint: what is durable is known, and can be stopped."""
    async with opened(tmp_path) as box:
        with trio.CancelScope() as scope:
            scope.cancel()
            await start(box)
        assert (box.recorded == {"camera0"}) == ("camera0" in box.recordings.active)
        if box.recorded:
            await box.recordings.stop("camera0", box.grant)
    async with opened(tmp_path) as box:
        assert not box.recorded


async def test_a_camera_that_is_always_recorded_begins_a_recording_each_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    async with opened(tmp_path) as box:
        box.recordings.set_hours({"camera0": ()})
        while "camera0" not in box.recordings.active:
            await trio.sleep(0.01)
        first = box.recordings.active["camera0"].record
        assert first.until == NOW - NOW % 3600 + 3600
        box.now = first.until + 1
        while box.recordings.active.get("camera0") is None or box.recordings.active["camera0"].record == first:
            await trio.sleep(0.01)
            assert box.recorded == {"camera0"}
        second = box.recordings.active["camera0"].record
        assert second.began == pytest.approx(first.until, abs=2)
        box.recordings.set_hours({})
        while box.recorded or box.recordings.active:
            await trio.sleep(0.01)


def at(box: Box, clock: str) -> float:
    """The next time that a wall clock shows this, as the box has it; UTC in these tests."""
    hours, minutes = map(int, clock.split(":"))
    midnight = box.now - box.now % 86400
    found = midnight + hours * 3600 + minutes * 60
    return found if found > box.now else found + 86400


async def test_a_schedule_is_an_hour_each_and_the_recorder_is_switched_on_and_off_once_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("TZ", "UTC")
    async with opened(tmp_path) as box:
        box.is_synchronized = True
        box.recordings._clock.look()
        box.now = at(box, "07:00")
        box.recordings._clock.look()
        box.recordings.set_hours({"camera0": read_windows(["08:30-10:15", "10:30-11:00"])})
        await trio.sleep(0.1)
        assert not box.recorded
        for clock in ("08:31", "09:00", "10:00", "10:16", "10:31", "10:59", "11:00"):
            box.now = at(box, clock) + 1
            await trio.sleep(0.15)
        assert box.switched == [frozenset({"camera0"}), frozenset()] * 2
        found, _ = await box.recordings.list_page(["camera0"], limit=9, offset=0)
        times = [(item.record.began % 86400 // 60, (item.record.ended or 0) % 86400 // 60) for item in found][::-1]
        assert times == [(511, 540), (540, 600), (600, 616), (631, 660)]


async def test_while_the_clock_is_not_trusted_a_schedule_is_recorded_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that is missing cannot be made up for; once the clock is trusted the schedule holds."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("TZ", "UTC")
    async with opened(tmp_path) as box:
        box.now = at(box, "07:00")
        box.recordings.set_hours({"camera0": read_windows(["08:30-10:15"])})
        while "camera0" not in box.recordings.active:
            await trio.sleep(0.01)
        assert box.recorded == {"camera0"}
        box.is_synchronized = True
        box.recordings._clock.look()
        while box.recorded or box.recordings.active:
            await trio.sleep(0.01)


async def cover(box: Box, seconds: float) -> tuple[RecordingRecord, bool]:
    return await box.recordings.cover("camera0", seconds, made_by="a test", grant=box.grant)


async def test_an_event_prolongs_the_recording_that_runs_and_shortens_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        first, is_new = await cover(box, 30)
        assert (is_new, first.until) == (True, box.now + 30)
        box.now += 20
        for seconds, until in ((30, NOW + 50), (5, NOW + 50)):
            record, is_new = await cover(box, seconds)
            assert (record.recording_id, is_new, record.until) == (first.recording_id, False, until)
    async with opened(tmp_path) as box:
        assert box.recordings.active["camera0"].record.until == NOW + 50
        await box.recordings.stop("camera0", box.grant)
        endless = await start(box)
        record, is_new = await cover(box, 30)
        assert (record.filename, is_new, record.until) == (endless, False, None)
        await box.recordings.stop("camera0", box.grant)
        second = await cover(box, 0.2)
        box.now += 1
        while box.recorded:
            box.recordings._stirred.set()
            await trio.sleep(0.01)
        assert second[1]


async def test_whoever_lost_the_right_prolongs_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        first, _ = await cover(box, 30)
        with pytest.raises(Refused):
            await box.recordings.cover("camera0", 60, made_by="a test", grant=refuse_all)
        assert box.recordings.active["camera0"].record.until == first.until


async def test_whoever_lost_the_right_meanwhile_changes_nothing(tmp_path: Path) -> None:
    """Asked again right before anything is written."""

    async with opened(tmp_path) as box:
        with pytest.raises(Refused):
            await start(box, grant=refuse_all)
        assert not box.recorded
        await start(box)
        await box.write()
        box.now += 1
        with pytest.raises(Refused):
            await box.recordings.stop("camera0", refuse_all)
        assert box.recorded == {"camera0"}
        measured = await box.recordings.stop("camera0", box.grant)
        with pytest.raises(Refused):
            await box.recordings.delete(measured.record, "request", refuse_all)
        policies = box.recordings.sweep.policies
        with pytest.raises(Refused):
            await policies.set_policy("", RetentionSetting("age", enabled=True, max_age_days=1.0), refuse_all)
        assert policies.policy == Policy()
        assert (await box.recordings.measure(measured.record)).files == measured.files
        found, total = await box.recordings.list_page(["camera0"], limit=9, offset=0)
        assert ([item.record.filename for item in found], total) == (["yard.mp4"], 1)
        assert await box.recordings.delete(measured.record, "request", box.grant) == measured.size


async def test_others_hear_of_the_end_although_whoever_stopped_it_has_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        with box.recordings.changes.subscribe() as changes:
            await start(box)
            file = tmp_path / "recordings/open/camera0/x/1-000000.mp4"
            file.parent.mkdir(parents=True)
            with file.open("wb") as writer:
                writer.write(make_segment(at_ns=int(box.now) * 10**9))
                writer.flush()
                with trio.move_on_after(0.2):
                    await box.recordings.stop("camera0", box.grant)
                assert not box.recorded
            heard = [await changes.receive()]
            while heard[-1].status != "STOPPED":  # type: ignore[union-attr]
                heard.append(await changes.receive())
            assert heard[-1].record.filename == "yard.mp4"  # type: ignore[union-attr]


async def test_a_recording_that_gives_no_bytes_any_more_is_starting_again_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active_recordings, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    async with opened(tmp_path) as box:
        await start(box)
        await box.write()
        active = box.recordings.active["camera0"]
        while box.recordings.active["camera0"].status != "RECORDING":
            await trio.sleep(0.01)
        assert box.recordings.silent == []
        while active.status != "STARTING" or box.recordings.silent != ["camera0"]:
            await trio.sleep(0.01)
        box.now += 1
        await box.write()
        while box.recordings.active["camera0"].status != "RECORDING":
            await trio.sleep(0.01)
        assert box.recordings.silent == []


async def test_a_gap_is_told_once_with_both_ends_also_over_a_restart_and_an_overlap_as_a_drift(tmp_path: Path) -> None:
    length = 10 * 6000 / 90000
    async with opened(tmp_path) as box:
        with box.recordings.gaps.changes.subscribe() as gaps:
            await start(box)
            box.now += 1
            await box.write()
            box.now += 30
            await box.write()
            gap = await gaps.receive()
            assert isinstance(gap, Gap)
            assert (gap.event, gap.record.filename) == ("recording.gap", "yard.mp4")
            assert gap.begin == pytest.approx(NOW + 1 + length)
            assert gap.end == NOW + 31
            recorded = box.recordings.index.recorded["camera0"]
            kept = [path for path in box.root.rglob("*.mp4") if path.parent.parent.name == "camera0"]
            assert recorded.size == sum(path.stat().st_size for path in kept)
            assert recorded.seconds == pytest.approx(2 * length)
            await box.recordings.index.find_oldest()
            assert box.recordings.index.oldest == NOW + 1
    async with opened(tmp_path) as box:
        with box.recordings.gaps.changes.subscribe() as gaps:
            # What is closed at the start is behind the index.
            await box.recordings._looked.wait()
            box.now = NOW + 100
            await box.write()
            gap = await gaps.receive()
            assert isinstance(gap, Gap)
            assert gap.begin == pytest.approx(NOW + 31 + length)
            assert gap.end == NOW + 100
            box.now -= 20
            await box.write()
            gap = await gaps.receive()
            assert isinstance(gap, Gap)
            assert (gap.event, gap.end) == ("recording.drift", NOW + 80)
            await box.recordings.stop("camera0", box.grant)
            box.now += 50
            await start(box)
            box.now += 1
            await box.write()
            with trio.move_on_after(0.1):
                raise AssertionError(await gaps.receive())
            # Files that overlap are no gap.
            assert box.recordings.gaps.counts == {"camera0": 1}


def test_a_file_that_is_being_written_tells_the_gap_before_it_is_closed() -> None:
    record = RecordingRecord(recording_id="rec_1", filename="yard.mp4", camera="camera0", format="fmp4", began=NOW)
    active, gaps = {"camera0": ActiveRecording(record, 0.0)}, Gaps()
    found: list[Gap] = []
    gaps.changes.publish = found.append  # type: ignore[method-assign, assignment]
    first = SegmentRow("a", "camera0", NOW, 60.0, 1)
    second = OpenFile("camera0", Path(f"{int(NOW) + 70}-500000.mp4"), 1)
    for look in (Look((), (first,)), Look((second,), ()), Look((second,), ())):
        gaps.note(look, active, (), now=0.0)
    gaps.note(Look((), (SegmentRow("b", "camera0", NOW + 70.5, 60.0, 1),)), active, (), now=60.0)
    gaps.note(Look((OpenFile("camera0", Path(f"{int(NOW) + 130}-500000.mp4"), 1),), ()), active, (), now=61.0)
    assert [(gap.event, gap.begin, gap.end) for gap in found] == [("recording.gap", NOW + 60, NOW + 70.5)]


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize(
    ("silent", "jump", "event"),
    [
        (0.0, 8.0, "recording.drift"), (0.0, 86400.0, "recording.drift"), (20.0, 86400.0, "recording.drift"),
        (8.0, 8.0, "recording.gap"), (90.0, 90.0, "recording.gap"), (1.0, 2.0, "recording.gap"),
    ],
)  # fmt: skip
def test_a_clock_that_was_set_forward_is_no_gap(is_held: bool, silent: float, jump: float, event: str) -> None:
    """`silent` seconds without a byte, and the next file by its name `jump` seconds behind the end of the first."""
    record = RecordingRecord(recording_id="rec_1", filename="yard.mp4", camera="camera0", format="fmp4", began=NOW)
    active, gaps = {"camera0": ActiveRecording(record, 0.0)}, Gaps()
    held = ["camera0"] if is_held else []
    found: list[Gap] = []
    gaps.changes.publish = found.append  # type: ignore[method-assign, assignment]
    first, begin = Path(f"{int(NOW)}-000000.mp4"), NOW + 10 + jump
    second = Path(f"{int(begin)}-000000.mp4")
    for second_of in range(1, 11):
        gaps.note(Look((OpenFile("camera0", first, 1000 * second_of),), ()), active, held, now=100.0 + second_of)
    now = 110.0 + silent
    closed = SegmentRow("a", "camera0", NOW, 10.0, 10_000)
    gaps.note(Look((OpenFile("camera0", second, 0),), (closed,)), active, held, now=now)
    gaps.note(Look((OpenFile("camera0", second, 1000),), ()), active, held, now=now + 1)
    gaps.note(Look((), (SegmentRow("b", "camera0", begin, 2.0, 2000),)), active, held, now=now + 3)
    assert [(gap.event, gap.begin, gap.end) for gap in found] == [(event, NOW + 10, begin)]


async def test_a_database_that_refuses_is_told_once_and_once_when_it_takes_the_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that is always recorded asks for its hour at each look."""
    async with opened(tmp_path) as box:
        tries = 0

        async def refuse(*_: object, **__: object) -> RecordingRecord:
            nonlocal tries
            tries += 1
            await trio.lowlevel.checkpoint()
            raise StoreFailed("the disk is full", hint="free some")

        with capture_logs() as told, monkeypatch.context() as patch:
            patch.setattr("edged.library.recording_changes.insert", refuse)
            box.recordings.set_hours({"camera0": ()})
            while tries < 4:
                box.recordings._stirred.set()
                await trio.sleep(0.01)
            assert [(line["event"], line["doing"]) for line in told] == [("recordings_not_saved", "hours")]
        with capture_logs() as told:
            while not box.recordings.active:
                box.recordings._stirred.set()
                await trio.sleep(0.01)
            await box.recordings._wait_look()
            assert [line["event"] for line in told] == ["recording_started", "recordings_again"]


async def test_a_protected_recording_is_not_deleted_and_one_that_runs_can_be_protected(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await start(box)
        running = await box.recordings.find("yard")
        await box.recordings.sweep.protect(running, True, box.grant)
        await box.write()
        box.now += 1
        record = (await box.recordings.stop("camera0", box.grant)).record
        assert (await box.recordings.find("yard")).is_protected
        with pytest.raises(InvalidState, match=r"yard.mp4 is protected"):
            await box.recordings.delete(record, "request", box.grant)
        assert (await box.recordings.measure(record)).files
        await box.recordings.sweep.protect(record, False, box.grant)
        assert await box.recordings.delete(record, "request", box.grant) > 0
