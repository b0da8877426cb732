"""A player that has nothing but a URL: tickets through the running daemon and the real MediaMTX."""

from __future__ import annotations

import re
import socket
import subprocess
from datetime import datetime
from pathlib import Path
from urllib.parse import urljoin

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, free_port, make_config, port_of, running_daemon
from media_helpers import SDP
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused
from test_daemon_request_paths import announce

from edged.credentials import tokens
from edged.mediamtx.ffmpeg import find_ffmpeg

pytestmark = pytest.mark.ffmpeg


def path_of(url: str) -> str:
    return url.partition("//")[2].partition("/")[2]


async def play_url(url: str, port: int) -> RtspReader:
    """A viewer who was given a URL, and nothing else."""
    viewer = RtspReader(port, path_of(url))
    try:
        await viewer.play()
    except BaseException:
        await viewer.aclose()
        raise
    return viewer


async def hls(daemon: RunningDaemon, target: str) -> tuple[int, str]:
    """(status, text) of one HLS address, for a player that follows redirects and keeps no cookies."""
    for _ in range(4):
        reply = await daemon.request("GET", target, port=daemon.hls)
        if reply.status not in (301, 302, 307):
            break
        target = urljoin(f"http://127.0.0.1:{daemon.hls}{target}", reply.headers["location"]).partition("//")[2]
        target = "/" + target.partition("/")[2]
    return reply.status, reply.body.decode("utf-8", "replace")


@pytest.mark.mediamtx
async def test_a_player_with_only_a_url_watches_over_rtsp_until_the_key_is_revoked(tmp_path: Path) -> None:
    """The picture moves past the ticket's own end; another camera's path is refused; the revocation ends it."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            key_id, key = await daemon.create_key()
            made = await daemon.request("POST", "/api/tickets", key=key, body={"device": "camera0", "ttl": 5})
            url = made.json["url"]
            assert url.startswith(f"rtsp://127.0.0.1:{daemon.rtsp}/camera0?ticket=")
            viewer = await play_url(url, daemon.rtsp)
            await viewer.wait_packet()
            with pytest.raises(RtspRefused) as refused:
                await play_url(url.replace("camera0", "camera1"), daemon.rtsp)
            assert refused.value.status == 401
            again = await play_url(url, daemon.rtsp)
            await again.aclose()
            await trio.sleep(5.1)
            with pytest.raises(RtspRefused):
                await play_url(url, daemon.rtsp)
            await viewer.wait_packet()
            await daemon.revoke_key(key_id)
            with fail_after(2):
                await viewer.wait_end()
            await viewer.aclose()


@pytest.mark.mediamtx
async def test_a_player_with_only_a_url_watches_over_hls_until_the_key_is_revoked(tmp_path: Path) -> None:
    """Playlist and segments follow from the one URL; after the revocation both are refused."""
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            key_id, key = await daemon.create_key()
            made = await daemon.request("POST", "/api/tickets", key=key, body={"device": "camera0"})
            target = "/" + path_of(made.json["urls"]["hls"])
            status, playlist = await hls(daemon, target)
            assert status == 200, playlist
            name = next(line for line in playlist.splitlines() if line and not line.startswith("#"))
            inner = f"/camera0/{name}"
            status, media = await hls(daemon, inner)
            assert (status, "#EXTINF" in media or "#EXT-X-PART" in media) == (200, True), media
            assert (await hls(daemon, target.replace("camera0", "camera1")))[0] == 401
            await daemon.revoke_key(key_id)
            with fail_after(15):
                while (await hls(daemon, inner))[0] == 200:
                    await trio.sleep(0.05)
            assert (await hls(daemon, target))[0] == 401


@pytest.mark.mediamtx
async def test_ffmpeg_plays_the_urls_as_they_are(tmp_path: Path) -> None:
    """A real player, both protocols, nothing on its command line but the URL."""
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            urls = (await admin.call("create_ticket", device="camera0"))["urls"]
            for name in ("rtsp", "hls"):
                url = re.sub(r"//[^:/]+:", "//127.0.0.1:", urls[name])
                done = await ffmpeg("-i", url, "-frames:v", "3", "-f", "null", "-")
                assert done.returncode == 0, (name, done.stderr.decode()[-2000:])


@pytest.mark.mediamtx
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_ffmpeg_plays_and_publishes_by_rtmp_and_srt(tmp_path: Path, host: str) -> None:
    """The URLs of the two protocols that are off unless somebody wants them, as they are, over IPv4 and IPv6; a ticket
    to read does not publish, and what a ticket opened ends with the key that asked for it."""
    config = make_config(tmp_path, mediamtx=True)
    media = msgspec.structs.replace(
        config.mediamtx, rtmp=f"{host}:{free_port()}", srt=f"{host}:{free_port(socket.SOCK_DGRAM)}"
    )
    config = msgspec.structs.replace(config, mediamtx=media)
    with fail_after(120):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await daemon.wait_media()

            async def urls_for(action: str, key: str) -> dict[str, str]:
                body = {"device": "camera0", "action": action, "ttl": 600}
                asked = {"Host": f"{host}:{daemon.port}"}
                made = await daemon.request("POST", "/api/tickets", key=key, body=body, headers=asked)
                return {name: made.json["urls"][name] for name in ("rtmp", "srt")}

            reading = await urls_for("read", (await daemon.create_key("viewer"))[1])
            shown = (await admin.call("get_stream_url", device="camera0"))["streams"]
            assert {"rtmp", "srt"} < shown.keys()
            assert "ticket" not in str(shown)
            for name, url in reading.items():
                # RTMP does not say that there is no sound: ffmpeg would look for it for 5 s.
                done = await ffmpeg("-analyzeduration", "500k", "-i", url, "-frames:v", "3", "-f", "null", "-")
                assert done.returncode == 0, (name, done.stderr.decode()[-2000:])
            picture = ("-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10", "-c:v", "libx264", "-g", "10")
            for name, form in (("rtmp", "flv"), ("srt", "mpegts")):
                wrong = reading[name].replace("streamid=read:", "streamid=publish:")
                assert (await ffmpeg(*picture, "-frames:v", "20", "-f", form, wrong)).returncode != 0
                key_id, key = await daemon.create_key("admin")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ffmpeg, *picture, "-f", form, (await urls_for("publish", key))[name])
                    while not any(item["source"] == f"{name}Conn" for item in await admin.call("get_streams")):
                        await trio.sleep(0.05)
                    await daemon.revoke_key(key_id)


async def ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """One run of it, ended when this is cancelled."""
    return await trio.run_process(
        [str(find_ffmpeg()), "-hide_banner", "-nostdin", *arguments],
        capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.mediamtx
async def test_a_ticket_to_publish_is_for_whom_may_publish(tmp_path: Path) -> None:
    """A viewer gets none; an administrator's does not read."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=(await daemon.create_key("viewer"))[1])
                refused = await client.ask("create_ticket", device="camera0", action="publish")
                assert refused["error"]["data"]["reason"] == "permission_denied"
                await client.call("authenticate", auth_token=(await daemon.create_key("admin"))[1])
                made = await client.call("create_ticket", device="camera0", action="publish")
                assert list(made["urls"]) == ["rtsp", "whip"]
                with pytest.raises(RtspRefused):
                    await play_url(made["url"], daemon.rtsp)
                reading = (await client.call("create_ticket", device="camera0"))["ticket"]
                with pytest.raises(RtspRefused):
                    await publish(daemon, reading)
                await publish(daemon, made["ticket"])


