"""Service tokens and files tokens on the running daemon: what they open, what they never open, and who says so."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import Conversation, Reply, RunningDaemon, make_config, running_daemon
from joserfc import jwt
from joserfc.jwk import KeySet
from log_helpers import kept_log
from patience import fail_after

from edged.credentials import tokens

PATH = "/v1/files/generate-token"
SHAPE = re.compile(r"[0-9a-f]{64}")
BASE = "/api/service-tokens"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with kept_log() as stream:
        yield stream


async def generate(daemon: RunningDaemon, secret: str, query: str = "user_id=test-user", **sent: Any) -> Reply:
    headers = {"X-Service-Token": secret, **sent.pop("headers", {})}
    return await daemon.request("POST", f"{PATH}?{query}", headers=headers, **sent)


async def files_token(daemon: RunningDaemon, admin: Conversation, user: str = "test-user") -> str:
    made = await admin.call("create_service_token", name=f"for {user}")
    return str((await generate(daemon, made["service_token"], f"user_id={user}")).json["token"])


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def read(text: str, part: int) -> Any:
    return json.loads(base64.urlsafe_b64decode(text.split(".")[part] + "=="))


async def test_a_server_makes_tokens_for_its_users_that_the_jwks_verifies(tmp_path: Path, log: io.StringIO) -> None:
    """S3-4 to S3-7, S3-14, S3-21: query and no body, all four members, RS256 by the published key, logged as whose."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            made = await admin.call("create_service_token", name="uploads")
            assert SHAPE.fullmatch(made["service_token"])
            agent = {"User-Agent": "StreamLine-Service-Client/1.0"}
            reply = await generate(daemon, made["service_token"], "user_id=test-user&expires_hours=2", headers=agent)
            assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
            text = reply.json["token"]
            told = {"user_id": "test-user", "expires_in": 7200, "token_type": "Bearer"}
            assert reply.json == {"token": text, **told}
            jwks = await daemon.request("GET", "/.well-known/jwks.json")
            assert jwks.headers["cache-control"] == "max-age=300"
            verified = jwt.decode(text, KeySet.import_key_set(jwks.json), algorithms=["RS256"])
            assert verified.header == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
            claims = verified.claims
            assert {
                "user_id": "test-user",
                "sub": "test-user",
                "iss": "edged",
                "scope": "files",
            }.items() <= claims.items()
            assert claims.keys() == {"user_id", "sub", "iat", "exp", "jti", "iss", "scope", "epoch", "client_id"}
            assert claims["exp"] - claims["iat"] == 7200
            assert abs(claims["iat"] - time.time()) < 60
            assert (await generate(daemon, made["service_token"])).json["expires_in"] == 3600
            said = log.getvalue()
            assert f"service:{made['token_id']} for test-user" in said
            assert agent["User-Agent"] in said
            metrics = (
                await daemon.request("GET", "/metrics", key=(await daemon.create_key("monitor"))[1])
            ).body.decode()
            labels = 'method="service_token",role="none",transport="http"'
            assert f"edged_token_uses_total{{{labels}}} 2.0" in metrics
            used = (await admin.call("list_service_tokens"))["service_tokens"][0]
            assert (used["usage_count"], used["last_used"] is not None) == (2, True)


