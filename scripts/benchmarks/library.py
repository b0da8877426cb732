"""Lists, sums and retention over an index of many segments, asked as a caller asks; and how long any of them holds the
loop. In this process: the operations on real databases, without sockets. What they answer is looked at, too."""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from measure import expect
from services_helpers import REMOTE, key_of, running_services
from trio.lowlevel import Task

from edged import operations
from edged.clock import Clock, iso_exact
from edged.library.event_ring import EventRing
from edged.library.fmp4 import Part, Segment, Track
from edged.library.joins import Joins
from edged.library.layouts import write_layout
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.recordings import Recordings
from edged.library.retention import Policy
from edged.library.retention_policies import RetentionPolicies
from edged.library.retention_sweep import RetentionSweep
from edged.operations.caller_sessions import Session
from edged.operations.playback import write_list
from edged.store import recordings as rows
from edged.store import segments
from edged.store.database import Database
from edged.store.migrations import USAGE
from edged.store.recordings import RecordingRecord
from edged.store.segments import SegmentRow

#: Unix time of the first segment.
BEGAN: Final = 1_790_000_000
CAMERAS: Final = 4
RECORDINGS: Final = 20_000
ROUNDS: Final = 30
#: Bytes of each segment.
SIZE: Final = 15_000_000
#: Milliseconds of a page of 100 (p95), and of the longest step of the loop.
PAGE_LIMIT: Final = 20.0
STEP_LIMIT: Final = 10.0