async def publish(daemon: RunningDaemon, ticket: str) -> None:
    """ANNOUNCE with a ticket as password. Raises RtspRefused."""
    writer = RtspReader(daemon.rtsp, "camera0", "anybody", ticket)
    writer._stream = await trio.open_tcp_stream("127.0.0.1", daemon.rtsp)
    try:
        await announce(writer, SDP)
    finally:
        await writer.aclose()


@pytest.mark.mediamtx
async def test_webrtc_takes_a_ticket_and_addresses_hold_none_unasked(tmp_path: Path) -> None:
    """An offer that makes no sense is refused for what it is, once a ticket is shown; get_stream_url shows none."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            made = await admin.call("create_ticket", device="camera0")
            told = await admin.call("get_stream_url", device="camera0")
            assert "ticket" not in str(told)
            port = port_of((daemon.config.mediamtx.webrtc,))
            query = made["urls"]["webrtc"].partition("?")[2]
            headers = {"Content-Type": "application/sdp"}
            for camera, shown, refused in (("camera0", query, False), ("camera1", query, True), ("camera0", "", True)):
                reply = await daemon.request(
                    "POST", f"/{camera}/whep?{shown}", port=port, body="no offer", headers=headers
                )
                assert (reply.status == 401) is refused, (camera, reply)


async def token_in(client: Conversation, daemon: RunningDaemon, seconds: int) -> None:
    """Authenticate with a token of so many seconds."""
    secret = tokens.SharedSecret("test", Path(daemon.config.auth.shared_secrets["test"]).read_text())
    async with daemon.local() as admin:
        now = int(datetime.fromisoformat((await admin.call("get_clock"))["time"]).timestamp())
    claims = tokens.issue_claims("ada", role="viewer", now=now, expires_in=seconds)
    await client.call("authenticate", token=tokens.sign(claims, secret), auth_type="jwt")


@pytest.mark.mediamtx
@pytest.mark.slow
async def test_a_new_token_in_the_session_keeps_its_viewer_s_picture(tmp_path: Path) -> None:
    """The picture outlives the token by which its ticket was made, and ends with the one that followed. All before the
    deadline."""
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.websocket() as client:
            await daemon.wait_media()
            await token_in(client, daemon, 8)
            first = await client.call("create_ticket", device="camera0")
            kept = await play_url(first["url"], daemon.rtsp)
            async with daemon.websocket() as other:
                await token_in(other, daemon, 8)
                lost = await play_url((await other.call("create_ticket", device="camera0"))["url"], daemon.rtsp)
                await token_in(client, daemon, 20)
                with fail_after(15):
                    await lost.wait_end()
            await kept.wait_packet()
            with fail_after(30):
                await kept.wait_end()
            await kept.aclose()
            await lost.aclose()


async def test_no_other_method_takes_a_ticket(tmp_path: Path) -> None:
    """Neither authenticate by any of its names nor a stateless call; and what is refused is not told apart."""
    with fail_after(30):
        async with running_daemon(tmp_path, config=make_config(tmp_path)) as daemon, daemon.websocket() as client:
            async with daemon.local() as admin:
                ticket = (await admin.call("create_ticket", device="camera0"))["ticket"]
            for params in (
                {"auth_token": ticket},
                {"auth_token": ticket, "auth_type": "api_key"},
                {"auth_token": ticket, "auth_type": "jwt"},
            ):
                assert (await client.ask("authenticate", **params))["error"]["data"]["reason"] == "auth_failed"
            assert (await client.ask("get_camera_list", auth_token=ticket))["error"]["code"] == -32001
        async with running_daemon(tmp_path, config=make_config(tmp_path)) as daemon:
            reply = await daemon.request("GET", f"/api/cameras/camera0/live.mjpeg?ticket={ticket}")
            assert reply.status == 401, "a restart ends them all"
