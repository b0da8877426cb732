"""The clients that exist, as far as they meet the wire: what each sends, what each reads, and how strictly.

None of this is their code. Each class does what its row of contract 2 says its original does, and no more: it sends
those members and no others, reads those fields and no others, and where the original would wait for an answer that
it does not recognise, it raises `Hang` at once. Letters in brackets are the contract's names for them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, port_of
from msgspec.structs import replace
from trio_websocket import WebSocketConnection, wrap_client_stream

from edged.cameras.fixed import FixedCameras
from edged.cameras.model import Camera, Mode

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")


class Hang(AssertionError):
    """The original would wait here until its own timeout."""


class AuthenticationError(Exception):
    """The login was refused."""


class CameraServiceError(Exception):
    """Anything else was; only the text survives in the original."""


class CameraNotFoundError(Exception):
    """There is no such camera."""


# --- tokens as the seeds make them, by nobody's JWT library -------------------------------------------------------


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def encode_jwt(payload: Mapping[str, Any], secret: str, **header: Any) -> str:
    """HS256 over the text of the secret, as PyJWT's `encode` writes it; times may be datetimes."""
    claims = {
        name: int(value.replace(tzinfo=UTC).timestamp()) if isinstance(value, datetime) else value
        for name, value in payload.items()
    }
    head = {"alg": "HS256", "typ": "JWT"} | header
    signed = ".".join(_part(json.dumps(item, separators=(",", ":")).encode()) for item in (head, claims))
    return f"{signed}.{_part(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def seed_001_token(role: str = "admin", *, expires_in: int = 24 * 60 * 60, secret: str = SECRET, **more: Any) -> str:
    """As guide S1 has Python and Node make it; the daemon's own secret unless told otherwise."""
    now = int(time.time())
    return encode_jwt({"user_id": "user123", "role": role, "iat": now, "exp": now + expires_in} | more, secret)


def seed_000_token(role: str, **advanced: Any) -> str:
    """As guide S0's two generators make it; the second one's claims come by `advanced`."""
    now = datetime.fromtimestamp(int(time.time()), UTC).replace(tzinfo=None)  # the seed's utcnow()
    claims = {"sub": "user123", "name": "John Doe", "role": role, "iat": now, "exp": now + timedelta(hours=24)}
    return encode_jwt(claims | {"jti": os.urandom(12).hex()} | advanced, SECRET)


# --- the daemon as these clients find it ---------------------------------------------------------------------------


def give_device_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test camera looks like a USB camera from outside: it has a device file and modes."""
    plain = FixedCameras._camera

    def with_node(self: FixedCameras, number: int, one: Any) -> Camera:
        camera = plain(self, number, one)
        modes = (Mode("MJPG", 320, 240, (15.0,)),)
        return replace(camera, node="/dev/video0", modes=modes) if number == 0 else camera

    monkeypatch.setattr(FixedCameras, "_camera", with_node)


def compat(daemon: RunningDaemon) -> int:
    return port_of(daemon.config.listen.compat)


# --- one socket ---------------------------------------------------------------------------------------------------


class Client:
    """A socket and the ids of its requests. `sent` and `read` are every frame as it was."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.sent: list[dict[str, Any]] = []
        self.read: list[Any] = []
        self.news: list[dict[str, Any]] = []

    @classmethod
    @asynccontextmanager
    async def dial(cls, port: int, *, headers: Sequence[tuple[str, str]] = ()) -> AsyncIterator[Any]:
        """A new connection to `ws://127.0.0.1:port/ws`, closed at the end of the block."""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            given = [(name.encode(), value.encode()) for name, value in headers]
            connection = await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", "/ws", extra_headers=given)
            yield cls(connection)
            await connection.aclose()
            nursery.cancel_scope.cancel()

    def next_id(self) -> Any:
        return len(self.sent) + 1

    async def send(self, method: str, *params: Mapping[str, Any]) -> Any:
        """Send one request; without a second argument, without params. Returns its id."""
        frame: dict[str, Any] = {"jsonrpc": "2.0", "id": self.next_id(), "method": method}
        if params:
            frame["params"] = params[0]
        self.sent.append(frame)
        await self.connection.send_message(json.dumps(frame))
        return frame["id"]

    async def receive(self) -> Any:
        frame = json.loads(await self.connection.get_message())
        self.read.append(frame)
        return frame


