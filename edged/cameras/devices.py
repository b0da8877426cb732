"""USB cameras: what udev says of video devices, until each is a camera with its slot.

A device's events are gathered until none came for 300 ms. Then one task settles it: it was unplugged, or its nodes are
probed, it is recognised and stored, and only then shown (bindings.py). A new event for the same device cancels that
task and starts it again. Which devices are plugged in is known at once: two devices of one model can only be
distinguished while both are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

import structlog
import trio

from edged.cameras.bindings import Bindings
from edged.cameras.entries import CameraEntry
from edged.cameras.fixed import Shown
from edged.cameras.identity import MODEL, PORT, SERIAL, record_of
from edged.cameras.model import Status
from edged.cameras.parts import Part, is_same, may_capture
from edged.cameras.probe import Probe
from edged.cameras.slots import Slots
from edged.cameras.watch import Node, Present, ResyncCause, Seen
from edged.errors import EdgedError

log = structlog.get_logger("cameras")

#: Seconds without an event after which a device counts as settled.
DEBOUNCE: Final = 0.3
#: Pauses before a camera that failed, or a store that failed, is tried again, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
#: Seconds that a camera which has answered waits for an earlier one that has not.
_LONGEST_TURN = 0.5


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


@dataclass(slots=True, eq=False)
class Device:
    """One physical device. `parts` are its nodes that may give pictures, by path; `leaving` those that were unplugged
    and whose removal is not settled yet."""

    parts: dict[str, Part] = field(default_factory=dict)
    leaving: list[Part] = field(default_factory=list)
    #: The task that settles it, and what it sets when the device had its turn.
    settling: trio.CancelScope = field(default_factory=trio.CancelScope)
    had_turn: trio.Event = field(default_factory=trio.Event)

    def take_back(self, path: str) -> Part | None:
        """A node that is there again before its removal was settled."""
        part = next((one for one in self.leaving if one.node.sys_path == path), None)
        if part is not None:
            self.leaving.remove(part)
        return part


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One node that may give pictures. `state`: `camera`, `waiting` (nobody can tell which camera it is), `no_camera`
    or `settling` (it is being asked); `camera` the number of the camera that it is; `why` explains the state."""

    port: str
    node: str
    name: str
    serial: str
    state: str
    camera: int | None
    why: str
    candidates: tuple[int, ...] = ()


