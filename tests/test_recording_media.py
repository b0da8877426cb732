"""A disk of recordings that fills, and a medium that is taken out and put back: real file systems on loop devices, the
whole daemon, MediaMTX and ffmpeg. Only root can mount: anybody else is told, and the tests of Medium itself remain."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, make_config, reason_of, running_daemon
from patience import fail_after
from test_recordings import until_active

from edged.config.model import RecordingSettings
from edged.errors import StoreFailed
from edged.library import disk_watch
from edged.library.medium import MARKER, Medium
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.mediamtx import settings
from edged.store import segments
from edged.store.database import Database
from edged.store.migrations import USAGE
from edged.store.segments import SegmentRow

MIB = 1024 * 1024


@contextmanager
def loop_device(image: Path, megabytes: int) -> Iterator[str]:
    """A block device with an empty ext4 file system."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 not found: no ext4 can be made (apt-get install e2fsprogs)")
    with image.open("wb") as file:
        file.truncate(megabytes * MIB)
    found = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=False, capture_output=True, text=True
    )  # fmt: skip
    if found.returncode:
        pytest.skip(f"only root can make a small disk: {found.stderr.strip()}")
    device = found.stdout.strip()
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", device], check=True)
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def mount(device: str, folder: Path) -> None:
    if subprocess.run(["mount", device, folder], check=False).returncode:
        pytest.skip("only root can mount a small disk")


def unmount(folder: Path) -> None:
    """As a medium that is pulled out: whoever has files open there keeps them open."""
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(device of 64 MB, the folder where it is mounted)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with loop_device(tmp_path / "image", 64) as device:
        mount(device, folder)
        try:
            yield device, folder
        finally:
            with suppress(subprocess.CalledProcessError):
                unmount(folder)


