"""Four requests from client to camera through the running daemon, on real parts, and what must hold at each step."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, ended, make_config, running_daemon
from media_helpers import SDP
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused

from edged.credentials import tokens

pytestmark = pytest.mark.ffmpeg


async def test_a_key_opens_the_cameras_over_a_websocket(tmp_path: Path) -> None:
    """A new key authenticates at once, and sees both cameras."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            _, key = await daemon.create_key()
            async with daemon.websocket() as client:
                answer = await client.call("authenticate", auth_token=key)
                assert answer["role"] == "viewer"
                listed = await client.call("get_camera_list")
                assert [row["device"] for row in listed["cameras"]] == ["camera0", "camera1"]
                assert listed["connected"] == listed["total"] == 2


async def test_a_token_signed_with_the_shared_secret_is_good(tmp_path: Path) -> None:
    """Guide S1's claims, signed by somebody who knows the secret, open a v1 session on port 8080's listener."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            secret = tokens.SharedSecret("test", Path(daemon.config.auth.shared_secrets["test"]).read_text())
            now = int(time.time())
            token = tokens.sign({"user_id": "installer", "role": "operator", "iat": now, "exp": now + 60}, secret)
            async with daemon.websocket() as client:
                answer = await client.call("authenticate", token=token, auth_type="jwt")
                assert answer["authenticated"] is True
                assert answer["role"] == "operator"


async def test_a_stranger_gets_nothing(tmp_path: Path) -> None:
    """Without a credential, and with one nobody made, every endpoint says no in its own words."""
    wrong = "camera_service_sk_" + "0" * 64
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            async with daemon.websocket() as client:
                assert (await client.ask("get_camera_list"))["error"]["code"] == -32001
                assert (await client.ask("authenticate", auth_token=wrong))["error"]["code"] == -32001
                assert (await client.call("ping")) == "pong"
            assert (await daemon.request("GET", "/api/cameras/camera0/live.mjpeg")).status == 401
            assert (await daemon.request("GET", "/api/keys", key=wrong)).status == 401
            assert (await daemon.request("GET", "/metrics")).status == 401


async def test_a_snapshot_is_taken_kept_and_fetched(tmp_path: Path) -> None:
    """The picture that a call made is there under the address that the call named, and is a JPEG."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            _, key = await daemon.create_key("operator")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                taken = await client.call("take_snapshot", device="camera0")
            got = await daemon.request("GET", taken["download_url"], key=key)
            assert got.status == 200
            assert got.body[:2] == b"\xff\xd8"
            assert len(got.body) == taken["file_size"]


async def test_a_camera_that_is_unplugged_is_told_and_comes_back(tmp_path: Path) -> None:
    """Subscribers hear DISCONNECTED and CONNECTED, and the list agrees."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            _, key = await daemon.create_key()
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                await client.call("subscribe_events", topics=["camera_status_update"])
                daemon.plug(1).unlink()
                news = await client.hear("camera_status_update")
                assert (news["device"], news["status"]) == ("camera1", "DISCONNECTED")
                assert (await client.call("get_camera_list"))["connected"] == 1
                daemon.plug(1).touch()
                news = await client.hear("camera_status_update")
                assert (news["device"], news["status"]) == ("camera1", "CONNECTED")


async def test_a_key_for_one_camera_sees_one_camera(tmp_path: Path) -> None:
    """The other is not in the list, not in its totals, and not found: nobody learns that it is there."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            _, key = await daemon.create_key("operator", camera_access=["camera1"])
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                listed = await client.call("get_camera_list")
                assert [row["device"] for row in listed["cameras"]] == ["camera1"]
                assert listed["total"] == 1
                foreign = await client.ask("take_snapshot", device="camera0")
                absent = await client.ask("take_snapshot", device="camera7")
                assert foreign["error"]["code"] == absent["error"]["code"] == -32010
                assert foreign["error"]["message"] == absent["error"]["message"]
            assert (await daemon.request("GET", "/api/cameras/camera0/live.mjpeg", key=key)).status == 404


