"""Which cameras there are, now: the one place where this state changes.

It has four sources: slots from the store, `[[camera]]` entries (RTSP and test pictures), a file for each test camera,
and udev (devices.py). It knows neither MediaMTX nor clients; they subscribe to `changes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Commit, Grant
from edged.cameras import reports
from edged.cameras.addresses import Addresses, follow
from edged.cameras.device_facts import DeviceFacts
from edged.cameras.devices import Devices
from edged.cameras.entries import CameraEntry
from edged.cameras.fixed import FixedCameras, RemoveAdded, SaveAdded
from edged.cameras.hotplug import NO_COUNTS, Ask, HotplugCounts, Watch
from edged.cameras.model import Camera, CameraChanged, Status
from edged.cameras.probe import probe
from edged.cameras.reports import Report
from edged.cameras.slots import SaveChanged, Slots
from edged.cameras.usb_camera import unplugged
from edged.cameras.watch import Mode, ResyncCause, watch
from edged.errors import InvalidState, Unsupported
from edged.feeds import Feed
from edged.store.cameras import Slot

T = TypeVar("T")
log = structlog.get_logger("cameras")

#: Cameras that calls may have added, together with all others.
MOST_CAMERAS: Final = 128


async def _save_nothing(*_: object) -> None:
    raise Unsupported("this box keeps no changes of cameras")


async def _grant_nothing(work: Callable[[Commit], Awaitable[T]]) -> T:  # noqa: ARG001
    raise Unsupported("this box keeps no changes of cameras")


class Registry:
    """All cameras that are known, by name.

    `load_slots` is called once, at the start; `save_slot` commits one slot and raises EdgedError if it cannot; so do
    `save_added` and `remove_added` for what calls have `added`, and `save_changed` for other slots. `upkeep` is the
    grant of what edged changes by itself. `state`: folder that holds `test-cameras/`. `resynced` counts lost udev
    events by cause, `counts` what came of events.
    """

    def __init__(
        self,
        load_slots: Callable[[], Iterable[Slot]],
        save_slot: Callable[[Slot], Awaitable[None]],
        configured: Sequence[CameraEntry] = (),
        *,
        state: Path | str,
        use_udev: bool = True,
        resynced: Callable[[ResyncCause], None] = lambda _cause: None,
        counts: HotplugCounts = NO_COUNTS,
        watch: Watch = watch,
        probe: Ask = probe,
        added: Sequence[CameraEntry] = (),
        save_added: SaveAdded = _save_nothing,
        remove_added: RemoveAdded = _save_nothing,
        save_changed: SaveChanged = _save_nothing,
        upkeep: Grant = _grant_nothing,
        addresses: Addresses | None = None,
    ) -> None:
        self.changes: Feed[CameraChanged] = Feed()
        #: Rises with each change.
        self.version = 0
        #: Whether cameras are noticed as they are plugged in.
        self.discovery_active = False
        self._slots = Slots(load_slots, save_slot)
        self._configured = configured
        self._added = added
        #: Judges where added cameras may be.
        self.addresses = addresses or Addresses()
        self._fixed = FixedCameras(self._slots, self, Path(state), save_added, remove_added)
        self._save_changed, self._upkeep = save_changed, upkeep
        self._use_udev = use_udev
        self._devices = Devices(
            self._slots, self, _matches(configured), resynced=resynced, counts=counts, watch=watch, probe=probe
        )
        #: Descriptions change one after the other.
        self._changing = trio.Lock()
        self._cameras: dict[int, Camera] = {}
        self._all: tuple[Camera, ...] = ()
        self._by_name: dict[str, Camera] = {}
        self._by_sub: dict[str, Camera] = {}

    def find(self, device: str) -> Camera | None:
        """The camera called `cameraN`, the one of this path, or the one that is `/dev/videoN` today; None for none.

        Where no device is `/dev/videoN`, the test picture that stands in for it is meant: the clients' guides say
        `/dev/video0`.
        """
        return self._by_name.get(device)

    def find_stream(self, path: str) -> Camera | None:
        """The camera whose stream this path of MediaMTX is, its smaller one included; None for none."""
        return self._by_name.get(path) or self._by_sub.get(path)

    def all(self) -> tuple[Camera, ...]:
        """Every camera by slot; the identical tuple while nothing changed."""
        return self._all

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the cameras known; runs until cancelled.

        Reports started when configured cameras have their slots, stored ones are known, and what is plugged in was
        listed; USB cameras connect as they answer. Raises StoreFailed if a slot cannot be stored at the start.
        """
        self._slots.load()
        await self._fixed.set_configured(self._configured, self._added)
        paths = {one.settings.path for one in _matches(self._configured)}
        for slot in self._slots.all():
            if slot.kind == "usb" and not slot.is_retired:
                path = slot.path if slot.path in paths else ""
                # Nothing is known of it since the start.
                camera = Camera(
                    name=slot.name, label=slot.label, kind="usb", status=Status.DISCONNECTED, path=path, width=0,
                    height=0, rate=0.0, binding=slot.binding,
                )  # fmt: skip
                self.put(slot.number, camera)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fixed.look_at_files)
            nursery.start_soon(follow, self, self.addresses)
            if self._use_udev:
                await nursery.start(self._devices.run)
                self.discovery_active = True
            task_status.started()

    @property
    def described(self) -> Mapping[int, CameraEntry]:
        """The network cameras and test pictures as they are described, by slot."""
        return self._fixed.entries

    async def configure(self, configured: Sequence[CameraEntry]) -> None:
        """The settings were read again: these are its cameras now. Whatever did not change goes on undisturbed.

        Raises StartFailed, StoreFailed, Overloaded; network cameras and test pictures are then as before.
        """
        async with self._changing:
            await self._fixed.set_configured(configured)
            self._configured = configured
            await self._devices.bindings.set_matches(_matches(configured))

    async def describe(self, one: CameraEntry, grant: Grant) -> Camera:
        """Add a camera, or change the added one in the slot `one.number`; stored before it is shown.

        Raises InvalidParams for a source that is none or may not be; InvalidState for a name, path or source that
        another camera has, or one camera too many; DependencyFailed, and what the grant raises.
        """
        held = None if one.number is None else self.described.get(one.number)
        known = held.address if held is not None and held.settings.source == one.settings.source else ""
        if one.settings.is_network:
            one = replace(one, address=known or await self.addresses.resolve(one.settings.source))
        async with self._changing:
            self._check(one)
            # Once its turn has come it is waited for, since no other description may change meanwhile.
            with trio.CancelScope(shield=True):
                camera = await grant(partial(self._fixed.set_added, one))
        return camera

    async def readdress(self, one: CameraEntry, address: str) -> None:
        """An added camera has another address now, "" for none that it may have. Raises StoreFailed, Overloaded."""
        async with self._changing:
            if one.number is not None and self.described.get(one.number) is one:
                await self._upkeep(partial(self._fixed.set_added, replace(one, address=address)))

    async def remove(self, number: int, grant: Grant) -> None:
        """Remove the added camera in this slot, or the USB camera that is unplugged; its number is never given again.

        A USB camera that is plugged in later gets a new number. Raises InvalidState for a USB camera that is plugged
        in, and what the grant raises.
        """
        async with self._changing:
            camera = self.shown(number)
            if camera is None or (camera.kind != "usb" and number not in self.described):
                return
            with trio.CancelScope(shield=True):
                if camera.kind != "usb":
                    await grant(partial(self._fixed.remove, number))
                else:
                    await grant(partial(self._retire, camera, number))

    def devices(self) -> list[DeviceFacts]:
        """The video devices that are plugged in, also those that are no cameras, by port and node."""
        return self._devices.list_nodes()

    @property
    def flaps(self) -> Counter[str]:
        """How often each camera was unplugged and came back, by name."""
        return self._devices.flaps

    @property
    def discovery(self) -> Mode:
        """How cameras are noticed as they are plugged in."""
        return self._devices.mode

    @property
    def quarantined(self) -> int:
        """How many ports are left alone, since their contact comes and goes."""
        return self._devices.quarantined

    def release_port(self, port: str) -> None:
        """Somebody says that a port which is left alone is mended. Raises NotFound, InvalidState."""
        self._devices.release(port)

    def find_device(self, port: str) -> DeviceFacts:
        """The one device at this port, or at this node, that is a camera or waits. Raises NotFound, InvalidState."""
        return self._devices.describe(self._devices.bindings.find(port))

    async def bind(self, port: str, number: int | None, grant: Grant) -> Camera:
        """Somebody says that the device at this port is this camera, None for a new one.

        A device that was another camera changes places with the device of this one. Raises NotFound for a port with no
        device, InvalidState where it is not possible as things are, and what the grant raises.
        """
        async with self._changing:
            bindings = self._devices.bindings
            part = bindings.find(port)
            with trio.CancelScope(shield=True):
                slot = await grant(partial(bindings.bind, part, number, self._save_changed))
        return self._cameras[slot.number]

    async def rename(self, number: int, label: str, grant: Grant) -> Camera:
        """Somebody gives the camera in this slot, which no file describes, another name.

        Raises InvalidState for a name that another camera has, or that the settings give, and what the grant raises.
        """
        one = self.described.get(number)
        if one is not None:
            return await self.describe(replace(one, settings=msgspec.structs.replace(one.settings, name=label)), grant)
        async with self._changing:
            self._check_label(label, number)
            with trio.CancelScope(shield=True):
                await grant(partial(self._devices.bindings.rename, number, label, self._save_changed))
        return self._cameras[number]

    def _check_label(self, label: str, number: int | None) -> None:
        for camera in self._all:
            if camera.label == label and camera.name != f"camera{number}":
                raise InvalidState(f"{camera.name} is called {label!r}", hint="choose another name", camera=camera.name)

    async def _retire(self, camera: Camera, number: int, commit: Commit) -> None:
        is_free = partial(self._is_unplugged, number)
        if not await self._slots.retire(number, is_free, self._save_changed, commit):
            raise InvalidState(f"{camera.name} is plugged in", hint="unplug it first", camera=camera.name)
        self.forget(number)
        self._devices.bindings.judge_anew()

    @property
    def waiting(self) -> int:
        """How many devices are plugged in and wait, since nobody can tell which cameras they are."""
        return self._devices.bindings.waiting

    def _is_unplugged(self, number: int) -> bool:
        camera = self.shown(number)
        return camera is not None and camera.is_unplugged

    def _check(self, one: CameraEntry) -> None:
        path = one.settings.path
        holder = self.find(path) if path else None
        if (holder is not None and holder.name != f"camera{one.number}") or path in self._settings_paths():
            whose = holder.name if holder is not None else "a camera of the settings"
            raise InvalidState(f"the path {path!r} is {whose}'s already", hint="choose another", path=path)
        self._check_label(one.settings.name, one.number)
        for number, other in self.described.items():
            if number != one.number and other.identity == one.identity and not one.is_known_by_label:
                raise InvalidState(
                    f"camera{number} ({other.settings.name}) has this source already",
                    hint="change that one, or give this one an id of its own",
                    camera=f"camera{number}",
                )
            if number != one.number and one.settings.id and other.settings.id == one.settings.id:
                raise InvalidState(
                    f"camera{number} has the id {one.settings.id!r}", hint="choose another", camera=f"camera{number}"
                )
        if one.number is None and len(self._cameras) >= MOST_CAMERAS:
            raise InvalidState(f"there are {MOST_CAMERAS} cameras", hint="remove one first")

    def _settings_paths(self) -> frozenset[str]:
        return frozenset(one.settings.path for one in self._configured) - {""}

    def shown(self, number: int) -> Camera | None:
        """The camera of a slot as it is known now."""
        return self._cameras.get(number)

    def put(self, number: int, camera: Camera, *, is_logged: bool = False) -> None:
        """Show a camera as it is now, and publish that if it changed."""
        previous = self._cameras.get(number)
        camera = camera if is_logged else reports.carry(previous, camera)
        if camera == previous:
            return
        for other, stale in self._cameras.items():
            if camera.node and stale.node == camera.node and other != number:
                self.put(other, unplugged(stale))  # its removal is not settled yet
                break
        self._cameras[number] = camera
        self._list_anew()
        write = log.debug if is_logged else log.warning if camera.status is Status.ERROR else log.info
        write(
            "camera_state",
            camera=camera.name,
            label=camera.label,
            status=camera.status.value,
            node=camera.node,
            problem=camera.problem or None,
        )
        self.changes.publish(CameraChanged(camera, previous))

    def report(self, name: str, report: Report) -> None:
        """Take what a reader of this camera's source reports; the reader has logged it already."""
        for number, camera in self._cameras.items():
            if camera.name == name:
                self.put(number, reports.shown(camera, report), is_logged=True)
                return

    def forget(self, number: int) -> None:
        """A camera was removed: publish that."""
        camera = self._cameras.pop(number, None)
        if camera is not None:
            self._list_anew()
            log.info("camera_state", camera=camera.name, label=camera.label, status="REMOVED")
            self.changes.publish(CameraChanged(unplugged(camera), camera))

    def _list_anew(self) -> None:
        self._all = tuple(self._cameras[one] for one in sorted(self._cameras))
        stand_ins = {one.stand_in: one for one in self._all if one.stand_in}
        self._by_sub = {one.sub.path: one for one in self._all if one.sub is not None}
        self._by_name = stand_ins | {name: one for one in self._all for name in one.every_name}
        self.version += 1


def _matches(configured: Sequence[CameraEntry]) -> list[CameraEntry]:
    return [one for one in configured if one.kind == "usb"]
