"""What is denied, on disk. Functions of a connection.

By name: identities, for good, as their texts (credentials.identities). By time: cut-offs, the tokens of a scope (all,
a subject, an issuer) that were issued up to a moment (contract 10.8). A cut-off "up to now" that was
drawn while the clock was not trusted is provisional: it says at which second of which boot, until it is trusted.
Of each scope there may be one firm line and one provisional.

Nothing is deleted because of a clock that is not trusted (contract 10.9): whoever calls `prune` has asked.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from edged.credentials.identities import Identity, Kind
from edged.credentials.users import UserRecord
from edged.store import api_keys, meta, refreshes, service_tokens, users

#: What ends by itself, so that its revocation can be forgotten after that.
_ENDING: Final = (Kind.ANY_JTI, Kind.JTI, Kind.TOKEN, Kind.FAMILY)


#: What a denial is kept pending under: one of the same key replaces it.
Key: TypeAlias = tuple[str, Identity | str | int]


class Revocation(msgspec.Struct, frozen=True):
    """One identity, denied since `at`; `until` it ends by itself, None if never or unknown. Unix seconds."""

    identity: Identity
    at: float
    until: float | None = None
    reason: str = ""

    @property
    def key(self) -> Key:
        return revocation_key(self.identity)


def load(connection: sqlite3.Connection) -> list[Revocation]:
    """Everything that is denied."""
    rows = connection.execute("SELECT identity, at, until, reason FROM revocations ORDER BY at, identity")
    return [Revocation(Identity.parse(identity), *rest) for identity, *rest in rows]


class Drawn(NamedTuple):
    """A moment that no clock was asked for: so many seconds into a boot (edged.clock.Boot)."""

    boot: str
    seconds: float


class CutOff(msgspec.Struct, frozen=True):
    """Tokens of `scope` that were issued at `before` or earlier are denied, since `at`. Unix seconds.

    Of edged's own tokens those that are older than `epoch`, or were issued at `own_before` or earlier (None: no such
    time): their time says less than the counter (contract 10.8).

    `drawn` makes it a provisional one: then `before` and `at` are what a clock said that was not trusted.
    """

    scope: Identity
    before: float
    at: float
    reason: str = ""
    own_before: float | None = None
    epoch: int = 0
    drawn: Drawn | None = None

    @property
    def key(self) -> Key:
        return cut_off_key(self.scope) if self.drawn is None else provisional_key(self.scope)


class Settled(msgspec.Struct, frozen=True):
    """A scope's provisional cut-off is a firm one now, which goes to the disk with this."""

    scope: Identity

    @property
    def key(self) -> Key:
        return provisional_key(self.scope)


class Suspension(msgspec.Struct, frozen=True):
    """An API key that is refused since `at`, Unix seconds, until it is resumed."""

    key_id: str
    at: float

    @property
    def key(self) -> Key:
        return suspension_key(self.key_id)


class UserChange(msgspec.Struct, frozen=True):
    """A user who may do less, is disabled or deleted, or has another password: the whole row as it is in force."""

    record: UserRecord

    @property
    def key(self) -> Key:
        return user_key(self.record.name)


class Undo(msgspec.Struct, frozen=True):
    """Takes back what a grant wrote whose authority ended while it was written; each has a `number` of its own."""

    number: int
    transaction: Callable[[sqlite3.Connection], object]

    @property
    def key(self) -> Key:
        return "undo", self.number


#: What may be denied.
Denial: TypeAlias = Revocation | CutOff | Settled | Suspension | UserChange | Undo


def revocation_key(identity: Identity) -> Key:
    return "revocation", identity


def cut_off_key(scope: Identity) -> Key:
    return "cut_off", scope


def provisional_key(scope: Identity) -> Key:
    return "provisional_cut_off", scope


def suspension_key(key_id: str) -> Key:
    return "suspension", key_id


def user_key(name: str) -> Key:
    return "user", name