# --- the clients of the camera service's guides (v1) --------------------------------------------------------------


class PythonSdk(Client):
    """[PS] An answer is a frame with its id and a member `result`; it drops any other with its id, and waits on."""

    role: str | None = None

    async def request(self, method: str, params: Mapping[str, Any]) -> Any:
        asked = await self.send(method, params)
        while True:
            frame = await self.receive()
            if "id" in frame and frame["id"] == asked and type(frame["id"]) is type(asked):
                if "result" not in frame:
                    raise Hang(frame)
                if "error" in frame:
                    raise CameraServiceError(f"Request failed: {frame['error']['message']}")
                return frame["result"]
            if "method" not in frame:
                raise Hang(frame)
            self.news.append(frame)

    async def hear(self, method: str) -> Any:
        """The params of the next notification of this name."""
        while True:
            for frame in self.news:
                if frame["method"] == method:
                    self.news.remove(frame)
                    return frame["params"]
            self.news.append(await self.receive())

    async def connect(self, token: str, auth_type: str) -> None:
        result = await self.request("authenticate", {"token": token, "auth_type": auth_type})
        if not result.get("authenticated", False):
            raise AuthenticationError(result.get("error", "Authentication failed"))
        self.role = result.get("role")

    async def ping(self) -> Any:
        return await self.request("ping", {})

    async def get_camera_list(self) -> list[dict[str, Any]]:
        result = await self.request("get_camera_list", {})
        wanted = ("device", "name", "capabilities", "status", "stream_url")
        return [{name: camera[name] for name in wanted} for camera in result["cameras"]]

    async def get_camera_status(self, device: str) -> dict[str, Any]:
        result = await self.request("get_camera_status", {"device": device})
        if not result:
            raise CameraNotFoundError(device)
        return {name: result[name] for name in ("device", "name", "capabilities", "status", "stream_url")}

    async def take_snapshot(self, device: str, filename: str | None = None) -> dict[str, Any]:
        params = {"device": device} | ({"filename": filename} if filename else {})
        result = await self.request("take_snapshot", params)
        return {name: result[name] for name in ("filename", "timestamp", "size_bytes")}

    async def start_recording(self, device: str, filename: str | None = None) -> dict[str, Any]:
        params = {"device": device} | ({"filename": filename} if filename else {})
        result = await self.request("start_recording", params)
        return {name: result[name] for name in ("recording_id", "filename", "start_time")}

    async def stop_recording(self, device: str) -> dict[str, Any]:
        result = await self.request("stop_recording", {"device": device})
        return {name: result[name] for name in ("recording_id", "filename", "start_time", "duration")}

    async def get_recording_status(self, device: str) -> dict[str, Any] | None:
        result = await self.request("get_recording_status", {"device": device})
        if not result:
            return None
        return {name: result[name] for name in ("recording_id", "filename", "start_time", "duration", "status")}

    async def hear_of_camera(self) -> dict[str, Any]:
        params = await self.hear("camera_status_update")
        return {name: params[name] for name in ("device_path", "name", "capabilities", "status", "stream_url")}

    async def hear_of_recording(self) -> dict[str, Any]:
        params = await self.hear("recording_status_update")
        wanted = ("device_path", "recording_id", "filename", "start_time", "duration", "status")
        return {name: params[name] for name in wanted}


class SdkCommandLine:
    """[SC] What the SDK's command prints, and its exit code."""

    def __init__(self, sdk: PythonSdk) -> None:
        self.sdk = sdk

    async def run(self, *arguments: str) -> tuple[int, str]:
        try:
            match arguments:
                case ["list"]:
                    rows = await self.sdk.get_camera_list()
                    return 0, "\n".join(
                        f"{row['device']} {row['name']} {', '.join(row['capabilities'])}" for row in rows
                    )
                case ["status", device]:
                    row = await self.sdk.get_camera_status(device)
                    return 0, f"{row['device']} {row['status']} {', '.join(row['capabilities'])}"
                case ["snapshot", device]:
                    return 0, (await self.sdk.take_snapshot(device))["filename"]
                case ["record", device]:
                    return 0, (await self.sdk.start_recording(device))["filename"]
                case ["stop", device]:
                    result = await self.sdk.stop_recording(device)
                    return 0, f"{result['filename']} {result['duration'] or 'Unknown'}"
                case ["ping"]:
                    return 0, str(await self.sdk.ping())
        except (CameraServiceError, CameraNotFoundError) as problem:
            return 1, str(problem)
        raise AssertionError(arguments)


