"""What a V4L2 device says about itself: capabilities, pixel formats, sizes, rates (videodev2.h).

The questions are ioctls that may hang in the kernel, so each device is asked in a thread of its own that is
left behind when it does not answer; a device whose thread still hangs is not asked a second time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import msgspec
import trio

from edged.cameras.model import Mode
from edged.errors import DependencyFailed

#: `fcntl.ioctl`, or a stand-in: (fd, request, buffer that is answered in place).
Ioctl: TypeAlias = Callable[[int, int, bytearray], object]

CAPTURE: Final = 0x00000001
_OUTPUT: Final = 0x00000002
_NOT_A_CAMERA: Final = (
    0x00004000  # M2M_MPLANE: a codec
    | 0x00008000  # M2M: a codec
    | 0x10000000  # TOUCH
    | 0x20000000  # IO_MC: a raw sensor port whose pipeline somebody else must set up (libcamera)
)
_DEVICE_CAPS: Final = 0x80000000
#: Drivers whose capture nodes are stages of an image pipeline, not cameras (Raspberry Pi).
PIPELINE_DRIVERS: Final = frozenset(
    {"bcm2835-isp", "bcm2835-codec", "pispbe", "rp1-cfe", "unicam", "rpivid", "rpi-hevc-dec"}
)

_CAPABILITY = struct.Struct("=16s32s32sIII12x")
_FORMAT = struct.Struct("=III32sI16x")  # index type flags description pixelformat (mbus_code reserved)
_SIZE = struct.Struct("=III6I8x")  # index pixel_format type, then two (discrete) or six (stepwise) numbers
_INTERVAL = struct.Struct("=IIIII6I8x")  # index pixel_format width height type, then one or three fractions
_BUFFER_CAPTURE = 1
_DISCRETE = 1
_BIG_ENDIAN = 1 << 31


def _request(direction: int, number: int, size: int) -> int:
    """_IOR / _IOWR of asm-generic/ioctl.h, as on every platform that edged is built for."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


QUERYCAP: Final = _request(2, 0, _CAPABILITY.size)
ENUM_FMT: Final = _request(3, 2, _FORMAT.size)
ENUM_FRAMESIZES: Final = _request(3, 74, _SIZE.size)
ENUM_FRAMEINTERVALS: Final = _request(3, 75, _INTERVAL.size)

#: Most entries that are read: a driver may never end its list.
_MOST_FORMATS, _MOST_SIZES, _MOST_RATES = 32, 64, 64
#: What is offered of a device that can do any size or rate within limits.
_COMMON_SIZES = ((320, 240), (640, 480), (800, 600), (1280, 720), (1920, 1080))
_COMMON_RATES = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 60.0)
#: Best first: nothing to encode, little to carry, then what needs work.
_PREFERRED = ("H264", "MJPG", "JPEG", "YUYV", "UYVY", "NV12", "YU12", "RGB3", "BGR3", "GREY")

#: Pauses before asking again, seconds: udev has just made the node and may not have set its mode yet.
_PAUSES = (0.1, 0.2, 0.4, 0.6, 0.7)
TIMEOUT: Final = 5.0


class Probe(msgspec.Struct, frozen=True):
    """One device's answers. `capabilities` are those of this node (device_caps), not of the whole device."""

    driver: str
    card: str
    capabilities: int
    modes: tuple[Mode, ...]

    @property
    def is_camera(self) -> bool:
        """Whether pictures can be taken from this node: captures, has a format, is no codec and no pipeline stage."""
        return not self.why_not

    @property
    def why_not(self) -> str:
        """Why it is no camera, "" for one."""
        if self.driver in PIPELINE_DRIVERS:
            return f"it is a stage of an image pipeline ({self.driver}), which libcamera sets up"
        if self.capabilities & _NOT_A_CAMERA:
            return "it is a codec, a touch screen, or a raw sensor that libcamera sets up"
        if not self.capabilities & CAPTURE:
            return "nobody feeds it pictures" if self.capabilities & _OUTPUT else "it delivers no pictures"
        return "" if self.modes else "it lists no format"

    @property
    def may_become_camera(self) -> bool:
        """Whether it can be one later: a loopback device is no camera until somebody feeds it."""
        if self.driver in PIPELINE_DRIVERS or self.capabilities & _NOT_A_CAMERA:
            return False
        return bool(self.capabilities & (CAPTURE | _OUTPUT)) and not self.is_camera


