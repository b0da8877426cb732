"""Keys that are changed and suspended, sessions and revocations: over sockets, HTTP and a running daemon."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import SECRET, Conversation, RunningDaemon, ended, running_daemon
from patience import fail_after

from edged.credentials import tokens
from edged.metrics import Metrics
from edged.operations import gather, metric_labels


async def reason_of(client: Conversation, method: str, **params: object) -> str:
    """Why a call was refused, as the caller is told."""
    return str((await client.ask(method, **params))["error"]["data"]["reason"])


def a_token(subject: str = "ann", role: str = "viewer", age: float = 0.0, **claims: object) -> str:
    now = int(time.time() - age)
    said = {"sub": subject, "role": role, "iat": now, "exp": now + 3600, "jti": f"{subject}{age}", **claims}
    return tokens.sign(said, tokens.SharedSecret("test", SECRET))


async def test_an_update_reaches_a_live_session_with_its_next_call(tmp_path: Path) -> None:
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


async def test_nobody_widens_a_key_beyond_what_they_may_do(tmp_path: Path) -> None:
    """A narrow administrator of keys narrows and renames any, and makes none stronger than itself, itself neither."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            mine, secret = await daemon.create_key("admin", permissions=["keys:admin"])
            strong, _ = await daemon.create_key("admin", expires_in_days=5)
            weak, _ = await daemon.create_key("viewer", permissions=[])
            await client.call("authenticate", auth_token=secret)
            for key_id, change in (
                (weak, {"permissions": None}), (weak, {"role": "admin", "permissions": ["camera:read"]}),
                (mine, {"permissions": None}), (mine, {"permissions": ["keys:admin", "users:admin"]}),
                (weak, {"streams": {"read": ["*"]}}), (weak, {"streams": {"publish": ["camera0"]}}),
                (strong, {"expires_at": None}), (strong, {"expires_in_days": 6}),
            ):  # fmt: skip
                assert await reason_of(client, "update_key", key_id=key_id, **change) == "permission_denied", change
            assert await reason_of(client, "create_key", name="eye", role="admin", permissions=["keys:admin"],
                                   streams={"read": ["*"]}) == "permission_denied"  # fmt: skip
            await client.call("update_key", key_id=strong, name="renamed", role="viewer", expires_in_days=1)
            same = await client.call("update_key", key_id=weak, role="admin", permissions=["keys:admin"])
            assert same["permissions"] == ["keys:admin"]
            await client.call("suspend_key", key_id=strong)
            assert await reason_of(client, "resume_key", key_id=strong) == "permission_denied"


BAD_CHANGES: tuple[dict[str, object], ...] = (
        {}, {"name": ""}, {"role": "king"}, {"expires_at": "2001-01-01"}, {"expires_at": "soon"},
        {"expires_at": "2099-01-01", "expires_in_days": 5}, {"expires_at": None, "expires_in_days": 5},
        {"expires_in_days": -1}, {"permissions": ["*:x"]}, {"camera_access": [""]}, {"streams": {"read": ["~x"]}},
        {"streams": {"read": [""]}}, {"streams": {"read": ["x"] * 65}}, {"streams": ["camera0"]}, {"name": None},
)  # fmt: skip


async def test_a_change_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """-32602, and the key is as before."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, _ = await daemon.create_key()
            before = await admin.call("get_key", key_id=key_id)
            for wrong in BAD_CHANGES:
                assert (await admin.ask("update_key", key_id=key_id, **wrong))["error"]["code"] == -32602, wrong
                assert await admin.call("get_key", key_id=key_id) == before


async def test_a_suspended_key_closes_its_sessions_and_is_good_again_when_resumed(tmp_path: Path) -> None:
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


async def test_a_key_that_suspends_itself_hears_so_and_is_out(tmp_path: Path) -> None:
    """The answer comes, then the close."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            key_id, secret = await daemon.create_key("admin")
            await client.call("authenticate", auth_token=secret)
            assert (await client.call("suspend_key", key_id=key_id))["status"] == "suspended"
            assert await ended(client) == 4401


async def test_a_picture_ends_when_its_camera_is_taken_from_the_key(tmp_path: Path) -> None:
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


