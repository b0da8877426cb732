"""Existing clients record, list, fetch and delete: each one of contract 2 against the real daemon, MediaMTX and ffmpeg.

The clients are in seed_clients.py. One daemon serves them all, in a process of its own; each has names of its own.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import fork_server
import pytest
import trio
from cli_helpers import wait_for_socket
from daemon_helpers import SECRET, RunningDaemon, free_port
from patience import fail_after
from seed_clients import (
    AuthenticationError,
    BrowserExample,
    CameraServiceError,
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
    seed_001_token,
)

from edged.config.load import load

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg]
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG"
#: What a file of each format has at its beginning.
MAGIC = {"fmp4": (4, b"ftyp"), "mp4": (4, b"ftyp"), "mkv": (0, b"\x1aE\xdf\xa3")}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Two test cameras, the first of which is what the guides call /dev/video0."""
    folder = tmp_path_factory.mktemp("box")
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    directory = folder / "conf.d"
    directory.mkdir()
    ports = [f"127.0.0.1:{free_port()}" for _ in range(7)]
    (directory / "box.toml").write_text(f"""
        [paths]
        state = "{folder}/state"
        runtime = "{folder}/run"
        [listen]
        main = ["{ports[0]}"]
        compat = ["{ports[1]}"]
        local = ["{ports[2]}"]
        tokens = []
        [mediamtx]
        rtsp = "{ports[3]}"
        hls = "{ports[4]}"
        webrtc = "{ports[5]}"
        webrtc_udp = "{ports[6]}"
        [auth.shared_secrets]
        guide = "{folder}/secret"
        [[camera]]
        name = "entrance"
        source = "test"
        mode = "always"
        [[camera]]
        name = "workshop"
        source = "test"
        mode = "always"
        path = "camera_one"
        """)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    serving = fork_server.start(["-m", "edged", "serve", "--directory", directory], environ, folder / "log")
    try:
        wait_for_socket(folder / "run" / "edged.sock", serving, folder / "log")
        running = RunningDaemon(load(directory), folder / "log")
        trio.run(wait_ready, running)
        yield running
        serving.terminate()
        assert serving.wait(timeout=30) == 0, running.log.read_text()
        assert "Traceback" not in running.log.read_text()
    finally:
        serving.kill()
        serving.wait()


async def wait_ready(daemon: RunningDaemon) -> None:
    with fail_after(60):
        await daemon.wait_media()


@pytest.fixture
async def daemon(box: RunningDaemon) -> RunningDaemon:
    """The box, without a recording that another test has left behind."""
    async with box.local() as admin:
        for device in ("camera0", "camera1"):
            if await admin.call("get_recording_status", device=device) is not None:
                await admin.call("stop_recording", device=device)
    return box


async def secret_of(daemon: RunningDaemon, auth_type: str, role: str = "operator") -> str:
    return seed_001_token(role) if auth_type == "jwt" else (await daemon.create_key(role))[1]


async def until_recorded(sdk: PythonSdk, device: str) -> dict[str, Any]:
    """What `get_recording_status` says once there are bytes."""
    while (found := await sdk.get_recording_status(device)) is None or found["status"] != "active":
        await trio.sleep(0.1)
    return found


WAYS = [("compat", "jwt"), ("main", "api_key")]


@pytest.mark.parametrize(("endpoint", "auth_type"), WAYS)
@pytest.mark.parametrize("kind", [PythonSdk, JavaScriptSdk])
async def test_the_sdks_record(daemon: RunningDaemon, kind: type[PythonSdk], auth_type: str, endpoint: str) -> None:
    """PS, JS: start, status, stop by /dev/video0; what they are told unasked has the camera's path in the list."""
    name = f"{kind.__name__}-{auth_type}"
    with fail_after(60):
        async with kind.dial(compat(daemon) if endpoint == "compat" else daemon.port) as sdk:
            await sdk.connect(await secret_of(daemon, auth_type), auth_type)
            (path, _) = [camera["device"] for camera in await sdk.get_camera_list()]
            assert await sdk.get_recording_status("/dev/video0") is None
            begun = await sdk.start_recording("/dev/video0", name)
            assert begun["filename"] == f"{name}.mp4"
            state = await until_recorded(sdk, "/dev/video0")
            assert (state["recording_id"], state["filename"]) == (begun["recording_id"], begun["filename"])
            assert abs(state["start_time"] - time.time()) < 60
            with pytest.raises(CameraServiceError, match="Recording already in progress"):
                await sdk.start_recording("/dev/video0")
            stopped = await sdk.stop_recording("/dev/video0")
            assert stopped["recording_id"] == begun["recording_id"]
            assert stopped["start_time"] == begun["start_time"]
            assert stopped["duration"] > 0
            assert await sdk.get_recording_status("/dev/video0") is None
            with pytest.raises(CameraServiceError, match="Invalid state"):
                await sdk.stop_recording("/dev/video0")
            told = [await sdk.hear_of_recording()]
            while told[-1]["status"] != "STOPPED":
                told.append(await sdk.hear_of_recording())
            assert {each["device_path"] for each in told} == {path}
            assert {each["filename"] for each in told} == {begun["filename"]}
            assert told[-1]["duration"] == stopped["duration"]


