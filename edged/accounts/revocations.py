"""What is revoked: everything that was issued by a time, for how long it has to be remembered, and the list of it all.

A line "up to now" is drawn by the time that passes and not by a clock that is not trusted; what has ended by itself
is forgotten by a clock that somebody does. The denial of one credential is the registrar's own (`Registrar.deny`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec.structs import replace

from edged.access.asking import asked_by
from edged.access.authority import EDGED
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit, Due, keep
from edged.accounts.provisional_cut_offs import ProvisionalCutOffs
from edged.accounts.registrar import Registrar
from edged.clock import Boot, Clock
from edged.credentials.claims import LONGEST_LIFE
from edged.credentials.identities import ALL, Identity
from edged.errors import Overloaded, StoreFailed
from edged.store import meta
from edged.store import revocations as rows
from edged.store.database import Reads
from edged.store.revocations import CutOff, Denial, Revocation, Settled, cut_off_key

if TYPE_CHECKING:
    from edged.metrics import Metrics

#: For how long after its end a token's revocation is kept, seconds: longer than any leeway and any grace for a refresh.
PRUNE_SECONDS: Final = 90000.0
#: How long revoked API keys and service tokens are kept, days.
KEEP_ENDED_DAYS: Final = 90
_log = structlog.get_logger("revocations")


class Revocations:
    """Lines in time, the list, and its pruning."""

    def __init__(
        self,
        registrar: Registrar,
        ledger: Ledger,
        db: Reads,
        clock: Clock,
        counts: Metrics,
        *,
        boot: Boot | None = None,
        keep_ended_days: int = KEEP_ENDED_DAYS,
        forgotten: Callable[[Sequence[str]], object] = list,
    ) -> None:
        """`keep_ended_days`: how long revoked API keys and service tokens are kept; `forgotten(ids)` is told of
        those that are deleted."""
        self._registrar = registrar
        self._ledger = ledger
        self._db = db
        self._clock = clock
        self._counts = counts
        self._counted: rows.Counted | None = None
        self._provisional = ProvisionalCutOffs(ledger.cut_offs, clock, boot or Boot())
        # In these days every token has ended that one of them issued.
        self._keep_revoked = max(keep_ended_days * 86400.0, LONGEST_LIFE + PRUNE_SECONDS)
        self._forgotten = forgotten
        # When revocations were deleted, at the latest; Unix seconds.
        self._pruned_at = 0.0

    def load(self) -> None:
        """Tell the ledger what is denied, before anybody asks. Raises StoreFailed."""
        denied = self._db.read_now(rows.load_denied)
        lines = self._db.read_now(rows.load_cut_offs)
        self._ledger.deny(denied)
        for line in lines:
            if line.drawn is None:
                self._ledger.cut_offs.draw(line.scope, line.before, line.own_before, line.epoch)
            else:
                self._provisional.keep(line)
        self._pruned_at = self._db.read_now(meta.load_pruned)
        self.mind_reset()
        _log.info("loaded", revocations=len(denied), cut_offs=len(lines))

    def cut_off(
        self, scope: Identity, before: float | None, by: str = "", reason: str = ""
    ) -> Coroutine[Any, Any, None]:
        """End all tokens of a scope (all, a subject, an issuer) that were issued by `before` (Unix seconds), or
        until now (None): of edged's own then all those that were made so far, whatever the clock says and said.

        In force when this *call* returns, whoever is inside by one included. A line that lies before the one of this
        scope changes nothing. Await the result for the commit.

        A line up to now that is drawn while the clock is not trusted is provisional (`mind_clock`). A `before` that
        somebody names is what they named, whatever the clock says; only root's word moves it (`follow_reset`).
        """
        return self._registrar.settle(self._draw(scope, before, by, reason))

    def _draw(self, scope: Identity, before: float | None, by: str, reason: str) -> Due:
        ledger, now, own = self._ledger, self._clock.now(), before
        # A line that does not lie in the past is one up to now, too.
        up_to_now = before is None or before >= now
        epoch = ledger.next_epoch() if up_to_now else 0
        due: list[Denial] = []
        is_provisional = up_to_now and not self._clock.is_trusted
        if is_provisional:
            due.append(self._provisional.draw(scope, now, epoch, reason))
        if own is not None or not due:
            before = now if before is None else before
            line = ledger.cut_offs.find(scope)
            fresh = epoch > 0 or line.before is None or before > line.before
            fresh = fresh or (own is not None and (line.own_before is None or own > line.own_before))
            ledger.cut_offs.draw(scope, before, own, epoch)
            if fresh:
                due.append(self._whole(scope, now, reason))
        ended = self._registrar.terminate(self._registrar.find_denied(), "revoked", by, {scope})
        _log.info("cut_off", scope=str(scope), before=before, provisional=is_provisional, ended=ended,
                  again=not due, **asked_by())  # fmt: skip
        if not due:
            # The later line may be in force and not on disk yet: then this waits for it, too.
            is_pending = cut_off_key(scope) in self._registrar.find_pending()
            return self._registrar.add_pending([]) if is_pending else None
        self._counts.revoked("cut_off")
        return self._registrar.add_pending(due)

    def _whole(self, scope: Identity, at: float, reason: str) -> CutOff:
        """A scope's firm line: what it says may have been drawn in several."""
        line = self._ledger.cut_offs.find(scope)
        assert line.before is not None, "a firm line has a time"
        return CutOff(scope, line.before, at, reason, line.own_before, line.epoch)

    def mind_clock(self) -> None:
        """If the clock is trusted by now, every provisional line becomes firm (accounts.provisional_cut_offs). In force
        when this returns; never waits. Until it is on disk the provisional one is, too."""
        due: list[Denial] = []
        for line, before in self._provisional.settle():
            due += [self._whole(line.scope, before, line.reason), Settled(line.scope)]
            _log.info("cut_off_settled", scope=str(line.scope), before=before, told=line.at)
        if due:
            scopes = {item.scope for item in due if isinstance(item, Settled)}
            self._registrar.terminate(self._registrar.find_denied(), "revoked", names=scopes)
            self._registrar.add_pending(due)

    async def prune(self, now: float) -> int:
        """Delete the revocations of tokens that nobody can use any more at `now`, Unix seconds; how many.

        Of tokens and their families; and API keys and service tokens that ended long ago, with theirs. Never of
        subjects and issuers, and only for a clock that is trusted. Should it have lied all the same, see `mind_reset`.
        Raises StoreFailed, Overloaded.
        """
        return await self._registrar.grant(EDGED, partial(self._prune, now)).outcome()

    def mind_reset(self) -> None:
        """The time was set back by root's word, or may have been before this start. If it is before a time at which
        revocations were deleted every token of so far ends: nobody knows any more which of them were revoked. In force
        when this returns."""
        self.mind_clock()
        if self._clock.now() >= self._pruned_at:
            return
        _log.warning("all_tokens_ended", reason="revocations were deleted by a clock that told a later time")
        self._draw(ALL, None, "", "clock")
        self._pruned_at = 0.0
        # What the disk does not take now is taken for a reset again at the next start.
        with suppress(Overloaded, StoreFailed):
            self._registrar.grant(EDGED, self._forget_pruned)

    async def follow_reset(self) -> None:
        """Root's word: the clock is right. `mind_reset`; and lines that lie in the future are lowered to now: none was
        drawn later, whatever clock told that time. Raises StoreFailed or Overloaded if those stay as they are."""
        self.mind_reset()
        try:
            await self._registrar.grant(EDGED, self._lower).outcome()
        except (StoreFailed, Overloaded) as problem:
            raise type(problem)(
                "the clock was reset, but what was revoked up to a time that is yet to come stays so",
                hint="mend the disk, then once more: edged clock reset",
            ) from problem

    async def _lower(self, commit: Commit) -> None:
        await self._registrar.save_pending()
        cut_offs, now = self._ledger.cut_offs, self._clock.now()
        # Where edged's own tokens are compared with a time they end by the epoch instead: what was ended stays so.
        lines = cut_offs.all()
        own = [scope for scope, line in lines.items() if line.own_before is not None and line.own_before > now]
        high = {scope for scope, line in lines.items() if line.before is not None and line.before > now}.union(own)
        if not high:
            return
        epoch = self._ledger.next_epoch() if own else 0
        cut_offs.raise_epoch(own, epoch)
        self._registrar.terminate(self._registrar.find_denied(), "revoked", names=own)
        await commit(partial(rows.lower, now=now, epoch=epoch), undo=keep)
        later = self._clock.now()
        for scope in high:
            # One that was drawn meanwhile is within the high one, and not on the disk yet.
            item, limit = self._registrar.find_pending().get(cut_off_key(scope)), now
            if isinstance(item, CutOff):
                limit = later
                own_before = None if item.own_before is None else min(later, item.own_before)
                item = replace(item, before=min(later, item.before), own_before=own_before)
                self._registrar.amend(item)
            cut_offs.lower(scope, limit)
            _log.warning("cut_off_lowered", scope=str(scope), before=limit)

    async def _forget_pruned(self, commit: Commit) -> None:
        await self._registrar.save_pending()
        if self._pruned_at == 0.0:
            await commit(meta.forget_pruned, undo=keep)

    async def _prune(self, now: float, commit: Commit) -> int:
        said = self._registrar.said = set()
        # Before it is so on the disk: whoever resets the clock meanwhile resets it behind this.
        before, self._pruned_at = self._pruned_at, max(now, self._pruned_at)
        try:
            prune = partial(rows.prune, before=now - PRUNE_SECONDS, revoked_before=now - self._keep_revoked, now=now)
            pruned = await commit(prune, undo=keep)
        except BaseException:
            # Nobody knows what the disk says now.
            self._deny_anew(said, now)
            raise
        finally:
            self._registrar.said = None
        self._deny_anew(said.intersection(pruned.tokens), now)
        self._ledger.denials.forget(set(pruned.tokens) - said, pruned.families)
        self._ledger.forget_revoked(pruned.keys, pruned.service_tokens)
        for record in filter(None, map(self._ledger.keys.get, pruned.expired)):
            self._ledger.drop_key(record)
        self._forgotten([*pruned.keys, *pruned.service_tokens, *pruned.expired])
        if not any(pruned):
            self._pruned_at = min(before, self._pruned_at)
        else:
            counts = {name: len(found) for name, found in pruned._asdict().items()}
            _log.info("pruned", **counts)
        return sum(len(found) for found in pruned)

    def _deny_anew(self, identities: set[Identity], now: float) -> None:
        """These were denied again while their rows were being deleted: for good, this time."""
        if identities:
            self._registrar.add_pending([Revocation(each, now, None, "token") for each in identities])

    async def load_page(self, before: tuple[float, str] | None, limit: int) -> list[Revocation]:
        """At most `limit` of what is denied by name and on disk, the newest first, behind (at, text of the identity).
        Raises StoreFailed."""
        return await self._db.read(partial(rows.load_page, before=before, limit=limit))

    async def load_pending_and_lines(self) -> tuple[list[Revocation | CutOff], int]:
        """All that is denied by time, and by name but not yet on disk; and how much is denied in all. Raises
        StoreFailed."""
        pending = list(self._registrar.find_pending().values())
        read = partial(rows.load_pending_and_lines, pending=pending, known=self._counted)
        found, counted = await self._db.read(read)
        self._counted = counted
        shown = [self._provisional.as_told_now(item) if isinstance(item, CutOff) else item for item in found]
        return shown, len(found) + counted.revocations
