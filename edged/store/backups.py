"""Verified copies of a database, beside it: `backups/trust-0003-schema1-20270131T120000Z.db`.

Made before a migration changes a file, and for whoever goes back to the edged of before. The serial number, and not
the time, says which is the newest: a box without a real-time clock may live through the same hour twice.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from edged.store import restores

#: Copies of one database that are kept.
KEPT: Final = 3
_NAME = re.compile(r"(?P<stem>.+)-(?P<serial>\d{4,})-schema(?P<schema>\d+)-\d{8}T\d{6}Z\.db", re.ASCII)
_log = structlog.get_logger("store")


class BackupFailed(Exception):
    """There is no good copy; the text says why. The cause is OSError or sqlite3.Error where there is one."""


class Backup(msgspec.Struct, frozen=True, order=True):
    """One copy; orders by age, the newest last."""

    serial: int
    schema: int
    path: Path


def folder_of(database: Path) -> Path:
    """Where the copies of a database lie."""
    return database.parent / "backups"


def find(database: Path) -> list[Backup]:
    """The copies of a database, the newest last; none where there is no folder, or none that may be read."""
    try:
        names = [entry.name for entry in folder_of(database).iterdir()]
    except OSError:
        return []
    found = [match for name in names if (match := _NAME.fullmatch(name)) and match["stem"] == database.stem]
    return sorted(Backup(int(each["serial"]), int(each["schema"]), folder_of(database) / each[0]) for each in found)


def make(connection: sqlite3.Connection, database: Path, schema: int, now: datetime | None = None) -> Path:
    """Copy the database that `connection` has open, and read the copy back; then forget what is more than `KEPT`.
    The copy of a trust database is marked as one (store.restores).

    The copy has mode 0600, its folder 0700; it is whole and on the disk, or BackupFailed is raised and it is not there.
    """
    before = find(database)
    serial = before[-1].serial + 1 if before else 1
    time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    target = folder_of(database) / f"{database.stem}-{serial:04}-schema{schema}-{time}.db"
    part = target.parent / f".{database.stem}.part"
    with _all_or_nothing(part, f"{target} cannot be written"):
        target.parent.mkdir(mode=0o700, exist_ok=True)
        # What an earlier try left when the power went.
        part.unlink(missing_ok=True)
        copy(connection, part, partial(restores.mark_copy, now=(now or datetime.now(UTC)).timestamp()))
        _put(part, target, schema)
    _log.info("backup_made", path=str(target), schema=schema)
    for old in _spare(find(database)):
        remove(old.path)
    return target


def change_all(database: Path, edit: Callable[[sqlite3.Connection], bool]) -> int:
    """Take something out of the copies of a database, so that nothing of it is left in the files; out of how many.

    `edit` changes one, and says whether it did. Each is replaced by one that was read back and is on the disk. Raises
    BackupFailed; that one is then as it was.
    """
    part = folder_of(database) / f".{database.stem}.part"
    remove(part)
    return sum(_change(backup, part, edit) for backup in find(database))


def _change(backup: Backup, part: Path, edit: Callable[[sqlite3.Connection], bool]) -> bool:
    with _all_or_nothing(part, f"{backup.path} cannot be changed"):
        with closing(sqlite3.connect(f"{backup.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as opened:
            copy(opened, part)
        with closing(sqlite3.connect(part, isolation_level=None)) as opened:
            # The journal, which holds what is taken out, is in memory.
            opened.execute("PRAGMA journal_mode = MEMORY")
            if not edit(opened):
                remove(part)
                return False
            opened.execute("VACUUM")
        sync_file(part)
        _put(part, backup.path, backup.schema)
    return True


@contextmanager
def _all_or_nothing(part: Path, failure: str) -> Iterator[None]:
    """If this fails nothing is left of `part`. Raises BackupFailed, which begins with `failure`."""
    try:
        yield
    except (OSError, sqlite3.Error) as problem:
        remove(part)
        said = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise BackupFailed(f"{failure}: {said}") from problem
    except BackupFailed:
        remove(part)
        raise


def _spare(found: list[Backup]) -> list[Backup]:
    """What is more than `KEPT`: first the older copies of a schema that has a newer one, then the oldest.

    A migration that fails at every start makes a copy at every start; these do not push out the one of before.
    """
    newest = {backup.schema: backup for backup in found}
    doubles = [backup for backup in found if backup is not newest[backup.schema]]
    return [*doubles, *sorted(newest.values())][: max(0, len(found) - KEPT)]


def copy(
    connection: sqlite3.Connection, part: Path, edit: Callable[[sqlite3.Connection], object] | None = None
) -> None:
    """Into a new file, which nobody else may read, and which `edit` may change before it is on the disk."""
    with closing(create(part)) as made:
        connection.backup(made)
        # One file that needs no other beside it, also on a medium that cannot be written.
        made.execute("PRAGMA journal_mode = DELETE")
        if edit is not None:
            edit(made)
    sync_file(part)


def create(part: Path) -> sqlite3.Connection:
    """A new file, which nobody else may read. Raises OSError if there is one."""
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(part, isolation_level=None)


def verify(part: Path, schema: int) -> None:
    """Raises BackupFailed, or sqlite3.Error where not even a question can be asked."""
    with closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise BackupFailed(f"the copy in {part.parent} is damaged: {' '.join(found.split())}")
        version = copy.execute("PRAGMA user_version").fetchone()[0]
        if version != schema:
            raise BackupFailed(f"the copy in {part.parent} has schema {version} and not {schema}")


def _put(part: Path, target: Path, schema: int) -> None:
    """Read back what was written; then it is a copy."""
    verify(part, schema)
    part.rename(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make what stands in a file durable. Raises OSError."""
    _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file that is of no use, and what SQLite may keep beside it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
    for left in ("-journal", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + left).unlink(missing_ok=True)
