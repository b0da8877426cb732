"""Who may not see a camera cannot tell one that is there from one that is not, over any protocol of MediaMTX."""

from __future__ import annotations

import http.client
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, make_config, port_of, running_daemon
from media_helpers import SDP, open_rtsp
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused
from test_revocation import OFFER, basic

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg]
NAMES = ("camera0", "camera7", "front_dock")


async def ask_rtsp(daemon: RunningDaemon, method: str, path: str, password: str = "") -> int:
    headers = {"Authorization": basic(password)} if password else {}
    async with open_rtsp(daemon.rtsp, path) as client:
        return await client.ask(method, body=SDP if method == "ANNOUNCE" else "", **headers)


async def ask_http(port: int, method: str, target: str, password: str = "") -> int:
    def exchange() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        head = {"Authorization": basic(password)} if password else {}
        try:
            if method == "POST":
                connection.request("POST", target, OFFER.encode(), {**head, "Content-Type": "application/sdp"})
            else:
                connection.request("GET", target, headers={**head, "Cookie": "cookieCheck=1"})
            with connection.getresponse() as response:
                response.read()
                return response.status
        finally:
            connection.close()

    return await trio.to_thread.run_sync(exchange, abandon_on_cancel=True)


async def probe(daemon: RunningDaemon, path: str, password: str) -> list[int]:
    """The status of each way to ask for a path."""
    webrtc = port_of((daemon.config.mediamtx.webrtc,))
    statuses = [-1] * 6

    async def note(place: int, status: object) -> None:
        statuses[place] = await status  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        for place, status in enumerate(
            (
                ask_rtsp(daemon, "DESCRIBE", path, password),
                ask_rtsp(daemon, "ANNOUNCE", path, password),
                ask_http(daemon.hls, "GET", f"/{path}/index.m3u8?cookieCheck=1", password),
                ask_http(daemon.hls, "GET", f"/{path}/", password),
                ask_http(webrtc, "POST", f"/{path}/whep", password),
                ask_http(webrtc, "GET", f"/{path}/", password),
            )
        ):
            nursery.start_soon(note, place, status)
    return statuses


async def test_without_rights_every_name_is_answered_alike(tmp_path: Path) -> None:
    """No credential, a wrong one, and a good one for another camera: the same for a known and for an unknown name."""
    config = make_config(tmp_path, mediamtx=True, cameras=2)
    with fail_after(85):
        async with running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            _, other = await daemon.create_key("viewer", camera_access=["camera1"])
            for password in ("", "wrong", other):
                found = {name: await probe(daemon, name, password) for name in NAMES}
                assert found["camera0"] == found["camera7"] == found["front_dock"], password
                assert set(found["camera0"]) == {401}


async def test_who_may_see_everything_is_told_that_there_is_no_stream(tmp_path: Path) -> None:
    """And nobody publishes to a name that is no camera's, whatever rights they have."""
    config = make_config(tmp_path, mediamtx=True, cameras=1)
    camera = msgspec.structs.replace(config.camera[0], mode="always")
    config = msgspec.structs.replace(config, camera=(camera,))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            _, key = await daemon.create_key("admin")
            reader = RtspReader(daemon.rtsp, "camera7", "viewer", key)
            with pytest.raises(RtspRefused) as refused:
                await reader.play()
            assert refused.value.status == 404
            await reader.aclose()
            assert await ask_rtsp(daemon, "ANNOUNCE", "camera7", key) == 401
            assert {each["name"] for each in await admin.call("get_streams")} <= {"camera0"}
