"""udev's word as plain values: nothing lost, and if lost, looked at again."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from patience import fail_after

from edged.cameras import watch as module
from edged.cameras.watch import Discovery, Node, Present, Seen, watch

#: The multicast group that udevd speaks on, and its protocol (linux/netlink.h).
UDEV_GROUP, NETLINK_KOBJECT_UEVENT = 2, 15
PATH = "/sys/devices/usb1/1-1/video4linux/video0"


class Attributes(dict[str, bytes]):
    """sysfs attributes; `gone` ones fail as they do when a device was just pulled."""

    def get(self, name: str, default: Any = None) -> Any:
        if super().get(name) == b"gone":
            raise OSError(errno.ENODEV, "gone")
        return super().get(name, default)


class Properties(Mapping[str, str]):
    """udev's properties; `garbage` ones are no UTF-8."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> str:
        if self._values[name] == "garbage":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Device:
    """As much of pyudev's as is used."""

    def __init__(
        self,
        action: str | None = None,
        *,
        node: str | None = "/dev/video0",
        usb: dict[str, bytes] | None = None,
        attributes: dict[str, bytes] | None = None,
        is_initialized: bool = True,
        **properties: str,
    ) -> None:
        self.action = action
        self.device_node = node
        self.sys_path = PATH if node is None else f"{Path(PATH).parent}/{Path(node).name}"
        self.properties = Properties(properties)
        self.attributes = Attributes(attributes or {})
        self.is_initialized = is_initialized
        self._usb = usb

    def find_parent(self, subsystem: str, kind: str) -> Device | None:
        assert (subsystem, kind) == ("usb", "usb_device")
        return None if self._usb is None else Device(attributes=self._usb)


class Udev:
    """A libudev whose monitor is one end of a socket pair: a byte in it is an event in `events`."""

    def __init__(self, *listed: Device) -> None:
        self.listed = list(listed)
        self.events: list[Device] = []
        self.subscribed: list[str] = []
        self.buffer_error: OSError | None = None
        self.failures: list[OSError] = []
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def __enter__(self) -> Udev:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self.theirs.close()

    # The library, the context and the monitor in one.
    def Context(self) -> Udev:
        return self

    @property
    def Monitor(self) -> Udev:
        return self

    def list_devices(self, subsystem: str) -> list[Device]:
        assert subsystem == "video4linux"
        self.subscribed.append("list")
        return self.listed

    def from_netlink(self, context: object, source: str) -> Udev:
        if self.failures:
            raise self.failures.pop(0)
        self.subscribed.append(source)
        return self

    def filter_by(self, subsystem: str) -> None:
        self.subscribed.append(subsystem)

    def set_receive_buffer_size(self, size: int) -> None:
        if self.buffer_error is not None:
            raise self.buffer_error

    def start(self) -> None:
        self.subscribed.append("start")

    def fileno(self) -> int:
        return self._ours.fileno()

    def poll(self, timeout: int) -> Device | None:
        assert timeout == 0
        try:
            said = self._ours.recv(1)
        except BlockingIOError:
            return None
        if said == b"!":
            raise OSError("Error while polling fd")
        return self.events.pop(0)

    def tell(self, *events: Device) -> None:
        for event in events:
            self.events.append(event)
            self.theirs.send(b".")


@pytest.fixture
def udev(monkeypatch: pytest.MonkeyPatch) -> Iterator[Udev]:
    with Udev() as fake:
        monkeypatch.setattr(module, "_library", lambda: fake)
        monkeypatch.setattr(module, "has_udevd", lambda: True)
        monkeypatch.setattr(module, "has_node", lambda _node: True)
        yield fake


class Watcher:
    """Runs the watch and keeps what it told."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.modes: list[str] = []
        self.resyncs: list[str] = []
        self._told = trio.Event()

    def handle(self, seen: Seen) -> None:
        if isinstance(seen, Discovery):
            self.modes.append(seen.mode)
        else:
            self.seen.append(seen)
        self._told.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._told = trio.Event()
            await self._told.wait()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await watch(self.handle, self.resyncs.append, task_status=task_status)


async def test_it_subscribes_before_it_lists(udev: Udev) -> None:
    """To what udev has finished with, of video devices only; so nothing falls between."""
    udev.listed = [Device(ID_BUS="usb", attributes={"index": b"0\n", "name": b"Webcam\n"})]
    watcher = Watcher()
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            nursery.cancel_scope.cancel()
    assert udev.subscribed == ["udev", "video4linux", "start", "list"]
    properties = {"ID_BUS": "usb", "EDGED_INDEX": "0", "ID_V4L_PRODUCT": "Webcam"}
    assert watcher.seen == [Present((Node("present", "/dev/video0", PATH, properties),))]


async def test_what_udev_still_works_on_is_left_to_its_event(udev: Udev, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its permissions are not right yet; but where there is no udev daemon, nothing ever is finished, and what a
    container sees in sysfs and has no node of is not its own."""
    udev.listed = [Device(is_initialized=False)]
    assert list(module.present(udev)) == []
    monkeypatch.setattr(module, "has_udevd", lambda: False)
    assert [node.node for node in module.present(udev)] == ["/dev/video0"]
    monkeypatch.setattr(module, "has_node", lambda _node: False)
    assert list(module.present(udev)) == []


