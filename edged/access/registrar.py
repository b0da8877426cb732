"""The one place that changes credentials: make, rotate and revoke keys, revoke tokens.

Denials take effect before they are durable, grants after (design 5):

* create, rotate: commit, then ledger, then reply. A failed commit leaves everything as it was.
* revoke: ledger and admissions at once, before the first await; then one commit; reply when it is done.
  If it fails the caller is told so, and what is denied stays denied and stays *owed* to the disk: it
  is written with growing pauses until it is there.

All work is done in the registrar's own task, fed by a bounded queue, so that a caller that hangs up,
or ends its own session by what it asks, cannot cancel it half-way.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, cast

import structlog
import trio

from edged.access.admissions import Admissions
from edged.access.ledger import Ledger, key_identity, secret_identity
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, mint, mint_secret
from edged.credentials.roles import ROLES, canonical_role
from edged.errors import EdgedError, InvalidParams, InvalidState, NotFound, Overloaded, StoreFailed
from edged.feeds import Feed
from edged.store import api_keys, revocations
from edged.store.database import Database
from edged.store.revocations import Revocation

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

    def revoked(self, kind: Literal["key", "token"]) -> None: ...


@dataclass(frozen=True, slots=True)
class Revoked:
    """These identities were denied just now; monotonic seconds."""

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
        # Denied but not known to be on disk.
        self._owed: dict[str, Revocation] = {}
        self._unpaid = trio.Event()

    def load(self) -> None:
        """Fill the ledger from the disk, before anybody asks. Raises StoreFailed."""
        keys = self._db.read_now(api_keys.load)
        denied = self._db.read_now(revocations.load)
        for record in keys:
            self._ledger.put_key(record)
        self._ledger.deny(item.identity for item in denied)
        _log.info("loaded", keys=len(keys), revocations=len(denied))

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
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which nothing else will ever show. `expires_at`: Unix seconds.

        Raises InvalidParams, StoreFailed or Overloaded; then there is no key.
        """
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise InvalidParams(f"name is not 1 to {_LONGEST_NAME} characters long")
        if canonical_role(role) not in ROLES:
            raise InvalidParams(f"no role {role[:64]!r}", hint=f"one of {', '.join(ROLES)}")
        now = self._clock.now()
        if expires_at is not None and not now < expires_at < math.inf:
            raise InvalidParams("expires_at lies in the past", hint="leave it out for a key without an end")
        key_id, secret, digest = mint()
        record = KeyRecord(
            key_id=key_id,
            name=name,
            role=role,
            digest=digest,
            created_at=now,
            expires_at=expires_at,
            permissions=None if permissions is None else tuple(permissions),
            camera_access=None if camera_access is None else tuple(camera_access),
        )
        return await self._submit(partial(self._create, record, secret)).outcome()

    async def rotate_key(self, key_id: str, grace_seconds: float = GRACE_SECONDS) -> tuple[KeyRecord, str]:
        """A new secret for a key; the old one, and whoever is inside by it, is good for `grace_seconds` more.

        Raises NotFound, InvalidState (revoked), InvalidParams, StoreFailed or Overloaded; then nothing changed.
        """
        if not 0 <= grace_seconds < math.inf:
            raise InvalidParams("grace_seconds is negative or endless", hint="0 ends the old secret at once")
        self._find_rotatable(key_id)
        return await self._submit(partial(self._rotate, key_id, grace_seconds)).outcome()

    def revoke_key(self, key_id: str, by: str = "") -> Coroutine[Any, Any, KeyRecord]:
        """End a key, both its secrets, and everything that it opened: in force when this *call* returns.

        Await the result for the commit. `by` is the session that asks: if it ends itself, its reply goes out first.
        Again is fine. Raises NotFound; Overloaded or StoreFailed if it is in force but not yet on disk.
        """
        self._find(key_id)
        job = self._deny(frozenset({key_identity(key_id)}), None, by, "key")

        async def settle() -> KeyRecord:
            await self._settle(job)
            return self._find(key_id)

        return settle()

    def revoke_token(self, identities: frozenset[str], until: float | None, by: str = "") -> Coroutine[Any, Any, None]:
        """End a token by its names (`jti:…`, `token:<sha256>`): in force when this *call* returns.

        `until`: Unix seconds at which it ends by itself, leeway included, None if unknown. Else as `revoke_key`.
        """
        return self._settle(self._deny(identities, until, by, "token"))

    def _deny(
        self, identities: frozenset[str], until: float | None, by: str, kind: Literal["key", "token"]
    ) -> _Job[None] | Overloaded | StoreFailed | None:
        """No checkpoint in here: the gate says no from the first line on, and whoever is inside is put out."""
        fresh = identities - self._ledger.denied
        self._ledger.deny(identities)
        now = self._clock.now()
        for name in fresh:
            item = self._owed[name] = Revocation(name, now, until, kind)
            if record := self._ledger.keys.get(item.key_id):
                self._ledger.put_key(replace(record, revoked_at=now))
        ended = self._admissions.end(identities, "revoked", by)
        self.revocations.publish(Revoked(identities, self._clock.monotonic()))
        _log.info("revoked", kind=kind, identities=sorted(identities), ended=len(ended), again=not fresh)
        if fresh:
            self._counts.revoked(kind)
        if self._owed.keys().isdisjoint(identities):
            return None
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

    def _find_rotatable(self, key_id: str) -> KeyRecord:
        record = self._find(key_id)
        if record.revoked_at is not None:
            raise InvalidState(f"API key {key_id!r} is revoked", hint="create a new one", resource="key", id=key_id)
        return record

    async def _create(self, record: KeyRecord, secret: str) -> tuple[KeyRecord, str]:
        await self._db.write(partial(api_keys.insert, record=record))
        self._ledger.put_key(record)
        _log.info("created", key=record.key_id, name=record.name, role=record.role)
        return record, secret

    async def _rotate(self, key_id: str, grace_seconds: float) -> tuple[KeyRecord, str]:
        before = self._find_rotatable(key_id)
        now = self._clock.now()
        secret, digest = mint_secret()
        record = replace(
            before,
            digest=digest,
            rotated_at=now,
            previous_digest=before.digest,
            previous_valid_until=now + grace_seconds,
        )
        await self._db.write(partial(api_keys.rotate, record=record))
        # It may have been revoked during the commit: that stands, and the new secret is worth nothing.
        revoked_at = self._find(key_id).revoked_at
        self._ledger.put_key(replace(record, revoked_at=revoked_at))
        self._admissions.shorten([secret_identity(before.digest)], grace_seconds)
        if before.previous_digest is not None:
            # Two secrets are good at a time; a rotation ends the one before both, whatever grace it still had.
            self._admissions.shorten([secret_identity(before.previous_digest)], 0.0)
        self._find_rotatable(key_id)
        _log.info("rotated", key=key_id, grace_seconds=grace_seconds)
        return record, secret

    async def _pay(self) -> None:
        """Save everything that is owed in one transaction."""
        due = dict(self._owed)
        if not due:
            return
        try:
            await self._db.write(partial(revocations.add, revocations=list(due.values())), may_stand=True)
        except BaseException:
            self._unpaid.set()
            raise
        for name in due:
            # The same identity cannot be owed anew meanwhile, as it is denied already; another try may have paid.
            self._owed.pop(name, None)

    async def _retry(self) -> None:
        """Save what could not be saved, with growing pauses; runs for ever."""
        while True:
            await self._unpaid.wait()
            pause = FIRST_PAUSE
            while self._owed:
                _log.warning("revocations not on disk yet", owed=len(self._owed), next_try_seconds=pause)
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
            _log.error("revocations lost", owed=sorted(self._owed))
