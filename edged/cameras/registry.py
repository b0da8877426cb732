"""Which cameras there are, now: the one place where this state changes.

Four sources, one registry: slots from the store, `[[camera]]` entries (RTSP and test pictures), a file for each test
camera, and udev. It knows neither MediaMTX nor clients; whoever cares subscribes to `changes`.

A device's events are gathered until it was quiet for 300 ms, then one task settles it: gone, or asked what it
is (probe), recognised (identity), its slot stored, and only then shown. A new event for the same device
cancels that task and starts again. Which devices are plugged in is known at once, because two pieces that look the
same can only be told to be two while both are counted.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import structlog
import trio

from edged.cameras.identity import INDEX_PROPERTY, find_slot, first_free, identity_of
from edged.cameras.model import Camera, CameraChanged, Kind, Status
from edged.cameras.probe import Probe, choose, probe
from edged.cameras.watch import Node, Present, ResyncCause, Seen, watch
from edged.errors import ConfigError, EdgedError, StartFailed
from edged.feeds import Feed
from edged.store.cameras import Slot

log = structlog.get_logger("cameras")

#: Seconds without an event after which a device counts as settled.
DEBOUNCE: Final = 0.3
#: Seconds between two looks at the test cameras' files.
TEST_INTERVAL: Final = 0.2
#: More cameras than this are a device that makes up names, not cameras.
MOST_SLOTS: Final = 128
#: Pauses before a camera that failed, or a store that failed, is tried again, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
#: Seconds that a camera which answered waits for one before it that does not.
_LONGEST_TURN = 0.5

_PROPERTY = re.compile(r"[A-Z][A-Z0-9_]*")
_BETWEEN = re.compile(r"[,\s]+(?=[A-Z][A-Z0-9_]*=)")


@dataclass(frozen=True, slots=True)
class Configured:
    """One `[[camera]]` entry.

    `source`: `test`, `rtsp://…`, `rtsps://…`, or a udev match: `PROPERTY=glob`, several with a space or a comma
    between (all must hold; a glob may hold spaces). `width`, `height` pixels, `rate` frames a second, `bitrate`
    bits a second.
    """

    label: str
    source: str
    always_on: bool = False
    width: int = 640
    height: int = 480
    rate: float = 15.0
    bitrate: int = 1_000_000
    encoder: str = ""

    @property
    def kind(self) -> Kind:
        """What sort of source this is."""
        if self.source == "test":
            return "test"
        return "rtsp" if self.source.startswith(("rtsp://", "rtsps://")) else "usb"

    @property
    def match(self) -> tuple[tuple[str, str], ...]:
        """A udev match as (property, glob) pairs. Raises ConfigError for anything that is none."""
        pairs = [part.partition("=") for part in _BETWEEN.split(self.source.strip())]
        if not all(_PROPERTY.fullmatch(name) and glob for name, _, glob in pairs):
            raise ConfigError(
                f"camera {self.label!r}: its source is neither test, rtsp://… nor PROPERTY=glob",
                hint="`udevadm info /dev/video0` shows a camera's properties, for example ID_SERIAL=Logitech*",
                key="camera.source",
            )
        return tuple((name, glob) for name, _, glob in pairs)

    def fits(self, properties: Mapping[str, str]) -> bool:
        """Whether a udev match fits a device."""
        return all(fnmatchcase(properties.get(name, ""), glob) for name, glob in self.match)


def check(configured: Sequence[Configured]) -> None:
    """Refuse what cannot be. Raises ConfigError naming the camera."""
    seen: set[str] = set()
    for one in configured:
        if one.kind == "usb":
            assert one.match
            continue
        if one.label in seen:
            raise ConfigError(f"two cameras are called {one.label!r}", hint="give each its own name", key="camera.name")
        if one.kind == "test" and (one.label in {"", ".", ".."} or set(one.label) & set("/\0")):
            raise ConfigError(
                f"a test camera cannot be called {one.label!r}", hint="its name must be a file name", key="camera.name"
            )
        seen.add(one.label)


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
    #: The task that settles it.
    settling: trio.CancelScope = field(default_factory=trio.CancelScope)
    #: Its one probe thread.
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))


class Registry:
    """All cameras that are known, by name.

    `load_slots` is called once, at the start; `save_slot` commits one slot and raises EdgedError if it cannot.
    `state`: folder that holds `test-cameras/`. `resynced` counts lost udev events by cause.
    Raises ConfigError for a configured camera that cannot be.
    """

    def __init__(
        self,
        load_slots: Callable[[], Iterable[Slot]],
        save_slot: Callable[[Slot], Awaitable[None]],
        configured: Sequence[Configured] = (),
        *,
        state: Path | str,
        use_udev: bool = True,
        resynced: Callable[[ResyncCause], None] = lambda _cause: None,
        watch: Watch = watch,
        probe: Ask = probe,
    ) -> None:
        check(configured)
        self.changes: Feed[CameraChanged] = Feed()
        #: Rises with each change.
        self.version = 0
        #: Whether cameras are noticed as they are plugged in.
        self.discovery_active = False
        self._load_slots = load_slots
        self._save_slot = save_slot
        self._fixed = [one for one in configured if one.kind != "usb"]
        self._matches = [one for one in configured if one.kind == "usb"]
        self._tests = Path(state) / "test-cameras"
        self._use_udev = use_udev
        self._resynced = resynced
        self._watch = watch
        self._probe = probe
        #: Every slot that was given, and what of them the store has.
        self._slots: dict[int, Slot] = {}
        self._stored: dict[int, Slot] = {}
        self._devices: dict[str, Device] = {}
        self._cameras: dict[int, Camera] = {}
        self._all: tuple[Camera, ...] = ()
        self._by_name: dict[str, Camera] = {}

    def find(self, device: str) -> Camera | None:
        """The camera called `cameraN`, or the one that is `/dev/videoN` today; None for neither."""
        return self._by_name.get(device)

    def all(self) -> tuple[Camera, ...]:
        """Every camera by slot; the identical tuple while nothing changed."""
        return self._all

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the cameras known, for ever.

        Reports started when configured cameras have their slots, stored ones are known, and what is plugged in was
        listed; USB cameras connect as they answer. Raises StoreFailed if a slot cannot be stored at the start.
        """
        self._stored = {slot.number: slot for slot in self._load_slots()}
        self._slots = dict(self._stored)
        tests: list[tuple[int, Configured]] = []
        for one in self._fixed:
            number = await self._place(one)
            if one.kind == "test":
                tests.append((number, one))
        for slot in self._slots.values():
            if slot.kind == "usb":
                self._put(slot.number, Camera(name=slot.name, label=slot.label, kind="usb", status=Status.DISCONNECTED))
        async with trio.open_nursery() as nursery:
            if tests:
                nursery.start_soon(self._look_at_files, tests)
            if self._use_udev:
                await nursery.start(self._follow_udev)
                self.discovery_active = True
            task_status.started()

    def _put(self, number: int, camera: Camera) -> None:
        """Make a camera known as it is now, and tell everybody if that is new."""
        previous = self._cameras.get(number)
        if camera == previous:
            return
        for other, stale in self._cameras.items():
            if camera.node and stale.node == camera.node and other != number:
                self._put(other, _unplugged(stale))  # its removal is still settling
                break
        self._cameras[number] = camera
        self._all = tuple(self._cameras[one] for one in sorted(self._cameras))
        self._by_name = {name: one for one in self._all for name in one.names}
        self.version += 1
        write = log.warning if camera.status is Status.ERROR else log.info
        write(
            "camera",
            camera=camera.name,
            label=camera.label,
            status=camera.status.value,
            node=camera.node,
            problem=camera.problem or None,
        )
        self.changes.publish(CameraChanged(camera, previous))

    async def _store(self, slot: Slot) -> None:
        """Commit a slot unless the store has it so already. Raises StoreFailed or Overloaded."""
        if self._stored.get(slot.number) != slot:
            await self._save_slot(slot)
            self._stored[slot.number] = slot

    # Configured cameras.

    async def _place(self, one: Configured) -> int:
        """Give a configured camera the slot of its label, a new one the first time, and show it."""
        slot = next((old for old in self._slots.values() if old.kind != "usb" and old.label == one.label), None)
        if slot is None:
            slot = Slot(first_free(self._slots.values()), {}, one.label, one.kind)
            if one.kind == "test":
                self._plug_in(one)
        slot = replace(slot, kind=one.kind)
        self._slots[slot.number] = slot
        await self._store(slot)
        self._put(slot.number, self._fixed_camera(slot, one))
        return slot.number

    def _plug_in(self, one: Configured) -> None:
        """A new test camera is there to begin with."""
        try:
            self._tests.mkdir(parents=True, exist_ok=True)
            (self._tests / one.label).touch()
        except OSError as failure:
            raise StartFailed(
                f"cannot make {self._tests / one.label}: {failure.strerror}", hint="the state folder must be writable"
            ) from failure

    def _fixed_camera(self, slot: Slot, one: Configured) -> Camera:
        return Camera(
            name=slot.name,
            label=one.label,
            kind=one.kind,
            status=Status.CONNECTED if one.kind == "rtsp" else self._test_status(one),
            url=one.source if one.kind == "rtsp" else None,
            always_on=one.always_on,
            width=one.width,
            height=one.height,
            rate=one.rate,
            bitrate=one.bitrate,
            encoder=one.encoder,
        )

    def _test_status(self, one: Configured) -> Status:
        return Status.CONNECTED if (self._tests / one.label).exists() else Status.DISCONNECTED

    async def _look_at_files(self, tests: Sequence[tuple[int, Configured]]) -> None:
        """A test camera is plugged in while its file is there."""
        while True:
            await trio.sleep(TEST_INTERVAL)
            for number, one in tests:
                camera, status = self._cameras[number], self._test_status(one)
                if camera.status is not status:
                    self._put(number, replace(camera, status=status))

    # USB cameras.

    async def _follow_udev(self, *, task_status: trio.TaskStatus[None]) -> None:
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
            if device.node is None:
                return None
            device.node = None
        else:
            if not _may_capture(node.properties) or (self._is_settled(device) and _is_same(device.node, node)):
                return None
            device.node, device.identity = node, identity_of(node.properties, path)
        self._devices[path] = device
        device.settling.cancel()
        device.settling = trio.CancelScope()
        had_turn = trio.Event()
        nursery.start_soon(self._settle_after, pause, path, device, device.settling, turn, had_turn)
        return had_turn

    def _is_settled(self, device: Device) -> bool:
        camera = None if device.slot is None else self._cameras.get(device.slot)
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
                return
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
        settings = next((one for one in self._matches if one.fits(node.properties)), None)
        slot = self._slot_of(device, node, found, settings)
        if slot is None:
            return
        for other in self._devices.values():
            if other.slot == slot.number:
                other.slot = None
        if device.slot not in (None, slot.number):
            self._release(device)
        device.slot = slot.number
        self._slots[slot.number] = slot
        if slot.number not in self._stored:
            await self._store(slot)
        self._put(slot.number, _usb_camera(slot, node, found, problem, settings))
        await self._store(slot)

    def _slot_of(self, device: Device, node: Node, found: Probe | None, settings: Configured | None) -> Slot | None:
        """The slot of a device as it should be stored, maybe a new one; None for a device that gets none."""
        others = [one for one in self._devices.values() if one is not device and one.node is not None]
        match = find_slot(device.identity, self._slots.values(), [other.identity for other in others])
        slot = match.slot
        if match.ambiguous or (slot is not None and any(other.slot == slot.number for other in others)):
            log.warning("camera_ambiguous", node=node.node, remedy="two devices look the same: move one, replug both")
            return None
        label = settings.label if settings else ""
        if slot is not None:
            return replace(slot, identity=device.identity, label=label or slot.label)
        if found is None and not _is_surely_a_camera(node.properties):
            log.warning("device_unknown", node=node.node)
            return None
        if len(self._slots) >= MOST_SLOTS:
            log.error("too_many_cameras", node=node.node, slots=len(self._slots))
            return None
        product = (found.card if found else "") or node.properties.get("ID_V4L_PRODUCT") or node.node
        return Slot(first_free(self._slots.values()), device.identity, label or product, "usb")

    def _release(self, device: Device) -> None:
        """A device is no longer the camera that it was."""
        number, device.slot = device.slot, None
        if number is not None and number in self._cameras:
            self._put(number, _unplugged(self._cameras[number]))


