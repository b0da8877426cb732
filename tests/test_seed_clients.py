"""Existing clients simply work: each real client of contract 2 against the real daemon, over real sockets.

The clients are in seed_clients.py; what they are is said there. camera0 has a device file here, camera1 has none.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Reply, RunningDaemon, make_config, port_of, running_daemon
from patience import fail_after
from seed_clients import (
    AuthenticationError,
    BrowserExample,
    CameraNotFoundError,
    CameraServiceError,
    Client,
    CommandLineExample,
    EndToEndClient,
    JavaScriptExample,
    JavaScriptSdk,
    PythonExample,
    PythonSdk,
    RpcError,
    SdkCommandLine,
    WebClient,
    compat,
    fetch,
    give_device_file,
    seed_000_token,
    seed_001_token,
)

pytestmark = pytest.mark.ffmpeg
JPEG = b"\xff\xd8\xff"
WRONG_KEY = "camera_service_sk_" + "0" * 64


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningDaemon]:
    give_device_file(monkeypatch)
    with fail_after(80):
        async with running_daemon(tmp_path) as running:
            yield running


# --- guides S0 and S1: the Python and JavaScript clients ----------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["compat", "main"])
@pytest.mark.parametrize("auth_type", ["jwt", "api_key"])
@pytest.mark.parametrize("kind", [PythonSdk, JavaScriptSdk])
async def test_the_sdks_work(daemon: RunningDaemon, kind: type[PythonSdk], auth_type: str, endpoint: str) -> None:
    """PS, JS: login, ping, list, status, snapshot by /dev/video0, on either port with either credential."""
    secret = seed_001_token("operator") if auth_type == "jwt" else (await daemon.create_key("operator"))[1]
    async with kind.dial(compat(daemon) if endpoint == "compat" else daemon.port) as sdk:
        await sdk.connect(secret, auth_type)
        assert sdk.role == "operator"
        assert await sdk.ping() == "pong"
        cameras = await sdk.get_camera_list()
        assert [camera["device"] for camera in cameras] == ["/dev/video0", "camera1"]
        assert cameras[0] == {
            "device": "/dev/video0", "name": "test 0", "capabilities": ["snapshot", "stream"], "status": "CONNECTED",
            "stream_url": "",
        }  # fmt: skip
        status = await sdk.get_camera_status("/dev/video0")
        assert (status["device"], status["status"]) == ("/dev/video0", "CONNECTED")
        assert status["capabilities"] == {"formats": ["MJPG"], "resolutions": ["320x240"]}
        taken = await sdk.take_snapshot("/dev/video0", "front.jpg")
        assert taken["filename"] == "front.jpg"
        assert taken["size_bytes"] > 0
        assert datetime.fromisoformat(taken["timestamp"])


async def test_the_sdk_tells_its_errors_apart_by_text(daemon: RunningDaemon) -> None:
    """PS: an unknown camera's status is its CameraNotFoundError; all else is a text, and none of it hangs."""
    async with PythonSdk.dial(compat(daemon)) as sdk:
        assert await sdk.ping() == "pong"
        with pytest.raises(CameraServiceError, match=r"^Request failed: Authentication required$"):
            await sdk.get_camera_list()
        await sdk.connect(seed_001_token("viewer"), "jwt")
        with pytest.raises(CameraNotFoundError):
            await sdk.get_camera_status("/dev/video9")
        with pytest.raises(CameraServiceError, match=r"^Request failed: Insufficient permissions$"):
            await sdk.take_snapshot("/dev/video0")
        with pytest.raises(CameraServiceError, match=r"^Request failed: Camera capability not supported$"):
            await sdk.request("get_stream_status", {"device": "/dev/video0"})
        assert await sdk.request("get_recording_status", {"device": "/dev/video0"}) is None
        with pytest.raises(CameraServiceError, match=r"^Request failed: Method not found$"):
            await sdk.request("get_recording_state", {"device": "/dev/video0"})
        with pytest.raises(CameraServiceError, match=r"^Request failed: Invalid params"):
            await sdk.request("get_camera_status", {"device": 7})
        await sdk.connect(seed_001_token("operator"), "jwt")
        with pytest.raises(CameraServiceError, match=r"^Request failed: Camera not found$"):
            await sdk.take_snapshot("/dev/video9")
        daemon.plug(1).unlink()
        assert (await sdk.hear_of_camera())["status"] == "DISCONNECTED"
        with pytest.raises(CameraServiceError, match=r"^Request failed: MediaMTX service unavailable$"):
            await sdk.take_snapshot("camera1")


