"""USB cameras: what udev says of video devices, until each is a camera with its slot.

A device's events are gathered until none came for 300 ms. Then one task settles it: it was unplugged, or it is probed,
recognised (identity.py), its slot stored, and only then shown. A new event for the same device cancels that task and
starts it again. Which devices are plugged in is known at once: two devices of one model can only be distinguished while
both are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

import structlog
import trio

from edged.cameras.entries import ID, CameraEntry
from edged.cameras.fixed import Shown
from edged.cameras.identity import INDEX_PROPERTY, find_slot, identity_of
from edged.cameras.model import Camera, Status
from edged.cameras.probe import Probe, choose
from edged.cameras.slots import Slots
from edged.cameras.watch import Node, Present, ResyncCause, Seen
from edged.config.model import CameraSettings
from edged.errors import EdgedError
from edged.store.cameras import Slot

log = structlog.get_logger("cameras")

#: Seconds without an event after which a device counts as settled.
DEBOUNCE: Final = 0.3
#: Pauses before a camera that failed, or a store that failed, is tried again, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
#: Seconds that a camera which has answered waits for an earlier one that has not.
_LONGEST_TURN = 0.5
#: How a camera that no settings describe is used: only the defaults of these count.
_DEFAULTS: Final = CameraSettings(name="USB", source="ID_BUS=usb")


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
    """One video device as udev tells it. `node` is None once it is unplugged; `slot` the number it is bound to."""

    node: Node | None = None
    identity: dict[str, str] = field(default_factory=dict)
    slot: int | None = None
    #: What it answered last, while it is shown.
    found: Probe | None = None
    #: The task that settles it.
    settling: trio.CancelScope = field(default_factory=trio.CancelScope)
    #: Its one probe thread.
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))


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
        self.matches = matches
        self._slots = slots
        self._registry = registry
        self._resynced = resynced
        self._watch = watch
        self._probe = probe
        self._devices: dict[str, Device] = {}
        #: Devices that are no cameras, by path, and why.
        self._passed_over: dict[str, str] = {}

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

    def _list_anew(self, nursery: trio.Nursery, seen: Present) -> None:
        here = {node.sys_path for node in seen.nodes}
        for path, device in list(self._devices.items()):
            if device.node is not None and path not in here:
                self._notice(nursery, replace(device.node, action="remove"), 0.0)
        turn: trio.Event | None = None
        for node in seen.nodes:
            had_turn = self._notice(nursery, node, 0.0, turn)
            turn = turn if had_turn is None else had_turn

    def _notice(
        self, nursery: trio.Nursery, node: Node, pause: float, turn: trio.Event | None = None
    ) -> trio.Event | None:
        """Note what udev says, and settle it after `pause` seconds without another word.

        A device of a listing waits for the `turn` of the one before it, so that new cameras are numbered in order.
        Returns the event that is set when this device had its turn; None if there is nothing to settle.
        """
        path = node.sys_path
        device = self._devices.get(path) or Device()
        if node.action == "remove":
            self._passed_over.pop(path, None)
            if device.node is None:
                return None
            device.node = None
        else:
            if not _may_capture(node.properties):
                self._pass_over(node, "udev says that it delivers no pictures")
                return None
            # A change of the device may be one of its formats, which udev does not tell.
            if node.action != "change" and self._is_settled(device) and _is_same(device.node, node):
                return None
            device.node, device.identity = node, identity_of(node.properties, path)
        self._devices[path] = device
        device.settling.cancel()
        device.settling = trio.CancelScope()
        had_turn = trio.Event()
        nursery.start_soon(self._settle_after, pause, path, device, device.settling, turn, had_turn)
        return had_turn

    def _pass_over(self, node: Node, why: str) -> None:
        """Log once why a device is not shown."""
        if self._passed_over.get(node.sys_path) != why:
            self._passed_over[node.sys_path] = why
            log.info("device_passed_over", node=node.node, name=node.properties.get("ID_V4L_PRODUCT"), why=why)

    def _is_settled(self, device: Device) -> bool:
        camera = None if device.slot is None else self._registry.shown(device.slot)
        return camera is not None and camera.status is Status.CONNECTED

    async def _settle_after(
        self,
        pause: float,
        path: str,
        device: Device,
        scope: trio.CancelScope,
        turn: trio.Event | None,
        had_turn: trio.Event,
    ) -> None:
        with scope:
            await trio.sleep(pause)
            if device.node is not None:
                await self._settle(device, device.node, turn, had_turn)
            else:
                self._release(device)
                if device.limiter.borrowed_tokens == 0:  # else a thread still hangs in it
                    del self._devices[path]
        had_turn.set()

    async def _settle(self, device: Device, node: Node, turn: trio.Event | None, had_turn: trio.Event) -> None:
        """Ask a device what it is and show it; again with growing pauses while it, or the store, fails."""
        pause = _FIRST_PAUSE
        while True:
            found, problem = None, ""
            try:
                found = await self._probe(node.node, device.limiter)
            except EdgedError as failure:
                problem = str(failure)
            if found is not None and not found.is_camera:
                self._release(device)
                self._pass_over(node, found.why_not)
                if not found.may_become_camera:
                    return
                had_turn.set()
                await trio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            self._passed_over.pop(node.sys_path, None)
            if turn is not None:
                with trio.move_on_after(_LONGEST_TURN):
                    await turn.wait()
            try:
                await self._show(device, node, found, problem)
            except EdgedError as failure:
                log.error("slot_not_stored", node=node.node, error=str(failure), pause=pause)
            else:
                if found is not None:
                    return
            had_turn.set()
            await trio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _show(self, device: Device, node: Node, found: Probe | None, problem: str) -> None:
        """Bind a device to its slot and show it. A new slot is stored first, so that its number is never another's."""
        settings = next((one.settings for one in self.matches if one.fits(node.properties)), None)
        slot = self._slot_of(device, node, found, settings)
        if slot is None:
            return
        for other in self._devices.values():
            if other.slot == slot.number:
                other.slot = None
        if device.slot not in (None, slot.number):
            self._release(device)
        device.slot, device.found = slot.number, found
        await self._slots.give(slot)
        self._take_path(slot)
        self._registry.put(slot.number, _usb_camera(slot, node, found, problem, settings))
        await self._slots.store(slot)

    def _slot_of(self, device: Device, node: Node, found: Probe | None, settings: CameraSettings | None) -> Slot | None:
        """The slot of a device as it should be stored, maybe a new one; None for a device that gets none."""
        others = [one for one in self._devices.values() if one is not device and one.node is not None]
        own = settings.id if settings else ""
        slot = next(
            (slot for slot in self._slots.all() if slot.kind == "usb" and own and slot.identity.get(ID) == own), None
        )
        if slot is not None and any(other.slot == slot.number for other in others):
            own, slot = "", None  # several devices fit one entry: the first has its id
        match = find_slot(device.identity, self._slots.all(), [other.identity for other in others])
        if slot is None:
            slot = match.slot
        if (slot is None and match.ambiguous) or (
            slot is not None and any(other.slot == slot.number for other in others)
        ):
            log.warning("camera_ambiguous", node=node.node, remedy="two devices look the same: move one, replug both")
            return None
        label = settings.name if settings else ""
        identity = {**device.identity, ID: own} if own else device.identity
        path = self._path_for(device, settings)
        if slot is not None:
            return replace(slot, identity=identity, label=label or slot.label, path=path)
        if found is None and not _is_surely_a_camera(node.properties):
            log.warning("device_unknown", node=node.node)
            return None
        if self._slots.is_full:
            log.error("too_many_cameras", node=node.node, slots=len(self._slots.all()))
            return None
        product = (found.card if found else "") or node.properties.get("ID_V4L_PRODUCT") or node.node
        return Slot(self._slots.first_free(), identity, label or product, "usb", path)

    def _path_for(self, device: Device, settings: CameraSettings | None) -> str:
        """The path that the settings give; of several devices that one entry fits, the first has it."""
        if settings is None or not settings.path:
            return ""
        shown = (
            self._registry.shown(one.slot)
            for one in self._devices.values()
            if one is not device and one.slot is not None
        )
        return "" if any(camera is not None and camera.path == settings.path for camera in shown) else settings.path

    def _take_path(self, slot: Slot) -> None:
        """A camera that is not plugged in loses its path to one that is."""
        for other in self._slots.all():
            camera = self._registry.shown(other.number)
            if slot.path and other.number != slot.number and camera is not None and camera.path == slot.path:
                self._registry.put(other.number, replace(camera, path=""))

    async def set_matches(self, matches: Sequence[CameraEntry]) -> None:
        """These are the settings' entries now. Raises StoreFailed, Overloaded."""
        self.matches = matches
        paths = {one.settings.path for one in matches}
        bound = {device.slot for device in self._devices.values()}
        for slot in self._slots.all():
            camera = self._registry.shown(slot.number)
            if slot.kind == "usb" and slot.number not in bound and camera is not None and camera.path not in paths:
                self._registry.put(slot.number, replace(camera, path=""))
        for device in list(self._devices.values()):
            if device.node is not None and device.slot is not None and device.found is not None:
                await self._show(device, device.node, device.found, "")

    def _release(self, device: Device) -> None:
        """A device is not the camera any more that it was."""
        number, device.slot, device.found = device.slot, None, None
        if number is not None and (camera := self._registry.shown(number)) is not None:
            self._registry.put(number, unplugged(camera))


