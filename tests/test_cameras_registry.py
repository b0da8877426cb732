"""Which cameras there are: slots, configured cameras, devices that come, go, fail and flap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from entry_helpers import make_entry
from grant_helpers import at_once
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import fail_after, times

from edged.access.grants import Commit
from edged.accounts.jobs import keep
from edged.cameras import slots
from edged.cameras.bindings import DeviceNotFound
from edged.cameras.entries import CameraEntry
from edged.cameras.hotplug import HotplugCounts
from edged.cameras.identity import record_of
from edged.cameras.model import Camera, CameraChanged, Mode, Status
from edged.cameras.probe import Probe
from edged.cameras.registry import Registry
from edged.cameras.watch import Node, Present, ResyncCause, Seen
from edged.errors import DependencyFailed, InvalidState, StartFailed, StoreFailed
from edged.feeds import Reader
from edged.store.cameras import Slot

CAMERA = Probe("uvcvideo", "HD Webcam", 1, (Mode("MJPG", 640, 480, (30.0, 15.0)), Mode("YUYV", 1280, 720, (10.0,))))
METADATA = Probe("uvcvideo", "HD Webcam", 0, ())
#: Why the first camera of a box is one of its own.
NEW = "it is a new camera: no camera of its model was known"

#: Under load an example may take any time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=times(60, least=25))


def device(number: int, port: str, serial: str = "", action: str = "add", **properties: str) -> Node:
    """What udev says of a webcam at a port."""
    given = {"ID_BUS": "usb", "ID_VENDOR_ID": "046d", "ID_MODEL_ID": "082d", "ID_PATH": f"usb-{port}"}
    given |= {"ID_V4L_CAPABILITIES": ":capture:", "ID_V4L_PRODUCT": "Webcam", "ID_SERIAL_SHORT": serial}
    path = f"/sys/devices/usb1/{port}/video4linux/video{number}"
    return Node(action, f"/dev/video{number}", path, given | properties)


class Udev:
    """A watch that a test speaks through."""

    def __init__(self, *present: Node) -> None:
        self.present = present
        self.tell: Callable[[Seen], None] = lambda seen: None

    async def __call__(
        self,
        handle: Callable[[Seen], None],
        resynced: Callable[[ResyncCause], None],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        self.tell = handle
        handle(Present(self.present))
        task_status.started()
        await trio.sleep_forever()


@dataclass
class Store:
    """Slots as the store keeps them; fails as often as `failures` says, and waits for `pause` once."""

    slots: dict[int, Slot] = field(default_factory=dict)
    failures: int = 0
    saves: int = 0
    pause: Callable[[], Awaitable[None]] | None = None

    def load(self) -> list[Slot]:
        return list(self.slots.values())

    async def save_changed(self, changes: Sequence[tuple[Slot, Slot | None]], commit: Commit) -> None:
        assert all(before == self.slots.get(slot.number) for slot, before in changes)
        await commit(keep, undo=keep)
        for slot, _ in changes:
            await self.save(slot)

    async def save(self, slot: Slot) -> None:
        await trio.lowlevel.checkpoint()
        self.saves += 1
        if self.pause is not None:
            pause, self.pause = self.pause, None
            await pause()
        if self.failures:
            self.failures -= 1
            raise StoreFailed("disk full")
        self.slots[slot.number] = slot


@dataclass
class Answers:
    """What devices answer by node: a probe, or a problem; anything unnamed is a camera."""

    by_node: dict[str, Probe | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, node: str, limiter: trio.CapacityLimiter) -> Probe:
        await trio.lowlevel.checkpoint()
        self.asked.append(node)
        found = self.by_node.get(node, CAMERA)
        if isinstance(found, str):
            raise DependencyFailed(found)
        return found


@dataclass
class Box:
    """A running registry with everything around it."""

    registry: Registry
    store: Store
    udev: Udev
    answers: Answers
    changes: Reader[CameraChanged]
    counted: list[str]

    async def next(self) -> Camera:
        """The next change."""
        seen = await self.changes.receive()
        assert isinstance(seen, CameraChanged)
        return seen.camera

    def states(self) -> dict[str, str]:
        return {camera.name: camera.status.value for camera in self.registry.all()}


@asynccontextmanager
async def running(
    tmp_path: Path,
    *configured: CameraEntry,
    store: Store | None = None,
    udev: Udev | None = None,
    answers: Answers | None = None,
) -> AsyncIterator[Box]:
    store, udev, answers = store or Store(), udev or Udev(), answers or Answers()
    counted: list[str] = []
    counts = HotplugCounts(
        lambda action, outcome: counted.append(f"{action} {outcome}"),
        lambda seconds: counted.append(f"ready {seconds:g}"),
    )
    registry = Registry(
        store.load, store.save, configured, state=tmp_path, watch=udev, probe=answers, counts=counts,
        save_changed=store.save_changed,
    )  # fmt: skip
    known = sum(one.kind != "usb" for one in configured) + sum(
        slot.kind == "usb" and not slot.is_retired for slot in store.load()
    )
    with registry.changes.subscribe(1000) as reader:
        async with trio.open_nursery() as nursery:
            await nursery.start(registry.run)
            for _ in range(known):  # told first, and no test's subject
                await reader.receive()
            yield Box(registry, store, udev, answers, reader, counted)
            nursery.cancel_scope.cancel()


async def test_configured_cameras_take_the_first_numbers_in_their_order(tmp_path: Path) -> None:
    """Before any device is looked at, also where there is no udev at all."""
    store = Store()
    gate = make_entry("gate", "rtsp://u:p@10.0.0.9/live", mode="always", size="1280x720", rate=10)
    registry = Registry(store.load, store.save, [gate, make_entry("yard", "test")], state=tmp_path, use_udev=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.run)
        assert registry.all() == (
            Camera(
                name="camera0",
                label="gate",
                kind="rtsp",
                status=Status.CONNECTED,
                url="rtsp://u:p@10.0.0.9/live",
                always_on=True,
                width=0,
                height=0,
                rate=0.0,
            ),
            Camera(name="camera1", label="yard", kind="test", status=Status.CONNECTED),
        )
        nursery.cancel_scope.cancel()
    assert store.slots == {
        0: Slot(0, gate.identity, "gate", "rtsp"),
        1: Slot(1, make_entry("yard", "test").identity, "yard", "test"),
    }


async def test_a_slot_of_before_there_were_identities_is_known_by_its_label(tmp_path: Path) -> None:
    """Whatever the order, and the source; a number that a removed camera had is not given again."""
    store = Store({0: Slot(0, {}, "gone", "rtsp"), 1: Slot(1, {}, "gate", "test")})
    configured = [make_entry("new", "rtsps://h/"), make_entry("gate", "rtsp://h/")]
    async with running(tmp_path, *configured, store=store) as box:
        assert [(camera.name, camera.label) for camera in box.registry.all()] == [
            ("camera1", "gate"),
            ("camera2", "new"),
        ]
        assert store.slots[1].kind == "rtsp"
        assert store.saves == 2


async def test_a_camera_is_found_by_its_name_and_by_today_s_node(tmp_path: Path) -> None:
    """And by nothing else."""
    async with running(tmp_path, make_entry("yard", "test"), udev=Udev(device(3, "1"))) as box:
        camera = await box.next()
        assert camera.name == "camera1"
        assert box.registry.find("camera1") is box.registry.find("/dev/video3") is camera
        assert box.registry.find("yard") is None
        assert box.registry.find("/dev/video0") is None


async def test_a_test_picture_stands_in_for_a_device_file_until_a_device_has_it(tmp_path: Path) -> None:
    """Scripts of the guides ask for /dev/video0; it is no name of the picture's, and a real device goes first."""
    yard = make_entry("yard", "test", stand_in="/dev/video0")
    async with running(tmp_path, yard, make_entry("barn", "test", stand_in="/dev/video1")) as box:
        found = box.registry.find("/dev/video0")
        assert found is not None
        assert found is box.registry.find("camera0")
        assert (found.node, found.names) == (None, frozenset({"camera0"}))
        assert box.registry.find("/dev/video1") is box.registry.find("camera1")
        box.udev.tell(device(0, "1"))
        real = await box.next()
        assert (real.name, box.registry.find("/dev/video0")) == ("camera2", real)
        assert box.registry.find("camera0") == found
        box.udev.tell(device(0, "1", action="remove"))
        assert (await box.next()).name == "camera2"
        assert box.registry.find("/dev/video0") is box.registry.find("camera0")