async def test_the_sdks_command_line_records(daemon: RunningDaemon) -> None:
    """SC: `record` and `stop`, and exit code 1 for what is not to be had."""
    with fail_after(60):
        async with PythonSdk.dial(daemon.port) as sdk:
            await sdk.connect(seed_001_token("user"), "jwt")
            command = SdkCommandLine(sdk)
            code, name = await command.run("record", "/dev/video0")
            assert (code, name[-4:]) == (0, ".mp4")
            await until_recorded(sdk, "/dev/video0")
            code, text = await command.run("stop", "/dev/video0")
            assert re.fullmatch(rf"{name} \d+(\.\d+)?", text)
            assert code == 0
            assert await command.run("stop", "/dev/video0") == (1, "Request failed: Invalid state")
            assert await command.run("record", "/dev/video9") == (1, "Request failed: Camera not found")


@pytest.mark.parametrize(("endpoint", "auth_type"), WAYS)
@pytest.mark.parametrize("kind", [PythonExample, JavaScriptExample])
async def test_the_examples_record_list_and_fetch(
    daemon: RunningDaemon, kind: type[PythonExample], auth_type: str, endpoint: str
) -> None:
    """PX, JX: the whole of their `main`, and the download of a recording by the header of their credential."""
    secret, port = await secret_of(daemon, auth_type), compat(daemon) if endpoint == "compat" else daemon.port
    headers = JavaScriptExample.upgrade_headers(secret, auth_type) if kind is JavaScriptExample else []
    name = f"{kind.__name__}-{auth_type}"
    with fail_after(60):
        async with kind.dial(port, headers=headers) as client:
            await client.connect(secret, auth_type)
            device = (await client.get_camera_list())[0]["device"]
            picture = await client.take_snapshot(device)
            begun = await client.start_recording(device, name, duration=10)
            assert begun["device_path"] == device, "the text of the list (contract 3b)"
            assert (begun["filename"], begun["status"]) == (f"{name}.mp4", "active")
            assert isinstance(begun["start_time"], float)
            await until_recorded(client, device)
            stopped = await client.stop_recording(device)
            assert stopped["filename"] == begun["filename"]
            files, total = await client.list_files("recordings", limit=5)
            assert files[0]["filename"] == begun["filename"]
            assert files[0]["file_size"] == stopped["file_size"] > 0
            assert total >= len(files)
            assert files[0]["download_url"] == f"/files/recordings/{name}.mp4"
            recording = await client.download(port, "recordings", begun["filename"])
            assert (recording[4:8], len(recording)) == (b"ftyp", stopped["file_size"])
            assert await client.download(port, "recordings", name) == recording, "without its ending"
            shown, _ = await client.list_files("snapshots", limit=5, offset=0)
            assert shown[0]["filename"] == picture["filename"]
            assert (await client.download(port, "snapshots", shown[0]["filename"]))[:3] == JPEG
            with pytest.raises(FileNotFoundError):
                await client.download(port, "recordings", "gone.mp4")


