"""Cameras that are described, by a `[[camera]]` of the settings or by a call, and which slot belongs to which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from edged.config.model import CameraSettings
from edged.config.sources import KINDS, SourceKind, identify
from edged.store.cameras import Slot, SlotKind

#: The keys of the identity of a described camera's slot: the operator's id, and the digest of its source.
ID, SOURCE = "id", "source"

_BETWEEN = re.compile(r",(?=[A-Z][A-Z0-9_]*=)")


class CameraEntry(msgspec.Struct, frozen=True):
    """One `[[camera]]` of the settings, or one camera that a call has added.

    `place`: file and line of the `[[camera]]`; `stand_in`: the device file that a test picture can be asked for by.
    Of an added camera `number` is its slot (None for a new one) and `address` the literal address that its host name
    stands for, "" while it has none that is allowed.
    """

    settings: CameraSettings
    place: str = ""
    number: int | None = None
    address: str = ""
    stand_in: str = ""

    @property
    def kind(self) -> SourceKind:
        """What sort of source this is."""
        return self.settings.kind

    @property
    def slot_kind(self) -> SlotKind:
        """As its slot is stored. Of described cameras only test pictures are told from the others there, which all have
        the word of the first kind that there was: a slot does not change with the source of its camera."""
        return self.kind if self.kind in ("usb", "test") else "rtsp"

    @property
    def is_known_by_label(self) -> bool:
        """Whether all sources of its kind are the same text, so that its name or id tells it from others."""
        return len(KINDS[self.kind].words) == 1

    @property
    def always_on(self) -> bool:
        """Whether it is published while nobody watches."""
        return self.settings.is_always_on

    @property
    def identity(self) -> dict[str, str]:
        """What its slot is found by: the id first, then the source without its credentials."""
        own = {ID: self.settings.id} if self.settings.id else {}
        return own if self.kind == "usb" else {**own, SOURCE: identify(self.settings.source)}

    @property
    def match(self) -> tuple[tuple[str, str], ...]:
        """The udev match of a USB camera as (property, glob) pairs."""
        pairs = [part.partition("=") for part in _BETWEEN.split(self.settings.source)]
        return tuple((name, glob) for name, _, glob in pairs)

    def fits(self, properties: Mapping[str, str]) -> bool:
        """Whether the udev match fits a device with these udev properties."""
        return all(fnmatchcase(properties.get(name, ""), glob) for name, glob in self.match)


def recognise(wanted: Sequence[CameraEntry], slots: Iterable[Slot]) -> list[Slot | None]:
    """The slot of each camera, None for a camera that is new. `slots`: those that may be taken; USB ones are skipped.

    By the operator's id; else by the source, unless the slot has another id; else, for a slot that was stored without
    an identity, by the label. All test pictures have the same source, and all cameras that somebody publishes: the
    label distinguishes them, and where one test picture and one slot of one are left it was renamed.
    """
    free = [slot for slot in slots if slot.kind != "usb"]
    found: list[Slot | None] = [None] * len(wanted)

    def take(at: int, slot: Slot | None) -> None:
        if slot is not None:
            found[at] = slot
            free.remove(slot)

    def left() -> list[tuple[int, CameraEntry]]:
        return [(at, one) for at, one in enumerate(wanted) if found[at] is None]

    for at, one in left():
        if one.settings.id:
            take(at, next((slot for slot in free if slot.identity.get(ID) == one.settings.id), None))
    for is_named in (True, False):
        for at, one in left():
            same = [
                slot for slot in free if _has_source(slot, one) and (slot.label == one.settings.name or not is_named)
            ]
            if is_named or not one.is_known_by_label:
                take(at, same[0] if same else None)
    for at, one in left():
        take(at, next((slot for slot in free if not slot.identity and slot.label == one.settings.name), None))
    tests = [(at, one) for at, one in left() if one.kind == "test"]
    if len(tests) == 1:
        ((at, one),) = tests
        same = [slot for slot in free if _has_source(slot, one)]
        take(at, same[0] if len(same) == 1 else None)
    return found


def _has_source(slot: Slot, one: CameraEntry) -> bool:
    if slot.identity.get(SOURCE) != one.identity[SOURCE]:
        return False
    return not one.settings.id or slot.identity.get(ID, one.settings.id) == one.settings.id
