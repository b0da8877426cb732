"""What is said of cameras is what their sources do: the running daemon, a real MediaMTX, real ffmpeg."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, port_of, running_daemon
from pictures_helpers import PASSWORD, free_ports, open_mediamtx

from edged import children
from edged.config.model import CameraSettings, Config

pytestmark = [pytest.mark.ffmpeg, pytest.mark.mediamtx]


def with_cameras(folder: Path, *cameras: CameraSettings, mediamtx: bool = True) -> Config:
    """A box on loopback with these cameras."""
    return msgspec.structs.replace(make_config(folder, cameras=0, mediamtx=mediamtx), camera=cameras)


@asynccontextmanager
async def publishing(url: str, *, rate: float = 10, gop: int = 10, size: str = "160x120") -> AsyncIterator[None]:
    """A camera: a test picture that is published at an address."""
    arguments = [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi"),
        *("-i", f"testsrc2=size={size}:rate={rate}", "-c:v", "libx264", "-preset", "ultrafast"),
        *("-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", str(gop), "-f", "rtsp", "-rtsp_transport", "tcp", url),
    ]
    spawn = partial(children.spawn, environment=dict(os.environ), landlock=None, stdout=False, stderr=False)
    async with spawn(arguments):
        yield


async def until_status(client: Conversation, device: str, *wanted: str) -> Any:
    """Wait until a camera's status is one of these; the whole answer."""
    while True:
        status = await client.call("get_camera_status", device=device)
        if status["status"] in wanted:
            return status
        await trio.sleep(0.1)


async def until_heard(client: Conversation, status: str) -> None:
    """Until a notification has told that the camera's status is this."""
    while (await client.hear("camera_status_update"))["status"] != status:
        pass


async def metric(daemon: RunningDaemon, line: str) -> float:
    text = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
    return next(float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(line))


@pytest.mark.parametrize("mode", ["always", "on_demand"])
async def test_a_camera_on_a_dead_port_is_not_connected(tmp_path: Path, mode: str) -> None:
    """Status, event, metric, health and system status say so, and administrators read why; others only that."""
    (port,) = free_ports(1)
    url = f"rtsp://u:{PASSWORD}@127.0.0.1:{port}/x"
    dead = CameraSettings(name="gate", source=url, mode=mode)  # type: ignore[arg-type]
    config = with_cameras(tmp_path, dead, CameraSettings(name="test 0", source="test", size="320x240"))
    async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
        status = await until_status(admin, "camera0", "DISCONNECTED", "ERROR")
        assert status["status"] == "DISCONNECTED"
        assert "nothing listens at its address" in status["problem"]
        assert (status["resolution"], status["fps"]) == ("unknown", 0)
        assert PASSWORD not in json.dumps(status)
        assert await metric(daemon, 'edged_camera_up{camera="camera0"}') == 0
        assert await metric(daemon, 'edged_camera_up{camera="camera1"}') == 1
        assert await metric(daemon, 'edged_cameras_without_picture{cause="refused"}') == 1
        await daemon.wait_media()
        system = await admin.call("get_system_status")
        assert (system["status"], system["message"]) == ("partial", "partial: 1 of 2 cameras give no picture")
        health = await daemon.request("GET", "/health", port=port_of(daemon.config.listen.local))
        assert health.json["status"] == "degraded"
        _, key = await daemon.create_key("operator")
        async with daemon.websocket() as client:
            await client.call("authenticate", auth_token=key)
            shown = await client.call("get_camera_status", device="camera0")
            assert shown["problem"] == "no picture from its source"
            refused = await client.ask("take_snapshot", device="camera0")
            assert "no picture from its source" in json.dumps(refused["error"])
            assert str(port) not in json.dumps([shown, refused])
        assert "nothing listens" in json.dumps(await admin.ask("take_snapshot", device="camera0"))


async def test_a_camera_that_comes_and_goes_is_shown_so_and_told_in_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and rate are what its stream says; nobody watches it, and what is said of it is true all the same."""
    monkeypatch.setattr("edged.mediamtx.source_checks.CHECK_SECONDS", 1.0)
    async with open_mediamtx(tmp_path) as server:
        gate = CameraSettings(name="gate", source=f"rtsp://{server.rtsp}/camera0", size="1280x720", rate=30.0)
        config = with_cameras(tmp_path, gate)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("subscribe_events", topics=["camera_status_update"])
            gone = await until_status(admin, "camera0", "DISCONNECTED", "ERROR")
            assert "no such stream" in gone["problem"]
            await until_heard(admin, gone["status"])
            async with publishing(f"rtsp://{server.rtsp}/camera0", rate=8):
                there = await until_status(admin, "camera0", "CONNECTED")
                assert there["problem"] == ""
                await until_heard(admin, "CONNECTED")
                while not there["fps"]:
                    there = await admin.call("get_camera_status", device="camera0")
                    await trio.sleep(0.1)
                assert (there["resolution"], there["fps"]) == ("160x120", 8)
            await until_status(admin, "camera0", "ERROR")
            await until_heard(admin, "ERROR")
            assert await metric(daemon, 'edged_cameras_without_picture{cause="no_stream"}') == 1
        said = capsys.readouterr()
        log = said.out + said.err
        told = [line for line in log.splitlines() if "[warning" in line and "camera=camera0" in line]
        assert [("cause=no_stream" in line) for line in told] == [True, True]
        assert log.count("picture_again") == 1


async def test_a_camera_that_is_published_all_the_time_comes_and_goes_as_well(tmp_path: Path) -> None:
    """What its publisher sees is what is shown; while MediaMTX is away nobody blames the camera."""
    async with open_mediamtx(tmp_path) as server:
        gate = CameraSettings(name="gate", source=f"rtsp://{server.rtsp}/camera0", mode="always")
        async with running_daemon(tmp_path, config=with_cameras(tmp_path, gate)) as daemon, daemon.local() as admin:
            async with publishing(f"rtsp://{server.rtsp}/camera0", rate=8, gop=8):
                there = await until_status(admin, "camera0", "CONNECTED")
                while not there["fps"]:
                    there = await admin.call("get_camera_status", device="camera0")
                    await trio.sleep(0.1)
                assert (there["resolution"], there["fps"]) == ("160x120", 8)
            gone = await until_status(admin, "camera0", "DISCONNECTED", "ERROR")
            assert gone["problem"]
            while not await metric(daemon, 'edged_camera_restarts_total{camera="camera0"}'):
                await trio.sleep(0.1)
            async with publishing(f"rtsp://{server.rtsp}/camera0", rate=8, gop=8):
                assert (await until_status(admin, "camera0", "CONNECTED"))["problem"] == ""
