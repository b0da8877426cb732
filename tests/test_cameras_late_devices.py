"""Devices that become cameras later, devices that change, and what is reported of a camera's source."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing
from cameras_helpers import ENUM_FMT, QUERYCAP, answer
from entry_helpers import make_entry
from grant_helpers import at_once
from test_cameras_registry import Answers, Box, Store, Udev, device, running

from edged.cameras import probe as probing
from edged.cameras.model import Camera, Mode, Status
from edged.cameras.probe import Probe, choose
from edged.cameras.reports import Report, carry, shown
from edged.errors import InvalidState

LOOPBACK = Probe("v4l2 loopback", "Dummy", 0x00000002, ())
FED = Probe("v4l2 loopback", "Dummy", 0x00000001, (Mode("YUYV", 640, 480, (30.0,)),))
METADATA = Probe("uvcvideo", "HD Webcam", 0x00800000, ())


async def test_a_loopback_device_is_a_camera_once_somebody_feeds_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """udev says that it takes pictures, and tells nobody when it begins to give some; until then the log says why."""
    answers = Answers({"/dev/video4": LOOPBACK})
    node = device(4, "virtual", ID_V4L_CAPABILITIES=":video_output:", ID_BUS="", ID_VENDOR_ID="")
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, udev=Udev(node), answers=answers) as box:
            await trio.sleep(100)
            assert box.registry.all() == ()
            assert [log["why"] for log in logs if log["event"] == "device_passed_over"] == ["nobody feeds it pictures"]
            answers.by_node["/dev/video4"] = FED
            camera = await box.next()
            assert (camera.status, camera.node, camera.width) == (Status.CONNECTED, "/dev/video4", 640)


async def test_a_node_that_can_be_no_camera_is_asked_once_and_named(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A second node for metadata, or one that udev knows to capture nothing, is not looked at again and again."""
    answers = Answers({"/dev/video1": METADATA})
    silent = device(2, "usb2", ID_V4L_CAPABILITIES=":")
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, udev=Udev(device(1, "usb1"), silent), answers=answers) as box:
            await trio.sleep(1000)
            box.udev.tell(silent)
    assert answers.asked == ["/dev/video1"]
    assert len([log for log in logs if log["event"] == "device_passed_over"]) == 2


