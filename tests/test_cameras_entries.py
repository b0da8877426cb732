"""Which slot is whose: described cameras are recognised by their id or source, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from entry_helpers import make_entry
from hypothesis import given
from hypothesis import strategies as st
from test_cameras_registry import Store, Udev, device, running

from edged.cameras.entries import CameraEntry, recognise
from edged.cameras.model import Status
from edged.cameras.registry import Registry
from edged.cameras.reports import Report
from edged.config.sources import identify
from edged.errors import StoreFailed
from edged.store.cameras import Slot

DOCK, YARD = "rtsp://ann:one@192.0.2.7/stream1", "rtsp://192.0.2.8:554/stream1"

#: Texts that may stand in an address without escapes.
WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)


async def slots_of(tmp_path: Path, store: Store, *configured: CameraEntry) -> dict[str, str]:
    """Name → label after a start with these settings."""
    registry = Registry(store.load, store.save, configured, state=tmp_path, use_udev=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.run)
        found = {camera.name: camera.label for camera in registry.all()}
        nursery.cancel_scope.cancel()
    return found


async def test_another_label_is_the_same_camera(tmp_path: Path) -> None:
    """It keeps its number, and with it every URL and right."""
    store = Store()
    before = await slots_of(tmp_path, store, make_entry("dock", DOCK), make_entry("yard", YARD))
    after = await slots_of(tmp_path, store, make_entry("front dock", DOCK), make_entry("garden", YARD))
    assert (before, after) == ({"camera0": "dock", "camera1": "yard"}, {"camera0": "front dock", "camera1": "garden"})


async def test_another_password_and_another_order_are_the_same_cameras(tmp_path: Path) -> None:
    store = Store()
    await slots_of(tmp_path, store, make_entry("dock", DOCK), make_entry("yard", YARD))
    renewed = "rtsp://ann:another@192.0.2.7:554/stream1"
    after = await slots_of(tmp_path, store, make_entry("yard", YARD), make_entry("dock", renewed))
    assert after == {"camera0": "dock", "camera1": "yard"}


async def test_another_source_is_another_camera_and_the_label_hands_nothing_on(tmp_path: Path) -> None:
    store = Store()
    await slots_of(tmp_path, store, make_entry("dock", DOCK))
    assert await slots_of(tmp_path, store, make_entry("dock", YARD)) == {"camera1": "dock"}
    assert await slots_of(tmp_path, store, make_entry("dock", DOCK)) == {"camera0": "dock"}


async def test_an_id_is_the_same_camera_at_another_source(tmp_path: Path) -> None:
    """Also one that is given to a camera that had none."""
    store = Store()
    await slots_of(tmp_path, store, make_entry("dock", DOCK))
    assert await slots_of(tmp_path, store, make_entry("dock", DOCK, id="front")) == {"camera0": "dock"}
    assert await slots_of(tmp_path, store, make_entry("moved", YARD, id="front")) == {"camera0": "moved"}
    # Another id says that it is another camera.
    assert await slots_of(tmp_path, store, make_entry("moved", YARD, id="back")) == {"camera1": "moved"}


async def test_two_cameras_may_have_one_source_if_an_id_tells_them_apart(tmp_path: Path) -> None:
    store = Store()
    left, right = make_entry("left", DOCK, id="left"), make_entry("right", DOCK, id="right")
    assert await slots_of(tmp_path, store, left, right) == {"camera0": "left", "camera1": "right"}
    assert await slots_of(tmp_path, store, right, left) == {"camera0": "left", "camera1": "right"}


async def test_a_test_picture_that_is_renamed_keeps_its_number_and_its_plug(tmp_path: Path) -> None:
    store = Store()
    await slots_of(tmp_path, store, make_entry("one", "test"), make_entry("two", "test"))
    assert await slots_of(tmp_path, store, make_entry("one", "test"), make_entry("three", "test")) == {
        "camera0": "one",
        "camera1": "three",
    }
    assert sorted(path.name for path in (tmp_path / "test-cameras").iterdir()) == ["one", "three"]
    (tmp_path / "test-cameras" / "three").unlink()
    await slots_of(tmp_path, store, make_entry("one", "test"), make_entry("four", "test"))
    assert [path.name for path in (tmp_path / "test-cameras").iterdir()] == ["one"]


@given(st.lists(WORDS, min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False), st.data())
def test_whatever_is_renamed_and_moved_each_source_keeps_its_slot(
    hosts: list[str], random: object, data: st.DataObject
) -> None:
    """A history of settings: labels, order and passwords change at will, sources do not."""
    wanted = [make_entry(host, f"rtsp://{host}/live") for host in hosts]
    slots = [Slot(number, one.identity, one.settings.name, "rtsp") for number, one in enumerate(wanted)]
    labels = data.draw(st.permutations([*hosts, *(f"{host}2" for host in hosts)]))
    changed = [
        make_entry(label, f"rtsp://u:{label}@{host}:554/live") for label, host in zip(labels, hosts, strict=False)
    ]
    order = data.draw(st.permutations(range(len(hosts))))
    found = recognise([changed[at] for at in order], slots)
    assert [slot.number if slot else None for slot in found] == list(order)


async def test_new_settings_disturb_no_camera_that_stays(tmp_path: Path) -> None:
    """One comes, one goes, one changes; nothing is told of the fourth."""
    kept, gone, changed = make_entry("kept", DOCK), make_entry("gone", YARD), make_entry("old", "test")
    async with running(tmp_path, kept, gone, changed) as box:
        box.registry.report("camera0", Report(width=1920, height=1080, rate=25.0))
        assert (await box.next()).width == 1920
        stays = box.registry.find("camera0")
        await box.registry.configure([kept, make_entry("new", "test"), make_entry("more", "rtsp://192.0.2.9/")])
        told = {(await box.next()).label for _ in range(3)}
        assert told == {"gone", "new", "more"}
        assert box.registry.find("camera0") is stays
        assert {camera.name: camera.label for camera in box.registry.all()} == {
            "camera0": "kept",
            "camera2": "new",
            "camera3": "more",
        }


async def test_without_test_pictures_no_task_wakes(tmp_path: Path) -> None:
    """Files are looked at while there are test pictures, and from the moment when new settings bring the first."""
    async with running(tmp_path, make_entry("kept", DOCK)) as box:
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 10
        await box.registry.configure([make_entry("kept", DOCK), make_entry("picture", "test")])
        assert (await box.next()).label == "picture"
        (tmp_path / "test-cameras" / "picture").unlink()
        assert (await box.next()).status is Status.DISCONNECTED


async def test_settings_that_cannot_be_stored_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, make_entry("kept", DOCK)) as box:
        box.store.failures = 1
        with pytest.raises(StoreFailed):
            await box.registry.configure([make_entry("more", YARD)])
        assert [camera.label for camera in box.registry.all()] == ["kept"]


async def test_cameras_may_exchange_their_paths(tmp_path: Path) -> None:
    async with running(tmp_path, make_entry("a", DOCK, path="one"), make_entry("b", YARD, path="two")) as box:
        await box.registry.configure([make_entry("a", DOCK, path="two"), make_entry("b", YARD, path="one")])
        found = [(camera.name, camera.path) for camera in box.registry.all()]
        assert found == [("camera0", "two"), ("camera1", "one")]
        one = box.registry.find("one")
        assert one is not None
        assert one.name == "camera1"


async def test_a_usb_camera_gets_its_path_and_keeps_it_unplugged(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    entry = make_entry("bench", "ID_PATH=usb-1", path="bench")
    store, plugged = Store(), device(0, "1", serial="8A3F55E1")
    async with running(tmp_path, entry, store=store, udev=Udev(plugged)) as box:
        camera = await box.next()
        assert (camera.name, camera.path, camera.label) == ("camera0", "bench", "bench")
    async with running(tmp_path, entry, store=store, udev=Udev()) as box:
        shown = box.registry.find("bench")
        assert shown is not None
        assert (shown.status, shown.path) == (Status.DISCONNECTED, "bench")
        # Another piece at that port is another camera, and has the path from now on.
        box.udev.tell(device(1, "1", serial="77B0C2D4"))
        while (camera := await box.next()).name != "camera1":
            pass
        assert {one.name: one.path for one in box.registry.all()} == {"camera0": "camera0", "camera1": "bench"}


async def test_a_usb_camera_with_an_id_is_the_same_at_any_port(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Where neither its serial nor its port would tell."""
    entry, store = make_entry("bench", "ID_VENDOR_ID=046d", id="bench"), Store()
    async with running(tmp_path, entry, store=store, udev=Udev(device(0, "1"))) as box:
        assert (await box.next()).name == "camera0"
    async with running(tmp_path, entry, store=store, udev=Udev(device(0, "2"))) as box:
        assert (await box.next()).name == "camera0"
        # A second piece of the same model is not the one with the id.
        box.udev.tell(device(1, "3"))
        assert (await box.next()).name == "camera1"


