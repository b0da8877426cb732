"""API keys: make, import, change, rotate, suspend and revoke them, each durable and in force as the registrar says."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import msgspec
import structlog
from msgspec.structs import replace

from edged.access.admissions import Admissions
from edged.access.asking import asked_by
from edged.access.authority import Authority
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit
from edged.accounts.makers import load_makers, load_revoked
from edged.accounts.registrar import Registrar
from edged.accounts.rotation import GRACE_SECONDS, check_capacity, check_grace, shorten
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, digest, mint, mint_key_id, mint_secret, published_as
from edged.credentials.callers import Streams
from edged.credentials.identities import Identity
from edged.credentials.roles import ROLES, canonical_role
from edged.errors import InvalidParams, InvalidState, NotFound, RateLimited
from edged.store import api_keys
from edged.store.database import Reads
from edged.store.revocations import Suspension, suspension_key
from edged.structs import Discreet

_LONGEST_NAME: Final = 100
#: How often a key may rotate itself within so many seconds: each time is a commit.
OWN_ROTATIONS: Final = 10
OWN_SECONDS: Final = 60.0
_log = structlog.get_logger("api_keys")


class ForeignKey(Discreet, msgspec.Struct, frozen=True):
    """A key that another service has issued, with its secret, to be accepted here; Unix seconds."""

    hidden: ClassVar = frozenset({"secret"})

    secret: str
    name: str
    role: str
    created_at: float
    expires_at: float | None = None


class ApiKeys:
    """What may become of an API key."""

    def __init__(self, registrar: Registrar, ledger: Ledger, admissions: Admissions, db: Reads, clock: Clock) -> None:
        self._registrar = registrar
        self._ledger = ledger
        self._admissions = admissions
        self._db = db
        self._clock = clock
        # The newest suspension of each key, for a resumption to see that it was overtaken.
        self._suspensions: dict[str, Suspension] = {}
        # When keys rotated themselves of late, by id; monotonic seconds.
        self._own_rotations: dict[str, list[float]] = {}

    def load(self) -> None:
        """Tell the ledger every key, before anybody asks. Raises StoreFailed."""
        keys = self._db.read_now(api_keys.load_unrevoked)
        for record in keys:
            self._ledger.put_key(record)
        revoked = self._ledger.revoked_keys
        load_revoked(revoked, self._db, "api_keys")
        load_makers(self._ledger, self._db)
        _log.info("loaded", keys=len(keys), revoked=len(revoked))

    async def create(
        self,
        authority: Authority,
        *,
        name: str,
        role: str,
        expires_at: float | None = None,
        permissions: Sequence[str] | None = None,
        camera_access: Sequence[str] | None = None,
        streams: Streams | None = None,
        owner: str | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which nothing else will ever show. `expires_at`: Unix seconds; `owner`: a user.

        Raises InvalidParams, NotFound (no such owner), StoreFailed or Overloaded; then there is no key.
        """
        now = self._clock.now()
        key_id, secret, key_digest = mint()
        record = KeyRecord(
            key_id=key_id,
            name=name,
            role=role,
            digest=key_digest,
            created_at=now,
            expires_at=expires_at,
            permissions=None if permissions is None else tuple(permissions),
            camera_access=None if camera_access is None else tuple(camera_access),
            streams=streams,
            owner=owner,
            made_by=authority.made_by,
        )
        _check(record, now)
        job = self._registrar.grant(authority, partial(self._create, record, secret), withhold=self._withhold)
        return await job.outcome()

    async def import_all(self, authority: Authority, keys: Sequence[ForeignKey]) -> list[KeyRecord | str]:
        """Accept keys of another service by their SHA-256, all in one commit: for each the new key, or why not.

        Not taken are published samples and what is known here already, so that it may be done again. One whose end
        is past opens nothing here either. Raises InvalidParams, StoreFailed or Overloaded; then none is.
        """
        records = [
            KeyRecord(
                key_id=mint_key_id(), name=key.name, role=key.role, digest=digest(key.secret),
                created_at=key.created_at, expires_at=key.expires_at, made_by=authority.made_by,
            )
            for key in keys
        ]  # fmt: skip
        for record in records:
            _check(record, -math.inf)
        return await self._registrar.grant(authority, partial(self._import, records)).outcome()

    async def update(
        self,
        authority: Authority,
        key_id: str,
        changes: Mapping[str, Any],
        check: Callable[[KeyRecord, KeyRecord], None],
    ) -> KeyRecord:
        """Change what a key is called and may do: fields of KeyRecord by name. In force for the next call of everyone
        inside by it; whoever is inside for what it may no more leaves.

        `check(before, after)` is asked right before the commit and may raise. Raises NotFound, InvalidState (revoked),
        InvalidParams, StoreFailed or Overloaded; then nothing changed.
        """
        self._find_living(key_id)
        return await self._registrar.grant(authority, partial(self._update, key_id, changes, check)).outcome()

    async def rotate(
        self, authority: Authority, key_id: str, grace_seconds: float = GRACE_SECONDS, *, shown: Identity | None = None
    ) -> tuple[KeyRecord, str]:
        """A new secret for a key; the old one, and whoever is inside by it, is good for `grace_seconds` more.

        `shown`: the secret by which the key itself asks for that, by its name. Raises NotFound, InvalidState (revoked,
        `shown` was replaced, or too many secrets are in their grace), RateLimited (by `shown`, more than OWN_ROTATIONS
        in OWN_SECONDS), InvalidParams, StoreFailed or Overloaded; then nothing changed.
        """
        check_grace(grace_seconds)
        self._find_living(key_id)
        if shown is not None:
            self._slow_down(key_id)
        return await self._registrar.grant(authority, partial(self._rotate, key_id, grace_seconds, shown)).outcome()

    def suspend(self, key_id: str, by: str = "") -> Coroutine[Any, Any, KeyRecord]:
        """Refuse a key and end everything that it opened until it is resumed: in force when this *call* returns.

        Else as `revoke`; raises InvalidState for a revoked one.
        """
        record, now = self._find_living(key_id), self._clock.now()
        if record.suspended_at is None:
            self._ledger.put_key(record := replace(record, suspended_at=now))
        # Written also if it was suspended before: a resumption may be on its way to the disk just now.
        item = self._suspensions[key_id] = Suspension(key_id, record.suspended_at or now)
        name = Identity.of_key(key_id)
        ended = self._registrar.terminate(self._admissions.of(name), "suspended", by, {name})
        _log.info("suspended", key=key_id, ended=ended, **asked_by())
        job = self._registrar.add_pending([item])

        async def settle() -> KeyRecord:
            await self._registrar.settle(job)
            return self.find(key_id)

        return settle()

    async def resume(self, authority: Authority, key_id: str) -> KeyRecord:
        """A suspended key is good again, once that is on disk. Again is fine.

        Raises NotFound, InvalidState (revoked, or suspended anew meanwhile), StoreFailed or Overloaded; then it stays
        suspended.
        """
        self._find_living(key_id)
        seen = self._suspensions.get(key_id)
        return await self._registrar.grant(authority, partial(self._resume, key_id, seen)).outcome()

    def revoke(self, key_id: str, by: str = "", reason: str = "") -> Coroutine[Any, Any, KeyRecord]:
        """End a key, both its secrets, and everything that it opened: in force when this *call* returns.

        Await the result for the commit. `by` is the session that asks: if it ends itself, its reply goes out first.
        Again is fine. Raises NotFound; Overloaded or StoreFailed if it is in force but not yet on disk.
        """
        if key_id not in self._ledger.revoked_keys:
            self.find(key_id)
        job = self._registrar.deny(frozenset({Identity.of_key(key_id)}), None, by, "key", reason)

        async def settle() -> KeyRecord:
            await self._registrar.settle(job)
            self._suspensions.pop(key_id, None)
            self._own_rotations.pop(key_id, None)
            return await self.get(key_id)

        return settle()

    async def get(self, key_id: str) -> KeyRecord:
        """Any key, revoked ones too. Raises NotFound, StoreFailed."""
        record = self._ledger.keys.get(key_id)
        if record is None:
            record = await self._db.read(partial(api_keys.find, key_id=key_id))
        if record is None:
            raise _not_found(key_id)
        return record

    async def load_revoked(
        self, after: tuple[float, str], limit: int, role: str | None = None, owner: str | None = None
    ) -> list[KeyRecord]:
        """A page of the keys that are revoked on disk, oldest first: behind `after`, (created_at, key_id). Raises
        StoreFailed."""
        return await self._db.read(partial(api_keys.load_page, after=after, limit=limit, role=role, owner=owner))

    def find(self, key_id: str) -> KeyRecord:
        """A key that is not revoked, or not yet on disk. Raises NotFound, InvalidState (revoked)."""
        record = self._ledger.keys.get(key_id)
        if record is not None:
            return record
        raise _revoked(key_id) if key_id in self._ledger.revoked_keys else _not_found(key_id)

    def _find_living(self, key_id: str) -> KeyRecord:
        record = self.find(key_id)
        if record.revoked_at is not None:
            raise _revoked(key_id)
        return record

    def _slow_down(self, key_id: str) -> None:
        """Raises RateLimited for a key that rotates itself in a loop."""
        now = self._clock.monotonic()
        times = [at for at in self._own_rotations.get(key_id, ()) if now - at < OWN_SECONDS]
        if len(times) >= OWN_ROTATIONS:
            raise RateLimited(
                f"{key_id} has rotated itself {OWN_ROTATIONS} times within {OWN_SECONDS:.0f} seconds",
                retry_after_ms=math.ceil((times[0] + OWN_SECONDS - now) * 1000),
            )
        self._own_rotations[key_id] = [*times, now]

    async def _create(self, record: KeyRecord, secret: str, commit: Commit) -> tuple[KeyRecord, str]:
        self._check_owner(record)
        await commit(
            partial(api_keys.insert, record=record), undo=partial(api_keys.delete_all, key_ids=[record.key_id])
        )
        self._ledger.put_key(record)
        _log.info("created", key=record.key_id, name=record.name, role=record.role, **asked_by())
        return record, secret

    def _withhold(self, made: tuple[KeyRecord, str]) -> None:
        """Nobody will ever know its secret."""
        self._registrar.deny(frozenset({Identity.of_key(made[0].key_id)}), None, "", "key", "its maker was denied")

    def _check_owner(self, record: KeyRecord) -> None:
        owner = None if record.owner is None else self._ledger.users.get(record.owner)
        if record.owner is not None and (owner is None or owner.deleted_at is not None):
            shown = record.owner[:64]
            raise NotFound(f"no user {shown!r}", hint="list_users names them", resource="user", id=shown)

    async def _import(self, records: Sequence[KeyRecord], commit: Commit) -> list[KeyRecord | str]:
        outcomes: list[KeyRecord | str] = []
        fresh: dict[bytes, KeyRecord] = {}
        for record in records:
            if printed := published_as(record.digest):
                outcomes.append(f"it is {printed}, known to everybody")
            elif record.digest in fresh or self._ledger.find_key(record.digest) is not None:
                outcomes.append("it is known already")
            else:
                fresh[record.digest] = record
                outcomes.append(record)
        await commit(
            partial(api_keys.import_all, records=list(fresh.values())),
            undo=partial(api_keys.delete_all, key_ids=[record.key_id for record in fresh.values()]),
        )
        for record in fresh.values():
            self._ledger.put_key(record)
            _log.info("imported", key=record.key_id, name=record.name, role=record.role, **asked_by())
        return outcomes

    async def _update(
        self,
        key_id: str,
        changes: Mapping[str, Any],
        check: Callable[[KeyRecord, KeyRecord], None],
        commit: Commit,
    ) -> KeyRecord:
        before = self._find_living(key_id)
        record = replace(before, **changes)
        _check(record, self._clock.now() if "expires_at" in changes else -math.inf)
        if record.owner != before.owner:
            self._check_owner(record)
        check(before, record)
        await commit(partial(api_keys.update, record=record), undo=partial(api_keys.update, record=before))
        record = self._put_changed(record)
        name = Identity.of_key(key_id)
        if self._ledger.is_resting(key_id):
            self._registrar.terminate(self._admissions.of(name), "suspended", names={name})
        else:
            self._registrar.review(self._admissions.of(name))
        self._find_living(key_id)
        _log.info("updated", key=key_id, changed=sorted(changes), **asked_by())
        return record

    async def _resume(self, key_id: str, seen: Suspension | None, commit: Commit) -> KeyRecord:
        """`seen` is the newest suspension of when this was asked: one that was said since stands."""
        record = self._find_living(key_id)
        if record.suspended_at is None:
            return record
        self._refuse_overtaken(key_id, seen)
        pending = self._registrar.withdraw(suspension_key(key_id))
        try:
            undo = partial(api_keys.suspend, key_id=key_id, at=record.suspended_at)
            await commit(partial(api_keys.resume, key_id=key_id), undo=undo)
        except BaseException:
            # Nobody knows what the disk says now: it stays suspended here, so it must be so there.
            self._registrar.keep_pending(pending or Suspension(key_id, record.suspended_at))
            raise
        self._refuse_overtaken(key_id, seen)
        record = replace(self._find_living(key_id), suspended_at=None)
        self._ledger.put_key(record)
        _log.info("resumed", key=key_id, **asked_by())
        return record

    def _refuse_overtaken(self, key_id: str, seen: Suspension | None) -> None:
        if self._suspensions.get(key_id) is not seen:
            raise InvalidState(f"API key {key_id!r} was suspended anew meanwhile", resource="key", id=key_id)

    def _put_changed(self, record: KeyRecord) -> KeyRecord:
        """What was denied during the commit stands."""
        now = self.find(record.key_id)
        record = replace(record, revoked_at=now.revoked_at, suspended_at=now.suspended_at)
        self._ledger.put_key(record)
        return record

    async def _rotate(
        self, key_id: str, grace_seconds: float, shown: Identity | None, commit: Commit
    ) -> tuple[KeyRecord, str]:
        before = self._find_living(key_id)
        if shown is not None and shown != Identity.of_secret(before.digest):
            raise InvalidState(
                f"the secret by which {key_id} asks was replaced: it does not make another one",
                hint="ask by the new secret, or let an administrator of keys do it",
                resource="key",
                id=key_id,
            )
        now = self._clock.now()
        check_capacity(before, now, grace_seconds)
        secret, key_digest = mint_secret()
        record = before.rotate(key_digest, now, grace_seconds)
        await commit(partial(api_keys.rotate, record=record), undo=partial(api_keys.rotate, record=before))
        record = self._put_changed(record)
        shorten(self._admissions, before, grace_seconds, Identity.of_secret)
        # If it was revoked during the commit the new secret is worth nothing.
        self._find_living(key_id)
        _log.info("rotated", key=key_id, grace_seconds=grace_seconds, **asked_by())
        return record, secret


def _not_found(key_id: str) -> NotFound:
    return NotFound(f"no API key {key_id[:64]!r}", hint="list_keys names them", resource="key", id=key_id[:64])


def _revoked(key_id: str) -> InvalidState:
    return InvalidState(f"API key {key_id!r} is revoked", hint="create a new one", resource="key", id=key_id)


def _check(record: KeyRecord, now: float) -> None:
    """Raises InvalidParams for a key that makes no sense."""
    if not 1 <= len(record.name) <= _LONGEST_NAME:
        raise InvalidParams(f"name is not 1 to {_LONGEST_NAME} characters long")
    if canonical_role(record.role) not in ROLES:
        raise InvalidParams(f"no role {record.role[:64]!r}", hint=f"one of {', '.join(ROLES)}")
    if record.expires_at is not None and not now < record.expires_at < math.inf:
        raise InvalidParams("expires_at lies in the past", hint="leave it out for a key without an end")
