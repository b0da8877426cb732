"""Opening one SQLite file: what it must be, what is done about damage, and what an operator is told.

A file that only counts is set aside when it is damaged, and begun anew. One that must never be lost stops the start:
when it is damaged, and when it has vanished although something shows that there was one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import structlog

from edged.errors import StartFailed
from edged.store import backups, meta, restores
from edged.store.backups import BackupFailed
from edged.store.migrating import Incomplete, NewerSchema, NotOurs, check, migrate
from edged.store.migrations import Migrations
from edged.store.reserve import Reserve
from edged.store.sqlite_errors import is_damage, is_no_space, remedy

#: FULL: durable before `write` returns, also through a power cut. NORMAL: the last commits may be lost by one.
Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

#: Files up to so many bytes are checked before the start goes on, larger ones right after it: 1.1 ms for 0.3 MB, 4.5 ms
#: for 1.1 MB, 17 ms for the 4.1 MB of 20,000 keys, and three to five times as much on a Raspberry Pi.
_CHECKED_AT_ONCE: Final = 1024 * 1024
_BUSY_SECONDS: Final = 5.0
#: What SQLite keeps beside a file, by what is added to its name.
BESIDE: Final = ("-wal", "-shm", "-journal")
_log = structlog.get_logger("store")


class Opened(NamedTuple):
    """Writer and reader of an up-to-date file; whether its content was checked, or is still to be; how many commits it
    has been through, None where they are not counted."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    is_checked: bool
    commits: int | None = None


class Damaged(StartFailed):
    """The file is there, and is not what it should be."""


def open_with_reserve(reserve: Reserve | None, open_it: Callable[[], Opened]) -> Opened:
    """What `open_it` opens (`open_file`), and the reserve beside it; parts of which are given up where opening finds no
    space. Raises StartFailed; the reserve is closed then."""
    if reserve is None:
        return _count_commits(open_it())
    reserve.find()
    try:
        while True:
            try:
                opened = _count_commits(open_it())
                break
            except StartFailed as problem:
                if not (is_no_space(problem.__cause__) and reserve.give_up()):
                    raise
        if opened.commits is not None:
            # The process before may have ended between a commit and this.
            reserve.note_commits(opened.commits)
        if not reserve.is_used:
            # Else the space is needed by whatever starts next; the writer takes it back later.
            reserve.grow()
    except BaseException:
        reserve.close()
        raise
    return opened


def open_file(
    path: Path, migrations: Migrations, name: str, synchronous: Synchronous, *, proofs: Sequence[Path] = (),
    is_expendable: bool = False,
) -> Opened:  # fmt: skip
    """Open, or make, the file at `path`, and bring it up to date. Raises StartFailed.

    `proofs`: files that show that there was a database, as a backup does: one that is missing beside them was lost.
    `is_expendable`: a damaged one is renamed, and a new one made.
    """
    try:
        return _open(path, migrations, name, synchronous, proofs, is_expendable)
    except Damaged as problem:
        if not is_expendable:
            raise
        try:
            aside = set_aside(path, datetime.now(UTC))
        except OSError:
            raise problem from None
        forget_set_aside(path, backups.KEPT)
        _log.error(
            "database_set_aside", db=name, problem=problem.sentence, set_aside=str(aside),
            remedy="it only counts: nothing has to be done; look for disk errors: journalctl -k",
        )  # fmt: skip
        return _open(path, migrations, name, synchronous, proofs, is_expendable)


def _open(
    path: Path, migrations: Migrations, name: str, synchronous: Synchronous, proofs: Sequence[Path],
    is_expendable: bool,
) -> Opened:  # fmt: skip
    try:
        # The folder may be reached over a link; the files in it may be none, for they are written and get a mode.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (path, *(path.with_name(path.name + added) for added in BESIDE)):
            _refuse_other_than_file(each, name)
        if proofs and not path.exists():
            _refuse_vanished(path, name, proofs)
        # SQLite gives -wal and -shm the mode of the file itself, so that is set before it sees it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise StartFailed(
            f"database {name} at {path} cannot be opened: {problem.strerror}",
            hint="make its folder writable for the user that edged runs as",
        ) from problem
    is_checked = is_expendable or size <= _CHECKED_AT_ONCE
    opened: list[sqlite3.Connection] = []
    try:
        # Before anything is set that the file remembers.
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as looker:
            if check(looker, migrations) == 0 and proofs:
                _refuse_vanished(path, name, proofs)
            if is_checked and (damage := find_damage(looker)):
                raise Damaged(
                    f"database {name} at {path} is damaged: {damage}", hint=damage_remedy(path, len(migrations))
                )
        opened.append(writer := _connect(path, synchronous))
        migrate(writer, migrations, partial(backups.make, writer, path))
        opened.append(reader := _connect(path, synchronous))
        reader.execute("PRAGMA query_only = ON")
    except BaseException as problem:
        for connection in opened:
            connection.close()
        if (told := _explain(problem, path, migrations, name)) is None:
            raise
        raise told from (problem if isinstance(problem, (sqlite3.Error, BackupFailed)) else None)
    return Opened(writer, reader, is_checked)


