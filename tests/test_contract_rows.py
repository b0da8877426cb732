"""The wire contract, row by row, over real sockets against the real daemon; each test names its rows.

What a client reads is compared exactly: codes, messages in bold, member names. camera0 has a device file, camera1 none.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import SECRET, Conversation, RunningDaemon, ended, make_config, port_of, running_daemon
from media_helpers import SDP
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused
from seed_clients import (
    ISO,
    Client,
    compat,
    encode_jwt,
    give_device_file,
    is_number,
    seed_000_token,
    seed_001_token,
)

from edged.access.gate import Gate
from edged.accounts.api_keys import ApiKeys
from edged.config.model import AuthSettings, LimitSettings
from edged.errors import Overloaded, Refused, StoreFailed
from edged.mediamtx.frames import Frames

pytestmark = pytest.mark.ffmpeg
WRONG_KEY = "camera_service_sk_" + "0" * 64
V1, V2 = "v1", "v2"
UNAUTHENTICATED = "Authentication failed or token expired"


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningDaemon]:
    give_device_file(monkeypatch)
    with fail_after(80):
        async with running_daemon(tmp_path) as running:
            yield running


class Pictures:
    """Stands for the source of pictures where a test says when one is there: at once, or when it lets them go."""

    def __init__(self) -> None:
        self.held = False
        self._gone = trio.Event()

    def let_go(self) -> None:
        self.held = False
        self._gone.set()

    async def snapshot(self, *_: Any, **__: Any) -> bytes:
        if self.held:
            await self._gone.wait()
        await trio.lowlevel.checkpoint()
        return b"\xff\xd8\xff\xd9"


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """In place of the daemon's own, which take as long as they take."""
    stand_in = Pictures()
    monkeypatch.setattr(Frames, "snapshot", lambda _frames, *given, **named: stand_in.snapshot(*given, **named))
    return stand_in


def port(daemon: RunningDaemon, dialect: str) -> int:
    return compat(daemon) if dialect == V1 else daemon.port


async def enter(client: Conversation, dialect: str, key: str) -> Any:
    """Log in as a client of that dialect does."""
    if dialect == V1:
        return await client.call("authenticate", token=key, auth_type="api_key")
    return await client.call("authenticate", auth_token=key)


async def ask_raw(client: Conversation, text: str) -> Any:
    """Send a text as it is; the next frame."""
    await client.connection.send_message(text)
    return json.loads(await client.connection.get_message())


def error(reply: Any) -> tuple[int, str]:
    return reply["error"]["code"], reply["error"]["message"]


# --- section 0: the dialects --------------------------------------------------------------------------------------


async def test_0_the_listener_speaks_before_the_client_has(daemon: RunningDaemon) -> None:
    """Contract 0, "before that": 8080 → v1, others → v2 (strict)."""
    async with daemon.websocket(compat(daemon)) as old, daemon.websocket() as new:
        refused = await old.ask("get_camera_list")
        assert (error(refused), refused["result"]) == ((-32001, "Authentication required"), None)
        refused = await new.ask("get_camera_list")
        assert error(refused) == (-32001, UNAUTHENTICATED)
        assert "result" not in refused


@pytest.mark.parametrize(
    ("members", "dialect"),
    [
        ({"token": "K"}, V1),
        ({"token": "K", "auth_type": "api_key"}, V1),
        ({"auth_token": "K"}, V2),
        ({"token": "K", "auth_token": "K"}, V2),
        ({"token": "K", "auth_token": "K", "auth_type": "api_key"}, V1),
    ],
)
async def test_0_the_first_authenticate_chooses(daemon: RunningDaemon, members: dict[str, str], dialect: str) -> None:
    """Contract 0, "chosen by", C-1: `token` → v1, `auth_token` → v2, both → v2 unless auth_type is there; any port."""
    _, key = await daemon.create_key("viewer")
    given = {name: key if value == "K" else value for name, value in members.items()}
    for number in (daemon.port, compat(daemon)):
        async with daemon.websocket(number) as client:
            assert (await client.call("authenticate", **given))["authenticated"] is True
            refused = await client.ask("take_snapshot", device="camera0")
            assert error(refused)[0] == (-32003 if dialect == V1 else -32002)
            assert ("result" in refused) == (dialect == V1)


async def test_0_the_dialect_is_fixed_until_the_socket_closes(daemon: RunningDaemon) -> None:
    """Contract 0: another authenticate in the other's words does not change it, a failed first one has chosen too."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        assert (await client.call("authenticate", token=WRONG_KEY))["authenticated"] is False
        await client.call("authenticate", auth_token=key)
        assert (await client.ask("take_snapshot", device="camera0"))["error"]["code"] == -32003


@pytest.mark.parametrize(("name", "code"), [("camera-v1", -32003), ("jsonrpc-2.0", -32002)])
async def test_0_a_subprotocol_forces_the_dialect(daemon: RunningDaemon, name: str, code: int) -> None:
    """Contract 0: jsonrpc-2.0 → v2, camera-v1 → v1, echoed, whatever the port and the login say."""
    _, key = await daemon.create_key("viewer")
    for number in (daemon.port, compat(daemon)):
        for member in ("token", "auth_token"):
            async with daemon.websocket(number, subprotocols=[name]) as client:
                assert client.connection.subprotocol == name
                await client.call("authenticate", **{member: key})
                assert (await client.ask("take_snapshot", device="camera0"))["error"]["code"] == code


async def test_0_notifications_by_dialect(daemon: RunningDaemon) -> None:
    """Contract 0, C-22, 3b: v1 hears unasked, v2 only what it asked for, nobody hears before a login."""
    _, key = await daemon.create_key("viewer")
    async with (
        daemon.websocket(compat(daemon)) as old,
        daemon.websocket() as silent,
        daemon.websocket() as own,
        daemon.websocket(compat(daemon)) as stranger,
    ):
        await enter(old, V1, key)
        await enter(silent, V2, key)
        await enter(own, V2, key)
        await own.call("subscribe_events", topics=["camera.disconnected"])
        daemon.plug(1).unlink()
        await old.hear("camera_status_update")
        assert (await own.hear("camera.disconnected"))["device"] == "camera1"
        daemon.plug(1).touch()
        await old.hear("camera_status_update")
        for client in (silent, own, stranger):
            assert await client.call("ping") == "pong"
            assert client.news == []


async def test_0_device_by_dialect(daemon: RunningDaemon) -> None:
    """Contract 0, C-7, C-8: input both; `device` /dev/videoN or cameraN in v1, cameraN in v2; /dev for admins."""
    keys = {role: (await daemon.create_key(role))[1] for role in ("operator", "admin")}
    for dialect, role, device, path in (
        (V1, "operator", "/dev/video0", "/dev/video0"),
        (V2, "operator", "camera0", "camera0"),
        (V2, "admin", "camera0", "/dev/video0"),
    ):
        async with daemon.websocket(port(daemon, dialect)) as client:
            await enter(client, dialect, keys[role])
            row = (await client.call("get_camera_list"))["cameras"][0]
            assert (row["device"], row["device_path"], row["camera_id"]) == (device, path, "camera0")
            for name in ("camera0", "/dev/video0"):
                assert (await client.call("get_camera_status", device=name))["device"] == device
                assert (await client.call("get_stream_url", device=name))["device"] == device
            assert (await client.call("take_snapshot", device="/dev/video0"))["device"] == device


# --- section 3: the methods ---------------------------------------------------------------------------------------


async def test_3_ping(daemon: RunningDaemon) -> None:
    """Contract 3 ping, C-11: "pong", without a login, with any params, and never an authentication failure."""
    async with daemon.websocket() as client:
        for params in ("", ',"params":{}', ',"params":null', ',"params":[]', ',"params":{"auth_token":"bad"}'):
            reply = await ask_raw(client, f'{{"jsonrpc":"2.0","id":"a","method":"ping"{params}}}')
            assert reply == {"jsonrpc": "2.0", "id": "a", "result": "pong"}
    scraped = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
    failures = [line for line in scraped.splitlines() if line.startswith("edged_auth_failures_total{")]
    assert failures
    assert all(line.endswith(" 0.0") for line in failures)


async def test_3_authenticate(daemon: RunningDaemon) -> None:
    """Contract 3 authenticate: its members, the view/control/admin words, and 24 h for a key without an end."""
    words = {"viewer": {"view"}, "operator": {"view", "control"}, "admin": {"view", "control", "admin"}}
    for role in ("viewer", "operator", "admin"):
        key_id, key = await daemon.create_key(role)
        async with daemon.websocket() as client:
            answer = await enter(client, V2, key)
            assert answer.keys() == {
                "authenticated", "role", "roles", "permissions", "expires_at", "session_id", "user_id"
            }  # fmt: skip
            assert (answer["authenticated"], answer["role"], answer["roles"]) == (True, role, [role])
            assert words[role] <= set(answer["permissions"])
            assert not (words["admin"] - words[role]) & set(answer["permissions"])
            assert answer["user_id"] == f"key:{key_id}"
            assert ISO.match(answer["expires_at"])
            left = time.mktime(time.strptime(answer["expires_at"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone - time.time()
            assert 86400 - 60 < left <= 86400 + 1


@pytest.mark.parametrize("auth_type", ["auto", None])
async def test_3_authenticate_knows_keys_from_tokens(daemon: RunningDaemon, auth_type: str | None) -> None:
    """S1-25: auth_type jwt, api_key, auto or absent."""
    _, key = await daemon.create_key("viewer")
    for text in (key, seed_001_token("viewer")):
        async with daemon.websocket() as client:
            given = {} if auth_type is None else {"auth_type": auth_type}
            assert (await client.call("authenticate", token=text, **given))["role"] == "viewer"


async def test_3_a_failed_login_leaves_nobody_and_keeps_subscriptions(daemon: RunningDaemon) -> None:
    """S0-17: re-authenticate replaces the credential and keeps subscriptions; a failed one leaves nobody."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        await client.call("subscribe_events", topics=["camera_status_update"])
        assert error(await client.ask("authenticate", auth_token=WRONG_KEY)) == (-32001, UNAUTHENTICATED)
        refused = await client.ask("get_camera_list")
        assert refused["error"]["data"]["reason"] == "auth_required"
        await enter(client, V2, key)
        daemon.plug(1).unlink()
        assert (await client.hear("camera_status_update"))["device"] == "camera1"