class Held(trio.abc.Instrument):
    """The longest step of any task, seconds of this thread's CPU: on a machine that does other things, too, the time of
    day would be theirs."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._since = time.thread_time()

    def before_task_step(self, task: Task) -> None:  # noqa: ARG002
        self._since = time.thread_time()

    def after_task_step(self, task: Task) -> None:  # noqa: ARG002
        self.longest = max(self.longest, time.thread_time() - self._since)


class NoRecorders:
    """Nothing is recorded here."""

    def set_recorded(self, cameras: Collection[str]) -> None:
        pass

    def wake(self, camera: str) -> None:
        pass


def bench_library(args: argparse.Namespace) -> None:
    """`--segments` segments of four cameras and 20,000 recordings over them. Raises SystemExit if a limit is exceeded or
    an answer is wrong."""
    print(
        f"library: {args.segments} segments, {RECORDINGS} recordings, {CAMERAS} cameras; {ROUNDS} times each",
        flush=True,
    )
    slow = trio.run(partial(_bench, args.segments))
    if slow:
        print(f"limits exceeded (a page of 100: {PAGE_LIMIT:g} ms, a step: {STEP_LIMIT:g} ms): {', '.join(slow)}")
        if not args.facts:
            raise SystemExit(1)


async def _bench(count: int) -> list[str]:
    """What was slower than it may be."""
    slow: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
        async with _filled(Path(folder), count) as (recordings, ask, play):
            # As the daemon does at the end of its start: what this program has imported is no garbage to look through.
            gc.freeze()
            end = float(BEGAN + 60 * (count // CAMERAS))
            first = msgspec.json.decode(await ask("list_recordings", limit=100, offset=14_000))
            row = first["files"][0]
            asked: dict[str, Callable[[], Awaitable[Any]]] = {
                "list_recordings, newest 100": partial(ask, "list_recordings"),
                "list_recordings, 100 at offset 14,000": partial(ask, "list_recordings", offset=14_000),
                "list_recordings, 100 behind a cursor there": partial(
                    ask, "list_recordings", cursor=first["next_cursor"]
                ),
                "list_recordings, newest 1000": partial(ask, "list_recordings", limit=1000),
                "get_recording_info": partial(ask, "get_recording_info", filename=row["filename"]),
                "get_storage_info": partial(ask, "get_storage_info"),
                "the segments of an hour": partial(recordings.index.list_between, "camera0", end - 3600, end),
                "the segments of a day": partial(recordings.index.list_between, "camera0", end - 86400, end),
                "get_timeline of a page of all": partial(ask, "get_timeline", device="camera0", start=BEGAN, end=end),
                "get_timeline of a day": partial(ask, "get_timeline", device="camera0", start=end - 86400, end=end),
                "the playlist of an hour": partial(play, "camera0", end - 3600, end),
                "the playlist of a day": partial(play, "camera0", end - 86400, end),
                "a sweep that deletes nothing": recordings.sweep.run_once,
            }
            await _check(ask, count)
            for name, work in asked.items():
                took, longest = await _measure(name, work)
                if longest > STEP_LIMIT or ("100 " in f"{name} " and took > PAGE_LIMIT):
                    slow.append(name)
            # A sweep that deletes nothing has deleted nothing.
            await _check(ask, count)
            _, longest = await _measure("the index beside an empty folder", recordings.index.reconcile, rounds=1)
            slow += ["the index beside an empty folder"] if longest > STEP_LIMIT else []
            stored = msgspec.json.decode(await ask("get_storage_info"))
            expect(stored["recordings_size"] == 0, "the index names files that are not there")
    return slow


async def _check(ask: Callable[..., Awaitable[bytes]], count: int) -> None:
    """Pages follow each other without a hole and hold everything; sums are those of what was put in."""
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        more: dict[str, Any] = {"cursor": cursor} if cursor else {}
        page = msgspec.json.decode(await ask("list_recordings", limit=1000, **more))
        expect(page["total"] == RECORDINGS, f"{page['total']} recordings in all, not {RECORDINGS}")
        seen += [file["filename"] for file in page["files"]]
        cursor = page.get("next_cursor")
    expect(len(seen) == len(set(seen)) == RECORDINGS, f"the pages hold {len(set(seen))} recordings, not {RECORDINGS}")
    stored = msgspec.json.decode(await ask("get_storage_info"))
    expect(stored["recordings_size"] == SIZE * count, f"{stored['recordings_size']} bytes of recordings in all")


async def _measure(name: str, work: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> tuple[float, float]:
    """p95 and the longest step of the loop, milliseconds."""
    held = Held()
    times: list[float] = []
    spent = time.process_time()
    trio.lowlevel.add_instrument(held)
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        times.append(1000 * (time.perf_counter() - began))
    trio.lowlevel.remove_instrument(held)
    spent = time.process_time() - spent
    times.sort()
    print(
        f"  {name}: p50 {statistics.median(times):.1f} ms, p95 {times[int(0.95 * (len(times) - 1))]:.1f} ms,"
        f" {1000 * spent / rounds:.1f} ms of CPU, longest step of the loop {1000 * held.longest:.1f} ms",
        flush=True,
    )
    return times[int(0.95 * (len(times) - 1))], 1000 * held.longest


@asynccontextmanager
async def _filled(
    folder: Path, count: int
) -> AsyncIterator[tuple[Recordings, Callable[..., Awaitable[bytes]], Callable[[str, float, float], Awaitable[str]]]]:
    async with (
        Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage,
        running_services(folder) as (trust, services),
    ):
        clock = Clock(system=lambda: float(BEGAN + 60 * count), synchronized=lambda: True)
        clock.look()
        files = RecordingFiles(folder / "recordings")
        files.prepare()
        index = RecordingIndex(files, usage)
        # A limit that is looked at in each sweep, and not exceeded.
        policies = RetentionPolicies(trust.db, Policy(max_age=1e12))
        sweep = RetentionSweep(index, trust.db, clock, policies, stop_bytes=0)

        def spawn(*_: object, **__: object) -> None:
            raise AssertionError("nothing is joined here")

        joins = Joins(files, spawn, lambda: "ffmpeg", lambda _total: 0)  # type: ignore[arg-type]
        recordings = Recordings(index, trust.db, clock, NoRecorders(), sweep, joins)
        recordings.load()
        events = EventRing(usage, clock)
        events.load()
        msgspec.structs.force_setattr(services, "recordings", recordings)
        msgspec.structs.force_setattr(services, "events", events)
        msgspec.structs.force_setattr(services, "clock", clock)
        for begin in range(0, count, 5000):
            await usage.write(
                partial(segments.insert, rows=[_segment(at) for at in range(begin, min(count, begin + 5000))])
            )
        await trust.db.write(partial(_insert, count=count))

        session = Session(REMOTE, "ws")
        session.caller = await key_of(trust, "admin")
        catalogue = operations.gather()

        async def ask(operation: str, **params: object) -> bytes:
            """The reply as JSON, as an endpoint makes it."""
            return msgspec.json.encode(await catalogue.call(operation, params, services, session))

        async def play(camera: str, begin: float, end: float) -> str:
            """The text of a playlist, as the route makes it."""
            assert session.caller is not None, "given above"
            return await write_list(
                services, session.caller, session.transport, camera, lambda: (iso_exact(begin), iso_exact(end))
            )

        yield recordings, ask, play


def _segment(number: int) -> SegmentRow:
    camera, minute = f"camera{number % CAMERAS}", number // CAMERAS
    began = BEGAN + 60 * minute
    day = time.strftime("%Y-%m-%d", time.gmtime(began))
    return SegmentRow(f"{camera}/{day}/{began}-000000.mp4", camera, float(began), 60.0, SIZE, layout=_LAYOUT)


def _lay_out() -> bytes:
    """Sixty parts of a second that begin with a key frame each."""
    parts = tuple(
        Part(1000 + number * SIZE // 60, SIZE // 60, Fraction(number), Fraction(number + 1), (Fraction(number),))
        for number in range(60)
    )
    return write_layout(Segment(1000, 1000 + SIZE, (Track(1, "vide", 90_000),), parts, None, True, True))


_LAYOUT: Final = _lay_out()


def _insert(connection: Any, count: int) -> None:
    """Of each camera as many, one after the other."""
    each = RECORDINGS // CAMERAS
    seconds = 60.0 * (count // CAMERAS) / each
    for number in range(RECORDINGS):
        began = BEGAN + seconds * (number // CAMERAS)
        rows.insert(
            connection,
            RecordingRecord(
                recording_id=f"rec_{number:016x}",
                filename=f"r{number}.mp4",
                camera=f"camera{number % CAMERAS}",
                format="fmp4",
                began=began,
                ended=began + seconds,
            ),
        )
