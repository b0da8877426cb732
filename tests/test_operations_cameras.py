"""operations/cameras.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import ask, key_of, running_services
from web_helpers import Cameras

from edged.cameras.model import Camera, Status
from edged.errors import CameraNotFound, Refused

CAMERAS = tuple(
    Camera(name=f"camera{at}", label=f"test {at}", kind="test", status=Status.CONNECTED, node=f"/dev/video{at}")
    for at in range(2)
)


async def test_a_caller_sees_the_cameras_that_it_has_access_to(tmp_path: Path) -> None:
    """In the list; and any other camera is not found, as one that does not exist."""
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(*CAMERAS)) as (trust, services):
            caller = await key_of(trust, "viewer", camera_access=("camera1",))
            listed = await ask(services, caller, "get_camera_list")
            assert [item["device"] for item in listed["cameras"]] == ["camera1"]
            for device in ("camera0", "/dev/video0", "camera7"):
                with pytest.raises(CameraNotFound):
                    await ask(services, caller, "get_camera_status", device=device)


async def test_a_monitor_sees_no_camera(tmp_path: Path) -> None:
    """It lacks camera:read, and is told so."""
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(*CAMERAS)) as (trust, services):
            with pytest.raises(Refused) as caught:
                await ask(services, await key_of(trust, "monitor"), "get_camera_list")
            assert caught.value.reason == "missing_scope"


async def test_why_a_device_is_a_camera_is_told_to_administrators(tmp_path: Path) -> None:
    """It names a serial and a port."""
    bound = Camera(name="camera0", label="c", kind="usb", status=Status.CONNECTED, binding="its serial is 7E19B2F4")
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(bound)) as (trust, services):
            for role, told in (("admin", "its serial is 7E19B2F4"), ("viewer", "")):
                status = await ask(services, await key_of(trust, role), "get_camera_status", device="camera0")
                assert status["binding"] == told