# --- who is inside ------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_without_secrets_and_one_s_own_to_anybody(tmp_path: Path) -> None:
    """Transport, subject, key or jti, since, deadline; an administrator sees all, others their own; in pages."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer", expires_in_days=1)
            token = a_token()
            async with daemon.websocket() as keyed, daemon.websocket() as tokened:
                mine = (await keyed.call("authenticate", auth_token=secret))["session_id"]
                theirs = (await tokened.call("authenticate", auth_token=token))["session_id"]
                listed = await admin.call("list_sessions")
                assert listed["total"] == 3
                assert secret not in str(listed)
                assert token not in str(listed)
                found = {item["session_id"]: item for item in listed["sessions"]}
                assert found[mine]["key_id"] == key_id
                assert found[mine]["deadline"] > found[mine]["since"]
                assert (found[theirs]["jti"], found[theirs]["subject"]) == ("ann0.0", "ann")
                assert {item["transport"] for item in found.values()} == {"ws", "uds"}
                own = await tokened.call("list_sessions")
                assert [item["session_id"] for item in own["sessions"]] == [theirs]
                page = await admin.call("list_sessions", limit=1, offset=1)
                assert (page["sessions"], page["total"]) == ([listed["sessions"][1]], 3)
                over_http = await daemon.request("GET", "/api/sessions?limit=5", key=secret)
                assert [item["session_id"] for item in over_http.json["sessions"]] == [mine]


async def test_a_session_is_ended_and_its_credential_stays_good(tmp_path: Path) -> None:
    """By an administrator, by another session of the same key, by itself; not by a stranger, who learns nothing."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, secret = await daemon.create_key("viewer")
            _, boss = await daemon.create_key("admin")
            for way in ("admin", "http", "own", "self"):
                async with daemon.websocket() as client, daemon.websocket() as other:
                    mine = (await client.call("authenticate", auth_token=secret))["session_id"]
                    await other.call("authenticate", auth_token=secret if way == "own" else a_token())
                    if way == "admin":
                        for name in (mine, "session_0"):
                            assert await reason_of(other, "end_session", session_id=name) == "permission_denied"
                        assert (await admin.call("end_session", session_id=mine))["session_id"] == mine
                    elif way == "http":
                        assert (await daemon.request("DELETE", f"/api/sessions/{mine}", key=boss)).status == 200
                        assert (await daemon.request("DELETE", f"/api/sessions/{mine}", key=boss)).status == 404
                    else:
                        await (other if way == "own" else client).call("end_session", session_id=mine)
                    assert await ended(client) == 4401
                    reason = client.connection.closed
                    assert reason is not None
                    assert reason.reason == "session ended"
            async with daemon.websocket() as client:
                assert (await client.call("authenticate", auth_token=secret))["authenticated"] is True


async def test_a_token_is_not_taken_for_a_key_or_a_user_of_its_name(tmp_path: Path) -> None:
    """Whoever is called like a key's subject, or like root's, sees none of their sessions."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, secret = await daemon.create_key("viewer")
            root = (await admin.call("whoami"))["user_id"]
            async with daemon.websocket() as keyed:
                await keyed.call("authenticate", auth_token=secret)
                for name in (f"key:{key_id}", root):
                    async with daemon.websocket() as client:
                        await client.call("authenticate", auth_token=a_token(name))
                        assert (await client.call("list_sessions"))["total"] == 1


# --- what is denied -----------------------------------------------------------------------------------------------


async def deny(daemon: RunningDaemon, boss: str, **params: object) -> Any:
    reply = await daemon.request("POST", "/api/revocations", key=boss, body=params)
    assert reply.status == 201, reply.body
    return reply.json


@pytest.mark.parametrize("what", ["jti", "token_hash", "subject", "issuer", "before", "subject before", "key_id"])
async def test_whatever_names_a_credential_denies_it(tmp_path: Path, what: str) -> None:
    """Its session closes with 4401, it is refused also after a restart, another one goes on; it is listed."""
    with fail_after(60):
        config = None
        token = a_token(age=100, iss="camera-service")
        other = a_token("bob", age=100) if what != "before" else a_token("bob", age=-5)
        async with running_daemon(tmp_path, cameras=0) as daemon:
            config = daemon.config
            _, boss = await daemon.create_key("admin")
            key_id, secret = await daemon.create_key("viewer")
            credential = secret if what == "key_id" else token
            digest = hashlib.sha256(token.encode()).hexdigest()
            named = {
                "jti": {"jti": "ann100"}, "token_hash": {"token_hash": digest}, "subject": {"subject": "ann"},
                "issuer": {"issuer": "camera-service"}, "before": {"before": "now"},
                "subject before": {"subject": "ann", "before": "now"}, "key_id": {"key_id": key_id},
            }[what]  # fmt: skip
            async with daemon.websocket() as client, daemon.websocket() as bystander:
                await client.call("authenticate", auth_token=credential)
                await bystander.call("authenticate", auth_token=other)
                told = await deny(daemon, boss, **named, reason="lost")
                assert {name: told[name] for name in named if name != "before"} == {
                    name: value for name, value in named.items() if name != "before"
                }
                assert await ended(client) == 4401
                assert (await bystander.call("whoami"))["user_id"] == "bob"
            listed = await daemon.request("GET", "/api/revocations", key=boss)
            (item,) = listed.json["revocations"]
            assert item["reason"] == "lost"
            assert item.keys() - {"at", "reason", "until", "provisional"} == named.keys()
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            assert await reason_of(client, "authenticate", auth_token=credential) == "revoked"
            assert (await client.call("authenticate", auth_token=other))["authenticated"] is True


BAD_REVOCATIONS: tuple[dict[str, object], ...] = (
        {}, {"jti": "a", "subject": "b"}, {"jti": "a", "before": "now"}, {"token_hash": "xyz"}, {"jti": ""},
        {"subject": "a", "issuer": "b", "before": "now"}, {"before": "2099-01-01T00:00:00Z"}, {"before": "soon"},
        {"before": 5}, {"jti": "x" * 257}, {"jti": "a", "reason": "x" * 201},
)  # fmt: skip


async def test_a_revocation_that_names_nothing_or_too_much_denies_nothing(tmp_path: Path) -> None:
    """-32602, and the list stays empty."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for wrong in BAD_REVOCATIONS:
                assert (await admin.ask("revoke", **wrong))["error"]["code"] == -32602, wrong
            assert await admin.call("list_revocations") == {"revocations": [], "total": 0}


