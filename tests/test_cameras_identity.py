"""Which camera is this: never a wrong one, whatever order they come in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.cameras.identity import (
    Decision,
    Present,
    Score,
    decide,
    device_of,
    find_part,
    first_free,
    is_telling,
    record_of,
    score,
)
from edged.store import cameras
from edged.store.cameras import Slot
from edged.store.migrating import migrate
from edged.store.migrations import TRUST

GENUINE = "7E19B2F4"
MADE_UP = "SN0001"

#: Under load an example may take any time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def webcam(port: str, serial: str = "", product: str = "082d", interface: str = "00") -> dict[str, str]:
    return {
        "vendor": "046d", "product": product, "model": "C920", "serial": serial, "port": port, "interface": interface,
        "index": "0", "path": f"{port}:1.0", "driver": "uvcvideo",
    }  # fmt: skip


def slot(number: int, identity: dict[str, str]) -> Slot:
    return Slot(number, identity, f"cam {number}", "usb")


USB_PATH = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3.2/1-3.2:1.2/video4linux/video0"


def test_a_record_is_read_from_udev() -> None:
    """Vendor, product, serial, port without the interface, interface, ID_PATH and driver, as udev gives them."""
    properties = {
        "ID_VENDOR_ID": "046d",
        "ID_MODEL_ID": "082d",
        "ID_SERIAL": "046d_HD_Pro_Webcam_C920_7E19B2F4",
        "ID_SERIAL_SHORT": GENUINE,
        "ID_PATH": "pci-0000:00:14.0-usb-0:3.2:1.0",
        "ID_USB_INTERFACE_NUM": "00",
        "ID_USB_DRIVER": "uvcvideo",
        "ID_V4L_PRODUCT": "C920",
        "EDGED_INDEX": "0",
    }
    assert record_of(properties, USB_PATH) == webcam("pci-0000:00:14.0-usb-0:3.2", GENUINE) | {
        "path": "pci-0000:00:14.0-usb-0:3.2:1.0"
    }


def test_without_udev_the_port_is_the_place_in_sysfs_and_the_model_the_product() -> None:
    """A container has no udev database; the node's number plays no part."""
    one = record_of({"ID_V4L_PRODUCT": "vivid"}, "/sys/devices/platform/vivid.0/video4linux/video0")
    two = record_of({"ID_V4L_PRODUCT": "vivid"}, "/sys/devices/platform/vivid.0/video4linux/video7")
    assert one == two
    assert (one["model"], one["port"], one["interface"]) == ("vivid", "sys:platform/vivid.0", "")
    usb = record_of({}, USB_PATH)
    assert (usb["port"], usb["interface"]) == ("sys:pci0000:00/0000:00:14.0/usb1/1-3/1-3.2", "02")


def test_the_nodes_of_a_usb_device_belong_together_and_others_do_not() -> None:
    """A capture card has a node for each of its inputs: each is a camera."""
    other = USB_PATH.replace("1-3.2:1.2", "1-3.2:1.0").replace("video0", "video4")
    assert device_of(USB_PATH) == device_of(other)
    assert device_of(USB_PATH) != device_of(USB_PATH.replace("1-3.2", "1-3.3"))
    card = "/sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/video4linux/video"
    assert device_of(card + "0") != device_of(card + "1")


@pytest.mark.parametrize(
    ("path", "port"),
    [
        ("pci-0000:00:14.0-usb-0:3:1.0", "pci-0000:00:14.0-usb-0:3"),
        ("platform-fd500000.pcie-usb-0:1.2.4:1.10", "platform-fd500000.pcie-usb-0:1.2.4"),
        ("pci-0000:00:14.0-usbv2-0:3:1.0", "pci-0000:00:14.0-usbv2-0:3"),
        ("pci-0000:00:14.0", "pci-0000:00:14.0"),
        ("pci-0000:00:14.0-usb-0:3", "pci-0000:00:14.0-usb-0:3"),
        ("usb-1", "usb-1"),
        ("platform-vivid.0", "platform-vivid.0"),
        (":::", ":::"),
    ],
)  # fmt: skip
def test_a_port_is_the_path_without_the_usb_interface(path: str, port: str) -> None:
    """All nodes of a device are in one port; what is no such path is the port itself."""
    assert record_of({"ID_PATH": path}, USB_PATH)["port"] == port


