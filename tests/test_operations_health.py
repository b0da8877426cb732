"""One assessment for /health, get_system_status and the metrics: facts in, problems out."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after

from edged.library.disks import Disk, Disks
from edged.library.obstacles import FULL
from edged.operations.health import CameraFact, Facts, MediaFact, assess

MIB = 1024 * 1024
READY = MediaFact("ready")


def disk(name: str = "state", free: int = 900 * MIB, *, writable: bool = True) -> Disk:
    return Disk(name, free, 10_000 * MIB, writable, 256 * MIB)


def test_a_box_without_a_problem_is_healthy_and_says_that_everything_works() -> None:
    found = assess(Facts(mediamtx=READY, cameras=(CameraFact("camera0", works=True),), disks=(disk(),)))
    assert (found.health, found.status, found.message) == ("healthy", "ready", "everything works")


def test_a_full_state_disk_is_unhealthy_because_nothing_can_be_saved() -> None:
    found = assess(Facts(mediamtx=READY, disks=(disk(free=1000),)))
    assert (found.health, found.status, found.can_save) == ("unhealthy", "partial", False)
    assert found.message == "partial: the disk of paths.state is full"


def test_a_full_media_disk_degrades_and_state_is_still_saved() -> None:
    found = assess(Facts(mediamtx=READY, disks=(disk(), disk("media", free=0))))
    assert (found.health, found.can_save) == ("degraded", True)


def test_a_disk_is_degraded_well_before_it_is_full() -> None:
    found = assess(Facts(mediamtx=READY, disks=(disk(free=200 * MIB),)))
    assert (found.health, found.can_save) == ("degraded", True)
    assert "200 MiB left" in found.message


def test_a_small_disk_is_low_below_a_tenth_of_it() -> None:
    assert not Disk("runtime", 90 * MIB, 100 * MIB, writable=True, low_bytes=256 * MIB).is_low
    assert Disk("runtime", 9 * MIB, 100 * MIB, writable=True, low_bytes=256 * MIB).is_low


def test_a_disk_for_recordings_alone_is_named_and_is_as_full_as_retention_leaves_it() -> None:
    (alone,) = Disks({"recording": Path("/")}, low_bytes=1 << 60).look()
    assert (alone.low_bytes, alone.setting) == (0, "recording.folder")
    (shared,) = Disks({"state": Path("/"), "recording": Path("/")}, low_bytes=7).look()
    assert (shared.name, shared.low_bytes, shared.setting) == ("state", 7, "paths.state")


def test_a_full_disk_for_recordings_is_degraded_and_says_that_nothing_is_recorded() -> None:
    found = assess(Facts(mediamtx=MediaFact("ready"), recording_obstacle=(FULL.message, FULL.remedy)))
    assert (found.health, found.status, found.can_save) == ("degraded", "partial", True)
    assert "nothing is recorded" in found.message


def test_a_camera_that_is_to_be_recorded_and_gives_no_bytes_is_named() -> None:
    found = assess(Facts(mediamtx=MediaFact("ready"), unrecorded=("camera1",)))
    assert (found.health, found.status) == ("degraded", "partial")
    assert "nothing is recorded of camera1" in found.message


def test_a_failed_commit_is_unhealthy_whatever_the_disk_says() -> None:
    found = assess(Facts(mediamtx=READY, disks=(disk(),), is_saving=False))
    assert (found.health, found.can_save) == ("unhealthy", False)


def test_cameras_without_a_picture_make_it_partial() -> None:
    cameras = tuple(CameraFact(f"camera{number}", works=number < 3) for number in range(7))
    found = assess(Facts(mediamtx=READY, cameras=cameras))
    assert (found.health, found.status) == ("degraded", "partial")
    assert found.message == "partial: 4 of 7 cameras give no picture"


def test_a_camera_that_is_not_plugged_in_is_told_apart_and_can_be_removed() -> None:
    unplugged = CameraFact("camera0", works=False, is_unplugged=True)
    found = assess(Facts(mediamtx=READY, cameras=(unplugged, CameraFact("camera1", works=False))))
    assert [problem.message for problem in found.problems] == [
        "1 of 2 cameras give no picture",
        "1 of 2 cameras is not plugged in",
    ]
    assert "edged camera remove" in found.problems[1].remedy


def test_a_device_that_waits_is_a_problem() -> None:
    """Nothing of it is shown, and a person must say which camera it is."""
    found = assess(Facts(mediamtx=READY, waiting_devices=1))
    assert found.message == "partial: 1 device waits, since nobody can tell which camera it is"
    assert "edged camera bind" in found.problems[0].remedy


def test_a_port_that_is_left_alone_is_a_problem() -> None:
    """Its camera gives no picture until it is quiet, or released."""
    found = assess(Facts(mediamtx=READY, quarantined_ports=2))
    assert found.message == "partial: 2 ports are left alone: the contact comes and goes"
    assert "edged camera release" in found.problems[0].remedy


def test_a_starting_mediamtx_is_starting_and_a_missing_one_partial() -> None:
    assert assess(Facts(mediamtx=MediaFact("starting"))).status == "starting"
    missing = assess(Facts(mediamtx=MediaFact("missing", "not found", "install it")))
    assert (missing.status, missing.message) == ("partial", "partial: MediaMTX: not found")


facts = st.builds(
    Facts,
    mediamtx=st.builds(MediaFact, st.sampled_from(["ready", "off", "starting", "missing", "failed"])),
    cameras=st.lists(st.builds(CameraFact, st.just("camera0"), st.booleans()), max_size=4).map(tuple),
    disks=st.lists(
        st.builds(disk, st.sampled_from(["state", "media"]), st.integers(0, 10_000 * MIB), writable=st.booleans()),
        max_size=3,
    ).map(tuple),
    late_denials=st.integers(0, 3),
    has_reserve=st.booleans(),
    is_saving=st.booleans(),
)


@given(facts)
def test_healthy_ready_and_no_problem_are_one_and_the_same(given_facts: Facts) -> None:
    found = assess(given_facts)
    assert (found.health == "healthy") == (found.status == "ready") == (found.message == "everything works")
    assert (found.health == "unhealthy") == (not found.can_save)
    assert (not found.problems) == (found.health == "healthy")


def test_two_folders_on_one_file_system_are_one_disk(tmp_path: Path) -> None:
    found = Disks({"state": tmp_path, "media": tmp_path / "not" / "made" / "yet"}).look()
    assert [each.name for each in found] == ["state"]
    assert found[0].writable
    assert found[0].free_bytes > 0


def test_a_state_folder_that_is_gone_is_not_writable(tmp_path: Path) -> None:
    (found,) = Disks({"state": tmp_path / "gone"}).look()
    assert not found.writable


async def test_a_disk_that_does_not_answer_is_shown_as_one_and_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system whose server is gone; once it answers all is as before."""
    mended = threading.Event()
    disks = Disks({"state": tmp_path, "media": tmp_path / "media"})
    assert await disks.refresh()
    really = os.statvfs

    def statvfs(folder: Path) -> os.statvfs_result:
        assert mended.wait(30)
        return really(folder)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr("edged.library.disks.PATIENCE_SECONDS", 0.05)
    for _ in range(2):
        (silent,) = await disks.refresh()
        assert (silent.name, silent.writable) == ("state", False)
    mended.set()
    with fail_after(20):
        while not (await disks.refresh())[0].writable:
            await trio.sleep(0.01)
