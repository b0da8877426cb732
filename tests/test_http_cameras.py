"""Cameras with a web server in the running daemon: their state is true within 10 s, and says why."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
import trio
from daemon_helpers import make_config, reason_of, running_daemon
from mjpeg_server import PASSWORD, USER, Web, make_jpegs, serving
from patience import fail_after
from pictures_helpers import command_lines
from test_pushed_cameras import until

from edged.config.model import CameraSettings, Config, SourceSettings

pytestmark = [pytest.mark.ffmpeg, pytest.mark.mediamtx]
_LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"


def http_config(folder: Path, url: str, **settings: object) -> Config:
    camera = CameraSettings(name="gate", source=url, **settings)  # type: ignore[arg-type]
    return msgspec.structs.replace(make_config(folder, cameras=0, mediamtx=True), camera=(camera,))


@pytest.mark.parametrize("mood", ["good", "still"])
async def test_what_is_said_of_it_is_true(tmp_path: Path, mood: str) -> None:
    """While it is watched: there, wrong password, no pictures, standing still, dead, and back; and nowhere stands its
    password."""
    web = Web(make_jpegs(size="161x121"), mood, "digest")
    with fail_after(150):
        async with serving(web) as web:
            config = http_config(tmp_path, f"http://{_LOGIN}127.0.0.1:{web.port}/x", mode="always", still_seconds=0.2)
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                await daemon.wait_media()
                there = await until(admin, "CONNECTED")
                while there["resolution"] == "unknown" or not there["metrics"]["uptime"]:
                    there = await admin.call("get_camera_status", device="camera0")
                    await trio.sleep(0.1)
                assert there["resolution"] == "161x121"
                assert PASSWORD not in command_lines()
                _, key = await daemon.create_key("viewer")
                picture = await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=key)
                assert picture.body.startswith(b"\xff\xd8")
                for wrong, status, said in (
                    ("page", "ERROR", "what is at its address is no picture"),
                    ("503", "DISCONNECTED", "its web server does not answer as it should"),
                    ("302", "ERROR", "leads to another address, which is not followed"),
                    ("silent", "DISCONNECTED", "no byte came from it in time"),
                ):
                    web.mood = wrong
                    web.hang_up()
                    seen = await until(admin, status, seconds=18 if wrong == "silent" else 10)
                    while said not in seen["problem"]:
                        seen = await admin.call("get_camera_status", device="camera0")
                        await trio.sleep(0.05)
                web.mood = mood
                web.hang_up()
                assert (await until(admin, "CONNECTED"))["problem"] == ""
                web.login = "basic"
                web.hang_up()
                await trio.sleep(1)
                assert (await until(admin, "CONNECTED"))["problem"] == ""
        log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
        assert PASSWORD not in log


async def test_one_that_stands_still_is_named(tmp_path: Path) -> None:
    async with serving(Web(make_jpegs())) as web:
        config = http_config(tmp_path, f"http://127.0.0.1:{web.port}/", mode="always")
        with fail_after(60):
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                await daemon.wait_media()
                while not (await admin.call("get_camera_status", device="camera0"))["metrics"]["uptime"]:
                    await trio.sleep(0.1)
                web.mood = "stalls"
                web.hang_up()
                seen = await until(admin, "DISCONNECTED")
                assert re.search("stands still|no byte came", seen["problem"])


async def test_on_demand_it_is_read_while_somebody_looks(tmp_path: Path) -> None:
    """A snapshot needs no ffmpeg; afterwards nobody is connected to the camera."""
    async with serving(Web(make_jpegs(), "still")) as web:
        config = http_config(tmp_path, f"http://127.0.0.1:{web.port}/", still_seconds=0.1)
        with fail_after(60):
            async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
                await until(admin, "CONNECTED")
                _, key = await daemon.create_key("viewer")
                picture = await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=key)
                assert picture.body in web.jpegs
                asked = 0
                while asked < len(web.requests):
                    asked = len(web.requests)
                    await trio.sleep(1)


async def test_an_added_one_is_judged_by_where_it_is(tmp_path: Path) -> None:
    """This box itself and link-local addresses are refused, unless the settings allow them; a redirect to one is not
    followed."""
    config = msgspec.structs.replace(
        make_config(tmp_path, cameras=0, mediamtx=True), sources=SourceSettings(also_allowed=("127.0.0.2/32",))
    )
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            for host in (
                "127.0.0.1",
                "localhost",
                "[::1]",
                "169.254.169.254",
                "224.0.0.1",
                "0.0.0.0",
                "[::ffff:127.0.0.1]",
            ):
                for scheme in ("http", "https"):
                    assert (
                        await reason_of(admin, "add_camera", name="x", source=f"{scheme}://{host}/") == "invalid_params"
                    )
            made = await admin.call(
                "add_camera", name="x", source="http://u:secret@127.0.0.2:9/?pwd=y", still_seconds=2
            )
            assert made["source"] == "http://***@127.0.0.2:9/?pwd=***"
            assert made["still_seconds"] == 2
            assert "nothing listens" in (await until(admin, "DISCONNECTED"))["problem"]
            assert await reason_of(admin, "update_camera", device="camera0", still_seconds=0) == "invalid_params"
