"""One SQLite file: one thread that writes, one transaction per job; readers beside it.

Rules of this file:

* Connections run with `isolation_level=None`, and only `_transact` says BEGIN and COMMIT. What belongs
  together is raw SQL in one job: sqlite-utils 3.38 silently commits an open transaction in insert,
  upsert and transform, and 4.x does not. A job that ends its transaction itself is an error here.
* A caller that goes away does not take its job along: once accepted, a job runs to its end.
* What `write` says has failed does not come true later. A COMMIT whose sync fails leaves whole frames in the WAL, and
  a process that starts after a kill takes them for committed; so the writer writes something empty over them.
* A denial that finds no space gets the log's own blocks, and then what is kept for it (`room`); nothing else does.
* The writer's queue is bounded, so that a slow disk shows as `Overloaded` and never as memory.
* Nothing of sqlite3 leaves this room: its errors become StoreFailed, or StartFailed while opening.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import structlog
import trio

from edged.errors import Overloaded, StartFailed, StoreFailed
from edged.store import meta
from edged.store.migrations import Migrations, schema_version
from edged.store.opening import Opened, Synchronous, cause, damage_remedy, error_name, find_damage, open_file, remedy
from edged.store.room import Room

T = TypeVar("T")

#: What a transaction is: a function of a connection. It may raise; then nothing happened.
Transaction: TypeAlias = Callable[[sqlite3.Connection], T]
#: (name of the database, seconds that COMMIT took).
ObserveCommit: TypeAlias = Callable[[str, float], None]

#: Jobs waiting for the writer before the next one is refused.
QUEUE_SIZE = 64
#: Of a file too large to be checked before the start went on: after so many seconds without a job.
_CHECK_SECONDS = 1.0
#: Between tries to write over a failed commit, seconds.
_AGAIN_SECONDS = 5.0
#: Between tries to make room for denials anew, where no commit does it sooner, seconds.
_GROW_SECONDS = 60.0
_log = structlog.get_logger("store")


def _ignore(_name: str, _seconds: float) -> None:
    """Nobody measures commits."""


#: Errors after which a COMMIT may have written frames.
_BY_THE_DISK = ("SQLITE_IOERR", "SQLITE_FULL")
#: Errors of the file or its disk, whatever the transaction was.
_DISK_ERRORS = (*_BY_THE_DISK, "SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN")
#: Errors that may mean that there is no space: SQLite says FULL of writes that hit ENOSPC, and does not tell a quota, a
#: sync that finds no space or a -shm that cannot grow from other trouble.
_NO_SPACE = frozenset(
    {
        "SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE",
        "SQLITE_IOERR_SHMMAP",
    }
)  # fmt: skip


class _CommitFailed(Exception):
    """The disk failed COMMIT itself, not what came before it; the cause is SQLite's error."""


class _Job(Generic[T]):
    """One transaction on its way through the writer; `finished` is set in the loop's thread."""

    __slots__ = (
        "_error", "_may_stand", "_value", "commit_seconds", "commits", "finished", "lacks_space", "may_return",
        "transaction",
    )  # fmt: skip

    def __init__(self, transaction: Transaction[T], may_stand: bool) -> None:
        self.transaction = transaction
        self.finished = trio.Event()
        self.commit_seconds: float | None = None
        #: The number of this commit, where they are counted and it changed something.
        self.commits: int | None = None
        #: It failed, what it wrote may be found after a kill, and nobody wants that.
        self.may_return = False
        #: It denies something, and perhaps it failed for lack of space: worth another try when there is some.
        self.lacks_space = False
        self._may_stand = may_stand
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self, connection: sqlite3.Connection, required: Transaction[Any] | None, counts: bool) -> None:
        """In the writer's thread; keeps the outcome, whatever it is. Once more is from the beginning. `required` is
        committed with it; `counts`: the database counts its commits."""
        self._error, self.lacks_space = None, False
        try:
            self._value, self.commit_seconds = _transact(
                connection, partial(self._do, required=required) if counts else self.transaction
            )
        except _CommitFailed as problem:
            self._error = problem.__cause__
            self.may_return = not self._may_stand
        except BaseException as problem:
            self._error = problem
        self.lacks_space = self._may_stand and _is_no_space(self._error)

    def _do(self, connection: sqlite3.Connection, required: Transaction[Any] | None) -> T:
        changes = connection.total_changes
        if required is not None:
            required(connection)
        value = self.transaction(connection)
        if connection.total_changes != changes and connection.in_transaction:
            self.commits = meta.count_commit(connection)
        return value

    @property
    def failed_by_disk(self) -> bool:
        """Whether another job would have failed as well."""
        return isinstance(self._error, sqlite3.Error) and error_name(self._error).startswith(_DISK_ERRORS)

    def outcome(self, describe: Callable[[sqlite3.Error], StoreFailed]) -> T:
        """The result, or what went wrong."""
        if isinstance(self._error, sqlite3.Error):
            problem = describe(self._error)
            if not self._may_stand:
                problem = StoreFailed(
                    f"nothing was done: {problem.sentence}", hint=problem.hint, in_force=False, **problem.fields
                )
            raise problem from self._error
        if self._error is not None:
            raise self._error
        return cast("T", self._value)


