"""A share of each turn of the event loop: what the connections of one client may take of it together.

trio runs every task that is ready, then asks the kernel what has become ready: that is one turn. Without shares each
connection of a client could take TURN_SECONDS of each turn, and 128 connections 128 times as much. So the time that
messages take is charged to the client (its credential, or its place); once its share is used up, the rest waits for the
next turn, and other clients are served first. Where nobody else is ready, that costs one question to the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import trio

from edged.wire.ports import TURN_SECONDS

#: What a request over HTTP is charged, seconds: it waits in between, so that it cannot be timed.
REQUEST_SECONDS: Final = 0.001


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


class Share:
    """The share of one client; `members` is how many connections are charged to it."""

    __slots__ = ("_has_first", "_spent", "_turn", "_turns", "_waiting", "members")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._turn = -1
        self._spent = 0.0
        #: Of the tasks that wait one looks each turn, and lets the next look when its own wait is over: looks of all,
        #: 128 connections long, would take more of a turn than the share.
        self._has_first = False
        self._waiting = trio.lowlevel.ParkingLot()
        self.members = 0

    @property
    def is_used_up(self) -> bool:
        """Whether this client must wait for the next turn."""
        return self._spent >= TURN_SECONDS and self._turn == self._turns.number

    def spend(self, seconds: float) -> None:
        """Charge this time, in this turn."""
        number = self._turns.number
        if self._turn == number:
            self._spent += seconds
        else:
            self._turn, self._spent = number, seconds

    def spend_since(self, began: float) -> None:
        """Charge the time since then (`perf_counter`)."""
        self.spend(perf_counter() - began)

    async def wait(self) -> None:
        """Let other tasks run, once at least, until something is left of the share."""
        if self._has_first:
            await self._waiting.park()
        self._has_first = True
        try:
            await self._look()
        finally:
            self._has_first = bool(self._waiting.unpark())

    async def _look(self) -> None:
        while True:
            number = self._turns.number
            await trio.lowlevel.checkpoint()
            if self._turns.number == number:
                # No instrument counts turns: take each run of this task for one.
                self._spent = 0.0
            if not self.is_used_up:
                return
