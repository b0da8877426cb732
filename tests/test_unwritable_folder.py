"""A folder of recordings that takes nothing, and files that vanished: a clear error each time, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from patience import fail_after

from edged.config.model import Config
from edged.library import disk_watch

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg]
#: Where the sentence is of a disk that is mounted read-only.
READ_ONLY = "Read-only file system"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for recordings and pictures."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("not root: no disk can be mounted here")
    words = ["mount", "-t", "tmpfs", "-o", "size=64M", "edged-test", str(folder)]
    mounted = subprocess.run(words, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def remount(disk: Path, how: str) -> None:
    """Once no file is being written there."""
    words = ["mount", "-o", f"remount,{how}", str(disk)]
    while (await trio.run_process(words, check=False, capture_stderr=True)).returncode:
        await trio.sleep(0.1)


def settings(folder: Path, disk: Path) -> Config:
    config = make_config(folder, cameras=2, mediamtx=True)
    cameras = tuple(msgspec.structs.replace(one, mode="always") for one in config.camera)
    return msgspec.structs.replace(
        config,
        camera=cameras,
        recording=msgspec.structs.replace(config.recording, folder=disk / "recordings"),
        snapshots=msgspec.structs.replace(config.snapshots, folder=disk / "snapshots"),
    )


async def record(client: Conversation, filename: str) -> dict[str, Any]:
    """Some seconds of camera0, as get_recording_info tells of them."""
    await client.call("start_recording", device="camera0", filename=filename)
    while (await client.call("get_recording_status", device="camera0"))["status"] != "active":
        await trio.sleep(0.1)
    await client.call("stop_recording", device="camera0")
    return dict(await client.call("get_recording_info", filename=filename))


async def refused(client: Conversation, method: str, **params: object) -> tuple[int, str, str]:
    """(code, reason, detail) of a call that must fail."""
    error = (await client.ask(method, **params))["error"]
    return error["code"], error["data"]["reason"], error["data"]["detail"]


async def test_a_folder_that_takes_nothing_is_an_error_each_time_and_recording_goes_on_afterwards(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted read-only while a recording waits for its camera: what is asked for is refused in words, what runs says
    that it is hindered, and whatever was there before is there afterwards."""
    monkeypatch.setattr(disk_watch, "SWEEP_SECONDS", 2.0)
    monkeypatch.setattr(disk_watch, "VAIN_SECONDS", 0.5)
    config = settings(tmp_path, disk)
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            async with daemon.websocket(int(config.listen.compat[0].rpartition(":")[2])) as old:
                await old.call("authenticate", token=key)
                await daemon.wait_media()
                first, second = await record(admin, "first"), await record(admin, "second")
                # It waits for its camera: a disk on which a file is being written cannot be mounted read-only.
                daemon.plug(1).unlink()
                while (await admin.call("get_camera_status", device="camera1"))["status"] == "CONNECTED":
                    await trio.sleep(0.05)
                await admin.call("start_recording", device="camera1", filename="running")
                await remount(disk, "ro")
                await check_refusals(daemon, admin, old, key)
                while (await admin.call("get_storage_info"))["state"] != "unwritable":
                    await trio.sleep(0.1)
                info = await admin.call("get_storage_info")
                assert info["critical_space_warning"] is True
                assert "cannot be written to" in info["message"]
                assert "cannot be written to" in (await admin.call("get_system_status"))["message"]
                while (await old.hear("recording_status_update"))["status"] != "ERROR":
                    pass
                # What is there can be fetched, but for what has to be written first.
                assert (await daemon.request("GET", "/files/recordings/first.mp4", key=key)).status == 200
                await remount(disk, "rw")
                daemon.plug(1).touch()
                while (await admin.call("get_storage_info"))["state"] != "ok":
                    await trio.sleep(0.1)
                while (await admin.call("get_recording_status", device="camera1"))["status"] != "active":
                    await trio.sleep(0.1)
                running = await admin.call("stop_recording", device="camera1")
                assert running["file_size"] > 0
                files = (await admin.call("list_recordings"))["files"]
                assert {file["filename"] for file in files} == {"first.mp4", "running.mp4"}
                assert (await admin.call("get_recording_info", filename="first"))["file_size"] == first["file_size"]
                # The file that the disk had kept of the deleted one goes by itself.
                while (await admin.call("get_storage_info"))["recordings_size"] > sum(
                    file["file_size"] for file in files
                ):
                    await trio.sleep(0.1)
                assert second["file_size"] > 0


