"""Which slot a device belongs to. Pure: udev properties → identity, identity → slot.

The rules, and why:

- A slot is bound to a *device*, not to a node: `/dev/video0` is the device that came first (contract C-8).
- Another model, another part of the device (USB interface, node index) or another serial is another camera,
  whatever port it is in.
- Same model, part, serial and port: the same camera.
- Same serial at another port: the same camera that was moved, but only if the serial can tell two cameras
  apart. Many cannot: none at all, `SN0001`, `200901010001`, the same on every piece of a model. A serial that
  looks made up, that two slots hold, or that two present devices show at once is worth nothing, and only the
  port counts.
- Nothing fits: a new camera with a slot of its own. A camera without a useful serial that is moved gets a new
  number, which costs a rename; a wrong guess would show a viewer the picture of another camera.

What stays undecidable: two pieces with the same genuine-looking serial that were never plugged in together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from edged.store.cameras import Slot

#: What an identity is made of; every member is always there, "" for unknown.
MODEL, SERIAL, PORT, PART = "model", "serial", "port", "part"

#: udev property under which `watch` hands on the sysfs attribute `index` (the node's number within its device).
INDEX_PROPERTY: Final = "EDGED_INDEX"

_FEWEST_CHARACTERS = 6
_FEWEST_DISTINCT = 4
_COUNTING = "0123456789abcdefghijklmnopqrstuvwxyz"
_RUN = 5


Verdict: TypeAlias = Literal["same", "moved", "other"]


@dataclass(frozen=True, slots=True)
class Match:
    """`slot` is this device's own, None for a device that needs a new one; `moved`: it stands in another port.

    `ambiguous`: several slots fit equally well, so none was chosen; a new one must not be made either.
    """

    slot: Slot | None
    moved: bool = False
    ambiguous: bool = False


def identity_of(properties: Mapping[str, str], sys_path: str) -> dict[str, str]:
    """What can be said about a video4linux device from its udev properties.

    `ID_PATH` is the port; without udev's database the device's place in sysfs, which says the same as long as
    the machine is not rebuilt. `sys_path`: `/sys/devices/…/1-3:1.0/video4linux/video0`.
    """
    vendor, product = properties.get("ID_VENDOR_ID", ""), properties.get("ID_MODEL_ID", "")
    model = f"{vendor}:{product}" if vendor or product else properties.get("ID_V4L_PRODUCT", "")
    port = properties.get("ID_PATH") or "sys:" + sys_path.partition("/video4linux/")[0].removeprefix("/sys/devices/")
    interface, index = properties.get("ID_USB_INTERFACE_NUM", ""), properties.get(INDEX_PROPERTY, "")
    return {
        MODEL: model,
        SERIAL: properties.get("ID_SERIAL_SHORT", ""),
        PORT: port,
        PART: f"{interface}.{index}",
    }


def is_telling(serial: str) -> bool:
    """Whether a serial looks as if it were given to one piece only: long, varied, no counting, no date."""
    text = re.sub(r"[^0-9a-z]", "", serial.lower())
    if len(text) < _FEWEST_CHARACTERS or len(set(text)) < _FEWEST_DISTINCT:
        return False
    if re.fullmatch(r"[a-z]*0*\d{1,4}", text) or re.fullmatch(r"(19|20)\d{2}(0\d|1[0-2])([0-2]\d|3[01])\d*", text):
        return False
    return re.search(r"0{4}", text) is None and not _counts(text)


def find_slot(identity: Mapping[str, str], slots: Iterable[Slot], others: Iterable[Mapping[str, str]] = ()) -> Match:
    """The slot that is this device's own.

    `slots`: every slot there is (configured cameras' are passed over); `others`: the identities of the *other*
    devices that are plugged in now.
    """
    known = [slot for slot in slots if slot.kind == "usb"]
    twins = sum(_same_kind(identity, slot.identity) for slot in known)
    shared = twins > 1 or any(_same_kind(identity, other) for other in others)
    verdicts = [(slot, judge(identity, slot.identity, shared=shared)) for slot in known]
    for wanted in ("same", "moved"):
        fitting = [slot for slot, verdict in verdicts if verdict == wanted]
        if fitting:
            return Match(fitting[0], moved=wanted == "moved") if len(fitting) == 1 else Match(None, ambiguous=True)
    return Match(None)


def judge(device: Mapping[str, str], stored: Mapping[str, str], *, shared: bool) -> Verdict:
    """Whether a device is the one a slot was made for. `shared`: its serial is known not to be its alone."""
    if not _same_kind(device, stored):
        return "other"
    if device[PORT] == stored.get(PORT):
        return "same"
    return "moved" if not shared and is_telling(device[SERIAL]) else "other"


def first_free(slots: Iterable[Slot]) -> int:
    """The number for a new camera: the lowest that no slot ever had."""
    taken = {slot.number for slot in slots}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _same_kind(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(one.get(member, "") == other.get(member, "") for member in (MODEL, SERIAL, PART))


def _counts(text: str) -> bool:
    """Whether five characters in a row count upwards or downwards (12345, edcba)."""
    runs = (text[at : at + _RUN] for at in range(len(text) - _RUN + 1))
    return any(run in _COUNTING or run[::-1] in _COUNTING for run in runs)