def load_denied(connection: sqlite3.Connection) -> list[Identity]:
    """Everything that is denied by name but API keys and service tokens, whose own rows say so."""
    rows = connection.execute(
        "SELECT identity FROM revocations WHERE identity NOT BETWEEN 'key:' AND 'key;'"
        " AND identity NOT BETWEEN 'service:' AND 'service;'"
    )
    return [Identity.parse(identity) for (identity,) in rows]


def load_page(connection: sqlite3.Connection, before: tuple[float, str] | None, limit: int) -> list[Revocation]:
    """What is denied by name, the newest first: at most so many behind `before`, (at, text of the identity)."""
    at, text = before or (math.inf, "")
    rows = connection.execute(
        "SELECT identity, at, until, reason FROM revocations WHERE (at, identity) < (?, ?)"
        " ORDER BY at DESC, identity DESC LIMIT ?",
        (at, text, limit),
    )
    return [Revocation(Identity.parse(identity), *rest) for identity, *rest in rows]


class Counted(NamedTuple):
    """How many are denied by name on disk, as of so many commits of the database."""

    commits: int
    revocations: int


def count(connection: sqlite3.Connection, known: Counted | None) -> Counted:
    """How many are denied by name on disk; `known` from before spares the counting while nothing was committed.

    To count them takes eight times as long as to read a page of a hundred, where there are a hundred thousand.
    """
    commits = meta.load_commits(connection)
    if known is not None and known.commits == commits:
        return known
    return Counted(commits, int(connection.execute("SELECT count(*) FROM revocations").fetchone()[0]))


def load_pending_and_lines(
    connection: sqlite3.Connection, pending: Sequence[Denial], known: Counted | None
) -> tuple[list[Revocation | CutOff], Counted]:
    """Every line, and the pending denials by name that are not on disk, in no order; and how many are on disk, by
    `count`."""
    lines = {(line.scope, line.drawn is None): line for line in load_cut_offs(connection)}
    for item in pending:
        if isinstance(item, CutOff):
            lines[item.scope, item.drawn is None] = item
        elif isinstance(item, Settled):
            lines.pop((item.scope, False), None)
    stored = "SELECT 1 FROM revocations WHERE identity = ?"
    found: list[Revocation | CutOff] = [
        item
        for item in pending
        if isinstance(item, Revocation) and connection.execute(stored, (str(item.identity),)).fetchone() is None
    ]
    found += lines.values()
    return found, count(connection, known)


def load_cut_offs(connection: sqlite3.Connection) -> list[CutOff]:
    """Every scope's latest cut-off, then every scope's provisional one."""
    rows = connection.execute("SELECT scope, before, at, reason, own_before, epoch FROM cut_offs ORDER BY at, scope")
    lines = [CutOff(Identity.parse(scope), *rest) for scope, *rest in rows]
    rows = connection.execute(
        "SELECT scope, at, reason, epoch, boot, seconds FROM provisional_cut_offs ORDER BY at, scope"
    )
    lines += [
        CutOff(Identity.parse(scope), at, at, reason, None, epoch, Drawn(boot, seconds))
        for scope, at, reason, epoch, boot, seconds in rows
    ]
    return lines


def cut_off(connection: sqlite3.Connection, item: CutOff) -> None:
    """Draw a line; what a line of the scope says that reaches further stays (cut-offs combine by maximum)."""
    if item.drawn is not None:
        # Each is drawn later than the one before, whatever clocks say: it alone counts.
        connection.execute(
            "INSERT OR REPLACE INTO provisional_cut_offs (scope, boot, seconds, at, reason, epoch)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (str(item.scope), item.drawn.boot, item.drawn.seconds, item.at, item.reason, item.epoch),
        )
        return
    connection.execute(
        "INSERT INTO cut_offs (scope, before, at, reason, own_before, epoch) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (scope) DO UPDATE SET before = max(before, excluded.before), at = excluded.at,"
        " reason = excluded.reason, epoch = max(epoch, excluded.epoch),"
        " own_before = coalesce(max(own_before, excluded.own_before), own_before, excluded.own_before)"
        " WHERE excluded.before > before OR excluded.epoch > epoch"
        " OR coalesce(excluded.own_before > coalesce(own_before, excluded.own_before - 1), FALSE)",
        (str(item.scope), item.before, item.at, item.reason, item.own_before, item.epoch),
    )


