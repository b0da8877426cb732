"""USB cameras: what udev says of video devices, until each is a camera with its slot.

A device's events are gathered until none came for 300 ms. Then one task settles it: it was unplugged, or its nodes are
probed, it is recognised and stored, and only then shown (bindings.py). A new event for the same device cancels that
task and starts it again. Which devices are plugged in is known at once: two devices of one model can only be
distinguished while both are counted. A port that flaps is waited for longer and longer, then left alone (flapping.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.cameras.bindings import Bindings, DeviceNotFound
from edged.cameras.device_facts import DeviceFacts, describe
from edged.cameras.entries import CameraEntry
from edged.cameras.fixed import Shown
from edged.cameras.flapping import DEBOUNCE, MOST_FLAPS, QUIET, WINDOW, Contact
from edged.cameras.hotplug import Ask, HotplugCounts, Watch
from edged.cameras.identity import PATH, PORT, record_of
from edged.cameras.model import Status
from edged.cameras.parts import Part, is_same, may_capture
from edged.cameras.slots import Slots
from edged.cameras.watch import Discovery, Mode, Node, Present, ResyncCause, Seen
from edged.errors import EdgedError, InvalidState

log = structlog.get_logger("cameras")

#: Pauses before a camera that failed, or a store that failed, is tried again, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
#: Seconds that a camera which has answered waits for an earlier one that has not.
_LONGEST_TURN = 0.5
#: Ports of which it is remembered that their contact was lost.
_MOST_CONTACTS = 256


class Device(msgspec.Struct, eq=False):
    """One physical device. `parts` are its nodes that may give pictures, by path; `leaving` those that were unplugged
    and whose removal is not settled yet."""

    parts: dict[str, Part] = msgspec.field(default_factory=dict)
    leaving: list[Part] = msgspec.field(default_factory=list)
    contact: Contact = msgspec.field(default_factory=Contact)
    #: What udev said last and is not settled, and since when it is there and no camera.
    pending: str = ""
    since: float | None = None
    #: The task that settles it, and what it sets when the device had its turn.
    settling: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    had_turn: trio.Event = msgspec.field(default_factory=trio.Event)

    def take_back(self, path: str) -> Part | None:
        """A node that is there again before its removal was settled."""
        part = next((one for one in self.leaving if one.node.sys_path == path), None)
        if part is not None:
            self.leaving.remove(part)
        return part


class Devices:
    """The video devices of this machine. `matches` are the settings' entries for USB cameras."""

    def __init__(
        self,
        slots: Slots,
        registry: Shown,
        matches: Sequence[CameraEntry],
        *,
        resynced: Callable[[ResyncCause], None],
        counts: HotplugCounts,
        watch: Watch,
        probe: Ask,
    ) -> None:
        #: How devices are noticed.
        self.mode: Mode = "off"
        #: How often each camera was unplugged and came back, by name.
        self.flaps: Counter[str] = Counter()
        self._registry = registry
        self._counts = counts
        #: Of ports whose device went and came back within the last minute.
        self._contacts: dict[str, Contact] = {}
        self._nursery: trio.Nursery | None = None
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
            self._nursery = nursery

            def handle(seen: Seen) -> None:
                if isinstance(seen, Present):
                    self._list_anew(nursery, seen)
                elif isinstance(seen, Discovery):
                    self.mode = seen.mode
                else:
                    self._hear(nursery, seen)

            await nursery.start(self._watch, handle, self._resynced)
            task_status.started()

    @property
    def quarantined(self) -> int:
        """How many ports are left alone, since their contact comes and goes."""
        return sum(device.contact.is_quarantined for device in self._devices.values())

    def release(self, port: str) -> None:
        """Somebody says that the port of a device that was left alone is mended.

        Raises DeviceNotFound, InvalidState.
        """
        assert self._nursery is not None, "devices were listed"
        for key, device in self._devices.items():
            parts = [*device.parts.values(), *device.leaving]
            if any(port in (part.record[PORT], part.record[PATH], part.node.node) for part in parts):
                if not device.contact.is_quarantined:
                    raise InvalidState(f"the port {port} is not left alone", hint="list_camera_devices names those")
                device.contact.release()
                self._start_settling(self._nursery, key, device, 0.0)
                return
        raise DeviceNotFound(port)

    def list_nodes(self) -> list[DeviceFacts]:
        """The nodes that are plugged in, and those of ports that are left alone, by port and node."""
        away = [part for part in self._all_leaving() if part.quarantine]
        parts = sorted(
            (*self._all_parts(), *away), key=lambda part: (part.record[PORT], len(part.node.node), part.node.node)
        )
        return [self.describe(part) for part in parts]

    def describe(self, part: Part) -> DeviceFacts:
        """A node as it is known now."""
        return describe(part, None if part.slot is None else self._registry.shown(part.slot))

    def _all_parts(self) -> Iterator[Part]:
        for device in self._devices.values():
            yield from device.parts.values()

    def _all_leaving(self) -> Iterator[Part]:
        for device in self._devices.values():
            yield from device.leaving

    def _hear(self, nursery: trio.Nursery, node: Node) -> None:
        """An event of udev: noticed, and counted by what came of it."""
        action = node.action if node.action in ("add", "remove") else "change"
        before = self._devices.get(node.device)
        is_new = before is None or not before.parts
        if self._notice(nursery, node, DEBOUNCE) is None:
            self._counts.event(action, "ignored")
            return
        device = self._devices[node.device]
        if device.pending:
            self._counts.event(device.pending, "debounced")
        if is_new and device.parts:
            device.since = trio.current_time()
        device.pending = action
        if device.contact.is_quarantined:
            self._settled(device, "quarantined")

    def _settled(self, device: Device, outcome: str) -> None:
        if device.pending:
            self._counts.event(device.pending, outcome)
            device.pending = ""

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
        device = self._devices.get(key) or Device(contact=self._contact(key))
        if node.action == "remove":
            part = device.parts.pop(path, None)
            if part is None:
                self.bindings.forget(path)
                return had_turn
            device.leaving.append(part)
            device.contact.has_left = device.contact.has_left or not device.parts
            self._contacts[key] = device.contact
        elif not may_capture(node.node, node.properties):
            self.bindings.pass_over(Part(node, {}), "udev says that it delivers no pictures")
            return had_turn
        else:
            part = device.parts.get(path)
            # A change of the device may be one of its formats, which udev does not tell.
            is_known = part is not None and is_same(part.node, node)
            if part and node.action != "change" and is_known and (part.quarantine or self._is_settled(part)):
                return had_turn
            if device.contact.has_left:
                self._flap(device)
            if part is None:
                part = device.parts[path] = device.take_back(path) or Part(node, {})
            part.node, part.record, part.is_asked = node, record_of(node.properties, path), False
        self._devices[key] = device
        waited = device.contact.pause(trio.current_time())
        if device.contact.is_quarantined:
            self._quarantine(device)
        self._start_settling(nursery, key, device, pause if waited <= DEBOUNCE else waited, turn, had_turn)
        return device.had_turn

    def _start_settling(
        self,
        nursery: trio.Nursery,
        key: str,
        device: Device,
        pause: float,
        turn: trio.Event | None = None,
        had_turn: trio.Event | None = None,
    ) -> None:
        device.settling.cancel()
        device.settling = trio.CancelScope()
        device.had_turn = trio.Event() if had_turn is None else had_turn
        nursery.start_soon(self._settle_after, pause, key, device, device.settling, turn, device.had_turn)

    def _contact(self, key: str) -> Contact:
        """What is remembered of a port; what was quiet for long is forgotten."""
        now = trio.current_time()
        if len(self._contacts) > _MOST_CONTACTS:
            self._contacts = {one: each for one, each in self._contacts.items() if not each.is_steady(now)}
        return self._contacts.get(key) or Contact()

    def _flap(self, device: Device) -> None:
        """The device of a port went and came back."""
        contact = device.contact
        contact.has_left = False
        for part in (*device.parts.values(), *device.leaving):
            if part.slot is not None:
                self.flaps[f"camera{part.slot}"] += 1
        if contact.flap(trio.current_time()):
            parts = [*device.leaving, *device.parts.values()]
            log.warning(
                "port_quarantined", port=parts[0].record[PORT] if parts else None, flaps=MOST_FLAPS, seconds=WINDOW,
                remedy=f"see to cable and power; it is looked at after {QUIET:g} s of quiet, or: edged camera release",
            )  # fmt: skip

    def _quarantine(self, device: Device) -> None:
        """Nothing of this device is used."""
        for part in (*device.parts.values(), *device.leaving):
            self.bindings.quarantine(
                part,
                f"the contact at its port {part.record[PORT]} came back {MOST_FLAPS} times within {WINDOW:g} s: see to"
                f" cable and power; it is left alone until it was quiet for {QUIET:g} s, or somebody releases it"
                f" (edged camera release {part.record[PORT]})",
            )

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
            if device.contact.is_quarantined:
                device.contact.release()
            for part in (*device.parts.values(), *device.leaving):
                part.quarantine = ""
            while device.leaving:
                part = device.leaving.pop()
                self.bindings.leave(part)
                self._drop_limiter(part.node.sys_path)
            if device.parts:
                await self._settle(device, turn, had_turn)
            else:
                self._settled(device, "applied")
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
            has_failed = not is_stored or any(part.problem for part in device.parts.values())
            self._settled(device, "failed" if has_failed else "applied")
            is_shown = not has_failed and any(part.slot is not None for part in device.parts.values())
            if device.since is not None and is_shown:
                self._counts.ready(trio.current_time() - device.since)
                device.since = None
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
