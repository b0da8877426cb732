"""Nothing secret is shown again: not in replies, logs, metrics, command lines, lists or files; and the search works."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import secrets
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import planted
import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, free_port, make_config, port_of, running_daemon
from log_helpers import kept_log
from media_helpers import SDP, open_rtsp
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused

from edged.config.model import CameraSettings, Config
from edged.credentials import tokens
from edged.operations import gather
from edged.store.folders import LOCK

#: Operations whose answer is a new secret, and the members that hold it.
SHOWN = {
    "create_key": ("api_key",),
    "rotate_key": ("api_key", "new_api_key"),
    "issue_token": ("token",),
    "refresh_token": ("token",),
    "create_service_token": ("service_token",),
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The daemon's own log at debug; no secret may stand in it at the end."""
    with kept_log() as stream:
        yield stream
    assert stream.getvalue(), "this daemon said nothing: the test shows nothing"
    assert planted.leaks(stream.getvalue()) == []


def with_camera(config: Config) -> tuple[Config, str, str]:
    """A box with a network camera that is not there, its password, and the secret in its address's query."""
    password = planted.plant(f"pass-{secrets.token_hex(12)}", "a camera's password")
    query = planted.plant(f"query-{secrets.token_hex(12)}", "the query of a camera's address")
    source = f"rtsp://installer:{password}@127.0.0.1:{free_port()}/yard?key={query}"
    camera = CameraSettings(name="yard", source=source, mode="always")
    return msgspec.structs.replace(config, camera=(*config.camera, camera)), password, query


def sign(**claims: object) -> str:
    now = int(time.time())
    everything = {"user_id": "viewer", "role": "viewer", "jti": secrets.token_hex(8), "iat": now, "exp": now + 600}
    return tokens.sign({**everything, **claims}, tokens.SharedSecret("test", SECRET))


# The search itself -------------------------------------------------------------------------------------------------

LEAKY = """
import logging, sys
import structlog
from edged.access.child_secrets import ChildSecrets
from edged.credentials import api_keys, tokens
from edged.store.folders import LOCK

SECRET = tokens.SharedSecret("x", "a shared secret that is long enough to be one")

def test_quiet():
    api_keys.mint()

def test_prints_a_key():
    print("key", api_keys.mint().secret)

def test_prints_a_key_without_its_prefix():
    print(api_keys.mint().secret.removeprefix("camera_service_sk_"))

def test_writes_a_childs_password():
    sys.stderr.write(ChildSecrets().make("camera0", "publish"))

def test_logs_a_token():
    structlog.get_logger("x").info("made", text=tokens.sign({"user_id": "a", "exp": 9999999999}, SECRET))

def test_warns_of_the_shared_secret():
    logging.getLogger("x").warning("a shared secret that is long enough to be one")
"""


def test_a_planted_leak_fails_its_test(tmp_path: Path) -> None:
    """Printed, written or logged: each of them is found and named, and what is silent passes."""
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    here = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-q", "-rA",
         "--rootdir", tmp_path, "-c", os.devnull, tmp_path / "test_leaky.py"],
        cwd=here.parent, env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = ran.stdout
    assert ran.returncode == 1, said + ran.stderr
    for name, what in (
        ("prints_a_key", "an API key"),
        ("prints_a_key_without_its_prefix", "an API key without its prefix"),
        ("writes_a_childs_password", "a child's password to publish camera0"),
        ("logs_a_token", "a token"),
        ("warns_of_the_shared_secret", "shared secret 'x'"),
    ):
        assert any(line.startswith("ERROR") and f"test_{name}" in line for line in said.splitlines()), said
        assert f"test_{name} showed" in said
        assert what in said
    assert "5 errors" in said, said


def test_short_texts_and_texts_written_as_json_are_told_apart() -> None:
    """What anybody could say by chance is not searched for; a quotation mark does not hide a secret."""
    planted.plant("short", "nothing")
    odd = planted.plant('a "quoted" \\ sécret', "an odd one")
    try:
        assert planted.leaks("short", "nothing at all") == []
        assert planted.leaks(f"it is {odd}!") == ["an odd one"]
        assert planted.leaks(json.dumps({"a": odd})) == ["an odd one"]
    finally:
        planted.forget(odd)


