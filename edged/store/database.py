"""One SQLite file: one thread that writes, one transaction per job; readers beside it.

Rules of this file:

* Connections run with `isolation_level=None`, and only `jobs.transact` says BEGIN and COMMIT. What belongs
  together is raw SQL in one job: sqlite-utils 3.38 silently commits an open transaction in insert,
  upsert and transform, and 4.x does not. A job that ends its transaction itself is an error here.
* A caller that goes away does not take its job along: once accepted, a job runs to its end.
* What `write` says has failed does not come true later (store.jobs).
* A transaction that may stand and finds no space gets the WAL's own blocks, then the reserve; no other does.
* The writer's queue is bounded, so that a slow disk shows as `Overloaded` and never as memory.
* Nothing of sqlite3 leaves this package: its errors become StoreFailed, or StartFailed while opening.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog
import trio

from edged.errors import Overloaded, StoreFailed
from edged.repeats import Lasting
from edged.store.jobs import Job, Scrub, Transaction, do_nothing, overwrite, run_again
from edged.store.migrations import Migrations
from edged.store.opening import Opened, Synchronous, damage_remedy, find_damage, open_file, open_with_reserve
from edged.store.reserve import Reserve
from edged.store.sqlite_errors import cause, remedy

T = TypeVar("T")

#: (name of the database, seconds that COMMIT took).
ObserveCommit: TypeAlias = Callable[[str, float], None]

#: Jobs waiting for the writer before the next one is refused.
QUEUE_SIZE = 64
#: A file too large to be checked before the start went on is checked after so many seconds without a job.
_CHECK_SECONDS = 1.0
#: Between tries to overwrite a failed commit, seconds.
_OVERWRITE_SECONDS = 5.0
#: Between tries to allocate the reserve anew, where no commit does it sooner, seconds.
_GROW_SECONDS = 60.0
_log = structlog.get_logger("store")


def _ignore(_name: str, _seconds: float) -> None:
    """Nobody measures commits."""


class Reads(Protocol):
    """A database for whoever only reads it: what changes credentials commits by accounts.registrar alone."""

    async def read(self, query: Transaction[T]) -> T: ...
    def read_now(self, query: Transaction[T]) -> T: ...


class Database:
    """An open database; made by `open`."""

    def __init__(self, path: Path, name: str, opened: Opened, queue_size: int, observe_commit: ObserveCommit,
                 reserve: Reserve | None) -> None:  # fmt: skip
        self.path = path
        self.name = name
        self._reader = opened.reader
        self._reading = threading.Lock()
        self._readers = trio.CapacityLimiter(1)
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._queue_size = queue_size
        self._observe_commit = observe_commit
        self._reserve = reserve
        #: How many commits it has been through; None where they are not counted.
        self.commits = opened.commits
        #: How many the reserve said that it had been through when it was opened.
        self.known_commits = 0 if reserve is None else reserve.commits
        self._required: Transaction[Any] | None = None
        self._closed = False
        self._lasting = Lasting()
        # Of the writer's thread: the last job failed; the disk fails commits; a failed commit must be overwritten.
        self._failed = False
        self._failing = False
        self._overwrite_due = False
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
        reserve: Path | None = None,
        proofs: Sequence[Path] = (),
        is_expendable: bool = False,
    ) -> AsyncIterator[Database]:
        """Open, or make, the database at `path`, brought up to date by `migrations`.

        Missing folders are made with mode 0700, the file has 0600. `name` stands in errors, metrics and the
        thread's name. One with a table `meta` counts its commits there. `reserve` is the path of the reserve file
        (store.reserve), None for none. `proofs` and `is_expendable`: store.opening. On exit every accepted job is done
        before the file is closed. Raises StartFailed.
        """
        kept = None if reserve is None else Reserve(reserve)
        shown = () if not proofs or kept is None else (*proofs, *kept.files)
        open_it = partial(open_file, path, migrations, name, synchronous, proofs=shown, is_expendable=is_expendable)
        opened = await trio.to_thread.run_sync(open_with_reserve, kept, open_it)
        database = cls(path, name, opened, queue_size, observe_commit, kept)
        try:
            yield database
        finally:
            await database._close()

    @property
    def reserve_bytes(self) -> int | None:
        """The size of the reserve, bytes; None if it has none."""
        return None if self._reserve is None else self._reserve.size

    @property
    def has_reserve(self) -> bool:
        """Whether the reserve is whole; True if it is to have none."""
        return self._reserve is None or self._reserve.is_whole

    @property
    def is_saving(self) -> bool:
        """False after the disk failed a commit, until it has taken one without the reserve."""
        return not self._failing

    async def write(self, transaction: Transaction[T], *, may_stand: bool = False) -> T:
        """Run one transaction in the writer's thread; its result once it is committed.

        Raises Overloaded when the queue is full (nothing was done; never with `may_stand`), StoreFailed when SQLite
        failed (nothing was committed, and the error says so), or whatever `transaction` raised (rolled back). A
        cancelled caller does not cancel the job.
        `may_stand`: should its sync fail, it does no harm if it is found committed after a restart (a revocation): the
        error then says nothing of what was done; and should there be no space, it may use the reserve.
        """
        return await self._do(Job(transaction, may_stand), may_wait=may_stand)

    async def require(self, transaction: Transaction[object]) -> None:
        """Commit this now; and should that fail, nothing else is committed without it. Raises as `write`."""
        self._required = transaction
        await self.write(do_nothing, may_stand=True)

    async def scrub(self) -> None:
        """Write the file anew and empty its log: nothing that was deleted is left in them. Raises as `write`."""
        await self._do(Scrub())

    async def _do(self, job: Job[T], *, may_wait: bool = False) -> T:
        if self._closed:
            raise StoreFailed(
                f"database {self.name} is closed", hint="edged is stopping: ask again once it is back", in_force=False
            )
        # Revocations come one at a time (accounts.registrar), and are never too many.
        if self._waiting >= self._queue_size and not may_wait:
            raise Overloaded(
                f"{self._waiting} writes wait for database {self.name}", hint="try again in a moment", in_force=False
            )
        self._waiting += 1
        self._jobs.put(job)
        await job.finished.wait()
        return job.outcome(partial(self._describe, "write"))

    async def read(self, query: Transaction[T]) -> T:
        """Run a query in a thread, on one snapshot of what is committed. Raises StoreFailed."""
        return await trio.to_thread.run_sync(self.read_now, query, limiter=self._readers)

    def read_now(self, query: Transaction[T]) -> T:
        """The same in the calling thread: for start-up, before anybody waits. Raises StoreFailed."""
        try:
            with self._reading, _snapshot(self._reader) as connection:
                found = query(connection)
        except sqlite3.Error as problem:
            raise self._describe("read", problem) from problem
        self._note_success("read")
        return found

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
        while True:
            try:
                job = self._jobs.get(timeout=self._pause())
            except queue.Empty:
                self._mind(connection)
                continue
            if job is None:
                break
            self._run(job, connection)
            self._tell(partial(self._finish, job))
            if self._is_reserve_short():
                self._grow()
        with suppress(sqlite3.Error):
            connection.close()
        if self._reserve is not None:
            self._reserve.close()
        self._tell(self._ended.set)

    def _pause(self) -> float | None:
        """Seconds without a job after which there is something else to do (`_mind`); None: there is nothing."""
        if self._overwrite_due:
            return _OVERWRITE_SECONDS
        if not self._is_checked:
            return _CHECK_SECONDS
        return _GROW_SECONDS if self._failing or self._is_reserve_short() else None

    def _mind(self, connection: sqlite3.Connection) -> None:
        """What was put off until no job waits, one thing at a time."""
        if not self._is_checked:
            self._is_checked = True
            self._check(connection)
        elif self._overwrite_due or self._failing:
            # It changes nothing, and shows whether the disk takes a commit again.
            self._overwrite_due = self._failing = not overwrite(connection)
        else:
            self._grow()

    def _is_reserve_short(self) -> bool:
        """Whether to allocate it anew. A disk that failed the last job is not asked for more."""
        return self._reserve is not None and not self._reserve.is_whole and not self._failed

    def _grow(self) -> None:
        if self._reserve is not None:
            self._reserve.grow()

    def _run(self, job: Job[Any], connection: sqlite3.Connection) -> None:
        """All that comes before the job's caller is told."""
        required = self._required
        run = partial(job.run, connection, required, self.commits is not None)
        run()
        used_reserve = job.lacks_space
        if job.lacks_space and self._reserve is not None:
            run_again(job, run, connection, self._reserve)
            if job.commit_seconds is not None:
                # What it left over is for other revocations, so it is taken back at once.
                self._reserve.grow()
        if job.commits is not None and job.commit_seconds is not None:
            if self._required is required:
                self._required = None
            self.commits = job.commits
            if self._reserve is not None:
                # Whoever is told that something is revoked can rely on it.
                self._reserve.note_commits(job.commits)
        self._failed = job.commit_seconds is None
        if used_reserve or job.failed_by_disk:
            self._failing = True
        elif not self._failed:
            self._failing = False
        if job.may_return:
            # After its caller was told a kill may come.
            self._overwrite_due = not overwrite(connection)
        elif not self._failed:
            self._overwrite_due = False

    def _check(self, connection: sqlite3.Connection) -> None:
        """In the writer's thread, while no job waits."""
        try:
            damage = find_damage(connection)
        except sqlite3.Error as problem:
            damage = str(problem)
        if damage:
            self.damage = damage
            _log.error("database_damaged", db=self.name, problem=damage, remedy=damage_remedy(self.path, None))

    def _tell(self, news: Callable[[], None]) -> None:
        # The loop may be gone if it broke down: then nobody listens any more.
        with suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(news)

    def _finish(self, job: Job[Any]) -> None:
        self._waiting -= 1
        if job.commit_seconds is not None:
            self._observe_commit(self.name, job.commit_seconds)
            self._note_success("write")
        job.finished.set()

    def _note_success(self, doing: str) -> None:
        if self._lasting.ends(doing):
            _log.info("database_works_again", db=self.name, doing=doing)

    def _describe(self, doing: str, problem: sqlite3.Error) -> StoreFailed:
        if self._lasting.begins(doing, str(problem)):
            _log.error("database_failed", db=self.name, doing=doing, problem=str(problem))
        return StoreFailed(f"database {self.name}: {cause(problem)}", hint=remedy(problem), db=self.name)


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