class _Scrub(_Job[None]):
    """Writes the file anew, which no transaction can."""

    def __init__(self) -> None:
        super().__init__(_do_nothing, may_stand=True)

    def run(self, connection: sqlite3.Connection, _required: Transaction[Any] | None, _counts: bool) -> None:
        """In the writer's thread."""
        try:
            connection.execute("VACUUM")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("somebody reads it, so that its log could not be emptied")
        except BaseException as problem:
            self._error = problem


def _do_nothing(_connection: sqlite3.Connection) -> None:
    """The transaction of a job that is none."""


class Reads(Protocol):
    """A database for whoever only reads it: what changes credentials commits by accounts.registrar alone."""

    async def read(self, query: Transaction[T]) -> T: ...
    def read_now(self, query: Transaction[T]) -> T: ...


class Database:
    """An open database; made by `open`."""

    def __init__(self, path: Path, name: str, opened: Opened, queue_size: int, observe_commit: ObserveCommit,
                 room: Room | None, commits: int | None) -> None:  # fmt: skip
        self.path = path
        self.name = name
        self._reader = opened.reader
        self._reading = threading.Lock()
        self._readers = trio.CapacityLimiter(1)
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._queue_size = queue_size
        self._observe_commit = observe_commit
        self._room = room
        #: How many commits it has been through; None where they are not counted.
        self.commits = commits
        #: How many the reserve said that it had been through when it was opened.
        self.known_commits = 0 if room is None else room.commits
        self._required: Transaction[Any] | None = None
        self._closed = False
        self._failing = False
        self._is_checked = opened.is_checked
        #: What is wrong with the file, as far as it was noticed; "" if nothing is.
        self.damage = ""
        self._loop = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._work, args=(opened.writer,), name=f"store-{name}", daemon=True)
        self._thread.start()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        migrations: Migrations,
        *,
        name: str,
        synchronous: Synchronous = "FULL",
        queue_size: int = QUEUE_SIZE,
        observe_commit: ObserveCommit = _ignore,
        room: Path | None = None,
        proofs: Sequence[Path] = (),
        is_expendable: bool = False,
    ) -> AsyncIterator[Database]:
        """Open, or make, the database at `path`, brought up to date by `migrations`.

        Missing folders are made with mode 0700, the file has 0600. `name` stands in errors, metrics and the
        thread's name. One with a table `meta` counts its commits there. `room` is where blocks are kept for what may
        stand (store/room.py), None for none. `proofs` and `is_expendable`: store/opening.py. On exit every accepted job
        is done before the file is closed. Raises StartFailed.
        """
        kept = None if room is None else Room(room)
        shown = () if not proofs or room is None else (*proofs, room)
        open_it = partial(open_file, path, migrations, name, synchronous, proofs=shown, is_expendable=is_expendable)
        opened, commits = await trio.to_thread.run_sync(_open_with, kept, open_it)
        database = cls(path, name, opened, queue_size, observe_commit, kept, commits)
        try:
            yield database
        finally:
            await database._close()

    @property
    def room_bytes(self) -> int | None:
        """How much is kept for denials on a full disk; None if that was not asked for."""
        return None if self._room is None else self._room.size

    @property
    def has_room(self) -> bool:
        """Whether that is all that was asked for."""
        return self._room is None or self._room.is_whole

    @property
    def is_saving(self) -> bool:
        """False after the disk failed a commit, until it has taken one without the reserve."""
        return not self._failing

    async def write(self, transaction: Transaction[T], *, may_stand: bool = False) -> T:
        """Run one transaction in the writer's thread; its result once it is committed.

        Raises Overloaded when the queue is full (nothing was done; never with `may_stand`), StoreFailed when SQLite
        failed (nothing was committed, and the error says so), or whatever `transaction` raised (rolled back). A
        cancelled caller does not cancel the job.
        `may_stand`: should its sync fail, it is no harm if it is found committed after a restart (a denial): the error
        then says nothing of what was done; and should there be no space, it may use what is kept for denials.
        """
        return await self._do(_Job(transaction, may_stand), may_wait=may_stand)

    async def require(self, transaction: Transaction[object]) -> None:
        """Commit this now; and should that fail, nothing else is committed without it. Raises as `write`."""
        self._required = transaction
        await self.write(_do_nothing, may_stand=True)

    async def scrub(self) -> None:
        """Write the file anew and empty its log: nothing that was deleted is left in them. Raises as `write`."""
        await self._do(_Scrub())

    async def _do(self, job: _Job[T], *, may_wait: bool = False) -> T:
        if self._closed:
            raise StoreFailed(
                f"database {self.name} is closed", hint="edged is stopping: ask again once it is back", in_force=False
            )
        # Denials come one at a time (accounts.registrar), and are never too many.
        if self._waiting >= self._queue_size and not may_wait:
            raise Overloaded(
                f"{self._waiting} writes wait for database {self.name}", hint="try again in a moment", in_force=False
            )
        self._waiting += 1
        self._jobs.put(job)
        await job.finished.wait()
        return job.outcome(self._describe)

    async def read(self, query: Transaction[T]) -> T:
        """Run a query in a thread, on one snapshot of what is committed. Raises StoreFailed."""
        return await trio.to_thread.run_sync(self.read_now, query, limiter=self._readers)

    def read_now(self, query: Transaction[T]) -> T:
        """The same in the calling thread: for start-up, before anybody waits. Raises StoreFailed."""
        try:
            with self._reading, _snapshot(self._reader) as connection:
                return query(connection)
        except sqlite3.Error as problem:
            raise self._describe(problem) from problem

    async def _close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await self._ended.wait()
            # The thread has nothing left to do but to return.
            self._thread.join()
        self._reader.close()

    def _work(self, connection: sqlite3.Connection) -> None:
        """The writer's thread: jobs in order until told to end."""
        haunted, failed, room = False, False, self._room
        while True:
            is_short = room is not None and not room.is_whole and not failed
            pause = _GROW_SECONDS if is_short or self._failing else None
            if not self._is_checked:
                pause = _CHECK_SECONDS
            try:
                job = self._jobs.get(timeout=_AGAIN_SECONDS if haunted else pause)
            except queue.Empty:
                if not self._is_checked:
                    self._is_checked = True
                    self._check(connection)
                elif haunted or self._failing:
                    # It changes nothing, and shows whether the disk takes a commit again.
                    haunted = self._failing = not _write_over(connection)
                elif room is not None:
                    room.grow()
                continue
            if job is None:
                break
            required = self._required
            run = partial(job.run, connection, required, self.commits is not None)
            run()
            used_reserve = job.lacks_space
            if job.lacks_space and room is not None:
                _try_again(job, run, connection, room)
                if job.commit_seconds is not None:
                    # Before anybody hears of it: what it left over is for denials, too.
                    room.grow()
            if job.commits is not None and job.commit_seconds is not None:
                if self._required is required:
                    self._required = None
                self.commits = job.commits
                if room is not None:
                    # Before anybody hears of it: whoever is told that something is revoked can rely on it.
                    room.note_commits(job.commits)
            # A disk that takes nothing is not asked for more.
            failed = job.commit_seconds is None
            if used_reserve or job.failed_by_disk:
                self._failing = True
            elif not failed:
                self._failing = False
            if job.may_return:
                # Before its caller hears of it: after that a kill may come.
                haunted = not _write_over(connection)
            elif job.commit_seconds is not None:
                haunted = False
            self._tell(partial(self._finish, job))
            if room is not None and not room.is_whole and not failed:
                room.grow()
        with suppress(sqlite3.Error):
            connection.close()
        if room is not None:
            room.close()
        self._tell(self._ended.set)

    def _check(self, connection: sqlite3.Connection) -> None:
        """In the writer's thread, while nobody waits for it."""
        try:
            damage = find_damage(connection)
        except sqlite3.Error as problem:
            damage = str(problem)
        if damage:
            self.damage = damage
            _log.error("damaged", db=self.name, problem=damage, remedy=damage_remedy(self.path, None))

    def _tell(self, news: Callable[[], None]) -> None:
        # The loop may be gone if it broke down: then nobody listens any more.
        with suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(news)

    def _finish(self, job: _Job[Any]) -> None:
        self._waiting -= 1
        if job.commit_seconds is not None:
            self._observe_commit(self.name, job.commit_seconds)
        job.finished.set()

    def _describe(self, problem: sqlite3.Error) -> StoreFailed:
        _log.error("failed", db=self.name, problem=str(problem))
        return StoreFailed(f"database {self.name}: {cause(problem)}", hint=remedy(problem), db=self.name)