@pytest.mark.parametrize("serial", [GENUINE, "A93F02C17D", "2F-77-1B-9C", "HU1829XK", "00e04c680a1f"])
def test_a_long_varied_serial_tells_pieces_apart(serial: str) -> None:
    """It was given to one piece only."""
    assert is_telling(serial)


@pytest.mark.parametrize(
    "serial", ["", "SN0001", "0", "200901010001", "20190325", "01.00.00", "123456789", "ABCDEFGH", "987654", "AAAABBBB"]
)
def test_a_serial_that_a_factory_made_up_tells_nothing(serial: str) -> None:
    """Many cameras carry the same one."""
    assert not is_telling(serial)


@pytest.mark.parametrize("change", [{"vendor": "1"}, {"product": "2"}, {"serial": "91C7E2B0"}])
def test_another_model_or_serial_is_another_camera_in_the_same_port(change: dict[str, str]) -> None:
    """A port is not an identity."""
    stored = webcam("p1", GENUINE)
    assert score(stored | change, stored, is_shared=False) is Score.OTHER
    decision = decide(stored | change, [slot(0, stored)])
    assert (decision.slot, decision.waits) == (None, False)


def test_a_moved_camera_is_known_by_its_serial() -> None:
    """If the serial is its own; the sentence names both ports."""
    stored = slot(0, webcam("p1", GENUINE))
    found = decide(webcam("p2", GENUINE), [stored])
    assert found == Decision(stored, f"no other camera has its serial {GENUINE}, so it was moved from p1 to p2")


@pytest.mark.parametrize(
    ("serial", "why"),
    [
        ("", "it has no serial, and its port p2 is another"),
        (MADE_UP, "its serial SN0001 does not look like one piece's own, and its port p2 is another"),
    ],
)
def test_a_camera_without_a_telling_serial_waits_in_another_port(serial: str, why: str) -> None:
    """It may be the one that is away, or a new one: a person says which."""
    found = decide(webcam("p2", serial), [slot(0, webcam("p1", serial))])
    assert found == Decision(None, f"it may be camera0 (cam 0), which is away, or a new one: {why}", True, (0,))


def test_a_camera_is_new_where_none_that_could_be_it_is_away() -> None:
    """The only one of its model is plugged in."""
    found = decide(webcam("p2"), [slot(0, webcam("p1"))], [Present(webcam("p1"), 0)])
    assert (found.slot, found.waits) == (None, False)
    assert found == decide(webcam("p2"), [slot(0, webcam("p1"))], [Present(webcam("p1"))])  # not recognised yet


def test_two_cameras_with_one_serial_are_told_apart_by_their_ports() -> None:
    """Even a genuine-looking serial is worth nothing once two have it; in a third port it may be either."""
    slots = [slot(0, webcam("p1", GENUINE)), slot(1, webcam("p2", GENUINE))]
    found = decide(webcam("p2", GENUINE), slots)
    assert found == Decision(slots[1], f"another camera has its serial {GENUINE}, too: its port p2 tells them apart")
    third = decide(webcam("p3", GENUINE), slots)
    assert (third.slot, third.waits, third.candidates) == (None, True, (0, 1))
    assert "one of camera0 (cam 0) and camera1 (cam 1), which are away" in third.reason
    left = decide(webcam("p3", GENUINE), slots, [Present(webcam("p2", GENUINE), 1)])
    assert (left.waits, left.candidates) == (True, (0,))