async def test_nothing_moves_while_nothing_changes(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """`all` is the identical tuple and `version` the same number; a change makes new ones."""
    async with running(tmp_path, make_entry("yard", "test")) as box:
        before, version = box.registry.all(), box.registry.version
        await trio.sleep(60)
        assert box.registry.all() is before
        assert box.registry.version == version
        (tmp_path / "test-cameras" / "yard").unlink()
        await box.next()
        assert box.registry.all() is not before
        assert box.registry.version > version


async def test_a_test_camera_is_there_while_its_file_is(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Deleting the file unplugs it, making it plugs it in; each is told once, within 0.2 s."""
    async with running(tmp_path, make_entry("yard", "test"), make_entry("barn", "test")) as box:
        file = tmp_path / "test-cameras" / "yard"
        assert file.exists()
        changes: list[tuple[str, Callable[[], object]]] = [("DISCONNECTED", file.unlink), ("CONNECTED", file.touch)]
        for status, change in changes * 2:
            change()
            before = trio.current_time()
            camera = await box.next()
            assert (camera.name, camera.status) == ("camera0", status)
            assert trio.current_time() - before <= 0.21
        assert box.states()["camera1"] == "CONNECTED"


async def test_a_test_camera_that_was_unplugged_stays_so_over_a_restart(tmp_path: Path) -> None:
    """Its file is made the very first time only."""
    store = Store({0: Slot(0, {}, "yard", "test")})
    async with running(tmp_path, make_entry("yard", "test"), store=store) as box:
        assert box.states() == {"camera0": "DISCONNECTED"}


async def test_a_state_folder_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    """With a sentence that names it."""
    (tmp_path / "test-cameras").write_text("in the way")
    registry = Registry(list, Store().save, [make_entry("yard", "test")], state=str(tmp_path))
    with pytest.raises(StartFailed, match="test-cameras"):
        await registry.run()


async def test_a_configured_slot_that_cannot_be_stored_ends_the_start(tmp_path: Path) -> None:
    """Its number might be another camera's tomorrow."""
    registry = Registry(list, Store(failures=1).save, [make_entry("gate", "rtsp://h/")], state=tmp_path)
    with pytest.raises(StoreFailed):
        await registry.run()


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ("ID_SERIAL=Logi*", True),
        ("ID_SERIAL=logi*", False),
        ("ID_SERIAL=Logi*,ID_PATH=usb-1", True),
        ("ID_SERIAL=Logi*,ID_SERIAL=*_1", True),
        ("ID_SERIAL=Logi*,ID_SERIAL=*_2", False),
        ("ID_SERIAL=Logi*_2,ID_SERIAL=*_1", False),
        ("ID_V4L_PRODUCT=HD ID_PATH=usb-1", False),
        ("ID_SERIAL=Logi*,ID_PATH=usb-2", False),
        ("ID_V4L_PRODUCT=HD Web cam,ID_PATH=usb-?", True),
        ("ID_NOTHING=*", True),
        ("ID_NOTHING=?*", False),
    ],
)
def test_a_udev_match_holds_if_all_of_it_does(source: str, fits: bool) -> None:
    """Globs over properties, case and all."""
    properties = {"ID_SERIAL": "Logitech_1", "ID_PATH": "usb-1", "ID_V4L_PRODUCT": "HD Web cam"}
    assert make_entry("a", source).fits(properties) is fits