def _transact(connection: sqlite3.Connection, transaction: Transaction[T]) -> tuple[T, float]:
    """Everything or nothing; the result, and the seconds that COMMIT took."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        value = transaction(connection)
        if not connection.in_transaction:
            raise RuntimeError(f"{transaction!r} ended its transaction by itself")
        started = time.perf_counter()
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as problem:
            if not error_name(problem).startswith(_BY_THE_DISK):
                raise
            raise _CommitFailed from problem
    except BaseException:
        # A failed COMMIT may or may not have rolled back already.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
    return value, time.perf_counter() - started


def _try_again(job: _Job[Any], run: Callable[[], None], connection: sqlite3.Connection, room: Room) -> None:
    """A denial found no space: write it again, first with the blocks that the log has already, then with more and more
    of the room."""
    with suppress(sqlite3.Error):
        # Once all of the log is in the file itself the next commit goes to its beginning.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        run()
    while job.lacks_space and room.give_up():
        run()


def _is_no_space(problem: BaseException | None) -> bool:
    return isinstance(problem, sqlite3.Error) and error_name(problem) in _NO_SPACE


def _write_over(connection: sqlite3.Connection) -> bool:
    """Put an empty commit where a failed one stands in the WAL; whether that is known to be on the disk.

    If it is not, its frames are in the page cache all the same, so that a kill brings nothing back.
    """
    try:
        version = schema_version(connection)
        # Writes the first page, also with the number that it has.
        _transact(connection, lambda c: c.execute(f"PRAGMA user_version = {version}"))
    except (sqlite3.Error, _CommitFailed):
        return False
    return True


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _open_with(room: Room | None, open_it: Callable[[], Opened]) -> tuple[Opened, int | None]:
    """What was opened and its number of commits, and room beside it; which is given up for a start on a full disk.
    Raises StartFailed."""
    if room is None:
        return (opened := open_it()), _load_commits(opened.writer)
    room.find()
    try:
        while True:
            try:
                opened = open_it()
                break
            except StartFailed as problem:
                if not (_is_no_space(problem.__cause__) and room.give_up()):
                    raise
        commits = _load_commits(opened.writer)
        if commits is not None:
            # The end of the process before may have come between a commit and this.
            room.note_commits(commits)
        if not room.is_used:
            # Else the rest of what was given is for whoever is to start after this; it is taken back in a while.
            room.grow()
    except BaseException:
        room.close()
        raise
    return opened, commits


def _load_commits(writer: sqlite3.Connection) -> int | None:
    """None where the database does not count them. Raises StartFailed."""
    try:
        if writer.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            return None
        return meta.load_commits(writer)
    except sqlite3.Error as problem:
        raise StartFailed(f"the number of commits cannot be read: {problem}", hint=remedy(problem)) from problem