async def test_every_event_is_told_in_order(udev: Udev) -> None:
    """Also more of them at once than are handed on in one go."""
    watcher = Watcher()
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            udev.tell(*(Device("add", node=f"/dev/video{number}") for number in range(100)))
            udev.tell(Device("remove", node=None), Device(None))
            await watcher.until(lambda: len(watcher.seen) == 102)
            nursery.cancel_scope.cancel()
    nodes = [seen for seen in watcher.seen if isinstance(seen, Node)]
    assert [node.node for node in nodes] == [*(f"/dev/video{number}" for number in range(100)), "/dev/video0"]
    assert nodes[-1].action == "change"


def test_without_udev_s_database_the_device_is_known_from_sysfs() -> None:
    """The USB device above it says vendor, product and serial."""
    usb = {"idVendor": b"046d\n", "idProduct": b"082d\n", "serial": b"7E19B2F4\n"}
    node = module._node(Device("add", usb=usb, SEQNUM="17", ID_PATH="p"), "add")
    assert node is not None
    assert node.properties == {
        "ID_PATH": "p",
        "ID_VENDOR_ID": "046d",
        "ID_MODEL_ID": "082d",
        "ID_SERIAL_SHORT": "7E19B2F4",
    }


def test_a_device_may_call_itself_anything_and_go_at_any_time() -> None:
    """Bytes that are no text are left out, and so is what cannot be read any more."""
    node = module._node(Device("add", ID_MODEL="garbage", ID_VENDOR_ID="1", attributes={"index": b"gone"}), "add")
    assert node is not None
    assert node.properties == {"ID_VENDOR_ID": "1"}


def test_a_device_that_is_unplugged_at_once_is_not_probed() -> None:
    """sysfs has nothing about it any more."""
    node = module._node(Device("remove", ID_PATH="p", attributes={"index": b"gone"}), "remove")
    assert node == Node("remove", "/dev/video0", PATH, {"ID_PATH": "p"})


async def test_of_many_events_of_one_device_the_last_counts(udev: Udev) -> None:
    """What came before it went is nothing, nor is a change that another one follows; of other devices all is told."""
    watcher = Watcher()
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            actions = ("add", "change", "change", "remove", "add", "change", "change")
            udev.tell(*map(Device, actions), Device("add", node="/dev/video1"))
            await watcher.until(lambda: len(watcher.seen) == 5)
            nursery.cancel_scope.cancel()
    nodes = [(seen.action, seen.node) for seen in watcher.seen if isinstance(seen, Node)]
    assert nodes == [
        ("remove", "/dev/video0"), ("add", "/dev/video0"), ("change", "/dev/video0"), ("add", "/dev/video1"),
    ]  # fmt: skip


async def test_a_storm_is_taken_in_portions(udev: Udev, autojump_clock: trio.testing.MockClock) -> None:
    """500 events a second are told of some twenty times a second, and the last of them is among these."""
    watcher = Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        for number in range(2000):
            udev.tell(Device("change", ID_REVISION=str(number)))
            await trio.sleep(0.002)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    told = [seen for seen in watcher.seen if isinstance(seen, Node)]
    assert told[-1].properties == {"ID_REVISION": "1999"}
    assert 50 <= len(told) <= 200


async def test_an_overflow_between_two_events_lists_everything_anew(udev: Udev) -> None:
    """What is still queued is older than the listing and is thrown away."""
    watcher = Watcher()
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            udev.listed = [Device(node="/dev/video7")]
            udev.theirs.send(b"!")
            udev.tell(Device("add", node="/dev/video1"))
            await watcher.until(lambda: len(watcher.seen) == 2)
            udev.events.clear()
            udev.tell(Device("add", node="/dev/video2"))
            await watcher.until(lambda: len(watcher.seen) == 3)
            nursery.cancel_scope.cancel()
    assert watcher.resyncs == ["enobufs"]
    assert [getattr(one, "node", one) for one in watcher.seen][2] == "/dev/video2"
    listed = watcher.seen[1]
    assert isinstance(listed, Present)
    assert [node.node for node in listed.nodes] == ["/dev/video7"]


