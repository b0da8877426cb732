"""Which video devices are there: pyudev inside trio. No pyudev object leaves this file.

Subscribe first, then enumerate, so that no device is missed. The "udev" source is used, not "kernel": its events come
after the node's permissions are set. When the kernel's queue overflows (ENOBUFS, seen as POLLERR) events are lost, so
the whole state is read again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import structlog
import trio

from edged.cameras.identity import INDEX_PROPERTY, device_of

log = structlog.get_logger("cameras")

#: pyudev's objects. It has no types, and is imported when it is needed: network cameras do not need it.
Context: TypeAlias = Any
Monitor: TypeAlias = Any
Device: TypeAlias = Any

SUBSYSTEM: Final = "video4linux"
#: Bytes; the kernel's default holds some hundred events.
RECEIVE_BUFFER: Final = 16 * 1024 * 1024
#: Why the whole state was read again: the kernel's queue overflowed, or the socket failed.
ResyncCause: TypeAlias = Literal["enobufs", "poll"]

#: Pauses before a broken netlink socket is made anew, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: Seconds between two listings while events are being lost.
_RESYNC_PAUSE = 0.2
#: Events handed on before other tasks get a turn, and the most that are thrown away in one go.
_BATCH, _MOST_QUEUED = 64, 100_000
_CONTROL = Path("/run/udev/control")
#: Properties of an event, not of the device.
_PASSING = frozenset({"ACTION", "SEQNUM", "SYNTH_UUID", "USEC_INITIALIZED", "UDEV_DATABASE_VERSION"})


@dataclass(frozen=True, slots=True)
class Node:
    """One video device and what udev says about it. `action`: `present` in a listing, else udev's own word.

    `node`: `/dev/video0`; `sys_path` names the device as long as it is plugged in.
    """

    action: str
    node: str
    sys_path: str
    properties: dict[str, str]

    @property
    def device(self) -> str:
        """The same text for all nodes of one physical device."""
        return device_of(self.sys_path)


@dataclass(frozen=True, slots=True)
class Present:
    """Every video device that there is: at the start, and after events were lost."""

    nodes: tuple[Node, ...]


Seen: TypeAlias = Node | Present


async def watch(
    handle: Callable[[Seen], None],
    resynced: Callable[[ResyncCause], None] = lambda _cause: None,
    *,
    receive_buffer: int = RECEIVE_BUFFER,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tell `handle` (which must not wait) all that is there, then every change; runs until cancelled.

    Reports started after the first `Present`. `resynced` counts the times when events were lost.
    """
    try:
        context = open_context()
    except ImportError as failure:
        log.warning("udev_missing", detail=str(failure), remedy="install libudev1; no USB camera is seen until then")
        handle(Present(()))
        task_status.started()
        await trio.sleep_forever()
        return
    if not has_udevd():
        log.warning("udev_silent", remedy="no udevd here: restart edged after plugging a camera in")
    is_started = False

    def list_all() -> None:
        nonlocal is_started
        handle(Present(tuple(present(context))))
        if not is_started:
            is_started = True
            task_status.started()

    pause = _FIRST_PAUSE
    while True:
        since = trio.current_time()
        try:
            await _follow(context, handle, list_all, resynced, receive_buffer)
        except OSError as failure:
            pause = _FIRST_PAUSE if trio.current_time() - since > _LONGEST_PAUSE else pause
            log.warning("udev_failed", error=str(failure), pause=pause, remedy="AF_NETLINK must be allowed")
        resynced("poll")
        list_all()
        await trio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def open_context() -> Context:
    """libudev, opened. Raises ImportError where it is not installed."""
    return _library().Context()


def _library() -> Any:
    import pyudev

    return pyudev


def has_udevd() -> bool:
    """Whether a udev daemon runs where we can see it; a container has none."""
    return _CONTROL.exists()


def present(context: Context) -> Iterator[Node]:
    """Every video device that udev has finished with, by path."""
    has_daemon = has_udevd()
    for device in sorted(context.list_devices(subsystem=SUBSYSTEM), key=lambda one: str(one.sys_path)):
        # What udevd is still working on will be announced when its permissions are right.
        if (device.is_initialized or not has_daemon) and (node := _node(device, "present")):
            yield node


async def _follow(
    context: Context,
    handle: Callable[[Seen], None],
    list_all: Callable[[], None],
    resynced: Callable[[ResyncCause], None],
    receive_buffer: int,
) -> None:
    """One netlink socket from subscription until it breaks (OSError)."""
    monitor = _subscribe(context, receive_buffer)
    list_all()
    # A second descriptor of the same socket, because only reading SO_ERROR clears an overflow.
    with socket.socket(fileno=os.dup(monitor.fileno())) as netlink:
        while True:
            await trio.lowlevel.wait_readable(netlink)
            if _drain(monitor, netlink, handle):
                log.warning("udev_overflow", detail="events were lost; every device is looked at again")
                resynced("enobufs")
                list_all()
                await trio.sleep(_RESYNC_PAUSE)


def _subscribe(context: Context, receive_buffer: int) -> Monitor:
    monitor = _library().Monitor.from_netlink(context, "udev")
    monitor.filter_by(SUBSYSTEM)
    try:
        monitor.set_receive_buffer_size(receive_buffer)
    except OSError as failure:  # needs CAP_NET_ADMIN; an overflow is mended anyhow
        log.debug("udev_buffer", error=str(failure))
    monitor.start()
    return monitor


def _drain(monitor: Monitor, netlink: socket.socket, handle: Callable[[Seen], None]) -> bool:
    """Hand on what waits, a batch at most; whether events were lost. Then nothing waits any more."""
    for _ in range(_BATCH):
        try:
            if netlink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return _discard(netlink)
            device = monitor.poll(timeout=0)
        except OSError:  # it overflowed between the two calls
            return _discard(netlink)
        if device is None:
            return False
        if node := _node(device, device.action or "change"):
            handle(node)
    return False


def _discard(netlink: socket.socket) -> Literal[True]:
    """Empty the queue: an old "add" behind a new listing would call back a device whose "remove" was lost."""
    for _ in range(_MOST_QUEUED):
        try:
            netlink.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        except OSError:  # overflowed again
            continue
    return True


def _node(device: Device, action: str) -> Node | None:
    """A device as a plain value; None for one without a node."""
    node = device.device_node
    return Node(action, node, device.sys_path, _properties(device, action)) if node else None


def _properties(device: Device, action: str) -> dict[str, str]:
    """udev's properties, with what a missing udev database leaves out read from sysfs."""
    found: dict[str, str] = {}
    for name in device.properties:
        if name in _PASSING:
            continue
        try:
            found[name] = device.properties[name]
        except (UnicodeDecodeError, KeyError):  # a device may call itself anything
            continue
    if action == "remove":
        return found
    _add(found, INDEX_PROPERTY, device, "index")
    _add(found, "ID_V4L_PRODUCT", device, "name")
    if "ID_VENDOR_ID" not in found and (usb := device.find_parent("usb", "usb_device")) is not None:
        _add(found, "ID_VENDOR_ID", usb, "idVendor")
        _add(found, "ID_MODEL_ID", usb, "idProduct")
        _add(found, "ID_SERIAL_SHORT", usb, "serial")
    return found


def _add(found: dict[str, str], name: str, device: Device, attribute: str) -> None:
    if name in found:
        return
    try:
        value = device.attributes.get(attribute)
    except OSError:  # unplugged meanwhile
        return
    if value is not None:
        found[name] = value.decode("utf-8", "replace").strip()
