"""The signals that end the daemon or make it read its settings again."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
import trio

from edged.daemon.nurseries import started_tasks

_log = structlog.get_logger("edged")

#: Each of these ends the daemon.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: The same where SIGHUP does not read the settings again.
ALL_SIGNALS: Final = (*STOP_SIGNALS, signal.SIGHUP)


@asynccontextmanager
async def stop_signals(early: Sequence[int], stops: Sequence[signal.Signals]) -> AsyncIterator[trio.Event]:
    """An event that the signals of `stops` set, and that is set already if one of them is in `early`.

    A start that is asked to stop goes on to its end and then stops in order. This context surrounds all others: however
    many signals arrive during the stop, its order is the same.
    """
    stop = trio.Event()

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*stops) as signals:
            if asked := [number for number in early if number in stops]:
                _log.info("signal", name=signal.Signals(asked[0]).name)
                stop.set()
            task_status.started()
            async for number in signals:
                _log.info("signal", name=signal.Signals(number).name)
                stop.set()

    async with started_tasks(listen):
        yield stop


def set_handlers(handler: Callable[[int, Any], Any] | signal.Handlers) -> None:
    """What SIGTERM, SIGINT and SIGHUP do while no event loop receives them."""
    for number in ALL_SIGNALS:
        signal.signal(number, handler)


def is_terminal() -> bool:
    """Whether the daemon runs in a terminal, where SIGHUP says that the terminal was closed."""
    with suppress(OSError):
        return os.isatty(0)
    return False