# Replies -----------------------------------------------------------------------------------------------------------


class Ear:
    """Hears every reply, and keeps what may not stand in it."""

    def __init__(self) -> None:
        self.leaks: list[tuple[str, list[str]]] = []
        self.heard = 0

    def hear(self, name: str, text: str) -> None:
        """`name` is the operation; its own new secret is what it is for."""
        self.heard += 1
        shown = text
        for member in SHOWN.get(name, ()):
            result = json.loads(text)
            result = result.get("result", result) if isinstance(result, dict) else {}
            if isinstance(result, dict) and isinstance(result.get(member), str):
                shown = shown.replace(result[member], "")
        if found := planted.leaks(shown):
            self.leaks.append((name, found))


def params_of(name: str, key_id: str, token: str) -> list[dict[str, object]]:
    """Params that work, and params that do not, with secrets where a client may put them."""
    good: dict[str, object] = {
        "device": "camera0", "name": "x", "role": "viewer", "key_id": key_id, "token": token,
        "topics": ["camera_status_update"], "user_id": "somebody", "grace_seconds": 0, "expires_in": 600,
    }  # fmt: skip
    operation = gather().operations.get(name)
    known = operation.params.__struct_fields__ if operation else ()
    chosen = {member: good[member] for member in known if member in good}
    return [{}, chosen, {**chosen, "device": "yard"}, {**chosen, "device": "camera2", "required_role": "admin"}]


@pytest.mark.ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize("listener", ["main", "compat"])
async def test_no_reply_of_any_operation_shows_a_secret(tmp_path: Path, log: io.StringIO, listener: str) -> None:
    """Every operation in both dialects, as nobody, as a viewer and as an administrator, right and wrong."""
    config, _, _ = with_camera(make_config(tmp_path, cameras=1))
    ear = Ear()
    with fail_after(280):
        async with running_daemon(tmp_path, config=config) as daemon:
            port = port_of(getattr(config.listen, listener))
            _, viewer = await daemon.create_key()
            _, admin = await daemon.create_key("admin")
            gone_id, gone = await daemon.create_key()
            await daemon.revoke_key(gone_id)
            for secret in ("", viewer, sign(), admin):
                for name in [*gather().operations, "no_such_method"]:
                    async with daemon.websocket(port) as client:
                        if secret:
                            ear.hear("authenticate", json.dumps(await client.ask("authenticate", auth_token=secret)))
                        key_id, _ = await daemon.create_key()
                        for params in params_of(name, key_id, sign()):
                            if name == "take_snapshot" and params.get("device") == "camera2":
                                continue  # an answer that takes its ten seconds
                            ear.hear(name, json.dumps(await client.ask(name, **params)))
                        for news in client.news:
                            ear.hear("news", json.dumps(news))
            async with daemon.websocket(port) as client:
                for wrong in (gone, viewer[:-1] + "x", sign(exp=1), sign()[:-3] + "abc", SECRET):
                    ear.hear("authenticate", json.dumps(await client.ask("authenticate", auth_token=wrong)))
                    ear.hear("authenticate", json.dumps(await client.ask("authenticate", token=wrong, auth_type="jwt")))
            for where in (config.listen.main, config.listen.compat, config.listen.local):
                for method, path in (
                    ("GET", "/metrics"), ("GET", "/healthz"), ("GET", "/health"), ("GET", "/health/live"),
                    ("GET", "/health/ready"), ("GET", "/api/keys"), ("GET", f"/api/keys/{gone_id}"),
                    ("DELETE", f"/api/keys/{gone_id}"), ("GET", "/files/snapshots/x"), ("GET", "/nothing"),
                    ("POST", f"/api/keys/{gone_id}/rotate"), ("GET", "/api/cameras/camera1/live.mjpeg?fps=x"),
                ):  # fmt: skip
                    for key in ("", viewer, admin, gone, sign(), "Basic " + SECRET):
                        reply = await daemon.request(method, path, key=key, port=port_of(where))
                        ear.hear(path, reply.body.decode() + repr(reply.headers))
    assert ear.leaks == []
    assert ear.heard > 400


