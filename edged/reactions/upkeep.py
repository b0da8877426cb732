"""What is done now and then: the clock's high-water mark, and figures that only a look can tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from edged.clock import Clock

#: At most six writes of the mark an hour (contract 10.9).
MARK_SECONDS = 900.0


async def keep_mark(clock: Clock, save: Callable[[float], Awaitable[None]]) -> None:
    """Store the clock's high-water mark every 15 minutes; runs for ever."""
    while True:
        await trio.sleep(MARK_SECONDS)
        await save(clock.high_water())