async def test_the_documented_command_records_lists_and_downloads(daemon: RunningDaemon) -> None:
    """CL: a start time that `localtime` takes, numbers that `:.2f` takes, and `monitor` by the nested copy."""
    with fail_after(60):
        async with PythonExample.dial(compat(daemon)) as client:
            await client.connect(await secret_of(daemon, "api_key"), "api_key")
            command = CommandLineExample(client, compat(daemon))
            code, text = await command.run("record", "/dev/video1", "--duration", "30", "--filename", "cl")
            assert code == 0
            assert text.startswith("cl.mp4 rec_")
            await until_recorded(client, "/dev/video1")
            code, text = await command.run("stop", "/dev/video1")
            assert (code, text.split()[0]) == (0, "cl.mp4")
            size = text.split()[-2]
            assert await command.run("monitor", "recordings") == (0, "cl.mp4: active")
            code, text = await command.run("list-recordings", "--limit", "1")
            assert (code, text.splitlines()[0]) == (0, f"cl.mp4,{size},/files/recordings/cl.mp4")
            assert await command.run("download-recording", "cl.mp4") == (0, size)
            assert (await command.run("snapshot", "/dev/video1"))[0] == 0
            code, text = await command.run("list-snapshots", "--limit", "1")
            name, length, _ = text.splitlines()[0].split(",")
            assert await command.run("download-snapshot", name) == (0, length)
            assert await command.run("download-recording", "nothing.mp4") == (1, "nothing.mp4")


async def test_a_recording_of_the_documented_command_ends_by_itself(daemon: RunningDaemon) -> None:
    """CL: `record --duration 2`."""
    with fail_after(60):
        async with PythonExample.dial(compat(daemon)) as client:
            await client.connect(seed_001_token("operator"), "jwt")
            command = CommandLineExample(client)
            assert (await command.run("record", "/dev/video0", "--duration", "2", "--filename", "cl-2"))[0] == 0
            while (await command.run("monitor", "recordings"))[1] != "cl-2.mp4: completed":
                pass
            assert (await command.run("stop", "/dev/video0"))[0] == 1


async def test_the_page_s_button_is_free_again_when_a_recording_ends(daemon: RunningDaemon) -> None:
    """BR: 30 seconds are asked for; the end is told by the row's own path, whoever has stopped it."""
    with fail_after(60):
        async with (
            BrowserExample.dial(compat(daemon), headers=[("Origin", "null")]) as page,
            PythonSdk.dial(compat(daemon)) as other,
        ):
            await page.connect(seed_001_token("operator"), "jwt")
            await other.connect(seed_001_token("operator"), "jwt")
            await page.list_cameras()
            device = next(iter(page.table))
            name = (await page.start_recording(device))["filename"]
            assert page.recording == {device}
            await until_recorded(other, device)
            assert (await other.stop_recording(device))["filename"] == name
            while await page.follow_recording() != "completed":
                assert page.recording == {device}
            assert page.recording == set()
            with pytest.raises(CameraServiceError, match="Invalid state"):
                await page.stop_recording(device)


@pytest.mark.parametrize("form", ["fmp4", "mp4", "mkv"])
async def test_the_web_client_records_lists_fetches_and_deletes(daemon: RunningDaemon, form: str) -> None:
    """RW: every field that it checks; a link that a browser opens without a header; delete for administrators only."""
    with fail_after(60):
        async with WebClient.dial(daemon.port) as web, WebClient.dial(daemon.port) as admin:
            await web.login(await secret_of(daemon, "api_key"))
            await admin.login(seed_001_token("admin"))
            begun = await web.start_recording("camera1", 60, form)
            statuses = [await web.hear_of_recording()]
            while statuses[-1] != ("camera1", "RECORDING"):
                statuses.append(await web.hear_of_recording())
            with pytest.raises(RpcError, match="Invalid state"):
                await web.start_recording("camera1", 60, form)
            stopped = await web.stop_recording("camera1")
            assert await web.hear_of_recording() == ("camera1", "STOPPED")
            files, total = await web.files("recordings", 20, 0)
            assert total >= len(files)
            assert files[0]["filename"] == begun["filename"] == stopped["filename"]
            assert (await web.info("recording", begun["filename"]))["file_size"] == stopped["file_size"]
            status, body = await web.open(files[0]["download_url"])
            at, magic = MAGIC[form]
            assert (status, body[at : at + len(magic)]) == (200, magic)
            with pytest.raises(RpcError, match="Permission denied"):
                await web.delete("recording", begun["filename"])
            assert await admin.delete("recording", begun["filename"]) is True
            assert (await web.open(files[0]["download_url"]))[0] == 404
            with pytest.raises(RpcError, match="Not found"):
                await web.info("recording", begun["filename"])


