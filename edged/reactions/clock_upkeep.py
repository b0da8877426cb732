"""Periodic work on the clock: read it, act on its jumps, write its high-water mark, and delete what has expired."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from edged.clock import Clock
from edged.errors import EdgedError

#: Seconds between two looks at the clock; half of them passes, on average, until a correction reaches what is open.
LOOK_SECONDS: Final = 1.0
#: At most six writes of the mark an hour (contract 10.9): one each 15 minutes, and one in 10 minutes if it leaps.
MARK_SECONDS: Final = 900.0
LEAP_SECONDS: Final = 600.0
#: Seconds after the start until the first is written, so that a daemon that fails over and over writes nothing.
_SETTLED_SECONDS: Final = 60.0
#: A mark that rose by so much more than the time that passed, seconds, has leapt.
_LEAP: Final = 60.0
#: Between two looks at what may be deleted, seconds.
PRUNE_SECONDS: Final = 86400.0
#: A system clock that is so much behind what was known before, seconds, is worth a warning also while it is
#: not synchronised: tokens then end by a time that only goes on.
_LONG_AGO: Final = 86400.0
_SET: Final = "set the clock or let it reach a time server; until then the time goes on from the mark"
_MEND: Final = "if the mark is wrong, root lowers it to the system clock: edged clock reset"
_log = structlog.get_logger("clock")


async def prune(clock: Clock, delete: Callable[[float], Awaitable[int]]) -> None:
    """Have deleted what cannot be used any more, once the clock is trusted and then once a day; runs until cancelled.

    `delete(now)`, Unix seconds, returns how much; what it raises of EdgedError is told in the log, and tried again.
    """
    while True:  # noqa: ASYNC110 (nobody tells when a clock is trusted: it is looked at)
        await trio.sleep(PRUNE_SECONDS if await prune_if_trusted(clock, delete) else _SETTLED_SECONDS)


async def prune_if_trusted(clock: Clock, delete: Callable[[float], Awaitable[int]]) -> bool:
    """One round of that; whether the clock is trusted, so that there was one."""
    now = clock.now()
    if not clock.is_trusted:
        return False
    try:
        await delete(now)
    except EdgedError as problem:
        _log.warning("not_pruned", problem=str(problem))
    return True


async def watch_clock(clock: Clock, corrected: Callable[[], None], looked: Callable[[], None] = lambda: None) -> None:
    """Look at the clock every second, say what has become of it, and call `corrected` when it was set right; and
    `looked` each time, for what waits until the clock is trusted.

    Runs until cancelled. An unsynchronised jump corrects nothing (edged.clock).
    """
    told: tuple[bool, bool, bool, bool] | None = None
    seen = clock.corrections
    while True:
        clock.look()
        if clock.corrections != seen:
            seen = clock.corrections
            corrected()
        looked()
        lag = clock.lag
        state = (clock.is_synchronized, clock.is_trusted, clock.is_behind, lag > _LONG_AGO)
        if state != told:
            told = state
            remedy = _MEND if state[2] else _SET if state[3] else None
            say = _log.info if remedy is None else _log.warning
            days = {"behind_days": round(lag / 86400)} if state[3] else {}
            say("clock_state", synchronized=state[0], trusted=state[1], remedy=remedy, **days)
        await trio.sleep(LOOK_SECONDS)


def note_jump(count: Callable[[str], None], publish: Callable[[float], None], seconds: float) -> None:
    """The system clock was set by so many seconds; whether that is followed, the state of the clock says."""
    _log.warning("system_clock_jumped", seconds=round(seconds, 1))
    count("forward" if seconds > 0 else "backward")
    publish(seconds)


class Mark:
    """The clock's high-water mark on disk."""

    def __init__(
        self,
        clock: Clock,
        save: Callable[[float], Awaitable[None]],
        replace: Callable[[float], Awaitable[None]],
        was_reset: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`save(mark)` writes one that may only rise, and never fails; `replace(mark)` any, or raises StoreFailed;
        `was_reset()` is called as soon as that is in force, and may raise that, too."""
        self._clock = clock
        self._save = save
        self._replace = replace
        self._was_reset = was_reset
        # A mark from before a reset must not be written after it.
        self._lock = trio.Lock()

    async def keep(self) -> None:
        """Write the mark when it is due; runs until cancelled."""
        pause, kept, kept_at = _SETTLED_SECONDS, self._clock.high_water(), self._clock.monotonic()
        while True:
            await trio.sleep(pause)
            mark, passed = self._clock.high_water(), self._clock.monotonic() - kept_at
            if pause == _SETTLED_SECONDS or passed >= MARK_SECONDS or mark - kept - passed > _LEAP:
                await self.save()
                kept, kept_at, pause = self._clock.high_water(), self._clock.monotonic(), LEAP_SECONDS
            else:
                pause = MARK_SECONDS - LEAP_SECONDS

    async def save(self) -> None:
        """Write it now."""
        async with self._lock:
            await self._save(self._clock.high_water())

    async def reset(self) -> None:
        """Root's word: the mark is what the system clock says, on disk and then in force. Raises StoreFailed."""
        # The caller may hang up in the middle: it is completed all the same.
        with trio.CancelScope(shield=True):
            async with self._lock:
                await self._replace(self._clock.system)
                self._clock.reset()
                await self._was_reset()