def names_of(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def until_state(client: Conversation, state: str) -> str:
    """What get_storage_info says when it says this."""
    while True:
        found = await client.call("get_storage_info")
        if found["state"] == state:
            return str(found["message"])
        await trio.sleep(0.1)


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
@pytest.mark.slow
async def test_a_medium_that_is_taken_out_and_put_back_is_noticed_and_its_mount_point_stays_empty(
    tmp_path: Path, mounted: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "2s")
    device, folder = mounted
    (folder / MARKER).touch()
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    config = msgspec.structs.replace(config, recording=RecordingSettings(folder=folder, removable=True))
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("start_recording", device="camera0", filename="yard")
            await until_active(admin)
            while len(kept := set(folder.glob("camera0/*/*.mp4"))) < 2:
                await trio.sleep(0.1)
            unmount(folder)
            said = await until_state(admin, "absent")
            assert "the medium for recordings is not there" in said
            health = await admin.call("get_system_status")
            assert "the medium for recordings is not there" in health["message"]
            assert await reason_of(admin, "delete_recording", filename="yard") == "invalid_state"
            while (await admin.call("get_recording_status", device="camera0"))["status"] != "ERROR":
                await trio.sleep(0.1)
            # Longer than a segment.
            for _ in range(30):
                assert names_of(folder) == []
                await trio.sleep(0.1)
            mount(device, folder)
            await until_state(admin, "ok")
            await until_active(admin)
            while len(set(folder.glob("camera0/*/*.mp4")) - kept) < 2:
                await trio.sleep(0.1)
            assert kept <= set(folder.glob("camera0/*/*.mp4"))
            await admin.call("stop_recording", device="camera0")
            found = await admin.call("get_recording_info", filename="yard")
            assert found["gaps"] >= 1
            assert found["file_size"] >= sum(path.stat().st_size for path in kept)
            # Without it nothing of it is deleted, and no recording begins.
            unmount(folder)
            await until_state(admin, "absent")
            assert await reason_of(admin, "delete_recording", filename="yard") == "store_error"
            assert await reason_of(admin, "start_recording", device="camera0") == "store_error"
            assert names_of(folder) == []
            mount(device, folder)
            await until_state(admin, "ok")
            assert (await admin.call("get_recording_info", filename="yard"))["file_size"] >= found["file_size"]


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
@pytest.mark.slow
async def test_a_disk_that_fills_while_two_cameras_record_keeps_the_newest_and_harms_nobody(
    tmp_path: Path, mounted: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MB, most of which are another program's: what is left for recordings is written several times over."""
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "1s")
    monkeypatch.setattr(disk_watch, "VAIN_SECONDS", 1.0)
    _, folder = mounted
    figures = os.statvfs(folder)
    total, usable = figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize
    filler = folder / "somebody-elses"
    filler.write_bytes(os.urandom(usable - total // 10 - 2 * MIB))
    digest = hashlib.sha256(filler.read_bytes()).hexdigest()
    config = make_config(tmp_path, cameras=2, mediamtx=True)
    config = msgspec.structs.replace(config, recording=RecordingSettings(folder=folder / "recordings"))
    with fail_after(150):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("monitor")
            for camera in ("camera0", "camera1"):
                await admin.call("start_recording", device=camera)
                await until_active(admin, camera)
            least, deleted, newest = total, 0.0, ""
            while deleted < 12:
                for _ in range(20):
                    figures = os.statvfs(folder)
                    least = min(least, figures.f_bavail * figures.f_frsize)
                    (folder / "its-log").write_text("x" * 4096)
                    await trio.sleep(0.05)
                shown = (await daemon.request("GET", "/metrics", key=key)).body.decode()
                (found,) = re.findall(r'edged_recording_files_deleted_total\{reason="disk_full"\} (\S+)', shown)
                deleted = float(found)
            for camera in ("camera0", "camera1"):
                state = await admin.call("get_recording_status", device=camera)
                assert state["status"] == "active"
                names = sorted(path.name for path in (folder / "recordings" / camera).rglob("*.mp4"))
                newest = await until_newer(folder / "recordings" / camera, names[-1])
                assert newest > names[0], "the oldest are gone, the newest stay"
            # Never below the twentieth at which nothing would be recorded.
            assert least > total // 20
            assert (await admin.call("get_system_status"))["status"] == "ready"
            assert hashlib.sha256(filler.read_bytes()).hexdigest() == digest
            assert (folder / "its-log").read_text() == "x" * 4096


async def until_newer(folder: Path, name: str) -> str:
    """The name of a file that is newer than this one."""
    while True:
        names = sorted(path.name for path in folder.rglob("*.mp4"))
        if names[-1] > name:
            return names[-1]
        await trio.sleep(0.1)


# Without root ---------------------------------------------------------------------------------------------------------


def test_a_medium_is_there_with_its_marker_on_another_file_system_only(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    # A file system that has no block device, in place of that of /.
    medium = Medium(folder, is_removable=True, system=Path("/proc"))
    assert (medium.is_there, medium.device) == (False, 0)
    medium.look()
    assert not medium.is_there
    folder.mkdir()
    medium.look()
    assert not medium.is_there, "an empty mount point"
    (folder / MARKER).touch()
    medium.look()
    assert (medium.is_there, medium.device) == (True, folder.stat().st_dev)
    beside = Medium(folder, is_removable=True, system=tmp_path)
    beside.look()
    assert not beside.is_there, "on the file system of /"
    (folder / MARKER).unlink()
    (folder / MARKER).symlink_to("/proc/version")
    medium.look()
    assert medium.is_there, "a link is a file of the folder: what it leads to is not looked at"


def test_a_fixed_disk_is_always_there(tmp_path: Path) -> None:
    medium = Medium(tmp_path / "none", is_removable=False)
    medium.look()
    assert medium.is_there
    assert medium.use(lambda: 5) == 5


async def test_without_the_medium_no_row_of_the_index_is_lost_and_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    async with Database.open(tmp_path / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage:
        medium = Medium(folder, is_removable=True, system=Path("/proc"))
        removed: list[str] = []
        index = RecordingIndex(
            RecordingFiles(folder), usage, lambda reason, _size: removed.append(reason), medium=medium
        )
        row = SegmentRow("camera0/2026-11-30/1796000000-000000.mp4", "camera0", 1_796_000_000.0, 60.0, 9)
        await usage.write(partial(segments.insert, rows=[row]))
        with pytest.raises(StoreFailed, match="medium"):
            await index.remove([row], {row.file: "age"})
        for work in (index.prepare, index.look, index.reconcile):
            with pytest.raises(OSError, match="medium"):
                await work()
        assert await index.sums() == {"camera0": (1, 9)}
        assert (removed, names_of(folder)) == ([], [])
        (folder / MARKER).touch()
        await index.reconcile()
        assert await index.sums() == {}
