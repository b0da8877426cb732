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

import errno
import os
import queue
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

import structlog
import trio

from edged.errors import Overloaded, StartFailed, StoreFailed
from edged.store import backups, meta, restores
from edged.store.backups import BackupFailed
from edged.store.migrations import Incomplete, Migrations, NewerSchema, NotOurs, check, migrate, schema_version
from edged.store.room import Room

T = TypeVar("T")

#: What a transaction is: a function of a connection. It may raise; then nothing happened.
Transaction: TypeAlias = Callable[[sqlite3.Connection], T]
#: (name of the database, seconds that COMMIT took).
ObserveCommit: TypeAlias = Callable[[str, float], None]
#: FULL: durable before `write` returns, also through a power cut. NORMAL: the last commits may be lost by one.
Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

#: Jobs waiting for the writer before the next one is refused.
QUEUE_SIZE = 64
_BUSY_SECONDS = 5.0
#: What SQLite keeps beside a file, by what is added to its name.
_BESIDE = ("-wal", "-shm")
#: Between tries to write over a failed commit, seconds.
_AGAIN_SECONDS = 5.0
#: Between tries to make room for denials anew, where no commit does it sooner, seconds.
_GROW_SECONDS = 60.0
_log = structlog.get_logger("store")

#: What to do about the errors that an operator can mend.
_REMEDIES: Mapping[str, str] = {
    "SQLITE_FULL": "free space on the disk that holds it",
    "SQLITE_READONLY": "make file and folder writable for edged; is the disk mounted read-only?",
    "SQLITE_IOERR": "look for disk errors: journalctl -k",
    "SQLITE_CORRUPT": "restore a backup",
    "SQLITE_NOTADB": "restore a backup, or move the file away",
    "SQLITE_CANTOPEN": "make the folder accessible for edged",
    "SQLITE_BUSY": "end the other program that has it open",
}


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
        return isinstance(self._error, sqlite3.Error) and _error_name(self._error).startswith(_DISK_ERRORS)

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


