"""MediaMTX comes or goes → the publishers know at once, and its restarts are counted."""

from __future__ import annotations

from collections.abc import Callable

from edged.feeds import Lagged, Reader
from edged.mediamtx.process import ServerState
from edged.mediamtx.publisher import Publishers


async def follow(states: Reader[ServerState], publishers: Publishers, restarted: Callable[[str], None]) -> None:
    """Tell the publishers of every change; runs for ever. `restarted("mediamtx")` counts each start after the first."""
    was_ready = False
    while True:
        state = await states.receive()
        publishers.nudge()
        if isinstance(state, Lagged) or state.status != "ready":
            continue
        if was_ready:
            restarted("mediamtx")
        was_ready = True
