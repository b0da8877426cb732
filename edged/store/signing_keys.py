"""Signing keys on disk: rows ↔ SigningKeyRecord. Functions of a connection.

Nothing is deleted: the numbers of keys that are long retired stay taken, and so does the one of a row that somebody
deletes by hand (AUTOINCREMENT). The private half goes when a key retires; where there is a wrapping key, it is stored
in an envelope, and whatever is read raises CannotUnwrap if that is not the key of the envelope.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from edged.credentials.signing_keys import Algorithm, Jwk, SigningKeyRecord, State, public_part
from edged.credentials.wrapping import CannotUnwrap, WrappingKey, read_private, write_private
from edged.store import backups
from edged.store.jobs import Transaction

T = TypeVar("T")

#: In `meta`: private halves were wrapped, and what they left may still stand in freed pages and in copies.
_TRACES: Final = "traces_of_plain_keys"


class _Kept(NamedTuple):
    """A key that is not retired, `private` as it is stored."""

    number: int
    state: State
    private: str | None
    promoted_at: float | None


def load(connection: sqlite3.Connection, wrapping: WrappingKey | None = None) -> list[SigningKeyRecord]:
    """Every key there ever was, oldest first."""
    return [_read(row, wrapping) for row in connection.execute("SELECT * FROM signing_keys ORDER BY number")]


def insert(
    connection: sqlite3.Connection, algorithm: Algorithm, state: State, private: Jwk, now: float,
    wrapping: WrappingKey | None = None,
) -> SigningKeyRecord:  # fmt: skip
    """A new key under the next number. Raises sqlite3.IntegrityError if its algorithm has one in this state."""
    number = connection.execute(
        "INSERT INTO signing_keys (algorithm, state, public, private, created_at, promoted_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            algorithm, state, _write(public_part(private)), write_private(private, wrapping), now,
            now if state == "current" else None,
        ),
    ).lastrowid  # fmt: skip
    row = connection.execute("SELECT * FROM signing_keys WHERE number = ?", (number,)).fetchone()
    return _read(row, wrapping)


def promote(
    connection: sqlite3.Connection, number: int, now: float, wrapping: WrappingKey | None = None
) -> list[SigningKeyRecord]:
    """This key is current, and the one of its algorithm that was is retired. Returns every key as it is then."""
    connection.execute(
        "UPDATE signing_keys SET state = 'retired', private = NULL, retired_at = ? WHERE state = 'current'"
        " AND algorithm = (SELECT algorithm FROM signing_keys WHERE number = ?)",
        (now, number),
    )
    connection.execute("UPDATE signing_keys SET state = 'current', promoted_at = ? WHERE number = ?", (now, number))
    return load(connection, wrapping)


def retire(
    connection: sqlite3.Connection, number: int, now: float, wrapping: WrappingKey | None = None
) -> list[SigningKeyRecord]:
    """This key signs no more, and nobody can sign with it. Returns every key as it is then."""
    connection.execute(
        "UPDATE signing_keys SET state = 'retired', private = NULL, retired_at = ? WHERE number = ?", (now, number)
    )
    return load(connection, wrapping)


def extend(
    connection: sqlite3.Connection, number: int, until: float, wrapping: WrappingKey | None = None
) -> list[SigningKeyRecord]:
    """Tokens by this key may be good until then; never earlier than said before. Returns every key as it is then."""
    connection.execute("UPDATE signing_keys SET signs_until = max(signs_until, ?) WHERE number = ?", (until, number))
    return load(connection, wrapping)


def forget_next(connection: sqlite3.Connection, private: Jwk) -> None:
    """The next key with this private half was not to be made."""
    connection.execute("DELETE FROM signing_keys WHERE public = ? AND state = 'next'", (_write(public_part(private)),))


def make_reversible(change: Transaction[T]) -> tuple[Transaction[T], Transaction[object]]:
    """(this change of states, what takes it back once it was made)."""
    kept: list[_Kept] = []

    def write(connection: sqlite3.Connection) -> T:
        kept[:] = _keep(connection)
        return change(connection)

    return write, lambda connection: _put_back(connection, kept)


def _keep(connection: sqlite3.Connection) -> list[_Kept]:
    rows = connection.execute(
        "SELECT number, state, private, promoted_at FROM signing_keys WHERE state <> 'retired' ORDER BY number"
    )
    return [_Kept(*row) for row in rows]


def _put_back(connection: sqlite3.Connection, kept: Sequence[_Kept]) -> None:
    """These keys, and no others, are next and current again. A key that was made later is retired."""
    connection.execute("UPDATE signing_keys SET state = 'retired' WHERE state <> 'retired'")
    for each in kept:
        connection.execute(
            "UPDATE signing_keys SET state = ?, private = ?, promoted_at = ?, retired_at = NULL WHERE number = ?",
            (each.state, each.private, each.promoted_at, each.number),
        )
    connection.execute("UPDATE signing_keys SET private = NULL WHERE state = 'retired'")


def wrap_plain(connection: sqlite3.Connection, wrapping: WrappingKey) -> int:
    """Put every plain private half into its envelope, and note that it leaves traces; how many there were."""
    # A JWK is a JSON object, an envelope is not.
    plain = connection.execute("SELECT number, private FROM signing_keys WHERE private LIKE '{%'").fetchall()
    for number, text in plain:
        wrapped = wrapping.wrap(msgspec.json.decode(text, type=Jwk))
        connection.execute("UPDATE signing_keys SET private = ? WHERE number = ?", (wrapped, number))
    if plain:
        connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, 1)", (_TRACES,))
    return len(plain)


def leaves_traces(connection: sqlite3.Connection) -> bool:
    """Whether plain private halves may still stand in freed pages of the file, or in its copies."""
    return connection.execute("SELECT 1 FROM meta WHERE name = ?", (_TRACES,)).fetchone() is not None


def note_clean(connection: sqlite3.Connection) -> None:
    """Their traces are removed."""
    connection.execute("DELETE FROM meta WHERE name = ?", (_TRACES,))


def clean_backups(database: Path) -> int:
    """Take plain private halves out of the copies of this database; of how many copies. Raises backups.BackupFailed.

    What they belong to is retired there: an edged that is started on such a copy makes new keys, and what the old ones
    signed stays good. They are not wrapped, because copies are for an edged of before, which opens no envelope.
    """
    return backups.change_all(database, _retire_plain)


def give_up_wrapped(connection: sqlite3.Connection, now: float) -> int:
    """Retire every key whose private half is wrapped, for nobody has its wrapping key any more; how many there were."""
    return _retire_all(connection, now, plain=False)


def _retire_plain(connection: sqlite3.Connection) -> bool:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'signing_keys'").fetchone()
    return known is not None and _retire_all(connection, None, plain=True) > 0


def _retire_all(connection: sqlite3.Connection, now: float | None, *, plain: bool) -> int:
    """`now` None: at the time of their promotion, or else of their making."""
    return connection.execute(
        "UPDATE signing_keys SET state = 'retired', private = NULL,"
        " retired_at = coalesce(?, promoted_at, created_at) WHERE (private LIKE '{%') = ?",
        (now, plain),
    ).rowcount


def _read(row: sqlite3.Row, wrapping: WrappingKey | None) -> SigningKeyRecord:
    public = msgspec.json.decode(row["public"], type=Jwk)
    private = None if row["private"] is None else read_private(row["private"], wrapping)
    if private is not None and public_part(private) != public:
        raise CannotUnwrap("it is the private half of another key")
    return SigningKeyRecord(
        number=row["number"],
        algorithm=row["algorithm"],
        state=row["state"],
        public=public,
        private=private,
        created_at=row["created_at"],
        promoted_at=row["promoted_at"],
        retired_at=row["retired_at"],
        signs_until=row["signs_until"],
    )


def _write(jwk: Jwk) -> str:
    return msgspec.json.encode(jwk).decode()
