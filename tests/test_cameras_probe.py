"""What a V4L2 device says about itself, and what is told when it says nothing."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cameras_helpers import CAMERA_CAPS, ENUM_FMT, ENUM_FRAMEINTERVALS, ENUM_FRAMESIZES, METADATA_CAPS, QUERYCAP, answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import fail_after

from edged.cameras import probe as v4l
from edged.cameras.model import Mode
from edged.cameras.probe import Ioctl, Probe, choose, explain, probe, read
from edged.errors import DependencyFailed

BARE = Probe("uvcvideo", "cam", CAMERA_CAPS, (Mode("MJPG", 640, 480, (30.0,)),))

#: Under load an example may take any time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fake(change: Callable[[int, bytes], bytes | None] = lambda request, buffer: None) -> Ioctl:
    """An ioctl that answers as a webcam does, unless `change` answers."""

    def ioctl(fd: int, request: int, buffer: bytearray) -> int:
        given = change(request, bytes(buffer))
        buffer[:] = answer(request, bytes(buffer)) if given is None else given
        return 0

    return ioctl


def refuse(number: int) -> Callable[[str], Probe]:
    """A device that cannot be asked."""

    def read(node: str) -> Probe:
        raise OSError(number, "no")

    return read


@pytest.fixture
def node(tmp_path: Path) -> str:
    """Something that can be opened."""
    (tmp_path / "video0").touch()
    return str(tmp_path / "video0")


def test_the_requests_are_those_of_the_kernel_s_header() -> None:
    """Their numbers hold direction and size of each struct (videodev2.h, 64 bit)."""
    ours = (v4l.QUERYCAP, v4l.ENUM_FMT, v4l.ENUM_FRAMESIZES, v4l.ENUM_FRAMEINTERVALS)
    assert ours == (QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS)


def test_a_webcam_s_formats_sizes_and_rates_are_read(node: str) -> None:
    """Everything that it offers, rates fastest first."""
    assert read(node, fake()) == Probe(
        "mock",
        "cam",
        CAMERA_CAPS,
        (
            Mode("YUYV", 640, 480, (30.0, 15.0)),
            Mode("YUYV", 1280, 720, (10.0,)),
            Mode("MJPG", 640, 480, (30.0,)),
            Mode("MJPG", 1280, 720, (30.0, 29.97)),
        ),
    )


def test_a_big_endian_format_has_a_name_that_can_be_read(node: str) -> None:
    """Its top bit is no letter; vivid and some thermal cameras have such formats."""

    codes = (b"Y16 ", b"Y16\xa0")

    def grey(request: int, buffer: bytes) -> bytes | None:
        index = struct.unpack_from("=I", buffer)[0]
        if request == QUERYCAP:
            return None
        if index == (2 if request == ENUM_FMT else 1):
            raise OSError(errno.EINVAL, "end")
        if request == ENUM_FMT:
            return struct.pack("=III32s4s4x12x", index, 1, 0, b"", codes[index])
        if request == ENUM_FRAMESIZES:
            return struct.pack("=I4sI6I8x", index, buffer[4:8], 1, 640, 480, 0, 0, 0, 0)
        return struct.pack("=I4sIII6I8x", index, buffer[4:8], 640, 480, 1, 1, 30, 0, 0, 0, 0)

    assert read(node, fake(grey)).modes == (Mode("Y16", 640, 480, (30.0,)), Mode("Y16 -BE", 640, 480, (30.0,)))


def test_a_device_with_free_sizes_and_rates_offers_the_common_ones(node: str) -> None:
    """Stepwise answers become a few modes that people know."""

    def stepwise(request: int, buffer: bytes) -> bytes | None:
        if request == ENUM_FRAMESIZES:
            return struct.pack("=I4sI6I8x", 0, b"YUYV", 3, 320, 1280, 16, 240, 720, 8)
        if request == ENUM_FRAMEINTERVALS:
            return struct.pack("=I4sIII6I8x", 0, b"YUYV", 640, 480, 2, 1, 24, 1, 10, 0, 1)
        return None

    modes = read(node, fake(stepwise)).modes
    assert [(mode.width, mode.height) for mode in modes[:4]] == [(320, 240), (640, 480), (800, 600), (1280, 720)]
    assert modes[0].rates == (24.0, 20.0, 15.0, 10.0)


def test_a_device_with_odd_free_sizes_offers_its_largest(node: str) -> None:
    """There is always one."""

    def odd(request: int, buffer: bytes) -> bytes | None:
        return struct.pack("=I4sI6I8x", 0, b"GREY", 2, 10, 99, 0, 10, 77, 0) if request == ENUM_FRAMESIZES else None

    def read_grey(request: int, buffer: bytes) -> bytes | None:
        if request == ENUM_FRAMEINTERVALS:
            raise OSError(errno.ENOTTY, "unknown")
        return odd(request, buffer)

    assert {(mode.width, mode.height, mode.rates) for mode in read(node, fake(read_grey)).modes} == {(99, 77, ())}


def test_a_driver_that_tells_no_sizes_or_senseless_rates_has_a_common_size(node: str) -> None:
    """Old drivers answer ENOTTY; an interval of 0 seconds is no rate."""

    def old(request: int, buffer: bytes) -> bytes | None:
        if request == ENUM_FRAMESIZES:
            raise OSError(errno.ENOTTY, "unknown")
        if request == ENUM_FRAMEINTERVALS:
            if struct.unpack_from("=I", buffer)[0]:
                raise OSError(errno.EINVAL, "end")
            return struct.pack("=I4sIII6I8x", 0, b"YUYV", 640, 480, 1, 0, 30, 0, 0, 0, 0)
        return None

    assert read(node, fake(old)).modes == (Mode("YUYV", 640, 480, ()), Mode("MJPG", 640, 480, ()))


def test_a_driver_whose_lists_never_end_is_cut_off(node: str) -> None:
    """A broken driver costs a bounded number of questions."""
    asked = 0

    def endless(request: int, buffer: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        if request == ENUM_FMT:
            return struct.pack("=III32s4s4x12x", 0, 1, 0, b"", b"MJPG")
        if request == ENUM_FRAMESIZES and struct.unpack_from("=I", buffer)[0] > 1:
            raise OSError(errno.EINVAL, "end")
        if request == ENUM_FRAMESIZES:
            return struct.pack("=I4sI6I8x", 0, b"MJPG", 1, 640, 480, 0, 0, 0, 0)
        if request == ENUM_FRAMEINTERVALS:
            return struct.pack("=I4sIII6I8x", 0, b"MJPG", 640, 480, 1, 1, 30, 0, 0, 0, 0)
        return None

    assert len(read(node, fake(endless)).modes) == 64
    assert asked < 5000


def test_an_error_in_the_middle_is_not_taken_for_the_end_of_a_list(node: str) -> None:
    """A camera that is pulled while it is asked fails; it does not lose half its modes."""

    def pulled(request: int, buffer: bytes) -> bytes | None:
        if request == ENUM_FRAMEINTERVALS:
            raise OSError(errno.ENODEV, "gone")
        return None

    with pytest.raises(OSError, match="gone"):
        read(node, fake(pulled))


@pytest.mark.parametrize(
    ("driver", "caps", "is_camera"),
    [
        (b"uvcvideo", 0x04200001, True),
        (b"uvcvideo", METADATA_CAPS, False),
        (b"bcm2835-codec", 0x04008000, False),
        (b"bcm2835-codec", 0x04004001, False),
        (b"rp1-cfe", 0x24200001, False),
        (b"bcm2835-isp", 0x04200001, False),
        (b"rmi4", 0x14200001, False),
    ],
)
def test_only_a_node_that_captures_is_a_camera(node: str, driver: bytes, caps: int, is_camera: bool) -> None:
    """Not a UVC camera's metadata node, no codec, no stage of an image pipeline, no touch panel."""

    def capabilities(request: int, buffer: bytes) -> bytes | None:
        if request != QUERYCAP:
            return None
        return struct.pack("=16s32s32sIII12x", driver, b"x", b"", 0, 0x84A00001, caps)

    assert read(node, fake(capabilities)).is_camera is is_camera