async def test_whoever_may_revoke_tokens_alone_revokes_no_key(tmp_path: Path) -> None:
    """That needs keys:admin, too, as revoke_key does; one that does not exist is not found."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            key_id, _ = await daemon.create_key("viewer")
            _, secret = await daemon.create_key("admin", permissions=["tokens:revoke"])
            await client.call("authenticate", auth_token=secret)
            assert await reason_of(client, "revoke", key_id=key_id) == "permission_denied"
            assert (await client.call("revoke", jti="x", reason="test"))["jti"] == "x"
            assert (await admin.ask("revoke", key_id="key_0"))["error"]["code"] == -32010


async def test_the_list_of_revocations_comes_in_pages_the_newest_first(tmp_path: Path) -> None:
    """Lines in time stand among the names."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for params in ({"jti": "1"}, {"before": "2020-01-01"}, {"subject": "x"}):
                await admin.call("revoke", **params)
            listed = await admin.call("list_revocations")
            assert [item.get("subject") or item.get("before") or item["jti"] for item in listed["revocations"]] == [
                "x", "2020-01-01T00:00:00Z", "1"
            ]  # fmt: skip
            page = await admin.call("list_revocations", limit=1, offset=1)
            assert (page["revocations"], page["total"]) == ([listed["revocations"][1]], 3)


# --- over HTTP ----------------------------------------------------------------------------------------------------


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


def test_all_operations_together_stay_below_the_limit_of_metric_series() -> None:
    """At most 500 series with two cameras and five keys, counted with the operations that there are."""
    metrics = Metrics(metric_labels(gather()), version="1.2.3")
    metrics.gauges.watch(cameras=lambda: {"camera0": True, "camera1": False}, api_keys=lambda: {"active": 5})
    lines = [line for line in metrics.render()[0].decode().splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 500


# --- keys of another service --------------------------------------------------------------------------------------


async def test_an_expired_key_is_taken_and_opens_nothing(tmp_path: Path) -> None:
    """Its secret need be kept nowhere else; the end stays what it was, also where nobody vouches for the clock."""
    ended = {"source_id": "1", "key": "E" * 32, "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            for status, reason in (("imported", "it has expired"), ("known", "it is known already")):
                (report,) = (await admin.call("import_keys", keys=[ended]))["keys"]
                assert (report["status"], report["reason"]) == (status, reason)
            shown = await admin.call("get_key", key_id=report["key_id"])
            assert (shown["status"], shown["expires_at"]) == ("expired", ended["expires_at"])
            assert not (await client.call("authenticate", token="E" * 32, auth_type="api_key"))["authenticated"]


async def test_an_import_reports_on_each_key_and_gives_nothing_away(tmp_path: Path) -> None:
    """Taken, known, or refused and why; nobody imports a key that may do more than they may; never a secret back."""
    good = {"source_id": "1", "key": "A" * 32, "role": "user", "name": "Old", "created_at": "2999-01-01T00:00:00Z"}
    bad: list[dict[str, object]] = [
        {"key": "short"}, {"key": "x" * 257}, {"key": "tab\t" * 8}, {"key": "\u00e4" * 32}, {"role": "king"},
        {"expires_at": "soon"}, {"created_at": "long ago"},
        {"key": "camera_service_sk_" + "1234567890abcdef" * 4},
    ]  # fmt: skip
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            keys = [good, *({**good, **each, "source_id": str(at)} for at, each in enumerate(bad, start=2)), good]
            report = (await admin.call("import_keys", keys=keys))["keys"]
            assert [item["status"] for item in report] == ["imported", *["refused"] * len(bad), "known"]
            assert all(item["reason"] for item in report[1:])
            assert report[0]["key_id"] == report[-1]["key_id"]
            assert "A" * 32 not in str(report)
            shown = await admin.call("get_key", key_id=report[0]["key_id"])
            assert (shown["name"], shown["role"]) == ("Old", "operator")
            assert not shown["created_at"].startswith("2999")
            assert (await client.call("authenticate", token="A" * 32, auth_type="api_key"))["role"] == "operator"
            for wrong in ([], [good] * 101, [{"source_id": "1", "role": "viewer"}]):
                assert (await admin.ask("import_keys", keys=wrong))["error"]["code"] == -32602
            _, narrow = await daemon.create_key("admin", permissions=["keys:admin"])
            await client.call("authenticate", auth_token=narrow)
            refused = await client.ask("import_keys", keys=[{**good, "key": "B" * 32, "role": "admin"}])
            assert refused["error"]["data"]["reason"] == "permission_denied"
            assert (await admin.call("list_keys", role="admin"))["keys"][0]["name"] == "test admin"
