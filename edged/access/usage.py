"""How often and when each credential is used: tallied in memory, flushed at most once a minute.

A use is to show the credential, and to be inside by it: a session or a stream that goes on for months is in use all
the time, though its last login was months ago, and whoever looks for unused keys must not find it (contract S1-36).
Each login is tallied; who is inside is asked for when somebody wants to know, and once a minute, so that `last_used`
is at most a minute behind for whoever has left. Nothing of it costs a call anything.

SD cards wear out: a use must never cost a write. What a crash loses is a minute of counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from edged.clock import Clock
from edged.credentials.identities import Identity
from edged.errors import EdgedError
from edged.repeats import Lasting
from edged.store import usage
from edged.store.database import Database
from edged.store.usage import Tally

#: Seconds between two writes, at least.
FLUSH_SECONDS: Final = 60.0
_log = structlog.get_logger("usage")


class Usage:
    """Live tallies by credential id; the database is the one that commits with NORMAL.

    `is_inside(identity)` says whether somebody is inside by what answers to this name (access.admissions);
    `trust_commits()` how many commits the trust database has been through, which is flushed with the tallies
    (store.restores); `is_known(id)` whether a credential is in memory: else its tally is on disk only.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        is_inside: Callable[[Identity], bool],
        trust_commits: Callable[[], int | None],
        is_known: Callable[[str], bool],
    ) -> None:
        self._db = db
        self._clock = clock
        self._is_inside = is_inside
        self._trust_commits = trust_commits
        self._is_known = is_known
        self._forgotten: set[str] = set()
        self._kept_commits = 0
        self._lasting = Lasting()
        self._tallies: dict[str, Tally] = {}
        self._changed: set[str] = set()

    def load(self, credential_ids: Sequence[str]) -> None:
        """Take up the stored tallies of these, before anybody asks. Raises StoreFailed."""
        found = self._db.read_now(partial(usage.load_of, credential_ids=credential_ids))
        self._tallies = {tally.credential_id: tally for tally in found}
        self._kept_commits = self._db.read_now(usage.load_trust_commits)

    def tally(self, credential_id: str) -> None:
        """It was shown once more, now; never waits."""
        before = self._tallies.get(credential_id)
        self._tallies[credential_id] = Tally(credential_id, self._clock.now(), before.count + 1 if before else 1)
        self._changed.add(credential_id)

    def find(self, credential_id: str) -> Tally | None:
        """`last_used`, Unix seconds: now while somebody is inside by it, or by a ticket of it; and `count`, how often
        it was shown, up to this moment. None if it never was."""
        found = self._tallies.get(credential_id)
        if found is None or not self._is_in_use(credential_id):
            return found
        return Tally(credential_id, self._clock.now(), found.count)

    async def find_all(self, credential_ids: Sequence[str]) -> dict[str, Tally]:
        """The same of several, by their ids, also of those that are not in memory. Raises StoreFailed."""
        found = {name: use for name in credential_ids if (use := self.find(name)) is not None}
        if rest := [name for name in credential_ids if name not in found and not self._is_known(name)]:
            stored = await self._db.read(partial(usage.load_of, credential_ids=rest))
            found |= {tally.credential_id: tally for tally in stored}
        return found

    def forget(self, credential_ids: Iterable[str]) -> None:
        """These credentials are deleted, and so are their tallies with the next flush."""
        self._forgotten.update(credential_ids)

    async def run(self) -> None:
        """Note who is inside and flush, once a minute and when cancelled; runs until then."""
        due = trio.current_time()
        try:
            while True:
                # By the minute, however long a write takes.
                due = max(due + FLUSH_SECONDS, trio.current_time())
                await trio.sleep_until(due)
                await self.flush()
        finally:
            with trio.CancelScope(shield=True):
                await self.flush()

    async def flush(self) -> None:
        """Write what changed; what cannot be written stays for the next time. Never raises EdgedError."""
        self._note_inside()
        changed, self._changed = self._changed, set()
        forgotten, self._forgotten = self._forgotten, set()
        commits = self._trust_commits() or 0
        if not changed and not forgotten and commits <= self._kept_commits:
            return
        tallies = [self._tallies[name] for name in changed - forgotten]
        try:
            await self._db.write(partial(usage.save_all, tallies=tallies, trust_commits=commits, forgotten=forgotten))
            self._kept_commits = max(commits, self._kept_commits)
            for name in [name for name in self._tallies if name not in self._changed and not self._is_known(name)]:
                del self._tallies[name]
        except BaseException as problem:
            self._changed |= changed
            self._forgotten |= forgotten
            if not isinstance(problem, EdgedError):
                raise
            if self._lasting.begins("save", str(problem)):
                _log.warning("not_saved", credentials=len(changed), problem=str(problem))
        else:
            if self._lasting.ends("save"):
                _log.info("saved_again", credentials=len(changed))

    def _note_inside(self) -> None:
        # Nobody is inside by a credential that was never shown.
        now = self._clock.now()
        for credential_id, before in self._tallies.items():
            if self._is_in_use(credential_id):
                self._tallies[credential_id] = Tally(credential_id, now, before.count)
                self._changed.add(credential_id)

    def _is_in_use(self, credential_id: str) -> bool:
        return any(
            self._is_inside(each) for each in (Identity.of_key(credential_id), Identity.of_service_token(credential_id))
        )
