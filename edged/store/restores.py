"""A trust database that has gone back in time: how it is noticed, and the mark that says so.

What was revoked since such a file was written cannot be known, so it is in force only once an administrator confirms
it (contract 10.10). Two things give one away:

* the mark, a row of `meta` that stands in every copy from the moment it is made (store.backups), and in no other file;
* the number of its commits (`meta.commits`), which is lower than what the usage database or the reserve file say
  that it had been: somebody put an older file there by hand.

The mark stays until the confirmation, over any number of starts. Functions of a connection; `examine` is pure.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, Literal

import msgspec

from edged.store import meta

_MARK: Final = "restored"
#: How often the epoch can rise between two commits, and more.
_EPOCH_BITS: Final = 32


class Restored(msgspec.Struct, frozen=True):
    """The mark: `copy` a copy that edged made, `behind` a file with fewer commits than there were; `at` when it was
    made or noticed, Unix seconds. edged's own tokens of `epoch` or later were made since; None until a start saw it."""

    cause: Literal["copy", "behind"]
    at: float
    epoch: int | None = None


class Lineage(msgspec.Struct, frozen=True):
    """What a trust database says of itself."""

    mark: Restored | None
    commits: int
    epoch: int


def load(connection: sqlite3.Connection) -> Lineage:
    """What this file says of itself."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_MARK,)).fetchone()
    mark = None if row is None else msgspec.json.decode(row[0], type=Restored)
    return Lineage(mark, meta.load_commits(connection), meta.load_epoch(connection))


def examine(found: Lineage, known_commits: int, now: float) -> Restored | None:
    """The mark that this file must bear; None for one that is not older than anything says. `known_commits`: what the
    usage database or the reserve say that it had been through, whichever is more; `now` Unix seconds."""
    is_behind = found.commits < known_commits
    if found.mark is None and not is_behind:
        return None
    mark = found.mark or Restored("behind", now)
    if mark.epoch is None or is_behind:
        mark = msgspec.structs.replace(mark, epoch=leap(found.epoch, known_commits, now))
    return mark


def leap(epoch: int, known_commits: int, now: float) -> int:
    """An epoch later than each that was ever reached, also in a time that is lost: tokens of that are told from those
    that are made from now on. Above the known commits, which rise with each file that is put back; the time tells apart
    where nothing is known of them."""
    above = max(epoch >> _EPOCH_BITS, known_commits) + 1
    return (above << _EPOCH_BITS) + int(now) % (1 << (_EPOCH_BITS - 1))


def was_restored(epoch: int) -> bool:
    """Whether a database of this epoch is, or goes on from, one that had gone back in time."""
    return epoch >> _EPOCH_BITS > 0


def put_mark(connection: sqlite3.Connection, mark: Restored, known_commits: int = 0) -> None:
    """Mark this file, and count its commits on from what is known, so that no other older file passes for newer."""
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_MARK, msgspec.json.encode(mark).decode()),
    )
    if mark.epoch is not None:
        meta.save_epoch(connection, mark.epoch)
    if known_commits:
        meta.raise_commits(connection, known_commits)


def mark_copy(connection: sqlite3.Connection, now: float) -> None:
    """This file is a copy from here on; one that keeps no `meta` is worth no mark."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        put_mark(connection, Restored("copy", now))


def remove_mark(connection: sqlite3.Connection) -> None:
    """An administrator has confirmed it."""
    connection.execute("DELETE FROM meta WHERE name = ?", (_MARK,))


def command(database: Path, backup: Path) -> str:
    """How a backup is put in the place of a database, in words for an operator."""
    if database.stem != "trust":
        return f"cp {backup} {database}"
    return (
        f"edged trust restore {backup}; since nobody knows what was revoked after it was made, its keys and tokens then"
        " wait for: edged trust confirm-restore"
    )
