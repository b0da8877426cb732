"""operations/api_keys.py on a running daemon: create, list, update, suspend and revoke API keys."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from daemon_helpers import Conversation, RunningDaemon, ended, make_config, reason_of, running_daemon
from patience import fail_after
from rtsp_client import RtspReader

from edged.clock import iso


async def test_an_update_applies_to_the_next_call_of_an_open_session(tmp_path: Path) -> None:
    """Narrowed, widened, renamed, to one camera: the socket stays, and each call is judged by what the key may now."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin, daemon.websocket() as client:
            key_id, secret = await daemon.create_key("viewer")
            await client.call("authenticate", auth_token=secret)
            assert await reason_of(client, "list_keys") == "permission_denied"
            await admin.call("update_key", key_id=key_id, role="admin", name="boss")
            assert len((await client.call("list_keys"))["keys"]) == 1
            assert (await client.call("whoami"))["username"] == "boss"
            shown = await admin.call("update_key", key_id=key_id, role="user", camera_access=["camera1"])
            assert (shown["role"], shown["camera_access"], shown["key_id"]) == ("operator", ["camera1"], key_id)
            assert await reason_of(client, "list_keys") == "permission_denied"
            assert (await client.call("get_camera_list"))["total"] == 1
            await admin.call("update_key", key_id=key_id, permissions=[])
            assert await reason_of(client, "get_camera_list") == "permission_denied"
            await admin.call("update_key", key_id=key_id, permissions=None, camera_access=None)
            assert (await client.call("get_camera_list"))["total"] == 2


BAD_CHANGES: tuple[dict[str, object], ...] = (
        {}, {"name": ""}, {"role": "king"}, {"expires_at": "2001-01-01"}, {"expires_at": "soon"},
        {"expires_at": "2099-01-01", "expires_in_days": 5}, {"expires_at": None, "expires_in_days": 5},
        {"expires_in_days": -1}, {"permissions": ["*:x"]}, {"camera_access": [""]}, {"streams": {"read": ["~x"]}},
        {"streams": {"read": [""]}}, {"streams": {"read": ["x"] * 65}}, {"streams": ["camera0"]}, {"name": None},
)  # fmt: skip


async def test_an_invalid_update_of_a_key_is_refused(tmp_path: Path) -> None:
    """-32602, and the key is as before."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, _ = await daemon.create_key()
            before = await admin.call("get_key", key_id=key_id)
            for wrong in BAD_CHANGES:
                assert (await admin.ask("update_key", key_id=key_id, **wrong))["error"]["code"] == -32602, wrong
                assert await admin.call("get_key", key_id=key_id) == before


async def test_suspending_a_key_closes_its_sessions_and_resuming_makes_it_valid_again(tmp_path: Path) -> None:
    """4401, then refused with the coarse reason outside and the exact one in the metrics; then as before."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer", streams={"read": ["camera0"], "publish": []})
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=secret)
                told = await admin.call("suspend_key", key_id=key_id)
                assert (told["status"], told["streams"]) == ("suspended", {"read": ["camera0"], "publish": []})
                assert await ended(client) == 4401
            async with daemon.websocket() as client:
                assert await reason_of(client, "authenticate", auth_token=secret) == "auth_failed"
                refused = await daemon.request("GET", f"/api/keys/{key_id}", key=secret)
                assert (refused.status, refused.json["code"]) == (401, "auth_failed")
                assert [each["key_id"] for each in (await admin.call("list_keys", status="suspended"))["keys"]] == [
                    key_id
                ]
                text = (await daemon.request("GET", "/metrics", port=local_port(daemon))).body.decode()
                assert 'edged_auth_failures_total{method="api_key",reason="suspended",transport="ws"} 1.0' in text
                assert 'edged_sessions_terminated_total{cause="suspended",transport="ws"} 1.0' in text
                assert 'edged_api_keys{state="suspended"} 1.0' in text
                assert (await admin.call("resume_key", key_id=key_id))["status"] == "active"
                assert (await client.call("authenticate", auth_token=secret))["authenticated"] is True


def local_port(daemon: RunningDaemon) -> int:
    return int(daemon.config.listen.local[0].rpartition(":")[2])


