"""Cameras that publish to their path themselves: a real daemon, a real MediaMTX, and ffmpeg as the camera."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, free_port, make_config, reason_of, running_daemon
from patience import fail_after

from edged import children
from edged.config.model import CameraSettings, Config

pytestmark = [pytest.mark.ffmpeg, pytest.mark.mediamtx]
_PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "10")
_FORMS = {"rtsp": ("-rtsp_transport", "tcp", "-f", "rtsp"), "rtmp": ("-f", "flv"), "srt": ("-f", "mpegts")}
#: What is said of a stream is true within so many seconds.
_TRUE_SECONDS = 10


def pushed_config(folder: Path) -> Config:
    """A box with one pushed camera, over every protocol that ffmpeg publishes by, and one test picture."""
    config = make_config(folder, cameras=0, mediamtx=True)
    media = msgspec.structs.replace(
        config.mediamtx, rtmp=f"127.0.0.1:{free_port()}", srt=f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    )
    cameras = (CameraSettings(name="drone", source="push"), CameraSettings(name="test 1", source="test"))
    return msgspec.structs.replace(config, mediamtx=media, camera=cameras)


@asynccontextmanager
async def pushing(url: str, form: str, *source: str) -> AsyncIterator[children.Child]:
    """ffmpeg as OBS does it: it publishes at this URL until the block ends, unless it is refused."""
    arguments = [
        "ffmpeg",
        "-nostdin",
        "-loglevel",
        "error",
        "-re",
        *(source or (*_PICTURE, *_H264)),
        *_FORMS[form],
        url,
    ]
    spawn = partial(children.spawn, environment=dict(os.environ), landlock=None, stdout=False, stderr=False)
    async with spawn(arguments) as child:
        yield child


async def be_refused(url: str, form: str) -> None:
    """A sender that ends by itself, since it may not publish at this URL."""
    async with pushing(url, form) as child:
        with fail_after(30):
            assert await child.wait() != 0


async def urls_for(daemon: RunningDaemon, key: str, device: str = "camera0", action: str = "publish") -> Any:
    body = {"device": device, "action": action, "ttl": 600}
    asked = {"Host": f"127.0.0.1:{daemon.port}"}
    return (await daemon.request("POST", "/api/tickets", key=key, body=body, headers=asked)).json["urls"]


async def until(client: Conversation, status: str, *, seconds: float = _TRUE_SECONDS, device: str = "camera0") -> Any:
    """The whole state, once the status is this."""
    with fail_after(seconds):
        while (found := await client.call("get_camera_status", device=device))["status"] != status:
            await trio.sleep(0.05)
    return found


@pytest.mark.parametrize("form", list(_FORMS))
async def test_whoever_has_the_right_publishes_and_nobody_else(tmp_path: Path, form: str) -> None:
    """What is said is true within 10 s: before, while it comes, while its sender is frozen, and afterwards."""
    with fail_after(120):
        async with running_daemon(tmp_path, config=pushed_config(tmp_path)) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            gone = await until(admin, "DISCONNECTED")
            assert "nobody publishes to its path: send there with a credential" in gone["problem"]
            _, reader = await daemon.create_key("viewer")
            _, other = await daemon.create_key("viewer", streams={"read": ["camera0"], "publish": ["camera1"]})
            _, good = await daemon.create_key("viewer", streams={"read": ["camera0"], "publish": ["camera0"]})
            url = (await urls_for(daemon, good))[form]
            bare = url.rpartition(":x:")[0] + ":x:" if form == "srt" else url.partition("?")[0] + "?jwt="
            async with trio.open_nursery() as nursery:
                for wrong in (reader, other, "", good + "x"):
                    nursery.start_soon(be_refused, bare + wrong, form)
            assert (await admin.call("get_camera_status", device="camera0"))["status"] == "DISCONNECTED"
            async with pushing(url, form) as child:
                there = await until(admin, "CONNECTED")
                assert (there["problem"], there["resolution"]) == ("", "160x120")
                picture = await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=reader)
                assert picture.body.startswith(b"\xff\xd8")
                child.send_signal(signal.SIGSTOP)
                still = await until(admin, "DISCONNECTED")
                assert still["problem"].startswith(("its stream stands still", "nobody publishes to its path"))
            gone = await until(admin, "DISCONNECTED")
            assert (await daemon.request("GET", "/api/cameras/camera0/snapshot.jpg", key=reader)).status == 503
            async with pushing(url, form):
                assert (await until(admin, "CONNECTED"))["problem"] == ""
            await until(admin, "DISCONNECTED")


async def test_one_publishes_and_only_the_same_identity_replaces_it(tmp_path: Path) -> None:
    """Another key with the right is refused as long as the stream is there, over every protocol; its own sender comes
    back over another one."""
    with fail_after(120):
        async with running_daemon(tmp_path, config=pushed_config(tmp_path)) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            _, first = await daemon.create_key("admin")
            _, second = await daemon.create_key("admin")
            urls, others = await urls_for(daemon, first), await urls_for(daemon, second)
            async with pushing(urls["rtsp"], "rtsp") as before:
                await until(admin, "CONNECTED")
                async with trio.open_nursery() as nursery:
                    for form in _FORMS:
                        nursery.start_soon(be_refused, others[form], form)
                assert (await admin.call("get_camera_status", device="camera0"))["status"] == "CONNECTED"
                assert before.returncode is None
                async with pushing(urls["rtmp"], "rtmp"):
                    with fail_after(30):
                        assert await before.wait() != 0
                    while not any(each["source"] == "rtmpConn" for each in await admin.call("get_streams")):
                        await trio.sleep(0.05)
                    await until(admin, "CONNECTED")
            await until(admin, "DISCONNECTED")
            # Its session is listed for two seconds more.
            while any(each["transport"] == "rtmp" for each in (await admin.call("list_sessions"))["sessions"]):
                await trio.sleep(0.05)
            async with pushing(others["srt"], "srt"):
                await until(admin, "CONNECTED")


#: What a browser offers that sends H264 by WHIP (RFC 9725).
_OFFER = """v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 99
c=IN IP4 127.0.0.1
a=sendonly
a=mid:0
a=rtcp-mux
a=rtpmap:99 H264/90000
a=fmtp:99 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=ice-ufrag:MVgl
a=ice-pwd:ErDbO1KlIXNIKf1TtY8IgJ
a=fingerprint:sha-256 59:0D:16:8F:5B:AF:8F:58:CA:8B:14:09:DC:F2:DA:01:A0:E4:99:F7:B1:03:44:1C:7C:A4:5F:71:69:52:71:72
a=setup:actpass
"""


async def test_whip_asks_for_the_right_as_well(tmp_path: Path) -> None:
    """Its offers alone: no ffmpeg of Debian's sends by it. One that never sends a picture is no stream."""
    with fail_after(60):
        async with running_daemon(tmp_path, config=pushed_config(tmp_path)) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            _, good = await daemon.create_key("admin")
            _, reader = await daemon.create_key("viewer")
            host, _, target = (await urls_for(daemon, good))["whip"].removeprefix("http://").partition("/")
            path = target.partition("?")[0]
            assert path == "camera0/whip"

            def exchange(query: str) -> int:
                kind = {"Content-Type": "application/sdp"}
                with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
                    connection.request("POST", f"/{path}?{query}", _OFFER.replace("\n", "\r\n"), kind)
                    return connection.getresponse().status

            async def offer(query: str) -> int:
                return await trio.to_thread.run_sync(exchange, query, abandon_on_cancel=True)

            found: dict[str, int] = {}

            async def note(query: str) -> None:
                found[query] = await offer(query)

            async with trio.open_nursery() as nursery:
                for query in ("", f"jwt={reader}", f"jwt={good}x"):
                    nursery.start_soon(note, query)
            assert set(found.values()) == {401}
            assert await offer(target.partition("?")[2]) == 201
            assert (await admin.call("get_camera_status", device="camera0"))["status"] == "DISCONNECTED"