async def test_settings_of_a_usb_camera_count_at_once(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        assert (await box.next()).label == "HD Webcam"
        await box.registry.configure([make_entry("bench", "ID_PATH=usb-1", path="bench", size="1280x720")])
        camera = await box.next()
        assert (camera.name, camera.label, camera.path, camera.width) == ("camera0", "bench", "bench", 1280)
        await box.registry.configure([])
        assert (await box.next()).path == "camera0"


@given(WORDS, WORDS, WORDS)
def test_credentials_are_no_part_of_an_identity(host: str, path: str, password: str) -> None:
    plain = identify(f"rtsp://{host}/{path}?channel=1")
    assert identify(f"rtsp://ann:{password}@{host}/{path}?channel=1") == plain
    assert identify(f"rtsp://{host.upper()}:554/{path}?pwd={password}&channel=1&user=ann") == plain
    assert identify(f"rtsp://{host}/{path}?channel=2") != plain
    assert identify(f"rtsps://{host}/{path}?channel=1") != plain


def test_stored_identities_stay_what_they_are() -> None:
    """Another digest would make every camera a new one after an update."""
    assert identify("test") == "9f86d081884c7d659a2feaa0c55ad015"
    assert identify("rtsp://ann:one@192.0.2.7/stream1?channel=1&pwd=x") == identify(
        "rtsp://192.0.2.7:554/stream1?channel=1"
    )
    assert identify("rtsp://192.0.2.7/stream1") == "816a04ea5e761698352086229ddb3b27"
