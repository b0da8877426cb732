"""The one task in which credentials change, and the one place where they are denied.

Each kind of credential has a file beside this one that says what may become of it (`api_keys`, `users` …) and does it
here. Denials take effect before they are durable, grants after (design 5):

* a grant is a job (`submit`): commit, then ledger, then reply. A failed commit leaves everything as it was.
* a denial (`deny`, `cut_off`, or `owe` for one that a kind knows itself): ledger and admissions at once, before the
  first await; then one commit; reply when it is done. If it fails the caller is told that it is in force and would be
  lost by a restart; what is denied stays denied and stays *owed* to the disk: it is written with growing pauses until
  it is there.

Jobs are fed by a bounded queue to the registrar's own task, so that a caller that hangs up, or ends its own session by
what it asks, cannot cancel one half-way.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, cast

import structlog
import trio

from edged.access.admissions import Admission, Admissions, Cause
from edged.access.ledger import ALL, Ledger
from edged.clock import Boot, Clock
from edged.errors import EdgedError, Overloaded, StoreFailed
from edged.store import meta, revocations
from edged.store.database import Database, Transaction
from edged.store.revocations import CutOff, Denial, Drawn, Revocation, Settled

T = TypeVar("T")

#: Jobs that wait for the registrar before the next one is refused.
QUEUE_SIZE: Final = 64
#: Pauses between tries to save what is denied: doubled from the first to the longest, seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: For how long after its end a token's revocation is kept, seconds: longer than any leeway and any grace for a refresh.
PRUNE_SECONDS: Final = 90000.0
_log = structlog.get_logger("registrar")


class Counts(Protocol):
    """Where revocations are counted; metrics.py in the daemon."""

    def revoked(self, kind: Kind) -> None: ...


#: What can be revoked; a cut-off is everything before a time.
Kind: TypeAlias = Literal["key", "token", "service_token", "subject", "issuer", "cut_off"]


class Job(Generic[T]):
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


#: A denial on its way to the disk: the job that writes it, why there is none (it is owed all the same), None if it is
#: there already.
Due: TypeAlias = Job[None] | Overloaded | StoreFailed | None


class Registrar:
    """Does the jobs and keeps the denials; `run` must be running for anything to be answered."""

    def __init__(
        self,
        ledger: Ledger,
        admissions: Admissions,
        db: Database,
        clock: Clock,
        counts: Counts,
        *,
        queue_size: int = QUEUE_SIZE,
        boot: Boot | None = None,
    ) -> None:
        self._ledger = ledger
        self._admissions = admissions
        self._db = db
        self._clock = clock
        self._counts = counts
        self._boot = boot or Boot()
        # Lines that wait for somebody to vouch for the clock, by scope.
        self._provisional: dict[str, CutOff] = {}
        ledger.place = self._place
        self._send, self._receive = trio.open_memory_channel[Job[Any]](queue_size)
        self._closed = False
        # Denied but not known to be on disk, by a name that the same denial said again has too.
        self._owed: dict[str, Denial] = {}
        # The ledger's epoch as it is known to be on disk.
        self._kept_epoch = 0
        # What was denied, again or not, while old revocations are being deleted; None while none are.
        self._said: set[str] | None = None
        # When revocations were deleted, at the latest; Unix seconds.
        self._pruned_at = 0.0
        self._unpaid = trio.Event()
        self._late = False

    @property
    def owed(self) -> int:
        """How many denials are in force and not known to be on disk: a restart might forget them."""
        return len(self._owed)

    @property
    def is_late(self) -> bool:
        """Whether some of what is owed was to be written, and could not be."""
        return self._late and bool(self._owed)

    def load(self) -> None:
        """Tell the ledger what is denied, before anybody asks. Raises StoreFailed."""
        denied = self._db.read_now(revocations.load)
        lines = self._db.read_now(revocations.load_cut_offs)
        self._ledger.epoch = self._kept_epoch = self._db.read_now(meta.load_epoch)
        self._ledger.deny(item.identity for item in denied)
        for line in lines:
            if line.drawn is None:
                self._ledger.cut_off(line.scope, line.before, line.own_before, line.epoch)
            else:
                self._keep(line)
        self._pruned_at = self._db.read_now(meta.load_pruned)
        self.mind_reset()
        _log.info("loaded", revocations=len(denied), cut_offs=len(lines))

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

    def submit(self, work: Callable[[], Awaitable[T]]) -> Job[T]:
        """Have this done after what was asked before. Raises Overloaded or StoreFailed (stopping); then it is not."""
        if self._closed:
            raise StoreFailed("edged is stopping: nothing was saved", hint="ask again once it is back", in_force=False)
        job = Job(work)
        try:
            self._send.send_nowait(job)
        except trio.WouldBlock:
            raise Overloaded(
                "too many changes of credentials wait for the disk", hint="try again in a moment", in_force=False
            ) from None
        return job

    def deny(self, identities: frozenset[str], until: float | None, by: str, kind: Kind, reason: str) -> Due:
        """Nothing that answers to one of these gets in from here on, and whoever is inside is put out.

        No checkpoint in here: it is in force when this returns. `by` is the session that asks: if it ends itself, its
        reply goes out first. `until`: Unix seconds at which they end by themselves, None if unknown. With a token all
        that came of it by refreshing is denied, and all that it came of.
        """
        families = self._ledger.families_of(identities)
        identities |= families
        fresh = frozenset(name for name in identities if not self._ledger.is_named(name))
        self._ledger.deny(identities)
        if self._said is not None:
            self._said |= identities
        now = self._clock.now()
        due: dict[str, Denial] = {
            name: Revocation(
                name, now, self._ledger.families[name].until if name in families else until, reason or kind
            )
            for name in fresh
        }
        for item in due.values():
            if isinstance(item, Revocation) and (record := self._ledger.keys.get(item.key_id)):
                self._ledger.put_key(replace(record, revoked_at=now))
        ended = self._admissions.end(self._ledger.with_members(identities), "revoked", by)
        if kind in ("subject", "issuer"):
            ended += self._admissions.put_out(self._denied(), "revoked", by)
        self._admissions.tell(identities)
        _log.info("revoked", kind=kind, identities=sorted(identities), ended=len(ended), again=not fresh)
        if fresh:
            self._counts.revoked(kind)
        if due:
            return self.owe(due)
        return None if self._owed.keys().isdisjoint(identities) else self._pay_later()

    def owe(self, due: Mapping[str, Denial]) -> Due:
        """These denials are in force and go to the disk now: each under a name that the same one said again has too."""
        self._owed |= due
        return self._pay_later()

    def owe_again(self, name: str, item: Denial) -> None:
        """A denial that a job took back, and could not: it is still due, unless a newer one is, after a pause."""
        self._owed.setdefault(name, item)
        self._fall_behind()

    def withdraw(self, name: str) -> Denial | None:
        """A job takes this denial back: it is owed no more. Returns what was."""
        return self._owed.pop(name, None)

    async def settle(self, due: Due) -> None:
        """Wait until a denial is on disk. Raises StoreFailed or Overloaded, with the field `in_force`, if it is in
        force but not there yet."""
        try:
            await _wait(due)
        except (StoreFailed, Overloaded) as problem:
            hint = problem.hint
            if not self._closed:
                hint += "; edged goes on trying to save it, and /health/ready tells how many such denials are left"
            raise type(problem)(
                f"in force now, but not saved yet ({problem.sentence}): a restart of edged would undo it",
                hint=hint,
                in_force=True,
            ) from problem

    async def commit(self, transaction: Transaction[T], *, may_stand: bool = False) -> T:
        """One transaction of a job, and with it the epoch if it has risen. Raises as Database.write does."""
        epoch = self._ledger.epoch
        if epoch == self._kept_epoch:
            return await self._db.write(transaction, may_stand=may_stand)
        value = await self._db.write(meta.with_epoch(epoch, transaction), may_stand=may_stand)
        self._kept_epoch = max(epoch, self._kept_epoch)
        return value

    async def epoch(self) -> int:
        """What a token that is made now says as `epoch`: on disk, so that none that is made after a restart says less.

        Raises StoreFailed or Overloaded while what raised it last cannot be written.
        """
        if self._ledger.epoch != self._kept_epoch:
            try:
                await _wait(self._pay_later())
            except (StoreFailed, Overloaded) as problem:
                raise type(problem)(
                    f"no token is made while what ended others is not saved yet ({problem.sentence})",
                    hint=problem.hint,
                    in_force=False,
                ) from problem
        return self._kept_epoch

    def put_out(self, found: Iterable[Admission], cause: Cause, by: str = "", names: Iterable[str] = ()) -> int:
        """Put these out, and tell who sweeps that it was by these identities. Returns how many. Never waits."""
        ended = self._admissions.put_out(found, cause, by)
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
            self.put_out(ended, "revoked")

    def revoke_token(
        self, identities: frozenset[str], until: float | None, by: str = "", *, kind: Kind = "token", reason: str = ""
    ) -> Coroutine[Any, Any, None]:
        """End a token by its names (`jti:…`, `token:<sha256>`): in force when this *call* returns.

        Or all tokens of a subject (`user:…`) or an issuer (`issuer:…`); `kind` says which. `until`: Unix seconds at
        which it ends by itself, leeway included, None if unknown. Await the result for the commit; else as `deny`.
        """
        return self.settle(self.deny(identities, until, by, kind, reason))

    def cut_off(self, scope: str, before: float | None, by: str = "", reason: str = "") -> Coroutine[Any, Any, None]:
        """End all tokens of a scope (`all`, `user:…`, `issuer:…`) that were issued by `before` (Unix seconds), or
        until now (None): of edged's own then all those that were made so far, whatever the clock says and said.

        In force when this *call* returns, whoever is inside by one included. A line that lies before the one of this
        scope changes nothing. Await the result for the commit.

        A line up to now that is drawn while the clock is not trusted is provisional (`mind_clock`). A `before` that
        somebody names is what they named, whatever the clock says; only root's word moves it (`follow_reset`).
        """
        return self.settle(self._draw(scope, before, by, reason))

    def _draw(self, scope: str, before: float | None, by: str, reason: str) -> Due:
        ledger, now, own = self._ledger, self._clock.now(), before
        # A line that does not lie in the past is one up to now, too.
        up_to_now = before is None or before >= now
        epoch = ledger.next_epoch() if up_to_now else 0
        due: dict[str, Denial] = {}
        if up_to_now and not self._clock.is_trusted:
            drawn = Drawn(self._boot.name, self._boot.seconds())
            line = due[_open_line(scope)] = CutOff(scope, now, now, reason, None, epoch, drawn)
            self._keep(line)
        if own is not None or not due:
            before = now if before is None else before
            fresh = epoch > 0 or before > ledger.cut_offs.get(scope, -math.inf)
            fresh = fresh or (own is not None and own > ledger.own_cut_offs.get(scope, -math.inf))
            ledger.cut_off(scope, before, own, epoch)
            if fresh:
                due[_line(scope)] = self._whole(scope, now, reason)
        ended = self.put_out(self._denied(), "revoked", by, {scope})
        _log.info("cut off", scope=scope, before=before, provisional=_open_line(scope) in due, ended=ended,
                  again=not due)  # fmt: skip
        if not due:
            # The later line may be in force and not on disk yet: then this waits for it, too.
            return self._pay_later() if _line(scope) in self._owed else None
        self._counts.revoked("cut_off")
        return self.owe(due)

    def _whole(self, scope: str, at: float, reason: str) -> CutOff:
        """A scope's firm line: what it says may have been drawn in several."""
        ledger = self._ledger
        return CutOff(scope, ledger.cut_offs[scope], at, reason, ledger.own_cut_offs.get(scope), ledger.epochs[scope])

    def _keep(self, line: CutOff) -> None:
        """A provisional line is in force."""
        self._provisional[line.scope] = line
        self._ledger.cut_off_provisionally(line.scope, self._second_of(line), line.epoch)

    def _second_of(self, line: CutOff) -> float:
        """The second of this boot at which a provisional line was drawn: one of an earlier boot before it began."""
        assert line.drawn is not None
        return min(line.drawn.seconds, self._boot.seconds()) if line.drawn.boot == self._boot.name else 0.0

    def _place(self, second: float) -> float:
        """A second of this boot as the clock tells it now, Unix seconds."""
        passed = self._boot.since(second)
        return self._clock.now() - passed

    def mind_clock(self) -> None:
        """If the clock is trusted by now, every provisional line becomes firm: at the time of its drawing, as it is
        known how long ago that was; or at the time at which this boot began, if it was drawn in an earlier one. So it
        moves as far as the clock was wrong, up or down. In force when this returns; never waits.

        A firm line of the same scope stays what it is. Until it is on disk the provisional one is, too.
        """
        if not self._provisional:
            return
        self._clock.now()  # looks, if the clock has jumped
        if not self._clock.is_trusted:
            return
        due: dict[str, Denial] = {}
        for scope, line in self._provisional.items():
            before = self._place(self._ledger.provisional.pop(scope))
            self._ledger.cut_off(scope, before, None, line.epoch)
            due[_line(scope)] = self._whole(scope, before, line.reason)
            due[_open_line(scope)] = Settled(scope)
            _log.info("cut-off settled", scope=scope, before=before, told=line.at)
        self.put_out(self._denied(), "revoked", names=set(self._provisional))
        self._provisional.clear()
        self.owe(due)

    async def prune(self, now: float) -> int:
        """Delete the revocations of tokens that nobody can use any more at `now`, Unix seconds; how many.

        Of tokens and their families, never of keys, subjects and issuers; only for a clock that is trusted. Should it
        have lied all the same, see `mind_reset`. Raises StoreFailed, Overloaded.
        """
        return await self.submit(partial(self._prune, now)).outcome()

    def mind_reset(self) -> None:
        """The time was set back by root's word, or may have been before this start. If it is before a time at which
        revocations were deleted every token of so far ends: nobody knows any more which of them were revoked. In force
        when this returns."""
        self.mind_clock()
        if self._clock.now() >= self._pruned_at:
            return
        _log.warning("every token ends", reason="revocations were deleted by a clock that told a later time")
        self._draw(ALL, None, "", "clock")
        self._pruned_at = 0.0
        # What the disk does not take now is taken for a reset again at the next start.
        with suppress(Overloaded, StoreFailed):
            self.submit(self._forget_pruned)

    async def follow_reset(self) -> None:
        """Root's word: the clock is right. `mind_reset`; and lines that lie in the future are lowered to now: none was
        drawn later, whatever clock told that time. Raises StoreFailed or Overloaded if those stay as they are."""
        self.mind_reset()
        try:
            await self.submit(self._lower).outcome()
        except (StoreFailed, Overloaded) as problem:
            raise type(problem)(
                "the clock was reset, but what was revoked up to a time that is yet to come stays so",
                hint="mend the disk, then once more: edged clock reset",
            ) from problem

    async def _lower(self) -> None:
        await self._pay()
        ledger, now = self._ledger, self._clock.now()
        # Where edged's own tokens are compared with a time they end by the epoch instead: what was ended stays so.
        own = [scope for scope, line in ledger.own_cut_offs.items() if line > now]
        high = {scope for scope, line in ledger.cut_offs.items() if line > now}.union(own)
        if not high:
            return
        epoch = ledger.next_epoch() if own else 0
        for scope in own:
            ledger.epochs[scope] = epoch
        self.put_out(self._denied(), "revoked", names=own)
        await self.commit(partial(revocations.lower, now=now, epoch=epoch))
        later = self._clock.now()
        for scope in high:
            # One that was drawn meanwhile is within the high one, and not on the disk yet.
            item, limit = self._owed.get(_line(scope)), now
            if isinstance(item, CutOff):
                limit = later
                own_before = None if item.own_before is None else min(later, item.own_before)
                self._owed[_line(scope)] = replace(item, before=min(later, item.before), own_before=own_before)
            ledger.lower(scope, limit)
            _log.warning("cut-off lowered", scope=scope, before=limit)

    async def _forget_pruned(self) -> None:
        await self._pay()
        if self._pruned_at == 0.0:
            await self.commit(meta.forget_pruned)

    async def _prune(self, now: float) -> int:
        said = self._said = set()
        # Before it is so on the disk: whoever resets the clock meanwhile resets it behind this.
        before, self._pruned_at = self._pruned_at, max(now, self._pruned_at)
        try:
            named, families = await self.commit(partial(revocations.prune, before=now - PRUNE_SECONDS, now=now))
        except BaseException:
            # Nobody knows what the disk says now.
            self._deny_anew(said, now)
            raise
        finally:
            self._said = None
        self._deny_anew(said.intersection(named), now)
        self._ledger.forget(set(named) - said, families)
        if not (named or families):
            self._pruned_at = min(before, self._pruned_at)
        else:
            _log.info("pruned", revocations=len(named), families=len(families))
        return len(named)

    def _deny_anew(self, identities: set[str], now: float) -> None:
        """These were denied again while their rows were being deleted: for good, this time."""
        if identities:
            self.owe({name: Revocation(name, now, None, "token") for name in identities})

    async def list_revocations(self) -> tuple[list[Revocation], list[CutOff]]:
        """All that is denied, by name and by time, oldest first; also what is not on disk yet. Raises StoreFailed."""
        owed = dict(self._owed)
        stored, lines = await self._db.read(revocations.load_all)
        # What was owed at first may have come to the disk behind what was read.
        owed |= self._owed
        named = {item.identity: item for item in stored}
        drawn = {(line.scope, line.drawn is None): line for line in lines}
        for item in owed.values():
            if isinstance(item, Revocation):
                named.setdefault(item.identity, item)
            elif isinstance(item, CutOff):
                drawn[item.scope, item.drawn is None] = item
            elif isinstance(item, Settled):
                drawn.pop((item.scope, False), None)
        told = [
            line if line.drawn is None else replace(line, before=self._place(self._second_of(line)))
            for line in drawn.values()
        ]
        return sorted(named.values(), key=lambda item: item.at), sorted(told, key=lambda line: line.at)

    def end_session(self, admission: Admission, by: str = "") -> None:
        """Put one out; its credential is as good as before. Never waits."""
        self.put_out([admission], "ended", by)

    def _denied(self) -> list[Admission]:
        """Everyone who is inside and should not be: by a token that is denied by whom it is of, or when it was made."""
        return [each for each in self._admissions if self._ledger.is_denied(each.caller)]

    def _pay_later(self) -> Job[None] | Overloaded | StoreFailed:
        try:
            return self.submit(self._pay)
        except (Overloaded, StoreFailed) as problem:
            self._fall_behind()
            return problem

    def _fall_behind(self) -> None:
        self._late = True
        self._unpaid.set()

    async def _pay(self) -> None:
        """Save everything that is owed in one transaction."""
        due = dict(self._owed)
        if not due and self._ledger.epoch == self._kept_epoch:
            return
        try:
            await self.commit(partial(revocations.deny, denials=list(due.values())), may_stand=True)
        except BaseException:
            self._fall_behind()
            raise
        for name, item in due.items():
            # Another try may have paid, or something newer be owed under this name.
            if self._owed.get(name) is item:
                del self._owed[name]
        if self._late:
            self._late = False
            _log.info("denials on disk now", saved=sorted(due), owed=len(self._owed))

    async def _retry(self) -> None:
        """Save what could not be saved, with growing pauses; runs for ever."""
        while True:
            await self._unpaid.wait()
            pause = FIRST_PAUSE
            while self._owed:
                _log.warning("denials not on disk yet", owed=len(self._owed), next_try_seconds=pause)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                await Job(self._pay).run()
            self._unpaid = trio.Event()

    async def _drain(self) -> None:
        while True:
            try:
                job = self._receive.receive_nowait()
            except trio.WouldBlock:
                break
            await job.run()
        await Job(self._pay).run()
        if self._owed:
            _log.error("denials lost", owed=sorted(self._owed))


async def _wait(due: Due) -> None:
    if isinstance(due, EdgedError):
        raise due
    if due is None:
        await trio.lowlevel.checkpoint()
    else:
        await due.outcome()


def _line(scope: str) -> str:
    return f"cut-off:{scope}"


def _open_line(scope: str) -> str:
    return f"provisional cut-off:{scope}"