def lower(connection: sqlite3.Connection, now: float, epoch: int) -> None:
    """Root's word: it is `now`, Unix seconds, and no line was drawn later. Where one is lowered that edged's own tokens
    are compared with, all of them that are older than `epoch` end by that instead."""
    connection.execute(
        "UPDATE cut_offs SET before = min(before, :now), own_before = min(own_before, :now),"
        " epoch = CASE WHEN own_before > :now THEN max(epoch, :epoch) ELSE epoch END"
        " WHERE before > :now OR own_before > :now",
        {"now": now, "epoch": epoch},
    )


def add(connection: sqlite3.Connection, revocations: Sequence[Revocation]) -> None:
    """Deny these, and mark the API keys and service tokens among them revoked.

    One that is denied already keeps its first time and reason, and ends later if told so.
    """
    connection.executemany(
        "INSERT INTO revocations (identity, at, until, reason) VALUES (?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE"
        # No known end is the latest one.
        " SET until = CASE WHEN until IS NULL OR excluded.until IS NULL THEN NULL ELSE max(until, excluded.until) END",
        [(str(item.identity), item.at, item.until, item.reason) for item in revocations],
    )
    families = [(item.until, str(item.identity)) for item in revocations if item.identity.kind is Kind.FAMILY]
    connection.executemany("UPDATE families SET until = max(until, ?1) WHERE family_id = ?2 AND ?1 > until", families)
    for item in revocations:
        if item.identity.kind is Kind.KEY:
            api_keys.revoke(connection, item.identity.value, item.at)
        elif item.identity.kind is Kind.SERVICE_TOKEN:
            service_tokens.revoke(connection, item.identity.value, item.at)


class Pruned(NamedTuple):
    """What was deleted: revocations of tokens, families of tokens, API keys and service tokens that were revoked, and
    API keys that have expired."""

    tokens: list[Identity]
    families: list[Identity]
    keys: list[str]
    service_tokens: list[str]
    expired: list[str]


def prune(connection: sqlite3.Connection, before: float, revoked_before: float, now: float) -> Pruned:
    """Delete the revocations of tokens that ended before `before`, families of tokens that did, API keys and service
    tokens that were revoked before `revoked_before`, and API keys that were seen to be expired before that and by
    a look a day since; Unix seconds. That it is `now` is kept with it, so that no start can be earlier."""
    found = connection.execute(
        "SELECT identity FROM revocations WHERE until < ?"
        " AND substr(identity, 1, instr(identity, ':') - 1) IN (?, ?, ?, ?)",
        (before, *(kind.value for kind in _ENDING)),
    )
    named = [str(row[0]) for row in found]
    connection.executemany("DELETE FROM revocations WHERE identity = ?", [(name,) for name in named])
    families = refreshes.delete_ended(connection, before)
    keys, tokens = api_keys.forget(connection, revoked_before), service_tokens.forget(connection, revoked_before)
    expired = api_keys.forget_expired(connection, revoked_before, now, looks=round((now - revoked_before) / 86400))
    pruned = Pruned([Identity.parse(name) for name in named], families, keys, tokens, expired)
    if any(pruned):
        meta.save_high_water(connection, now)
        meta.save_pruned(connection, now)
    return pruned


def deny(connection: sqlite3.Connection, denials: Sequence[Denial]) -> None:
    """Write denials of all kinds; first what is undone, so that nothing else of this is."""
    for item in denials:
        if isinstance(item, Undo):
            item.transaction(connection)
    add(connection, [item for item in denials if isinstance(item, Revocation)])
    for item in denials:
        if isinstance(item, CutOff):
            cut_off(connection, item)
        elif isinstance(item, Settled):
            connection.execute("DELETE FROM provisional_cut_offs WHERE scope = ?", (str(item.scope),))
        elif isinstance(item, Suspension):
            api_keys.suspend(connection, item.key_id, item.at)
        elif isinstance(item, UserChange):
            users.put(connection, item.record)
