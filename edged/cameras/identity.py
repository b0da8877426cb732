"""Which stored camera a device is. Pure: udev properties → record, records → decision.

A decision is a score of every stored camera and one sentence that explains it. The rules, and why:

- A camera is a *device*, not a node: `/dev/video0` is the device that came first (contract C-8).
- Another model or another serial is another camera, whatever port it is in.
- Same model, serial and port: the same camera. Two pieces with one serial, or none, are told apart by their ports.
- Same serial at another port: the same camera that was moved, but only if the serial can tell two cameras apart. Many
  cannot: none at all, `SN0001`, `200901010001`, the same on every piece of a model. A serial that looks made up, that
  two cameras hold, or that two present devices show at once is worth nothing.
- It may be a stored camera that is away, and may be a piece that was never seen: it waits, and a person says which it
  is. A wrong guess would show a viewer the picture of another camera.
- It can be none that is stored: a new camera with a number of its own.

What stays undecidable: two pieces with the same genuine-looking serial that were never plugged in together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

from edged.store.cameras import Slot

#: The members of a record, all text, "" for unknown: USB vendor and product (hexadecimal), what the device calls
#: itself, serial, port (the USB port without the interface), USB interface, the node's number within the device, udev's
#: ID_PATH, the kernel's driver.
VENDOR, PRODUCT, MODEL, SERIAL, PORT = "vendor", "product", "model", "serial", "port"
INTERFACE, INDEX, PATH, DRIVER = "interface", "index", "path", "driver"
#: What udev says of one device, by these members.
Record: TypeAlias = Mapping[str, str]

#: udev property under which `watch` hands on the sysfs attribute `index` (the node's number within its device).
INDEX_PROPERTY: Final = "EDGED_INDEX"

_FEWEST_CHARACTERS = 6
_FEWEST_DISTINCT = 4
_COUNTING = "0123456789abcdefghijklmnopqrstuvwxyz"
_RUN = 5


class Score(IntEnum):
    """How well a device fits a stored camera; only the two best are a binding."""

    OTHER = 0
    MAYBE = 1
    MOVED = 2
    SAME = 3


class Present(msgspec.Struct, frozen=True):
    """Another device that is plugged in now; `slot` is the number of the camera that it is, None for not known yet."""

    record: Record
    slot: int | None = None


class Decision(msgspec.Struct, frozen=True):
    """`slot` is the camera that a device is, None for a new one, or while it waits. `reason`: why, in one sentence.

    `waits`: nobody can tell, and a person must; `candidates` are the numbers of the cameras that it may be.
    """

    slot: Slot | None
    reason: str
    waits: bool = False
    candidates: tuple[int, ...] = ()


def record_of(properties: Mapping[str, str], sys_path: str) -> dict[str, str]:
    """What can be said about a video4linux device from its udev properties.

    `ID_PATH` is the port; without udev's database the device's place in sysfs, which says the same as long as the
    machine is not rebuilt. `sys_path`: `/sys/devices/…/1-3/1-3:1.0/video4linux/video0`.
    """
    place, interface = _split_interface(sys_path)
    path = properties.get("ID_PATH", "")
    return {
        VENDOR: properties.get("ID_VENDOR_ID", ""),
        PRODUCT: properties.get("ID_MODEL_ID", ""),
        MODEL: properties.get("ID_V4L_PRODUCT", ""),
        SERIAL: properties.get("ID_SERIAL_SHORT", ""),
        PORT: _usb_port(path) if path else "sys:" + place.removeprefix("/sys/devices/"),
        INTERFACE: properties.get("ID_USB_INTERFACE_NUM", interface),
        INDEX: properties.get(INDEX_PROPERTY, ""),
        PATH: path,
        DRIVER: properties.get("ID_USB_DRIVER", ""),
    }


def device_of(sys_path: str) -> str:
    """What the nodes of one physical device have in common: the USB device's place in sysfs.

    Any other node is a device of its own: a capture card has one for each of its inputs.
    """
    place, interface = _split_interface(sys_path)
    return place if interface else sys_path


def is_telling(serial: str) -> bool:
    """Whether a serial looks as if it were given to one piece only: long, varied, no counting, no date."""
    text = re.sub(r"[^0-9a-z]", "", serial.lower())
    if len(text) < _FEWEST_CHARACTERS or len(set(text)) < _FEWEST_DISTINCT:
        return False
    if re.fullmatch(r"[a-z]*0*\d{1,4}", text) or re.fullmatch(r"(19|20)\d{2}(0\d|1[0-2])([0-2]\d|3[01])\d*", text):
        return False
    return re.search(r"0{4}", text) is None and not _counts(text)


def decide(
    record: Record,
    slots: Iterable[Slot],
    others: Iterable[Present] = (),
    *,
    held: int | None = None,
    parts: Collection[tuple[str, str]] = (),
) -> Decision:
    """Which camera a device is.

    `slots`: all that are stored (those of described and of removed cameras are passed over); `others`: the nodes of
    *other* devices that are plugged in now; `held`: the number of the camera that this device is already; `parts`:
    interface and index of this device's other nodes that are cameras: one that is stored for them is not this node.
    """
    present = list(others)
    known = [slot for slot in slots if slot.kind == "usb" and not slot.is_retired]
    shared = is_shared(record, known, present)
    taken = {one.slot for one in present if one.slot is not None}
    bound = taken - {held}
    taken |= {slot.number for slot in known if any(score(one.record, slot.identity) is Score.SAME for one in present)}
    taken -= {held}
    scores = {
        slot.number: score(record, slot.identity, is_shared=shared)
        for slot in known
        if (slot.identity.get(INTERFACE, ""), slot.identity.get(INDEX, "")) not in parts
    }
    fitting = [slot for slot in known if scores.get(slot.number, Score.OTHER) > Score.MAYBE]
    free = [slot for slot in fitting if slot.number not in taken]
    best = max((_rank(record, slot, scores) for slot in free), default=None)
    chosen = [slot for slot in free if _rank(record, slot, scores) == best]
    if len(chosen) == 1:
        return Decision(chosen[0], _explain(record, chosen[0], scores[chosen[0].number], is_shared=shared))
    if not chosen and held is not None and scores.get(held) is Score.MAYBE:
        # It has not been unplugged meanwhile: what it says of itself cannot be read just now.
        (same,) = (slot for slot in known if slot.number == held)
        return Decision(same, same.binding)
    if chosen:
        numbers = tuple(slot.number for slot in chosen)
        return Decision(None, f"{_name_all(chosen)} are stored with the same port and serial", True, numbers)
    if twins := [slot for slot in fitting if scores[slot.number] is Score.SAME]:
        reason = f"another device that is plugged in looks just the same, and either may be {_name_all(twins)}"
        return Decision(None, reason, True, tuple(slot.number for slot in twins if slot.number not in bound))
    maybe = [slot for slot in known if scores.get(slot.number, Score.OTHER) is Score.MAYBE and slot.number not in taken]
    if maybe:
        return Decision(None, _explain_doubt(record, maybe, is_shared=shared), True, tuple(one.number for one in maybe))
    return Decision(None, _explain_new(record, known, is_shared=shared))


def find_part(record: Record, slots: Iterable[Slot]) -> Slot | None:
    """The camera that was stored for exactly this node of a device of which other nodes were cameras, too."""
    same = [slot for slot in slots if slot.kind == "usb" and score(record, slot.identity) is Score.SAME]
    exact = [slot for slot in same if _part(slot.identity) == _part(record)]
    return exact[0] if exact and len(same) > 1 else None


def is_shared(record: Record, slots: Iterable[Slot], others: Iterable[Present]) -> bool:
    """Whether a serial is known not to be one piece's alone: two stored cameras, or two present devices, have it."""
    stored = {slot.identity.get(PORT) for slot in slots if _has_serial_of(record, slot.identity)}
    present = {one.record.get(PORT) for one in others if _has_serial_of(record, one.record)}
    return len(stored) > 1 or bool(present - {record[PORT]})


