"""Cameras to test with: fakes in memory, and umockdev's devices with V4L2 answers.

Run as a program in one of two parts: `emit` under `umockdev-wrapper /usr/bin/python3` plugs and unplugs
mock cameras (JSON lines in and out; standard library and gi only), `serve` runs a real registry on them.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
CAMERA_CAPS = 0x04200001  # VIDEO_CAPTURE | EXT_PIX_FORMAT | STREAMING
METADATA_CAPS = 0x04A00000  # META_CAPTURE | EXT_PIX_FORMAT | STREAMING

#: One discrete camera: formats → sizes → frame intervals (numerator, denominator).
WEBCAM: dict[str, dict[tuple[int, int], list[tuple[int, int]]]] = {
    "YUYV": {(640, 480): [(1, 30), (1, 15)], (1280, 720): [(1, 10)]},
    "MJPG": {(640, 480): [(1, 30)], (1280, 720): [(1, 30), (1001, 30000)]},
}


def answer(request: int, buffer: bytes, modes: Any = WEBCAM, name: str = "cam", caps: int = CAMERA_CAPS) -> bytes:
    """What a V4L2 driver answers, as the struct it fills in; OSError as the driver would."""
    if request == QUERYCAP:
        return struct.pack("=16s32s32sIII12x", b"mock", name.encode(), b"usb-mock", 0x60000, 0x84A00001, caps)
    try:
        index = struct.unpack_from("=I", buffer)[0]
        if request == ENUM_FMT:
            code = list(modes)[index]
            return struct.pack("=III32s4s4x12x", index, 1, 0, code.encode(), code.encode())
        code = buffer[4:8].decode()
        if request == ENUM_FRAMESIZES:
            width, height = list(modes[code])[index]
            return struct.pack("=I4sI6I8x", index, code.encode(), 1, width, height, 0, 0, 0, 0)
        if request == ENUM_FRAMEINTERVALS:
            width, height = struct.unpack_from("=II", buffer, 8)
            interval = modes[code][width, height][index]
            return struct.pack("=I4sIII6I8x", index, code.encode(), width, height, 1, *interval, 0, 0, 0, 0)
    except IndexError:
        raise OSError(errno.EINVAL, "end of list") from None
    raise OSError(errno.ENOTTY, "unknown request")


# The emitter: python3-gi of the system.


def emit() -> None:
    """Answer commands on stdin: {"do": "plug" | "unplug", "node": "video0", "path": …, "name": …, "props": {…}}."""
    import gi  # type: ignore[import-not-found]  # of the system's Python, which runs this function

    gi.require_version("UMockdev", "1.0")
    from gi.repository import GLib, UMockdev  # type: ignore[import-not-found]

    bed = UMockdev.Testbed.new()
    threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
    kept: dict[str, Any] = {}  # libumockdev 0.17 cannot make a node's name again: a replug announces the old one

    def reply(**members: object) -> None:
        print(json.dumps(members), flush=True)

    def plug(node: str, path: str, name: str, props: dict[str, str], index: str, caps: int) -> None:
        whole = f"/sys{path}/video4linux/{node}"
        if whole in kept:
            bed.uevent(whole, "add")
            return
        base = UMockdev.IoctlBase()

        def handle(_base: object, client: Any) -> bool:
            request = client.get_request()
            size = request >> 16 & 0x3FFF
            data = client.get_arg().resolve(0, size)
            try:
                data.update(0, answer(request, bytes(data.retrieve()), name=name, caps=caps))
            except OSError as failure:
                client.complete(-1, failure.errno)
            else:
                client.complete(0, 0)
            return True

        base.connect("handle-ioctl", handle)
        bed.attach_ioctl(f"/dev/{node}", base)  # before the device: adding it announces it
        kept[whole] = base
        number = node.removeprefix("video")
        env = {"DEVNAME": f"/dev/{node}", "SUBSYSTEM": "video4linux", "MAJOR": "81", "MINOR": number, **props}
        lines = [f"P: {path}/video4linux/{node}", f"N: {node}", *(f"E: {k}={v}" for k, v in env.items())]
        bed.add_from_string("\n".join([*lines, f"A: name={name}", f"A: index={index}", f"A: dev=81:{number}", "", ""]))

    def unplug(node: str, path: str) -> None:
        bed.uevent(f"/sys{path}/video4linux/{node}", "remove")

    reply(root=bed.get_root_dir())
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        try:
            plug(**command) if do == "plug" else unplug(**command)
        except Exception as failure:
            reply(error=repr(failure))
        else:
            reply(ok=do)


class Bus:
    """A mock udev: plug cameras in and out; `environment` puts a process into it."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            ["umockdev-wrapper", "/usr/bin/python3", __file__, "emit"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._root = self._read()["root"]

    def environment(self) -> dict[str, str]:
        """The environment of a process that is to see this bus and no other."""
        return {**os.environ, "UMOCKDEV_DIR": str(self._root), "LD_PRELOAD": "libumockdev-preload.so.0"}

    def plug(self, node: str, port: str, *, serial: str = "", index: int = 0, metadata: bool = False) -> None:
        """A webcam appears at a USB port as /dev/`node`; a node belongs to one port for good."""
        kind = ":" if metadata else ":capture:"
        props = {"ID_BUS": "usb", "ID_VENDOR_ID": "046d", "ID_MODEL_ID": "082d", "ID_V4L_CAPABILITIES": kind}
        props |= {"ID_PATH": f"pci-0000:00:14.0-usb-0:{port}:1.0", "ID_V4L_PRODUCT": "Mock Cam"}
        props |= {"ID_SERIAL_SHORT": serial} if serial else {}
        caps = METADATA_CAPS if metadata else CAMERA_CAPS
        self._ask(do="plug", node=node, path=_path(port), name="Mock Cam", props=props, index=str(index), caps=caps)

    def unplug(self, node: str, port: str) -> None:
        """It goes."""
        self._ask(do="unplug", node=node, path=_path(port))

    @property
    def root(self) -> Path:
        """The folder that holds this bus's /sys and /dev."""
        return Path(self._root)

    def close(self) -> None:
        """End the emitter."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait(10)
        self._child.stdout.close()

    def _ask(self, **command: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        reply = self._read()
        assert "ok" in reply, reply

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the emitter ended"
        return dict(json.loads(line))


def _path(port: str) -> str:
    return f"/devices/pci0000:00/0000:00:14.0/usb1/1-{port}/1-{port}:1.0"


# The other side: edged's own registry.


def change_timing(debounce: float = 0.0, overflow: int = 0) -> None:
    """Settle after `debounce` seconds and let every port flap; have each `overflow`-th look at the socket find that the
    kernel's queue has overflowed, so that what waits in it is lost. 0: as it is. sysfs is not looked at by time."""
    import socket
    from types import SimpleNamespace

    from edged.cameras import devices, flapping, watch

    watch.POLL = 1e9
    if debounce:
        devices.DEBOUNCE = flapping.DEBOUNCE = debounce  # type: ignore[attr-defined,misc]
        flapping.MOST_FLAPS = flapping.FREE_FLAPS = 1_000_000
    looks = 0

    class Overflowing(socket.socket):
        def getsockopt(self, *args: Any) -> Any:
            nonlocal looks
            looks += 1
            return errno.ENOBUFS if looks % overflow == 0 else super().getsockopt(*args)

    if overflow:
        watch.socket = SimpleNamespace(  # type: ignore[assignment,attr-defined]
            socket=Overflowing, SOL_SOCKET=socket.SOL_SOCKET, SO_ERROR=socket.SO_ERROR, MSG_DONTWAIT=socket.MSG_DONTWAIT
        )


async def serve() -> None:
    """Run a registry on the real udev library and print every change; slots are kept in memory."""
    import structlog
    import trio

    from edged.cameras.registry import Registry

    if len(sys.argv) > 3:
        change_timing(**json.loads(sys.argv[3]))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    slots: list[Any] = []

    async def save(slot: Any) -> None:
        slots.append(slot)

    registry = Registry(list, save, state=Path(sys.argv[2]))

    async def report() -> None:
        with registry.changes.subscribe() as reader:
            while True:
                camera = (await reader.receive()).camera  # type: ignore[union-attr]
                mode = f"{camera.pixel_format} {camera.width}x{camera.height}@{camera.rate:g}"
                print(json.dumps([camera.name, camera.status, camera.node, mode, camera.problem]), flush=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(registry.run)
        print(json.dumps("ready"), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "emit":
        emit()
    else:
        import trio
        import trio.testing

        trio.run(serve)