@pytest.mark.parametrize(
    ("secret", "auth_type", "text"),
    [
        ("jwt of another box", "jwt", "Invalid or expired JWT token"),
        (WRONG_KEY, "api_key", "Invalid or expired API key"),
        (WRONG_KEY, "jwt", "Invalid or expired JWT token"),
    ],
)
async def test_a_bad_login_is_told_at_once(daemon: RunningDaemon, secret: str, auth_type: str, text: str) -> None:
    """PS, S1-29, S1-39: AuthenticationError with the text of what was tried, on the first frame."""
    if secret.startswith("jwt"):
        secret = seed_001_token(secret="another box's shared secret, as long")
    async with PythonSdk.dial(compat(daemon)) as sdk:
        with pytest.raises(AuthenticationError, match=f"^{text}$"):
            await sdk.connect(secret, auth_type)
        assert len(sdk.read) == 1


async def test_the_sdk_hears_of_cameras_unasked(daemon: RunningDaemon) -> None:
    """PS, JS: the fields at the top level of camera_status_update, device_path as in the list."""
    async with PythonSdk.dial(compat(daemon)) as sdk:
        await sdk.connect(seed_001_token(), "jwt")
        daemon.plug(0).unlink()
        heard = await sdk.hear_of_camera()
        assert (heard["device_path"], heard["name"], heard["status"]) == ("/dev/video0", "test 0", "DISCONNECTED")
        assert heard["capabilities"] == ["snapshot", "stream"]


async def test_the_sdks_command_line_works(daemon: RunningDaemon) -> None:
    """SC: join needs lists of texts; 1 is its exit code for what is refused."""
    async with PythonSdk.dial(compat(daemon)) as sdk:
        await sdk.connect(seed_001_token("user"), "jwt")
        command = SdkCommandLine(sdk)
        assert await command.run("list") == (
            0, "/dev/video0 test 0 snapshot, stream\ncamera1 test 1 snapshot, stream"
        )  # fmt: skip
        assert await command.run("status", "/dev/video0") == (0, "/dev/video0 CONNECTED formats, resolutions")
        assert (await command.run("snapshot", "/dev/video0"))[0] == 0
        assert await command.run("ping") == (0, "pong")
        assert await command.run("snapshot", "/dev/video7") == (1, "Request failed: Camera not found")


@pytest.mark.parametrize("auth_type", ["jwt", "api_key"])
@pytest.mark.parametrize("kind", [PythonExample, JavaScriptExample])
async def test_the_examples_work(daemon: RunningDaemon, kind: type[PythonExample], auth_type: str) -> None:
    """PX, JX: S1-6 to S1-9, with the download from the WebSocket's own port by the header of their credential."""
    secret = seed_001_token("operator") if auth_type == "jwt" else (await daemon.create_key("operator"))[1]
    headers = JavaScriptExample.upgrade_headers(secret, auth_type) if kind is JavaScriptExample else []
    async with kind.dial(compat(daemon), headers=headers) as client:
        await client.connect(secret, auth_type)
        assert await client.get_camera_list() == [
            {"device": "/dev/video0", "name": "test 0", "status": "CONNECTED"},
            {"device": "camera1", "name": "test 1", "status": "CONNECTED"},
        ]
        taken = await client.take_snapshot("/dev/video0", "dock.jpg")
        assert taken["filename"] == "dock.jpg"
        assert "duration" not in taken
        picture = await client.download(compat(daemon), "snapshots", taken["filename"])
        assert (picture[:3], len(picture)) == (JPEG, taken["file_size"])
        with pytest.raises(FileNotFoundError):
            await client.download(compat(daemon), "snapshots", "gone.jpg")
        with pytest.raises(CameraServiceError, match="Camera not found"):
            await client.take_snapshot("/dev/video5")


