"""/oauth/introspect and /oauth/revoke, validate_token and get_token_usage on the running daemon."""

from __future__ import annotations

import hashlib
import http.client
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from daemon_helpers import Reply, RunningDaemon, ended, running_daemon
from patience import fail_after

from edged.credentials import tokens

FORM = "application/x-www-form-urlencoded"
DAY = 86400


def sign(folder: Path, **changes: object) -> str:
    """By the box's shared secret; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "sub": "ann",
        "user_id": "ann",
        "role": "viewer",
        "iat": now,
        "exp": now + 600,
        "jti": secrets.token_hex(8),
    }
    kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return tokens.sign(kept, tokens.SharedSecret("test", (folder / "secret").read_text()))


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def post(daemon: RunningDaemon, path: str, body: object, *, key: str = "", kind: str = FORM) -> Reply:
    """A form, shown with a Bearer."""
    data = urlencode(body) if isinstance(body, (dict, list)) else str(body)

    def exchange() -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        headers = {"Content-Type": kind, **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", path, body=data.encode(), headers=headers)
        with connection.getresponse() as response:
            reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return reply

    return await trio.to_thread.run_sync(exchange, abandon_on_cancel=True)


async def introspect(daemon: RunningDaemon, text: str, key: str, **more: str) -> Any:
    reply = await post(daemon, "/oauth/introspect", {"token": text, **more}, key=key)
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    return reply.json


async def test_what_is_known_of_a_good_token(tmp_path: Path) -> None:
    """RFC 7662: what its holder may do, whose it is, its times and names; whatever the hint says."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            now = int(time.time())
            text = sign(
                tmp_path, name="Ann", iss="camera-service", aud=["camera-clients", "x"], nbf=now - 5.5, jti="a-jti",
                client_id="app", permissions=["camera:read", "camera:read:camera1"],
            )  # fmt: skip
            for hint in ({}, {"token_type_hint": "refresh_token"}, {"token_type_hint": "?"}):
                told = await introspect(daemon, text, key, **hint)
                assert (told.pop("exp") - told.pop("iat"), told.pop("nbf")) == (600, now - 6)
                assert told == {
                    "active": True, "scope": "camera:read camera:read:camera1 stream:read stream:read:camera1",
                    "client_id": "app", "username": "Ann", "token_type": "Bearer", "sub": "ann",
                    "aud": ["camera-clients", "x"], "iss": "camera-service", "jti": "a-jti",
                }  # fmt: skip
            own = (await admin.call("issue_token", user_id="bob", role="user", signing_key="ES256"))["token"]
            told = await introspect(daemon, own, key)
            assert (told["sub"], told["iss"], told["scope"]) == (
                "bob", "edged", "camera:read camera:write stream:read system:read"
            )  # fmt: skip
            assert await admin.call("introspect_token", token=own) == told


async def test_what_is_known_of_an_api_key(tmp_path: Path) -> None:
    """As of a token; without an end there is none, and the old secret of a rotated one ends with its grace."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key_id, first = await daemon.create_key("operator")
            told = await introspect(daemon, first, first)
            assert abs(told.pop("iat") - time.time()) < 60
            assert told == {
                "active": True, "scope": "camera:read camera:write stream:read system:read", "client_id": key_id,
                "username": "test operator", "token_type": "Bearer", "sub": f"key:{key_id}",
            }  # fmt: skip
            second = (await admin.call("rotate_key", key_id=key_id, grace_seconds=300))["api_key"]
            old = await introspect(daemon, first, second)
            assert abs(old["exp"] - time.time() - 300) < 60
            await admin.call("suspend_key", key_id=key_id)
            _, other = await daemon.create_key("admin")
            assert await introspect(daemon, second, other) == {"active": False}


async def test_what_is_known_of_a_service_token(tmp_path: Path) -> None:
    """Whose it is and what it opens, under /v1/files; its old secret has an end; revoked it is like any other."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            _, viewer = await daemon.create_key("viewer")
            made = await admin.call("create_service_token", name="uploads", networks=["192.0.2.0/24"])
            first, token_id = made["service_token"], made["token_id"]
            told = await introspect(daemon, first, key)
            assert abs(told.pop("iat") - time.time()) < 60
            assert told == {
                "active": True, "scope": "files:delete files:read files:write token:mint", "client_id": token_id,
                "username": "uploads", "token_type": "Bearer", "sub": f"service:{token_id}",
            }  # fmt: skip
            reply = await post(daemon, "/oauth/introspect", {"token": first}, key=viewer)
            assert (reply.status, reply.json["code"]) == (403, "permission_denied")
            rotated = await admin.call("rotate_service_token", token_id=token_id, grace_seconds=300)
            old = await introspect(daemon, first, key)
            assert abs(old["exp"] - time.time() - 300) < 60
            assert (await introspect(daemon, rotated["service_token"], key)) == {**told, "iat": old["iat"]}
            await admin.call("revoke_service_token", token_id=token_id)
            for secret in (first, rotated["service_token"]):
                assert await introspect(daemon, secret, key) == {"active": False}


