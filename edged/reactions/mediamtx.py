"""Publishers are told at once when MediaMTX has started or ended, and its restarts are counted."""

from __future__ import annotations

from collections.abc import Callable

from edged.feeds import Lagged, Reader
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.server_state import ServerState


async def follow(states: Reader[ServerState], publishers: Publishers, restarted: Callable[[str], None]) -> None:
    """Tell the publishers of every change; runs until cancelled.

    `restarted("mediamtx")` counts each start after the first.
    """
    before: ServerState | None = None
    was_away = False
    while True:
        state = await states.receive()
        publishers.nudge()
        if isinstance(state, Lagged):
            continue
        if state.status != "ready":
            was_away = True
            continue
        # A MediaMTX that was slow and answers again has not been restarted.
        if before is not None and (was_away or state.pid != before.pid):
            restarted("mediamtx")
        before, was_away = state, False
