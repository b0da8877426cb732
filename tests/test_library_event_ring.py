"""library/event_ring.py and store/events.py: order, restarts, gaps, and how much is written."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from structlog.testing import capture_logs

from edged.clock import Clock
from edged.errors import StoreFailed
from edged.library import event_ring as module
from edged.library.event_ring import DAY_BYTES, EventRing, Page, Position, WriteBudget
from edged.store.database import Database
from edged.store.events import LOST, EventRow, Wanted
from edged.store.migrations import USAGE

ALL = Wanted(("", "camera0", "camera1"))


@pytest.fixture
def quick_clock() -> trio.testing.MockClock:
    """Time passes as soon as nothing has happened for a moment, in which a commit is done."""
    return trio.testing.MockClock(autojump_threshold=0.005)


@asynccontextmanager
async def opened(folder: Path, *, killed: bool = False) -> AsyncIterator[EventRing]:
    """A ring that runs; `killed`: what waits in memory at the end is lost."""
    # A clock that jumps would jump to this deadline while a commit is slow.
    is_real = not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    with fail_after(30 if is_real else math.inf):
        async with (
            Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL", is_expendable=True) as usage,
            trio.open_nursery() as nursery,
        ):
            ring = EventRing(usage, Clock())
            ring.load()
            await nursery.start(ring.run)
            yield ring
            if killed:
                ring._save = trio.lowlevel.checkpoint  # type: ignore[assignment]
            nursery.cancel_scope.cancel()


async def until_saved(ring: EventRing) -> None:
    while ring._waiting:
        await trio.sleep(0.25)


def kinds(page: Page) -> list[str]:
    return [row.kind for row in page.events]


async def read_all(ring: EventRing, after: Position | None = None, wanted: Wanted = ALL) -> tuple[list[EventRow], bool]:
    found: list[EventRow] = []
    has_gap = False
    after = after or Position("", 0)
    while True:
        page = await ring.read(after, wanted, 7)
        found += page.events
        has_gap = has_gap or page.has_gap
        after = page.position
        if not page.has_more:
            return found, has_gap


async def test_an_event_is_there_at_once_and_is_the_same_once_it_is_saved(tmp_path: Path) -> None:
    async with opened(tmp_path) as ring:
        begin = (await ring.read(None, ALL, 10)).position
        ring.put("recording.start", "camera0", {"filename": "yard.mp4"})
        before = await ring.read(begin, ALL, 10)
        await until_saved(ring)
        after = await ring.read(begin, ALL, 10)
        assert before == after
        assert [(row.kind, row.camera, row.details) for row in after.events] == [
            ("recording.start", "camera0", '{"filename":"yard.mp4"}')
        ]
        assert (after.has_gap, after.has_more) == (False, False)


async def test_events_of_one_second_are_one_transaction_and_none_is_written_without_one(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    writes = 0
    async with opened(tmp_path) as ring:
        await until_saved(ring)
        write = ring._usage.write

        async def count(*args: object, **kwargs: object) -> object:
            nonlocal writes
            writes += 1
            return await write(*args, **kwargs)  # type: ignore[arg-type]

        ring._usage.write = count  # type: ignore[method-assign, assignment]
        await trio.sleep(3600)
        assert writes == 0
        for _ in range(20):
            ring.put("camera.connected", "camera0")
            await trio.sleep(0.04)
        await until_saved(ring)
        assert writes == 1
        for _ in range(30):
            ring.put("camera.connected", "camera0")
            await trio.sleep(0.1)
        await until_saved(ring)
        assert 3 <= writes <= 5


async def test_a_reader_goes_on_behind_a_restart_without_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path) as ring:
        ring.put("a", "camera0")
        page = await ring.read(None, ALL, 10)
        ring.put("b", "camera0")
    async with opened(tmp_path) as ring:
        ring.put("c", "camera0")
        page = await ring.read(page.position, ALL, 10)
        assert kinds(page) == ["b", "system.shutdown", "system.startup", "c"]
        assert not page.has_gap


async def test_a_reader_that_is_behind_the_ring_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_ROWS", 50)
    monkeypatch.setattr(module, "TRIM_ROWS", 5)
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    async with opened(tmp_path) as ring:
        begin = (await ring.read(None, ALL, 10)).position
        late = begin
        for number in range(90):
            ring.put(f"n{number}", "camera0")
            if number % 10 == 0:
                await until_saved(ring)
            if number == 60:
                late = (await ring.read(begin, ALL, 1000)).position
        await until_saved(ring)
        rows, has_gap = await read_all(ring, begin)
        assert has_gap
        assert 50 <= len(rows) <= 70
        assert [row.kind for row in rows] == [f"n{number}" for number in range(90 - len(rows), 90)]
        rows, has_gap = await read_all(ring, late)
        assert ([row.kind for row in rows], has_gap) == ([f"n{number}" for number in range(61, 90)], False)
        count = await ring._usage.read(lambda c: c.execute("SELECT count(*) FROM event_runs").fetchone()[0])
        assert count == 1


async def test_a_database_that_was_begun_anew_is_a_gap_for_every_reader_of_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as ring:
        ring.put("a", "camera0")
        position = (await ring.read(None, ALL, 10)).position
    for file in tmp_path.glob("usage.db*"):
        file.unlink()
    async with opened(tmp_path) as ring:
        for _ in range(5):
            ring.put("b", "camera0")
        page = await ring.read(position, ALL, 10)
        assert (kinds(page), page.has_gap) == (["system.startup", *["b"] * 5], True)
        page = await ring.read(page.position, ALL, 10)
        assert (kinds(page), page.has_gap) == ([], False)


@pytest.mark.parametrize("seen", [False, True])
async def test_events_that_a_kill_took_are_a_gap_also_for_who_saw_them(tmp_path: Path, seen: bool) -> None:
    async with opened(tmp_path, killed=True) as ring:
        ring.put("a", "camera0")
        await until_saved(ring)
        position = (await ring.read(None, ALL, 10)).position
        ring.put("lost", "camera0")
        ring.put("lost", "camera0")
        if seen:
            position = (await ring.read(position, ALL, 10)).position
    async with opened(tmp_path) as ring:
        for name in ("b", "c", "d"):
            ring.put(name, "camera0")
        await until_saved(ring)
        page = await ring.read(position, ALL, 10)
        assert (kinds(page), page.has_gap) == (["system.startup", "b", "c", "d"], True)
        assert not (await ring.read(page.position, ALL, 10)).has_gap


async def test_too_many_events_are_counted_and_are_a_gap(tmp_path: Path, quick_clock: trio.testing.MockClock) -> None:
    async with opened(tmp_path) as ring:
        await until_saved(ring)
        begin = (await ring.read(None, ALL, 1)).position
        for _ in range(module.MOST_WAITING + 300):
            ring.put("camera.connected", "camera0")
        await until_saved(ring)
        rows, has_gap = await read_all(ring, begin)
        assert has_gap
        assert len(rows) == module.MOST_WAITING + 1
        assert (rows[-1].kind, rows[-1].details) == (LOST, '{"count":300}')
        narrow, has_gap = await read_all(ring, begin, Wanted(("camera0",)))
        assert (len(narrow), has_gap) == (module.MOST_WAITING, True)


async def test_a_disk_that_takes_nothing_delays_events_and_loses_none(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path) as ring:
        await until_saved(ring)
        begin = (await ring.read(None, ALL, 1)).position
        write = ring._usage.write

        async def fail(*_: object, **__: object) -> object:
            await trio.lowlevel.checkpoint()
            raise StoreFailed("full")

        ring._usage.write = fail  # type: ignore[method-assign, assignment]
        ring.put("a", "camera0")
        with capture_logs() as told:
            await trio.sleep(module.RETRY_SECONDS * 5)
            ring.put("b", "camera0")
            ring._usage.write = write  # type: ignore[method-assign]
            await until_saved(ring)
        assert [line["event"] for line in told] == ["events_not_saved", "events_saved_again"]
        page = await ring.read(begin, ALL, 10)
        assert (kinds(page), page.has_gap) == (["a", "b"], False)


async def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as ring:
        begin = (await ring.read(None, ALL, 10)).position
        for kind in ("camera.connected", "cameras", "camera", "recording.stop"):
            for camera in ("camera0", "camera1"):
                ring.put(kind, camera)
        for _ in range(2):
            assert kinds(await ring.read(begin, Wanted(("camera1",), ("camera",)), 10)) == [
                "camera.connected",
                "camera",
            ]
            assert kinds(await ring.read(begin, Wanted(("camera1",), ("camera", "recording.stop")), 2)) == [
                "camera.connected",
                "camera",
            ]
            assert kinds(await ring.read(begin, Wanted(()), 10)) == []
            assert kinds(await ring.read(None, Wanted(("camera1",)), 2)) == ["camera", "recording.stop"]
            await until_saved(ring)
        assert await ring.list_cameras() == {"", "camera0", "camera1"}
        found = await ring.list_between(Wanted(("camera1",)), (0.0, -1), 1e12, 3)
        assert [row.kind for row in found] == ["camera.connected", "cameras", "camera"]


@pytest.mark.slow
async def test_a_storm_writes_no_more_than_its_share_of_the_disk(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    """One and a half days of six events a minute, by the bytes of the log: it holds each page that is written."""
    async with opened(tmp_path) as ring:
        log, written = Path(f"{ring._usage.path}-wal"), 0
        write, reader = ring._usage.write, sqlite3.connect(ring._usage.path, isolation_level=None)

        async def measure(*args: object, **kwargs: object) -> object:
            nonlocal written
            reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            result: object = await write(*args, **kwargs)  # type: ignore[arg-type]
            written += log.stat().st_size
            return result

        ring._usage.write = measure  # type: ignore[method-assign, assignment]
        days = []
        for _ in range(3):
            before = written
            for _ in range(144):
                for _ in range(30):
                    ring.put("recording.start", "camera0", {"recording_id": "rec_0123456789abcdef", "file": "a" * 40})
                await trio.sleep(300)
            days.append(written - before)
        ring._usage.write = write  # type: ignore[method-assign]
        reader.close()
        # Half days.
        print(days)
        assert max(days) < DAY_BYTES
        assert sum(days[1:]) < DAY_BYTES
        assert sum(days) > DAY_BYTES / 3


@given(st.lists(st.tuples(st.floats(0, 90_000), st.integers(1, 60_000)), max_size=200))
def test_no_day_has_more_than_its_bytes(history: list[tuple[float, int]]) -> None:
    """Whatever is to be written when, where each waits as long as it is told to."""
    budget, now, writes = WriteBudget(1_000_000, 100_000, 0.0), 0.0, []
    for wait, size in history:
        now += wait
        now += budget.pause(size, now)
        budget.spend(size, now)
        writes.append((now, size))
    for begin, _ in writes:
        assert sum(size for at, size in writes if begin <= at < begin + 86_400) <= 1_000_000 + 1


async def test_a_position_that_never_was_is_a_gap_and_no_error(tmp_path: Path) -> None:
    async with opened(tmp_path) as ring:
        ring.put("a", "camera0")
        own = (await ring.read(None, ALL, 10)).position
        for position in (Position("", 0), Position("x" * 500, -5), Position(own.run, 10**12), Position("x", 2**62)):
            page = await ring.read(position, ALL, 10)
            assert page.has_gap
            assert not (await ring.read(page.position, ALL, 10)).has_gap


async def test_details_that_are_too_long_are_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as ring:
        ring.put("a", "camera0", {"text": "x" * 5000})
        assert (await ring.read(None, ALL, 1)).events[0].details == "{}"
