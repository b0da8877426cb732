"""What a person says of devices: which camera one is, how it is called, that it will not come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from entry_helpers import make_entry
from grant_helpers import at_once, ended_meanwhile, refuse_all
from patience import fail_after
from test_cameras_registry import INFRARED, METADATA, Answers, Box, Store, Udev, device, running, uvc

from edged.access.grants import Upkeep
from edged.cameras.bindings import DeviceNotFound
from edged.cameras.model import Status
from edged.cameras.registry import Registry
from edged.config.model import Config
from edged.daemon.cameras import build_cameras
from edged.errors import InvalidState, Refused
from edged.metrics import Metrics
from edged.store import cameras as store
from edged.store.database import Database
from edged.store.migrations import TRUST


@asynccontextmanager
async def one_waits(tmp_path: Path, *, is_back: bool = False) -> AsyncIterator[Box]:
    """camera0 was at port 1; a device without a serial is at port 2 (and camera0 `is_back`)."""
    kept = Store()
    async with running(tmp_path, store=kept, udev=Udev(device(0, "1"))) as box:
        await box.next()
    present = (device(2, "1"), device(0, "2")) if is_back else (device(0, "2"),)
    async with running(tmp_path, store=kept, udev=Udev(*present)) as box:
        await trio.sleep(1)
        yield box


def shown(box: Box) -> dict[str, str | None]:
    return {camera.name: camera.node for camera in box.registry.all()}


async def test_a_device_that_waits_becomes_the_camera_that_a_person_names(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its port is stored: from then on it is known by that, also after a restart, and says who said so."""
    async with one_waits(tmp_path) as box:
        (waiting,) = box.registry.devices()
        assert (waiting.state, waiting.port, waiting.candidates) == ("waiting", "usb-2", (0,))
        assert box.registry.waiting == 1
        camera = await box.registry.bind("usb-2", 0, at_once)
        assert (camera.name, camera.node, camera.status) == ("camera0", "/dev/video0", Status.CONNECTED)
        assert (camera.binding, camera.problem) == ("an administrator said so", "")
        assert box.registry.waiting == 0
        assert [one.state for one in box.registry.devices()] == ["camera"]
    async with running(tmp_path, store=box.store, udev=Udev(device(4, "2"))) as box:
        await trio.sleep(1)
        assert shown(box) == {"camera0": "/dev/video4"}
        assert box.registry.all()[0].binding == "an administrator said so"


