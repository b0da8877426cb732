"""Lists, sums and retention over an index of many segments, asked as a caller asks; and how long any of them holds the
loop. In this process: the operations on real databases, without sockets."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from services_helpers import REMOTE, key_of, running_services
from trio.lowlevel import Task

from edged import operations
from edged.clock import Clock
from edged.library.joins import Joins
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.recordings import Recordings
from edged.library.retention import Policy
from edged.library.retention_policies import RetentionPolicies
from edged.library.retention_sweep import RetentionSweep
from edged.operations.caller_sessions import Session
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
    """`--segments` segments of four cameras and 20,000 recordings over them."""
    print(
        f"library: {args.segments} segments, {RECORDINGS} recordings, {CAMERAS} cameras; {ROUNDS} times each",
        flush=True,
    )
    trio.run(partial(_bench, args.segments))


async def _bench(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
        async with _filled(Path(folder), count) as (recordings, ask):
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
                "a sweep that deletes nothing": recordings.sweep.run_once,
            }
            for name, work in asked.items():
                await _measure(name, work)
            await _measure("the index beside an empty folder", recordings.index.reconcile, rounds=1)


async def _measure(name: str, work: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> None:
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


@asynccontextmanager
async def _filled(folder: Path, count: int) -> AsyncIterator[tuple[Recordings, Callable[..., Awaitable[bytes]]]]:
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
        object.__setattr__(services, "recordings", recordings)
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

        yield recordings, ask


def _segment(number: int) -> SegmentRow:
    camera, minute = f"camera{number % CAMERAS}", number // CAMERAS
    began = BEGAN + 60 * minute
    day = time.strftime("%Y-%m-%d", time.gmtime(began))
    return SegmentRow(f"{camera}/{day}/{began}-000000.mp4", camera, float(began), 60.0, 15_000_000)


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
