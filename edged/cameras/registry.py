"""Which cameras there are, now: the one place where this state changes.

Four sources, one registry: slots from the store, `[[camera]]` entries (RTSP and test pictures), a file for each test
camera, and udev (devices.py). It knows neither MediaMTX nor clients; whoever cares subscribes to `changes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
import trio

from edged.cameras.configured import Configured, check
from edged.cameras.devices import Ask, Devices, Watch, unplugged
from edged.cameras.model import Camera, CameraChanged, Status
from edged.cameras.probe import probe
from edged.cameras.slots import Slots
from edged.cameras.watch import ResyncCause, watch
from edged.errors import StartFailed
from edged.feeds import Feed
from edged.store.cameras import Slot

__all__ = ["Configured", "Registry"]

log = structlog.get_logger("cameras")

#: Seconds between two looks at the test cameras' files.
TEST_INTERVAL: Final = 0.2


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
        self._slots = Slots(load_slots, save_slot)
        self._fixed = [one for one in configured if one.kind != "usb"]
        self._tests = Path(state) / "test-cameras"
        self._use_udev = use_udev
        matches = [one for one in configured if one.kind == "usb"]
        self._devices = Devices(self._slots, self, matches, resynced=resynced, watch=watch, probe=probe)
        self._cameras: dict[int, Camera] = {}
        self._all: tuple[Camera, ...] = ()
        self._by_name: dict[str, Camera] = {}

    def find(self, device: str) -> Camera | None:
        """The camera called `cameraN`, the one of this path, or the one that is `/dev/videoN` today; None for none."""
        return self._by_name.get(device)

    def all(self) -> tuple[Camera, ...]:
        """Every camera by slot; the identical tuple while nothing changed."""
        return self._all

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the cameras known, for ever.

        Reports started when configured cameras have their slots, stored ones are known, and what is plugged in was
        listed; USB cameras connect as they answer. Raises StoreFailed if a slot cannot be stored at the start.
        """
        self._slots.load()
        tests: list[tuple[int, Configured]] = []
        for one in self._fixed:
            number = await self._place(one)
            if one.kind == "test":
                tests.append((number, one))
        for slot in self._slots.all():
            if slot.kind == "usb":
                self.put(slot.number, Camera(name=slot.name, label=slot.label, kind="usb", status=Status.DISCONNECTED))
        async with trio.open_nursery() as nursery:
            if tests:
                nursery.start_soon(self._look_at_files, tests)
            if self._use_udev:
                await nursery.start(self._devices.run)
                self.discovery_active = True
            task_status.started()

    def shown(self, number: int) -> Camera | None:
        """The camera of a slot as it is known now."""
        return self._cameras.get(number)

    def put(self, number: int, camera: Camera) -> None:
        """Make a camera known as it is now, and tell everybody if that is new."""
        previous = self._cameras.get(number)
        if camera == previous:
            return
        for other, stale in self._cameras.items():
            if camera.node and stale.node == camera.node and other != number:
                self.put(other, unplugged(stale))  # its removal is still settling
                break
        self._cameras[number] = camera
        self._all = tuple(self._cameras[one] for one in sorted(self._cameras))
        self._by_name = {name: one for one in self._all for name in one.every_name}
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

    # Configured cameras.

    async def _place(self, one: Configured) -> int:
        """Give a configured camera the slot of its label, a new one the first time, and show it."""
        slot = next((old for old in self._slots.all() if old.kind != "usb" and old.label == one.label), None)
        if slot is None:
            slot = Slot(self._slots.first_free(), {}, one.label, one.kind)
            if one.kind == "test":
                self._plug_in(one)
        slot = replace(slot, kind=one.kind)
        await self._slots.give(slot)
        await self._slots.store(slot)
        self.put(slot.number, self._fixed_camera(slot, one))
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
                    self.put(number, replace(camera, status=status))