async def test_a_revoked_key_ends_its_session_and_its_picture(tmp_path: Path) -> None:
    """The WebSocket is closed with 4401, the picture ends, and nothing opens again."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            key_id, key = await daemon.create_key()
            async with daemon.websocket() as client, trio.open_nursery() as nursery:
                await client.call("authenticate", auth_token=key)
                seen, over = trio.Event(), trio.Event()
                nursery.start_soon(watch_picture, daemon, key, seen, over)
                await seen.wait()
                await daemon.revoke_key(key_id)
                assert await ended(client) == 4401
                await over.wait()
            assert (await daemon.request("GET", "/api/cameras/camera0/live.mjpeg", key=key)).status == 401


async def watch_picture(daemon: RunningDaemon, key: str, seen: trio.Event, over: trio.Event) -> None:
    """Read live.mjpeg until it ends."""
    token = trio.lowlevel.current_trio_token()

    def read() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        connection.request("GET", "/api/cameras/camera0/live.mjpeg", headers={"X-API-Key": key})
        with connection.getresponse() as response:
            assert response.status == 200
            try:
                while data := response.read1(65536):
                    if b"\xff\xd8" in data:
                        token.run_sync_soon(seen.set)
            except http.client.IncompleteRead:
                pass
        connection.close()

    await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    over.set()


async def test_a_session_that_revokes_its_own_key_gets_its_answer_first(tmp_path: Path) -> None:
    """The reply comes, then the close."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            key_id, key = await daemon.create_key("admin")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                assert (await client.call("revoke_key", key_id=key_id))["key_id"] == key_id
                assert await ended(client) == 4401


async def test_keys_and_revocations_outlive_the_daemon(tmp_path: Path) -> None:
    """After a restart a key is still good and a revoked one still is not."""
    config = make_config(tmp_path)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            _, good = await daemon.create_key()
            bad_id, bad = await daemon.create_key()
            await daemon.revoke_key(bad_id)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            assert (await client.ask("authenticate", auth_token=bad))["error"]["data"]["reason"] == "revoked"
            assert (await client.call("authenticate", auth_token=good))["authenticated"] is True


async def test_without_mediamtx_the_box_says_so_and_goes_on(tmp_path: Path) -> None:
    """A missing binary is a state with a remedy; snapshots come straight from the source."""
    config = make_config(tmp_path, mediamtx=True)
    server = msgspec.structs.replace(config.mediamtx, binary=str(tmp_path / "nowhere" / "mediamtx"))
    config = msgspec.structs.replace(config, mediamtx=server)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            _, key = await daemon.create_key("operator")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                status = await client.call("get_system_status")
                assert status["mediamtx"]["status"] == "missing"
                assert "get-mediamtx" in status["mediamtx"]["remedy"]
                assert (await client.call("take_snapshot", device="camera0"))["success"] is True
                assert (await client.call("get_stream_url", device="camera0"))["available"] is False


@pytest.mark.mediamtx
async def test_a_viewer_with_a_key_watches_over_rtsp_until_it_is_revoked(tmp_path: Path) -> None:
    """The picture moves, the revocation ends it, and the same key opens nothing any more."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            key_id, key = await daemon.create_key()
            viewer = RtspReader(daemon.rtsp, "camera0", "viewer", key)
            await viewer.play()
            await viewer.wait_packet()
            await daemon.revoke_key(key_id)
            with fail_after(1):
                await viewer.wait_end()
            await viewer.aclose()
            again = RtspReader(daemon.rtsp, "camera0", "viewer", key)
            with pytest.raises(RtspRefused):
                await again.play()
            await again.aclose()


@pytest.mark.mediamtx
@pytest.mark.parametrize("password", ["", "camera_service_sk_" + "0" * 64])
async def test_a_viewer_without_a_key_sees_nothing_over_rtsp(tmp_path: Path, password: str) -> None:
    """401, whether nothing or something wrong was shown."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            viewer = RtspReader(daemon.rtsp, "camera0", "viewer", password)
            with pytest.raises(RtspRefused) as refused:
                await viewer.play()
            assert refused.value.status == 401
            await viewer.aclose()


