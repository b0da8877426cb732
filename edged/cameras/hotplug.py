"""What cameras.devices is handed: how devices are noticed and asked, and who counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import msgspec
import trio

from edged.cameras.probe import Probe
from edged.cameras.watch import ResyncCause, Seen


class Watch(Protocol):
    """cameras.watch.watch, or a stand-in."""

    async def __call__(
        self,
        handle: Callable[[Seen], None],
        resynced: Callable[[ResyncCause], None],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None: ...


#: cameras.probe.probe, or a stand-in: asks the device at a node; raises DependencyFailed.
Ask: TypeAlias = Callable[[str, trio.CapacityLimiter], Awaitable[Probe]]


def _count_nothing(*_: object) -> None:
    """Nobody counts."""


class HotplugCounts(msgspec.Struct, frozen=True):
    """Who counts. `event`: udev's action (add, remove, change) and what came of it (applied, debounced, ignored,
    quarantined, failed); `ready`: seconds from the event until the camera was shown."""

    event: Callable[[str, str], None] = _count_nothing
    ready: Callable[[float], None] = _count_nothing


NO_COUNTS: Final = HotplugCounts()