def test_a_twin_that_is_plugged_in_now_makes_a_serial_worthless() -> None:
    """The second of two equal cameras never takes the first one's name."""
    stored = slot(0, webcam("p1", GENUINE))
    found = decide(webcam("p2", GENUINE), [stored], [Present(webcam("p1", GENUINE), 0)])
    assert (found.slot, found.waits) == (None, False)


def test_a_serial_that_could_not_be_read_is_a_reason_to_ask() -> None:
    """In the same port it is the same piece, or another one."""
    for device, stored in ((webcam("p1"), webcam("p1", GENUINE)), (webcam("p1", GENUINE), webcam("p1"))):
        found = decide(device, [slot(0, stored)])
        assert (found.slot, found.waits, found.candidates) == (None, True, (0,))
    assert not decide(webcam("p2"), [slot(0, webcam("p1", GENUINE))]).waits


def test_two_cameras_that_fit_equally_are_not_chosen_between() -> None:
    """Ambiguity is told, not guessed away."""
    slots = [slot(0, webcam("p1")), slot(1, webcam("p1"))]
    found = decide(webcam("p1"), slots)
    assert (found.slot, found.waits, found.candidates) == (None, True, (0, 1))


def test_of_two_devices_that_look_the_same_one_keeps_its_name_and_the_other_waits() -> None:
    """Two loopback devices of one name, say: where none has it yet, both wait."""
    stored = slot(0, webcam("p1"))
    assert decide(webcam("p1"), [stored], [Present(webcam("p1"))], held=0).slot == stored
    second = decide(webcam("p1"), [stored], [Present(webcam("p1"), 0)])
    assert (second.slot, second.waits, second.candidates) == (None, True, ())
    either = decide(webcam("p1"), [stored], [Present(webcam("p1"))])
    assert (either.slot, either.waits, either.candidates) == (None, True, (0,))


def test_a_described_and_a_removed_camera_are_never_a_device_s() -> None:
    """The one is known by its source, the other by nothing."""
    for other in (replace(slot(0, webcam("p1")), kind="rtsp"), slot(0, {})):
        found = decide(webcam("p1"), [other])
        assert (found.slot, found.waits) == (None, False)


def test_a_further_node_is_a_camera_only_if_it_was_one_before() -> None:
    """Of two stored cameras of one device each is its own node."""
    colour, infrared = webcam("p1", GENUINE), webcam("p1", GENUINE, interface="02")
    slots = [slot(0, colour), slot(1, infrared)]
    assert find_part(infrared, slots) == slots[1]
    assert find_part(infrared, slots[1:]) is None
    assert decide(colour, slots, parts=[("02", "0")]).slot == slots[0]
    assert decide(colour, slots[1:]).slot == slots[1]


@PATIENT
@given(st.sets(st.integers(0, 40)))
def test_a_new_number_is_the_lowest_that_was_never_given(numbers: set[int]) -> None:
    """camera0 first, and none twice."""
    number = first_free(slot(one, {}) for one in numbers)
    assert number not in numbers
    assert all(one in numbers for one in range(number))


@PATIENT
@given(
    st.dictionaries(st.sampled_from(["ID_PATH", "ID_SERIAL_SHORT", "ID_VENDOR_ID", "EDGED_INDEX"]), st.text()),
    st.text(),
)
def test_whatever_a_device_calls_itself_makes_a_record(properties: dict[str, str], sys_path: str) -> None:
    """And a decision with a sentence; a device is the camera that was stored for it."""
    record = record_of(properties, sys_path)
    assert all(isinstance(value, str) for value in record.values())
    assert device_of(sys_path) is not None
    stored = slot(3, record)
    found = decide(record, [stored])
    assert found.slot == stored
    assert found.reason


@dataclass(frozen=True)
class Piece:
    """A physical camera."""

    number: int
    product: str
    serial: str

    def at(self, port: str) -> dict[str, str]:
        return webcam(port, self.serial, self.product)


