"""Cameras at the ribbon of a Raspberry Pi: what a machine lacks is named, and what MediaMTX is told it accepts. No such
camera is here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from daemon_helpers import make_config, running_daemon
from msgspec.structs import replace
from patience import fail_after
from pictures_helpers import Camera
from test_pushed_cameras import until

from edged.config.cameras import CameraSettings
from edged.mediamtx.settings import path_conf
from edged.mediamtx.sources import rpi
from edged.mediamtx.sources.rpi import Machine, find_missing, look

_PI = Machine("aarch64", "Raspberry Pi 4 Model B Rev 1.4", True, "rw,nosuid,nodev")


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (replace(_PI, processor="x86_64"), "its processor is x86_64, not ARM"),
        (replace(_PI, model="Orange Pi 5"), "no Raspberry Pi (Orange Pi 5)"),
        (replace(_PI, model=""), "it does not say its model"),
        (replace(_PI, is_raspberry_pi_os=False), "not Raspberry Pi OS"),
        (replace(_PI, shm_options="rw,nosuid,noexec"), "/dev/shm is mounted noexec"),
    ],
)
def test_what_a_machine_lacks_is_named(machine: Machine, said: str) -> None:
    missing = find_missing(machine)
    assert missing is not None
    assert missing.slug == "hardware"
    assert said in missing.sentence
    assert missing.remedy


def test_a_raspberry_pi_lacks_nothing_and_is_read_by_mediamtx(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_missing(_PI) is None
    monkeypatch.setattr(rpi, "look", lambda: _PI)
    conf = path_conf(Camera(kind="rpi", ribbon=1, width=1280, height=720, rate=15.0))
    assert (conf["source"], conf["rpiCameraCamID"], conf["sourceOnDemand"]) == ("rpiCamera", 1, True)
    assert (conf["rpiCameraWidth"], conf["rpiCameraHeight"], conf["runOnDemand"]) == (1280, 720, "")


def test_a_machine_is_looked_at(tmp_path: Path) -> None:
    for name, text in (
        ("proc/device-tree/model", "Raspberry Pi 5\0"), ("etc/rpi-issue", ""),
        ("proc/mounts", "tmpfs /dev/shm tmpfs rw,noexec 0 0\nx /y z ro 0 0\n"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = look(tmp_path)
    assert (found.model, found.is_raspberry_pi_os, found.shm_options) == ("Raspberry Pi 5", True, "rw,noexec")
    assert look(tmp_path / "nothing").model == ""


@pytest.mark.parametrize("source", ["rpi", "rpi:", "rpi:4", "rpi:00", "rpi:x"])
def test_which_camera_it_is_must_be_said(source: str) -> None:
    with pytest.raises(ValueError, match="source must be"):
        CameraSettings(name="x", source=source)


@pytest.mark.mediamtx
@pytest.mark.parametrize("is_pi", [False, True])
async def test_the_state_says_what_is_missing(tmp_path: Path, is_pi: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, and on what claims to be a Pi and has no camera: MediaMTX takes its settings and gives no picture."""
    monkeypatch.setattr(rpi, "look", lambda: _PI if is_pi else replace(_PI, processor="x86_64"))
    camera = CameraSettings(name="ribbon", source="rpi:0", mode="always", size="1280x720")
    config = msgspec.structs.replace(make_config(tmp_path, cameras=0, mediamtx=True), camera=(camera,))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            seen = await until(admin, "ERROR", seconds=20)
            assert ("MediaMTX gives no picture of it" if is_pi else "its processor is x86_64, not ARM") in seen[
                "problem"
            ]
            assert seen["resolution"] == "1280x720"
            _, key = await daemon.create_key("viewer")
            assert (await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=key)).status == 503
