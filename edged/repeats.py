"""Log lines that would come again and again.

Of what may come thousands of times a second the first are written, and the rest are counted, once a minute (`Repeats`).
Of what is tried again and again it is told that it fails, once, and that it no longer does (`Lasting`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import trio

#: Lines of one key that are written one by one within SECONDS; a key that went on is only counted from then on.
FIRST: Final = 5
#: The same of all keys together.
BUDGET: Final = 100
SECONDS: Final = 60.0
#: Keys that are told apart; whatever else comes is counted together.
MOST: Final = 100
_OTHERS: Final = object()
_T_contra = TypeVar("_T_contra", contravariant=True)
_T = TypeVar("_T")


class Write(Protocol[_T_contra]):
    """Writes one line that stands for `times`; `others`: of several keys, `what` is the last of them."""

    def __call__(self, what: _T_contra, times: int, /, *, others: bool) -> None: ...


class _Entry(msgspec.Struct, Generic[_T]):
    what: _T
    is_known: bool = False
    told: int = 0
    held: int = 0


class Repeats(Generic[_T]):
    """Lines by key, for example an address and a reason."""

    def __init__(self, write: Write[_T]) -> None:
        self._write = write
        self._entries: dict[Hashable, _Entry[_T]] = {}
        self._since = -math.inf
        self._lines = 0
        self._began = trio.Event()

    def note(self, key: Hashable, now: float, what: _T) -> None:
        """One more at `now`, monotonic seconds: written at once, or counted."""
        if now - self._since >= SECONDS:
            self.flush(now)
        entry = self._entries.get(key)
        if entry is None:
            is_other = len(self._entries) >= MOST
            entry = self._entries.setdefault(_OTHERS if is_other else key, _Entry(what, is_known=is_other))
            self._began.set()
        if not entry.is_known and entry.told < FIRST and self._lines < BUDGET:
            entry.told += 1
            self._lines += 1
            self._write(what, 1, others=False)
            return
        entry.held += 1
        entry.what = what

    def flush(self, now: float) -> None:
        """Write what was counted, a line a key."""
        entries, self._entries = self._entries, {}
        self._since, self._lines = now, 0
        for key, entry in entries.items():
            if entry.held:
                self._write(entry.what, entry.held, others=key is _OTHERS)
                self._entries[key] = _Entry(entry.what, is_known=True)

    async def run(self) -> None:
        """Write what was counted once a minute, and when cancelled; runs until then, asleep while there is nothing."""
        try:
            while True:
                if not self._entries:
                    self._began = trio.Event()
                    await self._began.wait()
                await trio.sleep(SECONDS)
                self.flush(trio.current_time())
        finally:
            self.flush(math.inf)


class Lasting:
    """Problems that last, by what fails: for code that is run again and again while nothing changes."""

    def __init__(self) -> None:
        self._problems: dict[Hashable, str] = {}

    def begins(self, what: Hashable, problem: str) -> bool:
        """It has failed: whether that is to be told, since it did not the time before, or for another reason."""
        is_new = self._problems.get(what) != problem
        self._problems[what] = problem
        return is_new

    def ends(self, what: Hashable) -> bool:
        """It was done: whether that is to be told, since it failed the time before."""
        return self._problems.pop(what, None) is not None
