"""store/database.py: one writer thread, one transaction per job, nothing lost, nothing half."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing
from patience import fail_after
from structlog.testing import capture_logs
from trust_helpers import BrokenCommits, busy_writer, rows, until

from edged.errors import NotFound, Overloaded, StartFailed, StoreFailed
from edged.store import database, jobs
from edged.store.database import Database

STEPS = (("CREATE TABLE things (name TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) STRICT",),)


def put(name: str):
    return lambda connection: connection.execute("INSERT INTO things (name) VALUES (?)", (name,)).lastrowid


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM things ORDER BY name")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "things.db"


async def test_a_write_is_seen_by_others_when_it_returns(path: Path) -> None:
    """After `write` returns, another program that opens the file reads it."""
    async with Database.open(path, STEPS, name="things") as db:
        assert await db.write(put("a")) == 1
        assert rows(path, "SELECT name FROM things") == [("a",)]
        assert await db.read(names) == ["a"]
        assert db.read_now(names) == ["a"]


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
async def test_the_connection_is_set_up_as_asked(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> None:
    """WAL, the asked durability, and no transaction that Python begins behind our back."""
    async with Database.open(path, STEPS, name="things", synchronous=synchronous) as db:

        def look(connection: sqlite3.Connection) -> tuple[object, ...]:
            return (
                connection.execute("PRAGMA journal_mode").fetchone()[0],
                connection.execute("PRAGMA synchronous").fetchone()[0],
                connection.isolation_level,
            )

        assert await db.write(look) == ("wal", {"FULL": 2, "NORMAL": 1}[synchronous], None)


async def test_only_the_owner_can_read_the_files(path: Path) -> None:
    """The file, its WAL and its shared memory have mode 0600, a folder made for them 0700."""
    async with Database.open(path, STEPS, name="things") as db:
        await db.write(put("a"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == {"things.db": 0o600, "things.db-wal": 0o600, "things.db-shm": 0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    """A database restored with a wide mode is 0600 from the first start on."""
    path.parent.mkdir()
    path.touch(0o644)
    path.chmod(0o644)
    async with Database.open(path, STEPS, name="things"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_job_is_everything_or_nothing(path: Path) -> None:
    """What a transaction raises reaches its caller as it is, and nothing of it stays."""

    def half(connection: sqlite3.Connection) -> None:
        put("half")(connection)
        raise NotFound("no such thing")

    async with Database.open(path, STEPS, name="things") as db:
        with pytest.raises(NotFound, match="no such thing"):
            await db.write(half)
        await db.write(put("whole"))
        assert await db.read(names) == ["whole"]


@pytest.mark.parametrize(
    "name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_READONLY_DBMOVED", "SQLITE_CANTOPEN", "SQLITE_ERROR", ""]
)
async def test_what_sqlite_says_of_files_and_tables_is_for_the_log_alone(tmp_path: Path, name: str) -> None:
    """A caller is told the kind of trouble and what to do, whatever SQLite's text names."""
    async with Database.open(tmp_path / "things.db", STEPS, name="things") as db:

        def fail(_connection: sqlite3.Connection) -> None:
            problem = sqlite3.OperationalError(f"unable to open database: {tmp_path}/secret, column api_keys.digest")
            if name:
                problem.sqlite_errorname = name
            raise problem

        with capture_logs() as told, pytest.raises(StoreFailed) as caught:
            await db.write(fail)
    assert str(tmp_path) not in f"{caught.value} {caught.value.fields}"
    assert "digest" not in str(caught.value)
    assert str(tmp_path) in str(told)


async def test_an_error_of_sqlite_is_a_store_failure_that_names_the_database(path: Path) -> None:
    """sqlite3's own errors do not leave the store."""
    async with Database.open(path, STEPS, name="things") as db:
        await db.write(put("a"))
        with pytest.raises(StoreFailed, match=r"database things: it contradicts what is stored") as caught:
            await db.write(put("a"))
        assert caught.value.fields == {"db": "things", "in_force": False}
        assert str(caught.value).startswith("nothing was done: ")
        with pytest.raises(StoreFailed, match="SQLite refused it"):
            await db.read(lambda connection: connection.execute("SELECT * FROM nowhere"))
        assert await db.read(names) == ["a"]


async def test_a_failed_commit_leaves_nothing_and_the_next_write_works(path: Path) -> None:
    """COMMIT itself may fail; the writer goes on, and its connection is in no transaction."""
    async with Database.open(path, STEPS, name="things") as db:
        broken = await BrokenCommits(db).begin()
        with pytest.raises(StoreFailed, match="SQLite refused it"):
            await db.write(put("a"))
        assert broken.tries == 1
        await broken.mend()
        await db.write(put("b"))
        assert await db.read(names) == ["b"]