class Box:
    """What the daemon does, in a few lines: plugs pieces in and remembers which one each camera was made for."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.owner: dict[int, Piece] = {}
        self.ports: dict[str, Piece] = {}
        self.bound: dict[str, int] = {}

    def plug(self, piece: Piece, port: str) -> None:
        self.ports[port] = piece
        self.judge()

    def unplug(self, port: str) -> None:
        del self.ports[port]
        self.bound.pop(port, None)

    def judge(self) -> None:
        """Until nothing changes: each decision may end the waiting of another device."""
        while any(self._judge(port) for port in self.ports if port not in self.bound):
            pass

    def _judge(self, port: str) -> bool:
        piece = self.ports[port]
        others = [Present(other.at(at), self.bound.get(at)) for at, other in self.ports.items() if at != port]
        decision = decide(piece.at(port), self.slots, others)
        assert decision.reason
        if decision.waits:
            assert decision.slot is None
            return False
        chosen = decision.slot
        if chosen is None:
            number = first_free(self.slots)
            self.slots.append(slot(number, piece.at(port)))
            self.owner[number] = piece
        else:
            number = chosen.number
            assert self.owner[number] == piece, "a camera got another one's name"
            assert number not in self.bound.values()
            self.slots = [replace(one, identity=piece.at(port)) if one == chosen else one for one in self.slots]
        self.bound[port] = number
        return True


SERIALS = st.sampled_from(["", MADE_UP, "200901010001", GENUINE])
PRODUCTS = st.sampled_from(["082d", "0001"])


@PATIENT
@given(st.data())
def test_cameras_that_keep_their_ports_are_never_mistaken_whatever_their_serials(data: st.DataObject) -> None:
    """Any pieces of any models, equal ones too, in any order of plugging: with worthless serials from the very
    first time, with equal genuine-looking ones once they were plugged in together. Nothing waits once all are there."""
    pieces = [Piece(number, data.draw(PRODUCTS), data.draw(SERIALS)) for number in range(data.draw(st.integers(1, 5)))]
    box = Box()
    twins = [one for one in pieces if one.serial == GENUINE]
    for piece in twins:
        box.plug(piece, f"port {piece.number}")
    for piece in twins:
        box.unplug(f"port {piece.number}")
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=30)):
        port = f"port {piece.number}"
        if port in box.ports:
            box.unplug(port)
        else:
            box.plug(piece, port)
    assert len(box.slots) <= len(pieces)
    for piece in pieces:
        if f"port {piece.number}" not in box.ports:
            box.plug(piece, f"port {piece.number}")
    assert len(box.bound) == len(box.slots) == len(pieces)


@PATIENT
@given(st.data())
def test_cameras_with_serials_of_their_own_keep_their_names_in_any_port(data: st.DataObject) -> None:
    """Unplugged and plugged into random free ports, none is mistaken, none waits and none gets a second name."""
    serials = ["7E19B2F4", "91C7E2B0", "A93F02C17D", "HU1829XK"]
    pieces = [Piece(number, data.draw(PRODUCTS), serial) for number, serial in enumerate(serials)]
    box = Box()
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=30)):
        here = next((port for port, other in box.ports.items() if other == piece), None)
        if here is not None:
            box.unplug(here)
            continue
        free = [port for port in ("p1", "p2", "p3", "p4", "p5") if port not in box.ports]
        box.plug(piece, data.draw(st.sampled_from(free)))
        assert len(box.bound) == len(box.ports)
    assert len(box.slots) == len(set(box.owner.values()))


@PATIENT
@given(st.data())
def test_equal_cameras_that_are_moved_wait_and_are_never_mistaken(data: st.DataObject) -> None:
    """Pieces without a useful serial in random ports: whatever is bound in a port that was never another piece's is
    the piece that the camera was made for."""
    pieces = [Piece(number, "082d", data.draw(st.sampled_from(["", MADE_UP]))) for number in range(3)]
    box = Box()
    ports = iter(range(1000))
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=20)):
        here = next((port for port, other in box.ports.items() if other == piece), None)
        if here is not None:
            box.unplug(here)
        else:
            box.plug(piece, f"p{next(ports)}")


# --- what earlier versions stored ---


@pytest.fixture
def old() -> Iterator[sqlite3.Connection]:
    """A trust.db before there were records."""
    before = next(number for number, step in enumerate(TRUST) if any("binding" in each for each in step))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, TRUST[:before])
        yield connection


def store_old(connection: sqlite3.Connection, number: int, identity: str, kind: str = "usb") -> None:
    connection.execute("INSERT INTO cameras VALUES (?, ?, ?, ?, '')", (number, identity, f"cam {number}", kind))


def test_a_camera_of_an_earlier_version_keeps_its_number(old: sqlite3.Connection) -> None:
    """Its identity becomes a record that the device itself fits; the operator's id stays."""
    properties = {
        "ID_VENDOR_ID": "046d", "ID_MODEL_ID": "082d", "ID_SERIAL_SHORT": GENUINE, "EDGED_INDEX": "0",
        "ID_PATH": "pci-0000:00:14.0-usb-0:3.2:1.0", "ID_USB_INTERFACE_NUM": "00",
    }  # fmt: skip
    store_old(
        old, 4, '{"id": "front", "model": "046d:082d", "serial": "7E19B2F4",'
        ' "port": "pci-0000:00:14.0-usb-0:3.2:1.0", "part": "00.0"}',
    )  # fmt: skip
    migrate(old, TRUST)
    (stored,) = cameras.load(old)
    assert stored.identity == record_of(properties, USB_PATH) | {"id": "front"}
    assert decide(record_of(properties, USB_PATH), [stored]).slot == stored