async def test_a_body_is_not_looked_at(tmp_path: Path) -> None:
    """None, empty, null as axios sends it, or anything: the query counts, and the connection lives on (S3-4)."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            secret = (await admin.call("create_service_token", name="uploads"))["service_token"]
            head = f"POST {PATH}?user_id=7 HTTP/1.1\r\nHost: x\r\nX-Service-Token: {secret}\r\n"
            bodies = (
                "\r\n",
                "Content-Length: 0\r\n\r\n",
                "Content-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 13\r\n\r\nuser_id=admin",
            )
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                for body in bodies:
                    await stream.send_all((head + body).encode())
                    answer = b""
                    while not answer.endswith(b"}"):
                        part = await stream.receive_some()
                        assert part, answer
                        answer += part
                    assert answer.startswith(b"HTTP/1.1 200")
                    assert b'"user_id":"7"' in answer


async def test_what_the_query_must_say(tmp_path: Path) -> None:
    """S3-18, S3-19: 400 with what is wrong, and 401 before that."""
    wrong = [
        "", "user_id=", "user_id=..", "user_id=a/b", "user_id=a%2Fb", "user_id=a%20b", "user_id=%00",
        f"user_id={'x' * 129}",
        "user_id=a&user_id=b", "user_id=a&expires_hours=0", "user_id=a&expires_hours=25", "user_id=a&expires_hours=-1",
        "user_id=a&expires_hours=1.5", "user_id=a&expires_hours=x", "user_id=a&expires_hours=",
        "user_id=a&expires_hours=1&expires_hours=2", "user_id=a&expires_hours=%D9%A1", "user_email=a@b.example",
    ]  # fmt: skip
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            secret = (await admin.call("create_service_token", name="uploads"))["service_token"]
            for query in wrong:
                reply = await generate(daemon, secret, query)
                assert (reply.status, reply.json["code"]) == (400, "invalid_params"), query
                assert reply.json.keys() == {"error", "detail", "code"}, query
                assert (await generate(daemon, "0" * 64, query)).status == 401, query


async def test_a_service_token_wins_and_a_wrong_one_is_refused_whatever_stands_beside_it(tmp_path: Path) -> None:
    """S3-9, contract 5.3: 401 with the texts that its clients know, and one header twice is none."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            made = await admin.call("create_service_token", name="uploads")
            good, secret = await files_token(daemon, admin), made["service_token"]
            _, key = await daemon.create_key("admin")
            assert (await generate(daemon, secret, headers=bearer("rubbish"))).status == 200
            assert (await generate(daemon, secret, key="rubbish")).status == 200
            for wrong in ("0" * 64, "", "x", secret.upper(), key, good):
                for beside in (bearer(good), bearer(key), {"X-API-Key": key}, {}):
                    reply = await generate(daemon, wrong, headers=beside)
                    assert reply.status == 401
                    text = "Invalid service token"
                    assert reply.json == {"error": text, "detail": text, "code": "auth_failed"}
                    assert 'error="invalid_token"' in reply.headers["www-authenticate"]
            none = await daemon.request("POST", f"{PATH}?user_id=a")
            assert (none.status, none.json["error"], none.json["code"]) == (
                401,
                "Authentication required",
                "auth_required",
            )
            assert "X-Service-Token" in none.json["detail"]
            bad = await daemon.request("POST", f"{PATH}?user_id=a", headers=bearer(good[:-2]))
            assert (bad.status, bad.json["error"], bad.json["detail"]) == (401, "Invalid token", "Invalid token")
            request = f"POST {PATH}?user_id=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                await stream.send_all(
                    f"{request}X-Service-Token: {secret}\r\nX-Service-Token: {secret}\r\n\r\n".encode()
                )
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 401")


async def test_only_a_service_token_makes_tokens(tmp_path: Path) -> None:
    """token:mint is nobody else's: an administrator's key, a token for files, root on the unix socket get 403."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            for shown in ({"X-API-Key": key}, bearer(key), bearer(await files_token(daemon, admin))):
                reply = await daemon.request("POST", f"{PATH}?user_id=a", headers=shown)
                assert (reply.status, reply.json["code"]) == (403, "permission_denied")
                assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]
            assert (await admin.ask("generate_files_token", user_id="a"))["error"]["code"] == -32002


async def test_a_service_token_opens_nothing_but_files(tmp_path: Path) -> None:
    """Contract 7.3.5, 7.6: not /ws, by message or by header; not /api, by whatever header; not /mcp."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            secret = (await admin.call("create_service_token", name="uploads"))["service_token"]
            for shown in ({"X-Service-Token": secret}, bearer(secret), {"X-API-Key": secret}):
                for path in ("/api/keys", BASE, "/api/sessions", "/api/cameras/camera0/live.mjpeg", "/metrics"):
                    assert (await daemon.request("GET", path, headers=shown)).status == 401
                assert (await daemon.request("POST", "/mcp", headers=shown)).status == 404
                extra = [(name.encode(), text.encode()) for name, text in shown.items()]
                async with daemon.websocket(extra_headers=extra) as client:
                    assert (await client.ask("whoami"))["error"]["data"]["reason"] == "auth_required"
            async with daemon.websocket() as client:
                for kind in ("jwt", "api_key", "auto"):
                    reply = await client.ask("authenticate", auth_token=secret, auth_type=kind)
                    assert reply["error"]["data"]["reason"] == "auth_failed"