class FailingSyncs:
    """The next COMMITs fail as they do when a sync fails: what they wrote may be found after a kill."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        self.tries = 0
        self._transact = jobs.transact
        monkeypatch.setattr(jobs, "transact", self.transact)
        monkeypatch.setattr(database, "_OVERWRITE_SECONDS", 0.01)

    def transact(self, connection: sqlite3.Connection, transaction):
        self.tries += 1
        if self.left:
            self.left -= 1
            problem = sqlite3.OperationalError("disk I/O error")
            problem.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise jobs.CommitFailed from problem
        return self._transact(connection, transaction)


async def test_a_commit_that_the_disk_failed_is_written_over_before_its_caller_hears_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after the error brings nothing back (test_durability_disk.py does it); no second try is needed here."""
    async with Database.open(path, STEPS, name="things") as db:
        disk = FailingSyncs(monkeypatch, 1)
        with pytest.raises(StoreFailed, match=r"disk I/O error.*journalctl -k"):
            await db.write(put("ghost"))
        assert disk.tries == 2
        await trio.sleep(0.05)
        assert disk.tries == 2
        assert await db.read(names) == []


async def test_a_failed_commit_is_written_over_again_until_the_disk_is_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody need write anything for that; a write that succeeds meanwhile does it too."""
    async with Database.open(path, STEPS, name="things") as db:
        disk = FailingSyncs(monkeypatch, 5)
        with pytest.raises(StoreFailed):
            await db.write(put("ghost"))
        await until(lambda: disk.tries == 6)
        await trio.sleep(0.05)
        assert disk.tries == 6
        disk.left = 2
        with pytest.raises(StoreFailed):
            await db.write(put("ghost"))
        await db.write(put("real"))
        tries = disk.tries
        await trio.sleep(0.05)
        assert disk.tries == tries
        assert await db.read(names) == ["real"]


async def test_a_denial_that_the_disk_failed_may_stand(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found after a kill it is no harm: nothing is written over it."""
    async with Database.open(path, STEPS, name="things") as db:
        disk = FailingSyncs(monkeypatch, 1)
        with pytest.raises(StoreFailed):
            await db.write(put("denied"), may_stand=True)
        await trio.sleep(0.05)
        assert disk.tries == 1


async def test_a_full_database_says_what_to_do(path: Path) -> None:
    """SQLITE_FULL comes with its remedy."""
    async with Database.open(path, STEPS, name="things") as db:
        await db.write(lambda c: c.execute(f"PRAGMA max_page_count = {c.execute('PRAGMA page_count').fetchone()[0]}"))
        with pytest.raises(StoreFailed, match="free space"):
            await db.write(lambda c: c.execute("INSERT INTO things (name) VALUES (?)", ("x" * 100_000,)))
        await db.write(put("small"))
        assert await db.read(names) == ["small"]


