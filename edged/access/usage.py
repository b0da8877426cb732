"""How often and when each credential is used: tallied in memory, flushed at most once a minute.

SD cards wear out: a use must never cost a write. What a crash loses is a minute of counting.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog
import trio

from edged.clock import Clock
from edged.errors import EdgedError
from edged.store import usage
from edged.store.database import Database
from edged.store.usage import Tally

#: Seconds between two writes, at least.
FLUSH_SECONDS: Final = 60.0
_log = structlog.get_logger("usage")


class Usage:
    """Live tallies by credential id; the database is the one that commits with NORMAL."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._tallies: dict[str, Tally] = {}
        self._changed: set[str] = set()

    def load(self) -> None:
        """Take up the stored tallies, before anybody asks. Raises StoreFailed."""
        self._tallies = {tally.credential_id: tally for tally in self._db.read_now(usage.load)}

    def tally(self, credential_id: str) -> None:
        """One more use, now; never waits."""
        before = self._tallies.get(credential_id)
        self._tallies[credential_id] = Tally(credential_id, self._clock.now(), before.count + 1 if before else 1)
        self._changed.add(credential_id)

    def find(self, credential_id: str) -> Tally | None:
        """`last_used` (Unix seconds) and `count` up to this moment; None if it was never used."""
        return self._tallies.get(credential_id)

    async def run(self) -> None:
        """Flush once a minute if anything changed, and when cancelled; runs until then."""
        try:
            while True:
                await trio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            with trio.CancelScope(shield=True):
                await self.flush()

    async def flush(self) -> None:
        """Write what changed; what cannot be written stays for the next time. Never raises EdgedError."""
        changed, self._changed = self._changed, set()
        if not changed:
            return
        try:
            await self._db.write(partial(usage.save, tallies=[self._tallies[name] for name in changed]))
        except BaseException as problem:
            self._changed |= changed
            if not isinstance(problem, EdgedError):
                raise
            _log.warning("not saved", credentials=len(changed), problem=str(problem))