async def test_of_what_is_not_good_nothing_is_told(tmp_path: Path) -> None:
    """Unknown, expired, revoked, not yet good, garbage, a ticket: one word for all (RFC 7662, 2.2)."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            gone_id, gone = await daemon.create_key("admin")
            await daemon.revoke_key(gone_id)
            revoked = sign(tmp_path)
            await admin.call("revoke_token", token=revoked)
            now, good = int(time.time()), sign(tmp_path)
            ticket = (await admin.call("create_ticket", device="camera0"))["ticket"]
            for text in (
                revoked, gone, ticket, sign(tmp_path, exp=now - 1), sign(tmp_path, nbf=now + 3600),
                sign(tmp_path, exp=None), sign(tmp_path, role=None), good[:-1], good + "A", f" {good}", "a.b.c", "x",
                "camera_service_sk_" + "0" * 64, "é", "\x00", "x" * 9000, "..", f"Bearer {good}",
            ):  # fmt: skip
                assert await introspect(daemon, text, key) == {"active": False}


async def test_who_may_ask_is_who_holds_it_or_may_read_the_audit(tmp_path: Path) -> None:
    """One's own token or key for anybody; another's, and what is none, is 403 alike; no credential is 401."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            _, key = await daemon.create_key("viewer")
            _, other = await daemon.create_key("viewer")
            text, foreign = sign(tmp_path), sign(tmp_path)
            assert (await introspect(daemon, text, text))["active"] is True
            assert (await introspect(daemon, key, key))["active"] is True
            for asker, about in ((key, other), (key, text), (text, foreign), (text, "garbage"), (key, "0" * 64)):
                reply = await post(daemon, "/oauth/introspect", {"token": about}, key=asker)
                assert (reply.status, reply.json["code"]) == (403, "permission_denied")
                assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]
            assert (await post(daemon, "/oauth/introspect", {"token": text})).status == 401
            for path in ("/oauth/introspect", "/oauth/revoke"):
                bad = await post(daemon, path, {"token": text}, key=sign(tmp_path, exp=1))
                assert (bad.status, bad.headers["www-authenticate"]) == (
                    401,
                    'Bearer realm="edged", error="invalid_token"',
                )
            assert (await introspect(daemon, text, text))["active"] is True


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
async def test_a_form_without_one_token_is_an_invalid_request(tmp_path: Path, path: str) -> None:
    """RFC 7009, 2.2.1: 400 in the words of OAuth and in edged's; another kind of body, too."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            _, key = await daemon.create_key("admin")
            for body, kind in (
                ("", FORM), ("token=", FORM), ("token", FORM), ("token=a&token=b", FORM), ("token=%ff", FORM),
                ("tokens=a", FORM), ("&".join(["a=b"] * 17) + "&token=x", FORM), ("tökén=a", FORM),
                ('{"token": "a"}', "application/json"), ("token=a", "text/plain"), ("token=a", ""),
            ):  # fmt: skip
                reply = await post(daemon, path, body, key=key, kind=kind)
                assert (body, reply.status, reply.json["error"]) == (body, 400, "invalid_request")
                assert reply.json["error_description"] == reply.json["detail"]
                assert reply.json["code"] == "invalid_params"


async def test_a_token_is_ended_by_who_holds_it(tmp_path: Path) -> None:
    """RFC 7009: 200, and it is refused; its sessions are closed; the same once more, for a client that asks again."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            text = sign(tmp_path)
            await client.call("authenticate", auth_token=text)
            reply = await post(daemon, "/oauth/revoke", {"token": text, "token_type_hint": "access_token"}, key=text)
            assert (reply.status, reply.json, reply.headers["cache-control"]) == (200, {}, "no-store")
            assert await ended(client) == 4401
            assert (await daemon.request("GET", "/api/sessions", headers=bearer(text))).json["code"] == "revoked"
            for key in (text, ""):
                assert (await post(daemon, "/oauth/revoke", {"token": text}, key=key)).status == 200
            async with daemon.local() as admin:
                listed = (await admin.call("list_revocations"))["revocations"]
            assert len(listed) == 2, "by its jti and its hash, once"