async def test_a_secret_in_the_wrong_place_is_not_logged(tmp_path: Path, log: io.StringIO) -> None:
    """As a method, a device, a path, a query, a header of any name, or in the middle of broken JSON. The fixture looks
    at the log."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            _, key = await daemon.create_key("admin")
            for secret in (key, sign()):
                async with daemon.websocket() as client:
                    await client.ask(secret)
                    await client.call("authenticate", auth_token=key)
                    for name in gather().operations:
                        if name not in ("authenticate", "revoke_token", "logout"):
                            await client.ask(
                                name, device=secret, key_id=secret, role=secret, name=secret, topics=[secret]
                            )
                    await client.connection.send_message('{"id": 1, "method": "' + secret)
                    await client.connection.get_message()
                for headers in ({"X-Foo": secret}, {"Host": secret}, {"Origin": secret}, {"User-Agent": secret}):
                    await daemon.request("GET", f"/{secret}?token={secret}", headers=headers)
                    await daemon.request("GET", f"/api/cameras/{secret}/live.mjpeg?jwt={secret}", headers=headers)


# Children, lists and files -----------------------------------------------------------------------------------------


def descendants() -> list[int]:
    """The processes below this one."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def look_at(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def fetch(port: int, path: str, user: str = "", password: str = "") -> tuple[int, str]:
    """One GET to MediaMTX's API."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {login}"} if user else {})
        with connection.getresponse() as response:
            return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_while_everything_runs_nothing_shows_a_secret_that_is_worth_something(
    tmp_path: Path, log: io.StringIO
) -> None:
    """Command lines and environments of all children, MediaMTX's lists, and every file of ours."""
    config, password, query = with_camera(make_config(tmp_path, cameras=1, mediamtx=True))
    with fail_after(85):
        async with running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            _, key = await daemon.create_key("operator")
            viewers = [RtspReader(daemon.rtsp, "camera0", name, secret) for name, secret in (("a", key), ("b", sign()))]
            for viewer in viewers:
                await viewer.play()
                await viewer.wait_packet()
            async with daemon.websocket() as client, daemon.local() as admin:
                await client.call("authenticate", auth_token=key)
                assert (await client.call("take_snapshot", device="camera0"))["success"] is True
                await admin.call("rotate_key", key_id=(await admin.call("list_keys"))["keys"][0]["key_id"])
                passwords = await watch_children(password, query)
            assert passwords, "no publisher was started: this test shows nothing"
            await assert_worthless(daemon, passwords)
            await assert_lists_are_clean(daemon, [key, password, query])
            assert_files_are_clean(tmp_path, password, query)
            for viewer in viewers:
                await viewer.wait_packet()
                await viewer.aclose()
        assert_files_are_clean(tmp_path, password, query)
    left = {each.name for each in (tmp_path / "run").iterdir()}
    assert left <= {LOCK, "children", "pre-roll"}, "nothing else stays in the runtime folder"
    assert [*(tmp_path / "run").glob("children/*"), *(tmp_path / "run").glob("pre-roll/*")] == []


async def watch_children(password: str, query: str) -> set[str]:
    """Look at all children for a while, through several tries to reach the camera that is not there.

    Returns the passwords that were made for publishers meanwhile and before: not one of them may be seen.
    """
    names: set[str] = set()
    until = trio.current_time() + 3
    while trio.current_time() < until:
        for pid in descendants():
            line, environment = look_at(pid, "cmdline"), look_at(pid, "environ")
            names.add(Path(line.split(" ")[0]).name)
            assert password not in line + environment
            assert query not in line + environment
            assert planted.leaks(line, environment) == [], names
        await trio.sleep(0.02)
    assert {"mediamtx", "ffmpeg"} <= names, names
    return {*planted.child_secrets("publish", "camera0"), *planted.child_secrets("publish", "camera1")}


