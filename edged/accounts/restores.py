"""A trust database that is older than it was: nothing that it lets in is let in before an administrator confirms it.

What was revoked since it was written cannot be known (contract 10.10). `examine` is part of the start, before anything
is committed and before anybody asks; `confirm` is a job of the registrar. What gives such a file away: store.restores.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from edged.access.authority import Authority
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit
from edged.accounts.registrar import Registrar
from edged.clock import Clock, iso
from edged.errors import EdgedError
from edged.store import restores, usage
from edged.store.database import Database
from edged.store.restores import Restored

COMMAND: Final = "edged trust confirm-restore"
_CAUSES: Final = {
    "copy": "the trust database is a copy made at an earlier time",
    "behind": "the trust database is older than it was when edged ran last",
}
_log = structlog.get_logger("restores")


class Restores:
    """Whether the trust database waits for a confirmation, `pending`; None if it does not."""

    def __init__(self, registrar: Registrar, ledger: Ledger, trust: Database, tallies: Database, clock: Clock) -> None:
        self._registrar = registrar
        self._ledger = ledger
        self._trust = trust
        self._tallies = tallies
        self._clock = clock
        self.pending: Restored | None = None

    @property
    def message(self) -> str:
        """What is so, in one sentence; "" while nothing is to be confirmed."""
        return self.explain(self.pending) if self.pending else ""

    @staticmethod
    def explain(mark: Restored) -> str:
        """The sentence about this mark."""
        return f"{_CAUSES[mark.cause]} ({iso(mark.at)}): every key and every token of before is refused"

    async def examine(self) -> None:
        """Look whether this file is older than it was, and mark it if it is. Raises StoreFailed if it cannot be read.

        The mark, the raised epoch and the raised count are one commit; should the disk fail it, they are in force in
        memory, and no other commit is made without them.
        """
        found = self._trust.read_now(restores.load)
        known = max(self._trust.known_commits, self._tallies.read_now(usage.load_trust_commits))
        mark = restores.examine(found, known, self._clock.now())
        if mark is None:
            return
        self.pending = mark
        assert mark.epoch is not None
        self._ledger.unconfirmed_epoch = mark.epoch
        self._ledger.epoch = max(self._ledger.epoch, mark.epoch)
        if mark != found.mark:
            try:
                await self._trust.require(partial(restores.put_mark, mark=mark, known_commits=known))
            except EdgedError as problem:
                _log.error("mark_not_saved", problem=str(problem))
        _log.error(
            "restored_database_not_confirmed", cause=mark.cause, at=iso(mark.at), commits=found.commits,
            known_commits=known, problem=self.message,
            remedy=f"revoke what was revoked since then, then on this machine: {COMMAND}",
        )  # fmt: skip

    async def confirm(self, authority: Authority, by: str) -> Restored | None:
        """An administrator takes this database for right: saved, then in force. What it was; None if there is nothing
        to confirm. Raises StoreFailed, Overloaded."""
        return await self._registrar.grant(authority, partial(self._confirm, by)).outcome()

    async def _confirm(self, by: str, commit: Commit) -> Restored | None:
        mark = self.pending
        if mark is None:
            return None
        await commit(restores.remove_mark, undo=partial(restores.put_mark, mark=mark))
        self.pending = self._ledger.unconfirmed_epoch = None
        _log.warning("restored_database_confirmed", by=by, cause=mark.cause, at=iso(mark.at))
        return mark
