"""One transaction on its way through a database's writer thread (store.database).

What a job says has failed does not come true later: a COMMIT whose sync fails leaves whole frames in the WAL, and a
process that starts after a kill takes them for committed. `Job.may_return` tells the writer to `overwrite` them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast

import trio

from edged.errors import StoreFailed
from edged.store import meta
from edged.store.migrating import schema_version
from edged.store.reserve import Reserve
from edged.store.sqlite_errors import is_no_space, is_of_disk, may_have_written

T = TypeVar("T")

#: What a transaction is: a function of a connection. It may raise; then nothing happened.
Transaction: TypeAlias = Callable[[sqlite3.Connection], T]


class CommitFailed(Exception):
    """The disk failed COMMIT itself, not what came before it; the cause is SQLite's error."""


class Job(Generic[T]):
    """One transaction; `finished` is set in the event loop's thread. `may_stand`: store.database."""

    __slots__ = (
        "_error", "_may_stand", "_value", "commit_seconds", "commits", "finished", "lacks_space", "may_return",
        "transaction",
    )  # fmt: skip

    def __init__(self, transaction: Transaction[T], may_stand: bool) -> None:
        self.transaction = transaction
        self.finished = trio.Event()
        #: How long COMMIT took; None unless it succeeded.
        self.commit_seconds: float | None = None
        #: The number of this commit, where they are counted and it changed something.
        self.commits: int | None = None
        #: It failed, and what it wrote may be found committed after a kill, which must not be.
        self.may_return = False
        #: It may stand, and failed perhaps for lack of space: worth another try when there is some.
        self.lacks_space = False
        self._may_stand = may_stand
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self, connection: sqlite3.Connection, required: Transaction[Any] | None, counts: bool) -> None:
        """In the writer's thread; keeps the outcome, whatever it is. A second run begins anew.

        `required` is committed with it; `counts`: the database counts its commits.
        """
        self._error, self.lacks_space = None, False
        try:
            self._value, self.commit_seconds = transact(
                connection, partial(self._do, required=required) if counts else self.transaction
            )
        except CommitFailed as problem:
            self._error = problem.__cause__
            self.may_return = not self._may_stand
        except BaseException as problem:
            self._error = problem
        self.lacks_space = self._may_stand and is_no_space(self._error)

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
        """Whether any other job would have failed as well."""
        return is_of_disk(self._error)

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


class Scrub(Job[None]):
    """Writes the file anew, which no transaction can."""

    def __init__(self) -> None:
        super().__init__(do_nothing, may_stand=True)

    def run(self, connection: sqlite3.Connection, _required: Transaction[Any] | None, _counts: bool) -> None:
        """In the writer's thread."""
        try:
            connection.execute("VACUUM")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("somebody reads it, so that its log could not be emptied")
        except BaseException as problem:
            self._error = problem


def do_nothing(_connection: sqlite3.Connection) -> None:
    """The transaction of a job that changes nothing by itself."""


def transact(connection: sqlite3.Connection, transaction: Transaction[T]) -> tuple[T, float]:
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
            if not may_have_written(problem):
                raise
            raise CommitFailed from problem
    except BaseException:
        # A failed COMMIT may or may not have rolled back already.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
    return value, time.perf_counter() - started


def run_again(job: Job[Any], run: Callable[[], None], connection: sqlite3.Connection, reserve: Reserve) -> None:
    """A job lacked space: run it again, first in the blocks that the WAL has already, then with more and more of the
    reserve."""
    with suppress(sqlite3.Error):
        # Once all of the WAL is in the file itself the next commit goes to its beginning.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        run()
    while job.lacks_space and reserve.give_up():
        run()


def overwrite(connection: sqlite3.Connection) -> bool:
    """Put an empty commit where a failed one stands in the WAL; whether that is known to be on the disk.

    If it is not, its frames are in the page cache all the same, so that a kill brings nothing back.
    """
    try:
        version = schema_version(connection)
        # Writes the first page, also with the number that it has.
        transact(connection, lambda c: c.execute(f"PRAGMA user_version = {version}"))
    except (sqlite3.Error, CommitFailed):
        return False
    return True
