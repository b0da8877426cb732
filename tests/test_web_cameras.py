"""Cameras by plain HTTP and on the command line: the list, one camera, a still image, the box's status, the page."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fork_server
import pytest
import trio
from daemon_helpers import make_config, running_daemon
from patience import fail_after

import edged
from edged.web.pages import ROUTES

ROOT = Path(__file__).parent.parent
#: Of the package that is imported: it may be the installed one.
STATIC = Path(edged.__file__).parent / "web/static"


async def test_the_list_shows_what_the_caller_may_see(tmp_path: Path) -> None:
    """In the words of the contract; totals count the same."""
    async with running_daemon(tmp_path) as daemon:
        _, viewer = await daemon.create_key(camera_access=["camera1"])
        reply = await daemon.request("GET", "/api/cameras", key=viewer)
        assert reply.status == 200
        assert reply.json.keys() == {"status", "timestamp", "cameras", "total", "connected"}
        assert [(each["device"], each["device_path"]) for each in reply.json["cameras"]] == [("camera1", "camera1")]
        assert (reply.json["total"], reply.json["connected"]) == (1, 1)
        assert (await daemon.request("GET", "/api/cameras")).status == 401
        assert (await daemon.request("GET", "/api/cameras/camera0", key=viewer)).status == 404
        one = await daemon.request("GET", "/api/cameras/camera1", key=viewer)
        assert (one.status, one.json["name"], one.json["status"]) == (200, "test 1", "CONNECTED")


async def test_the_box_s_status_is_one_request(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon:
        _, viewer = await daemon.create_key()
        reply = await daemon.request("GET", "/api/status", key=viewer)
        assert (reply.status, reply.json["available_cameras"]) == (200, ["camera0", "camera1"])
        assert (await daemon.request("GET", "/api/status")).status == 401


@pytest.mark.ffmpeg
async def test_a_still_image_is_a_url(tmp_path: Path) -> None:
    """A JPEG of now by key, token or ticket; nothing is kept, HEAD takes none, a camera that is gone says so."""
    with fail_after(40):
        async with running_daemon(tmp_path) as daemon:
            _, viewer = await daemon.create_key(camera_access=["camera0"])
            picture = await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=viewer)
            assert (picture.status, picture.headers["content-type"]) == (200, "image/jpeg")
            assert picture.headers["cache-control"] == "no-store"
            assert picture.body[:2] == b"\xff\xd8"
            assert len(picture.body) == int(picture.headers["content-length"])
            head = await daemon.request("HEAD", "/api/cameras/camera0/snapshot.jpg", key=viewer)
            assert (head.status, head.headers["content-type"], head.body) == (200, "image/jpeg", b"")
            made = await daemon.request("POST", "/api/tickets", key=viewer, body={"device": "camera0"})
            small = await daemon.request(
                "GET", f"/api/cameras/camera0/snapshot.jpg?quality=1&ticket={made.json['ticket']}"
            )
            assert small.status == 200
            assert len(small.body) < len(picture.body)
            for path, status in (("camera0/snapshot.jpg?quality=0", 400), ("camera1/snapshot.jpg", 404)):
                assert (await daemon.request("GET", f"/api/cameras/{path}", key=viewer)).status == status
            assert (await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg")).status == 401
            daemon.plug(0).unlink()
            async with daemon.local() as local:
                while (await local.call("get_camera_status", device="camera0"))["status"] == "CONNECTED":
                    await trio.sleep(0.05)
            assert (await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=viewer)).status == 503
            assert not list((daemon.config.snapshots.folder).glob("*"))


@pytest.mark.ffmpeg
async def test_a_revoked_key_gets_no_picture_that_it_asked_for_before(tmp_path: Path) -> None:
    """The picture takes a moment; whoever has lost the right meanwhile is told so instead."""
    with fail_after(40):
        async with running_daemon(tmp_path) as daemon:
            key_id, viewer = await daemon.create_key()
            async with daemon.local() as local:
                asked: list[Any] = []

                async def ask() -> None:
                    asked.append(await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=viewer))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask)
                    while len((await local.call("list_sessions"))["sessions"]) < 2:
                        await trio.sleep(0.01)
                    await local.call("revoke_key", key_id=key_id)
            (reply,) = asked
            assert (reply.status, reply.json["code"]) == (401, "revoked")


async def test_the_page_is_for_browsers_and_leaves_nothing_to_others(tmp_path: Path) -> None:
    """Open to everybody, since it shows nothing by itself; no code may run in it but the box's own file."""
    async with running_daemon(tmp_path, cameras=1) as daemon:
        for route in ROUTES:
            reply = await daemon.request("GET", route.path)
            assert reply.status == 200
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["referrer-policy"] == "no-referrer"
        page = (await daemon.request("GET", "/")).body.decode()
        wanted = set(re.findall(r'(?:src|href)="([^"]*)"', page))
        assert wanted == {route.path for route in ROUTES} - {"/"}
        async with daemon.websocket() as client:
            assert await client.call("ping") == "pong"


def test_the_page_asks_nobody_else_and_keeps_the_key_nowhere() -> None:
    """No address of another host, no inline code or style, no storage, and no key in a URL."""
    for path in STATIC.iterdir():
        text = path.read_text()
        asked = re.sub(r'xmlns="[^"]*"', "", text)
        assert not re.search(r"(?:https?:)?//(?!\s)[a-z0-9.-]+\.[a-z]{2,}", asked), path
        assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie|innerHTML|eval\(", text), path
    page = (STATIC / "page.html").read_text()
    assert not re.search(r"<script>|<style|\son[a-z]+=|\sstyle=", page)
    assert not re.search(r"\?[a-z]+=\$\{key\}|key=\$\{", (STATIC / "page.js").read_text())


@dataclass
class Ran:
    code: int
    out: str
    err: str


async def run_command(socket: str, *words: str, stdin: str = "") -> Ran:
    """`edged …` as a child, since this process writes the daemon's log."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    run = partial(fork_server.run, stdin=stdin.encode())
    done = await trio.to_thread.run_sync(run, ["-m", "edged", *words], {**environment, "EDGED_SOCKET": socket})
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_cameras_on_the_command_line(tmp_path: Path) -> None:
    """List, show, add with a password from standard input, change, remove; and the box's status."""
    async with running_daemon(tmp_path, config=make_config(tmp_path, cameras=1)) as daemon:
        run = partial(run_command, daemon.config.listen.unix)
        assert (await run("status")).out.splitlines()[0].split() == ["status", "ready"]
        assert "test 0" in (await run("camera", "list")).out
        made = await run(
            "camera", "add", "Gate", "rtsp://192.0.2.7/s", "--user", "ann", "--password-stdin", "--path", "gate",
            "--json", stdin="planted/#secret\n",
        )  # fmt: skip
        assert made.code == 0, made.err
        assert json.loads(made.out)["device"] == "camera1"
        assert "planted" not in made.out
        shown = await run("camera", "show", "gate")
        assert shown.code == 0
        assert "camera1" in shown.out
        assert "planted" not in shown.out
        assert (await run("camera", "set", "gate", "--name", "Yard")).code == 0
        assert (await run("camera", "set", "gate", "--source", "-", stdin="rtsp://a:b@192.0.2.8/\n")).code == 0
        told = await run("camera", "add", "Two", "rtsp://ann:planted@192.0.2.7/s")
        assert told.code == 2
        assert "can read a password" in told.err
        assert "planted" not in told.err
        assert (await run("camera", "remove", "gate")).code == 0
        assert (await run("camera", "remove", "gate")).code == 1