def test_a_driver_without_device_caps_is_judged_by_its_capabilities(node: str) -> None:
    """Drivers before Linux 3.4's interface say it in the older member."""

    def capabilities(request: int, buffer: bytes) -> bytes | None:
        return struct.pack("=16s32s32sIII12x", b"old", b"x", b"", 0, 1, 0) if request == QUERYCAP else None

    assert read(node, fake(capabilities)).is_camera


def test_a_capture_node_without_formats_is_no_camera(node: str) -> None:
    """There would be no picture."""

    def formatless(request: int, buffer: bytes) -> bytes | None:
        if request == ENUM_FMT:
            raise OSError(errno.EINVAL, "end")
        return None

    assert not read(node, fake(formatless)).is_camera


def test_a_file_that_is_no_video_device_is_refused(node: str) -> None:
    """By the kernel itself, not by a fake."""
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        read(node)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "group video"),
        (errno.EPERM, "DeviceAllow"),
        (errno.EBUSY, "fuser"),
        (errno.ENOSPC, "bandwidth"),
        (errno.ENODEV, "plug the camera in again"),
        (errno.EIO, "another port"),
        (0, "another port"),
    ],
)
def test_every_failure_says_what_to_do(number: int, words: str) -> None:
    """In the sentence that a camera's `problem` shows, which names the device."""
    told = str(explain("/dev/video0", OSError(number, "x") if number else OSError("x")))
    assert words in told
    assert "/dev/video0" in told


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Time that jumps does not wait for threads, so the question is put in place."""

    async def run_sync(ask: Callable[[str], Probe], node: str, **_: object) -> Probe:
        await trio.lowlevel.checkpoint()
        return ask(node)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


async def test_a_device_that_is_not_ready_is_asked_again(no_threads: None) -> None:
    """udev may not have set the mode yet: EACCES and ENOENT are tried again for two seconds."""
    answers = iter([errno.ENOENT, errno.EACCES, 0])

    def late(node: str) -> Probe:
        if number := next(answers):
            raise OSError(number, "not yet")
        return BARE

    assert await probe("/dev/video0", trio.CapacityLimiter(1), read=late) == BARE


async def test_no_permission_for_two_seconds_is_told(no_threads: None) -> None:
    """Five tries more, then the problem."""
    before = trio.current_time()
    with pytest.raises(DependencyFailed, match="group video"):
        await probe("/dev/video0", trio.CapacityLimiter(1), read=refuse(errno.EACCES))
    assert 2.0 <= trio.current_time() - before < v4l.TIMEOUT


async def test_a_busy_device_is_not_asked_again() -> None:
    """Waiting two seconds would not free it."""
    with fail_after(30), pytest.raises(DependencyFailed, match="in use"):
        await probe("/dev/video0", trio.CapacityLimiter(1), read=refuse(errno.EBUSY))


async def test_a_device_that_hangs_in_the_kernel_is_left_behind() -> None:
    """Its thread is abandoned, the loop goes on, and the device gets no second thread while the first hangs."""
    free = threading.Event()
    started: list[str] = []

    def hang(node: str) -> Probe:
        started.append(node)
        free.wait(60)
        return BARE

    limiter = trio.CapacityLimiter(1)
    with fail_after(30):
        for _ in range(2):
            with pytest.raises(DependencyFailed, match="did not answer"):
                await probe("/dev/video0", limiter, read=hang, timeout=0.05)
        while not started:
            await trio.sleep(0.01)
        assert started == ["/dev/video0"]
        assert limiter.borrowed_tokens == 1
        free.set()
        assert await probe("/dev/video0", limiter, read=lambda node: BARE) == BARE


MODES = (
    Mode("YUYV", 640, 480, (30.0, 15.0)),
    Mode("MJPG", 640, 480, (30.0,)),
    Mode("MJPG", 1920, 1080, (30.0,)),
    Mode("H264", 1280, 720, (30.0, 15.0)),
    Mode("MJPG", 1280, 720, (60.0, 30.0)),
    Mode("YUYV", 1280, 720, (5.0,)),
    Mode("BA81", 800, 600, (15.0,)),
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ((640, 480, 15), (MODES[1], 30.0)),
        ((1280, 720, 15), (MODES[3], 15.0)),
        ((1200, 700, 60), (MODES[4], 60.0)),
        ((1920, 1080, 5), (MODES[2], 30.0)),
        ((800, 600, 15), (MODES[1], 30.0)),
    ],
)
def test_the_mode_is_the_nearest_size_then_the_cheapest_format(
    wanted: tuple[int, int, float], chosen: tuple[Mode, float]
) -> None:
    """H264 before MJPG before YUYV, never one that is too slow while another is not, nothing unknown."""
    assert choose(MODES, *wanted) == chosen


def test_nothing_can_be_chosen_from_nothing() -> None:
    """A camera in trouble has no modes."""
    assert choose((), 640, 480, 15) is None


@PATIENT
@given(
    st.lists(st.sampled_from(MODES), min_size=1),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.floats(1, 120, allow_nan=False),
)
def test_what_is_chosen_is_always_something_the_camera_offers(
    modes: list[Mode], width: int, height: int, rate: float
) -> None:
    """Mode and rate, for any wish."""
    chosen = choose(tuple(modes), width, height, rate)
    assert chosen is not None
    assert chosen[0] in modes
    assert chosen[1] in chosen[0].rates


def test_a_mode_without_rates_is_taken_at_the_rate_that_is_wanted() -> None:
    """The driver will choose."""
    assert choose((Mode("MJPG", 640, 480, ()),), 640, 480, 12.5) == (Mode("MJPG", 640, 480, ()), 12.5)