def _may_capture(properties: Mapping[str, str]) -> bool:
    """What udev's v4l_id found out: a UVC camera has a second node for metadata. Without it the probe decides."""
    return "capture" in properties.get("ID_V4L_CAPABILITIES", "capture")


def _is_surely_a_camera(properties: Mapping[str, str]) -> bool:
    """Whether a device that could not be asked is shown at all: a USB device's capturing node."""
    is_first = "ID_V4L_CAPABILITIES" in properties or properties.get(INDEX_PROPERTY, "0") == "0"
    return is_first and (properties.get("ID_BUS") == "usb" or "ID_VENDOR_ID" in properties)


def _is_same(one: Node | None, other: Node) -> bool:
    return one is not None and one.node == other.node and one.properties == other.properties


def _unplugged(camera: Camera) -> Camera:
    return replace(camera, status=Status.DISCONNECTED, node=None, problem="")


def _usb_camera(slot: Slot, node: Node, found: Probe | None, problem: str, settings: Configured | None) -> Camera:
    """The camera behind a node: asked and connected, or in trouble."""
    wanted = settings or Configured(slot.label, "")
    modes = found.modes if found else ()
    mode, rate = choose(modes, wanted.width, wanted.height, wanted.rate) or (None, wanted.rate)
    return Camera(
        name=slot.name,
        label=slot.label,
        kind="usb",
        status=Status.CONNECTED if found else Status.ERROR,
        node=node.node,
        always_on=wanted.always_on,
        pixel_format=mode.pixel_format if mode else "",
        width=mode.width if mode else wanted.width,
        height=mode.height if mode else wanted.height,
        rate=rate,
        bitrate=wanted.bitrate,
        encoder=wanted.encoder,
        modes=modes,
        problem=problem,
    )
