"""A mock bus that is plugged by hand: any node at any port, in any order, and events that may get lost.

umockdev's own way to announce a device makes each node's name once, and ends when a queue is full. So its files are
made here, and udev's messages are sent to the sockets that it stands in for netlink with.
"""

from __future__ import annotations

import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cameras_helpers import Bus

#: MurmurHash2 of "video4linux", which the kernel's filter looks for.
_SUBSYSTEM = bytes.fromhex("e9cf3931")


@dataclass(frozen=True)
class Function:
    """One node of a camera at a port; `capabilities` as udev's v4l_id says them."""

    port: str
    serial: str = ""
    index: int = 0
    capabilities: str = ":capture:"

    @property
    def place(self) -> str:
        """Its USB interface in sysfs."""
        hub = self.port.split(".")[0]
        above = f"1-{hub}/" if hub != self.port else ""
        return f"/devices/pci0000:00/0000:00:14.0/usb1/{above}1-{self.port}/1-{self.port}:1.0"

    def properties(self, node: str) -> dict[str, str]:
        found = {
            "DEVNAME": node, "SUBSYSTEM": "video4linux", "MAJOR": "81", "MINOR": node.removeprefix("video"),
            "ID_BUS": "usb", "ID_VENDOR_ID": "046d", "ID_MODEL_ID": "082d", "ID_V4L_PRODUCT": "Mock Cam",
            "ID_V4L_CAPABILITIES": self.capabilities, "ID_PATH": f"pci-0000:00:14.0-usb-0:{self.port}:1.0",
            "ID_USB_INTERFACE_NUM": "00",
        }  # fmt: skip
        return found | ({"ID_SERIAL_SHORT": self.serial} if self.serial else {})


class Plugs:
    """Nodes that any function may have, plugged and unplugged one by one."""

    def __init__(self, bus: Bus, nodes: list[str]) -> None:
        self.nodes = nodes
        self._root = bus.root
        self._number = 1000
        self._sockets: dict[Path, socket.socket] = {}
        for node in nodes:  # makes each one's device file, and who answers there
            bus.plug(node, f"9{node.removeprefix('video')}")
            self._link(node).unlink()

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()

    def plug(self, node: str, function: Function) -> None:
        """A node appears, and udev says so."""
        self.appear(node, function)
        self.tell("add", node, function)

    def unplug(self, node: str, function: Function) -> None:
        """It goes."""
        self.vanish(node, function)
        self.tell("remove", node, function)

    def appear(self, node: str, function: Function) -> None:
        """In sysfs only."""
        place = self._root / f"sys{function.place}/video4linux/{node}"
        place.mkdir(parents=True)
        lines = [f"{name}={value}" for name, value in function.properties(node).items()]
        (place / "uevent").write_text("\n".join(lines) + "\n")
        (place / "name").write_text("Mock Cam")
        (place / "index").write_text(str(function.index))
        (place / "dev").write_text(f"81:{node.removeprefix('video')}")
        up = "../" * len(place.relative_to(self._root / "sys").parts)
        (place / "subsystem").symlink_to(f"{up}class/video4linux")
        self._link(node).symlink_to(Path("../..") / place.relative_to(self._root / "sys"))

    def vanish(self, node: str, function: Function) -> None:
        """In sysfs only."""
        self._link(node).unlink()
        shutil.rmtree(self._root / f"sys{function.place}/video4linux/{node}")

    def tell(self, action: str, node: str, function: Function) -> None:
        """udev's message to everybody who listens, waited for until there is space."""
        self._send(self.message(action, node, function), is_patient=True)

    def tell_or_lose(self, action: str, node: str, function: Function) -> bool:
        """The same; lost where a queue is full. Whether it was heard."""
        return self._send(self.message(action, node, function), is_patient=False)

    def message(self, action: str, node: str, function: Function) -> bytes:
        self._number += 1
        known = {
            "ACTION": action, "DEVPATH": f"{function.place}/video4linux/{node}", "SEQNUM": str(self._number),
            **function.properties(node),
        }  # fmt: skip
        body = b"".join(f"{name}={value}".encode() + b"\0" for name, value in known.items())
        # struct udev_monitor_netlink_header: magic, its length, where the properties begin and end, what to filter by.
        head = b"libudev\0" + struct.pack(">I", 0xFEEDCAFE) + struct.pack("=III", 40, 40, len(body))
        return head + _SUBSYSTEM + bytes(12) + body

    def _send(self, message: bytes, *, is_patient: bool) -> bool:
        is_heard = True
        for path in self._root.glob("event*"):
            if path not in self._sockets:
                self._sockets[path] = socket.socket(socket.AF_UNIX, socket.SOCK_RAW)
                self._sockets[path].connect(str(path))
            one = self._sockets[path]
            one.settimeout(20 if is_patient else 0)
            try:
                one.send(message)
            except BlockingIOError:
                is_heard = False
        return is_heard

    def _link(self, node: str) -> Path:
        return self._root / "sys/class/video4linux" / node


@contextmanager
def plugs(*nodes: str) -> Iterator[tuple[Bus, Plugs]]:
    bus = Bus()
    try:
        made = Plugs(bus, list(nodes))
        try:
            yield bus, made
        finally:
            made.close()
    finally:
        bus.close()
