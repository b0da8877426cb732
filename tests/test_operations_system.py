"""operations/system.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

from patience import fail_after
from services_helpers import ask, key_of, running_services
from web_helpers import Cameras

from edged.cameras.model import Camera, Status

CAMERAS = tuple(
    Camera(name=f"camera{at}", label=f"test {at}", kind="test", status=Status.CONNECTED, node=f"/dev/video{at}")
    for at in range(2)
)


async def test_the_status_names_the_cameras_that_the_caller_may_see(tmp_path: Path) -> None:
    """A monitor sees the state of the box and no camera."""
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(*CAMERAS)) as (trust, services):
            for role, access, seen in (
                ("monitor", None, []),
                ("viewer", ("camera1",), ["camera1"]),
                ("admin", None, ["camera0", "camera1"]),
            ):
                reply = await ask(services, await key_of(trust, role, camera_access=access), "get_system_status")
                assert reply["available_cameras"] == seen
                assert reply["mediamtx"]["status"] == "off"