class JavaScriptSdk(PythonSdk):
    """[JS] The same frames and the same test for `result`; a failed login is tried three times in all."""


class PythonExample(PythonSdk):
    """[PX] Fields by subscript; whatever is not `success` is a failure whose `error` is looked through."""

    def __init__(self, connection: WebSocketConnection) -> None:
        super().__init__(connection)
        self.login: tuple[str, str] = ("", "")

    async def connect(self, token: str, auth_type: str) -> None:
        self.login = (token, auth_type)
        await super().connect(token, auth_type)
        await self.ping()

    async def get_camera_list(self) -> list[dict[str, Any]]:
        result = await self.request("get_camera_list", {})
        return [{name: camera[name] for name in ("device", "name", "status")} for camera in result["cameras"]]

    async def succeed(self, device: str, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result, if it says `success`."""
        result: dict[str, Any] = await self.request(method, params)
        if not result.get("success"):
            text = result.get("error", "Unknown error")
            raise CameraNotFoundError(device) if "not found" in text.lower() else CameraServiceError(text)
        return result

    async def take_snapshot(self, device: str, filename: str | None = None) -> dict[str, Any]:
        params = {"device": device} | ({"filename": filename} if filename else {})
        result = await self.succeed(device, "take_snapshot", params)
        return {name: result.get(name) for name in ("filename", "file_size", "duration") if name in result}

    async def start_recording(
        self, device: str, filename: str | None = None, *, duration: int | None = None
    ) -> dict[str, Any]:
        params: dict[str, Any] = {"device": device}
        params |= ({"duration": duration} if duration else {}) | ({"filename": filename} if filename else {})
        recording = (await self.succeed(device, "start_recording", params))["recording"]
        return {name: recording[name] for name in ("device_path", "recording_id", "filename", "start_time", "status")}

    async def stop_recording(self, device: str) -> dict[str, Any]:
        result = await self.succeed(device, "stop_recording", {"device": device})
        return {name: result[name] for name in ("filename", "duration", "file_size") if name in result}

    async def list_files(self, kind: str, **page: int) -> tuple[list[dict[str, Any]], int]:
        """`list_recordings` or `list_snapshots`, with `limit` and `offset` where they are given; and `total`."""
        result = await self.request(f"list_{kind}", page)
        wanted = ("filename", "file_size", "modified_time", "download_url")
        return [{name: file[name] for name in wanted} for file in result["files"]], result["total"]

    async def download(self, port: int, kind: str, filename: str) -> bytes:
        """From the very port of the WebSocket; anything but 200 is an error."""
        token, auth_type = self.login
        header = {"Authorization": f"Bearer {token}"} if auth_type == "jwt" else {"X-API-Key": token}
        status, body = await trio.to_thread.run_sync(fetch, port, f"/files/{kind}/{filename}", header)
        if status == 404:
            raise FileNotFoundError(filename)
        if status != 200:
            raise CameraServiceError(f"Download failed: HTTP {status}")
        return body


class CommandLineExample:
    """[CL] What it prints by way of [PX]; a duration is formatted as a number where there is one.

    `port`: where it downloads from, that of its WebSocket.
    """

    def __init__(self, client: PythonExample, port: int = 0) -> None:
        self.client = client
        self.port = port

    async def run(self, *arguments: str) -> tuple[int, str]:
        try:
            match arguments:
                case ["list"]:
                    rows = await self.client.get_camera_list()
                    return 0, "\n".join(f"{row['device']}: {row['name']} ({row['status']})" for row in rows)
                case ["status", device]:
                    row = await self.client.get_camera_status(device)
                    return 0, f"{row['name']}: {row['status']}"
                case ["snapshot", device]:
                    result = await self.client.take_snapshot(device)
                    took = f" in {result['duration']:.2f}s" if "duration" in result else ""
                    return 0, f"{result['filename']}{took}"
                case ["record", device, "--duration", seconds, "--filename", filename]:
                    result = await self.client.start_recording(device, filename, duration=int(seconds))
                    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result["start_time"]))
                    return 0, f"{result['filename']} {result['recording_id']} {began}"
                case ["stop", device]:
                    result = await self.client.stop_recording(device)
                    return 0, f"{result['filename']} {result['duration']:.2f} seconds {result['file_size']} bytes"
                case ["list-recordings" | "list-snapshots" as command, "--limit", limit]:
                    files, total = await self.client.list_files(command.removeprefix("list-"), limit=int(limit))
                    lines = [f"{file['filename']},{file['file_size']},{file['download_url']}" for file in files]
                    return 0, "\n".join([*lines, f"(total: {total})"])
                case ["download-recording" | "download-snapshot" as command, filename]:
                    kind = command.removeprefix("download-") + "s"
                    return 0, str(len(await self.client.download(self.port, kind, filename)))
                case ["ping"]:
                    return 0, str(await self.client.ping())
                case ["monitor"]:
                    camera = (await self.client.hear("camera_status_update"))["camera"]
                    return 0, f"{camera['name']}: {camera['status']}"
                case ["monitor", "recordings"]:
                    recording = (await self.client.hear("recording_status_update"))["recording"]
                    return 0, f"{recording['filename']}: {recording['status']}"
        except (CameraServiceError, CameraNotFoundError, FileNotFoundError) as problem:
            return 1, str(problem)
        raise AssertionError(arguments)


class JavaScriptExample(PythonExample):
    """[JX] As [PX]; shows its credential in the head of the upgrade too (give `dial` what `upgrade_headers` makes)."""

    @staticmethod
    def upgrade_headers(token: str, auth_type: str) -> list[tuple[str, str]]:
        return [("Authorization", f"Bearer {token}")] if auth_type == "jwt" else [("X-API-Key", token)]


class BrowserExample(PythonSdk):
    """[BR] Keeps a table by device_path, and updates it by what it is told unasked."""

    def __init__(self, connection: WebSocketConnection) -> None:
        super().__init__(connection)
        self.table: dict[str, dict[str, Any]] = {}
        #: The rows whose button says that they are being recorded.
        self.recording: set[str] = set()

    def next_id(self) -> int:
        return random.randrange(1_000_000)

    async def list_cameras(self) -> None:
        result = await self.request("get_camera_list", {})
        self.table = {camera["device_path"]: camera for camera in result["cameras"]}

    def show(self) -> list[str]:
        """Its rows as text; `capabilities?.join` needs an array."""
        rows = []
        for path, camera in self.table.items():
            assert camera.get("capabilities") is None or isinstance(camera["capabilities"], list), "join is no function"
            abilities = ", ".join(camera.get("capabilities") or [])
            rows.append(f"{path} {camera['name']} {camera['status']} [{abilities}] {camera['stream_url']}")
        return rows

    async def take_snapshot(self, device: str, filename: str | None = None) -> dict[str, Any]:
        result = await self.request("take_snapshot", {"device": device})
        if not result["success"]:
            raise CameraServiceError(result["error"])
        return {"filename": result["filename"]}

    async def start_recording(self, device: str, filename: str | None = None) -> dict[str, Any]:
        result = await self.request("start_recording", {"device": device, "duration": 30})
        if not result["success"]:
            raise CameraServiceError(result["error"])
        self.recording.add(device)
        return {"filename": result["recording"]["filename"]}

    async def stop_recording(self, device: str) -> dict[str, Any]:
        result = await self.request("stop_recording", {"device": device})
        if not result["success"]:
            raise CameraServiceError(result["error"])
        self.recording.discard(device)
        return {"filename": result["filename"]}

    async def follow_recording(self) -> str:
        """Take in one notification of a recording; its button is free again at its end. Returns the status."""
        recording = (await self.hear("recording_status_update"))["recording"]
        if recording["status"] == "completed":
            assert recording["device_path"] in self.table, f"no button of {recording['device_path']}"
            self.recording.discard(recording["device_path"])
        return str(recording["status"])

    async def follow(self) -> str:
        """Take in one notification; returns the path of the row that it changed."""
        camera = (await self.hear("camera_status_update"))["camera"]
        assert camera["device_path"] in self.table, f"no row {camera['device_path']}, only {list(self.table)}"
        self.table[camera["device_path"]] |= {"name": camera["name"], "status": camera["status"]}
        return str(camera["device_path"])


def fetch(port: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """GET without following anything."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=dict(headers))
        with connection.getresponse() as response:
            return response.status, response.read()
    finally:
        connection.close()


# --- the web client and the end-to-end client (v2) ----------------------------------------------------------------


class RpcError(Exception):
    """An error frame: its code, its data, and the words that the web client puts in place of the message."""

    def __init__(self, code: int, message: str, data: Any) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class WebClient(Client):
    """[RW] Strict about the envelope, about device names and about enums; puts its own words for seven codes."""

    WORDS: Mapping[int, str] = {
        -32001: "Authentication failed", -32002: "Permission denied", -32010: "Not found", -32020: "Invalid state",
        -32030: "Unsupported", -32040: "Rate limited", -32050: "Dependency failed",
    }  # fmt: skip
    DEVICE = re.compile(r"^camera\d+$")
    STATUSES = frozenset({"CONNECTED", "DISCONNECTED", "ERROR"})
    TOPICS = ("camera_status_update", "recording_status_update", "system_health_update")

    async def request(self, method: str, *params: Mapping[str, Any]) -> Any:
        asked = await self.send(method, *params)
        while True:
            frame = await self.receive()
            if frame.get("jsonrpc") != "2.0":
                raise Hang(frame)
            if "id" not in frame:
                self.news.append(frame)
                continue
            if frame["id"] != asked:
                raise Hang(frame)
            if "error" in frame:
                assert "result" not in frame, "a strict reader takes this for a success"
                error = frame["error"]
                raise RpcError(error["code"], self.WORDS.get(error["code"], error["message"]), error.get("data"))
            return frame["result"]

    async def login(self, token: str) -> Any:
        result = await self.request("authenticate", {"auth_token": token})
        subscribed = await self.request("subscribe_events", {"topics": list(self.TOPICS)})
        assert subscribed["subscribed"] is True
        assert set(subscribed["topics"]) >= set(self.TOPICS)
        return result

    def device(self, value: Any) -> str:
        assert isinstance(value, str), value
        assert self.DEVICE.match(value), f"{value!r} is refused"
        return value

    async def cameras(self) -> list[str]:
        result = await self.request("get_camera_list")
        for camera in result["cameras"]:
            assert camera["status"] in self.STATUSES, camera
            assert all(isinstance(url, str) for url in camera["streams"].values()), camera
        assert is_number(result["total"])
        assert is_number(result["connected"])
        return [self.device(camera["device"]) for camera in result["cameras"]]

    async def status(self, device: str) -> Any:
        result = await self.request("get_camera_status", {"device": device})
        assert self.device(result["device"]) == device
        assert result["status"] in self.STATUSES
        assert all(is_number(result["metrics"][name]) for name in ("bytes_sent", "readers", "uptime"))
        assert all(isinstance(result["capabilities"][name], list) for name in ("formats", "resolutions"))
        return result

    async def snapshot(self, device: str) -> Any:
        result = await self.request("take_snapshot", {"device": device})
        assert self.device(result["device"]) == device
        assert result["status"] == "SUCCESS"
        assert ISO.match(result["timestamp"])
        assert is_number(result["file_size"])
        assert isinstance(result["filename"], str)
        assert isinstance(result["file_path"], str)
        return result

    async def start_recording(self, device: str, duration: float, format: str) -> Any:  # noqa: A002
        params = {"device": device, "duration": duration, "format": format}
        result = await self.request("start_recording", params)
        assert self.device(result["device"]) == device
        assert isinstance(result["filename"], str)
        assert result["status"] in ("RECORDING", "STARTING")
        assert ISO.match(result["start_time"])
        assert result["format"] == format
        return result

    async def stop_recording(self, device: str) -> Any:
        result = await self.request("stop_recording", {"device": device})
        assert self.device(result["device"]) == device
        assert result["status"] == "STOPPED"
        assert ISO.match(result["end_time"])
        assert is_number(result["duration"])
        assert is_number(result["file_size"])
        return result

    async def files(self, kind: str, limit: int, offset: int) -> tuple[list[Any], int]:
        result = await self.request(f"list_{kind}", {"limit": limit, "offset": offset})
        for file in result["files"]:
            assert isinstance(file["filename"], str)
            assert is_number(file["file_size"])
            assert ISO.match(file["modified_time"])
            assert isinstance(file["download_url"], str)
        assert is_number(result["total"])
        return result["files"], result["total"]

    async def info(self, kind: str, filename: str) -> Any:
        result = await self.request(f"get_{kind}_info", {"filename": filename})
        assert ISO.match(result["created_time"])
        return {name: result[name] for name in ("filename", "file_size", "created_time", "download_url")}

    async def delete(self, kind: str, filename: str) -> bool:
        result = await self.request(f"delete_{kind}", {"filename": filename})
        assert isinstance(result["message"], str)
        return bool(result["deleted"])

    async def open(self, download_url: str) -> tuple[int, bytes]:
        """As a browser opens `<a href=download_url>`: without a header."""
        found = re.match(r"http://127\.0\.0\.1:(\d+)(/.*)", download_url)
        assert found, f"{download_url} is of the page's own origin, where no edged is"
        return await trio.to_thread.run_sync(fetch, int(found[1]), found[2], {})

    async def hear_of_recording(self) -> tuple[str, str]:
        """(device, status) of the next notification; its store drops any other status."""
        while not self.news:
            self.news.append(await self.receive())
        frame = self.news.pop(0)
        assert (frame["jsonrpc"], frame["method"]) == ("2.0", "recording_status_update")
        assert frame["params"]["status"] in ("RECORDING", "STARTING", "STOPPED", "ERROR")
        return self.device(frame["params"]["device"]), frame["params"]["status"]

    async def streams(self) -> list[Any]:
        result = await self.request("get_streams")
        assert isinstance(result, list), "Array.isArray is false"
        for stream in result:
            assert isinstance(stream["name"], str)
            assert isinstance(stream["source"], str)
            assert isinstance(stream["ready"], bool)
            assert is_number(stream["readers"])
            assert is_number(stream["bytes_sent"])
        return result

    async def stream_url(self, device: str) -> Any:
        result = await self.request("get_stream_url", {"device": device})
        assert self.device(result["device"]) == device
        assert isinstance(result["stream_name"], str)
        assert isinstance(result["stream_url"], str)
        assert isinstance(result["available"], bool)
        assert is_number(result["active_consumers"])
        assert result["stream_status"] in ("READY", "NOT_READY", "ERROR")
        return result

    async def system_status(self) -> Any:
        result = await self.request("get_system_status")
        assert result["status"] in ("starting", "partial", "ready")
        assert isinstance(result["message"], str)
        assert all(self.device(name) for name in result["available_cameras"])
        assert isinstance(result["discovery_active"], bool)
        return result

    async def hear_of_camera(self) -> tuple[str, str]:
        """(device, status) of the next notification; its store drops anything else."""
        while not self.news:
            self.news.append(await self.receive())
        frame = self.news.pop(0)
        assert (frame["jsonrpc"], frame["method"]) == ("2.0", "camera_status_update")
        params = frame["params"]
        assert params["status"] in self.STATUSES
        return self.device(params["device"]), params["status"]


class EndToEndClient(Client):
    """[GT] Whatever frame comes next is the answer."""

    async def request(self, method: str, *params: Mapping[str, Any]) -> Any:
        await self.send(method, *params)
        frame = await self.receive()
        if "method" in frame:
            raise Hang(f"took this for its answer: {frame}")
        if "error" in frame:
            raise RpcError(frame["error"]["code"], frame["error"]["message"], frame["error"].get("data"))
        return frame["result"]


def is_number(value: Any) -> bool:
    """`typeof value === 'number'`, and not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