async def test_a_key_that_suspends_itself_gets_the_reply_and_then_the_close(tmp_path: Path) -> None:
    """The answer comes, then the close."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            key_id, secret = await daemon.create_key("admin")
            await client.call("authenticate", auth_token=secret)
            assert (await client.call("suspend_key", key_id=key_id))["status"] == "suspended"
            assert await ended(client) == 4401


async def test_a_live_picture_ends_when_its_camera_is_removed_from_the_key(tmp_path: Path) -> None:
    """The live picture of camera0 stops; that of camera1 by the same key goes on."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer")
            async with await open_picture(daemon, secret, "camera0") as first, \
                    await open_picture(daemon, secret, "camera1") as second:  # fmt: skip
                assert await watched(admin) == {"camera0", "camera1"}
                await admin.call("update_key", key_id=key_id, camera_access=["/dev/video99", "camera1"])
                assert await watched(admin) == {"camera1"}
                # The last chunk of the answer: no half picture is left behind.
                last = b""
                while not last.endswith(b"0\r\n\r\n") and (more := await first.receive_some(65536)):
                    last = (last + more)[-64:]
                assert await second.receive_some(65536)


async def watched(admin: Conversation) -> set[str]:
    """The cameras whose pictures somebody looks at."""
    return {item["camera"] for item in (await admin.call("list_sessions"))["sessions"] if item["camera"]}


async def open_picture(daemon: RunningDaemon, secret: str, camera: str) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
    head = f"GET /api/cameras/{camera}/live.mjpeg HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {secret}\r\n\r\n"
    await stream.send_all(head.encode())
    assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200")
    return stream


async def test_keys_are_changed_suspended_and_resumed_over_http(tmp_path: Path) -> None:
    """PATCH with a body of JSON; one that names another key than the path is refused; 404, 409, 415 as everywhere."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            _, boss = await daemon.create_key("admin")
            key_id, secret = await daemon.create_key("viewer")
            other, _ = await daemon.create_key("viewer")
            at = f"/api/keys/{key_id}"
            told = await daemon.request("PATCH", at, key=boss, body={"name": "new", "key_id": other})
            assert (told.status, told.json["code"]) == (400, "invalid_params")
            done = await daemon.request("PATCH", at, key=boss, body={"name": "new", "key_id": key_id})
            assert (done.status, done.json["name"], done.json["key_id"]) == (200, "new", key_id)
            assert (await daemon.request("PATCH", at, key=secret, body={"role": "admin"})).status == 403
            assert (await daemon.request("PATCH", at, key=boss, body=[1])).status == 400
            assert (await daemon.request("PATCH", at, key=boss, headers={"Content-Type": "text/plain"})).status == 415
            assert (await daemon.request("PATCH", "/api/keys/key_0", key=boss, body={"name": "x"})).status == 404
            for way, status in (("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active")):
                done = await daemon.request("POST", f"{at}/{way}", key=boss)
                assert (done.status, done.json["status"]) == (200, status)
            await daemon.request("DELETE", at, key=boss)
            for way in ("suspend", "resume"):
                assert (await daemon.request("POST", f"{at}/{way}", key=boss)).status == 409
            plain = await daemon.request("POST", "/api/revocations", key=boss, headers={"Content-Type": "text/plain"})
            assert plain.status == 415
            assert (await daemon.request("GET", "/api/revocations", key=secret)).status == 401


@asynccontextmanager
async def keyed(daemon: RunningDaemon, role: str = "admin", **params: object) -> AsyncIterator[Conversation]:
    """A conversation by a new key."""
    _, key = await daemon.create_key(role, **params)
    async with daemon.websocket() as client:
        await client.call("authenticate", auth_token=key)
        yield client


async def test_an_api_key_expires_at_the_time_it_was_given(tmp_path: Path) -> None:
    """expires_at is kept and shown; a past or unreadable one is refused with what to write instead."""
    with fail_after(30):
        async with running_daemon(tmp_path) as daemon, keyed(daemon) as client:
            made = await client.call("create_key", name="k", role="viewer", expires_at="2099-01-31T00:00:00Z")
            assert made["expires_at"] == "2099-01-31T00:00:00Z"
            days = await client.call("create_key", name="k", role="viewer", expires_in_days=1)
            assert days["expires_at"] > made["created_at"]
            for wrong in ("2001-01-01T00:00:00Z", "soon", "2099-01-31T00:00:00+99:99"):
                refused = await client.ask("create_key", name="k", role="viewer", expires_at=wrong)
                assert refused["error"]["code"] == -32602


async def test_invalid_params_create_no_key(tmp_path: Path) -> None:
    """-32602, and the list of keys is as before."""
    wrong: list[dict[str, object]] = [
        {"name": "", "role": "viewer"},
        {"name": "x" * 101, "role": "viewer"},
        {"name": "x", "role": "king"},
        {"name": "x"},
        {"role": "viewer"},
        {"name": 5, "role": "viewer"},
        {"name": "x", "role": "viewer", "permissions": ["*:x"]},
        {"name": "x", "role": "viewer", "permissions": ["p"] * 65},
        {"name": "x", "role": "viewer", "camera_access": ["c" * 129]},
        {"name": "x", "role": "viewer", "expires_in_days": 0},
        {"name": "x", "role": "viewer", "expires_in_days": True},
        {"name": "x", "role": "viewer", "expires_in_days": 5, "expires_at": "2099-01-31T00:00:00Z"},
    ]
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for params in wrong:
                assert (await admin.ask("create_key", **params))["error"]["code"] == -32602, params
                assert (await admin.call("list_keys"))["keys"] == [], params


async def test_list_keys_filters_by_role_state_and_use(tmp_path: Path) -> None:
    """role, status and unused_days each leave what fits; usage is counted."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            viewer, secret = await daemon.create_key("viewer")
            revoked, _ = await daemon.create_key("operator")
            await daemon.revoke_key(revoked)
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=secret)

            async def ids(**params: object) -> list[str]:
                return [item["key_id"] for item in (await admin.call("list_keys", **params))["keys"]]

            assert await ids() == [viewer, revoked]
            assert await ids(role="user") == [revoked]
            assert await ids(status="active") == [viewer]
            assert await ids(status="revoked") == [revoked]
            assert await ids(unused_days=1) == []
            item = await admin.call("get_key", key_id=viewer)
            assert item["usage_count"] == 1
            assert item["last_used"] is not None
            assert secret not in str(item)