async def test_a_files_token_opens_nothing_but_files(tmp_path: Path, log: io.StringIO) -> None:
    """Contract 7.6, worked row: on /ws it is `Invalid role`; it opens no picture, no ticket and nothing under /api; and
    whoever may read the audit is told that it is good."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            text = await files_token(daemon, admin)
            async with daemon.websocket() as client:
                reply = await client.ask("authenticate", auth_token=text)
                assert (reply["error"]["code"], reply["error"]["data"]["reason"]) == (-32001, "auth_failed")
                assert (await client.ask("get_camera_list"))["error"]["code"] == -32001
            assert "Invalid role" in log.getvalue()
            for method, path in (
                ("GET", "/api/keys"), ("GET", "/api/cameras/camera0/live.mjpeg"), ("POST", "/api/tickets"),
                ("GET", "/api/sessions"), ("GET", "/metrics"), ("POST", "/api/tokens"),
                ("GET", "/files/snapshots/x.jpg"),
            ):  # fmt: skip
                reply = await daemon.request(method, path, headers=bearer(text), body=None if method == "GET" else {})
                assert (path, reply.status, reply.json["code"]) == (path, 401, "auth_failed")
            assert (await admin.call("validate_token", token=text))["errors"] == []
            await admin.call("revoke", subject="test-user")
            reply = await daemon.request("POST", f"{PATH}?user_id=a", headers=bearer(text))
            assert (reply.status, reply.json["code"], reply.json["error"]) == (401, "revoked", "Invalid token")


async def test_the_scope_of_files_is_nothing_in_a_token_that_our_rs256_key_did_not_sign(tmp_path: Path) -> None:
    """Contract 7.2: by a shared secret it is no right at all, and narrows a role to nothing."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon:
            secret = tokens.SharedSecret("test", (tmp_path / "secret").read_text())
            now = int(time.time())
            claims = {"sub": "x", "user_id": "x", "iat": now, "exp": now + 60, "jti": "a", "scope": "files"}
            alone = tokens.sign(claims, secret)
            with_role = tokens.sign({**claims, "role": "admin"}, secret)
            async with daemon.websocket() as client:
                assert (await client.ask("authenticate", auth_token=alone))["error"]["data"]["reason"] == "auth_failed"
                mine = await client.call("authenticate", auth_token=with_role)
                assert not [name for name in mine["permissions"] if ":" in name]
            for text, status in ((alone, 401), (with_role, 403)):
                assert (await daemon.request("POST", f"{PATH}?user_id=a", headers=bearer(text))).status == status


async def test_the_life_of_a_service_token(tmp_path: Path) -> None:
    """Made, listed, rotated with a grace, revoked, by REST and RPC; after a restart it is as it was."""
    config = make_config(tmp_path, cameras=0)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            made = await daemon.request("POST", BASE, key=key, body={"name": "uploads", "networks": ["127.0.0.0/8"]})
            assert (made.status, made.headers["cache-control"]) == (201, "no-store")
            token_id, first = made.json["token_id"], made.json["service_token"]
            assert made.json.keys() == {"token_id", "service_token", "name", "networks", "created_at"}
            rotated = await daemon.request("POST", f"{BASE}/{token_id}/rotate", key=key, body={"grace_seconds": 600})
            second = rotated.json["service_token"]
            assert (rotated.status, rotated.json["token_id"], first != second) == (200, token_id, True)
            assert [(await generate(daemon, secret)).status for secret in (first, second)] == [200, 200]
            listed = (await daemon.request("GET", BASE, key=key)).json["service_tokens"]
            assert (await admin.call("list_service_tokens"))["service_tokens"] == listed
            assert (listed[0]["status"], listed[0]["networks"]) == ("active", ["127.0.0.0/8"])
            assert listed[0]["previous_valid_until"] == rotated.json["previous_valid_until"]
            assert first not in str(listed)
            assert second not in str(listed)
            third = (await daemon.request("POST", f"{BASE}/{token_id}/rotate", key=key)).json["service_token"]
            assert [(await generate(daemon, secret)).status for secret in (first, second, third)] == [200, 200, 200]
            other = await admin.call("create_service_token", name="other")
            for _ in range(2):
                gone = await daemon.request("DELETE", f"{BASE}/{other['token_id']}", key=key)
                assert (gone.status, gone.json) == (
                    200, {"message": "service token revoked", "token_id": other["token_id"]},
                )  # fmt: skip
            reply = await generate(daemon, other["service_token"])
            assert (reply.status, reply.json["error"], reply.json["code"]) == (401, "Invalid service token", "revoked")
            assert (await daemon.request("POST", f"{BASE}/{other['token_id']}/rotate", key=key)).status == 409
            told = (await admin.call("list_revocations"))["revocations"][0]
            assert (told["service_token_id"], told["reason"]) == (other["token_id"], "service_token")
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            # The usage is written at the stop, and shown after it.
            states = {
                item["name"]: item["status"] for item in (await admin.call("list_service_tokens"))["service_tokens"]
            }
            assert states == {"uploads": "active", "other": "revoked"}
            answers = [(await generate(daemon, text)).status for text in (second, third, other["service_token"])]
            assert answers == [200, 200, 401]