def read(node: str, ioctl: Ioctl = fcntl.ioctl) -> Probe:
    """Ask the device at `node`. Blocks; raises OSError as open and VIDIOC_QUERYCAP do."""
    fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _read(fd, ioctl)
    finally:
        os.close(fd)


async def probe(
    node: str,
    limiter: trio.CapacityLimiter,
    *,
    timeout: float = TIMEOUT,
    read: Callable[[str], Probe] = read,
) -> Probe:
    """Ask the device at `node` in a thread, again a few times over 2 s while it is not ready.

    `limiter` (one token) belongs to the device: a thread that hangs keeps it. Raises DependencyFailed whose
    sentence and hint are what the camera's `problem` shows.
    """
    with trio.move_on_after(timeout):
        for pause in (*_PAUSES, None):
            try:
                return await trio.to_thread.run_sync(read, node, abandon_on_cancel=True, limiter=limiter)
            except OSError as failure:
                if pause is None or failure.errno not in (errno.EACCES, errno.ENOENT):
                    raise explain(node, failure) from failure
            await trio.sleep(pause)
    raise DependencyFailed(
        f"{node} did not answer within {timeout:g} s",
        hint="unplug the camera and plug it in again, or try another port or cable",
        node=node,
    )


def explain(node: str, failure: OSError) -> DependencyFailed:
    """The operating system's error as something that a person can act on."""
    remedies = {
        errno.EACCES: ("no permission to open", "add the user that runs edged to the group video, then restart edged"),
        errno.EPERM: (
            "not allowed to open",
            "the service's DeviceAllow= must name char-video4linux and videodev be loaded before it starts: restart it",
        ),
        errno.EBUSY: ("in use by another program:", "`fuser -v` with this path names it; stop it"),
        errno.ENOSPC: ("no USB bandwidth left for", "move the camera to another controller, or take a smaller size"),
    }
    gone = ("nothing there any more:", "plug the camera in again")
    for number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        remedies[number] = gone
    what, hint = remedies.get(
        failure.errno or 0,
        (f"failed ({failure.strerror or failure}):", "unplug the camera and plug it in again, or try another port"),
    )
    return DependencyFailed(f"{what} {node}", hint=hint, node=node)


def choose(modes: tuple[Mode, ...], width: int, height: int, rate: float) -> tuple[Mode, float] | None:
    """The mode nearest to what is wanted, and its rate in frames a second; None if there are no modes.

    Size first, then a rate that is not too slow, then the cheapest format (an encoder costs more than frames
    too many), then the nearest rate.
    """
    if not modes:
        return None

    def distance(mode: Mode) -> tuple[bool, int, float, int, float]:
        size = abs(mode.width - width) + abs(mode.height - height)
        got = nearest_rate(mode, rate)
        return not _is_known(mode), size, max(rate - got, 0.0), _rank(mode), abs(got - rate)

    best = min(modes, key=distance)
    return best, nearest_rate(best, rate)


def nearest_rate(mode: Mode, rate: float) -> float:
    """The rate of this mode that is nearest to `rate`, the higher of two; `rate` itself if the mode names none."""
    return min(mode.rates, key=lambda one: (abs(one - rate), -one), default=rate)


def _is_known(mode: Mode) -> bool:
    return mode.pixel_format in _PREFERRED


def _rank(mode: Mode) -> int:
    return _PREFERRED.index(mode.pixel_format) if _is_known(mode) else len(_PREFERRED)