async def test_a_camera_that_is_plugged_in_is_shown_with_its_mode(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The mode is the nearest to the defaults; its slot was stored first."""
    async with running(tmp_path) as box:
        box.udev.tell(device(0, "1", "7E19B2F4"))
        assert await box.next() == Camera(
            name="camera0",
            label="HD Webcam",
            kind="usb",
            status=Status.CONNECTED,
            node="/dev/video0",
            pixel_format="MJPG",
            rate=15.0,
            modes=CAMERA.modes,
            binding=NEW,
        )
        identity = {
            "vendor": "046d", "product": "082d", "model": "Webcam", "serial": "7E19B2F4", "port": "usb-1",
            "interface": "", "index": "", "path": "usb-1", "driver": "uvcvideo",
        }  # fmt: skip
        assert box.store.slots == {0: Slot(0, identity, "HD Webcam", "usb", binding=NEW)}


async def test_a_udev_match_in_the_config_sets_name_and_mode(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The first one that fits; the camera keeps the name when it is unplugged."""
    match = make_entry(
        "porch", "ID_PATH=usb-1", mode="always", size="1280x720", rate=5.0, bitrate=500_000, encoder="h264_v4l2m2m"
    )
    async with running(tmp_path, make_entry("other", "ID_PATH=usb-2"), match) as box:
        box.udev.tell(device(0, "1"))
        camera = await box.next()
        assert (camera.label, camera.always_on, camera.bitrate, camera.encoder) == (
            "porch",
            True,
            500_000,
            "h264_v4l2m2m",
        )
        assert (camera.pixel_format, camera.width, camera.height, camera.rate) == ("YUYV", 1280, 720, 10.0)
        assert box.store.slots[0].label == "porch"


async def test_a_label_that_changes_in_the_config_is_stored(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The number stays."""
    store = Store()
    async with running(tmp_path, make_entry("old", "ID_BUS=usb"), store=store, udev=Udev(device(0, "1"))) as box:
        await box.next()
    async with running(tmp_path, make_entry("new", "ID_BUS=usb"), store=store, udev=Udev(device(0, "1"))) as box:
        assert (await box.next()).label == "new"
        await trio.testing.wait_all_tasks_blocked()
    assert [slot.label for slot in store.slots.values()] == ["new"]


async def test_an_unplugged_camera_stays_known(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Without a node, also over a restart, and comes back under its name."""
    store = Store()
    async with running(tmp_path, store=store) as box:
        box.udev.tell(device(0, "1"))
        await box.next()
        box.udev.tell(device(0, "1", action="remove"))
        gone = await box.next()
        assert (gone.name, gone.status, gone.node) == ("camera0", Status.DISCONNECTED, None)
        assert box.registry.find("/dev/video0") is None
        assert box.registry.find("camera0") is gone
    async with running(tmp_path, store=store) as box:
        assert box.states() == {"camera0": "DISCONNECTED"}
        box.udev.tell(device(4, "1"))
        assert (await box.next()).node == "/dev/video4"
        assert box.states() == {"camera0": "CONNECTED"}


async def test_a_device_is_probed_once_it_was_quiet_for_300_ms(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Some events in a row are one question and one change."""
    async with running(tmp_path) as box:
        for _ in range(3):
            box.udev.tell(device(0, "1"))
            await trio.sleep(0.1)
            box.udev.tell(device(0, "1", action="remove"))
            await trio.sleep(0.1)
        assert box.answers.asked == []
        box.udev.tell(device(0, "1"))
        before = trio.current_time()
        await box.next()
        assert 0.299 <= trio.current_time() - before < 0.4
        assert box.answers.asked == ["/dev/video0"]
        assert box.registry.version == 1


async def test_a_connected_camera_that_flaps_stays_connected(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A contact that was open for 200 ms is no news."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        version = box.registry.version
        for _ in range(3):
            box.udev.tell(device(0, "1", action="remove"))
            await trio.sleep(0.2)
            box.udev.tell(device(0, "1"))
            await trio.sleep(0.2)
        await trio.sleep(5)
        assert box.registry.version == version


async def flap(box: Box, times: int, *, every: float = 0.2) -> None:
    """The device at port 1 goes and comes back."""
    for _ in range(times):
        box.udev.tell(device(0, "1", action="remove"))
        await trio.sleep(every)
        box.udev.tell(device(0, "1"))
        await trio.sleep(every)


async def test_a_port_that_flaps_is_left_alone_until_it_is_quiet(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The camera says why, nothing asks it, other ports are as before; after a minute without an event it is back."""
    async with running(tmp_path, udev=Udev(device(0, "1"), device(2, "2"))) as box:
        await box.next()
        await box.next()
        await flap(box, 10)
        camera = await box.next()
        assert (camera.name, camera.status, camera.is_attached) == ("camera0", Status.ERROR, False)
        assert "came back 10 times within 60 s" in camera.problem
        assert box.registry.quarantined == 1
        assert [one.state for one in box.registry.devices()] == ["quarantined", "camera"]
        box.answers.asked.clear()
        box.udev.tell(device(4, "3", "7E19B2F4"))
        assert (await box.next()).name == "camera2"
        await flap(box, 5, every=20)
        await box.registry.configure([])
        box.udev.tell(Present((device(0, "1"), device(2, "2"), device(4, "3", "7E19B2F4"))))  # events were lost
        await trio.sleep(35)
        assert box.states() == {"camera0": "ERROR", "camera1": "CONNECTED", "camera2": "CONNECTED"}
        assert box.answers.asked == ["/dev/video4"]
        await trio.sleep(6)
        assert box.states()["camera0"] == "CONNECTED"
        assert box.registry.quarantined == 0
        assert [counted for counted in box.counted if "quarantined" in counted]


async def test_a_port_that_is_left_alone_is_released_by_hand(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Whether its device is there or not; no other port is."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        with pytest.raises(InvalidState, match="usb-1 is not left alone"):
            box.registry.release_port("usb-1")
        with pytest.raises(DeviceNotFound):
            box.registry.release_port("usb-9")
        await flap(box, 10)
        assert (await box.next()).status is Status.ERROR
        with pytest.raises(InvalidState, match="is left alone"):
            await box.registry.bind("usb-1", None, at_once)
        box.registry.release_port("usb-1")
        assert (await box.next()).status is Status.CONNECTED
        await flap(box, 10)
        assert (await box.next()).status is Status.ERROR
        box.udev.tell(device(0, "1", action="remove"))
        await trio.sleep(1)
        assert [one.state for one in box.registry.devices()] == ["quarantined"]
        box.registry.release_port("usb-1")
        assert (await box.next()).status is Status.DISCONNECTED
        assert box.registry.devices() == []


async def test_a_port_that_flaps_a_little_is_waited_for_longer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The sixth return within a minute is settled after 2.4 s, and events say so."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        await flap(box, 6)
        box.udev.tell(device(0, "1", action="remove"))
        before = trio.current_time()
        assert (await box.next()).status is Status.DISCONNECTED
        assert trio.current_time() - before == pytest.approx(2.4)
        assert box.counted.count("remove applied") == 1
        assert box.registry.flaps == {"camera0": 6}
        assert box.counted.count("add debounced") == 6


async def test_what_comes_of_events_is_counted(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """And how long a camera took from its event until it was shown."""
    answers = Answers({"/dev/video2": "no permission"})
    async with running(tmp_path, answers=answers) as box:
        box.udev.tell(device(0, "1"))
        await box.next()
        box.udev.tell(device(0, "1"))
        box.udev.tell(device(2, "2", "7E19B2F4"))
        await box.next()
        assert box.counted == ["add applied", "ready 0.3", "add ignored", "add failed"]


async def test_an_event_without_news_asks_nothing(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """`udevadm trigger` does not disturb a camera at work, nor does the end of something unknown."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        box.udev.tell(device(0, "1", action="add"))
        box.udev.tell(device(9, "9", action="remove"))
        await trio.sleep(5)
        assert box.answers.asked == ["/dev/video0"]


async def test_cameras_that_are_there_at_the_first_start_are_numbered_in_order(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Also if the first takes longer to answer, but not if it does not answer at all."""

    async def ask(node: str, limiter: trio.CapacityLimiter) -> Probe:
        await trio.sleep({"/dev/video0": 0.2, "/dev/video4": 3.0}.get(node, 0.01))
        return CAMERA

    udev = Udev(*(device(number, str(number)) for number in (0, 2, 4, 6)))
    registry = Registry(list, Store().save, state=tmp_path, watch=udev, probe=ask)
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.run)
        await trio.sleep(1)
        assert [camera.node for camera in registry.all()] == ["/dev/video0", "/dev/video2", "/dev/video6"]
        await trio.sleep(3)
        assert [camera.node for camera in registry.all()][3] == "/dev/video4"
        nursery.cancel_scope.cancel()


async def test_what_is_no_camera_gets_no_number(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Neither what udev calls a metadata node (it is not even asked), nor what itself says so."""
    answers = Answers({"/dev/video1": METADATA})
    async with running(tmp_path, answers=answers) as box:
        box.udev.tell(device(0, "1", ID_V4L_CAPABILITIES=":"))
        box.udev.tell(device(1, "1"))
        await trio.sleep(5)
        assert answers.asked == ["/dev/video1"]
        assert box.registry.all() == ()
        assert box.store.slots == {}


@pytest.mark.parametrize("name", ["radio0", "vbi0", "swradio0", "v4l-subdev0", "v4l-touch0"])
async def test_a_radio_is_no_camera_even_where_it_cannot_be_asked(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, name: str
) -> None:
    """Without udev's database nothing says what it delivers; the kernel's name of its node does."""
    node = device(0, "1")
    bare = {key: value for key, value in node.properties.items() if key != "ID_V4L_CAPABILITIES"}
    answers = Answers({f"/dev/{name}": "no permission"})
    async with running(tmp_path, answers=answers) as box:
        box.udev.tell(Node("add", f"/dev/{name}", node.sys_path.replace("video0", name), bare))
        await trio.sleep(30)
        assert (answers.asked, box.registry.all()) == ([], ())


async def test_a_device_that_stops_being_a_camera_is_disconnected(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """After a change of its firmware, say."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        box.answers.by_node["/dev/video0"] = METADATA
        box.udev.tell(device(0, "1", action="change", ID_REVISION="2"))
        assert (await box.next()).status == "DISCONNECTED"


async def test_a_camera_that_cannot_be_asked_is_shown_with_its_problem(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """And asked again by itself, with growing pauses, until it answers."""
    async with running(tmp_path, answers=Answers({"/dev/video0": "in use by another program"})) as box:
        box.udev.tell(device(0, "1"))
        camera = await box.next()
        assert (camera.status, camera.problem, camera.node) == ("ERROR", "in use by another program", "/dev/video0")
        assert camera.label == "Webcam"
        await trio.sleep(120)
        assert 3 <= len(box.answers.asked) <= 6
        box.answers.by_node.clear()
        camera = await box.next()
        assert (camera.status, camera.problem, camera.label) == ("CONNECTED", "", "Webcam")
        asked = len(box.answers.asked)
        await trio.sleep(600)
        assert len(box.answers.asked) == asked


async def test_an_event_for_a_camera_in_trouble_is_a_reason_to_ask_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The permissions were mended and `udevadm trigger` called."""
    async with running(tmp_path, answers=Answers({"/dev/video0": "no permission"}), udev=Udev(device(0, "1"))) as box:
        assert (await box.next()).status == "ERROR"
        box.answers.by_node.clear()
        before = trio.current_time()
        box.udev.tell(device(0, "1", action="change"))
        assert (await box.next()).status == "CONNECTED"
        assert trio.current_time() - before < 1


async def test_a_camera_in_trouble_that_is_pulled_is_disconnected(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its problem went with it."""
    async with running(tmp_path, answers=Answers({"/dev/video0": "busy"}), udev=Udev(device(0, "1"))) as box:
        assert (await box.next()).status == "ERROR"
        box.udev.tell(device(0, "1", action="remove"))
        camera = await box.next()
        assert (camera.status, camera.problem, camera.node) == ("DISCONNECTED", "", None)


@pytest.mark.parametrize(
    "properties", [{"ID_BUS": "", "ID_VENDOR_ID": ""}, {"ID_V4L_CAPABILITIES": "", "EDGED_INDEX": "1"}]
)
async def test_something_unknown_that_cannot_be_asked_is_not_shown(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, properties: dict[str, str]
) -> None:
    """A codec or a metadata node that we may not open must not become a camera."""
    node = device(0, "1")
    bare = {name: value for name, value in (node.properties | properties).items() if value}
    async with running(tmp_path, answers=Answers({"/dev/video0": "no permission"})) as box:
        box.udev.tell(Node("add", node.node, node.sys_path, bare))
        await trio.sleep(30)
        assert box.registry.all() == ()


async def test_two_equal_cameras_are_two(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Same model, same serial, plugged in at the same moment: each is known by its port from then on."""
    one, two = device(0, "1", "7E19B2F4"), device(2, "2", "7E19B2F4")
    async with running(tmp_path, udev=Udev(one, two)) as box:
        ports = {(await box.next()).name: box.registry.all() for _ in range(2)}
        assert set(ports) == {"camera0", "camera1"}
        by_port = {slot.identity["port"]: number for number, slot in box.store.slots.items()}
        for node in (one, two):
            box.udev.tell(Node("remove", node.node, node.sys_path, node.properties))
        await trio.sleep(1)
        swapped = [device(0, "2", "7E19B2F4"), device(2, "1", "7E19B2F4")]
        for node in swapped:
            box.udev.tell(node)
        await trio.sleep(1)
        for node in swapped:
            camera = box.registry.find(node.node)
            assert camera is not None
            assert camera.name == f"camera{by_port[node.properties['ID_PATH']]}"


async def test_a_moved_camera_keeps_its_number_and_its_new_port_is_stored(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """By its serial."""
    async with running(tmp_path, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        await box.next()
        box.udev.tell(device(0, "1", "7E19B2F4", action="remove"))
        box.udev.tell(device(1, "2", "7E19B2F4"))
        await trio.sleep(1)
        camera = box.registry.find("camera0")
        assert camera is not None
        assert camera.node == "/dev/video1"
        assert box.store.slots[0].identity["port"] == "usb-2"
        assert len(box.registry.all()) == 1


async def test_two_identical_devices_are_not_mixed_up(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The first keeps the name; the second is held back, not shown under a guess."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        box.udev.tell(device(2, "1"))
        await trio.sleep(5)
        assert [(camera.name, camera.node) for camera in box.registry.all()] == [("camera0", "/dev/video0")]


async def test_a_node_is_one_camera_s_at_a_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Another camera gets the node before the first one's removal was settled."""
    async with running(tmp_path, udev=Udev(device(0, "1"))) as box:
        await box.next()
        box.udev.tell(device(0, "2"))
        assert (await box.next()).status == "DISCONNECTED"
        camera = await box.next()
        assert (camera.name, camera.node) == ("camera1", "/dev/video0")
        assert box.registry.find("/dev/video0") is camera


async def test_another_camera_under_the_same_path_is_another_camera(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Swapped while events were lost: the first is gone, the second new."""
    async with running(tmp_path, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        await box.next()
        box.udev.tell(Present((device(0, "1", "91C7E2B0"),)))
        await trio.sleep(1)
        assert box.states() == {"camera0": "DISCONNECTED", "camera1": "CONNECTED"}


async def test_after_lost_events_the_listing_counts(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """What is not listed is gone, what is listed is here, and what stayed is not asked again."""
    async with running(tmp_path, udev=Udev(device(0, "1"), device(2, "2"))) as box:
        await trio.sleep(1)
        box.answers.asked.clear()
        box.udev.tell(Present((device(2, "2"), device(4, "3", "91C7E2B0"))))
        await trio.sleep(1)
        assert box.states() == {"camera0": "DISCONNECTED", "camera1": "CONNECTED", "camera2": "CONNECTED"}
        assert box.answers.asked == ["/dev/video4"]


async def test_a_new_camera_is_shown_when_its_slot_is_stored(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A disk that fails twice delays it; its number is not given to another meanwhile."""
    async with running(tmp_path, store=Store(failures=1)) as box:
        box.udev.tell(device(0, "1"))
        await trio.sleep(1)
        assert box.registry.all() == ()
        box.udev.tell(device(2, "2"))
        assert (await box.next()).name == "camera1"
        assert (await box.next()).name == "camera0"
        assert sorted(box.store.slots) == [0, 1]


async def test_a_camera_that_is_pulled_while_its_slot_is_stored_is_not_shown(tmp_path: Path) -> None:
    """It never was there, and its number is its own when it comes back."""
    stuck = trio.Event()
    saves: list[Slot] = []

    async def save(slot: Slot) -> None:
        saves.append(slot)
        await stuck.wait()

    udev = Udev(device(0, "1"))
    registry = Registry(list, save, state=tmp_path, watch=udev, probe=Answers())
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(registry.run)
            while not saves:
                await trio.sleep(0.01)
            udev.tell(device(0, "1"))  # while it is not shown yet, the same word again is no harm
            udev.tell(Present(()))
            await trio.testing.wait_all_tasks_blocked()
            assert registry.all() == ()
            stuck.set()
            udev.tell(Present((device(0, "1"),)))
            while not registry.all():
                await trio.sleep(0.01)
            assert [slot.number for slot in saves] == [0, 0]
            nursery.cancel_scope.cancel()


async def test_a_device_that_makes_up_names_cannot_fill_the_store(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a most."""
    monkeypatch.setattr(slots, "MOST_SLOTS", 3)
    async with running(tmp_path) as box:
        for number in range(6):
            box.udev.tell(device(number, str(number)))
        await trio.sleep(5)
        assert len(box.registry.all()) == len(box.store.slots) == 3


async def test_a_thread_that_hangs_in_a_device_keeps_its_place(tmp_path: Path) -> None:
    """The device may go and come; while the old thread hangs it gets no other."""
    limiters: list[trio.CapacityLimiter] = []

    async def hang(node: str, limiter: trio.CapacityLimiter) -> Probe:
        limiters.append(limiter)
        limiter.acquire_on_behalf_of_nowait("thread")
        raise DependencyFailed("did not answer")

    async def ask(node: str, limiter: trio.CapacityLimiter) -> Probe:
        if not limiters:
            return await hang(node, limiter)
        limiters.append(limiter)
        return CAMERA

    udev = Udev(device(0, "1"))
    registry = Registry(list, Store().save, state=tmp_path, watch=udev, probe=ask)
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(registry.run)
            await trio.testing.wait_all_tasks_blocked()
            udev.tell(Present(()))
            await trio.testing.wait_all_tasks_blocked()
            udev.tell(Present((device(0, "1"),)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert len(limiters) == 2
    assert limiters[0] is limiters[1]


PIECES = [("1", ""), ("2", ""), ("3", "SN0001"), ("4", "SN0001"), ("5", "7E19B2F4")]


@PATIENT
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([0.0, 0.1, 0.5])), max_size=25))
def test_no_order_of_plugging_shows_a_wrong_camera(steps: list[tuple[tuple[str, str], float]]) -> None:
    """Through the whole registry, quick or slow, nodes handed out as the kernel does: once all is quiet, each camera
    that is connected is the piece that its name was first given to, and nothing waits once all are plugged in."""

    async def play() -> None:
        nodes: dict[str, Node] = {}
        async with running(Path("/nonexistent")) as box:

            def shown() -> dict[str, str]:
                ports = {f"camera{number}": slot.identity["port"] for number, slot in box.store.slots.items()}
                return {ports[camera.name]: camera.node for camera in box.registry.all() if camera.node}

            def plug(port: str, serial: str) -> None:
                taken = {node.node for node in nodes.values()}
                number = next(one for one in range(10) if f"/dev/video{one}" not in taken)
                nodes[port] = device(number, port, serial)
                box.udev.tell(nodes[port])

            for (port, serial), pause in steps:
                if port in nodes:
                    old = nodes.pop(port)
                    box.udev.tell(Node("remove", old.node, old.sys_path, old.properties))
                else:
                    plug(port, serial)
                await trio.sleep(pause)
            await trio.sleep(2)
            assert shown().items() <= {f"usb-{port}": node.node for port, node in nodes.items()}.items()
            for port, serial in PIECES:
                if port not in nodes:
                    plug(port, serial)
            await trio.sleep(2)
            assert shown() == {f"usb-{port}": node.node for port, node in nodes.items()}

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def uvc(number: int, port: str, serial: str = "", interface: int = 0, index: int = 0, action: str = "add") -> Node:
    """One of the nodes that a USB camera at a port has."""
    found = device(number, port, serial, action)
    place = f"/sys/devices/pci0/usb1/1-{port}/1-{port}:1.{interface}/video4linux/video{number}"
    path = f"pci-0000:00:14.0-usb-0:{port}:1.{interface}"
    more = {"ID_PATH": path, "ID_USB_INTERFACE_NUM": f"{interface:02x}", "EDGED_INDEX": str(index)}
    return Node(action, found.node, place, found.properties | more)


INFRARED = Probe("uvcvideo", "HD Webcam IR", 1, (Mode("GREY", 640, 360, (15.0,)),))


@pytest.mark.parametrize("numbers", [(0, 2), (2, 0)])
async def test_a_device_with_several_nodes_is_one_camera(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, numbers: tuple[int, int]
) -> None:
    """Metadata and infrared are no cameras of their own, whichever node the kernel made first."""
    colour, infrared = (uvc(number, "1", interface=part) for number, part in zip(numbers, (0, 2), strict=True))
    metadata = uvc(5, "1", index=1)
    answers = Answers({infrared.node: INFRARED, metadata.node: METADATA})
    async with running(tmp_path, answers=answers) as box:
        for node in (infrared, metadata, colour):
            box.udev.tell(node)
        camera = await box.next()
        assert (camera.name, camera.node) == ("camera0", colour.node)
        await trio.sleep(30)
        assert box.states() == {"camera0": "CONNECTED"}
        assert len(box.store.slots) == 1
        for node in (infrared, metadata, colour):
            box.udev.tell(Node("remove", node.node, node.sys_path, node.properties))
        assert (await box.next()).status == "DISCONNECTED"


async def test_a_colour_node_that_answers_late_is_the_camera_all_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Meanwhile it is shown with its problem, and the infrared node does not take its place."""
    answers = Answers({"/dev/video0": INFRARED, "/dev/video2": "no permission"})
    async with running(tmp_path, udev=Udev(uvc(0, "1", interface=2), uvc(2, "1")), answers=answers) as box:
        assert (await box.next()).problem == "no permission"
        del answers.by_node["/dev/video2"]
        camera = await box.next()
        assert (camera.name, camera.node, camera.status) == ("camera0", "/dev/video2", Status.CONNECTED)
        assert len(box.registry.all()) == 1


async def test_two_nodes_that_were_two_cameras_before_stay_two(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Earlier versions gave each node a number: rights and recordings of both go on."""
    nodes = uvc(0, "1"), uvc(2, "1", interface=2)
    stored = [Slot(n, record_of(one.properties, one.sys_path), f"cam {n}", "usb") for n, one in enumerate(nodes)]
    store = Store({slot.number: slot for slot in stored})
    async with running(tmp_path, store=store, udev=Udev(*nodes), answers=Answers({"/dev/video2": INFRARED})) as box:
        await trio.sleep(1)
        assert [(camera.name, camera.node) for camera in box.registry.all()] == [
            ("camera0", "/dev/video0"), ("camera1", "/dev/video2"),
        ]  # fmt: skip


async def test_the_settings_can_make_a_further_node_a_camera(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """An entry that describes it, and not the device's first node."""
    nodes = uvc(0, "1"), uvc(2, "1", interface=2)
    entry = make_entry("infrared", "ID_USB_INTERFACE_NUM=02")
    async with running(tmp_path, entry, udev=Udev(*nodes), answers=Answers({"/dev/video2": INFRARED})) as box:
        await trio.sleep(1)
        assert {camera.label: camera.node for camera in box.registry.all()} == {
            "HD Webcam": "/dev/video0", "infrared": "/dev/video2",
        }  # fmt: skip


async def test_a_device_that_may_be_a_stored_camera_waits_and_asks(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing of it is shown; the camera that it may be says so, until that one is plugged in."""
    store = Store()
    async with running(tmp_path, store=store, udev=Udev(device(0, "1"))) as box:
        assert (await box.next()).binding == NEW
    async with running(tmp_path, store=store) as box:
        box.udev.tell(device(0, "2"))
        asked = await box.next()
        assert (asked.name, asked.status, asked.node) == ("camera0", Status.DISCONNECTED, None)
        assert "the device at usb-2 waits, since it may be camera0" in asked.problem
        assert len(store.slots) == 1
        box.udev.tell(device(2, "1"))
        back = await box.next()
        assert (back.name, back.node, back.problem) == ("camera0", "/dev/video2", "")
        new = await box.next()
        assert (new.name, new.node) == ("camera1", "/dev/video0")
        assert "its port usb-2 was new" in new.binding


async def test_a_camera_that_stays_plugged_in_stays_itself_whatever_it_says(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its serial cannot be read for a moment: it is not judged as a device that comes, and the stored one stays."""
    async with running(tmp_path, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        await box.next()
        box.udev.tell(device(0, "1", "", action="change"))
        await trio.sleep(1)
        assert (box.states(), box.registry.waiting) == ({"camera0": "CONNECTED"}, 0)
        assert box.store.slots[0].identity["serial"] == "7E19B2F4"
        box.udev.tell(device(0, "1", "", action="remove"))
        await trio.sleep(1)
        box.udev.tell(device(0, "1", ""))
        await trio.sleep(1)
        assert (box.states(), box.registry.waiting) == ({"camera0": "DISCONNECTED"}, 1)


async def test_a_camera_that_comes_back_says_by_what_it_was_known(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """And not for ever that it was new; what is stored changes once, and not each time."""
    store = Store()
    async with running(tmp_path, store=store, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        assert (await box.next()).binding == NEW
    for _ in range(3):
        async with running(tmp_path, store=store, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
            assert (await box.next()).binding == "its serial 7E19B2F4 and its port usb-1 are those of before"
            await trio.testing.wait_all_tasks_blocked()
    assert store.saves == 2


async def test_a_device_that_waits_and_is_pulled_asks_no_more(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The camera that it might have been is unplugged, and nothing else."""
    store = Store()
    async with running(tmp_path, store=store, udev=Udev(device(0, "1"))) as box:
        await box.next()
    async with running(tmp_path, store=store, udev=Udev(device(0, "2"))) as box:
        assert (await box.next()).problem
        box.udev.tell(device(0, "2", action="remove"))
        assert (await box.next()).problem == ""