async def test_what_is_wrong_with_a_request_is_told(tmp_path: Path) -> None:
    """Status by status; nothing is made by what was refused."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            _, weak = await daemon.create_key("viewer")
            _, narrow = await daemon.create_key("admin", permissions=["keys:admin"])
            plain = {"Content-Type": "text/plain"}
            bad: list[object] = [
                {},
                {"name": ""},
                {"name": "x", "networks": []},
                {"name": "x", "networks": ["10.0.0.1/8"]},
                [],
                7,
            ]
            for body in bad:
                reply = await daemon.request("POST", BASE, key=key, body=body)
                assert (reply.status, reply.json["code"]) == (400, "invalid_params")
            assert (await daemon.request("POST", BASE, key=key, body={"name": "x"}, headers=plain)).status == 415
            for other in (weak, narrow):
                assert (await daemon.request("POST", BASE, key=other, body={"name": "x"})).status == 403
            assert (await daemon.request("GET", BASE, key=weak)).status == 403
            assert (await daemon.request("GET", BASE)).status == 401
            assert (await admin.call("list_service_tokens"))["service_tokens"] == []
            token_id = (await admin.call("create_service_token", name="x"))["token_id"]
            bad = [{"grace_seconds": -1}, {"grace_seconds": "x"}, []]
            for body in bad:
                assert (await daemon.request("POST", f"{BASE}/{token_id}/rotate", key=key, body=body)).status == 400
            assert (
                await daemon.request("POST", f"{BASE}/{token_id}/rotate", key=key, body={}, headers=plain)
            ).status == 415
            assert (await daemon.request("POST", f"{BASE}/{token_id}/rotate", key=narrow)).status == 403
            for method, path in (("POST", f"{BASE}/svc_0/rotate"), ("DELETE", f"{BASE}/svc_0")):
                reply = await daemon.request(method, path, key=key)
                assert (reply.status, "list_service_tokens" in reply.json["detail"]) == (404, True)
            # Whoever may administer keys may always take one away.
            assert (await daemon.request("DELETE", f"{BASE}/{token_id}", key=narrow)).status == 200


async def test_it_is_good_from_its_networks_only(tmp_path: Path, log: io.StringIO) -> None:
    """S3-20: refused from elsewhere, and on the unix socket, where there is no address; the log says why."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            here = await admin.call("create_service_token", name="here", networks=["::ffff:127.0.0.0/104"])
            there = await admin.call("create_service_token", name="there", networks=["192.0.2.0/24"])
            assert here["networks"] == ["127.0.0.0/8"]
            assert (await generate(daemon, here["service_token"])).status == 200
            reply = await generate(daemon, there["service_token"])
            text = "Invalid service token"
            assert (reply.status, reply.json) == (401, {"error": text, "detail": text, "code": "auth_failed"})
            assert "address_denied" in log.getvalue()
            for made, status in ((here, 401), (await admin.call("create_service_token", name="all"), 200)):
                async with await trio.open_unix_socket(daemon.config.listen.unix) as stream:
                    line = f"POST {PATH}?user_id=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    await stream.send_all(f"{line}X-Service-Token: {made['service_token']}\r\n\r\n".encode())
                    assert (await stream.receive_some()).startswith(f"HTTP/1.1 {status}".encode())
            # Whoever shows one elsewhere is nobody's administrator there, whatever endpoint it is.
            async with await trio.open_unix_socket(daemon.config.listen.unix) as stream:
                line = "GET /api/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                await stream.send_all(f"{line}X-Service-Token: {here['service_token']}\r\n\r\n".encode())
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 401")