class Database:
    """An open database; made by `open`."""

    def __init__(self, path: Path, name: str, writer: sqlite3.Connection, reader: sqlite3.Connection,
                 queue_size: int, observe_commit: ObserveCommit, room: Room | None,
                 commits: int | None) -> None:  # fmt: skip
        self.path = path
        self.name = name
        self._reader = reader
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
        self._loop = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._work, args=(writer,), name=f"store-{name}", daemon=True)
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
    ) -> AsyncIterator[Database]:
        """Open, or make, the database at `path`, brought up to date by `migrations`.

        Missing folders are made with mode 0700, the file has 0600. `name` stands in errors, metrics and the
        thread's name. One with a table `meta` counts its commits there. `room` is where blocks are kept for what may
        stand (store/room.py), None for none. On exit every accepted job is done before the file is closed. Raises
        StartFailed.
        """
        kept = None if room is None else Room(room)
        writer, reader, commits = await trio.to_thread.run_sync(_open_with, kept, path, migrations, name, synchronous)
        database = cls(path, name, writer, reader, queue_size, observe_commit, kept, commits)
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

        Raises Overloaded when the queue is full (nothing was done), StoreFailed when SQLite failed (nothing was
        committed, and the error says so), or whatever `transaction` raised (rolled back). A cancelled caller does not
        cancel the job.
        `may_stand`: should its sync fail, it is no harm if it is found committed after a restart (a denial): the error
        then says nothing of what was done; and should there be no space, it may use what is kept for denials.
        """
        return await self._do(_Job(transaction, may_stand))

    async def require(self, transaction: Transaction[object]) -> None:
        """Commit this now; and should that fail, nothing else is committed without it. Raises as `write`."""
        self._required = transaction
        await self.write(_do_nothing, may_stand=True)

    async def scrub(self) -> None:
        """Write the file anew and empty its log: nothing that was deleted is left in them. Raises as `write`."""
        await self._do(_Scrub())

    async def _do(self, job: _Job[T]) -> T:
        if self._closed:
            raise StoreFailed(
                f"database {self.name} is closed", hint="edged is stopping: ask again once it is back", in_force=False
            )
        if self._waiting >= self._queue_size:
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
            try:
                job = self._jobs.get(timeout=_AGAIN_SECONDS if haunted else pause)
            except queue.Empty:
                if haunted or self._failing:
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
        return StoreFailed(f"database {self.name}: {problem}", hint=_remedy(problem), db=self.name)


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
            if not _error_name(problem).startswith(_BY_THE_DISK):
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
    return isinstance(problem, sqlite3.Error) and _error_name(problem) in _NO_SPACE


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


def _open_with(
    room: Room | None, path: Path, migrations: Migrations, name: str, synchronous: Synchronous
) -> tuple[sqlite3.Connection, sqlite3.Connection, int | None]:
    """Writer, reader and the number of commits, and room beside them; which is given up for a start on a full disk.
    Raises StartFailed."""
    if room is None:
        opened = _open(path, migrations, name, synchronous)
        return (*opened, _load_commits(opened[0], path, name))
    room.find()
    try:
        while True:
            try:
                opened = _open(path, migrations, name, synchronous)
                break
            except StartFailed as problem:
                if not (_is_no_space(problem.__cause__) and room.give_up()):
                    raise
        commits = _load_commits(opened[0], path, name)
        if commits is not None:
            # The end of the process before may have come between a commit and this.
            room.note_commits(commits)
        if not room.is_used:
            # Else the rest of what was given is for whoever is to start after this; it is taken back in a while.
            room.grow()
    except BaseException:
        room.close()
        raise
    return (*opened, commits)


def _load_commits(writer: sqlite3.Connection, path: Path, name: str) -> int | None:
    """None where the database does not count them. Raises StartFailed."""
    try:
        if writer.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            return None
        return meta.load_commits(writer)
    except sqlite3.Error as problem:
        raise StartFailed(f"database {name} at {path}: {problem}", hint=_remedy(problem)) from problem


def _open(
    path: Path, migrations: Migrations, name: str, synchronous: Synchronous
) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Writer and reader of an up-to-date file. Raises StartFailed."""
    try:
        # The folder may be reached over a link; the files in it may be none, for they are written and get a mode.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (path, *(path.with_name(path.name + suffix) for suffix in _BESIDE)):
            _refuse_other_than_file(each, name)
        # SQLite gives -wal and -shm the mode of the file itself, so that is set before it sees it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise StartFailed(
            f"database {name} at {path} cannot be opened: {problem.strerror}",
            hint="make its folder writable for the user that edged runs as",
        ) from problem
    opened: list[sqlite3.Connection] = []
    try:
        # Before anything is set that the file remembers.
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as looker:
            check(looker, migrations)
        opened.append(writer := _connect(path, synchronous))
        migrate(writer, migrations, partial(backups.make, writer, path))
        opened.append(reader := _connect(path, synchronous))
        reader.execute("PRAGMA query_only = ON")
        return writer, reader
    except NewerSchema as problem:
        _close_all(opened)
        raise StartFailed(
            f"database {name} at {path} has schema {problem.found}, this edged knows up to {problem.known}",
            hint=f"install the edged that wrote it, or {_name_backup(path, problem.known)}",
            found=problem.found,
            known=problem.known,
        ) from None
    except BackupFailed as problem:
        _close_all(opened)
        raise StartFailed(
            f"database {name} at {path} is left as it is, because there is no copy of it yet: {problem}",
            hint=_backup_remedy(problem.__cause__),
        ) from problem
    except NotOurs as problem:
        _close_all(opened)
        raise StartFailed(
            f"database {name} at {path} is not one of edged's: it holds {problem}",
            hint="move it away, or point paths.state at another folder",
        ) from None
    except Incomplete as problem:
        _close_all(opened)
        raise StartFailed(
            f"database {name} at {path} is damaged, or none of edged's: {problem}",
            hint=f"it was left as it is; {_name_backup(path, len(migrations))}, or move it away to begin anew",
        ) from None
    except sqlite3.Error as problem:
        _close_all(opened)
        raise StartFailed(f"database {name} at {path}: {problem}", hint=_remedy(problem)) from problem


def _refuse_other_than_file(path: Path, name: str) -> None:
    """Raises StartFailed for anything but a plain file; OSError if nobody can tell."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise StartFailed(
            f"database {name}: {path} is {what}, and was left alone",
            hint="put the file itself there, or point paths.state at the folder that holds it",
        )


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    # Each connection is used by one thread at a time (the writer's, or whoever holds the reader's lock).
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        # What is deleted is overwritten: the private half of a retired key, for one.
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _close_all(connections: list[sqlite3.Connection]) -> None:
    for connection in connections:
        connection.close()


def _name_backup(path: Path, known: int) -> str:
    """What to restore so that an edged that knows `known` steps can open it."""
    usable = [backup for backup in backups.find(path) if backup.schema <= known]
    if usable:
        return f"put its backup in its place, while edged is stopped: {restores.command(path, usable[-1].path)}"
    return f"restore a backup from before (there is none in {backups.folder_of(path)})"


def _backup_remedy(problem: BaseException | None) -> str:
    if isinstance(problem, sqlite3.Error):
        return _remedy(problem)
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return _REMEDIES["SQLITE_FULL"]
    if isinstance(problem, OSError):
        return "make the folder writable for the user that edged runs as, and look for disk errors: journalctl -k"
    # The copy could be read and is not sound, so neither may be the file itself.
    return "look for disk errors (journalctl -k), or restore an earlier backup"


def _remedy(problem: sqlite3.Error) -> str:
    # Extended codes refine a primary one: SQLITE_IOERR_FSYNC is a SQLITE_IOERR.
    name = _error_name(problem)
    return next((remedy for code, remedy in _REMEDIES.items() if name.startswith(code)), "see the journal of edged")


def _error_name(problem: sqlite3.Error) -> str:
    """SQLITE_FULL and so on; "" for an error of the sqlite3 module's own."""
    return getattr(problem, "sqlite_errorname", "")