async def test_a_viewer_key_may_read_and_rotate_itself_and_no_other(tmp_path: Path) -> None:
    """Its own record is shown and its own secret replaced; another's is not."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            mine, old = await daemon.create_key("viewer")
            other, _ = await daemon.create_key("viewer")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=old)
                assert (await client.call("get_key", key_id=mine))["role"] == "viewer"
                assert await reason_of(client, "get_key", key_id=other) == "permission_denied"
                assert await reason_of(client, "rotate_key", key_id=other) == "permission_denied"
                new = await client.call("rotate_key", key_id=mine, grace_seconds=3600)
                assert new["key_id"] == mine
                assert new["api_key"] == new["new_api_key"] != old
                for secret in (old, new["api_key"]):
                    assert (await client.call("authenticate", auth_token=secret))["authenticated"] is True


@pytest.mark.parametrize(
    "odd", ["0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01"]
)
async def test_a_time_before_1970_or_after_9999_is_refused_and_breaks_no_list(tmp_path: Path, odd: str) -> None:
    """Wherever a time can be given it is refused by name, nothing is kept of it, and every list can still be asked."""
    sentence = "lies outside of the years 1970 to 9999"
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, _ = await daemon.create_key("viewer")
            _, key = await daemon.create_key("admin")

            async def refusal(method: str, **params: object) -> str:
                error = (await admin.ask(method, **params))["error"]
                assert error["code"] == -32602, error
                return str(error)

            foreign = {"source_id": "a", "key": "k" * 40, "role": "viewer"}
            for member in ("created_at", "expires_at"):
                report = (await admin.call("import_keys", keys=[{**foreign, member: odd}]))["keys"][0]
                assert (report["status"], report["key_id"]) == ("refused", None)
                assert sentence in report["reason"]
            assert sentence in await refusal("create_key", name="x", role="viewer", expires_at=odd)
            assert sentence in await refusal("update_key", key_id=key_id, expires_at=odd)
            assert sentence in await refusal("revoke", subject="zz", before=odd)
            reply = await daemon.request("POST", "/api/revocations", key=key, body={"subject": "zz", "before": odd})
            assert reply.status == 400
            assert sentence in reply.json["detail"]
            assert len((await admin.call("list_keys"))["keys"]) == 2
            assert (await admin.call("list_revocations"))["total"] == 0


async def test_times_in_the_database_that_no_date_can_show_break_no_list(tmp_path: Path) -> None:
    """What an earlier version took, or a damaged row says, is told as the nearest time that a calendar has."""
    config = make_config(tmp_path, cameras=0)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            key_id, _ = await daemon.create_key("viewer")
            await admin.call("create_service_token", name="uploads")
            await admin.call("create_user", name="ann", password="a long password", role="viewer")
            await admin.call("revoke", subject="zz", before="2020-01-01T00:00:00Z")
            await admin.call("revoke", jti="gone")
        odd = (-62135646000.0, float("-inf"), float("inf"), 1e300)
        with closing(sqlite3.connect(config.paths.state / "trust.db")) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            times = {
                name: [row[1] for row in db.execute(f"PRAGMA table_info({name})") if row[2] == "REAL"] for name in names
            }
            values = cycle(odd)
            for name in ("api_keys", "service_tokens", "users", "revocations", "cut_offs", "signing_keys"):
                assert times[name], name
                for column in times[name]:
                    db.execute(f"UPDATE {name} SET {column} = ? WHERE {column} IS NOT NULL", (next(values),))
            db.commit()
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            assert [item["key_id"] for item in (await admin.call("list_keys"))["keys"]] == [key_id]
            assert (await admin.call("list_revocations"))["total"] == 2
            for listing in ("list_service_tokens", "list_users", "list_signing_keys", "list_sessions"):
                assert await admin.call(listing), listing


async def test_a_key_with_an_active_session_counts_as_in_use(
    tmp_path: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that logged in 90 days ago and has said nothing since stands in no list of unused keys."""
    ahead = 0.0
    monkeypatch.setattr("edged.clock.time", SimpleNamespace(time=lambda: 1_800_000_000.0 + ahead + trio.current_time()))
    async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
        key_id, secret = await daemon.create_key("viewer")
        idle, _ = await daemon.create_key("viewer")

        async def unused(days: float) -> list[str]:
            return [item["key_id"] for item in (await admin.call("list_keys", unused_days=days))["keys"]]

        async with daemon.websocket() as client:
            await client.call("authenticate", auth_token=secret)
            login = await admin.call("get_key", key_id=key_id)
            ahead += 90 * 86400.0
            assert await unused(1) == [idle]
            shown = await admin.call("get_key", key_id=key_id)
            assert (shown["last_used"], shown["usage_count"]) == (iso(1_800_000_000 + ahead), login["usage_count"])
            mock_clock.jump(60)
            await client.call("ping")
        while (await admin.call("list_sessions"))["sessions"][1:]:
            await trio.testing.wait_all_tasks_blocked()
        ahead += 0.5 * 86400
        assert (await admin.call("get_key", key_id=key_id))["last_used"] == iso(1_800_000_060 + 90 * 86400)
        assert await unused(0.6) == [idle]
        ahead += 30 * 86400
        assert set(await unused(30)) == {key_id, idle}


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
@pytest.mark.parametrize("by", ["password", "ticket"])
async def test_a_key_with_an_active_stream_counts_as_in_use(tmp_path: Path, by: str) -> None:
    """Whoever watches by it, or by a ticket of it, uses it until they leave, without another login."""
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            key_id, secret = await daemon.create_key("viewer")
            shown = secret
            if by == "ticket":
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=secret)
                    shown = (await client.call("create_ticket", device="camera0"))["ticket"]
            viewer = RtspReader(daemon.rtsp, "camera0", "anybody", shown)
            try:
                await viewer.play()
                login = await admin.call("get_key", key_id=key_id)
                while (item := await admin.call("get_key", key_id=key_id))["last_used"] <= login["last_used"]:
                    await trio.sleep(0.05)
                assert item["usage_count"] == login["usage_count"]
            finally:
                await viewer.aclose()