def score(device: Record, stored: Record, *, is_shared: bool = True) -> Score:
    """How well a device fits a stored camera. `is_shared`: its serial is known not to be its alone."""
    if not _is_same_model(device, stored):
        return Score.OTHER
    serial, known = device[SERIAL], stored.get(SERIAL, "")
    if serial and known and serial != known:
        return Score.OTHER
    if device[PORT] == stored.get(PORT):
        # A serial that could not be read this time is no proof, and no proof of another piece either.
        return Score.SAME if serial == known else Score.MAYBE
    if serial != known:
        return Score.OTHER
    return Score.MOVED if not is_shared and is_telling(serial) else Score.MAYBE


def first_free(slots: Iterable[Slot]) -> int:
    """The number for a new camera: the lowest that no slot ever had."""
    taken = {slot.number for slot in slots}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _split_interface(sys_path: str) -> tuple[str, str]:
    """A node's place in sysfs without the USB interface, and its number as udev writes it; "" for another bus."""
    place = sys_path.partition("/video4linux/")[0]
    above, _, last = place.rpartition("/")
    device, _, tail = last.rpartition(":")
    number = tail.rpartition(".")[2]
    if "-" in device and number.isascii() and number.isdecimal() and len(number) < 4:
        return above, f"{int(number):02x}"
    return place, ""