def _may_capture(properties: Mapping[str, str]) -> bool:
    """What udev's v4l_id found out: a UVC camera has a second node for metadata. Without it the probe decides, and of
    what takes pictures: a loopback device gives them again once somebody feeds it."""
    found = properties.get("ID_V4L_CAPABILITIES", "capture")
    return "capture" in found or "video_output" in found


def _is_surely_a_camera(properties: Mapping[str, str]) -> bool:
    """Whether a device that could not be asked is shown at all: a USB device's capturing node."""
    is_first = "ID_V4L_CAPABILITIES" in properties or properties.get(INDEX_PROPERTY, "0") == "0"
    return is_first and (properties.get("ID_BUS") == "usb" or "ID_VENDOR_ID" in properties)


def _is_same(one: Node | None, other: Node) -> bool:
    return one is not None and one.node == other.node and one.properties == other.properties


def unplugged(camera: Camera) -> Camera:
    return replace(camera, status=Status.DISCONNECTED, node=None, problem="", cause="")


def _usb_camera(slot: Slot, node: Node, found: Probe | None, problem: str, settings: CameraSettings | None) -> Camera:
    """The camera behind a node: asked and connected, or in trouble."""
    wanted = settings or _DEFAULTS
    modes = found.modes if found else ()
    mode, rate = choose(modes, wanted.width, wanted.height, wanted.rate) or (None, wanted.rate)
    return Camera(
        name=slot.name,
        label=slot.label,
        kind="usb",
        status=Status.CONNECTED if found else Status.ERROR,
        node=node.node,
        always_on=wanted.is_always_on,
        record_always=wanted.record == "always",
        schedule=wanted.windows,
        pre_roll=wanted.pre_roll_seconds,
        max_age_days=wanted.max_age_days,
        max_size_gb=wanted.max_size_gb,
        pixel_format=mode.pixel_format if mode else "",
        width=mode.width if mode else wanted.width,
        height=mode.height if mode else wanted.height,
        rate=rate,
        bitrate=wanted.bitrate,
        encoder=wanted.encoder,
        modes=modes,
        problem=problem,
        path=slot.path,
    )