def test_cameras_without_udev_and_other_slots_keep_theirs(old: sqlite3.Connection) -> None:
    """Known by their place in sysfs; a removed camera, and those that are described, are as they were."""
    place = "sys:pci0000:00/0000:00:14.0/usb1/1-3/1-3.2"
    store_old(old, 0, f'{{"model": "a: b", "serial": "", "port": "{place}/1-3.2:1.2", "part": ".0"}}')
    store_old(old, 1, '{"model": "vivid", "serial": "", "port": "sys:platform/vivid.0", "part": ".0"}')
    store_old(old, 2, '{"model": "046d:082d", "serial": "x", "port": "pci-0000:01:00.0", "part": "."}')
    store_old(old, 3, "{}")
    store_old(old, 4, '{"source": "abc"}', "rtsp")
    migrate(old, TRUST)
    stored = cameras.load(old)
    assert [one.identity.get("port") for one in stored] == [
        place, "sys:platform/vivid.0", "pci-0000:01:00.0", None, None,
    ]  # fmt: skip
    assert [one.identity.get("model") for one in stored] == ["a: b", "vivid", "", None, None]
    assert stored[2].identity["path"] == "pci-0000:01:00.0"
    assert stored[3].is_retired
    assert stored[4].identity == {"source": "abc"}
    vivid = record_of(
        {"ID_V4L_PRODUCT": "vivid", "EDGED_INDEX": "0"}, "/sys/devices/platform/vivid.0/video4linux/video3"
    )
    assert decide(vivid, stored).slot == stored[1]


def test_a_folder_of_today_has_no_old_identity(tmp_path: Path) -> None:
    """Nothing is changed in a new file."""
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as connection:
        migrate(connection, TRUST)
        cameras.save(connection, Slot(0, webcam("p1"), "cam", "usb", binding="because"))
        migrate(connection, TRUST)
        assert cameras.load(connection) == [Slot(0, webcam("p1"), "cam", "usb", binding="because")]