async def test_a_changed_device_is_probed_again(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """udev says only that something changed: the formats are asked for again, and the stream follows."""
    answers = Answers()
    async with running(tmp_path, udev=Udev(device(0, "usb1")), answers=answers) as box:
        assert (await box.next()).pixel_format == "MJPG"
        answers.by_node["/dev/video0"] = FED
        box.udev.tell(device(0, "usb1", action="change"))
        camera = await box.next()
        assert (camera.pixel_format, camera.status) == ("YUYV", Status.CONNECTED)


def test_a_device_of_less_than_one_picture_a_second_has_modes() -> None:
    """Its only interval is two seconds; what is wanted is as near as it gets."""
    slow = {"YUYV": {(640, 480): [(2, 1)]}}

    def ioctl(_fd: int, request: int, buffer: bytearray) -> None:
        buffer[:] = answer(request, bytes(buffer), modes=slow)

    found = probing._read(0, ioctl)
    assert found.is_camera
    chosen = choose(found.modes, 640, 480, 15.0)
    assert chosen is not None
    assert chosen[1] == 0.5


@pytest.mark.parametrize(
    ("found", "may_become"),
    [
        (LOOPBACK, True),
        (Probe("uvcvideo", "no formats yet", 1, ()), True),
        (METADATA, False),
        (Probe("bcm2835-isp", "isp", 1, FED.modes), False),
        (Probe("codec", "codec", 0x00008000 | 3, FED.modes), False),
        (FED, False),
    ],
)
def test_only_what_can_change_is_asked_again(found: Probe, may_become: bool) -> None:
    """A codec stays a codec; a device without formats may get some."""
    assert found.may_become_camera is may_become
    assert bool(found.why_not) is not found.is_camera


# --- reports ---

GATE = Camera(
    name="camera0", label="gate", kind="rtsp", status=Status.CONNECTED, url="rtsp://h/x", width=0, height=0, rate=0.0
)


async def test_an_unplugged_camera_can_be_removed_and_its_number_is_not_given_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Also after a restart; the device itself, plugged in again, gets a new number."""
    store = Store()
    async with running(tmp_path, store=store, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        assert (await box.next()).name == "camera0"
        with pytest.raises(InvalidState, match="plugged in"):
            await box.registry.remove(0, at_once)
        box.udev.tell(device(0, "1", "7E19B2F4", action="remove"))
        assert (await box.next()).is_unplugged
        await box.registry.remove(0, at_once)
        assert box.registry.all() == ()
    async with running(tmp_path, store=store, udev=Udev()) as box:
        assert box.registry.all() == ()
        box.udev.tell(device(0, "1", "7E19B2F4"))
        assert (await box.next()).name == "camera1"


async def test_a_camera_that_is_plugged_in_while_it_is_removed_stays(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The commit takes its time; the device has come back, with its number."""
    store = Store()
    async with running(tmp_path, store=store, udev=Udev(device(0, "1", "7E19B2F4"))) as box:
        await box.next()
        box.udev.tell(device(0, "1", "7E19B2F4", action="remove"))
        await box.next()

        async def plug_in() -> None:
            box.udev.tell(device(0, "1", "7E19B2F4"))
            await trio.sleep(10)

        store.pause = plug_in
        with pytest.raises(InvalidState, match="plugged in"):
            await box.registry.remove(0, at_once)
        assert [(camera.name, camera.status) for camera in box.registry.all()] == [("camera0", Status.CONNECTED)]
        assert store.slots[0].identity["serial"] == "7E19B2F4"


FAILED = Report("refused", "nothing listens", is_unreachable=True)


def test_a_report_changes_status_and_figures_and_its_end_changes_them_back() -> None:
    """Gone is DISCONNECTED, anything else ERROR; such a camera is tried all the same."""
    gone = shown(GATE, FAILED)
    assert (gone.status, gone.cause, gone.is_attached) == (Status.DISCONNECTED, "refused", True)
    assert shown(GATE, Report("password", "wrong")).status is Status.ERROR
    back = shown(gone, Report(width=640, height=480, rate=12.5))
    assert (back.status, back.problem, back.width, back.rate) == (Status.CONNECTED, "", 640, 12.5)


def test_an_unplugged_camera_stays_so_whatever_is_reported() -> None:
    """A device that is gone is no failing source."""
    away = Camera(name="camera1", label="x", kind="usb", status=Status.DISCONNECTED)
    assert shown(away, FAILED) == away
    assert not away.is_attached


def test_settings_that_are_read_again_do_not_make_a_dead_camera_alive() -> None:
    """The same source keeps what was reported of it; another source begins anew."""
    gone = shown(GATE, FAILED)
    assert carry(gone, GATE) == gone
    other = Camera(name="camera0", label="gate", kind="rtsp", status=Status.CONNECTED, url="rtsp://h/y")
    assert carry(gone, other) == other
    assert carry(None, GATE) == GATE


async def test_a_test_camera_with_a_failing_source_is_unplugged_like_any_other(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its file decides whether it is there, its source whether it works."""
    async with running(tmp_path, make_entry("yard", "test")) as box:
        await report_and_wait(box, Report("encoder", "no encoder"))
        assert box.states() == {"camera0": "ERROR"}
        await trio.sleep(5)
        assert box.states() == {"camera0": "ERROR"}
        (tmp_path / "test-cameras" / "yard").unlink()
        assert (await box.next()).status is Status.DISCONNECTED
        (tmp_path / "test-cameras" / "yard").touch()
        back = await box.next()
        assert (back.status, back.cause, back.problem) == (Status.CONNECTED, "", "")


async def report_and_wait(box: Box, report: Report) -> None:
    box.registry.report("camera0", report)
    assert (await box.next()).cause == report.cause


def test_the_helper_answers_as_drivers_do() -> None:
    """The stand-in's own layout is the kernel's."""
    assert struct.calcsize("=16s32s32sIII12x") == len(answer(QUERYCAP, b""))
    assert ENUM_FMT == probing.ENUM_FMT