@pytest.mark.mediamtx
async def test_a_key_for_one_camera_opens_one_stream(tmp_path: Path) -> None:
    """camera_access holds at MediaMTX's endpoint as well."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            _, key = await daemon.create_key(camera_access=["camera1"])
            mine, foreign = (RtspReader(daemon.rtsp, name, "viewer", key) for name in ("camera1", "camera0"))
            await mine.play()
            await mine.wait_packet()
            with pytest.raises(RtspRefused):
                await foreign.play()
            await mine.aclose()
            await foreign.aclose()


@pytest.mark.mediamtx
async def test_nobody_can_publish_with_a_viewers_key_or_a_used_secret(tmp_path: Path) -> None:
    """ANNOUNCE with a viewer's key is refused: cameras are published by edged alone."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            _, key = await daemon.create_key("operator")
            writer = RtspReader(daemon.rtsp, "camera0", "viewer", key)
            writer._stream = await trio.open_tcp_stream("127.0.0.1", daemon.rtsp)
            with pytest.raises(RtspRefused) as refused:
                await announce(writer, SDP)
            assert refused.value.status == 401
            await writer.aclose()


async def announce(writer: RtspReader, sdp: str) -> None:
    """ANNOUNCE with a body, which RtspReader.request has no use for."""
    login = base64.b64encode(f"{writer.user}:{writer.password}".encode()).decode()
    head = (
        f"ANNOUNCE {writer.url} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: Basic {login}\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n"
    )
    await writer.stream.send_all((head + sdp).encode())
    await writer._read_answer("ANNOUNCE")


async def test_metrics_show_the_stranger_and_name_nobody(tmp_path: Path) -> None:
    """A wrong key moves its series; no series holds a key, an address or a name; not more than 500 series."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            for _ in range(5):
                _, key = await daemon.create_key()
            port = int(daemon.config.listen.local[0].rpartition(":")[2])
            before = (await daemon.request("GET", "/metrics", port=port)).body.decode()
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                await client.ask("authenticate", auth_token="camera_service_sk_" + "1" * 64)
            after = (await daemon.request("GET", "/metrics", port=port)).body.decode()
            line = 'edged_auth_failures_total{method="api_key",reason="unknown_key",transport="ws"}'
            assert f"{line} 0.0" in before
            assert f"{line} 1.0" in after
            series = [text for text in after.splitlines() if text and not text.startswith("#")]
            assert len(series) <= 500
            assert len(series) == len([text for text in before.splitlines() if text and not text.startswith("#")])
            assert key not in after
            assert "127.0.0.1" not in after


async def test_the_documented_curl_makes_a_key_without_a_credential_for_root(tmp_path: Path) -> None:
    """Guide S1's line works for root on loopback, and not once a proxy or a browser stands in between."""
    body = {"name": "Service Key", "role": "operator"}
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon:
            made = await daemon.request("POST", "/api/keys", body=body)
            assert made.status == (201 if os.geteuid() == 0 else 401)
            if made.status == 201:
                assert made.json["key_id"].startswith("key_")
                assert made.json["created_at"].endswith("Z")
                assert made.headers["cache-control"] == "no-store"
            for headers in (
                {"Origin": "http://evil.example"},
                {"X-Forwarded-For": "10.0.0.1"},
                {"Host": "evil.example"},
            ):
                assert (await daemon.request("POST", "/api/keys", body=body, headers=headers)).status == 401


async def test_the_raw_text_of_an_error_is_json_rpc(tmp_path: Path) -> None:
    """Broken JSON is -32700 with id null, and the connection lives."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client:
            await client.connection.send_message("{broken")
            reply = json.loads(await client.connection.get_message())
            assert (reply["id"], reply["error"]["code"]) == (None, -32700)
            assert await client.call("ping") == "pong"
