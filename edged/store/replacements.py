"""Another file in the trust database's place, while edged is stopped: a backup, or a new one.

What stood there is set aside under a name with the time, never deleted. Nothing here looks whether edged is stopped:
the caller holds the folder (store.folders).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from edged.credentials.identities import ALL
from edged.errors import StartFailed
from edged.store import backups, meta, restores, revocations, usage
from edged.store.backups import BackupFailed
from edged.store.migrating import Incomplete, NewerSchema, NotOurs, check, migrate
from edged.store.migrations import TRUST
from edged.store.opening import set_aside
from edged.store.reserve import read_commits
from edged.store.revocations import CutOff


def restore(source: Path, database: Path, now: datetime) -> Path | None:
    """Put a marked copy of `source` in the place of the trust database; where what stood there is now, None if nothing
    did. Raises StartFailed; then everything is as it was."""
    part = database.with_name(f".{database.stem}.part")
    try:
        with closing(_open_read_only(source)) as opened:
            schema = check(opened, TRUST)
            if schema == 0:
                raise StartFailed(f"{source} is empty", hint="name a backup of the trust database")
            backups.remove(part)
            backups.copy(opened, part, partial(restores.mark_copy, now=now.timestamp()))
            backups.verify(part, schema)
    except NewerSchema as problem:
        raise StartFailed(
            f"{source} has schema {problem.found}, this edged knows up to {problem.known}",
            hint="install the edged that wrote it, or name an older backup",
        ) from None
    except (NotOurs, Incomplete) as problem:
        raise StartFailed(f"{source} is no trust database of edged: {problem}", hint="name a backup of it") from None
    except (sqlite3.Error, OSError, BackupFailed) as problem:
        backups.remove(part)
        raise StartFailed(f"{source} cannot be restored: {problem}", hint="name another backup") from problem
    try:
        return _put(part, database, now)
    except OSError as problem:
        backups.remove(part)
        raise StartFailed(
            f"{database} cannot be replaced: {problem.strerror}", hint="as the user edged, or as root"
        ) from problem


def begin_anew(database: Path, usage_database: Path, reserve: Path, now: datetime) -> Path | None:
    """Set the trust database aside and make one without keys, users and revocations; where what stood there is now.

    Tokens of before are refused for good, because nobody knows any more which were revoked. Raises StartFailed.
    """
    part = database.with_name(f".{database.stem}.part")
    backups.remove(part)
    known = max(
        _read(database, meta.load_commits), _read(usage_database, usage.load_trust_commits), read_commits(reserve)
    )
    epoch = restores.leap(_read(database, meta.load_epoch), known, now.timestamp())
    try:
        with closing(backups.create(part)) as fresh:
            migrate(fresh, TRUST)
            fresh.execute("BEGIN IMMEDIATE")
            meta.raise_commits(fresh, known + 1)
            meta.save_epoch(fresh, epoch)
            line = CutOff(ALL, now.timestamp(), now.timestamp(), "the trust database was begun anew", epoch=epoch)
            revocations.cut_off(fresh, line)
            fresh.execute("COMMIT")
        aside = _put(part, database, now)
    except (OSError, sqlite3.Error) as problem:
        backups.remove(part)
        raise StartFailed(
            f"no new trust database can be made at {database}: {problem}", hint="as the user edged, or as root"
        ) from problem
    return aside


def _put(part: Path, database: Path, now: datetime) -> Path | None:
    backups.sync_file(part)
    if os.geteuid() == 0:
        # Root does this for the user that edged runs as, whose folder it is.
        owner = database.parent.stat()
        os.chown(part, owner.st_uid, owner.st_gid)
    aside = set_aside(database, now)
    part.rename(database)
    backups.sync_folder(database.parent)
    return aside


def _open_read_only(source: Path) -> sqlite3.Connection:
    """Raises OSError where there is no file, sqlite3.Error."""
    source.stat()
    # With a log beside it what stands in that counts; without one nothing is written beside it.
    mode = "mode=ro" if source.with_name(f"{source.name}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{source.absolute().as_uri()}?{mode}", uri=True)


def _read(database: Path, load: Callable[[sqlite3.Connection], int]) -> int:
    """0 where it cannot be read: that may be why it is replaced."""
    with suppress(OSError, sqlite3.Error), closing(_open_read_only(database)) as opened:
        return load(opened)
    return 0