async def test_a_stream_without_video_is_named(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, config=pushed_config(tmp_path)) as daemon, daemon.local() as admin:
        with fail_after(60):
            await daemon.wait_media()
            url = (await urls_for(daemon, (await daemon.create_key("admin"))[1]))["srt"]
            async with pushing(url, "srt", "-f", "lavfi", "-i", "sine=frequency=440", "-c:a", "aac"):
                assert "it sends no video" in (await until(admin, "ERROR"))["problem"]
            await until(admin, "DISCONNECTED")


async def test_a_call_adds_one_which_survives_a_restart_and_is_seen_by_whom_may(tmp_path: Path) -> None:
    """Two have the same source; each is its own camera, and a removed one's number is not another's."""
    config = pushed_config(tmp_path)
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            made = [await admin.call("add_camera", name=name, source="push") for name in ("phone", "tablet")]
            assert [each["device"] for each in made] == ["camera2", "camera3"]
            assert made[0]["source"] == "push"
            await admin.call("remove_camera", device="camera3")
            assert (await admin.call("add_camera", name="laptop", source="push"))["device"] == "camera4"
            assert (await admin.call("update_camera", device="camera2", path="field"))["stream_name"] == "field"
            assert await reason_of(admin, "add_camera", name="x", source="pushed") == "invalid_params"
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            names = {each["device"]: each["name"] for each in (await admin.call("get_camera_list"))["cameras"]}
            assert names == {"camera0": "drone", "camera1": "test 1", "camera2": "phone", "camera4": "laptop"}
            _, key = await daemon.create_key("admin", camera_access=["camera2"])
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                shown = (await client.call("get_camera_list"))["cameras"]
                assert [each["device"] for each in shown] == ["camera2"]
            url = (await urls_for(daemon, key, "camera2"))["rtsp"]
            assert "/field?" in url
            async with pushing(url, "rtsp"):
                await until(admin, "CONNECTED", device="camera2")
                async with trio.open_nursery() as nursery:
                    for elsewhere in ("camera0", "camera4", "nothing"):
                        nursery.start_soon(be_refused, url.replace("/field?", f"/{elsewhere}?"), "rtsp")
            await until(admin, "DISCONNECTED", device="camera2")