async def test_3_who_is_not_admitted_is_not_in(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 7.6: a credential that ends between the look and the admission leaves no caller in the session."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:

        def refuse(*_: Any, **__: Any) -> None:
            raise Refused("revoked")

        monkeypatch.setattr(Gate, "admit", refuse)
        assert (await client.ask("authenticate", auth_token=key))["error"]["data"]["reason"] == "revoked"
        monkeypatch.undo()
        assert (await client.ask("whoami"))["error"]["data"]["reason"] == "auth_required"


async def test_3_whoami(daemon: RunningDaemon) -> None:
    """S2-6, S2-18: {user_id, username, roles[], permissions[], authenticated}, own claims kept."""
    token = seed_000_token("viewer", department="IT")
    async with daemon.websocket() as client:
        await client.call("authenticate", auth_token=token)
        answer = await client.call("whoami")
        assert answer.keys() == {"user_id", "username", "roles", "permissions", "authenticated", "claims"}
        assert (answer["user_id"], answer["username"], answer["roles"]) == ("user123", "John Doe", ["viewer"])
        assert answer["permissions"] == ["camera:read", "stream:read", "system:read"]
        assert answer["authenticated"] is True
        assert answer["claims"]["department"] == "IT"


@pytest.mark.parametrize("member", ["auth_token", "token"])
async def test_3_every_method_takes_a_credential(daemon: RunningDaemon, member: str) -> None:
    """Contract 3, C-12: the stateless flow authenticates the session if it was not; unknown params are ignored."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        listed = await client.call("get_camera_list", **{member: key, "auth_type": "api_key", "whatever": 1})
        assert listed["total"] == 2
        assert (await client.call("get_camera_status", device="camera0", **{member: WRONG_KEY}))["device"] == "camera0"
        assert (await client.call("whoami"))["authenticated"] is True
    async with daemon.websocket() as client:
        refused = await client.ask("get_camera_list", **{member: WRONG_KEY})
        assert (error(refused), refused["error"]["data"]["reason"]) == ((-32001, UNAUTHENTICATED), "auth_failed")


async def test_3_get_camera_list(daemon: RunningDaemon) -> None:
    """Contract 3 get_camera_list, C-16, S1-12: its members and types; {}, null and absent params are equal."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        answers = [
            (await ask_raw(client, f'{{"jsonrpc":"2.0","id":9,"method":"get_camera_list"{params}}}'))["result"]
            for params in ("", ',"params":{}', ',"params":null')
        ]
        assert answers[0] == answers[1] == answers[2]
        assert answers[0].keys() == {"cameras", "total", "connected"}
        assert (answers[0]["total"], answers[0]["connected"]) == (2, 2)
        for row in answers[0]["cameras"]:
            assert row.keys() == {
                "device", "device_path", "camera_id", "status", "name", "resolution", "fps", "streams", "stream_url",
                "capabilities", "recording", "recording_session", "current_file", "elapsed_time",
            }  # fmt: skip
            assert re.fullmatch(r"\d+x\d+", row["resolution"])
            assert type(row["fps"]) is int
            assert row["capabilities"] == ["snapshot", "stream"]
            assert row["recording"] is False


async def test_3_get_camera_status(daemon: RunningDaemon) -> None:
    """Contract 3 get_camera_status, C-13, C-16: capabilities an object, metrics numbers; unknown: null or -32010."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket(compat(daemon)) as old, daemon.websocket() as new:
        await enter(old, V1, key)
        await enter(new, V2, key)
        status = await new.call("get_camera_status", device="camera0")
        assert status["capabilities"] == {"formats": ["MJPG"], "resolutions": ["320x240"]}
        assert status["metrics"] == {"bytes_sent": 0, "readers": 0, "uptime": 0.0}
        assert (await old.ask("get_camera_status", device="camera9"))["result"] is None
        assert "error" not in await old.ask("get_camera_status", device="/dev/video9")
        refused = await new.ask("get_camera_status", device="camera9")
        assert error(refused) == (-32010, "Not found")
        assert (refused["error"]["data"]["resource"], refused["error"]["data"]["id"]) == ("camera", "camera9")


async def test_3_take_snapshot(daemon: RunningDaemon) -> None:
    """Contract 3 take_snapshot, C-14, C-18: its members; jpg and png; a duration is never there; quality 0-100."""
    _, key = await daemon.create_key("operator")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        taken = await client.call("take_snapshot", device="camera0", filename="a.png", format="png", quality=50)
        assert taken.keys() == {
            "success", "device", "filename", "status", "timestamp", "file_size", "size_bytes", "file_path",
            "download_url",
        }  # fmt: skip
        assert (taken["success"], taken["status"], taken["filename"]) == (True, "SUCCESS", "a.png")
        assert taken["file_size"] == taken["size_bytes"] > 0
        assert taken["file_path"] == "a.png"
        assert ISO.match(taken["timestamp"])
        for wrong in ({"quality": -1}, {"quality": 101}, {"quality": True}, {"format": "gif"}, {"filename": "../a"}):
            assert (await client.ask("take_snapshot", device="camera0", **wrong))["error"]["code"] == -32602


async def test_3_get_streams_and_stream_url(daemon: RunningDaemon) -> None:
    """Contract 3 get_streams, get_stream_url: a bare array; members of an address, numbers where there is nothing."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        assert await client.call("get_streams") == []
        answer = await client.call("get_stream_url", device="camera0")
        told = {"device", "stream_name", "stream_url", "available", "active_consumers", "stream_status"}
        assert told <= answer.keys()
        assert (answer["stream_name"], answer["available"], answer["stream_status"]) == ("camera0", False, "NOT_READY")
        assert answer["active_consumers"] == 0


async def test_3_get_system_status(daemon: RunningDaemon) -> None:
    """Contract 3 get_system_status: its members; only cameras that one may see."""
    _, key = await daemon.create_key("viewer", camera_access=["camera1"])
    _, monitor = await daemon.create_key("monitor")
    async with daemon.websocket() as client:
        for secret, seen in ((key, ["camera1"]), (monitor, [])):
            await enter(client, V2, secret)
            answer = await client.call("get_system_status")
            assert {"status", "message", "available_cameras", "discovery_active"} <= answer.keys()
            assert answer["status"] in ("starting", "partial", "ready")
            assert answer["available_cameras"] == seen
            assert isinstance(answer["discovery_active"], bool)


async def test_3_subscriptions(daemon: RunningDaemon) -> None:
    """Contract 3 subscribe/unsubscribe_events: dotted and method names; unknown → -32602 and the list; absent = all."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        answer = await client.call("subscribe_events", topics=["camera.connected"], filters={"device": "camera0"})
        assert answer == {"subscribed": True, "topics": ["camera.connected"], "filters": {"device": "camera0"}}
        more = await client.call("subscribe_events", topics=["snapshot.taken", "system.health", "mediamtx.stream"])
        assert more["topics"] == ["camera.connected", "mediamtx.stream", "snapshot.taken", "system.health"]
        assert more["inactive"] == ["mediamtx.stream", "system.health"]
        await client.call("unsubscribe_events", topics=[*more["inactive"], "snapshot.taken"])
        for topics in (["camera.exploded"], []):
            refused = await client.ask("subscribe_events", topics=topics)
            assert refused["error"]["code"] == -32602
            assert {"camera.connected", "camera_status_update"} <= set(refused["error"]["data"]["topics"])
        assert await client.call("unsubscribe_events") == {"unsubscribed": True, "topics": ["camera.connected"]}
        assert await client.call("unsubscribe_events") == {"unsubscribed": True, "topics": []}


async def test_3_notifications_are_no_methods(daemon: RunningDaemon) -> None:
    """Contract 3, last row; C-23: -32601, whoever asks."""
    async with daemon.local() as admin:
        for name in ("camera_status_update", "recording_status_update", "auth_expired", "no_such_method"):
            assert error(await admin.ask(name)) == (-32601, "Method not found")


async def test_3_tokens(daemon: RunningDaemon) -> None:
    """S0-9, S0-10, S0-13, S0-22 to S0-27, contract 8.6: what edged issues, guide S0's validators accept."""
    async with daemon.local() as admin:
        issued = await admin.call("issue_token", user_id="ada", role="operator", expires_in=3600)
        assert issued.keys() >= {"token", "token_type", "expires_at", "expires_in", "jti"}
        assert (issued["token_type"], issued["expires_in"]) == ("Bearer", 3600)
        judged = await admin.call("validate_token", token=issued["token"])
        claims = judged["payload"]
        assert (judged["valid"], judged["errors"], judged["warnings"]) == (True, [], [])
        assert claims == decode(issued["token"])
        assert {"sub", "user_id", "iat", "exp", "jti", "role"} <= claims.keys()
        assert "aud" not in claims
        assert claims["sub"] == claims["user_id"] == "ada"
        assert type(claims["iat"]) is int
        assert claims["iat"] <= time.time() + 1
        assert len(claims.get("permissions", [])) <= 10
        for wanted, text in (
            ({"required_role": "admin"}, "Required role 'admin' not found"),
            ({"required_permissions": ["camera:fly"]}, "Missing permissions: ['camera:fly']"),
        ):
            judged = await admin.call("validate_token", token=issued["token"], **wanted)
            assert (judged["valid"], judged["errors"]) == (False, [text])
        old = await admin.call("validate_token", token=seed_001_token("viewer", expires_in=-1))
        assert old == {"valid": False, "errors": ["Token has expired"], "warnings": [], "payload": None}
        future = seed_001_token("viewer", iat=int(time.time()) + 3600)
        assert (await admin.call("validate_token", token=future))["errors"] == ["Token issued in the future"]
        aged = seed_001_token("viewer", iat=int(time.time()) - 31 * 86400)
        # It has neither sub nor jti: guide S0's validator says so.
        assert (await admin.call("validate_token", token=aged))["warnings"] == [
            "Token is very old", "Missing required claim: sub", "Suspicious token patterns detected",
        ]  # fmt: skip
        strange = await admin.call("validate_token", token="a.b.c")
        assert strange["errors"][0].startswith("Invalid token: ")
        assert await admin.call("revoke_token", token=issued["token"]) == {"revoked": True}
        judged = await admin.call("validate_token", token=issued["token"])
        assert (judged["valid"], judged["errors"]) == (False, ["Token is blacklisted"])


