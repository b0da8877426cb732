"""The tickets that are good now: in memory only, by their digest, and forgotten soon after they end.

A restart ends them all. Their time is monotonic: no jump of the clock makes one last longer or shorter.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from edged.credentials.callers import Caller
from edged.credentials.identities import Identity
from edged.credentials.tickets import Action, digest, mint, renewed, ticket_caller
from edged.errors import Overloaded, RateLimited

#: Tickets at once, and those of one subject: whoever loops over create_ticket is told so, and nobody else notices.
MOST: Final = 4096
MOST_OF_ONE: Final = 64


class OpenTicket(msgspec.Struct):
    """One ticket: who comes with it, its end in monotonic seconds, and with whose it is counted."""

    caller: Caller
    ends: float
    bearer: str


class Tickets:
    """Makes tickets and finds them; used by the gate."""

    def __init__(self, monotonic: Callable[[], float] = trio.current_time) -> None:
        self._monotonic = monotonic
        self._tickets: dict[bytes, OpenTicket] = {}
        self._ending: list[tuple[float, bytes]] = []
        self._of: Counter[str] = Counter()  # by _bearer_of()

    def __len__(self) -> int:
        return len(self._tickets)

    def make(self, parent: Caller, action: Action, camera: str, seconds: float, session_id: str) -> str:
        """The text of a new ticket, which nothing else will ever show. The gate has been asked before.

        Raises RateLimited for one who has too many already, Overloaded if there are too many of all.
        """
        now = self._monotonic()
        self._forget_ended(now)
        bearer = _bearer_of(parent)
        if self._of[bearer] >= MOST_OF_ONE:
            first = min(each.ends for each in self._tickets.values() if each.bearer == bearer)
            raise RateLimited(
                f"{MOST_OF_ONE} of your tickets are open", retry_after_ms=max(1, int((first - now) * 1000))
            )
        if len(self._tickets) >= MOST:
            raise Overloaded("too many tickets are open", hint="try again in a minute")
        text, key = mint()
        caller = ticket_caller(parent, action, camera, Identity.of_tickets(session_id))
        self._tickets[key] = OpenTicket(caller, now + seconds, bearer)
        self._of[bearer] += 1
        heapq.heappush(self._ending, (now + seconds, key))
        return text

    def find(self, text: str) -> OpenTicket | None:
        """A ticket by its text, ended or not; None for a text that is none, or that is none any more."""
        return self._tickets.get(digest(text))

    def has_ended(self, ticket: OpenTicket) -> bool:
        """Whether its time is over."""
        return self._monotonic() >= ticket.ends

    def renew(self, parent: Caller, name: Identity) -> None:
        """The session whose tickets answer to `name` shows a newer credential: they are
        worth what that one is."""
        for ticket in self._tickets.values():
            if name in ticket.caller.identities:
                ticket.caller = renewed(ticket.caller, parent)

    def _forget_ended(self, now: float) -> None:
        while self._ending and self._ending[0][0] <= now:
            _, key = heapq.heappop(self._ending)
            bearer = self._tickets.pop(key).bearer
            self._of[bearer] -= 1
            if not self._of[bearer]:
                del self._of[bearer]


def _bearer_of(caller: Caller) -> str:
    """Whose tickets are counted together: those of one subject of one issuer, or of one key."""
    return caller.account or caller.subject