async def test_the_documented_command_lines_work(daemon: RunningDaemon) -> None:
    """CL: S1-14 to S1-16, list and `snapshot /dev/video0`, and monitor by the nested copy of a notification."""
    for secret, auth_type in ((seed_001_token("user"), "jwt"), ((await daemon.create_key("operator"))[1], "api_key")):
        async with PythonExample.dial(compat(daemon)) as client:
            await client.connect(secret, auth_type)
            command = CommandLineExample(client)
            assert await command.run("list") == (0, "/dev/video0: test 0 (CONNECTED)\ncamera1: test 1 (CONNECTED)")
            code, name = await command.run("snapshot", "/dev/video0")
            assert (code, name[-4:]) == (0, ".jpg")
            assert await command.run("ping") == (0, "pong")
            assert await command.run("status", "/dev/video0") == (0, "test 0: CONNECTED")
            assert (await command.run("status", "/dev/video9"))[0] == 1
            daemon.plug(0).unlink()
            assert await command.run("monitor") == (0, "test 0: DISCONNECTED")
            daemon.plug(0).touch()
            assert await command.run("monitor") == (0, "test 0: CONNECTED")


async def test_three_tries_of_one_bad_login_ban_nobody(daemon: RunningDaemon) -> None:
    """PX, JX, C-43: three sockets, all left open, one typo; the corrected login on a fourth works."""
    async with (
        PythonExample.dial(compat(daemon)) as first,
        PythonExample.dial(compat(daemon)) as second,
        PythonExample.dial(compat(daemon)) as third,
        PythonExample.dial(compat(daemon)) as fourth,
    ):
        for client in (first, second, third):
            with pytest.raises(AuthenticationError):
                await client.connect(WRONG_KEY, "api_key")
        await fourth.connect(seed_001_token("viewer"), "jwt")
        assert len(await fourth.get_camera_list()) == 2
        assert await first.ping() == "pong"


async def test_bad_credentials_in_the_upgrade_do_not_count(daemon: RunningDaemon) -> None:
    """JX, C-42: the handshake succeeds, the login in the band tells the error, and one failure is counted, not two."""
    line = 'edged_auth_failures_total{method="api_key",reason="unknown_key",transport="ws"}'
    headers = JavaScriptExample.upgrade_headers(WRONG_KEY, "api_key")
    async with JavaScriptExample.dial(compat(daemon), headers=headers) as client:
        assert await client.ping() == "pong"
        assert f"{line} 0.0" in await scrape(daemon)
        with pytest.raises(AuthenticationError, match="Invalid or expired API key"):
            await client.connect(WRONG_KEY, "api_key")
        assert f"{line} 1.0" in await scrape(daemon)


async def scrape(daemon: RunningDaemon) -> str:
    port = port_of(daemon.config.listen.local)
    return (await daemon.request("GET", "/metrics", port=port)).body.decode()


@pytest.mark.parametrize("endpoint", ["compat", "main"])
async def test_the_browser_example_works(daemon: RunningDaemon, endpoint: str) -> None:
    """BR, S1-10 to S1-13: from a file:// page, ids at random, a table by device_path that notifications find again."""
    headers = [("Origin", "null")]
    async with BrowserExample.dial(compat(daemon) if endpoint == "compat" else daemon.port, headers=headers) as page:
        await page.connect(seed_001_token("operator"), "jwt")
        await page.list_cameras()
        assert page.show() == [
            "/dev/video0 test 0 CONNECTED [snapshot, stream] ",
            "camera1 test 1 CONNECTED [snapshot, stream] ",
        ]
        assert (await page.take_snapshot("/dev/video0"))["filename"].endswith(".jpg")
        with pytest.raises(CameraServiceError, match="Camera not found"):
            await page.take_snapshot("/dev/video3")
        for plug, path, status in ((0, "/dev/video0", "DISCONNECTED"), (1, "camera1", "DISCONNECTED")):
            daemon.plug(plug).unlink()
            assert await page.follow() == path
            assert page.table[path]["status"] == status
        daemon.plug(0).touch()
        assert await page.follow() == "/dev/video0"
        assert page.table["/dev/video0"]["status"] == "CONNECTED"