async def test_a_token_stands_for_itself(tmp_path: Path) -> None:
    """RFC 7009, 2.1: no other credential is needed, over HTTP and over RPC; what came of it ends with it, also when it
    has just ended itself; one that ended long ago takes nothing with it."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            now = int(time.time())
            first, second, late = sign(tmp_path), sign(tmp_path), sign(tmp_path, exp=now - 100)
            long_ago = sign(tmp_path, exp=now - 400)
            assert (await post(daemon, "/oauth/revoke", {"token": first})).status == 200
            assert (await client.ask("revoke_token", token=second))["result"] == {"revoked": True}
            made = (await client.call("refresh_token", token=late))["token"]
            assert (await post(daemon, "/oauth/revoke", {"token": late}, key=late)).status == 200
            assert (await post(daemon, "/oauth/revoke", {"token": long_ago}, key=long_ago)).status == 200
            for text in (first, second, made):
                answer = await client.ask("authenticate", auth_token=text)
                assert answer["error"]["data"]["reason"] == "revoked"
            async with daemon.local() as admin:
                listed = (await admin.call("list_revocations"))["revocations"]
            known = hashlib.sha256(long_ago.encode()).hexdigest()
            assert known not in {item.get("token_hash") for item in listed}


async def test_what_is_no_token_of_anybody_ends_nothing(tmp_path: Path) -> None:
    """RFC 7009, 2.2: 200 for whoever asks, with a credential and without; also for an administrator it takes nothing
    with it that it names."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client, daemon.local() as admin:
            _, key = await daemon.create_key("viewer")
            _, root = await daemon.create_key("admin")
            good = sign(tmp_path, jti="the good one")
            forged = tokens.sign(
                tokens.peek_claims(good), tokens.SharedSecret("x", "another secret of 32 bytes, or more")
            )
            for garbage in ("x", "a.b.c", "é", "x" * 9000, "camera_service_sk_" + "0" * 64, "\x00", forged):
                shown = (garbage,) if garbage.isprintable() and garbage.isascii() and len(garbage) < 8000 else ()
                for bearer_ in ("", key, root, *shown):
                    reply = await post(daemon, "/oauth/revoke", {"token": garbage}, key=bearer_)
                    assert (reply.status, reply.json) == (200, {}), garbage
                if garbage.isprintable():
                    answer = await client.ask("revoke_token", token=garbage)
                    assert answer["result"] == {"revoked": False}
            assert (await client.call("authenticate", auth_token=good))["authenticated"]
            assert await client.call("revoke_token", token=forged) == {"revoked": False}
            assert await admin.call("revoke_token", token=forged) == {"revoked": False}
            # What is shown besides must be good, whatever the form holds.
            for bad in ("bad", forged, sign(tmp_path, exp=1), "camera_service_sk_" + "0" * 64):
                assert (await post(daemon, "/oauth/revoke", {"token": good}, key=bad)).status == 401
            assert (await client.call("whoami"))["user_id"] == "ann"
            assert (await admin.call("list_revocations"))["revocations"] == []


