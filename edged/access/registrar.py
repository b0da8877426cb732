"""The one place that changes credentials: make, import, change, rotate, suspend and revoke keys, revoke tokens.

Denials take effect before they are durable, grants after (design 5):

* create, import, update, rotate, resume: commit, then ledger, then reply. A failed commit leaves everything as it was.
* revoke, cut off, suspend: ledger and admissions at once, before the first await; then one commit; reply when it is
  done. If it fails the caller is told so, and what is denied stays denied and stays *owed* to the disk: it is written
  with growing pauses until it is there.

All work is done in the registrar's own task, fed by a bounded queue, so that a caller that hangs up,
or ends its own session by what it asks, cannot cancel it half-way.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, cast

import structlog
import trio

from edged.access.admissions import Admission, Admissions
from edged.access.ledger import Ledger, key_identity, secret_identity
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, digest, mint, mint_key_id, mint_secret, published_as
from edged.credentials.callers import Streams
from edged.credentials.decision import decide
from edged.credentials.roles import ROLES, canonical_role
from edged.errors import EdgedError, InvalidParams, InvalidState, NotFound, Overloaded, StoreFailed
from edged.feeds import Feed
from edged.store import api_keys, revocations
from edged.store.database import Database
from edged.store.revocations import CutOff, Denial, Revocation, Suspension

T = TypeVar("T")

#: Jobs that wait for the registrar before the next one is refused.
QUEUE_SIZE: Final = 64
#: How long the old secret of a rotated key is good (contract 10.7), seconds.
GRACE_SECONDS: Final = 3600.0
#: Pauses between tries to save what is denied: doubled from the first to the longest, seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
_LONGEST_NAME: Final = 100
_log = structlog.get_logger("registrar")


class Counts(Protocol):
    """Where revocations are counted; metrics.py in the daemon."""

    def revoked(self, kind: Kind) -> None: ...


#: What can be revoked; a cut-off is everything before a time.
Kind: TypeAlias = Literal["key", "token", "subject", "issuer", "cut_off"]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key that another service has issued, with its secret, to be accepted here; Unix seconds."""

    secret: str = field(repr=False)
    name: str
    role: str
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """These identities were denied just now (none: only sessions were ended); monotonic seconds."""

    identities: frozenset[str]
    at_monotonic: float


class _Job(Generic[T]):
    """Something that the registrar's task does for a caller, who may be gone by then."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._done = trio.Event()
        self._value: T | None = None
        self._error: Exception | None = None

    async def run(self) -> None:
        """Do it and keep the outcome; an unexpected error is logged, as its caller may not be there to hear it."""
        try:
            self._value = await self._work()
        except EdgedError as problem:
            self._error = problem
        except Exception as problem:
            _log.exception("job failed")
            self._error = problem
        self._done.set()

    async def outcome(self) -> T:
        """Wait for the result; raises what the work raised. Cancelling the wait does not cancel the work."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return cast("T", self._value)


