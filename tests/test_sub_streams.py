"""A camera's smaller stream: a path beside its own, with its rights, and no camera of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, make_config, reason_of, running_daemon
from patience import fail_after
from pictures_helpers import PASSWORD, command_lines, open_mediamtx
from test_camera_sources import publishing
from test_pushed_cameras import until

from edged.config.cameras import CameraSettings
from edged.config.model import Config, SourceSettings
from edged.config.sources import with_login

pytestmark = [pytest.mark.ffmpeg, pytest.mark.mediamtx]


async def read_size(url: str) -> str:
    """WIDTHxHEIGHT of a stream, "" where it cannot be read."""
    asked = ["ffprobe", "-v", "error", "-rtsp_transport", "tcp", "-show_entries", "stream=width,height"]
    done = await trio.run_process(
        [*asked, "-of", "csv=p=0:s=x", url], capture_stdout=True, stderr=subprocess.DEVNULL, check=False
    )
    return done.stdout.decode().strip()


def config_with(folder: Path, *cameras: CameraSettings) -> Config:
    return msgspec.structs.replace(make_config(folder, cameras=0, mediamtx=True), camera=cameras)


async def names_of_streams(daemon: RunningDaemon, key: str) -> list[Any]:
    return sorted(each["name"] for each in (await daemon.request("GET", "/api/streams", key=key)).json)


async def test_it_is_read_by_whom_the_camera_is_and_alone(tmp_path: Path) -> None:
    """Started by its own viewer and not by the camera's; a wrong one is no fault of the camera."""
    with fail_after(150):
        async with (
            open_mediamtx(tmp_path) as server,
            publishing(f"rtsp://{server.rtsp}/camera0", size="320x240"),
            publishing(f"rtsp://{server.rtsp}/camera1", size="160x120"),
        ):
            main = f"rtsp://u:{PASSWORD}@{server.rtsp}/camera0"
            config = config_with(
                tmp_path,
                CameraSettings(name="gate", source=main, sub_source=f"rtsp://{server.rtsp}/camera1", path="gate"),
                CameraSettings(name="yard", source=f"{main}?x", sub_source=f"rtsp://{server.rtsp}/locked"),
            )
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                await daemon.wait_media()
                _, key = await daemon.create_key("viewer", camera_access=["camera0"])
                shown = (await daemon.request("GET", "/api/cameras", key=key)).json["cameras"]
                assert [each["device"] for each in shown] == ["camera0"]
                assert shown[0]["streams"]["sub"].endswith(f":{daemon.rtsp}/gate_sub")
                assert (await admin.call("get_camera_list"))["total"] == 2
                for device in ("gate_sub", "camera0_sub"):
                    assert await reason_of(admin, "get_camera_status", device=device) == "not_found"
                bare = f"127.0.0.1:{daemon.rtsp}"
                assert await read_size(f"rtsp://x:{key}@{bare}/gate_sub") == "160x120"
                streams = {each["name"]: each["ready"] for each in await admin.call("get_streams")}
                assert (streams["gate"], streams["gate_sub"]) == (False, True)
                assert await read_size(f"rtsp://x:{key}@{bare}/gate") == "320x240"
                ticket = (await admin.call("create_ticket", device="camera0"))["urls"]["sub"]
                assert await read_size(ticket) == "160x120"
                assert await names_of_streams(daemon, key) == ["gate", "gate_sub"]
                for path in ("camera1_sub", "camera1", "camera0_sub"):
                    assert await read_size(f"rtsp://x:{key}@{bare}/{path}") == ""
                assert PASSWORD not in command_lines()
                _, other = await daemon.create_key("viewer", camera_access=["camera1"])
                assert await read_size(f"rtsp://x:{other}@{bare}/gate_sub") == ""
                assert await read_size(f"rtsp://x:{other}@{bare}/camera1_sub") == ""
                assert (await until(admin, "CONNECTED", device="camera1"))["problem"] == ""


async def test_a_call_adds_one_at_the_host_of_its_camera_only(tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        make_config(tmp_path, cameras=0, mediamtx=True), sources=SourceSettings(also_allowed=("127.0.0.0/8",))
    )
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            source = "rtsp://u:planted@localhost:9/a"
            for wrong in ("rtsp://127.0.0.3/b", "http://localhost/b", "rtsp://", "b"):
                refused = {"name": "x", "source": source, "sub_source": wrong}
                assert await reason_of(admin, "add_camera", **refused) == "invalid_params"
            made = await admin.call(
                "add_camera", name="x", source=source, sub_source="rtsp://localhost:10/b?pwd=planted"
            )
            assert made["sub_source"] == "rtsp://localhost:10/b?pwd=***"
            made = await admin.call("update_camera", device="camera0", sub_source=made["sub_source"], name="y")
            assert made["sub_source"] == "rtsp://localhost:10/b?pwd=***"
            assert "sub" in (await admin.call("get_camera_status", device="camera0"))["streams"]
            assert (await admin.call("update_camera", device="camera0", sub_source=""))["sub_source"] == ""
            assert "sub" not in (await admin.call("get_camera_status", device="camera0"))["streams"]


@pytest.mark.parametrize("path", ["gate_sub", "a_sub"])
def test_no_camera_has_a_path_that_ends_like_one(path: str) -> None:
    with pytest.raises(ValueError, match="must not end in _sub"):
        CameraSettings(name="x", source="test", path=path)


@pytest.mark.parametrize(
    ("sub", "source", "expected"),
    [
        ("rtsp://h/b", "rtsp://u:p@h/a", "rtsp://u:p@h/b"), ("rtsp://v:q@h/b", "rtsp://u:p@h/a", "rtsp://v:q@h/b"),
        ("rtsp://h:1/b?c", "rtsp://u%40:p@h:2/a", "rtsp://u%40:p@h:1/b?c"), ("rtsp://h/b", "rtsp://h/a", "rtsp://h/b"),
    ],
)  # fmt: skip
def test_it_is_read_with_the_login_of_its_camera(sub: str, source: str, expected: str) -> None:
    assert with_login(sub, source) == expected