async def check_refusals(daemon: RunningDaemon, new: Conversation, old: Conversation, key: str) -> None:
    """Both dialects and HTTP, while the folder takes nothing."""
    for client in (new, old):
        code, reason, detail = await refused(client, "start_recording", device="camera0", filename="never")
        assert (code, reason) == (-32603, "store_error")
        assert READ_ONLY in detail or "cannot be written to" in detail
        code, reason, detail = await refused(client, "take_snapshot", device="camera0", filename="never")
        assert (code, reason, READ_ONLY in detail) == (-32603, "store_error", True)
    reply = await daemon.request("POST", "/api/cameras/camera0/recording", key=key)
    assert (reply.status, reply.json["code"]) == (503, "store_error")
    error = (await new.ask("delete_recording", filename="second"))["error"]
    assert (error["data"]["reason"], error["data"]["in_force"]) == ("store_error", True)
    assert "second.mp4 is deleted, but the disk has kept 1 of its files" in error["data"]["detail"]
    assert (await refused(new, "get_recording_info", filename="second"))[1] == "not_found"
    assert await new.call("get_recording_status", device="camera0") is None


async def test_a_full_disk_is_an_error_each_time_and_loses_nothing(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With recording.on_full "stop", which deletes nothing: refused in both dialects and over HTTP, then done."""
    monkeypatch.setattr(disk_watch, "SWEEP_SECONDS", 2.0)
    monkeypatch.setattr(disk_watch, "VAIN_SECONDS", 0.5)
    config = settings(tmp_path, disk)
    config = msgspec.structs.replace(config, recording=msgspec.structs.replace(config.recording, on_full="stop"))
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            async with daemon.websocket(int(config.listen.compat[0].rpartition(":")[2])) as old:
                await old.call("authenticate", token=key)
                await daemon.wait_media()
                first = await record(admin, "first")
                free = os.statvfs(disk)
                (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
                while (await admin.call("get_storage_info"))["state"] != "full":
                    await trio.sleep(0.1)
                for client, expected in ((admin, -32020), (old, -32007)):
                    code, reason, detail = await refused(client, "start_recording", device="camera0")
                    assert (code, reason) == (expected, "storage")
                    assert "is full" in detail
                    assert (await refused(client, "take_snapshot", device="camera0"))[1] == "store_error"
                reply = await daemon.request("POST", "/api/cameras/camera0/recording", key=key)
                assert (reply.status, reply.json["code"]) == (507, "storage")
                body = (await daemon.request("GET", "/files/recordings/first.mp4", key=key)).body
                assert len(body) == first["file_size"]
                (disk / "filler").unlink()
                while (await admin.call("get_storage_info"))["state"] != "ok":
                    await trio.sleep(0.1)
                assert (await record(admin, "second"))["file_size"] > 0
                assert await admin.call("get_recording_info", filename="first") == first


async def test_a_file_that_vanished_is_said_and_all_else_stays(tmp_path: Path, disk: Path) -> None:
    """Removed by hand between the list and the download, the clip or the picture; and in the middle of a download."""
    config = settings(tmp_path, disk)
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            await daemon.wait_media()
            gone = await record(admin, "gone")
            # MediaMTX may have written a little beyond the end of the first: the second must not be in that file, too.
            await trio.sleep(1.5)
            stays = await record(admin, "stays")
            picture = (await admin.call("take_snapshot", device="camera0", filename="gone"))["filename"]
            (file, *_) = (await admin.call("get_recording_evidence", filename="gone"))["segments"]
            link = "/" + (await admin.call("create_file_link", filename="gone"))["url"].split("/", 3)[3]
            path = config.recording.folder / file["file"]
            path.unlink()
            (config.snapshots.folder / "camera0" / picture).unlink()
            for asked in ("/files/recordings/gone.mp4", link):
                reply = await daemon.request("GET", asked, key="" if asked == link else key)
                assert (reply.status, reply.json["code"]) == (409, "invalid_state")
                assert "gone.mp4" in reply.json["detail"]
            segment = await daemon.request("GET", f"/files/segments/{file['file']}", key=key)
            assert (segment.status, segment.json["code"]) == (404, "not_found")
            times = {"start": gone["created_time"], "end": gone["modified_time"]}
            assert (await refused(admin, "create_clip", device="camera0", **times))[1] in ("invalid_state", "not_found")
            assert (await refused(admin, "get_snapshot", device="camera0", at=gone["modified_time"]))[1] in (
                "invalid_state", "not_found",
            )  # fmt: skip
            for method in ("get_snapshot_info", "delete_snapshot"):
                assert (await refused(admin, method, filename=picture))[1] == "not_found"
            assert (await daemon.request("GET", f"/files/snapshots/{picture}", key=key)).status == 404
            assert (await admin.call("delete_recording", filename="gone"))["deleted"] is True
            reply = await daemon.request("GET", "/files/recordings/stays.mp4", key=key)
            assert (reply.status, len(reply.body)) == (200, stays["file_size"])