@pytest.mark.parametrize(
    "advanced",
    [
        {},
        {
            "iss": "camera-service", "aud": "camera-clients", "permissions": ["camera:read", "camera:write"],
            "camera_access": ["camera1", "camera2"], "session_id": "s", "department": "Security",
        },
    ],
    ids=["basic", "advanced"],
)  # fmt: skip
async def test_s0_13_refresh(daemon: RunningDaemon, advanced: dict[str, Any]) -> None:
    """S0-4, S0-11, S0-13, S0-15, S0-16: same claims, new iat, exp and jti, no aud, by the client's secret; once."""
    old = seed_000_token("user", **advanced)
    async with daemon.websocket(compat(daemon)) as client:
        await client.call("authenticate", token=old, auth_type="jwt")
        answer = await client.call("refresh_token")
        assert answer.keys() >= {"token", "expires_at", "expires_in", "token_type"}
        assert (await client.call("refresh_token", token=old))["jti"] == decode(answer["token"])["jti"]
    before, after = decode(old), decode(answer["token"])
    changed = {"iat", "exp", "jti", "aud"}
    assert {name: value for name, value in after.items() if name not in changed} == {
        name: value for name, value in before.items() if name not in changed
    }
    assert "aud" not in after
    assert after["jti"] != before["jti"]
    assert after["exp"] - after["iat"] == 24 * 3600
    assert (type(after["iat"]), after["iat"] <= time.time()) == (int, True)
    signed, _, tail = answer["token"].rpartition(".")
    expected = hmac.digest(SECRET.encode(), signed.encode(), "sha256")
    assert base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4)) == expected


def decode(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def test_s1_11_ids_come_back_as_they_were(daemon: RunningDaemon) -> None:
    """S1-11: the id's type and spelling are unchanged, in answers and in errors."""
    for written in ("0", "7", "-1", "999999", '"a"', '""', "1.5", "null", "9007199254740993", '"7"'):
        async with daemon.websocket() as client:
            for method in ("ping", "no_such_method"):
                await client.connection.send_message(f'{{"jsonrpc":"2.0","id":{written},"method":"{method}"}}')
                assert f'"id":{written},' in await client.connection.get_message()


# --- section 3b: notifications ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [V1, V2])
async def test_3b_camera_status_update(daemon: RunningDaemon, dialect: str) -> None:
    """Contract 3b: one payload, flat and nested, device_path as in the list (contract 8.5)."""
    _, key = await daemon.create_key("viewer")
    async with daemon.websocket(port(daemon, dialect)) as client:
        await enter(client, dialect, key)
        if dialect == V2:
            await client.call("subscribe_events", topics=["camera_status_update"])
        row = (await client.call("get_camera_list"))["cameras"][0]
        daemon.plug(0).unlink()
        params = await client.hear("camera_status_update")
        assert {
            "device", "device_path", "name", "status", "resolution", "fps", "streams", "stream_url", "capabilities",
            "timestamp", "camera",
        } <= params.keys()  # fmt: skip
        assert params["camera"].keys() == {"device", "device_path", "name", "status", "capabilities", "stream_url"}
        assert params["status"] == params["camera"]["status"] == "DISCONNECTED"
        assert params["device_path"] == params["camera"]["device_path"] == row["device_path"]
        assert params["device"] == row["device"]
        assert ISO.match(params["timestamp"])
        assert params["capabilities"] == ["snapshot", "stream"]


async def test_3b_one_event_has_one_name(daemon: RunningDaemon) -> None:
    """Contract 3b, last rows: never both names to one session, and nothing of a camera that one may not see."""
    _, key = await daemon.create_key("viewer")
    _, limited = await daemon.create_key("viewer", camera_access=["camera0"])
    async with daemon.websocket() as both, daemon.websocket(compat(daemon)) as narrow:
        await enter(both, V2, key)
        await both.call("subscribe_events", topics=["camera_status_update", "camera.disconnected", "camera.connected"])
        await enter(narrow, V1, limited)
        daemon.plug(1).unlink()
        assert (await both.hear("camera_status_update"))["device"] == "camera1"
        assert await both.call("ping") == "pong"
        assert both.news == []
        assert await narrow.call("ping") == "pong"
        assert narrow.news == []


# --- section 4: what is left of the C-rows ------------------------------------------------------------------------


async def test_c2_c3_a_failed_login_by_dialect(daemon: RunningDaemon) -> None:
    """C-2, C-3, S1-26, S1-39, 10.11: soft with S1-39's texts in v1; error frames in v2; both where nothing is known."""
    async with daemon.websocket(compat(daemon)) as old, daemon.websocket() as new:
        nothing = await old.ask("authenticate")
        assert error(nothing) == (-32001, "Authentication required")
        assert nothing["result"] == {"authenticated": False, "error": "Authentication required"}
        for auth_type, text in (("jwt", "Invalid or expired JWT token"), ("api_key", "Invalid or expired API key")):
            soft = await old.ask("authenticate", token="wrong", auth_type=auth_type)
            assert soft["result"] == {"authenticated": False, "error": text}
            assert "error" not in soft
        for params in ({}, {"auth_token": "wrong"}, {"auth_token": ""}):
            hard = await new.ask("authenticate", **params)
            assert error(hard) == (-32001, UNAUTHENTICATED)
            assert "result" not in hard


async def test_c9_c10_every_listener_speaks_http_and_websocket(daemon: RunningDaemon) -> None:
    """C-9, C-10, S1-10, contract 8.3: keys, downloads and /ws, /ws/, / on one port, on each of the three."""
    _, key = await daemon.create_key("admin")
    for number in (daemon.port, compat(daemon), port_of(daemon.config.listen.local)):
        assert (await daemon.request("GET", "/api/keys", key=key, port=number)).status == 200
        assert (await daemon.request("GET", "/files/snapshots/x.jpg", key=key, port=number)).status == 404
        async with daemon.websocket(number) as client:
            assert await client.call("ping") == "pong"


async def test_c23_batches(daemon: RunningDaemon) -> None:
    """C-23: answered as JSON-RPC 2.0 says, at most 50 calls, [] is an invalid request; notifications get no answer."""
    call = '{"jsonrpc":"2.0","id":%d,"method":"ping"}'
    async with daemon.websocket() as client:
        batch = await ask_raw(client, f'[{call % 1},{{"jsonrpc":"2.0","method":"ping"}},7,{call % 2}]')
        assert [item.get("result", item.get("error", {}).get("code")) for item in batch] == ["pong", -32600, "pong"]
        assert len(await ask_raw(client, f"[{','.join(call % at for at in range(50))}]")) == 50
        for text in ("[]", f"[{','.join(call % at for at in range(51))}]"):
            assert error(await ask_raw(client, text)) == (-32600, "Invalid Request")
        await client.connection.send_message('[{"jsonrpc":"2.0","method":"ping"}]')
        assert await client.call("ping") == "pong"


async def test_c24_only_issued_keys_open(daemon: RunningDaemon) -> None:
    """C-24, S1-5, C-48: not any 32 characters once a key exists, not the printed sample, not a key id."""
    key_id, _ = await daemon.create_key("viewer")
    sample = "camera_service_sk_" + "1234567890abcdef" * 4
    for text in ("a" * 32, "csk_" + "A" * 43, sample, key_id, "camera_service_sk_", " "):
        assert (await daemon.request("GET", "/api/keys/" + key_id, key=text)).status == 401
        async with daemon.websocket() as client:
            assert error(await client.ask("authenticate", auth_token=text)) == (-32001, UNAUTHENTICATED)


async def test_c27_role_names(daemon: RunningDaemon) -> None:
    """C-27: user ≡ operator; the union of `role` and `roles`; a role outside the three never leaves in `role`."""
    for claims, role, roles in (
        ({"role": "user"}, "operator", ["operator"]),
        ({"role": None, "roles": ["viewer", "user"]}, "operator", ["operator", "viewer"]),
        ({"role": "viewer", "roles": ["admin"]}, "admin", ["admin", "viewer"]),
        ({"role": "viewer", "roles": ["editor"]}, "viewer", ["editor", "viewer"]),
    ):
        async with daemon.websocket() as client:
            answer = await client.call("authenticate", auth_token=seed_001_token(**({"role": "x"} | claims)))
            assert (answer["role"], answer["roles"]) == (role, roles)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "someone-else"},
        {"user_id": None},
        {"user_id": 7},
        {"role": ["admin"]},
        {"roles": "admin"},
        {"permissions": "camera:read"},
        {"camera_access": "*"},
        {"exp": True},
        {"exp": "2099"},
        {"exp": 2**60},
        {"exp": None},
        {"role": "superadmin"},
        {"role": None},
    ],
)
async def test_c28_claims_that_refuse_the_token(daemon: RunningDaemon, claims: dict[str, Any]) -> None:
    """C-28, S0-7, 7.1, 7.3: two subjects, wrong JSON types, no exp, no known role: refused, never coerced."""
    good = {"user_id": "user123", "role": "viewer", "iat": int(time.time()), "exp": int(time.time()) + 3600}
    secret = Path(daemon.config.auth.shared_secrets["test"]).read_text()
    async with daemon.websocket() as client:
        made = {name: value for name, value in (good | claims).items() if value is not None}
        refused = await client.ask("authenticate", auth_token=encode_jwt(made, secret))
        assert (error(refused), refused["error"]["data"]["reason"]) == ((-32001, UNAUTHENTICATED), "auth_failed")
        assert (await client.call("authenticate", auth_token=encode_jwt(good, secret)))["role"] == "viewer"


