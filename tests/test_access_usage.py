"""access/usage.py: counted live, written at most once a minute."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from identity_helpers import named
from structlog.testing import capture_logs
from trust_helpers import BrokenCommits, rows, until

from edged.access.usage import Usage
from edged.clock import Clock
from edged.store.database import Database
from edged.store.migrations import USAGE
from edged.store.usage import Tally


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@asynccontextmanager
async def open_usage(
    path: Path, commits: list[str] | None = None, inside: Container[Any] = ()
) -> AsyncIterator[tuple[Usage, Database]]:
    seen = commits if commits is not None else []
    async with Database.open(
        path, USAGE, name="usage", synchronous="NORMAL", observe_commit=lambda name, _: seen.append(name)
    ) as db:
        usage = Usage(
            db, Clock(system=lambda: 1000.0 + trio.current_time()), inside.__contains__, lambda: None, lambda _id: True
        )
        usage.load([str(row[0]) for row in rows(path, "SELECT credential_id FROM tallies")])
        yield usage, db


async def test_a_use_is_seen_at_once_and_costs_no_write(path: Path, mock_clock: trio.testing.MockClock) -> None:
    """`find` is live; nothing is committed."""
    commits: list[str] = []
    async with open_usage(path, commits) as (usage, _):
        assert usage.find("key_1") is None
        usage.tally("key_1")
        mock_clock.jump(5)
        usage.tally("key_1")
        usage.tally("key_2")
        assert usage.find("key_1") == Tally("key_1", 1005.0, 2)
        assert usage.find("key_2") == Tally("key_2", 1005.0, 1)
        assert commits == []


async def test_a_minute_of_uses_is_one_write(path: Path, mock_clock: trio.testing.MockClock) -> None:
    """A thousand uses of fifty keys cost one commit a minute; a minute without any costs none."""
    commits: list[str] = []
    async with open_usage(path, commits) as (usage, _), trio.open_nursery() as nursery:
        nursery.start_soon(usage.run)
        await trio.testing.wait_all_tasks_blocked()
        for n in range(1000):
            usage.tally(f"key_{n % 50}")
        mock_clock.jump(59)
        await trio.testing.wait_all_tasks_blocked()
        assert commits == []
        mock_clock.jump(1)
        await until(lambda: commits == ["usage"])
        await trio.testing.wait_all_tasks_blocked()
        assert rows(path, "SELECT count(*), sum(count) FROM tallies") == [(50, 1000)]
        for _ in range(3):
            mock_clock.jump(60)
            await trio.testing.wait_all_tasks_blocked()
        assert commits == ["usage"]
        nursery.cancel_scope.cancel()


async def test_stopping_writes_the_rest_and_a_start_takes_it_up(path: Path) -> None:
    """Counts go on after a restart where they were."""
    async with open_usage(path) as (usage, _), trio.open_nursery() as nursery:
        nursery.start_soon(usage.run)
        usage.tally("key_1")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    async with open_usage(path) as (usage, _):
        assert usage.find("key_1") is not None
        usage.tally("key_1")
        await usage.flush()
    assert rows(path, "SELECT credential_id, count FROM tallies") == [("key_1", 2)]


async def test_what_cannot_be_written_is_written_the_next_time(path: Path) -> None:
    """A failing disk loses no count and stops nothing."""
    async with open_usage(path) as (usage, db):
        broken = await BrokenCommits(db).begin()
        usage.tally("key_1")
        with capture_logs() as told:
            await usage.flush()
            await usage.flush()
            assert broken.tries == 2
            usage.tally("key_2")
            await broken.mend()
            await usage.flush()
        events = ["not_saved", "database_works_again", "saved_again"]
        assert [line["event"] for line in told] == events
        assert rows(path, "SELECT credential_id, count FROM tallies ORDER BY 1") == [("key_1", 1), ("key_2", 1)]


async def test_a_flush_that_is_cancelled_is_repeated(path: Path) -> None:
    """Totals are written, so that writing them twice counts nothing twice."""
    async with open_usage(path) as (usage, _):
        usage.tally("key_1")
        with trio.CancelScope() as scope:
            scope.cancel()
            await usage.flush()
        assert scope.cancelled_caught
        await usage.flush()
        assert rows(path, "SELECT credential_id, count FROM tallies") == [("key_1", 1)]


@pytest.mark.parametrize("identity", [named("key:mine"), named("service:mine")])
async def test_whoever_is_inside_uses_its_credential_all_the_time(
    path: Path, mock_clock: trio.testing.MockClock, identity: str
) -> None:
    """Asked for, last use is now while somebody is inside, and at most a minute behind when they have left."""
    inside: set[str] = set()
    async with open_usage(path, inside=inside) as (usage, _), trio.open_nursery() as nursery:
        nursery.start_soon(usage.run)
        await trio.testing.wait_all_tasks_blocked()
        usage.tally("mine")
        usage.tally("other")
        inside.add(identity)
        for minutes in range(1, 4):
            mock_clock.jump(59)
            await trio.testing.wait_all_tasks_blocked()
            assert usage.find("mine") == Tally("mine", 1000.0 + 60 * minutes - 1, 1)
            mock_clock.jump(1)
            at = 1000.0 + 60 * minutes
            await until(lambda at=at: rows(path, "SELECT last_used FROM tallies ORDER BY 1 DESC LIMIT 1") == [(at,)])  # type: ignore[misc]
        mock_clock.jump(59)
        inside.clear()
        assert usage.find("mine") == Tally("mine", 1180.0, 1)
        mock_clock.jump(600)
        await trio.testing.wait_all_tasks_blocked()
        assert usage.find("mine") == Tally("mine", 1180.0, 1)
        assert usage.find("other") == Tally("other", 1000.0, 1)
        nursery.cancel_scope.cancel()


async def test_a_write_that_takes_long_does_not_put_off_the_next_look(
    path: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that takes 10 s who is inside is noted once a minute all the same."""
    inside = {named("key:mine")}
    async with open_usage(path, inside=inside) as (usage, db), trio.open_nursery() as nursery:
        write = db.write

        async def write_slowly(job: object) -> None:
            await trio.sleep(10)
            await write(job)  # type: ignore[arg-type]

        monkeypatch.setattr(db, "write", write_slowly)
        usage.tally("mine")
        nursery.start_soon(usage.run)
        await trio.testing.wait_all_tasks_blocked()
        for step in (60, 10, 50):
            mock_clock.jump(step)
            await trio.testing.wait_all_tasks_blocked(0.05)
        inside.clear()
        assert usage.find("mine") == Tally("mine", 1120.0, 1)
        monkeypatch.setattr(db, "write", write)
        nursery.cancel_scope.cancel()
