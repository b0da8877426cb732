"""A share of each turn of the event loop: what the connections of one client may take of it together.

trio runs whatever is ready, then looks for what has become ready: that is one turn. Without shares each connection of a
client may take TURN_SECONDS of each turn, and 128 connections 128 times as much. So the time that messages take is
charged to the client (its credential, or where it is); once its share is used, the rest waits for the next turn, and
others are served first. Nobody waits where nobody else is ready, but for the look in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Protocol

import trio

from edged.net.stream import TURN_SECONDS

#: What a request over HTTP is charged, seconds: it waits in between, so that it cannot be timed.
REQUEST_SECONDS: Final = 0.0005


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop; trio calls it once a turn."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio calls it so
        self.number += 1


@contextmanager
def counting(turns: Turns) -> Iterator[None]:
    """The turns of this event loop are counted while the block runs."""
    trio.lowlevel.add_instrument(turns)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(turns)


class Payer(Protocol):
    """A connection; its share becomes another one when it authenticates."""

    share: Share


class Share:
    """One client's. `members`: connections that it is charged for."""

    __slots__ = ("_spent", "_turn", "_turns", "members")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._turn = -1
        self._spent = 0.0
        self.members = 0

    @property
    def is_used_up(self) -> bool:
        """Whether the client has to wait for the next turn."""
        return self._spent >= TURN_SECONDS and self._turn == self._turns.number

    def spend(self, seconds: float) -> None:
        """Charge so much of this turn."""
        number = self._turns.number
        if self._turn == number:
            self._spent += seconds
        else:
            self._turn, self._spent = number, seconds

    def spend_since(self, began: float) -> None:
        """Charge the time since then (`perf_counter`)."""
        self.spend(perf_counter() - began)

    async def wait(self) -> None:
        """Until something is left of a turn: give way at least once."""
        while True:
            number = self._turns.number
            await trio.lowlevel.checkpoint()
            if self._turns.number == number:
                # Nobody counts: each return of this task is a turn.
                self._spent = 0.0
            if not self.is_used_up:
                return
