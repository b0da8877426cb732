"""operations/camera_devices.py: who may say which camera a device is, and what of it is logged."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing
from patience import fail_after
from services_helpers import ask, key_of, running_services
from web_helpers import Cameras

from edged.cameras.model import Camera, Status
from edged.errors import CameraNotFound, InvalidParams, InvalidState, NotFound

CAMERAS = tuple(
    Camera(name=f"camera{at}", label=f"cam {at}", kind="usb", status=Status.DISCONNECTED, binding="it was here")
    for at in range(2)
)


async def test_an_administrator_of_one_camera_sees_and_binds_no_other_s_device(tmp_path: Path) -> None:
    """The device that waits may be camera0: to whoever has camera1 only it is not there."""
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(*CAMERAS)) as (trust, services):
            whole, partly = await key_of(trust, "admin"), await key_of(trust, "admin", camera_access=("camera1",))
            (seen,) = (await ask(services, whole, "list_camera_devices"))["devices"]
            assert (seen["port"], seen["state"], seen["candidates"]) == ("usb-1", "waiting", ("camera0",))
            assert await ask(services, partly, "list_camera_devices") == {"devices": (), "total": 0}
            for params in ({"port": "usb-1", "device": "camera1"}, {"port": "usb-1"}):
                with pytest.raises(NotFound, match="'usb-1'"):
                    await ask(services, partly, "bind_camera", **params)
            with pytest.raises(CameraNotFound):
                await ask(services, partly, "bind_camera", port="usb-1", device="camera0")
            with pytest.raises(NotFound):
                await ask(services, partly, "release_camera_device", port="usb-1")
            assert (await ask(services, whole, "release_camera_device", port="usb-1"))["released"]
            bound = await ask(services, whole, "bind_camera", port="usb-1", device="camera0")
            assert (bound["camera_id"], bound["binding"]) == ("camera0", "it was here")


async def test_what_is_renamed_bound_or_forgotten_is_in_the_log(tmp_path: Path) -> None:
    """And a name is as long as in a [[camera]]."""
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(*CAMERAS)) as (trust, services):
            admin = await key_of(trust, "admin")
            with structlog.testing.capture_logs() as logs:
                await ask(services, admin, "rename_camera", device="camera0", name="Tür")
                await ask(services, admin, "bind_camera", port="usb-1")
                forgotten = await ask(services, admin, "forget_camera", device="camera0")
            assert forgotten == {"device": "camera0", "forgotten": True, "message": "camera0 (cam 0) is forgotten"}
            events = [log["event"] for log in logs if log["event"].startswith("camera_")]
            assert events == ["camera_renamed", "camera_bound_by_hand", "camera_forgotten"]
            for name in ("", "x" * 65, 5):
                with pytest.raises(InvalidParams):
                    await ask(services, admin, "rename_camera", device="camera0", name=name)


async def test_a_described_camera_has_no_device_to_forget(tmp_path: Path) -> None:
    """The answer names what removes one."""
    described = Camera(name="camera0", label="gate", kind="rtsp", status=Status.CONNECTED)
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(described)) as (trust, services):
            with pytest.raises(InvalidState, match="no device is stored for it") as caught:
                await ask(services, await key_of(trust, "admin"), "forget_camera", device="camera0")
            assert "remove_camera" in caught.value.hint
