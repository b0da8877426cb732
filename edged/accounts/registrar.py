"""The one task in which credentials change, and the one place where they are denied.

Each kind of credential has a file beside this one that says what may become of it (`api_keys`, `users` …) and does it
here. Denials take effect before they are durable, grants after (architecture 5):

* a grant (`grant`): commit, then ledger, then reply. A failed commit leaves everything as it was. Its authority is
  asked again right before the commit, in this task, and by the only way to the disk that it is given (`Commit`). If it
  was denied while the commit ran, what was written is taken back before the denial is answered.
* a denial (`deny`, or `add_pending` for one that a kind knows itself): ledger and admissions at once, before the
  first await; then one commit; reply when it is done. If it fails the caller is told that it is in force and would be
  lost by a restart; what is denied stays denied and *pending*: it is written with growing pauses until it is on disk.

Both run in the registrar's own task, so that a caller that hangs up, or ends its own session by what it asks, cannot
cancel one half-way. Grants wait in a bounded queue. Denials never do: they go ahead of every grant that waits, those
that were said meanwhile in one transaction, and there are never too many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import structlog
import trio

from edged.access.admissions import Admission, Admissions, Cause
from edged.access.asking import asked_by
from edged.access.authority import EDGED, Authority
from edged.access.grants import Commit as AnyCommit
from edged.access.grants import Grant
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit, Due, Job, stopping, wait
from edged.clock import Clock
from edged.credentials.claims import LEEWAY, LONGEST_LIFE
from edged.credentials.identities import Identity, format_all
from edged.errors import Overloaded, StoreFailed
from edged.store import meta, revocations
from edged.store.database import Database
from edged.store.jobs import Transaction
from edged.store.revocations import Denial, Key, Revocation, Undo, revocation_key

if TYPE_CHECKING:
    from edged.metrics import Metrics

T = TypeVar("T")

#: Grants that wait for the registrar before the next one is refused.
QUEUE_SIZE: Final = 64
#: Pauses between tries to save what is denied: doubled from the first to the longest, seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
_log = structlog.get_logger("registrar")


#: What can be revoked; a cut-off is everything before a time.
Kind: TypeAlias = Literal["key", "token", "service_token", "subject", "issuer", "cut_off"]


class Registrar:
    """Does the jobs and keeps the denials; `run` must be running for anything to be answered."""

    def __init__(
        self,
        ledger: Ledger,
        admissions: Admissions,
        db: Database,
        clock: Clock,
        counts: Metrics,
        *,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self._ledger = ledger
        self._admissions = admissions
        self._db = db
        self._clock = clock
        self._counts = counts
        self._queue_size = queue_size
        self._grants: deque[Job[Any]] = deque()
        # The next save of what is pending; whoever denies something before it begins waits for the same one.
        self._save: Job[None] | None = None
        self._asked = trio.Event()
        self._undos = 0
        self._closed = False
        # Denied but not known to be on disk, by a key that the same denial said again has too.
        self._pending: dict[Key, Denial] = {}
        # The ledger's epoch as it is known to be on disk.
        self._kept_epoch = 0
        #: What is denied from here on, again or not, is noted there while somebody wants to know; None: nobody does.
        self.said: set[Identity] | None = None
        self._unsaved = trio.Event()
        self._late = False

    @property
    def pending(self) -> int:
        """How many denials are in force and not known to be on disk: a restart might forget them."""
        return len(self._pending)

    @property
    def is_late(self) -> bool:
        """Whether some of what is pending was to be written, and could not be."""
        return self._late and bool(self._pending)

    @property
    def reserve_bytes(self) -> int | None:
        """What is kept on the disk for denials while it is full; None where nothing is to be."""
        return self._db.reserve_bytes

    @property
    def has_reserve(self) -> bool:
        """Whether that is all that is to be kept."""
        return self._db.has_reserve

    @property
    def is_saving(self) -> bool:
        """Whether the disk took the last commit."""
        return self._db.is_saving

    @property
    def damage(self) -> str:
        """What is wrong with the file, as far as it was noticed."""
        return self._db.damage

    def load(self) -> None:
        """Take up the epoch, before anybody asks. Raises StoreFailed."""
        self._ledger.epoch = self._kept_epoch = self._db.read_now(meta.load_epoch)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do the jobs in order; runs until cancelled, and then finishes what it has accepted."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retry)
            task_status.started()
            try:
                while True:
                    job = self._next()
                    if job is None:
                        self._asked = trio.Event()
                        await self._asked.wait()
                    else:
                        with trio.CancelScope(shield=True):
                            await job.run()
                        await trio.lowlevel.checkpoint()
            finally:
                self._closed = True
                with trio.CancelScope(shield=True):
                    await self._drain()

    def _next(self) -> Job[Any] | None:
        """Denials first."""
        job, self._save = self._save, None
        if job is None and self._grants:
            return self._grants.popleft()
        return job

    def grant(
        self,
        authority: Authority,
        work: Callable[[Commit], Awaitable[T]],
        *,
        withhold: Callable[[T], object] | None = None,
    ) -> Job[T]:
        """Have this done after what was asked before; `work` gets the only way to the disk. Raises Overloaded or
        StoreFailed (stopping); then it is not done.

        `withhold(value)`: ends a credential that was made, and whose asker was denied before hearing of it.
        """
        if self._closed:
            raise stopping()
        if len(self._grants) >= self._queue_size:
            raise Overloaded(
                "too many changes of credentials wait for the disk", hint="try again in a moment", in_force=False
            )

        async def run() -> T:
            # What is to be undone is undone before anything is granted on top of it.
            if any(isinstance(item, Undo) for item in self._pending.values()):
                await self.save_pending()
            return await work(Commit(self, authority))

        job = Job(run, authority, withhold)
        self._grants.append(job)
        self._asked.set()
        return job

    def granting(self, authority: Authority) -> Grant:
        """What other parts are handed for a change that this authority allows (access.grants)."""

        async def grant(work: Callable[[AnyCommit], Awaitable[T]]) -> T:
            return await self.grant(authority, work).outcome()

        return grant

    def deny(self, identities: frozenset[Identity], until: float | None, by: str, kind: Kind, reason: str) -> Due:
        """Nothing that answers to one of these gets in from here on, and its active sessions are terminated.

        No checkpoint in here: it is in force when this returns. `by` is the session that asks: if it ends itself, its
        reply goes out first. `until`: Unix seconds at which they end by themselves, None if unknown. With a token all
        that came of it by refreshing is denied, and all that it came of.
        """
        now = self._clock.now()
        denials = self._ledger.denials
        families = {each: denials.find_family(each) for each in denials.families_of(identities)}
        identities = identities.union(families)
        for known in filter(None, families.values()):
            # Known for as long as any token may be good that was made with one of it.
            known.until = max(known.until, now + LONGEST_LIFE + LEEWAY)
        fresh = frozenset(each for each in identities if not self._ledger.is_named(each))
        self._ledger.deny(identities)
        if self.said is not None:
            self.said |= identities
        due = [
            Revocation(each, now, family.until if (family := families.get(each)) else until, reason or kind)
            for each in fresh
        ]
        self._ledger.mark_revoked(fresh, now)
        ended = self._admissions.end(denials.with_members(identities), "revoked", by)
        if kind in ("subject", "issuer"):
            ended += self._admissions.terminate(self.find_denied(), "revoked", by)
        self._admissions.tell(identities)
        _log.info("revoked", kind=kind, identities=format_all(identities), ended=len(ended), again=not fresh,
                  **asked_by())  # fmt: skip
        if fresh:
            self._counts.revoked(kind)
        if due:
            return self.add_pending(due)
        is_pending = any(revocation_key(each) in self._pending for each in identities)
        return self._save_soon() if is_pending else None

    def add_pending(self, due: Iterable[Denial]) -> Due:
        """These denials are in force and go to the disk now, with what is pending already."""
        self._pending |= {item.key: item for item in due}
        return self._save_soon()

    def keep_pending(self, item: Denial) -> None:
        """A denial that a job took back, and could not: it is pending again, unless a newer one is, after a pause."""
        self._pending.setdefault(item.key, item)
        self._fall_behind()

    def find_pending(self) -> dict[Key, Denial]:
        """What is pending just now, by key."""
        return dict(self._pending)

    def amend(self, item: Denial) -> None:
        """What is pending under this key has become another one."""
        self._pending[item.key] = item

    def withdraw(self, key: Key) -> Denial | None:
        """A job takes this denial back: it is pending no more. Returns what was."""
        return self._pending.pop(key, None)

    async def settle(self, due: Due) -> None:
        """Wait until a denial is on disk. Raises StoreFailed or Overloaded, with the field `in_force`, if it is in
        force but not there yet."""
        try:
            await wait(due)
        except (StoreFailed, Overloaded) as problem:
            hint = problem.hint
            if not self._closed:
                hint += "; edged goes on trying to save it, and /health/ready tells how many such denials are left"
            raise type(problem)(
                f"in force now, but not saved yet ({problem.sentence}): a restart of edged would undo it",
                hint=hint,
                in_force=True,
            ) from problem

    async def write(self, transaction: Transaction[T], *, may_stand: bool = False) -> T:
        """One transaction, and with it the epoch if it has risen; for `Commit` and for denials only. Raises as
        Database.write does."""
        epoch = self._ledger.epoch
        if epoch == self._kept_epoch:
            return await self._db.write(transaction, may_stand=may_stand)
        value = await self._db.write(meta.with_epoch(epoch, transaction), may_stand=may_stand)
        self._kept_epoch = max(epoch, self._kept_epoch)
        return value

    def take_back(self, undo: Transaction[object]) -> None:
        """A grant was committed, and its authority had ended by then: it is undone with the next denials."""
        self._undos += 1
        self.add_pending([Undo(self._undos, undo)])

    async def epoch(self) -> int:
        """What a token that is made now says as `epoch`: on disk, so that none that is made after a restart says less.

        Raises StoreFailed or Overloaded while what raised it last cannot be written.
        """
        if self._ledger.epoch != self._kept_epoch:
            try:
                await wait(self._save_soon())
            except (StoreFailed, Overloaded) as problem:
                raise type(problem)(
                    f"no token is made while what ended others is not saved yet ({problem.sentence})",
                    hint=problem.hint,
                    in_force=False,
                ) from problem
        return self._kept_epoch

    def terminate(self, found: Iterable[Admission], cause: Cause, by: str = "", names: Iterable[Identity] = ()) -> int:
        """Terminate these sessions, and tell the sweeps of these identities. Returns how many. Never waits."""
        ended = self._admissions.terminate(found, cause, by)
        # Told also of nobody: what MediaMTX does not list just now is found by the sweeps.
        self._admissions.tell(names)
        return len(ended)

    def review(self, found: Iterable[Admission]) -> None:
        """Judge these anew by what their credentials are now: until when, and for what, they may stay. Never waits."""
        now, ended = self._clock.now(), []
        for each in found:
            caller = self._ledger.current(each.caller)
            end = self._ledger.end_of(caller)
            self._admissions.renew(each, caller, None if end is None else max(0.0, end - now))
            if each.capability and not self._ledger.decide(caller, each.capability, each.resource, now=now).allowed:
                ended.append(each)
        if ended:
            self.terminate(ended, "revoked")

    def revoke_token(
        self,
        identities: frozenset[Identity],
        until: float | None,
        by: str = "",
        *,
        kind: Kind = "token",
        reason: str = "",
    ) -> Coroutine[Any, Any, None]:
        """End a token by its identities: in force when this *call* returns.

        Or all tokens of a subject or an issuer; `kind` says which. `until`: Unix seconds at
        which it ends by itself, leeway included, None if unknown. Await the result for the commit; else as `deny`.
        """
        return self.settle(self.deny(identities, until, by, kind, reason))

    def end_session(self, admission: Admission, by: str = "") -> None:
        """Put one out; its credential is as good as before. Never waits."""
        self.terminate([admission], "ended", by)

    def find_denied(self) -> list[Admission]:
        """Everyone who is inside and should not be: by a token that is denied by whom it is of, or when it was made."""
        return [each for each in self._admissions if self._ledger.is_denied(each.caller)]

    def _save_soon(self) -> Job[None] | StoreFailed:
        if self._closed:
            self._fall_behind()
            return stopping()
        if self._save is None:
            self._save = Job(self.save_pending, EDGED)
            self._asked.set()
        return self._save

    def _fall_behind(self) -> None:
        self._late = True
        self._unsaved.set()

    async def save_pending(self) -> None:
        """Save everything that is pending in one transaction; part of a job. Raises StoreFailed, Overloaded."""
        due = dict(self._pending)
        if not due and self._ledger.epoch == self._kept_epoch:
            return
        try:
            await self.write(partial(revocations.deny, denials=list(due.values())), may_stand=True)
        except BaseException:
            self._fall_behind()
            raise
        for key, item in due.items():
            # Another try may have saved it, or something newer be pending under this key.
            if self._pending.get(key) is item:
                del self._pending[key]
        self._ledger.retire(item.identity for item in due.values() if isinstance(item, Revocation))
        if self._late:
            self._late = False
            _log.info("denials_saved", saved=_texts(due), pending=len(self._pending))

    async def _retry(self) -> None:
        """Save what could not be saved, with growing pauses; runs for ever."""
        while True:
            await self._unsaved.wait()
            pause = FIRST_PAUSE
            while self._pending:
                _log.warning("denials_pending", pending=len(self._pending), next_try_seconds=pause)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                await Job(self.save_pending, EDGED).run()
            self._unsaved = trio.Event()

    async def _drain(self) -> None:
        while (job := self._next()) is not None:
            await job.run()
        await Job(self.save_pending, EDGED).run()
        if self._pending:
            _log.error("denials_lost", lost=_texts(self._pending))


def _texts(keys: Iterable[Key]) -> list[str]:
    """`revocation key:key_1` and the like, for the log."""
    return sorted(f"{kind} {name}" for kind, name in keys)