async def test_a_device_that_waits_becomes_a_new_camera_if_a_person_says_so(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The one that is away stays away, and asks no more."""
    async with one_waits(tmp_path) as box:
        assert (await box.registry.bind("/dev/video0", None, at_once)).name == "camera1"
        assert shown(box) == {"camera0": None, "camera1": "/dev/video0"}
        assert box.registry.all()[0].problem == ""
        with pytest.raises(InvalidState, match="the device at usb-2 is camera1"):
            await box.registry.bind("usb-2", None, at_once)


async def test_two_devices_that_were_taken_for_each_other_change_places(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Two pieces without a serial were plugged into each other's port while the box was off."""
    async with one_waits(tmp_path, is_back=True) as box:
        assert shown(box) == {"camera0": "/dev/video2", "camera1": "/dev/video0"}
        await box.registry.bind("usb-2", 0, at_once)
        assert shown(box) == {"camera0": "/dev/video0", "camera1": "/dev/video2"}
        ports = {number: slot.identity["port"] for number, slot in box.store.slots.items()}
        assert ports == {0: "usb-2", 1: "usb-1"}
        assert {camera.binding for camera in box.registry.all()} == {"an administrator said so"}


async def test_a_new_device_takes_the_place_of_a_broken_one(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """camera0 was replaced by another model, which became camera1: both change places."""
    kept = Store()
    async with running(tmp_path, store=kept, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        await box.next()
    new = device(0, "1", "91C7E2B0", ID_MODEL_ID="0999")
    async with running(tmp_path, store=kept, udev=Udev(new)) as box:
        assert (await box.next()).name == "camera1"
        await box.registry.bind("usb-1", 0, at_once)
        assert shown(box) == {"camera0": "/dev/video0", "camera1": None}
        box.udev.tell(device(2, "2", "7E19B2F4"))
        await trio.sleep(1)
        assert shown(box) == {"camera0": "/dev/video0", "camera1": "/dev/video2"}


async def test_a_binding_that_cannot_be_is_refused(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Nothing there; a camera that another device is; one that is described; a file that says otherwise."""
    async with one_waits(tmp_path) as box:
        with pytest.raises(DeviceNotFound, match="'usb-9'"):
            await box.registry.bind("usb-9", 0, at_once)
        with pytest.raises(InvalidState, match="camera7 is no camera that is plugged in here"):
            await box.registry.bind("usb-2", 7, at_once)
        await box.registry.bind("usb-2", 0, at_once)
        box.udev.tell(device(2, "3", ID_MODEL_ID="0999"))
        await trio.sleep(1)
        box.udev.tell(device(2, "3", ID_MODEL_ID="0999", action="remove"))
        await trio.sleep(1)
        box.udev.tell(device(4, "4", ID_MODEL_ID="0999"))
        await trio.sleep(1)
        with pytest.raises(InvalidState, match="camera0 is the device at usb-2"):
            await box.registry.bind("usb-4", 0, at_once)
    entry = make_entry("porch", "ID_PATH=usb-5", id="porch")
    async with running(tmp_path, entry, udev=Udev(device(0, "5"), device(2, "6", "7E19B2F4"))) as box:
        await trio.sleep(1)
        with pytest.raises(InvalidState, match="the settings say with the id 'porch'"):
            await box.registry.bind("usb-5", 1, at_once)


async def test_a_right_that_ended_binds_and_renames_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """In memory neither."""
    async with one_waits(tmp_path) as box:
        before = (dict(box.store.slots), box.registry.all(), box.registry.devices())
        for change in (
            partial(box.registry.bind, "usb-2", 0), partial(box.registry.bind, "usb-2", None),
            partial(box.registry.rename, 0, "porch"),
        ):  # fmt: skip
            with pytest.raises(Refused):
                await change(refuse_all)
            assert (dict(box.store.slots), box.registry.all(), box.registry.devices()) == before


async def test_a_camera_keeps_the_name_that_a_person_gives_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Plugged in or not, in any script, over a restart; no other camera has it, and a name of the settings stays."""
    kept = Store()
    entry = make_entry("porch", "ID_PATH=usb-3")
    nodes = device(0, "1", "7E19B2F4"), device(2, "3", "91C7E2B0")
    async with running(tmp_path, entry, store=kept, udev=Udev(*nodes)) as box:
        await trio.sleep(1)
        assert (await box.registry.rename(0, "Tür 門", at_once)).label == "Tür 門"
        with pytest.raises(InvalidState, match="camera1 is called 'porch'"):
            await box.registry.rename(0, "porch", at_once)
        with pytest.raises(InvalidState, match="camera1 has its name from the settings"):
            await box.registry.rename(1, "gate", at_once)
        box.udev.tell(device(0, "1", "7E19B2F4", action="remove"))
        await trio.sleep(1)
        await box.registry.rename(0, "yard", at_once)
        assert box.registry.all()[0].label == "yard"
    async with running(tmp_path, entry, store=kept, udev=Udev(*nodes)) as box:
        await trio.sleep(1)
        assert [camera.label for camera in box.registry.all()] == ["yard", "porch"]


async def test_forgetting_a_camera_lets_the_device_that_waits_for_it_be_new(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing else is away."""
    async with one_waits(tmp_path) as box:
        await box.registry.remove(0, at_once)
        await trio.sleep(1)
        assert shown(box) == {"camera1": "/dev/video0"}


async def test_the_list_has_what_is_no_camera_and_why(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A second node of a device, and one that delivers nothing."""
    nodes = uvc(0, "1"), uvc(2, "1", interface=2), device(4, "9")
    answers = Answers({"/dev/video2": INFRARED, "/dev/video4": METADATA})
    async with running(tmp_path, udev=Udev(*nodes), answers=answers) as box:
        await trio.sleep(1)
        assert [(one.node, one.state, one.why) for one in box.registry.devices()] == [
            ("/dev/video0", "camera", "it is a new camera: no camera of its model was known"),
            ("/dev/video2", "no_camera", "it is the infrared or depth picture of the device at /dev/video0"),
            ("/dev/video4", "no_camera", "it delivers no pictures"),
        ]
        with pytest.raises(DeviceNotFound):
            box.registry.find_device("usb-9")


async def test_what_a_person_says_is_in_trust_db_or_not_at_all(tmp_path: Path) -> None:
    """Two cameras change places in one transaction; a right that ends while it commits takes both back, and a new
    camera is none."""
    async with Database.open(tmp_path / "trust.db", TRUST, name="trust") as trust:
        registry = build_cameras(Config(), trust, Metrics({}))
        udev = Udev(device(0, "1"), device(2, "2"))
        registry._devices._watch, registry._devices._probe = udev, Answers()
        with fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(registry.run)
                await until(registry, 2)
                before = trust.read_now(store.load)
                with pytest.raises(Refused):
                    await registry.bind("usb-1", 1, ended_meanwhile(trust))
                assert trust.read_now(store.load) == before
                await registry.bind("usb-1", 1, Upkeep(trust))
                after = trust.read_now(store.load)
                assert [slot.identity["port"] for slot in after] == ["usb-2", "usb-1"]
                udev.tell(device(2, "2", action="remove"))
                while not registry.all()[0].is_unplugged:
                    await trio.sleep(0.01)
                udev.tell(device(4, "3"))
                while not registry.waiting:
                    await trio.sleep(0.01)
                with pytest.raises(Refused):
                    await registry.bind("usb-3", None, ended_meanwhile(trust))
                assert trust.read_now(store.load) == after
                assert registry.waiting == 1
                nursery.cancel_scope.cancel()


async def until(registry: Registry, cameras: int) -> None:
    while sum(camera.status is Status.CONNECTED for camera in registry.all()) < cameras:
        await trio.sleep(0.01)