async def test_the_browser_page_is_told_of_a_bad_login_in_the_result(daemon: RunningDaemon) -> None:
    """BR, S1-26: `response.authenticated` false and `response.error`."""
    async with BrowserExample.dial(compat(daemon)) as page:
        result = await page.request("authenticate", {"token": WRONG_KEY, "auth_type": "api_key"})
        assert (result["authenticated"], result["error"]) == (False, "Invalid or expired API key")


# --- guide S0: the life of a token --------------------------------------------------------------------------------


async def test_tokens_of_seed_000_are_good(daemon: RunningDaemon) -> None:
    """S0-2 to S0-8, S0-30: no user_id, an issuer, an audience, more claims; camera_access limits what is seen."""
    for role, permissions, access, seen in (
        ("admin", ["camera:read", "camera:write", "camera:delete", "system:admin"], ["*"], ["/dev/video0", "camera1"]),
        ("user", ["camera:read", "camera:write"], ["camera1", "camera2"], ["camera1"]),
        ("viewer", ["camera:read"], ["camera1"], ["camera1"]),
        ("viewer", ["camera:read"], [], []),
    ):
        token = seed_000_token(
            role, iss="camera-service", aud="camera-clients", permissions=permissions, camera_access=access,
            session_id="s", department="IT", location="HQ",
        )  # fmt: skip
        async with PythonExample.dial(compat(daemon)) as client:
            await client.connect(token, "jwt")
            assert client.role == {"user": "operator"}.get(role, role)
            assert [camera["device"] for camera in await client.get_camera_list()] == seen
            with pytest.raises((CameraServiceError, CameraNotFoundError)) if role == "viewer" else NOTHING:
                await client.take_snapshot("camera1")
    async with PythonExample.dial(compat(daemon)) as client:
        await client.connect(seed_000_token("user"), "jwt")
        assert len(await client.get_camera_list()) == 2