async def test_what_others_hold_is_ended_by_who_may(tmp_path: Path) -> None:
    """A token by whoever shows it; keys:admin for API keys, one's own too, and for service tokens (contract 10.1)."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, viewer = await daemon.create_key("viewer")
            _, revoker = await daemon.create_key("admin", permissions=["tokens:revoke"])
            _, keeper = await daemon.create_key("admin")
            text, other = sign(tmp_path), sign(tmp_path)
            service = (await admin.call("create_service_token", name="s"))["service_token"]
            for asker, about in (
                (viewer, viewer),
                (viewer, keeper),
                (revoker, revoker),
                (viewer, service),
                ("", viewer),
                ("", service),
            ):
                reply = await post(daemon, "/oauth/revoke", {"token": about}, key=asker)
                assert (reply.status, reply.json["code"]) == (403, "permission_denied")
            for asker, about in ((viewer, other), (revoker, text), (keeper, viewer), (keeper, service)):
                assert (await post(daemon, "/oauth/revoke", {"token": about}, key=asker)).status == 200
            # A key that may end keys ends itself; asked again it is gone, and that is what was asked for.
            for _ in range(2):
                assert (await post(daemon, "/oauth/revoke", {"token": keeper}, key=keeper)).status == 200
            for gone in (text, other):
                assert (await admin.call("validate_token", token=gone))["errors"] == ["Token is blacklisted"]
            for gone in (viewer, keeper):
                reply = await daemon.request("GET", "/api/sessions", key=gone)
                assert (reply.status, reply.json["code"]) == (401, "revoked")
            listed = (await admin.call("list_service_tokens"))["service_tokens"]
            assert [item["status"] for item in listed] == ["revoked"]
            # By name somebody's for whoever may, also in the one call that says who asks; for a stranger nobody's.
            async with daemon.websocket() as client:
                named = {"jti": tokens.peek_claims(sign(tmp_path))["jti"]}
                assert (await client.ask("revoke_token", **named))["error"]["data"]["reason"] == "auth_required"
                answer = await client.ask("revoke_token", auth_token=viewer, **named)
                assert answer["error"]["data"]["reason"] == "revoked"
                assert await client.call("revoke_token", auth_token=revoker, **named) == {"revoked": True}


async def test_a_token_is_validated_in_the_seeds_words(tmp_path: Path) -> None:
    """S0-9, S0-10, S0-25 to S0-27: errors make it invalid, warnings do not."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            now = int(time.time())

            async def validate(text: str, **params: object) -> tuple[bool, list[str], list[str]]:
                found = await admin.call("validate_token", token=text, **params)
                assert found.keys() == {"valid", "errors", "warnings", "payload"}
                assert found["payload"] is None or found["payload"]["exp"] > now
                return found["valid"], found["errors"], found["warnings"]

            suspicious = "Suspicious token patterns detected"
            assert await validate(sign(tmp_path)) == (True, [], [])
            assert await validate(sign(tmp_path, exp=now - 5)) == (False, ["Token has expired"], [])
            assert await validate(sign(tmp_path, iat=now + 900)) == (False, ["Token issued in the future"], [])
            assert await validate(sign(tmp_path, exp=None)) == (False, ["Missing required claim: exp"], [])
            assert (await validate("x.y.z"))[1][0].startswith("Invalid token: ")
            assert await validate(sign(tmp_path, iat=None)) == (False, ["Missing required claim: iat"], [])
            assert await validate(sign(tmp_path, sub=None)) == (True, [], ["Missing required claim: sub"])
            assert await validate(sign(tmp_path, iat=now - 31 * DAY)) == (True, [], ["Token is very old"])
            assert await validate(sign(tmp_path, jti=None)) == (True, [], [suspicious])
            assert await validate(sign(tmp_path, role="viewer", roles=["root"])) == (True, [], [suspicious])
            many = sign(tmp_path, permissions=["camera:read"] * 11)
            assert await validate(many) == (True, [], [suspicious])


async def test_a_role_is_required_by_its_name_or_its_alias(tmp_path: Path) -> None:
    """Contract 7.4: user is operator, and admin is not; roles in a list count as one; permissions must all be there."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:

            async def errors(text: str, **params: object) -> list[str]:
                return list((await admin.call("validate_token", token=text, **params))["errors"])

            operator = sign(tmp_path, role="operator")
            for held in (operator, sign(tmp_path, role="user"), sign(tmp_path, role=None, roles=["x", "user"])):
                assert await errors(held, required_role="user") == []
                assert await errors(held, required_role="operator") == []
                assert await errors(held, required_role="viewer") == ["Required role 'viewer' not found"]
            assert await errors(sign(tmp_path, role="admin"), required_role="operator") == [
                "Required role 'operator' not found"
            ]
            some = sign(tmp_path, permissions=["camera:read", "read:posts"])
            assert await errors(some, required_permissions=["read:posts"]) == []
            assert await errors(some, required_permissions=["read:posts", "camera:write", "x"]) == [
                "Missing permissions: ['camera:write', 'x']"
            ]


async def test_uses_of_tokens_are_counted_by_hash_and_odd_ones_told(tmp_path: Path) -> None:
    """S0-28: for whoever may read the audit; the metrics hold no hash, but how many tokens were odd."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            often, once = sign(tmp_path), sign(tmp_path, jti=None)
            for text in (often, often, often, once):
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=text)
            await admin.call("validate_token", token=often)
            hashes = [hashlib.sha256(text.encode()).hexdigest() for text in (often, once)]
            assert await admin.call("get_token_usage") == dict(zip(hashes, (3, 1), strict=True))
            assert await admin.call("get_token_usage", limit=1) == {hashes[0]: 3}
            _, monitor = await daemon.create_key("monitor")
            shown = (await daemon.request("GET", "/metrics", key=monitor)).body.decode()
            assert 'edged_token_warnings_total{kind="suspicious"} 1.0' in shown
            assert hashes[0] not in shown