async def test_the_web_client_lists_fetches_and_deletes_pictures(daemon: RunningDaemon) -> None:
    """RW: the same of snapshots; and what its page of settings asks for."""
    with fail_after(60):
        async with WebClient.dial(daemon.port) as admin:
            await admin.login(seed_001_token("admin"))
            taken = await admin.snapshot("camera0")
            files, _ = await admin.files("snapshots", 20, 0)
            assert files[0]["filename"] == taken["filename"]
            assert (await admin.info("snapshot", taken["filename"]))["file_size"] == taken["file_size"]
            status, body = await admin.open(files[0]["download_url"])
            assert (status, body[:3], len(body)) == (200, JPEG, taken["file_size"])
            assert await admin.delete("snapshot", taken["filename"]) is True
            assert (await admin.open(files[0]["download_url"]))[0] == 404
            for params in (
                {"policy_type": "size", "enabled": True, "max_size_gb": 10},
                {"policy_type": "age", "enabled": True, "max_age_days": 30},
                {"policy_type": "manual", "enabled": False},
            ):
                assert (await admin.request("set_retention_policy", params))["success"] is True
            assert (await admin.request("cleanup_old_files", {}))["files_deleted"] == 0


#: What the end-to-end client sends of recordings and pictures: its methods and the values that its tests give them.
SENT = [
    ("take_snapshot", {"device": "camera0"}, None),
    ("take_snapshot", {"device": "camera0", "filename": "gt.jpg"}, None),
    ("take_snapshot", {"device": "camera0", "format": "jpeg", "quality": 85}, JPEG),
    ("take_snapshot", {"device": "camera0", "format": "png", "quality": 0}, PNG),
]


async def test_the_end_to_end_client_takes_pictures(daemon: RunningDaemon) -> None:
    """GT: in each format with a quality, which is 0 where its test sets none."""
    with fail_after(60):
        async with EndToEndClient.dial(daemon.port) as test:
            key = await secret_of(daemon, "api_key")
            await test.request("authenticate", {"auth_token": key})
            for method, params, magic in SENT:
                taken = await test.request(method, params)
                reply = await daemon.request("GET", f"/files/snapshots/{taken['filename']}", key=key)
                assert (reply.status, len(reply.body)) == (200, taken["file_size"])
                assert magic is None or reply.body.startswith(magic)


async def test_the_end_to_end_client_records(daemon: RunningDaemon) -> None:
    """GT: two cameras at once, a length, a list in pages, and the codes that its tests compare."""
    with fail_after(60):
        async with EndToEndClient.dial(daemon.port) as test, EndToEndClient.dial(daemon.port) as admin:
            await test.request("authenticate", {"auth_token": await secret_of(daemon, "api_key")})
            await admin.request("authenticate", {"auth_token": seed_001_token("admin")})
            first = await test.request("start_recording", {"device": "camera0"})
            second = await test.request("start_recording", {"device": "camera1", "duration": 5})
            for device in ("camera0", "camera1"):
                while (await test.request("get_recording_status", {"device": device}))["status"] != "active":
                    await trio.sleep(0.1)
                await test.request("stop_recording", {"device": device})
            page = await test.request("list_recordings", {"limit": 10, "offset": 0})
            assert (page["limit"], page["offset"]) == (10, 0)
            listed = {file["filename"] for file in page["files"]}
            assert {first["filename"], second["filename"]} <= listed
            assert {"files", "total", "limit", "offset"} <= (await test.request("list_snapshots")).keys()
            for client, method, code in (
                (test, "get_recording_info", -32010),
                (test, "delete_recording", -32002),
                (admin, "delete_recording", -32010),
                (admin, "delete_snapshot", -32010),
            ):
                with pytest.raises(RpcError) as refused:
                    await client.request(method, {"filename": "nonexistent_recording"})
                assert refused.value.code == code
            gone = await admin.request("delete_recording", {"filename": first["filename"]})
            assert (gone["filename"], gone["deleted"]) == (first["filename"], True)
            with pytest.raises(RpcError):
                await test.request("get_storage_info")
            assert (await admin.request("get_storage_info"))["recordings_size"] > 0


@pytest.mark.parametrize("kind", [PythonSdk, PythonExample, BrowserExample])
async def test_a_viewer_is_refused_in_words_and_nothing_is_recorded(
    daemon: RunningDaemon, kind: type[PythonSdk]
) -> None:
    """S1-28: the text of the guide's table; a bad login has none of it."""
    with fail_after(30):
        async with kind.dial(compat(daemon)) as client:
            await client.connect(seed_001_token("viewer"), "jwt")
            for call in (client.start_recording, client.stop_recording, client.take_snapshot):
                with pytest.raises(CameraServiceError, match="Insufficient permissions"):
                    await call("/dev/video0")
            assert await client.get_recording_status("/dev/video0") is None
            with pytest.raises(AuthenticationError):
                await client.connect("no.such.token", "jwt")
