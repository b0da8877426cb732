"""Which camera is this: never a wrong one, whatever order they come in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.cameras.identity import Match, find_slot, first_free, identity_of, is_telling, judge
from edged.store.cameras import Slot

GENUINE = "7E19B2F4"
MADE_UP = "SN0001"

#: Under load an example may take any time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def webcam(port: str, serial: str = "", model: str = "046d:082d", part: str = "00.0") -> dict[str, str]:
    return {"model": model, "serial": serial, "port": port, "part": part}


def slot(number: int, identity: dict[str, str]) -> Slot:
    return Slot(number, identity, f"cam {number}", "usb")


def test_an_identity_is_read_from_udev() -> None:
    """Model, serial, port and part, from the properties that udev gives a USB camera."""
    properties = {
        "ID_VENDOR_ID": "046d",
        "ID_MODEL_ID": "082d",
        "ID_SERIAL": "046d_HD_Pro_Webcam_C920_7E19B2F4",
        "ID_SERIAL_SHORT": GENUINE,
        "ID_PATH": "pci-0000:00:14.0-usb-0:3:1.0",
        "ID_USB_INTERFACE_NUM": "00",
        "EDGED_INDEX": "0",
    }
    assert identity_of(properties, "/sys/devices/x/video4linux/video0") == webcam(
        "pci-0000:00:14.0-usb-0:3:1.0", GENUINE
    )


def test_without_udev_the_port_is_the_place_in_sysfs_and_the_model_the_product() -> None:
    """A container has no udev database; the node's number plays no part."""
    one = identity_of({"ID_V4L_PRODUCT": "vivid"}, "/sys/devices/platform/vivid.0/video4linux/video0")
    two = identity_of({"ID_V4L_PRODUCT": "vivid"}, "/sys/devices/platform/vivid.0/video4linux/video7")
    assert one == two == {"model": "vivid", "serial": "", "port": "sys:platform/vivid.0", "part": "."}


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


@pytest.mark.parametrize("change", [{"model": "1:2"}, {"serial": "91C7E2B0"}, {"part": "02.0"}])
def test_another_model_serial_or_part_is_another_camera_in_the_same_port(change: dict[str, str]) -> None:
    """A port is not an identity."""
    stored = webcam("p1", GENUINE)
    assert judge(stored | change, stored, shared=False) == "other"


def test_a_moved_camera_is_known_by_its_serial() -> None:
    """If the serial is its own."""
    stored = slot(0, webcam("p1", GENUINE))
    assert find_slot(webcam("p2", GENUINE), [stored]) == Match(stored, moved=True)


def test_a_camera_without_a_telling_serial_is_new_in_another_port() -> None:
    """Showing the wrong place would be worse than a new name."""
    for serial in ("", MADE_UP):
        assert find_slot(webcam("p2", serial), [slot(0, webcam("p1", serial))]) == Match(None)


def test_two_slots_with_one_serial_are_told_apart_by_their_ports() -> None:
    """Even a genuine-looking serial is worth nothing once two have it."""
    slots = [slot(0, webcam("p1", GENUINE)), slot(1, webcam("p2", GENUINE))]
    assert find_slot(webcam("p2", GENUINE), slots) == Match(slots[1])
    assert find_slot(webcam("p3", GENUINE), slots) == Match(None)


def test_a_twin_that_is_plugged_in_now_makes_a_serial_worthless() -> None:
    """The second of two equal cameras never takes the first one's name."""
    stored = slot(0, webcam("p1", GENUINE))
    assert find_slot(webcam("p2", GENUINE), [stored], [webcam("p1", GENUINE)]) == Match(None)


def test_two_slots_that_fit_equally_are_not_chosen_between() -> None:
    """Ambiguity is told, not guessed away."""
    slots = [slot(0, webcam("p1")), slot(1, webcam("p1"))]
    assert find_slot(webcam("p1"), slots) == Match(None, ambiguous=True)


def test_a_configured_camera_s_slot_is_never_a_device_s() -> None:
    """Its identity is its label."""
    assert find_slot(webcam("p1"), [replace(slot(0, webcam("p1")), kind="rtsp")]) == Match(None)


@PATIENT
@given(st.sets(st.integers(0, 40)))
def test_a_new_number_is_the_lowest_that_was_never_given(numbers: set[int]) -> None:
    """camera0 first, and none twice."""
    number = first_free(slot(one, {}) for one in numbers)
    assert number not in numbers
    assert all(one in numbers for one in range(number))


@dataclass(frozen=True)
class Piece:
    """A physical camera."""

    number: int
    model: str
    serial: str

    def at(self, port: str) -> dict[str, str]:
        return webcam(port, self.serial, self.model)


class Box:
    """What a registry does, in ten lines: plugs pieces in and remembers which one each slot was made for."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.owner: dict[int, Piece] = {}
        self.ports: dict[str, Piece] = {}

    def plug(self, piece: Piece, port: str) -> None:
        identity = piece.at(port)
        match = find_slot(identity, self.slots, [other.at(there) for there, other in self.ports.items()])
        self.ports[port] = piece
        assert not match.ambiguous
        if match.slot is None:
            number = first_free(self.slots)
            self.slots.append(slot(number, identity))
            self.owner[number] = piece
            return
        assert self.owner[match.slot.number] == piece, "a camera got another one's name"
        self.slots = [replace(one, identity=identity) if one == match.slot else one for one in self.slots]


SERIALS = st.sampled_from(["", MADE_UP, "200901010001", GENUINE])
MODELS = st.sampled_from(["046d:082d", "1:1"])


@PATIENT
@given(st.data())
def test_cameras_that_keep_their_ports_are_never_mistaken_whatever_their_serials(data: st.DataObject) -> None:
    """Any pieces of any models, equal ones too, in any order of plugging: with worthless serials from the very
    first time, with equal genuine-looking ones once they were plugged in together."""
    pieces = [Piece(number, data.draw(MODELS), data.draw(SERIALS)) for number in range(data.draw(st.integers(1, 5)))]
    box = Box()
    twins = [one for one in pieces if one.serial == GENUINE]
    for piece in twins:
        box.plug(piece, f"port {piece.number}")
    box.ports.clear()
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=30)):
        port = f"port {piece.number}"
        if port in box.ports:
            del box.ports[port]
        else:
            box.plug(piece, port)
    assert len(box.slots) <= len(pieces)


@PATIENT
@given(st.data())
def test_cameras_with_serials_of_their_own_keep_their_names_in_any_port(data: st.DataObject) -> None:
    """Unplugged and plugged into random free ports, none is mistaken and none gets a second name."""
    serials = ["7E19B2F4", "91C7E2B0", "A93F02C17D", "HU1829XK"]
    pieces = [Piece(number, data.draw(MODELS), serial) for number, serial in enumerate(serials)]
    box = Box()
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=30)):
        here = next((port for port, other in box.ports.items() if other == piece), None)
        if here is not None:
            del box.ports[here]
            continue
        free = [port for port in ("p1", "p2", "p3", "p4", "p5") if port not in box.ports]
        box.plug(piece, data.draw(st.sampled_from(free)))
    assert len(box.slots) == len(set(box.owner.values()))
