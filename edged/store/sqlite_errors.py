"""SQLite's errors: what each of them means for a transaction, a caller and an operator.

Names are those of `sqlite3.Error.sqlite_errorname` (sqlite.org/rescode.html). An extended name begins with its primary
one: SQLITE_IOERR_FSYNC is a SQLITE_IOERR.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

#: After these a COMMIT may have written frames to the WAL.
_MAY_HAVE_WRITTEN: Final = ("SQLITE_IOERR", "SQLITE_FULL")
#: Errors of the file or its disk, whatever the transaction was.
_OF_THE_DISK: Final = (*_MAY_HAVE_WRITTEN, "SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN")
#: Errors that may mean that there is no space: SQLite says FULL of writes that hit ENOSPC, and does not tell a quota, a
#: sync that finds no space or a -shm that cannot grow from other trouble.
_NO_SPACE: Final = frozenset(
    {
        "SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE",
        "SQLITE_IOERR_SHMMAP",
    }
)  # fmt: skip
#: What an operator can do about an error.
_REMEDIES: Final[Mapping[str, str]] = {
    "SQLITE_FULL": "free space on the disk that holds it",
    "SQLITE_READONLY": "make file and folder writable for edged; is the disk mounted read-only?",
    "SQLITE_IOERR": "look for disk errors: journalctl -k",
    "SQLITE_CORRUPT": "restore a backup",
    "SQLITE_NOTADB": "restore a backup, or move the file away",
    "SQLITE_CANTOPEN": "make the folder accessible for edged",
    "SQLITE_BUSY": "end the other program that has it open",
}
#: What a caller is told went wrong.
_CAUSES: Final[Mapping[str, str]] = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it cannot be written",
    "SQLITE_IOERR": "disk I/O error",
    "SQLITE_CORRUPT": "the file is damaged",
    "SQLITE_NOTADB": "the file is damaged",
    "SQLITE_CANTOPEN": "it cannot be opened",
    "SQLITE_BUSY": "another program has it open",
    "SQLITE_CONSTRAINT": "it contradicts what is stored",
}


def error_name(problem: sqlite3.Error) -> str:
    """SQLITE_FULL and so on; "" for an error of the sqlite3 module itself."""
    return getattr(problem, "sqlite_errorname", "")


def cause(problem: sqlite3.Error) -> str:
    """What callers are told went wrong: SQLite's own text may name files, tables and columns, and is for the log."""
    name = error_name(problem)
    return next((told for code, told in _CAUSES.items() if name.startswith(code)), "SQLite refused it")


def remedy(problem: sqlite3.Error) -> str:
    """What an operator can do about it."""
    name = error_name(problem)
    return next((told for code, told in _REMEDIES.items() if name.startswith(code)), "see the journal of edged")


def is_no_space(problem: BaseException | None) -> bool:
    """Whether the disk, or a quota on it, may be full."""
    return isinstance(problem, sqlite3.Error) and error_name(problem) in _NO_SPACE


def is_of_disk(problem: BaseException | None) -> bool:
    """Whether any other transaction would have failed as well."""
    return isinstance(problem, sqlite3.Error) and error_name(problem).startswith(_OF_THE_DISK)


def may_have_written(problem: sqlite3.Error) -> bool:
    """Whether a COMMIT that failed with this may have left frames in the WAL."""
    return error_name(problem).startswith(_MAY_HAVE_WRITTEN)


def is_damage(problem: sqlite3.Error) -> bool:
    """Whether the content of the file is at fault."""
    return error_name(problem).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