class _Nothing:
    """A context that expects nothing."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


NOTHING: Any = _Nothing()


async def test_a_new_token_on_a_live_socket_replaces_the_old_one(daemon: RunningDaemon) -> None:
    """S0-17: the client sets its token and authenticates again; a failed try leaves it without any."""
    async with PythonSdk.dial(compat(daemon)) as sdk:
        await sdk.connect(seed_001_token("viewer"), "jwt")
        await sdk.connect(seed_001_token("operator"), "jwt")
        assert (await sdk.take_snapshot("camera1"))["size_bytes"] > 0
        with pytest.raises(AuthenticationError):
            await sdk.connect(WRONG_KEY, "api_key")
        with pytest.raises(CameraServiceError, match="Authentication required"):
            await sdk.get_camera_list()


async def test_an_expired_token_does_not_close_the_socket(daemon: RunningDaemon) -> None:
    """S0-32: the next call is refused, and the same socket takes a new token."""
    async with PythonSdk.dial(compat(daemon)) as sdk:
        for seconds in (2, 10, 30):  # the shorter ones are over before they arrive only where all is very slow
            with suppress(AuthenticationError):
                await sdk.connect(seed_001_token("viewer", expires_in=seconds), "jwt")
                break
        with pytest.raises(CameraServiceError, match=r"^Request failed: Authentication failed$"):
            await list_for_ever(sdk)
        with pytest.raises(AuthenticationError, match="Invalid or expired JWT token"):
            await sdk.connect(seed_001_token("viewer", expires_in=-1), "jwt")
        await sdk.connect(seed_001_token("viewer"), "jwt")
        assert len(await sdk.get_camera_list()) == 2


async def list_for_ever(sdk: PythonSdk) -> None:
    while await sdk.get_camera_list():
        await trio.sleep(0.1)


# --- guide S1: the curl lines -------------------------------------------------------------------------------------

CREATE = """curl -X POST http://localhost:8002/api/keys \\
    -H "Content-Type: application/json" \\
    -d '{"name": "Service Key", "role": "operator"}'"""
ROTATE = "curl -X POST http://localhost:8002/api/keys/{key_id}/rotate"
REVOKE = "curl -X DELETE http://localhost:8002/api/keys/{key_id}"


async def run_line(daemon: RunningDaemon, line: str, folder: Path, *more: str) -> Reply:
    """Run a documented line as it is written, by a shell; curl's own settings file leads it to this daemon's port."""
    settings = f'connect-to = "localhost:8002:127.0.0.1:{daemon.port}"\nnoproxy = "*"\nsilent\n'
    settings += 'max-time = 60\nwrite-out = "\\n%{http_code} %header{cache-control}"\n'
    (folder / ".curlrc").write_text(settings)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "CURL_HOME": str(folder)}
    line = " ".join([line, *map(shlex.quote, more)])
    done = await trio.run_process(["sh", "-c", line], capture_stdout=True, stderr=subprocess.STDOUT, env=environment)
    body, _, end = done.stdout.rpartition(b"\n")
    status, _, cache = end.decode().partition(" ")
    return Reply(int(status), {"cache-control": cache}, body)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl not found")
async def test_the_documented_curl_lines_work(daemon: RunningDaemon, tmp_path: Path) -> None:
    """S1-21 to S1-23, S1-34, S1-35: without a credential for root on loopback, for nobody else; with a key for all."""
    root = os.geteuid() == 0
    answer = await run_line(daemon, CREATE, tmp_path)
    assert answer.status == (201 if root else 401)
    _, admin = await daemon.create_key("admin")
    credential = () if root else ("-H", f"X-API-Key: {admin}")
    if not root:
        assert answer.json["code"] == "auth_required"
        answer = await run_line(daemon, CREATE, tmp_path, *credential)
    made = answer.json
    assert made.keys() == {"key_id", "api_key", "name", "role", "created_at"}
    assert re.fullmatch(r"key_[0-9a-f]{16}", made["key_id"])
    assert re.fullmatch(r"camera_service_sk_[0-9a-f]{64}", made["api_key"])
    assert (made["name"], made["role"]) == ("Service Key", "operator")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    assert answer.headers["cache-control"] == "no-store"

    answer = await run_line(daemon, ROTATE.format(key_id=made["key_id"]), tmp_path, *credential)
    rotated = answer.json
    assert answer.status == 200
    assert rotated["key_id"] == made["key_id"]
    assert rotated["api_key"] == rotated["new_api_key"] != made["api_key"]
    async with PythonExample.dial(compat(daemon)) as client, PythonExample.dial(compat(daemon)) as late:
        await client.connect(rotated["new_api_key"], "api_key")
        await late.connect(made["api_key"], "api_key")  # its grace is an hour

    for _ in range(2):
        answer = await run_line(daemon, REVOKE.format(key_id=made["key_id"]), tmp_path, *credential)
        assert answer.status == 200
        assert answer.json == {"message": "API key revoked successfully", "key_id": made["key_id"]}
    for secret in (made["api_key"], rotated["api_key"]):
        async with PythonExample.dial(compat(daemon)) as client:
            with pytest.raises(AuthenticationError):
                await client.connect(secret, "api_key")
    assert (await run_line(daemon, ROTATE.format(key_id=made["key_id"]), tmp_path, *credential)).status == 409
    assert (await run_line(daemon, REVOKE.format(key_id="key_0000000000000000"), tmp_path, *credential)).status == 404


@pytest.mark.skipif(shutil.which("curl") is None or os.geteuid() != 0, reason="curl not found, or not root")
async def test_the_curl_lines_work_for_root_only(daemon: RunningDaemon) -> None:
    """S1-21, contract 5.1: the same line by another user of this machine, or by way of a proxy or a page, is a 401."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # the other user's curl reads its settings here
        assert (await run_line(daemon, CREATE, Path(name))).status == 201
        for line in (
            f"setpriv --reuid=65534 --regid=65534 --clear-groups {CREATE}",
            f"{CREATE} -H 'X-Forwarded-For: 10.0.0.1'",
            f"{CREATE} -H 'Origin: http://localhost:8002'",
            f"{CREATE} -H 'Host: box.example:8002'",
        ):
            answer = await run_line(daemon, line, Path(name))
            assert (answer.status, answer.json["code"]) == (401, "auth_required"), line