def _count_commits(opened: Opened) -> Opened:
    """Raises StartFailed."""
    try:
        if opened.writer.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            return opened
        return opened._replace(commits=meta.load_commits(opened.writer))
    except sqlite3.Error as problem:
        raise StartFailed(f"the number of commits cannot be read: {problem}", hint=remedy(problem)) from problem


def _explain(problem: BaseException, path: Path, migrations: Migrations, name: str) -> StartFailed | None:
    """What an operator is told; None for what is no trouble of the file."""
    if isinstance(problem, NewerSchema):
        return StartFailed(
            f"database {name} at {path} has schema {problem.found}, this edged knows up to {problem.known}",
            hint=f"install the edged that wrote it, or {_name_backup(path, problem.known)}",
            found=problem.found,
            known=problem.known,
        )
    if isinstance(problem, BackupFailed):
        return StartFailed(
            f"database {name} at {path} is left as it is, because there is no copy of it yet: {problem}",
            hint=_backup_remedy(problem.__cause__),
        )
    if isinstance(problem, NotOurs):
        return Damaged(
            f"database {name} at {path} is not one of edged's: it holds {problem}",
            hint="move it away, or point paths.state at another folder",
        )
    if isinstance(problem, Incomplete):
        return Damaged(
            f"database {name} at {path} is damaged, or none of edged's: {problem}",
            hint=f"it was left as it is; {damage_remedy(path, len(migrations))}",
        )
    if isinstance(problem, sqlite3.Error):
        kind = Damaged if is_damage(problem) else StartFailed
        hint = damage_remedy(path, len(migrations)) if is_damage(problem) else remedy(problem)
        return kind(f"database {name} at {path}: {problem}", hint=hint)
    return None


def find_damage(connection: sqlite3.Connection) -> str:
    """What quick_check says first; "" if all is well. Raises sqlite3.Error."""
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if found == "ok" else " ".join(found.split())


def leave_marker(path: Path) -> None:
    """A proof that there is a trust database in this folder. Where it cannot be left there are others."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(
                "edged has a trust database in this folder: if that is gone, edged does not begin anew unasked\n"
            )


def set_aside(database: Path, now: datetime) -> Path | None:
    """Rename a database and what SQLite keeps beside it: `trust-20270131T120000Z.db`; None if there is none.

    Raises OSError.
    """
    aside = _free_name(database, now)
    found = None
    for added in (*BESIDE, ""):
        each = database.with_name(database.name + added)
        if each.exists():
            each.rename(aside.with_name(aside.name + added))
            found = aside
    if found is not None:
        backups.sync_folder(database.parent)
    return found


def forget_set_aside(database: Path, kept: int) -> None:
    """Delete what was set aside of a database that only counts, but for the newest few."""
    found = sorted(database.parent.glob(f"{database.stem}-[0-9]*T[0-9]*Z*{database.suffix}"))
    for path in found[: max(0, len(found) - kept)]:
        backups.remove(path)


def _free_name(database: Path, now: datetime) -> Path:
    stem = f"{database.stem}-{now.strftime('%Y%m%dT%H%M%SZ')}"
    names = (f"{stem}{number}{database.suffix}" for number in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(path for name in names if not (path := database.with_name(name)).exists())


def _refuse_vanished(path: Path, name: str, proofs: Sequence[Path]) -> None:
    """Raises StartFailed if something shows that there was a database."""
    found = [proof.name for proof in proofs if _is_proof(proof)]
    copies = backups.find(path)
    if copies:
        found.append(f"backups/{copies[-1].path.name}")
    if found:
        raise StartFailed(
            f"database {name} at {path} is missing or empty, and there was one: {', '.join(found)}",
            hint=f"nobody knows what was revoked in it; {damage_remedy(path, None)}",
        )


def _is_proof(path: Path) -> bool:
    with suppress(OSError):
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_size > 0
    return False


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


def _name_backup(path: Path, known: int) -> str:
    """What to restore so that an edged that knows `known` steps can open it."""
    usable = [backup for backup in backups.find(path) if backup.schema <= known]
    if usable:
        return f"put its backup in its place, while edged is stopped: {restores.command(path, usable[-1].path)}"
    told = f"restore a backup from before (there is none in {backups.folder_of(path)})"
    return f"{told} while edged is stopped: edged trust restore FILE" if path.stem == "trust" else told


def damage_remedy(path: Path, known: int | None) -> str:
    """What to do about a database that is gone or damaged; `known` None: any backup will do."""
    copies = backups.find(path)
    told = _name_backup(path, known if known is not None else max((each.schema for each in copies), default=0))
    return f"{told}; or begin without keys and users: edged trust begin-anew" if path.stem == "trust" else told


def _backup_remedy(problem: BaseException | None) -> str:
    if isinstance(problem, sqlite3.Error):
        return remedy(problem)
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space on the disk that holds it"
    if isinstance(problem, OSError):
        return "make the folder writable for the user that edged runs as, and look for disk errors: journalctl -k"
    # The copy could be read and is not sound, so neither may be the file itself.
    return "look for disk errors (journalctl -k), or restore an earlier backup"