def _read(fd: int, ioctl: Ioctl) -> Probe:
    buffer = bytearray(_CAPABILITY.size)
    ioctl(fd, QUERYCAP, buffer)
    driver, card, _bus, _version, whole, own = _CAPABILITY.unpack(buffer)
    capabilities = own if whole & _DEVICE_CAPS else whole
    is_worth_asking = capabilities & CAPTURE and not capabilities & _NOT_A_CAMERA
    modes = tuple(_modes(fd, ioctl)) if is_worth_asking else ()
    return Probe(_text(driver), _text(card), capabilities, modes)


def _modes(fd: int, ioctl: Ioctl) -> Iterator[Mode]:
    for index in range(_MOST_FORMATS):
        answer = _ask(fd, ioctl, ENUM_FMT, _FORMAT, index, _BUFFER_CAPTURE, 0, b"", 0)
        if answer is None:
            return
        code = answer[4]
        name = _name(code)
        for width, height in _sizes(fd, ioctl, code):
            yield Mode(name, width, height, _rates(fd, ioctl, code, width, height))


def _name(code: int) -> str:
    """A pixel format as the kernel writes it (v4l2_fourcc_conv): `YUYV`; `Y16 -BE`, its top bit set, is big-endian."""
    name = (code & ~_BIG_ENDIAN).to_bytes(4, "little").decode("ascii", "replace")
    return f"{name}-BE" if code & _BIG_ENDIAN else name.rstrip()


def _sizes(fd: int, ioctl: Ioctl, code: int) -> list[tuple[int, int]]:
    """The sizes of one format in pixels; one common size for a driver that does not tell."""
    sizes: list[tuple[int, int]] = []
    for index in range(_MOST_SIZES):
        answer = _ask(fd, ioctl, ENUM_FRAMESIZES, _SIZE, index, code, 0, *(0,) * 6)
        if answer is None:
            break
        if answer[2] != _DISCRETE:
            return _sizes_within(answer[3:9])
        sizes.append((answer[3], answer[4]))
    return sizes or [(640, 480)]


def _sizes_within(limits: tuple[int, ...]) -> list[tuple[int, int]]:
    least_width, most_width, step_width, least_height, most_height, step_height = limits

    def fits(size: tuple[int, int]) -> bool:
        width, height = size
        return (
            least_width <= width <= most_width
            and least_height <= height <= most_height
            and (width - least_width) % max(step_width, 1) == 0
            and (height - least_height) % max(step_height, 1) == 0
        )

    return [size for size in _COMMON_SIZES if fits(size)] or [(most_width, most_height)]


def _rates(fd: int, ioctl: Ioctl, code: int, width: int, height: int) -> tuple[float, ...]:
    """The rates of one format and size, frames a second, fastest first; empty if the driver does not tell."""
    rates: set[float] = set()
    for index in range(_MOST_RATES):
        answer = _ask(fd, ioctl, ENUM_FRAMEINTERVALS, _INTERVAL, index, code, width, height, 0, *(0,) * 6)
        if answer is None:
            break
        fastest = _rate(answer[5], answer[6])
        if answer[4] == _DISCRETE:
            rates.add(fastest)
            continue
        slowest = _rate(answer[7], answer[8])
        rates.update(rate for rate in _COMMON_RATES if slowest <= rate <= fastest)
        rates.add(fastest)
        break
    return tuple(sorted(rates - {0.0}, reverse=True))


def _rate(numerator: int, denominator: int) -> float:
    """A frame interval of numerator/denominator seconds as frames a second; 0.0 for nonsense."""
    return round(denominator / numerator, 3) if numerator else 0.0


def _ask(fd: int, ioctl: Ioctl, request: int, layout: struct.Struct, *members: int | bytes) -> tuple[int, ...] | None:
    """One entry of an enumeration; None at its end, or where the driver does not know the question."""
    buffer = bytearray(layout.pack(*members))
    try:
        ioctl(fd, request, buffer)
    except OSError as failure:
        if failure.errno in (errno.EINVAL, errno.ENOTTY):
            return None
        raise
    return layout.unpack(buffer)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