async def test_snapshots_are_fetched_with_either_header(daemon: RunningDaemon) -> None:
    """PX, JX downloads and the guides' curl: Bearer with a token, Bearer with a key, X-API-Key; exactly 200."""
    _, key = await daemon.create_key("operator")
    token = seed_001_token("viewer")
    async with PythonExample.dial(compat(daemon)) as client:
        await client.connect(key, "api_key")
        name = (await client.take_snapshot("camera1"))["filename"]
    for port in (daemon.port, compat(daemon), port_of(daemon.config.listen.local)):
        for headers in ({"Authorization": f"Bearer {token}"}, {"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            status, body = await trio.to_thread.run_sync(fetch, port, f"/files/snapshots/{name}", headers)
            assert (status, body[:3]) == (200, JPEG)
        assert (await trio.to_thread.run_sync(fetch, port, f"/files/snapshots/{name}", {}))[0] == 401


# --- the web client and the end-to-end client ---------------------------------------------------------------------


async def test_the_web_client_works(daemon: RunningDaemon) -> None:
    """RW: a ping before the login, auth_token, its three topics, params absent, and every field that it checks."""
    _, key = await daemon.create_key("operator")
    async with WebClient.dial(daemon.port) as web:
        assert await web.request("ping") == "pong"
        result = await web.login(key)
        assert result["role"] in ("admin", "operator", "viewer")
        assert await web.cameras() == ["camera0", "camera1"]
        status = await web.status("camera0")
        assert status["capabilities"] == {"formats": ["MJPG"], "resolutions": ["320x240"]}
        assert (await web.snapshot("camera0"))["file_path"].endswith(".jpg")
        assert await web.streams() == []
        assert (await web.stream_url("camera1"))["stream_status"] == "NOT_READY"
        assert (await web.system_status())["available_cameras"] == ["camera0", "camera1"]
        daemon.plug(0).unlink()
        assert await web.hear_of_camera() == ("camera0", "DISCONNECTED")
        daemon.plug(0).touch()
        assert await web.hear_of_camera() == ("camera0", "CONNECTED")
        unsubscribed = await web.request("unsubscribe_events")
        assert unsubscribed == {"unsubscribed": True, "topics": sorted(web.TOPICS)}
        assert "/dev/video0" not in str(web.read), "a device file is nobody's business here (C-7)"


async def test_the_web_clients_codes_are_the_second_column(daemon: RunningDaemon) -> None:
    """RW, C-2, C-5: failures are error frames, and each code is the one that it has words for."""
    async with WebClient.dial(daemon.port) as web:
        for method, params, code in (
            ("get_camera_list", {}, -32001),
            ("authenticate", {"auth_token": WRONG_KEY}, -32001),
            ("authenticate", {}, -32001),
        ):
            with pytest.raises(RpcError) as refused:
                await web.request(method, params)
            assert refused.value.code == code
        await web.login((await daemon.create_key("viewer"))[1])
        for method, params, words in (
            ("take_snapshot", {"device": "camera0"}, "Permission denied"),
            ("get_camera_status", {"device": "camera9"}, "Not found"),
        ):
            with pytest.raises(RpcError, match=words) as refused:
                await web.request(method, params)
            assert refused.value.data["code_v2"] == refused.value.code
        daemon.plug(1).unlink()
        assert await web.hear_of_camera() == ("camera1", "DISCONNECTED")
        await web.login((await daemon.create_key("operator"))[1])
        with pytest.raises(RpcError, match="Dependency failed"):
            await web.request("take_snapshot", {"device": "camera1"})


@pytest.mark.mediamtx
async def test_the_web_client_sees_running_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RW with a real MediaMTX: a bare array with numbers, READY, and an uptime that grows while the stream runs."""
    config = make_config(tmp_path, mediamtx=True)
    config = msgspec.structs.replace(
        config, camera=tuple(msgspec.structs.replace(one, mode="always") for one in config.camera)
    )
    with fail_after(85):
        async with running_daemon(tmp_path, config=config) as daemon, WebClient.dial(daemon.port) as web:
            await daemon.wait_media()
            await web.login((await daemon.create_key("viewer"))[1])
            while [stream["name"] for stream in await web.streams() if stream["ready"]] != ["camera0", "camera1"]:
                await trio.sleep(0.1)
            assert [stream["source"] for stream in await web.streams()] == ["rtspSession", "rtspSession"]
            assert (await web.stream_url("camera0"))["stream_status"] == "READY"
            first = (await web.status("camera0"))["metrics"]["uptime"]
            await trio.sleep(0.2)
            second = (await web.status("camera0"))["metrics"]["uptime"]
            assert first + 0.1 < second < 85
            listed = await web.request("get_camera_list")
            assert listed["cameras"][0]["streams"]["rtsp"] == f"rtsp://127.0.0.1:{daemon.rtsp}/camera0"


async def test_the_end_to_end_client_works(daemon: RunningDaemon) -> None:
    """GT, C-22: whatever comes and goes between its calls, the next frame is its answer."""
    _, key = await daemon.create_key("viewer")
    async with EndToEndClient.dial(daemon.port) as test, PythonSdk.dial(compat(daemon)) as witness:
        await witness.connect(seed_001_token("viewer"), "jwt")
        assert await test.request("ping") == "pong"
        assert (await test.request("authenticate", {"auth_token": key}))["authenticated"] is True
        daemon.plug(1).unlink()
        await witness.hear_of_camera()
        assert (await test.request("get_camera_list"))["connected"] == 1
        assert (await test.request("get_system_status"))["discovery_active"] in (True, False)
        with pytest.raises(RpcError, match="Permission") as refused:
            await test.request("take_snapshot", {"device": "camera0"})
        assert refused.value.code == -32002
        subscribed = await test.request("subscribe_events", {"topics": ["camera.connected"]})
        assert subscribed["topics"] == ["camera.connected"]
        assert (await test.request("unsubscribe_events", {"topics": ["camera.connected"]}))["unsubscribed"] is True
        daemon.plug(1).touch()
        await witness.hear_of_camera()
        assert (await test.request("get_camera_list"))["connected"] == 2


# --- keys and tokens over the WebSocket ---------------------------------------------------------------------------


async def test_keys_and_tokens_over_the_websocket(daemon: RunningDaemon) -> None:
    """The REST twin of contract 3's last rows, spoken by a v1 and a v2 client alike."""
    _, admin = await daemon.create_key("admin")
    async with (
        PythonSdk.dial(compat(daemon)) as old,
        WebClient.dial(daemon.port) as new,
        Client.dial(daemon.port) as raw,
    ):
        await old.connect(admin, "api_key")
        await new.request("authenticate", {"auth_token": admin})
        made = await old.request("create_key", {"name": "Service Key", "role": "user"})
        assert made["role"] == "operator"
        listed = (await new.request("list_keys"))["keys"]
        (item,) = [item for item in listed if item["key_id"] == made["key_id"]]
        assert (item["status"], item["usage_count"], item["last_used"]) == ("active", 0, None)
        assert "api_key" not in item
        turned = await new.request("rotate_key", {"key_id": made["key_id"], "grace_seconds": 0})
        await raw.send("authenticate", {"token": made["api_key"], "auth_type": "api_key"})
        assert (await raw.receive())["result"]["authenticated"] is False
        await raw.send("authenticate", {"token": turned["new_api_key"], "auth_type": "api_key"})
        assert (await raw.receive())["result"]["authenticated"] is True
        gone = await old.request("revoke_key", {"key_id": made["key_id"]})
        assert gone == {"message": "API key revoked successfully", "key_id": made["key_id"]}
        token = (await new.request("issue_token", {"user_id": "ada", "role": "viewer"}))["token"]
        assert (await old.request("validate_token", {"token": token}))["valid"] is True
        assert await new.request("revoke_token", {"token": token}) == {"revoked": True}
        judged = await old.request("validate_token", {"token": token})
        assert (judged["valid"], judged["errors"]) == (False, ["Token is blacklisted"])
        with pytest.raises(AuthenticationError):
            await old.connect(token, "jwt")
