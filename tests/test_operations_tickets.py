"""operations/tickets.py over real accounts and a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import fail_after
from services_helpers import ask, key_of, running_services
from web_helpers import Cameras

from edged.cameras.model import Camera, Status
from edged.errors import CameraNotFound

CAMERAS = tuple(
    Camera(name=f"camera{at}", label=f"test {at}", kind="test", status=Status.CONNECTED, node=f"/dev/video{at}")
    for at in range(2)
)


async def test_a_ticket_is_made_for_a_camera_that_the_caller_may_see_and_for_no_other(tmp_path: Path) -> None:
    """Each is another; a camera that is not the caller's is not found."""
    with fail_after(30):
        async with running_services(tmp_path, cameras=Cameras(*CAMERAS)) as (trust, services):
            caller = await key_of(trust, "viewer", camera_access=("camera1",))
            first, second = [await ask(services, caller, "create_ticket", device="camera1") for _ in range(2)]
            assert first["ticket"] != second["ticket"]
            with pytest.raises(CameraNotFound):
                await ask(services, caller, "create_ticket", device="camera0")
