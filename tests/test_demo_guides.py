"""The lines of the clients' guides in a demo: /dev/video0, and the stream camera_one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from daemon_helpers import running_daemon
from patience import fail_after
from seed_clients import compat

from edged.cli.demo_box import prepare


@pytest.mark.ffmpeg
async def test_the_guides_device_file_is_the_first_test_picture(tmp_path: Path) -> None:
    """In both dialects, in a filter of events, and in a grant; what is told is the camera's own name, as ever."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=2) as server, server.local() as admin:
            _, operator = await server.create_key("operator")
            async with server.websocket(compat(server)) as old, server.websocket() as new:
                await old.call("authenticate", token=operator)
                await new.call("authenticate", auth_token=operator)
                for client in (old, new):
                    status = await client.call("get_camera_status", device="/dev/video1")
                    assert (status["device"], status["device_path"]) == ("camera1", "camera1")
                    taken = await client.call("take_snapshot", device="/dev/video0")
                    assert taken["device"] == "camera0"
                told = await new.call(
                    "subscribe_events", topics=["camera_status_update"], filters={"device": "/dev/video1"}
                )
                assert told["filters"] == {"device": "camera1"}
                unknown = await new.ask("get_camera_status", device="/dev/video2")
                assert unknown["error"]["code"] == -32010
            # A grant for it is one for the camera that it means when it is made.
            made = await admin.call("create_key", name="x", role="viewer", camera_access=["/dev/video0"])
            async with server.websocket() as client:
                await client.call("authenticate", auth_token=made["api_key"])
                cameras = (await client.call("get_camera_list"))["cameras"]
                assert [camera["device"] for camera in cameras] == ["camera0"]


def test_the_demo_has_the_stream_of_the_token_server_s_example(tmp_path: Path) -> None:
    """Beside a camera that is called by its slot."""
    box = prepare(tmp_path, any_port=True)
    settings = tomllib.loads((box.config / "demo.toml").read_text())
    assert [camera.get("path") for camera in settings["camera"]] == [None, "camera_one"]