async def test_one_that_other_servers_hold_is_taken_over_once(tmp_path: Path) -> None:
    """S3-1, S3-22: it works as it is; again it is known; the guide's own and what nobody could send are refused."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            old = "an-old-token/of+any=form_" + "z" * 20
            done = await admin.call("import_service_token", service_token=old)
            assert done["status"] == "imported"
            assert (await generate(daemon, old)).status == 200
            again = await admin.call("import_service_token", service_token=old, name="again")
            assert again == {"token_id": done["token_id"], "status": "known"}
            await admin.call("revoke_service_token", token_id=done["token_id"])
            assert (await admin.call("import_service_token", service_token=old))["status"] == "revoked"
            printed = "ee6d52ece4fa6c4c8836820d2eb7feeb" + "6c78cbf2e2661ef76c9f5a805fc16340"
            refused = await admin.ask("import_service_token", service_token=printed)
            assert "the upload server guide's sample token" in refused["error"]["message"]
            assert printed not in str(refused)
            for bad in ("short", "x" * 257, "with a space in it, and long", "ümlauts are no header text", "tab\t" * 10):
                assert (await admin.ask("import_service_token", service_token=bad))["error"]["code"] == -32602
            assert len((await admin.call("list_service_tokens"))["service_tokens"]) == 1


async def test_what_strangers_write_into_the_header_is_one_answer(tmp_path: Path, log: io.StringIO) -> None:
    """Bytes of any kind, however many: 401 or 400 or 431, never 500; nothing of it stands in the log."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            good = (await admin.call("create_service_token", name="uploads"))["service_token"]
            token = good.encode()
            hostile = (
                b"\xff" * 64, b"\x01" * 8, b"' OR 1=1 --", b"${jndi:ldap://x}", b"../../etc/passwd", b"a" * 15_000,
                b"a" * 70_000, b"eyJhbGciOiJub25lIn0.e30.", token + b"\x00", token + b", " + token,
                b"Bearer " + token, b'"' + token + b'"', token[:32] + b"\r\n " + token[32:],
            )  # fmt: skip
            for text in hostile:
                async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                    head = (
                        f"POST {PATH}?user_id=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Service-Token: ".encode()
                    )
                    await stream.send_all(head + text + b"\r\n\r\n")
                    status = (await stream.receive_some()).split(b" ", 2)[1]
                    assert (text[:20], status in (b"400", b"401", b"431")) == (text[:20], True)
            for spelling in ("x-service-token", "X-SERVICE-TOKEN"):
                reply = await daemon.request("POST", f"{PATH}?user_id=a", headers={spelling: f"  {good} "})
                assert reply.status == 200
            assert good not in log.getvalue()
            assert "jndi" not in log.getvalue()


async def test_what_a_service_token_made_ends_with_it(tmp_path: Path) -> None:
    """At once, and after a restart; a rotation, with no grace at all, ends none, and others' are not concerned."""
    config = make_config(tmp_path, cameras=0)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:

            async def status(text: str) -> tuple[int, str]:
                reply = await daemon.request("POST", f"{PATH}?user_id=a", headers=bearer(text))
                return reply.status, reply.json["code"]

            made = await admin.call("create_service_token", name="leaky")
            first = (await generate(daemon, made["service_token"])).json["token"]
            rotated = await admin.call("rotate_service_token", token_id=made["token_id"], grace_seconds=0)
            second = (await generate(daemon, rotated["service_token"])).json["token"]
            other = await files_token(daemon, admin)
            assert read(first, 1)["client_id"] == made["token_id"]
            # Good, and not for making more.
            assert [await status(text) for text in (first, second, other)] == [(403, "permission_denied")] * 3
            await admin.call("revoke_service_token", token_id=made["token_id"])
            ended = [(401, "revoked"), (401, "revoked"), (403, "permission_denied")]
            assert [await status(text) for text in (first, second, other)] == ended
        async with running_daemon(tmp_path, config=config) as daemon:
            assert [await status(text) for text in (first, second, other)] == ended
