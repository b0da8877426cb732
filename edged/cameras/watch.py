"""Which video devices are there: pyudev inside trio. No pyudev object leaves this file.

Where no event arrives, as in a container, sysfs is looked at every 2 s instead. That is so without a udev daemon, and
it is found out where one seems to run: each 10 s the names in sysfs are compared with those of before, and a change
that no event told of is one that was missed.

Subscribe first, then enumerate, so that no device is missed. The "udev" source is used, not "kernel": its events come
after the node's permissions are set. When the kernel's queue overflows (ENOBUFS, seen as POLLERR) events are lost, so
the whole state is read again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
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
#: Why the whole state was read again: the kernel's queue overflowed, or the socket failed or told nothing.
ResyncCause: TypeAlias = Literal["enobufs", "poll"]
#: How devices are noticed.
Mode: TypeAlias = Literal["events", "polling", "off"]

#: Pauses before a broken netlink socket is made anew, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: Seconds between two listings while events are being lost.
_RESYNC_PAUSE = 0.2
#: Events taken before other tasks get a turn, and the most that are thrown away in one go.
_BATCH, _MOST_QUEUED = 64, 100_000
#: From so many events in a row, and more than so many a second, they are taken together each so many seconds: of one
#: device only the last of them counts.
_BURST, _BUSY_RATE, _GATHERED = 50, 100.0, 0.05
_CONTROL = Path("/run/udev/control")
_CLASS = Path("/sys/class/video4linux")
#: Seconds between two looks at sysfs while events arrive and while they do not, and that an event may take: udevd works
#: on it first.
_CHECK, POLL, _GRACE = 10.0, 2.0, 2.0
#: Properties of an event, not of the device.
_PASSING = frozenset({"ACTION", "SEQNUM", "SYNTH_UUID", "USEC_INITIALIZED", "UDEV_DATABASE_VERSION"})


class Node(msgspec.Struct, frozen=True):
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


class Present(msgspec.Struct, frozen=True):
    """Every video device that there is: at the start, and after events were lost."""

    nodes: tuple[Node, ...]


class Discovery(msgspec.Struct, frozen=True):
    """How devices are noticed from now on: udev's events, a look at sysfs every 2 s, or not at all."""

    mode: Mode


Seen: TypeAlias = Node | Present | Discovery


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
        handle(Discovery("off"))
        handle(Present(()))
        task_status.started()
        await trio.sleep_forever()
        return
    is_started = False
    missed = _Missed(handle, resynced)

    def tell(seen: Seen) -> None:
        missed.has_heard = True
        handle(seen)

    def list_all() -> None:
        nonlocal is_started
        tell(Present(tuple(present(context))))
        if not is_started:
            is_started = True
            task_status.started()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(missed.look, list_all)
        pause = _FIRST_PAUSE
        while True:
            since = trio.current_time()
            try:
                await _follow(context, tell, list_all, resynced, receive_buffer)
            except OSError as failure:
                pause = _FIRST_PAUSE if trio.current_time() - since > _LONGEST_PAUSE else pause
                log.warning("udev_failed", error=str(failure), pause=pause, remedy="AF_NETLINK must be allowed")
            resynced("poll")
            list_all()
            await trio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


class _Missed:
    """Looks for changes that no event told of."""

    def __init__(self, handle: Callable[[Seen], None], resynced: Callable[[ResyncCause], None]) -> None:
        self._handle = handle
        self._resynced = resynced
        #: Something was told of since the last look: what is there now is known, or will be.
        self.has_heard = False

    async def look(self, list_all: Callable[[], None]) -> None:
        """Runs until cancelled."""
        is_polling = not has_udevd()
        self._tell(is_polling=is_polling)
        known = names()
        while True:
            await trio.sleep(POLL if is_polling else _CHECK)
            if not is_polling and not self.has_heard and names() != known:
                await trio.sleep(_GRACE)
            if self.has_heard:
                self.has_heard, known = False, names()
                if is_polling and has_udevd():
                    is_polling = False
                    self._tell(is_polling=False)
                continue
            if (now := names()) == known:
                continue
            if not is_polling:
                is_polling = True
                self._tell(is_polling=True)
            known = now
            self._resynced("poll")
            list_all()
            self.has_heard = False

    def _tell(self, *, is_polling: bool) -> None:
        if is_polling:
            log.warning(
                "udev_silent", detail=f"no events arrive here: cameras are looked for every {POLL:g} s",
                remedy="in a container, share the host's network and /run/udev",
            )  # fmt: skip
        self._handle(Discovery("polling" if is_polling else "events"))


def names() -> dict[str, tuple[str, int, bool]]:
    """The video devices in sysfs: of each where it leads, its inode (another one when it was made again), and whether
    its node is there. Empty where there are none."""
    found = {}
    try:
        for link in _CLASS.iterdir():
            found[link.name] = (str(link.readlink()), link.lstat().st_ino, has_node(f"/dev/{link.name}"))
    except OSError:  # none, or one went meanwhile: the next look sees it
        return found
    return found


def has_node(node: str) -> bool:
    """Whether a device file exists; a container may see devices in sysfs that are not its own."""
    return Path(node).exists()


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
        node = _node(device, "present") if device.is_initialized or not has_daemon else None
        if node is not None and (has_daemon or has_node(node.node)):
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
        row, last = 0.0, trio.current_time()
        while True:
            await trio.lowlevel.wait_readable(netlink)
            is_lost, number = _drain(monitor, netlink, handle)
            now = trio.current_time()
            row, last = max(0.0, row - (now - last) * _BUSY_RATE) + number, now
            if row > _BURST and not is_lost:
                await trio.sleep(_GATHERED)
            if is_lost:
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


def _drain(monitor: Monitor, netlink: socket.socket, handle: Callable[[Seen], None]) -> tuple[bool, int]:
    """Hand on what waits, a batch at most; whether events were lost (then nothing waits any more), and how many came.

    Of several events of one device those that a later one has overtaken are left out.
    """
    waiting: dict[str, list[tuple[str, Device]]] = {}
    number = 0
    while number < _BATCH:
        try:
            if netlink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return _discard(netlink), number
            device = monitor.poll(timeout=0)
        except OSError:  # it overflowed between the two calls
            return _discard(netlink), number
        if device is None:
            break
        number += 1
        action, events = device.action or "change", waiting.setdefault(device.sys_path, [])
        if action == "remove":
            events.clear()
        elif events and events[-1][0] == action:
            events.pop()
        events.append((action, device))
    for action, device in (event for events in waiting.values() for event in events):
        if node := _node(device, action):
            handle(node)
    return False, number


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