async def test_s0_1_algorithms_and_secrets(daemon: RunningDaemon) -> None:
    """S0-1, S2-17, S1-2: HS256 over the text only; `typ` optional; none, another secret, the samples are refused."""
    secret = Path(daemon.config.auth.shared_secrets["test"]).read_text()
    claims = {"user_id": "u", "role": "admin", "iat": int(time.time()), "exp": int(time.time()) + 3600}
    unsigned = encode_jwt(claims, secret, alg="none").rpartition(".")[0] + "."
    async with daemon.websocket() as client:
        for token in (
            unsigned,
            encode_jwt(claims, secret, alg="none"),
            encode_jwt(claims, secret, alg="HS512"),
            encode_jwt(claims, secret, alg="RS256"),
            encode_jwt(claims, "your-secret-key-here"),
            encode_jwt(claims, "your-secret-key"),
            encode_jwt(claims, secret)[:-2],
        ):
            assert error(await client.ask("authenticate", auth_token=token)) == (-32001, UNAUTHENTICATED)
        assert (await client.call("authenticate", auth_token=encode_jwt(claims, secret, typ="at+jwt")))["authenticated"]


async def test_c41_expiry_is_judged_on_every_call(daemon: RunningDaemon) -> None:
    """C-41, S1-32, S0-32, 10.3: the socket stays, the next call is -32001 "expired", then one auth_expired (v2)."""
    async with daemon.websocket() as client:
        for seconds in (2, 10, 30):  # the shorter ones are over before they arrive only where all is very slow
            if "result" in await client.ask("authenticate", auth_token=seed_001_token("viewer", expires_in=seconds)):
                break
        while "result" in (refused := await client.ask("get_camera_list")):
            await trio.sleep(0.1)
        assert (error(refused), refused["error"]["data"]["reason"]) == ((-32001, UNAUTHENTICATED), "expired")
        assert (await client.hear("auth_expired"))["reason"] == "expired"
        assert (await client.ask("get_camera_list"))["error"]["data"]["reason"] == "expired"
        assert await client.call("ping") == "pong"
        assert client.news == []


# --- section 4b: errors -------------------------------------------------------------------------------------------

V1_CODES = {
    "parse": (-32700, "Parse error"),
    "request": (-32600, "Invalid Request"),
    "method": (-32601, "Method not found"),
    "params": (-32602, None),
    "auth_required": (-32001, "Authentication required"),
    "auth_failed": (-32001, "Authentication failed"),
    "permission_denied": (-32003, "Insufficient permissions"),
    "rate_limited": (-32002, "Rate limit exceeded"),
    "camera": (-32004, "Camera not found"),
    "not_found": (-32010, "Not found"),
    "invalid_state": (-32005, None),
    "dependency_failed": (-32006, "MediaMTX service unavailable"),
}
V2_CODES = V1_CODES | {
    "auth_required": (-32001, UNAUTHENTICATED),
    "auth_failed": (-32001, UNAUTHENTICATED),
    "permission_denied": (-32002, "Permission denied"),
    "rate_limited": (-32040, "Rate limited"),
    "camera": (-32010, "Not found"),
    "invalid_state": (-32020, "Invalid state"),
    "dependency_failed": (-32050, "Dependency failed"),
}


@pytest.mark.parametrize("dialect", [V1, V2])
async def test_4b_codes_and_messages(daemon: RunningDaemon, pictures: Pictures, dialect: str) -> None:
    """Contract 4b, every row of this version, C-4, C-5, C-6: code, bold message, result beside it, error.data."""
    keys = {role: (await daemon.create_key(role)) for role in ("viewer", "operator", "admin")}
    dead, _ = await daemon.create_key("viewer")
    await daemon.revoke_key(dead)
    found: dict[str, Any] = {}
    async with daemon.websocket(port(daemon, dialect)) as client:
        found["parse"] = await ask_raw(client, "{")
        found["request"] = await ask_raw(client, '{"jsonrpc":"2.0","id":1}')
        found["method"] = await client.ask("no_such_method")
        found["auth_required"] = await client.ask("get_camera_list")
        found["auth_failed"] = await client.ask("get_camera_list", auth_token=WRONG_KEY)
        await enter(client, dialect, keys["viewer"][1])
        found["permission_denied"] = await client.ask("take_snapshot", device="camera0")
        await enter(client, dialect, keys["admin"][1])
        found["params"] = await client.ask("take_snapshot", device=5)
        found["camera"] = await client.ask("take_snapshot", device="camera9")
        found["not_found"] = await client.ask("rotate_key", key_id="key_0000000000000000")
        found["invalid_state"] = await client.ask("rotate_key", key_id=dead)
        daemon.plug(1).unlink()
        while (await client.call("get_camera_list"))["connected"] == 2:
            await trio.sleep(0.05)
        found["dependency_failed"] = await client.ask("take_snapshot", device="camera1")
        found["rate_limited"] = await ask_too_much(client, pictures)
    codes = V1_CODES if dialect == V1 else V2_CODES
    assert found.keys() == codes.keys()
    for name, reply in found.items():
        code, message = codes[name]
        assert reply["error"]["code"] == code, name
        assert message in (None, reply["error"]["message"]), name
        assert ("result" in reply) == (dialect == V1), name
        assert reply.get("result") is None
        data = reply["error"]["data"]
        assert {"reason", "required", "have", "code_v1", "code_v2"} <= data.keys(), name
        assert data["code_v1" if dialect == V1 else "code_v2"] == code
    assert found["params"]["error"]["message"].startswith("Invalid params: ")
    assert found["parse"]["id"] is None
    denied = found["permission_denied"]["error"]["data"]
    assert (denied["required"], denied["have"]) == ("camera:write", "viewer")
    assert (denied["required_role"], denied["have_role"]) == ("operator", "viewer")
    assert is_number(found["rate_limited"]["error"]["data"]["retry_after_ms"])


async def ask_too_much(client: Conversation, pictures: Pictures) -> Any:
    """32 calls that wait, and one more; the answer to that one, which comes first. Then lets the others go."""
    pictures.held = True
    for at in range(33):
        call = {"jsonrpc": "2.0", "id": f"many-{at}", "method": "take_snapshot", "params": {"device": "camera0"}}
        await client.connection.send_message(json.dumps(call))
    answers: list[Any] = []
    while len(answers) < 33:
        message = json.loads(await client.connection.get_message())
        if "id" in message:  # v1 may still hear of the camera
            answers.append(message)
            pictures.let_go()
    assert answers[0]["id"] == "many-32"
    assert all(answer["result"] for answer in answers[1:])
    return answers[0]


