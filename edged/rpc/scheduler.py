"""In which order the messages of one connection run (contract 10.3, 10.4). Pure: it starts and sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from edged.wire.jsonrpc import Batch, Call

Place: TypeAlias = Literal["now", "later", "refused"]


class Scheduler:
    """Messages start in the order of their arrival and run side by side, except for barriers.

    A barrier (`authenticate`, or a batch that holds one) starts when everything before it has ended, and nothing behind
    it starts before it has ended. What must wait for that is held. `in_flight` counts the messages that run in a task
    and those that are held; with `most` of them the next is refused. `is_barrier` says of a message whether it is one.
    """

    __slots__ = ("_has_barrier", "_held", "_is_barrier", "_most", "in_flight")

    def __init__(self, most: int, is_barrier: Callable[[Call | Batch], bool]) -> None:
        self._most = most
        self._is_barrier = is_barrier
        self._held: list[Call | Batch] = []  # 32 at most; an empty deque would be 600 bytes a connection
        self._has_barrier = False  # one runs in a task
        self.in_flight = 0

    def place(self, message: Call | Batch) -> Place:
        """When a message that has just arrived may start; one that is to start later is held here."""
        if not self.in_flight:
            return "now"
        if self.in_flight >= self._most:
            return "refused"
        if self._held or self._has_barrier or self._is_barrier(message):
            self.in_flight += 1
            self._held.append(message)
            return "later"
        return "now"

    def launch(self, message: Call | Batch) -> None:
        """A message that was started goes on in a task."""
        self.in_flight += 1
        self._has_barrier = self._is_barrier(message)

    def finish(self) -> None:
        """Such a task has ended: `take` what may start now."""
        self.in_flight -= 1
        self._has_barrier = False

    def take(self) -> Call | Batch | None:
        """The next held message that may start now, which is held no more; None if there is none."""
        if not self._held or self._has_barrier:
            return None
        running = self.in_flight - len(self._held)
        if running and self._is_barrier(self._held[0]):
            return None
        self.in_flight -= 1
        return self._held.pop(0)

    def clear(self) -> None:
        """Drop what is held: the connection has ended."""
        self._held.clear()