class Registrar:
    """Writes the ledger and the trust database; `run` must be running for anything to be answered."""

    def __init__(
        self,
        ledger: Ledger,
        admissions: Admissions,
        db: Database,
        clock: Clock,
        counts: Counts,
        *,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self._ledger = ledger
        self._admissions = admissions
        self._db = db
        self._clock = clock
        self._counts = counts
        #: Every revocation, told as soon as it is in force.
        self.revocations: Feed[Revoked] = Feed()
        self._send, self._receive = trio.open_memory_channel[_Job[Any]](queue_size)
        self._closed = False
        # Denied but not known to be on disk, by a name that the same denial said again has too.
        self._owed: dict[str, Denial] = {}
        # The newest suspension of each key, for a resumption to see that it was overtaken.
        self._suspensions: dict[str, Suspension] = {}
        self._unpaid = trio.Event()

    def load(self) -> None:
        """Fill the ledger from the disk, before anybody asks. Raises StoreFailed."""
        keys = self._db.read_now(api_keys.load)
        denied = self._db.read_now(revocations.load)
        lines = self._db.read_now(revocations.load_cut_offs)
        for record in keys:
            self._ledger.put_key(record)
        self._ledger.deny(item.identity for item in denied)
        for line in lines:
            self._ledger.cut_off(line.scope, line.before)
        _log.info("loaded", keys=len(keys), revocations=len(denied), cut_offs=len(lines))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do the jobs in order; runs until cancelled, and then finishes what it has accepted."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retry)
            task_status.started()
            try:
                async for job in self._receive:
                    with trio.CancelScope(shield=True):
                        await job.run()
            finally:
                self._closed = True
                with trio.CancelScope(shield=True):
                    await self._drain()

    async def create_key(
        self,
        *,
        name: str,
        role: str,
        expires_at: float | None = None,
        permissions: Sequence[str] | None = None,
        camera_access: Sequence[str] | None = None,
        streams: Streams | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which nothing else will ever show. `expires_at`: Unix seconds.

        Raises InvalidParams, StoreFailed or Overloaded; then there is no key.
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
        )
        _check(record, now)
        return await self._submit(partial(self._create, record, secret)).outcome()

    async def import_keys(self, keys: Sequence[ForeignKey]) -> list[KeyRecord | str]:
        """Accept keys of another service by their SHA-256, all in one commit: for each the new key, or why not.

        Not taken are published samples and what is known here already, so that it may be done again. Raises
        InvalidParams, StoreFailed or Overloaded; then none is.
        """
        now = self._clock.now()
        records = [
            KeyRecord(
                key_id=mint_key_id(), name=key.name, role=key.role, digest=digest(key.secret),
                created_at=key.created_at, expires_at=key.expires_at,
            )
            for key in keys
        ]  # fmt: skip
        for record in records:
            _check(record, now)
        return await self._submit(partial(self._import, records)).outcome()

    async def update_key(
        self, key_id: str, changes: Mapping[str, Any], check: Callable[[KeyRecord, KeyRecord], None]
    ) -> KeyRecord:
        """Change what a key is called and may do: fields of KeyRecord by name. In force for the next call of everyone
        inside by it; whoever is inside for what it may no more leaves.

        `check(before, after)` is asked right before the commit and may raise. Raises NotFound, InvalidState (revoked),
        InvalidParams, StoreFailed or Overloaded; then nothing changed.
        """
        self._find_living(key_id)
        return await self._submit(partial(self._update, key_id, changes, check)).outcome()

    async def rotate_key(self, key_id: str, grace_seconds: float = GRACE_SECONDS) -> tuple[KeyRecord, str]:
        """A new secret for a key; the old one, and whoever is inside by it, is good for `grace_seconds` more.

        Raises NotFound, InvalidState (revoked), InvalidParams, StoreFailed or Overloaded; then nothing changed.
        """
        if not 0 <= grace_seconds < math.inf:
            raise InvalidParams("grace_seconds is negative or endless", hint="0 ends the old secret at once")
        self._find_living(key_id)
        return await self._submit(partial(self._rotate, key_id, grace_seconds)).outcome()

    def suspend_key(self, key_id: str, by: str = "") -> Coroutine[Any, Any, KeyRecord]:
        """Refuse a key and end everything that it opened until it is resumed: in force when this *call* returns.

        Else as `revoke_key`; raises InvalidState for a revoked one.
        """
        record, now = self._find_living(key_id), self._clock.now()
        if record.suspended_at is None:
            self._ledger.put_key(record := replace(record, suspended_at=now))
        # Written also if it was suspended before: a resumption may be on its way to the disk just now.
        item = self._suspensions[key_id] = Suspension(key_id, record.suspended_at or now)
        name = key_identity(key_id)
        ended = self._admissions.end({name}, "suspended", by)
        self.revocations.publish(Revoked(frozenset({name}), self._clock.monotonic()))
        _log.info("suspended", key=key_id, ended=len(ended))
        job = self._owe({_suspension(key_id): item})

        async def settle() -> KeyRecord:
            await self._settle(job)
            return self._find(key_id)

        return settle()

    async def resume_key(self, key_id: str) -> KeyRecord:
        """A suspended key is good again, once that is on disk. Again is fine.

        Raises NotFound, InvalidState (revoked, or suspended anew meanwhile), StoreFailed or Overloaded; then it stays
        suspended.
        """
        self._find_living(key_id)
        return await self._submit(partial(self._resume, key_id, self._suspensions.get(key_id))).outcome()

    def revoke_key(self, key_id: str, by: str = "", reason: str = "") -> Coroutine[Any, Any, KeyRecord]:
        """End a key, both its secrets, and everything that it opened: in force when this *call* returns.

        Await the result for the commit. `by` is the session that asks: if it ends itself, its reply goes out first.
        Again is fine. Raises NotFound; Overloaded or StoreFailed if it is in force but not yet on disk.
        """
        self._find(key_id)
        job = self._deny(frozenset({key_identity(key_id)}), None, by, "key", reason)

        async def settle() -> KeyRecord:
            await self._settle(job)
            return self._find(key_id)

        return settle()

    def revoke_token(
        self, identities: frozenset[str], until: float | None, by: str = "", *, kind: Kind = "token", reason: str = ""
    ) -> Coroutine[Any, Any, None]:
        """End a token by its names (`jti:…`, `token:<sha256>`): in force when this *call* returns.

        Or all tokens of a subject (`user:…`) or an issuer (`issuer:…`); `kind` says which. `until`: Unix seconds at
        which it ends by itself, leeway included, None if unknown. Else as `revoke_key`.
        """
        return self._settle(self._deny(identities, until, by, kind, reason))

    def cut_off(self, scope: str, before: float, by: str = "", reason: str = "") -> Coroutine[Any, Any, None]:
        """End all tokens of a scope (`all`, `user:…`, `issuer:…`) that were issued by `before` (Unix seconds).

        In force when this *call* returns, whoever is inside by one included. A line that lies before the one of this
        scope changes nothing. Else as `revoke_key`.
        """
        fresh = before > self._ledger.cut_offs.get(scope, -math.inf)
        self._ledger.cut_off(scope, before)
        ended = self._admissions.put_out(self._denied(), "revoked", by)
        self.revocations.publish(Revoked(frozenset({scope}), self._clock.monotonic()))
        _log.info("cut off", scope=scope, before=before, ended=len(ended), again=not fresh)
        if not fresh:
            # The later line may be in force and not on disk yet: then this waits for it, too.
            return self._settle(self._pay_later() if _line(scope) in self._owed else None)
        self._counts.revoked("cut_off")
        return self._settle(self._owe({_line(scope): CutOff(scope, before, self._clock.now(), reason)}))

    async def list_revocations(self) -> tuple[list[Revocation], list[CutOff]]:
        """All that is denied, by name and by time, oldest first; also what is not on disk yet. Raises StoreFailed."""
        stored, lines = await self._db.read(revocations.load_all)
        named = {item.identity: item for item in stored}
        drawn = {line.scope: line for line in lines}
        for item in self._owed.values():
            if isinstance(item, Revocation):
                named.setdefault(item.identity, item)
            elif isinstance(item, CutOff):
                drawn[item.scope] = item
        return sorted(named.values(), key=lambda item: item.at), sorted(drawn.values(), key=lambda line: line.at)

    def end_session(self, admission: Admission, by: str = "") -> None:
        """Put one out; its credential is as good as before. Never waits."""
        self._admissions.put_out([admission], "ended", by)
        # What MediaMTX does not list just now is found by the sweeps.
        self.revocations.publish(Revoked(frozenset(), self._clock.monotonic()))

    def _deny(
        self, identities: frozenset[str], until: float | None, by: str, kind: Kind, reason: str
    ) -> _Job[None] | Overloaded | StoreFailed | None:
        """No checkpoint in here: the gate says no from the first line on, and whoever is inside is put out."""
        fresh = identities - self._ledger.denied
        self._ledger.deny(identities)
        now = self._clock.now()
        due = {name: Revocation(name, now, until, reason or kind) for name in fresh}
        for item in due.values():
            if record := self._ledger.keys.get(item.key_id):
                self._ledger.put_key(replace(record, revoked_at=now))
        ended = self._admissions.end(identities, "revoked", by)
        if kind in ("subject", "issuer"):
            ended += self._admissions.put_out(self._denied(), "revoked", by)
        self.revocations.publish(Revoked(identities, self._clock.monotonic()))
        _log.info("revoked", kind=kind, identities=sorted(identities), ended=len(ended), again=not fresh)
        if fresh:
            self._counts.revoked(kind)
        if due:
            return self._owe(due)
        return None if self._owed.keys().isdisjoint(identities) else self._pay_later()

    def _denied(self) -> list[Admission]:
        """Everyone who is inside and should not be: by a token that is denied by whom it is of, or when it was made."""
        return [each for each in self._admissions if self._ledger.is_denied(each.caller)]

    def _owe(self, due: Mapping[str, Denial]) -> _Job[None] | Overloaded | StoreFailed:
        self._owed |= due
        return self._pay_later()

    def _pay_later(self) -> _Job[None] | Overloaded | StoreFailed:
        try:
            return self._submit(self._pay)
        except (Overloaded, StoreFailed) as problem:
            self._unpaid.set()
            return problem

    async def _settle(self, job: _Job[None] | Overloaded | StoreFailed | None) -> None:
        if isinstance(job, EdgedError):
            raise job
        if job is None:
            await trio.lowlevel.checkpoint()
        else:
            await job.outcome()

    def _submit(self, work: Callable[[], Awaitable[T]]) -> _Job[T]:
        if self._closed:
            raise StoreFailed("edged is stopping: nothing was saved", hint="ask again once it is back")
        job = _Job(work)
        try:
            self._send.send_nowait(job)
        except trio.WouldBlock:
            raise Overloaded(
                "too many changes of credentials wait for the disk", hint="try again in a moment"
            ) from None
        return job

    def _find(self, key_id: str) -> KeyRecord:
        record = self._ledger.keys.get(key_id)
        if record is None:
            raise NotFound(f"no API key {key_id[:64]!r}", hint="list_keys names them", resource="key", id=key_id[:64])
        return record

    def _find_living(self, key_id: str) -> KeyRecord:
        record = self._find(key_id)
        if record.revoked_at is not None:
            raise InvalidState(f"API key {key_id!r} is revoked", hint="create a new one", resource="key", id=key_id)
        return record

    async def _create(self, record: KeyRecord, secret: str) -> tuple[KeyRecord, str]:
        await self._db.write(partial(api_keys.insert, record=record))
        self._ledger.put_key(record)
        _log.info("created", key=record.key_id, name=record.name, role=record.role)
        return record, secret

    async def _import(self, records: Sequence[KeyRecord]) -> list[KeyRecord | str]:
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
        await self._db.write(partial(api_keys.insert_all, records=list(fresh.values())))
        for record in fresh.values():
            self._ledger.put_key(record)
            _log.info("imported", key=record.key_id, name=record.name, role=record.role)
        return outcomes

    async def _update(
        self, key_id: str, changes: Mapping[str, Any], check: Callable[[KeyRecord, KeyRecord], None]
    ) -> KeyRecord:
        before = self._find_living(key_id)
        record = replace(before, **changes)
        _check(record, self._clock.now() if "expires_at" in changes else -math.inf)
        check(before, record)
        await self._db.write(partial(api_keys.update, record=record))
        record = self._put_changed(record)
        self._review(key_id)
        self._find_living(key_id)
        _log.info("updated", key=key_id, changed=sorted(changes))
        return record

    async def _resume(self, key_id: str, seen: Suspension | None) -> KeyRecord:
        """`seen` is the newest suspension of when this was asked: one that was said since stands."""
        record, name = self._find_living(key_id), _suspension(key_id)
        if record.suspended_at is None:
            return record
        self._refuse_overtaken(key_id, seen)
        owed = self._owed.pop(name, None)
        try:
            await self._db.write(partial(api_keys.resume, key_id=key_id))
        except BaseException:
            # Nobody knows what the disk says now: it stays suspended here, so it must be so there.
            self._owed.setdefault(name, owed or Suspension(key_id, record.suspended_at))
            self._unpaid.set()
            raise
        self._refuse_overtaken(key_id, seen)
        record = replace(self._find_living(key_id), suspended_at=None)
        self._ledger.put_key(record)
        _log.info("resumed", key=key_id)
        return record

    def _refuse_overtaken(self, key_id: str, seen: Suspension | None) -> None:
        if self._suspensions.get(key_id) is not seen:
            raise InvalidState(f"API key {key_id!r} was suspended anew meanwhile", resource="key", id=key_id)

    def _put_changed(self, record: KeyRecord) -> KeyRecord:
        """What was denied during the commit stands."""
        now = self._find(record.key_id)
        record = replace(record, revoked_at=now.revoked_at, suspended_at=now.suspended_at)
        self._ledger.put_key(record)
        return record

    def _review(self, key_id: str) -> None:
        """Judge everyone anew who is inside by this key: its end, and what they were let in for. Never waits."""
        now, ended = self._clock.now(), []
        for each in self._admissions.of(key_identity(key_id)):
            caller = self._ledger.current(each.caller)
            end = self._ledger.end_of(caller)
            self._admissions.renew(each, caller, None if end is None else max(0.0, end - now))
            if each.capability and not decide(caller, each.capability, each.resource, now=now).allowed:
                ended.append(each)
        if ended:
            self._admissions.put_out(ended, "revoked")
            self.revocations.publish(Revoked(frozenset(), self._clock.monotonic()))

    async def _rotate(self, key_id: str, grace_seconds: float) -> tuple[KeyRecord, str]:
        before = self._find_living(key_id)
        now = self._clock.now()
        secret, key_digest = mint_secret()
        record = replace(
            before,
            digest=key_digest,
            rotated_at=now,
            previous_digest=before.digest,
            previous_valid_until=now + grace_seconds,
        )
        await self._db.write(partial(api_keys.rotate, record=record))
        record = self._put_changed(record)
        self._admissions.shorten([secret_identity(before.digest)], grace_seconds)
        if before.previous_digest is not None:
            # Two secrets are good at a time; a rotation ends the one before both, whatever grace it still had.
            self._admissions.shorten([secret_identity(before.previous_digest)], 0.0)
        # If it was revoked during the commit the new secret is worth nothing.
        self._find_living(key_id)
        _log.info("rotated", key=key_id, grace_seconds=grace_seconds)
        return record, secret

    async def _pay(self) -> None:
        """Save everything that is owed in one transaction."""
        due = dict(self._owed)
        if not due:
            return
        try:
            await self._db.write(partial(revocations.deny, denials=list(due.values())), may_stand=True)
        except BaseException:
            self._unpaid.set()
            raise
        for name, item in due.items():
            # Another try may have paid, or something newer be owed under this name.
            if self._owed.get(name) is item:
                del self._owed[name]

    async def _retry(self) -> None:
        """Save what could not be saved, with growing pauses; runs for ever."""
        while True:
            await self._unpaid.wait()
            pause = FIRST_PAUSE
            while self._owed:
                _log.warning("denials not on disk yet", owed=len(self._owed), next_try_seconds=pause)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                await _Job(self._pay).run()
            self._unpaid = trio.Event()

    async def _drain(self) -> None:
        while True:
            try:
                job = self._receive.receive_nowait()
            except trio.WouldBlock:
                break
            await job.run()
        await _Job(self._pay).run()
        if self._owed:
            _log.error("denials lost", owed=sorted(self._owed))


def _check(record: KeyRecord, now: float) -> None:
    """Raises InvalidParams for a key that makes no sense."""
    if not 1 <= len(record.name) <= _LONGEST_NAME:
        raise InvalidParams(f"name is not 1 to {_LONGEST_NAME} characters long")
    if canonical_role(record.role) not in ROLES:
        raise InvalidParams(f"no role {record.role[:64]!r}", hint=f"one of {', '.join(ROLES)}")
    if record.expires_at is not None and not now < record.expires_at < math.inf:
        raise InvalidParams("expires_at lies in the past", hint="leave it out for a key without an end")


def _suspension(key_id: str) -> str:
    return f"suspension:{key_id}"


def _line(scope: str) -> str:
    return f"cut-off:{scope}"
