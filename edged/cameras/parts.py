"""The nodes of one physical device, and which of them is its camera. Pure, but for what it holds.

A UVC camera has a node for metadata beside that for pictures, and may have more: infrared, depth, the same picture in
another format. It is one camera all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from edged.cameras.identity import INDEX, INDEX_PROPERTY, INTERFACE
from edged.cameras.probe import Probe
from edged.cameras.watch import Node

#: Formats without colour: what infrared and depth sensors deliver.
_COLOURLESS: Final = frozenset(
    {"GREY", "Y8I", "Y10", "Y12", "Y12I", "Y14", "Y16", "Y16-BE", "Y16 -BE", "Y6", "Y4", "Z16", "INZI", "INVZ", "CNF4"}
)


class Part(msgspec.Struct, eq=False):
    """One node of a device, as udev tells it, and what it answered last.

    `record` is what can be said of it (cameras.identity); `slot` the number of the camera that it is; `problem` why it
    did not answer; `is_asked`: it answered since udev last spoke of it. `waits` says why nobody can tell which camera
    it is, and `candidates` which it may be. `why_not` says why it is no camera of its own, `quarantine` why its port is
    left alone.
    """

    node: Node
    record: dict[str, str]
    found: Probe | None = None
    problem: str = ""
    is_asked: bool = False
    slot: int | None = None
    waits: str = ""
    candidates: tuple[int, ...] = ()
    why_not: str = ""
    quarantine: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Interface and index: which node of its device this is."""
        return self.record[INTERFACE], self.record[INDEX]

    @property
    def gives_pictures(self) -> bool:
        """Whether it is a camera by itself, or, while it does not answer, surely would be one."""
        if self.found is not None:
            return self.found.is_camera
        return bool(self.problem) and is_surely_a_camera(self.node.properties)

    @property
    def is_colourless(self) -> bool:
        """Whether it delivers infrared or depth only."""
        found = self.found
        return found is not None and bool(found.modes) and all(one.pixel_format in _COLOURLESS for one in found.modes)


def choose_first(parts: Iterable[Part]) -> Part | None:
    """The node that is the device's camera: with colour before one without, then by interface and index."""
    able = [part for part in parts if part.gives_pictures]
    return min(able, key=_order, default=None)


def _order(part: Part) -> tuple[bool, str, int, str, str]:
    interface, index = part.key
    return part.is_colourless, interface, len(index), index, part.node.sys_path


def may_capture(node: str, properties: Mapping[str, str]) -> bool:
    """What udev's v4l_id found out: a UVC camera has a second node for metadata. Without it the probe decides, and of
    what takes pictures: a loopback device gives them again once somebody feeds it. The nodes of radios, teletext and
    sub-devices have other names."""
    if not node.rpartition("/")[2].startswith("video"):
        return False
    found = properties.get("ID_V4L_CAPABILITIES", "capture")
    return "capture" in found or "video_output" in found


def is_surely_a_camera(properties: Mapping[str, str]) -> bool:
    """Whether a device that could not be asked is shown at all: a USB device's capturing node."""
    is_first = "ID_V4L_CAPABILITIES" in properties or properties.get(INDEX_PROPERTY, "0") == "0"
    return is_first and (properties.get("ID_BUS") == "usb" or "ID_VENDOR_ID" in properties)


def is_same(one: Node, other: Node) -> bool:
    """Whether udev says nothing new of a node."""
    return one.node == other.node and one.properties == other.properties