async def test_a_socket_that_fails_is_made_anew_with_growing_pauses(
    udev: Udev, autojump_clock: trio.testing.MockClock
) -> None:
    """The start does not fail, cameras are listed each time, and events come again."""
    udev.failures = [OSError(errno.EAFNOSUPPORT, "no netlink")] * 3
    udev.buffer_error = OSError(errno.EPERM, "no CAP_NET_ADMIN")
    watcher = Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        assert watcher.seen == [Present(())]
        await trio.sleep(6.5)
        assert watcher.seen == [Present(())] * 3
        await trio.sleep(1)
        assert watcher.seen == [Present(())] * 4
        udev.tell(Device("add"))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert isinstance(watcher.seen[-1], Node)
        nursery.cancel_scope.cancel()
    assert watcher.resyncs == ["poll"] * 3


async def test_a_box_without_libudev_has_no_usb_cameras_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts all the same."""

    def missing() -> Any:
        raise ImportError("no libudev")

    monkeypatch.setattr(module, "_library", missing)
    watcher = Watcher()
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            nursery.cancel_scope.cancel()
    assert watcher.seen == [Present(())]


async def test_the_real_libudev_lists_what_this_machine_has() -> None:
    """Without a fake: it starts, and each video device that it names exists."""
    pytest.importorskip("pyudev")
    watcher = Watcher()
    with fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            nursery.cancel_scope.cancel()
    listed = watcher.seen[0]
    assert isinstance(listed, Present)
    assert all(Path(node.sys_path).exists() for node in listed.nodes)


async def test_a_real_overflow_of_the_kernel_s_queue_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm while nobody reads: counted, listed anew, and the watch neither ends nor spins."""
    try:
        storm = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)
    except OSError as failure:
        pytest.skip(f"no uevent socket here: {failure}")
    with storm:
        try:
            storm.sendto(b"x", (0, UDEV_GROUP))
        except ConnectionRefusedError:  # nobody listens yet, but we may speak
            pass
        except OSError as failure:
            pytest.skip(f"may not speak on udev's group: {failure}")
        seen: list[Seen] = []
        resyncs: list[str] = []
        with fail_after(30):
            async with trio.open_nursery() as nursery:
                run = lambda task_status: watch(  # noqa: E731
                    seen.append, resyncs.append, receive_buffer=4096, task_status=task_status
                )
                await nursery.start(run)
                for _ in range(1000):
                    storm.sendto(b"x" * 1000, (0, UDEV_GROUP))
                while sum(isinstance(one, Present) for one in seen) < 2:
                    await trio.sleep(0.01)
                await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
        assert all(isinstance(one, (Present, Discovery)) for one in seen)
        assert 1 <= len(resyncs) < 10  # another storm may be about: all on this machine hear it
        assert set(resyncs) == {"enobufs"}


class Sysfs:
    """The names of video devices, as a test wants them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, tuple[str, int, bool]] = {}
        monkeypatch.setattr(module, "names", lambda: dict(self.names))


async def test_without_events_sysfs_is_looked_at(
    udev: Udev, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Each two seconds where there is no udev daemon; a device that was made again under its name is a change."""
    monkeypatch.setattr(module, "has_udevd", lambda: False)
    sysfs, watcher = Sysfs(monkeypatch), Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        await trio.sleep(60)
        assert (watcher.modes, watcher.seen) == (["polling"], [Present(())])
        for number in range(2):
            udev.listed = [Device(node="/dev/video0")]
            sysfs.names = {"video0": ("port 1", number, True)}
            await trio.sleep(2.1)
            assert len(watcher.seen) == 2 + number
        assert watcher.resyncs == ["poll"] * 2
        nursery.cancel_scope.cancel()


async def test_events_that_do_not_arrive_are_found_out(
    udev: Udev, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A container with the host's /run/udev and a network of its own; once an event comes, events count again."""
    sysfs, watcher = Sysfs(monkeypatch), Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        await trio.sleep(100)
        sysfs.names = {"video0": ("port 1", 1, True)}
        await trio.sleep(12.5)
        assert watcher.modes == ["events", "polling"]
        assert len(watcher.seen) == 2
        sysfs.names = {}
        await trio.sleep(2.1)
        assert len(watcher.seen) == 3
        udev.tell(Device("add"))
        await trio.sleep(2.1)
        assert watcher.modes == ["events", "polling", "events"]
        nursery.cancel_scope.cancel()


async def test_an_event_that_takes_its_time_is_not_a_missed_one(
    udev: Udev, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """udevd works on a new device before it tells of it."""
    sysfs, watcher = Sysfs(monkeypatch), Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        for number in range(50):
            await trio.sleep(7)
            sysfs.names = {"video0": ("port 1", number, True)}
            await trio.sleep(1.5)
            udev.tell(Device("add"))
        await trio.sleep(60)
        assert watcher.modes == ["events"]
        assert watcher.resyncs == []
        nursery.cancel_scope.cancel()


def test_the_names_of_this_machine_can_be_read() -> None:
    """Also where there is no video device at all."""
    assert all(isinstance(inode, int) for _, inode, _ in module.names().values())