async def assert_worthless(daemon: RunningDaemon, passwords: set[str]) -> None:
    """A publisher's password that was used opens nothing: no publishing, no reading, no API, no edged.

    MediaMTX lets whoever showed a wrong credential wait for seconds, so all are tried at once.
    """
    api = port_of((json.loads((daemon.config.paths.runtime / "children" / "mediamtx.json").read_text())["apiAddress"],))

    async def read(camera: str, user: str, secret: str) -> None:
        reader = RtspReader(daemon.rtsp, camera, user, secret)
        with pytest.raises(RtspRefused) as refused:
            await reader.play()
        assert refused.value.status == 401
        await reader.aclose()

    async def write(secret: str) -> None:
        login = "Basic " + base64.b64encode(f"edged:{secret}".encode()).decode()
        async with open_rtsp(daemon.rtsp, "camera0") as writer:
            assert await writer.ask("ANNOUNCE", body=SDP, Authorization=login) == 401

    async def ask_api(secret: str) -> None:
        assert (await trio.to_thread.run_sync(fetch, api, "/v3/paths/list", "edged", secret))[0] == 401

    async with trio.open_nursery() as nursery:
        for secret in sorted(passwords):
            for user in ("edged", "viewer"):
                for camera in ("camera0", "camera1"):
                    nursery.start_soon(read, camera, user, secret)
            nursery.start_soon(write, secret)
            nursery.start_soon(ask_api, secret)
            assert (await daemon.request("GET", "/api/keys", key=secret)).status == 401
            async with daemon.websocket() as client:
                assert "error" in await client.ask("authenticate", auth_token=secret)


async def assert_lists_are_clean(daemon: RunningDaemon, secrets_of_users: list[str]) -> None:
    """MediaMTX's own lists hold no secret, and are open to edged alone."""
    api = port_of((json.loads((daemon.config.paths.runtime / "children" / "mediamtx.json").read_text())["apiAddress"],))
    own = planted.child_secrets("api")[-1]
    for path in (
        "/v3/rtspsessions/list", "/v3/rtspconns/list", "/v3/hlssessions/list", "/v3/hlsmuxers/list",
        "/v3/webrtcsessions/list", "/v3/paths/list", "/v3/config/global/get", "/v3/config/paths/list", "/v3/info",
    ):  # fmt: skip
        status, text = await trio.to_thread.run_sync(fetch, api, path, "edged", own)
        assert status == 200, path
        assert planted.leaks(text) == [], path

    async def knock(path: str, user: str, secret: str) -> None:
        assert (await trio.to_thread.run_sync(fetch, api, path, user, secret))[0] == 401, path

    async with trio.open_nursery() as nursery:
        for path in ("/v3/rtspsessions/list", "/v3/config/global/get"):
            for user, secret in (("", ""), ("edged", ""), *(("edged", secret) for secret in secrets_of_users)):
                nursery.start_soon(knock, path, user, secret)


def assert_files_are_clean(folder: Path, password: str, query: str) -> None:
    """State and runtime hold digests, addresses and pictures; nobody else may read what is in them."""
    state, run = folder / "state", folder / "run"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    seen = []
    for path in [*state.rglob("*"), *run.rglob("*")]:
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            seen.append(path.name)
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".ffconcat":
                # The one place where ffmpeg is told how to reach a camera; it goes when that ffmpeg ends.
                assert stat.S_IMODE(mode) == 0o600
                text = text.replace(password, "").replace(query, "")
                for secret in planted.child_secrets("read", "camera0"):
                    text = text.replace(secret, "")
            assert planted.leaks(text) == [], path
            assert not (mode & 0o007 and text), path
            if path.suffix in (".json", ".db") or path.name.endswith(("-wal", "-shm")):
                assert stat.S_IMODE(mode) == 0o600, path
        elif stat.S_ISSOCK(mode):
            assert stat.S_IMODE(mode) == 0o660
    assert {"trust.db", "usage.db"} <= set(seen)