def _usb_port(path: str) -> str:
    """`pci-0000:00:14.0-usb-0:3:1.0` → `pci-0000:00:14.0-usb-0:3`; of another bus the path itself."""
    head, _, tail = path.rpartition(":")
    is_interface = tail.replace(".", "", 1).isdecimal() and "." in tail
    return head if is_interface and ":" in head.rpartition("-usb")[2] and "-usb" in head else path


def _is_same_model(one: Record, other: Record) -> bool:
    if one[VENDOR] or one[PRODUCT]:
        return all(one[member] == other.get(member, "") for member in (VENDOR, PRODUCT))
    return not other.get(VENDOR) and one[MODEL] == other.get(MODEL, "") and _part(one) == _part(other)


def _has_serial_of(record: Record, other: Record) -> bool:
    return _is_same_model(record, other) and record[SERIAL] == other.get(SERIAL, "")


def _part(record: Record) -> tuple[str, str]:
    return record.get(INTERFACE, ""), record.get(INDEX, "")


def _rank(record: Record, slot: Slot, scores: Mapping[int, Score]) -> tuple[Score, bool]:
    """Of two cameras that were stored for nodes of one device, that for this node goes first."""
    return scores[slot.number], _part(record) == _part(slot.identity)


def _counts(text: str) -> bool:
    """Whether five characters in a row count upwards or downwards (12345, edcba)."""
    runs = (text[at : at + _RUN] for at in range(len(text) - _RUN + 1))
    return any(run in _COUNTING or run[::-1] in _COUNTING for run in runs)


# --- why, in one sentence ---


def _explain(record: Record, slot: Slot, how: Score, *, is_shared: bool) -> str:
    serial = record[SERIAL]
    if how is Score.MOVED:
        return (
            f"no other camera has its serial {serial}, so it was moved from {slot.identity.get(PORT, '')}"
            f" to {record[PORT]}"
        )
    if serial and is_shared:
        return f"another camera has its serial {serial}, too: its port {record[PORT]} tells them apart"
    if serial:
        return f"its serial {serial} and its port {record[PORT]} are those of before"
    return f"it has no serial, and is the model that was in its port {record[PORT]} before"


def _explain_doubt(record: Record, maybe: list[Slot], *, is_shared: bool) -> str:
    serial = record[SERIAL]
    names = _name_all(maybe)
    which = f"{names}, which is away" if len(maybe) == 1 else f"one of {names}, which are away"
    if any(slot.identity.get(PORT) == record[PORT] for slot in maybe):
        why = f"its port {record[PORT]} is the same, but only one of them shows a serial"
    elif not serial:
        why = f"it has no serial, and its port {record[PORT]} is another"
    elif is_shared:
        why = f"more than one piece has its serial {serial}, and its port {record[PORT]} is another"
    else:
        why = f"its serial {serial} does not look like one piece's own, and its port {record[PORT]} is another"
    return f"it may be {which}, or a new one: {why}"


def _explain_new(record: Record, known: list[Slot], *, is_shared: bool) -> str:
    alike = [slot for slot in known if _is_same_model(record, slot.identity)]
    if not alike:
        return "no camera of its model was known"
    if record[SERIAL] and not is_shared:
        return f"no camera with its serial {record[SERIAL]} was known"
    return f"no camera of its model is away, and its port {record[PORT]} was new"


def _name_all(slots: Iterable[Slot]) -> str:
    return " and ".join(f"{slot.name} ({slot.label})" for slot in slots)