class Devices:
    """The video devices of this machine. `matches` are the settings' entries for USB cameras."""

    def __init__(
        self,
        slots: Slots,
        registry: Shown,
        matches: Sequence[CameraEntry],
        *,
        resynced: Callable[[ResyncCause], None],
        watch: Watch,
        probe: Ask,
    ) -> None:
        self._registry = registry
        self._resynced = resynced
        self._watch = watch
        self._probe = probe
        self._devices: dict[str, Device] = {}
        self.bindings = Bindings(slots, registry, matches, plugged_in=self._all_parts, leaving=self._all_leaving)
        #: The one probe thread of each node, while it is there or the thread still hangs in it.
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Follow udev until cancelled; reports `started` when what is plugged in was listed."""
        async with trio.open_nursery() as nursery:

            def handle(seen: Seen) -> None:
                if isinstance(seen, Present):
                    self._list_anew(nursery, seen)
                else:
                    self._notice(nursery, seen, DEBOUNCE)

            await nursery.start(self._watch, handle, self._resynced)
            task_status.started()

    def list_nodes(self) -> list[DeviceFacts]:
        """The nodes that are plugged in, by port and node."""
        parts = sorted(self._all_parts(), key=lambda part: (part.record[PORT], len(part.node.node), part.node.node))
        return [self.describe(part) for part in parts]

    def describe(self, part: Part) -> DeviceFacts:
        """A node as it is known now."""
        camera = None if part.slot is None else self._registry.shown(part.slot)
        if camera is not None:
            state, why = "camera", camera.binding
        elif part.waits:
            state, why = "waiting", part.waits
        else:
            state, why = ("no_camera", part.why_not) if part.why_not else ("settling", "")
        name = (part.found.card if part.found else "") or part.record[MODEL]
        slot = None if camera is None else part.slot
        return DeviceFacts(
            part.record[PORT], part.node.node, name, part.record[SERIAL], state, slot, why, part.candidates
        )

    def _all_parts(self) -> Iterator[Part]:
        for device in self._devices.values():
            yield from device.parts.values()

    def _all_leaving(self) -> Iterator[Part]:
        for device in self._devices.values():
            yield from device.leaving

    def _list_anew(self, nursery: trio.Nursery, seen: Present) -> None:
        here = {node.sys_path for node in seen.nodes}
        for part in list(self._all_parts()):
            if part.node.sys_path not in here:
                self._notice(nursery, replace(part.node, action="remove"), 0.0)
        turn: trio.Event | None = None
        turns: dict[str, tuple[trio.Event | None, trio.Event | None]] = {}
        for node in seen.nodes:
            # The nodes of one device have one turn; the task of the last of them settles it.
            before, had_turn = turns.get(node.device, (turn, None))
            had_turn = self._notice(nursery, node, 0.0, before, had_turn)
            if had_turn is not None:
                turns[node.device] = before, had_turn
                turn = had_turn

    def _notice(
        self,
        nursery: trio.Nursery,
        node: Node,
        pause: float,
        turn: trio.Event | None = None,
        had_turn: trio.Event | None = None,
    ) -> trio.Event | None:
        """Note what udev says, and settle the device after `pause` seconds without another word.

        A device of a listing waits for the `turn` of the one before it, so that new cameras are numbered in order.
        Returns the event that is set when this device had its turn; None if there is nothing to settle.
        """
        path, key = node.sys_path, node.device
        device = self._devices.get(key) or Device()
        if node.action == "remove":
            part = device.parts.pop(path, None)
            if part is None:
                self.bindings.forget(path)
                return had_turn
            device.leaving.append(part)
        elif not may_capture(node.properties):
            self.bindings.pass_over(Part(node, {}), "udev says that it delivers no pictures")
            return had_turn
        else:
            part = device.parts.get(path)
            # A change of the device may be one of its formats, which udev does not tell.
            if part and node.action != "change" and self._is_settled(part) and is_same(part.node, node):
                return had_turn
            if part is None:
                part = device.parts[path] = device.take_back(path) or Part(node, {})
            part.node, part.record, part.is_asked = node, record_of(node.properties, path), False
        self._devices[key] = device
        device.settling.cancel()
        device.settling = trio.CancelScope()
        device.had_turn = trio.Event() if had_turn is None else had_turn
        nursery.start_soon(self._settle_after, pause, key, device, device.settling, turn, device.had_turn)
        return device.had_turn

    def _is_settled(self, part: Part) -> bool:
        camera = None if part.slot is None else self._registry.shown(part.slot)
        if camera is None:
            return part.is_asked and bool(part.waits or (part.found and part.found.is_camera and part.why_not))
        return camera.status is Status.CONNECTED

    async def _settle_after(
        self,
        pause: float,
        key: str,
        device: Device,
        scope: trio.CancelScope,
        turn: trio.Event | None,
        had_turn: trio.Event,
    ) -> None:
        with scope:
            await trio.sleep(pause)
            while device.leaving:
                part = device.leaving.pop()
                self.bindings.leave(part)
                self._drop_limiter(part.node.sys_path)
            if device.parts:
                await self._settle(device, turn, had_turn)
            else:
                del self._devices[key]
        if device.settling is scope or device.had_turn is not had_turn:
            had_turn.set()

    async def _settle(self, device: Device, turn: trio.Event | None, had_turn: trio.Event) -> None:
        """Ask a device what it is and show it; again with growing pauses while it, or the store, fails."""
        pause, is_asking = _FIRST_PAUSE, True
        while True:
            if is_asking:
                async with trio.open_nursery() as nursery:
                    for part in device.parts.values():
                        if not part.is_asked:
                            nursery.start_soon(self._ask, part)
            if turn is not None:
                with trio.move_on_after(_LONGEST_TURN):
                    await turn.wait()
                turn = None
            changed, is_stored = self.bindings.changed, True
            try:
                await self.bindings.settle(list(device.parts.values()))
            except EdgedError as failure:
                is_stored = False
                node = next(iter(device.parts.values())).node.node
                log.error("slot_not_stored", node=node, error=str(failure), pause=pause)
            had_turn.set()
            is_whole = is_stored and all(_is_known(part) for part in device.parts.values())
            if is_whole and not any(part.waits for part in device.parts.values()):
                return
            with trio.move_on_after(float("inf") if is_whole else pause) as waiting:
                if not any(part.waits for part in device.parts.values()):
                    await trio.sleep_forever()
                # Until another camera is recognised, so that this device may be judged otherwise.
                await changed.wait()
            is_asking = waiting.cancelled_caught
            if is_asking:
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _ask(self, part: Part) -> None:
        limiter = self._limiters.setdefault(part.node.sys_path, trio.CapacityLimiter(1))
        try:
            part.found, part.problem = await self._probe(part.node.node, limiter), ""
        except EdgedError as failure:
            part.found, part.problem = None, str(failure)
        part.is_asked = _is_known(part)

    def _drop_limiter(self, path: str) -> None:
        limiter = self._limiters.get(path)
        if limiter is not None and limiter.borrowed_tokens == 0:  # else a thread still hangs in it
            del self._limiters[path]


def _is_known(part: Part) -> bool:
    """Whether a node has answered what it is, and cannot become something else by itself."""
    return part.found is not None and not part.found.may_become_camera