async def test_a_job_that_commits_by_itself_is_an_error(path: Path) -> None:
    """sqlite-utils 3.38 commits open transactions silently: such a job is found out at its first run."""

    def commits(connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")

    async with Database.open(path, STEPS, name="things") as db:
        with pytest.raises(RuntimeError, match="ended its transaction"):
            await db.write(commits)
        await db.write(put("after"))
        assert await db.read(names) == ["after"]


async def test_a_reader_cannot_write(path: Path) -> None:
    """Only the writer's thread changes the file."""
    async with Database.open(path, STEPS, name="things") as db:
        with pytest.raises(StoreFailed, match="cannot be written"):
            db.read_now(put("a"))


async def test_a_reader_sees_one_moment(path: Path) -> None:
    """Two queries in one `read` see the same state, whatever is committed in between."""
    async with Database.open(path, STEPS, name="things") as db:
        between, go = threading.Event(), threading.Event()

        def look_twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
            first = names(connection)
            between.set()
            assert go.wait(30)
            return first, names(connection)

        seen: list[tuple[list[str], list[str]]] = []

        async def read() -> None:
            seen.append(await db.read(look_twice))

        with fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.to_thread.run_sync(between.wait, 30)
                await db.write(put("later"))
                go.set()
        assert seen == [([], [])]


async def test_a_cancelled_caller_does_not_cancel_its_job(path: Path) -> None:
    """Once accepted, a job runs to its end."""
    async with Database.open(path, STEPS, name="things") as db:
        async with busy_writer(db):
            with trio.move_on_after(0.02) as scope:
                await db.write(put("orphan"))
            assert scope.cancelled_caught
            assert await db.read(names) == []
        await db.write(put("next"))
        assert await db.read(names) == ["next", "orphan"]


async def test_a_full_queue_refuses_the_next_job_and_does_nothing(path: Path) -> None:
    """The third job of a queue of two is refused; the other two are done."""
    async with Database.open(path, STEPS, name="things", queue_size=2) as db:
        with fail_after(60):
            async with trio.open_nursery() as nursery, busy_writer(db):
                nursery.start_soon(db.write, put("second"))
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(Overloaded):
                    await db.write(put("third"))
        await db.write(put("fourth"))
        assert await db.read(names) == ["fourth", "second"]


async def test_closing_does_what_was_accepted(path: Path) -> None:
    """A job in the queue when the database is closed is committed, also when everything is cancelled."""
    with trio.CancelScope() as scope:
        async with Database.open(path, STEPS, name="things") as db, trio.open_nursery() as nursery, busy_writer(db):
            nursery.start_soon(db.write, put("last"))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert rows(path, "SELECT name FROM things") == [("last",)]
    with pytest.raises(StoreFailed, match="closed"):
        await db.write(put("too late"))


async def test_the_thread_and_the_files_are_given_back(path: Path) -> None:
    """After closing there is no thread of ours and no WAL beside the file."""
    async with Database.open(path, STEPS, name="things") as db:
        await db.write(put("a"))
        assert "store-things" in {thread.name for thread in threading.enumerate()}
    assert "store-things" not in {thread.name for thread in threading.enumerate()}
    assert [file.name for file in path.parent.iterdir()] == ["things.db"]


async def test_the_loop_goes_on_while_the_disk_is_slow(path: Path) -> None:
    """A job that takes 200 ms holds nobody but its own caller."""
    async with Database.open(path, STEPS, name="things") as db:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await trio.sleep(0.001)
                ticks += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await db.write(lambda _: time.sleep(0.2))
            nursery.cancel_scope.cancel()
        assert ticks >= 5


async def test_commits_are_measured_in_the_loops_thread(path: Path) -> None:
    """Each commit is reported once with its seconds; a failed one is not."""
    seen: list[tuple[str, float, int]] = []

    def observe(name: str, seconds: float) -> None:
        seen.append((name, seconds, threading.get_ident()))

    async with Database.open(path, STEPS, name="things", observe_commit=observe) as db:
        await db.write(put("a"))
        with pytest.raises(StoreFailed):
            await db.write(put("a"))
        await db.write(put("b"))
    assert [(name, ident) for name, _, ident in seen] == [("things", threading.get_ident())] * 2
    assert all(0 < seconds < 30 for _, seconds, _ in seen)


async def test_a_file_that_is_no_database_stops_the_start(path: Path) -> None:
    """StartFailed names the file and the remedy."""
    path.parent.mkdir()
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StartFailed, match=r"things at .*things.db.*not a database.*backup"):
        async with Database.open(path, STEPS, name="things"):
            pass


async def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    """A file where the folder should be: StartFailed, not a traceback of os."""
    (tmp_path / "state").touch()
    with pytest.raises(StartFailed, match="make its folder writable"):
        async with Database.open(tmp_path / "state" / "things.db", STEPS, name="things"):
            pass


async def test_a_database_that_another_program_holds_stops_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked for good: StartFailed says what to do."""
    monkeypatch.setattr("edged.store.opening._BUSY_SECONDS", 0.05)
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StartFailed, match=r"locked.*other program"):
            async with Database.open(path, STEPS, name="things"):
                pass
    finally:
        other.close()


async def test_a_failed_start_leaves_no_descriptor_open(path: Path) -> None:
    """The file of a newer edged is closed again when it is refused."""
    async with Database.open(path, STEPS, name="things"):
        pass
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(StartFailed):
            async with Database.open(path, (), name="things"):
                pass
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


@pytest.mark.parametrize("name", ["trust.db", "trust.db-wal", "trust.db-shm"])
async def test_a_link_in_the_place_of_a_database_is_refused_and_its_target_left_alone(
    tmp_path: Path, name: str
) -> None:
    """Neither its mode nor a byte of it changes, whether it is a file, nothing or a folder."""
    state, target = tmp_path / "state", tmp_path / "somebody-elses"
    state.mkdir()
    for make in (lambda: None, lambda: target.write_bytes(b""), lambda: target.write_text("mine")):
        make()
        if target.exists():
            target.chmod(0o644)
        (state / name).symlink_to(target)
        with pytest.raises(StartFailed, match="is a symbolic link") as caught:
            async with Database.open(state / "trust.db", STEPS, name="trust"):
                pass
        assert str(state / name) in caught.value.sentence
        assert caught.value.hint
        (state / name).unlink()
        if target.exists():
            assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert target.read_text() == "mine"
    assert list(state.iterdir()) == []


async def test_what_is_no_file_is_refused_as_a_database(tmp_path: Path) -> None:
    """A folder or a pipe of that name; nobody waits for the pipe's other end."""
    path = tmp_path / "trust.db"
    for make in (path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.raises(StartFailed, match="is not a regular file"):
            async with Database.open(path, STEPS, name="trust"):
                pass
        if path.is_dir():
            path.rmdir()


async def test_the_folder_of_a_database_may_be_reached_over_a_link(tmp_path: Path) -> None:
    """An operator may keep the state on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    async with Database.open(tmp_path / "state" / "trust.db", STEPS, name="trust"):
        assert stat.S_IMODE((tmp_path / "disk" / "trust.db").stat().st_mode) == 0o600