async def test_4b_http_statuses(daemon: RunningDaemon) -> None:
    """Contract 4b, HTTP column; C-35: always JSON {error, detail, code}."""
    asked: list[tuple[str, str, str, Any, int, str]] = [
        ("POST", "/api/keys", "admin", {"name": "x", "role": "captain"}, 400, "invalid_params"),
        ("GET", "/nowhere", "admin", None, 404, "not_found"),
        ("GET", "/api/keys", "", None, 401, "auth_required"),
        ("GET", "/api/keys", "wrong", None, 401, "auth_failed"),
        ("GET", "/api/keys", "revoked", None, 401, "revoked"),
        ("GET", "/api/keys", "viewer", None, 403, "permission_denied"),
        ("GET", "/api/cameras/camera9/live.mjpeg", "viewer", None, 404, "camera_not_found"),
        ("GET", "/files/snapshots/none.jpg", "viewer", None, 404, "not_found"),
        ("GET", "/files/snapshots/.hidden", "viewer", None, 400, "invalid_params"),
        ("POST", "/api/keys/DEAD/rotate", "admin", None, 409, "invalid_state"),
        ("GET", "/api/cameras/camera1/live.mjpeg", "viewer", None, 503, "dependency_failed"),
        ("GET", "/api/cameras/camera0/live.mjpeg?fps=11", "viewer", None, 400, "invalid_params"),
    ]
    dead, revoked = await daemon.create_key("viewer")
    await daemon.revoke_key(dead)
    keys = {"": "", "wrong": WRONG_KEY, "revoked": revoked}
    keys |= {role: (await daemon.create_key(role))[1] for role in ("viewer", "admin")}
    daemon.plug(1).unlink()
    async with daemon.local() as admin:
        while (await admin.call("get_camera_list"))["connected"] == 2:
            await trio.sleep(0.05)
    for method, path, who, sent, status, code in asked:
        # A browser's header: root's own request without a credential would be let in.
        headers = {} if who else {"Origin": "http://localhost"}
        reply = await daemon.request(method, path.replace("DEAD", dead), key=keys[who], body=sent, headers=headers)
        assert (reply.status, reply.json["code"]) == (status, code), (method, path, who)
    assert reply.json.keys() == {"error", "detail", "code"}
    assert reply.headers["content-type"].startswith("application/json")
    assert ("www-authenticate" in reply.headers) == (status in (401, 403))


async def test_4b_what_may_not_be_seen_is_not_found(daemon: RunningDaemon) -> None:
    """Contract 4b, last line; 10.20: a foreign camera reads like an absent one, by every endpoint and method."""
    _, key = await daemon.create_key("operator", camera_access=["camera1"])
    async with daemon.websocket(compat(daemon)) as old, daemon.websocket() as new:
        await enter(old, V1, key)
        await enter(new, V2, key)
        for client in (old, new):
            for method in ("take_snapshot", "get_stream_url", "get_camera_status"):
                foreign = await client.ask(method, device="camera0")
                absent = await client.ask(method, device="camera7")
                assert json.dumps(foreign).replace("camera0", "camera7") == json.dumps(absent | {"id": foreign["id"]})
    foreign_reply = await daemon.request("GET", "/api/cameras/camera0/live.mjpeg", key=key)
    absent_reply = await daemon.request("GET", "/api/cameras/camera7/live.mjpeg", key=key)
    assert (foreign_reply.status, foreign_reply.body.replace(b"camera0", b"camera7")) == (404, absent_reply.body)


async def test_4b_feature_off(tmp_path: Path) -> None:
    """Contract 4b "feature off", section 11: without a shared secret there is no HS256, and it says what to do."""
    config = msgspec.structs.replace(make_config(tmp_path), auth=AuthSettings())
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            _, key = await daemon.create_key("admin")
            for dialect, told in ((V1, (-32008, "Camera capability not supported")), (V2, (-32030, "Unsupported"))):
                async with daemon.websocket(port(daemon, dialect)) as client:
                    await enter(client, dialect, key)
                    refused = await client.ask("issue_token", user_id="ada", signing_key="HS256")
                    assert error(refused) == told
                    assert "no shared secret" in refused["error"]["data"]["detail"]
                    assert "openssl rand -base64 32" in refused["error"]["data"]["hint"]
            async with daemon.websocket() as client:
                assert (await client.ask("authenticate", auth_token=seed_001_token()))["error"]["code"] == -32001


# --- section 5: HTTP ----------------------------------------------------------------------------------------------


async def test_5_common(daemon: RunningDaemon) -> None:
    """Contract 5: keep-alive, HEAD for every GET, Date, JSON, no redirects, 1 MiB bodies."""
    _, key = await daemon.create_key("admin")

    def talk() -> list[Any]:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        found: list[Any] = []
        for method, path in (("GET", "/api/keys"), ("HEAD", "/api/keys"), ("GET", "/healthz"), ("HEAD", "/healthz"),
                             ("GET", "/api/keys/"), ("GET", "/healthz/")):  # fmt: skip
            connection.request(method, path, headers={"X-API-Key": key})
            local = connection.sock.getsockname() if connection.sock else None
            with connection.getresponse() as response:
                found.append((method, path, response.status, dict(response.getheaders()), response.read(), local))
        connection.close()
        return found

    answers = await trio.to_thread.run_sync(talk)
    assert len({answer[5] for answer in answers}) == 1, "one connection for all of them"
    for method, path, status, headers, body, _ in answers:
        assert status == (404 if path.endswith("/") else 200)
        assert {name.lower() for name in headers} >= {"date", "content-type", "content-length"}
        assert "application/json" in headers.get("Content-Type", headers.get("content-type", ""))
        assert bool(body) == (method == "GET")
    huge = await daemon.request("POST", "/api/keys", key=key, body={"name": "x" * (1 << 20), "role": "viewer"})
    assert (huge.status, huge.json.keys()) == (413, {"error", "detail", "code"})


