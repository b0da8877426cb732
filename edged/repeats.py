"""Log lines of which there may be thousands a second: the first are written, the rest are counted, once a minute."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

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


@dataclass(slots=True)
class _Entry(Generic[_T]):
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