async def test_5_expect_100_continue(daemon: RunningDaemon) -> None:
    """Contract 5: curl waits for it with bodies of more than 1 kB."""
    _, key = await daemon.create_key("admin")
    body = json.dumps({"name": "x" * 50, "role": "viewer", "padding": "y" * 2000}).encode()
    head = (
        f"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    ).encode()
    async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
        await stream.send_all(head)
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 100 ")
        await stream.send_all(body)
        while data := await stream.receive_some():
            answer += data
    assert b"HTTP/1.1 201 " in answer


async def test_5_credentials_in_order(daemon: RunningDaemon) -> None:
    """Contract 5: Authorization: Bearer (token or key) before X-API-Key; a bad one is not made good by the next."""
    key_id, key = await daemon.create_key("viewer")
    wrong = {"Authorization": f"Bearer {WRONG_KEY}"}
    assert (await daemon.request("GET", f"/api/keys/{key_id}", headers=wrong, key=key)).status == 401
    right = {"Authorization": f"Bearer {key}", "X-API-Key": WRONG_KEY}
    assert (await daemon.request("GET", f"/api/keys/{key_id}", headers=right)).status == 200
    other = {"Authorization": "Basic dTpw"}
    assert (await daemon.request("GET", f"/api/keys/{key_id}", headers=other, key=key)).status == 200
    assert (await daemon.request("GET", f"/api/keys/{key_id}", headers=other)).status == 401
    assert (await daemon.request("GET", f"/api/keys/{key_id}?token={key}", headers={"Origin": "null"})).status == 401


async def test_5_1_post(daemon: RunningDaemon) -> None:
    """Contract 5.1 POST /api/keys: 201, its members, each role, expiry both ways; 400, 403, 415; same names twice."""
    _, key = await daemon.create_key("admin")
    for role in ("viewer", "operator", "user", "admin", "monitor"):
        made = await daemon.request("POST", "/api/keys", key=key, body={"name": "Same", "role": role})
        assert made.status == 201
        assert made.json.keys() == {"key_id", "api_key", "name", "role", "created_at"}
        assert made.json["role"] == {"user": "operator"}.get(role, role)
        assert made.headers["cache-control"] == "no-store"
    for until in ({"expires_at": "2099-01-31T00:00:00Z"}, {"expires_in_days": 30}):
        made = await daemon.request("POST", "/api/keys", key=key, body={"name": "x", "role": "viewer"} | until)
        assert ISO.match(made.json["expires_at"])
    bodies: list[Any] = [
        {"name": "", "role": "viewer"}, {"name": "x" * 101, "role": "viewer"}, {"role": "viewer"}, {"name": "x"},
        {"name": "x", "role": "root"}, {"name": "x", "role": "viewer", "expires_at": "tomorrow"}, [], "x",
        {"name": "x", "role": "viewer", "permissions": ["a b"]}, {"name": 5, "role": "viewer"},
    ]  # fmt: skip
    for wrong in bodies:
        reply = await daemon.request("POST", "/api/keys", key=key, body=wrong)
        assert (reply.status, reply.json["code"]) == (400, "invalid_params"), wrong
    typed = await daemon.request("POST", "/api/keys", key=key, body={}, headers={"Content-Type": "text/plain"})
    assert typed.status == 415
    _, viewer = await daemon.create_key("viewer")
    assert (await daemon.request("POST", "/api/keys", key=viewer, body={"name": "x", "role": "viewer"})).status == 403


async def test_5_1_get(daemon: RunningDaemon) -> None:
    """Contract 5.1 GET /api/keys and /{id}, S1-23, S1-36: members and filters, never a secret; a key may see itself."""
    _, admin = await daemon.create_key("admin")
    key_id, key = await daemon.create_key("viewer")
    other, _ = await daemon.create_key("operator")
    listed = await daemon.request("GET", "/api/keys", key=admin)
    assert listed.json.keys() == {"keys"}
    members = {"key_id", "name", "role", "created_at", "expires_at", "last_used", "usage_count", "status"}
    assert all(members <= item.keys() for item in listed.json["keys"])
    assert key not in listed.body.decode()
    for query, expected in (("role=viewer", [key_id]), ("role=user", [other]), ("status=revoked", [])):
        found = (await daemon.request("GET", f"/api/keys?{query}", key=admin)).json["keys"]
        assert [item["key_id"] for item in found] == expected, query
    assert key_id not in (await daemon.request("GET", "/api/keys?unused_days=1", key=admin)).body.decode()
    assert (await daemon.request("GET", "/api/keys?unused_days=soon", key=admin)).status == 400
    own = await daemon.request("GET", f"/api/keys/{key_id}", key=key)
    assert (own.status, own.json["key_id"], own.json["status"]) == (200, key_id, "active")
    assert own.json["usage_count"] >= 1
    assert ISO.match(own.json["last_used"])
    assert (await daemon.request("GET", f"/api/keys/{other}", key=key)).status == 403
    assert (await daemon.request("GET", "/api/keys/key_none", key=admin)).status == 404


async def test_5_1_rotate(daemon: RunningDaemon) -> None:
    """Contract 5.1 rotate, C-25, 10.7: same id, both names; the old secret lives for the grace, with 0 not at all."""
    key_id, first = await daemon.create_key("viewer")
    turned = await daemon.request("POST", f"/api/keys/{key_id}/rotate", key=first)
    assert turned.status == 200
    assert turned.json.keys() == {
        "key_id", "api_key", "new_api_key", "name", "role", "created_at", "rotated_at", "previous_valid_until"
    }  # fmt: skip
    second = turned.json["new_api_key"]
    assert (turned.json["key_id"], turned.json["api_key"]) == (key_id, second)
    assert turned.headers["cache-control"] == "no-store"
    for secret in (first, second):
        assert (await daemon.request("GET", f"/api/keys/{key_id}", key=secret)).status == 200
    async with daemon.websocket() as old, daemon.websocket() as own:
        await enter(old, V2, first)
        await enter(own, V2, second)
        third = await own.call("rotate_key", key_id=key_id, grace_seconds=0)
        assert (await daemon.request("GET", f"/api/keys/{key_id}", key=third["api_key"])).status == 200
        for secret in (first, second):
            assert (await daemon.request("GET", f"/api/keys/{key_id}", key=secret)).status == 401
        for client in (old, own):
            assert "error" in await client.ask("get_camera_list")


async def test_5_1_delete(daemon: RunningDaemon) -> None:
    """Contract 5.1 DELETE, S1-35, 10.7: 200 with message and key_id, again 200; both secrets end; 404 unknown."""
    _, admin = await daemon.create_key("admin")
    key_id, first = await daemon.create_key("viewer")
    second = (await daemon.request("POST", f"/api/keys/{key_id}/rotate", key=first)).json["api_key"]
    for _ in range(2):
        gone = await daemon.request("DELETE", f"/api/keys/{key_id}", key=admin)
        assert (gone.status, gone.json) == (200, {"message": "API key revoked successfully", "key_id": key_id})
    for secret in (first, second):
        reply = await daemon.request("GET", f"/api/keys/{key_id}", key=secret)
        assert (reply.status, reply.json["code"]) == (401, "revoked")
    assert (await daemon.request("DELETE", "/api/keys/key_none", key=admin)).status == 404
    assert (await daemon.request("POST", f"/api/keys/{key_id}/rotate", key=admin)).status == 409


@pytest.mark.skipif(os.geteuid() != 0, reason="the rule is about root")
async def test_5_1_the_credential_free_rule(daemon: RunningDaemon) -> None:
    """Contract 5.1 (a)-(e), C-26, S1-21, contract 8.10: root on loopback, and nothing between."""
    sent: list[tuple[dict[str, str], int]] = [
        ({}, 201),
        ({"Host": "localhost:8002"}, 201),
        ({"Host": "[::1]:8002"}, 201),
        ({"Host": "box.local"}, 401),
        ({"Host": "localhost.evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Sec-Fetch-Site": "same-origin"}, 401),
        ({"X-Forwarded-For": "127.0.0.1"}, 401),
        ({"X-Forwarded-Proto": "https"}, 401),
        ({"Via": "1.1 proxy"}, 401),
        ({"Forwarded": "for=127.0.0.1"}, 401),
        ({"Content-Type": "text/plain"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
    ]
    body = {"name": "Service Key", "role": "operator"}
    for headers, status in sent:
        reply = await daemon.request("POST", "/api/keys", body=body, headers=headers)
        assert reply.status == status, headers
        if status == 401 and "Authorization" not in headers and "Content-Type" not in headers:
            assert "no credential was sent" in reply.json["detail"], headers
            assert "at http://localhost with no browser and no proxy in between" in reply.json["detail"], headers
    assert (await daemon.request("GET", "/files/snapshots/a.jpg")).status == 401, "for /api/keys only (10.2)"


async def test_5_4_downloads(daemon: RunningDaemon) -> None:
    """Contract 5.4 files, C-38, C-39, contract 8.13: 200 and its headers, 206 on Range, 400, 401, 403, 404."""
    _, key = await daemon.create_key("operator")
    _, monitor = await daemon.create_key("monitor")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        taken = await client.call("take_snapshot", device="camera0", filename="dock")
    whole = await daemon.request("GET", "/files/snapshots/dock.jpg", key=key)
    assert (whole.status, len(whole.body)) == (200, taken["file_size"])
    assert whole.headers["content-type"] == "image/jpeg"
    assert whole.headers["content-length"] == str(taken["file_size"])
    assert whole.headers["content-disposition"] == 'attachment; filename="dock.jpg"'
    assert whole.headers["accept-ranges"] == "bytes"
    assert (await daemon.request("GET", "/files/snapshots/dock", key=key)).body == whole.body
    part = await daemon.request("GET", "/files/snapshots/dock.jpg", key=key, headers={"Range": "bytes=0-1"})
    assert (part.status, part.body) == (206, b"\xff\xd8")
    bad = await daemon.request("GET", "/files/snapshots/dock.jpg", key=key, headers={"Range": "bytes=9999999-"})
    assert (bad.status, bad.json["code"]) == (416, "bad_range")
    assert bad.headers["content-range"] == f"bytes */{taken['file_size']}"
    for name, secret, status in (("dock.jpg", "", 401), ("dock.jpg", monitor, 403), ("gone.jpg", key, 404),
                                 ("..%2ftrust.db", key, 400)):  # fmt: skip
        assert (await daemon.request("GET", f"/files/snapshots/{name}", key=secret)).status == status


async def test_5_4_health(daemon: RunningDaemon) -> None:
    """Contract 5.4 /health, /health/live, /health/ready, 5.3 /healthz, C-36, S3-13: open to all, on every listener."""
    members = {
        "/healthz": {"status", "disk_free_gb", "writable", "version"},
        "/health": {"status", "timestamp", "version", "uptime"},
        "/health/live": {"alive", "status", "timestamp", "message"},
        "/health/ready": {"status", "ready", "timestamp", "message"},
    }
    for number in (daemon.port, port_of(daemon.config.listen.local)):
        for path, names in members.items():
            reply = await daemon.request("GET", path, port=number)
            assert reply.status == 200
            assert names <= reply.json.keys()
            assert "camera" not in reply.body.decode()
        assert (await daemon.request("GET", "/healthz", port=number)).json["status"] == "healthy"
        live = (await daemon.request("GET", "/health/live", port=number)).json
        assert (live["alive"], live["status"]) == (True, "alive")
        ready = (await daemon.request("GET", "/health/ready", port=number)).json
        assert (ready["ready"], ready["status"]) == (True, "ready")


async def test_5_4_metrics(daemon: RunningDaemon) -> None:
    """Contract 5.4 /metrics, 10.14: open on loopback 8003 but not by a foreign Host; metrics:read on 8002."""
    local = port_of(daemon.config.listen.local)
    keys = {role: (await daemon.create_key(role))[1] for role in ("monitor", "viewer", "admin")}
    text = await daemon.request("GET", "/metrics", port=local)
    assert text.status == 200
    assert text.headers["content-type"].startswith("text/plain")
    newer = await daemon.request("GET", "/metrics", port=local, headers={"Accept": "application/openmetrics-text"})
    assert newer.headers["content-type"].startswith("application/openmetrics-text")
    assert newer.body.endswith(b"# EOF\n")
    for headers in ({"Host": "evil.example"}, {"Origin": "http://localhost"}):
        refused = await daemon.request("GET", "/metrics", port=local, headers=headers)
        assert refused.status == 401, "a credential would do"
        assert "at http://localhost with no browser and no proxy in between" in refused.json["detail"]
        assert (await daemon.request("GET", "/metrics", port=local, key=keys["monitor"], headers=headers)).status == 200
    for secret, status in (("", 401), (keys["monitor"], 200), (keys["viewer"], 403), (keys["admin"], 200)):
        assert (await daemon.request("GET", "/metrics", key=secret)).status == status
    bearer = {"Authorization": f"Bearer {seed_001_token('monitor')}"}
    assert (await daemon.request("GET", "/metrics", headers=bearer)).status == 200


async def test_5_4_ws(daemon: RunningDaemon) -> None:
    """Contract 5.4 GET /ws: 400 for a bad upgrade; 426 where RFC 9110 and 6455 name it: no upgrade, another version."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for headers, status in (
        ({}, 426),
        (upgrade | {"Sec-WebSocket-Version": "8"}, 426),
        (upgrade | {"Sec-WebSocket-Version": "13"}, 400),
        (upgrade | {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "short"}, 400),
    ):
        reply = await daemon.request("GET", "/ws", headers=headers)
        assert reply.status == status
        assert reply.json.keys() == {"error", "detail", "code"}


# --- section 7: rights over the wire ------------------------------------------------------------------------------


async def rights(daemon: RunningDaemon, token: str) -> dict[str, Any]:
    """What a token may do: cameras listed, and which of four things it is let in to."""
    async with daemon.websocket() as client:
        if "error" in await client.ask("authenticate", auth_token=token):
            return {"in": False}
        listed = await client.ask("get_camera_list")
        return {
            "in": True,
            "cameras": [row["device"] for row in listed["result"]["cameras"]] if "result" in listed else None,
            "snapshot": "result" in await client.ask("take_snapshot", device="camera1"),
            "status": "result" in await client.ask("get_system_status"),
            "keys": "result" in await client.ask("list_keys"),
        }


ALL = ["camera0", "camera1"]


#: Claims → (cameras, take_snapshot of camera1, get_system_status, list_keys); None: refused.
RIGHTS: list[tuple[dict[str, Any], tuple[Any, bool, bool, bool] | None]] = [
    ({"role": "monitor"}, (None, False, True, False)),
    ({"role": "viewer"}, (ALL, False, True, False)),
    ({"role": "operator"}, (ALL, True, True, False)),
    ({"role": "user"}, (ALL, True, True, False)),
    ({"role": "admin"}, (ALL, True, True, True)),
    # 7.3: permissions narrow a role and never widen it; the empty list is nothing.
    ({"role": "admin", "permissions": []}, (None, False, False, False)),
    ({"role": "admin", "permissions": ["camera:read"]}, (ALL, False, False, False)),
    ({"role": "viewer", "permissions": ["camera:write", "keys:admin", "camera:read"]}, (ALL, False, False, False)),
    # 7.2: the guides' own words.
    ({"role": "admin", "permissions": ["view", "control"]}, (ALL, True, True, False)),
    # 7.3, 7.4: without a role nothing guarded, not even by `*`; verb first is known; patterns end in `:*`.
    ({"permissions": ["*"]}, (ALL, True, False, False)),
    ({"permissions": ["read:*", "write:*", "delete:*"]}, (ALL, True, False, False)),
    ({"permissions": ["read:cameras"]}, (ALL, False, False, False)),
    ({"permissions": ["*:posts"]}, (None, False, False, False)),
    ({"permissions": ["cam*"]}, (None, False, False, False)),
    ({"permissions": ["camera:*"]}, (ALL, True, False, False)),
    ({"permissions": ["camera:read:camera1"]}, (["camera1"], False, False, False)),
    ({"scope": "camera:read camera:write"}, (ALL, True, False, False)),
    # 7.5: camera_access as today's names; unknown ones grant nothing; none at all is none.
    ({"role": "operator", "camera_access": ["camera1"]}, (["camera1"], True, True, False)),
    ({"role": "operator", "camera_access": ["/dev/video0"]}, (["camera0"], False, True, False)),
    ({"role": "operator", "camera_access": ["camera9"]}, ([], False, True, False)),
    ({"role": "operator", "camera_access": []}, ([], False, True, False)),
    ({"role": "operator", "camera_access": ["*"]}, (ALL, True, True, False)),
    # 7.6, worked rows: guide S0's user; guide S2's admin (its roles are no known ones but admin).
    (
        {"role": "user", "permissions": ["camera:read", "camera:write"], "camera_access": ["camera1", "camera2"]},
        (["camera1"], True, False, False),
    ),
    (
        {"username": "admin", "roles": ["admin"], "permissions": ["read:*", "write:*", "delete:*"]},
        (ALL, True, False, False),
    ),
    # 7.6: 003's user JWT has neither role nor permissions.
    ({}, None),
    ({"role": "master"}, None),
]


async def test_7_rights(daemon: RunningDaemon) -> None:
    """Contract 7.2 to 7.6, what each of RIGHTS may do."""
    secret = Path(daemon.config.auth.shared_secrets["test"]).read_text()
    for claims, expected in RIGHTS:
        token = encode_jwt({"sub": "u", "iat": int(time.time()), "exp": int(time.time()) + 3600} | claims, secret)
        found = await rights(daemon, token)
        if expected is None:
            assert found == {"in": False}, claims
        else:
            assert (found["cameras"], found["snapshot"], found["status"], found["keys"]) == expected, claims


async def announce(port: int, camera: str, user: str, password: str) -> bytes:
    """The status line of an attempt to publish."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    head = (
        f"ANNOUNCE rtsp://127.0.0.1:{port}/{camera} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: Basic {login}\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n"
    )
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all((head + SDP).encode())
        while b"\r\n" not in answer:
            data = await stream.receive_some()
            assert data, "closed without a word"
            answer += data
    return answer.partition(b"\r\n")[0]


#: The claim of guide S4 in either shape, and others: the paths that each opens.
CLAIMS: tuple[tuple[Any, set[str]], ...] = (
    ([{"action": "read", "path": "camera0"}], {"camera0"}),
    ({"read": ["camera0"], "publish": []}, {"camera0"}),
    ([{"action": "read", "path": ""}], set()),
    ([{"action": "read", "path": "~camera"}], set()),
    ("camera0", set()),
)


@pytest.mark.mediamtx
async def test_7_6_the_row_of_seed_004(tmp_path: Path) -> None:
    """Contract 7.6, 7.5, C-30, C-32: its token reads its path, no other, publishes none; either shape of the claim."""
    config = make_config(tmp_path, mediamtx=True)
    now = int(time.time())
    secret = Path(config.auth.shared_secrets["test"]).read_text()
    found: dict[tuple[int, str, str], int] = {}

    async def read(daemon: RunningDaemon, at: int, camera: str, token: str) -> None:
        reader = RtspReader(daemon.rtsp, camera, "demo", token)
        try:
            await reader.play()
            found[at, camera, "read"] = 200
        except RtspRefused as problem:
            found[at, camera, "read"] = problem.status
        await reader.aclose()

    async def publish(daemon: RunningDaemon, at: int, camera: str, token: str) -> None:
        line = await announce(daemon.rtsp, camera, "demo", token)
        found[at, camera, "publish"] = int(line.split()[1])

    with fail_after(85):
        async with running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            # All at once: MediaMTX keeps each of the refused waiting for some seconds.
            async with trio.open_nursery() as nursery:
                for at, (claim, _) in enumerate(CLAIMS):
                    claims = {"sub": "demo", "iat": now, "exp": now + 600, "mediamtx_permissions": claim}
                    token = encode_jwt(claims, secret)
                    for camera in ("camera0", "camera1"):
                        nursery.start_soon(read, daemon, at, camera, token)
                        nursery.start_soon(publish, daemon, at, camera, token)
    for (at, camera, action), status in found.items():
        assert status == (200 if action == "read" and camera in CLAIMS[at][1] else 401), (CLAIMS[at][0], camera, action)
    assert len(found) == 4 * len(CLAIMS)


# --- section 10: settled ------------------------------------------------------------------------------------------


async def test_10_2_the_unix_socket(daemon: RunningDaemon) -> None:
    """Contract 10.2: HTTP and WebSocket without a credential, as local:<uid>; a credential shown there counts first."""
    async with daemon.local() as admin:
        who = await admin.call("whoami")
        assert (who["user_id"], who["roles"]) == (f"local:{os.geteuid()}", ["admin"])

    def ask() -> tuple[int, bytes]:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(30)
            raw.connect(str(daemon.config.listen.unix))
            raw.sendall(b"GET /api/keys HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := raw.recv(65536):
                answer += data
        return int(answer.split()[1]), answer

    assert (await trio.to_thread.run_sync(ask))[0] == 200
    mode = Path(daemon.config.listen.unix).stat().st_mode & 0o777
    assert mode == 0o660


async def test_10_2_no_local_authority_over_tcp(daemon: RunningDaemon) -> None:
    """Contract 10.2: root on loopback is nobody on /ws and on files; the only exception is /api/keys."""
    for number in (daemon.port, compat(daemon), port_of(daemon.config.listen.local)):
        async with daemon.websocket(number) as client:
            assert (await client.ask("whoami"))["error"]["code"] == -32001
            assert (await client.ask("list_keys"))["error"]["code"] == -32001
        assert (await daemon.request("GET", "/api/cameras/camera0/live.mjpeg", port=number)).status == 401


async def test_10_3_close_codes(daemon: RunningDaemon) -> None:
    """Contract 10.3: 1003 binary, 1009 over 16 KiB before the login and over 1 MiB after, 4401 revoked, 1000 echoed."""
    key_id, key = await daemon.create_key("viewer")
    async with daemon.websocket() as client:
        await client.connection.send_message(b"{}")
        assert await ended(client) == 1003
    async with daemon.websocket() as client:
        await client.connection.send_message(" " * 16384)
        assert json.loads(await client.connection.get_message())["error"]["code"] == -32700
        await client.connection.send_message(" " * 16385)
        assert await ended(client) == 1009
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        padded = '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"pad":"%s"}}'
        assert (await ask_raw(client, padded % ("x" * 900_000)))["result"] == "pong"
        await client.connection.send_message(" " * (1_048_576 + 1))
        assert await ended(client) == 1009
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        await client.connection.aclose(1000, "done")
        assert client.connection.closed is not None
        assert client.connection.closed.code == 1000
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        await daemon.revoke_key(key_id)
        assert await ended(client) == 4401


async def test_10_3_who_ends_itself_is_answered_first(daemon: RunningDaemon) -> None:
    """Contract 10.3: the answer to the call that revokes its own key, then 4401."""
    key_id, key = await daemon.create_key("admin")
    async with daemon.websocket() as client:
        await enter(client, V2, key)
        assert (await client.call("revoke_key", key_id=key_id))["key_id"] == key_id
        assert await ended(client) == 4401


async def test_10_3_stopping_is_1001(tmp_path: Path) -> None:
    """Contract 10.3: every WebSocket hears 1001 when the daemon stops in order."""
    with fail_after(60):
        async with AsyncExitStack() as stack:
            daemon = await stack.enter_async_context(running_daemon(tmp_path))
            async with daemon.websocket() as client:
                assert await client.call("ping") == "pong"
                os.kill(os.getpid(), signal.SIGTERM)
                assert await ended(client) == 1001


async def test_10_4_order_and_barriers(daemon: RunningDaemon, pictures: Pictures) -> None:
    """Contract 10.4: calls pipelined behind a login wait for it; instant answers do not wait for slow ones."""
    _, key = await daemon.create_key("operator")
    async with daemon.websocket() as client:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("take_snapshot", {"device": "camera0", "auth_token": key}),
            ("authenticate", {"auth_token": WRONG_KEY}),
            ("get_camera_list", {}),
            ("authenticate", {"auth_token": key}),
            ("get_camera_list", {}),
            ("take_snapshot", {"device": "camera0"}),
            ("ping", {}),
        ]
        answers = []
        for at, (method, params) in enumerate(calls):
            call = {"jsonrpc": "2.0", "id": at, "method": method, "params": params}
            await client.connection.send_message(json.dumps(call))
            if at == 4:
                answers += [json.loads(await client.connection.get_message()) for _ in range(5)]
                pictures.held = True
        answers.append(json.loads(await client.connection.get_message()))
        pictures.let_go()
        answers.append(json.loads(await client.connection.get_message()))
        assert [answer["id"] for answer in answers] == [0, 1, 2, 3, 4, 6, 5]
        assert ["result" in answer for answer in answers] == [True, False, False, True, True, True, True]
        batch = json.dumps(
            [
                {"jsonrpc": "2.0", "id": at, "method": method, "params": {"device": "camera0"}}
                for at, method in enumerate(("take_snapshot", "ping", "take_snapshot"))
            ]
        )
        assert [answer["id"] for answer in await ask_raw(client, batch)] == [0, 1, 2]


@pytest.mark.parametrize("dialect", [V1, V2])
@pytest.mark.parametrize(
    ("problem", "reason"),
    [(StoreFailed("disk full"), "store_error"), (Overloaded("queue full"), "overloaded")],
)
async def test_10_20_a_store_that_fails(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, problem: Exception, reason: str, dialect: str
) -> None:
    """Contract 10.20: -32603 with data.reason store_error or overloaded, HTTP 503."""
    _, key = await daemon.create_key("admin")

    async def fail(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise problem

    monkeypatch.setattr(ApiKeys, "create", fail)
    async with daemon.websocket(port(daemon, dialect)) as client:
        await enter(client, dialect, key)
        refused = await client.ask("create_key", name="x", role="viewer")
        assert (refused["error"]["code"], refused["error"]["data"]["reason"]) == (-32603, reason)
    reply = await daemon.request("POST", "/api/keys", key=key, body={"name": "x", "role": "viewer"})
    assert (reply.status, reply.json["code"]) == (503, reason)


async def test_10_20_outside_reasons_over_the_wire(daemon: RunningDaemon) -> None:
    """Contract 10.20: missing → auth_required, expired and revoked stay, all else of a credential → auth_failed."""
    key_id, key = await daemon.create_key("viewer")
    await daemon.revoke_key(key_id)
    cases = {
        "expired": seed_001_token("viewer", expires_in=-1),
        "revoked": key,
        "auth_failed": WRONG_KEY,
    }
    async with daemon.websocket() as client:
        assert (await client.ask("authenticate"))["error"]["data"]["reason"] == "auth_required"
        for reason, text in cases.items():
            assert (await client.ask("authenticate", auth_token=text))["error"]["data"]["reason"] == reason
        for text in (seed_001_token(secret="some other secret of enough length"), "a.b.c", seed_001_token("nobody")):
            assert (await client.ask("authenticate", auth_token=text))["error"]["data"]["reason"] == "auth_failed"
    for reason, text in cases.items():
        reply = await daemon.request("GET", "/api/keys", headers={"Authorization": f"Bearer {text}"})
        assert (reply.status, reply.json["code"]) == (401, reason)
    scraped = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
    for method, reason in (("none", "missing"), ("api_key", "unknown_key"), ("api_key", "revoked"),
                           ("jwt_local", "expired"), ("jwt_local", "bad_signature"), ("jwt_local", "malformed"),
                           ("jwt_local", "role_denied")):  # fmt: skip
        line = f'edged_auth_failures_total{{method="{method}",reason="{reason}",transport="ws"}}'
        assert f"{line} 1.0" in scraped, f"the metric says exactly why: {line}"


def test_10_4_10_13_10_22_the_numbers() -> None:
    """Contract 10.3, 10.4, 10.13, 10.22, C-23, C-44: what the limits are unless configured."""
    limits = LimitSettings()
    assert (limits.connections, limits.unauthenticated_per_address, limits.head_bytes) == (2048, 32, 16384)
    assert (limits.message_bytes, limits.message_bytes_unauthenticated) == (1048576, 16384)
    assert (limits.calls_in_flight, limits.batch) == (32, 50)
    assert (limits.outbox_messages, limits.outbox_bytes, limits.stall_seconds) == (256, 1048576, 10)
    assert (limits.head_seconds, limits.keep_alive_seconds) == (10, 75)
    assert (limits.ping_seconds, limits.silence_seconds) == (30, 75)


async def test_10_14_any_origin_may_open_ws(daemon: RunningDaemon) -> None:
    """Contract 10.14, S1-10: a WebSocket has no ambient authority; null, foreign and no Origin are the same."""
    for origin in ("null", "http://evil.example", "https://localhost:8002"):
        async with Client.dial(daemon.port, headers=[("Origin", origin)]) as client:
            await client.send("ping")
            assert (await client.receive())["result"] == "pong"


def watch_parts(port: int, header: str, value: str) -> tuple[int, str, bytes]:
    """Status, type and the body until it holds three whole pictures."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/cameras/camera0/live.mjpeg?fps=10", headers={header: value})
    seen = b""
    with connection.getresponse() as response:
        while seen.count(b"Content-Type: image/jpeg") < 4:
            data = response.read1(65536)
            assert data, "it ended"
            seen += data
        found = response.status, response.headers["Content-Type"], seen
    connection.close()
    return found


async def test_10_24_the_live_picture(daemon: RunningDaemon) -> None:
    """Contract 10.24: 200 multipart/x-mixed-replace, JPEG parts with Content-Length; fps 1..10; both headers."""
    key_id, key = await daemon.create_key("viewer")
    for header in (
        ("X-API-Key", key), ("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {seed_001_token()}")
    ):  # fmt: skip
        status, kind, seen = await trio.to_thread.run_sync(watch_parts, daemon.port, *header)
        assert status == 200
        boundary = kind.removeprefix("multipart/x-mixed-replace; boundary=")
        assert boundary != kind
        pictures = set()
        for part in seen.split(b"--%s\r\n" % boundary.encode())[1:4]:
            head, _, rest = part.partition(b"\r\n\r\n")
            fields = dict(line.split(": ") for line in head.decode().split("\r\n"))
            assert fields["Content-Type"] == "image/jpeg"
            picture = rest[: int(fields["Content-Length"])]
            assert (picture[:2], picture[-2:]) == (b"\xff\xd8", b"\xff\xd9")
            pictures.add(picture)
        assert len(pictures) == 3
    for fps, status in (("0", 400), ("11", 400), ("x", 400)):
        reply = await daemon.request("GET", f"/api/cameras/camera0/live.mjpeg?fps={fps}", key=key)
        assert reply.status == status
    assert (await daemon.request("GET", "/api/cameras/camera9/live.mjpeg", key=key)).status == 404
    assert (await daemon.request("GET", "/api/cameras/camera0/live.mjpeg")).status == 401
    assert key_id.startswith("key_")


async def test_10_24_the_live_picture_ends_with_its_credential(daemon: RunningDaemon) -> None:
    """Contract 10.24, 10.3: expiry ends the picture; it does not end well, so that nobody takes it for whole."""
    for seconds in (3, 15, 45):  # the shorter ones are over before they arrive only where all is very slow
        token = seed_001_token("viewer", expires_in=seconds)
        status = await trio.to_thread.run_sync(watch_to_the_end, daemon.port, token)
        if status == 200:
            break
        assert status == 401
    assert (await trio.to_thread.run_sync(watch_to_the_end, daemon.port, token)) == 401


def watch_to_the_end(port: int, token: str) -> int:
    """Read the live picture until it ends by itself; its status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/cameras/camera0/live.mjpeg", headers={"Authorization": f"Bearer {token}"})
    with connection.getresponse() as response, suppress(http.client.IncompleteRead, ConnectionResetError):
        while response.read1(65536):
            pass
    connection.close()
    return response.status
