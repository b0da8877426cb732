"""Users on the running daemon: what they open with their password and their keys, and how it ends."""

from __future__ import annotations

import base64
import http.client
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import planted
import pytest
import trio
from daemon_helpers import Conversation, Reply, RunningDaemon, ended, free_port, make_config, port_of, running_daemon
from joserfc import jwt
from joserfc.jwk import KeySet
from media_helpers import SDP
from patience import fail_after, times
from rtsp_client import RtspReader, RtspRefused
from test_signing_keys_over_the_wire import elsewhere
from trust_helpers import rows

from edged.config.model import Config
from edged.credentials.tokens import peek_claims

PASSWORD = planted.plant("correct horse battery", "the users' password")
OTHER = planted.plant("incorrect donkey fuse", "the users' next password")


def with_tokens(folder: Path, **options: Any) -> Config:
    """Settings with a free port for the example's token server."""
    config = make_config(folder, **options)
    listen = msgspec.structs.replace(config.listen, tokens=(f"127.0.0.1:{free_port()}",))
    return msgspec.structs.replace(config, listen=listen)


async def add(daemon: RunningDaemon, name: str = "ann", role: str = "operator", **params: object) -> None:
    async with daemon.local() as admin:
        await admin.call("create_user", name=name, role=role, password=PASSWORD, **params)


async def log_in(daemon: RunningDaemon, name: str = "ann", password: str = PASSWORD) -> str:
    """A token by name and password, asked by somebody who has none."""
    async with daemon.websocket() as client:
        return str((await client.call("login", username=name, password=password))["token"])


async def reason(client: Conversation, method: str, **params: object) -> str:
    reply = await client.ask(method, **params)
    return str(reply["error"]["data"]["reason"]) if "error" in reply else "ok"


def claims_of(token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")))


async def form(daemon: RunningDaemon, body: str, path: str = "/api/token") -> Reply:
    """POST of a form, as `curl -d` sends it."""
    return await raw(daemon, "POST", path, body.encode(), kind="application/x-www-form-urlencoded")


async def raw(
    daemon: RunningDaemon, method: str, path: str, body: bytes, key: str = "", kind: str = "application/json"
) -> Reply:  # fmt: skip
    """A request with exactly this body."""

    def exchange() -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        connection.request(
            method, path, body, {"Content-Type": kind, "X-API-Key": key} if key else {"Content-Type": kind}
        )
        with connection.getresponse() as response:
            reply = Reply(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return reply

    return await trio.to_thread.run_sync(exchange, abandon_on_cancel=True)


# --- logging in --------------------------------------------------------------


async def test_a_login_opens_what_the_user_may_do(tmp_path: Path) -> None:
    """In the words of the clients' example (contract S2-11); signed by the shared secret; bound to the user."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            await add(daemon, camera_access=["camera0"])
            async with daemon.websocket() as client:
                made = await client.call("login", username="ann", password=PASSWORD)
                assert (made["status"], made["expires_in"], made["token_type"]) == ("success", 3600, "Bearer")
                assert made["user"] == {"username": "ann", "roles": ["operator"]}
                claims = claims_of(made["token"])
                assert claims["sub"] == "user_ann"
                assert claims["roles"] == ["operator"]
                assert {"username", "permissions", "iat", "exp", "jti", "iss", "epoch"} <= claims.keys()
                assert claims["exp"] - claims["iat"] == 3600
                # The session that asks is who it was.
                assert await reason(client, "whoami") == "auth_required"
                answer = await client.call("authenticate", auth_token=made["token"])
                assert (answer["role"], answer["user_id"]) == ("operator", "ann")
                assert [row["device"] for row in (await client.call("get_camera_list"))["cameras"]] == ["camera0"]
                assert await reason(client, "list_users") == "permission_denied"


async def test_a_login_says_the_streams_that_the_user_was_given(tmp_path: Path) -> None:
    """As the claims that MediaMTX and people read."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await add(daemon, streams={"read": ["a"], "publish": []}, permissions=["camera:read"])
            claims = claims_of(await log_in(daemon))
            assert claims["mediamtx_permissions"] == [{"action": "read", "path": "a"}]
            assert (claims["stream_access"], claims["permissions"]) == ({"read": ["a"], "publish": []}, ["camera:read"])


async def test_what_a_password_costs_is_set_and_stored_hashes_follow(tmp_path: Path) -> None:
    """`auth.password_cost`: of a user who was there before it was raised, as soon as they log in."""

    def cost() -> set[str]:
        return {
            str(row[0]).split("$")[3] for row in rows(tmp_path / "state" / "trust.db", "SELECT password FROM users")
        }

    config = make_config(tmp_path, cameras=0)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config, costly_passwords=True) as daemon:
            await add(daemon)
        (before,) = cost()
        auth = msgspec.structs.replace(config.auth, password_cost=10)
        raised = msgspec.structs.replace(config, auth=auth)
        async with running_daemon(tmp_path, config=raised, costly_passwords=True) as daemon:
            await log_in(daemon)
            await add(daemon, "bob")
        assert cost() == {"m=19456,t=10,p=1"}
        # Lowered again, it lowers nothing.
        async with running_daemon(tmp_path, config=config, costly_passwords=True) as daemon:
            await log_in(daemon)
        assert cost() == {"m=19456,t=10,p=1"}
        assert before.startswith("m=19456,t=")


async def test_a_name_that_is_taken_costs_no_hash(tmp_path: Path) -> None:
    """Told at once, by every endpoint in its words."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            await add(daemon)
            assert await reason(admin, "create_user", name="ann", role="viewer", password=PASSWORD) == "invalid_state"
            assert await reason(admin, "update_user", name="ann", streams={"read": ["a b"]}) == "invalid_params"


async def test_no_token_is_issued_that_its_user_could_not_use(tmp_path: Path) -> None:
    """Whoever is disabled or deleted gets none; whoever is no user does, and is nobody's until they are made one."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            for name in ("off", "gone", "ann"):
                await add(daemon, name)
            await admin.call("update_user", name="off", disabled=True)
            await admin.call("delete_user", name="gone")
            told = [await reason(admin, "issue_token", user_id=name) for name in ("off", "gone", "ann", "kiosk")]
            assert told == ["invalid_state", "invalid_state", "ok", "ok"]


async def test_a_password_that_is_set_twice_at_once_is_set_once(tmp_path: Path) -> None:
    """Of two administrators who set one at the same time the later one hears of the other."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, trio.open_nursery() as nursery:
            await add(daemon)
            outcomes: list[str] = []

            async def change(password: str) -> None:
                async with daemon.local() as admin:
                    outcomes.append(await reason(admin, "set_password", name="ann", password=password))

            for password in (OTHER, OTHER + " two"):
                nursery.start_soon(change, password)
            while len(outcomes) < 2:
                await trio.sleep(0.01)
            assert sorted(outcomes) in (["invalid_state", "ok"], ["ok", "ok"])


async def test_without_a_shared_secret_a_login_is_signed_for_the_world(tmp_path: Path) -> None:
    """RS256 by the current key pair, which the JWKS verifies."""
    config = make_config(tmp_path, cameras=0)
    config = msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, shared_secrets={}))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            await add(daemon, role="admin")
            token = await log_in(daemon)
            keys = KeySet.import_key_set((await daemon.request("GET", "/jwks-path")).json)
            assert jwt.decode(token, keys, algorithms=["RS256"]).claims["username"] == "ann"
            listed = await daemon.request("GET", "/api/users", headers={"Authorization": f"Bearer {token}"})
            assert [user["name"] for user in listed.json["users"]] == ["ann"]


async def test_wrong_and_unknown_are_told_alike(tmp_path: Path) -> None:
    """The same words for a wrong password, no such user, a disabled one, and one without a password."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            for name in ("ann", "off"):
                await add(daemon, name)
            async with daemon.local() as admin:
                await admin.call("update_user", name="off", disabled=True)
                await admin.call("create_user", name="mute", role="viewer")
            bodies, errors = set(), []
            async with daemon.websocket() as client:
                for name, password in (("ann", OTHER), ("nobody", PASSWORD), ("off", PASSWORD), ("mute", "")):
                    wrong = {"username": name, "password": password}
                    reply = await daemon.request("POST", "/api/token", body=wrong)
                    assert reply.status == 401
                    bodies.add(reply.body)
                    errors.append((await client.ask("login", **wrong))["error"])
            assert len(bodies) == 1
            assert json.loads(bodies.pop())["error"] == "Invalid credentials"
            assert all(error == errors[0] for error in errors)
            shown = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
            for why in ("unknown_key", "suspended"):
                line = f'edged_auth_failures_total{{method="password",reason="{why}",transport="http"}}'
                assert f"{line} 0.0" not in shown
                assert line in shown


async def test_who_guesses_has_to_wait_and_hears_how_long(tmp_path: Path) -> None:
    """Ten different wrong passwords: 429 with Retry-After, for the right one too; then it gets in."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await add(daemon)
            for number in range(10):
                wrong = {"username": "ann", "password": f"guess number {number}"}
                assert (await daemon.request("POST", "/api/token", body=wrong)).status == 401
            right = {"username": "ann", "password": PASSWORD}
            reply = await daemon.request("POST", "/api/token", body=right)
            assert (reply.status, reply.json["code"]) == (429, "rate_limited")
            await trio.sleep(int(reply.headers["retry-after"]))
            assert (await daemon.request("POST", "/api/token", body=right)).status == 200


async def test_the_examples_token_server_is_there(tmp_path: Path) -> None:
    """POST /api/token as JSON and as a form, on the loopback endpoint too; RS256, or ES256 where a URL is short."""
    with fail_after(60):
        async with running_daemon(tmp_path, config=(config := with_tokens(tmp_path))) as daemon:
            await add(daemon, role="viewer", camera_access=["camera1", "/dev/video9"])
            await add(daemon, "cam", role="viewer", streams={"read": ["a", "b"], "publish": ["c"]})
            right = {"username": "ann", "password": PASSWORD}
            reply = await daemon.request("POST", "/api/token", body=right, port=port_of(config.listen.tokens))
            assert (reply.status, reply.json["expires_in"], reply.json["token_type"]) == (200, 3600, "Bearer")
            assert reply.json["permissions"] == {"read": ["camera1"], "publish": []}
            assert reply.headers["cache-control"] == "no-store"
            keys = KeySet.import_key_set((await daemon.request("GET", "/jwks-path")).json)
            read = jwt.decode(reply.json["token"], keys, algorithms=["RS256"])
            assert read.header["kid"] == "key-1"
            assert read.claims["sub"] == read.claims["user_id"] == "ann"
            assert read.claims["mediamtx_permissions"] == [{"action": "read", "path": "camera1"}]
            assert not {"role", "roles", "permissions", "aud"} & read.claims.keys()
            # It has no role: it opens nothing but streams.
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=reply.json["token"])
                assert await reason(client, "get_camera_list") == "permission_denied"
            posted = await form(daemon, f"username=cam&password={PASSWORD.replace(' ', '+')}&grant_type=password",
                                "/api/token?alg=ES256")  # fmt: skip
            assert json.loads(posted.body)["permissions"] == {"read": ["a", "b"], "publish": ["c"]}
            short = json.loads(posted.body)["token"]
            assert jwt.decode(short, keys, algorithms=["ES256"]).header["kid"] == "key-2"


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"username": "ann"}, 400), ({"password": "x"}, 400), ({"username": 1, "password": "x"}, 400),
     ([], 400), ({"username": "x" * 5000, "password": "x"}, 400)],
)  # fmt: skip
async def test_what_is_no_login_is_told_so(tmp_path: Path, body: object, status: int) -> None:
    """400 for a member that is missing or wrong; nothing is hashed for it."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            assert (await daemon.request("POST", "/api/token", body=body)).status == status
            for path in ("/api/token?alg=HS256", "/api/token?alg=none"):
                right = {"username": "ann", "password": PASSWORD}
                assert (await daemon.request("POST", path, body=right)).status == 400
            for text in ("username=ann", "%ff=%ff&username=%ff&password=x", "&".join(["a=b"] * 40), "ü"):
                assert (await form(daemon, text)).status == 400
            plain = await daemon.request("POST", "/api/token", body="x", headers={"Content-Type": "text/plain"})
            assert plain.status == 415
            broken = await daemon.request("POST", "/api/users/ann/password", body=1)
            assert broken.status == 405


# --- the surface -------------------------------------------------------------


async def test_whoever_claims_a_box_administers_it_with_nothing_but_a_password(tmp_path: Path) -> None:
    """From the code of a new box to a key for the front trust, over the network: no shell, no other credential."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon:
            code = (daemon.config.paths.runtime / "claim").read_text().strip()
            body = {"code": code, "username": "root", "password": PASSWORD}
            assert (await daemon.request("POST", "/api/claim", body=body)).status == 201
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=await log_in(daemon, "root"))
                await client.call("create_user", name="ann", role="operator", password=OTHER)
                trust = await client.call("create_key", name="front trust", role="viewer", owner="ann")
                assert (await client.call("list_signing_keys"))["keys"]
                # There is no second claim, and nobody else to administer.
                assert await reason(client, "delete_user", name="root") == "invalid_state"
            assert (await daemon.request("POST", "/api/claim", body=body)).status == 401
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=trust["api_key"])
                assert (await client.call("get_camera_list"))["total"] == 1


async def test_users_are_administered_over_http(tmp_path: Path) -> None:
    """Made, listed, shown, changed, re-passworded and deleted, by whoever holds users:admin."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            _, key = await daemon.create_key("admin")
            ask = partial(daemon.request, key=key)
            made = await ask("POST", "/api/users", body={"name": "a@b.c", "role": "user", "password": PASSWORD})
            assert (made.status, made.json["role"], made.json["has_password"]) == (201, "operator", True)
            assert PASSWORD.encode() not in made.body
            assert b"argon2" not in made.body
            assert [user["name"] for user in (await ask("GET", "/api/users")).json["users"]] == ["a@b.c"]
            assert (await ask("GET", "/api/users/a@b.c")).json == made.json
            assert (await ask("PATCH", "/api/users/a%40b.c", body={"name": "other"})).status == 400
            changed = await ask("PATCH", "/api/users/a%40b.c", body={"display_name": "Abc"})
            assert (changed.json["name"], changed.json["display_name"]) == ("a@b.c", "Abc")
            put = await ask("PUT", "/api/users/a@b.c/password", body={"password": OTHER})
            assert (put.status, put.json) == (200, {"message": "password set", "name": "a@b.c"})
            assert await log_in(daemon, "a@b.c", OTHER)
            gone = await ask("DELETE", "/api/users/a@b.c")
            assert (gone.status, gone.json) == (200, {"message": "user deleted", "name": "a@b.c"})
            assert (await ask("GET", "/api/users/a@b.c")).status == 404
            for method, path, body, status in (
                ("POST", "/api/users", {"name": "../x", "role": "viewer"}, 400),
                ("POST", "/api/users", {"name": "x", "role": "root"}, 400),
                ("POST", "/api/users", {"name": "x", "role": "viewer", "password": "short"}, 400),
                ("PATCH", "/api/users/nobody", {"role": "viewer"}, 404),
                ("PATCH", "/api/users/nobody", {}, 400),
                ("PATCH", "/api/users/nobody", [1], 400),
                ("PUT", "/api/users/nobody/password", {"password": PASSWORD}, 404),
                ("DELETE", "/api/users/nobody", None, 404),
            ):
                assert (await ask(method, path, body=body)).status == status, (method, path, body)
            for method, path in (("POST", "/api/users"), ("PATCH", "/api/users/x"), ("PUT", "/api/users/x/password")):
                text = await ask(method, path, body="x", headers={"Content-Type": "text/plain"})
                assert text.status == 415
            assert (await daemon.request("GET", "/api/users")).status == 401

            for method, path in (("PATCH", "/api/users/x"), ("POST", "/api/token")):
                broken = await raw(daemon, method, path, b"{", key)
                assert broken.status == 400


async def test_a_user_sees_and_changes_what_is_their_own(tmp_path: Path) -> None:
    """Their own row, and their password by the old one; nobody else's; then their session ends, after its answer."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            for name in ("ann", "bob"):
                await add(daemon, name)
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=await log_in(daemon))
                assert (await client.call("get_user", name="ann"))["name"] == "ann"
                assert await reason(client, "get_user", name="bob") == "permission_denied"
                assert await reason(client, "get_user", name="nobody") == "permission_denied"
                for wrong in ({"password": OTHER}, {"password": OTHER, "name": "bob", "old_password": PASSWORD}):
                    assert await reason(client, "set_password", **wrong) == "permission_denied"
                for wrong in (
                    {"password": OTHER, "old_password": OTHER}, {"password": "ann", "old_password": PASSWORD},
                    {"password": "short", "old_password": PASSWORD},
                ):  # fmt: skip
                    assert await reason(client, "set_password", **wrong) == "invalid_params"
                done = await client.call("set_password", password=OTHER, old_password=PASSWORD)
                assert done == {"message": "password set", "name": "ann"}
                assert await ended(client) == 4401
            assert await log_in(daemon, password=OTHER)
            async with daemon.websocket() as client:
                assert await reason(client, "login", username="ann", password=PASSWORD) == "auth_failed"
            _, key = await daemon.create_key("admin")
            body = {"password": PASSWORD}
            nobody = await daemon.request("PUT", "/api/users/ann/password", key=key, body=body)
            assert nobody.status == 200
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                assert await reason(client, "set_password", password=OTHER) == "invalid_params"


async def test_nobody_hands_on_more_than_they_may_themselves(tmp_path: Path) -> None:
    """Nor takes over somebody who may: making, widening, enabling, and another password."""
    rights = ["users:admin", "camera:read"]
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await add(daemon, "root", "admin")
            await add(daemon, "low", "viewer")
            await add(daemon, "off", "admin")
            _, key = await daemon.create_key("admin", permissions=rights)
            async with daemon.local() as admin:
                await admin.call("update_user", name="off", disabled=True)
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                refused = [
                    await reason(client, "create_user", name="new", role="admin"),
                    await reason(client, "update_user", name="low", role="admin"),
                    await reason(client, "update_user", name="low", role="operator"),
                    await reason(client, "update_user", name="off", disabled=False),
                    await reason(client, "set_password", name="root", password=OTHER),
                ]
                assert refused == ["permission_denied"] * 5
                narrowed = await client.call("update_user", name="off", permissions=["camera:read"])
                assert narrowed["permissions"] == ["camera:read"]
                assert (await client.call("update_user", name="off", disabled=False))["disabled"] is False
                await client.call("create_user", name="new", role="viewer", permissions=["camera:read"])
                await client.call("set_password", name="new", password=OTHER)
                # Root is the last who can administer users.
                for change in ({"role": "viewer"}, {"disabled": True}):
                    assert await reason(client, "update_user", name="root", **change) == "invalid_state"
                assert await reason(client, "delete_user", name="root") == "invalid_state"


async def test_a_key_is_whose_login_or_key_made_it(tmp_path: Path) -> None:
    """Unless they say otherwise; and it is narrowed and suspended with them."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            await add(daemon, "root", "admin")
            await add(daemon, "ann", "admin")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=await log_in(daemon))
                first = await client.call("create_key", name="first", role="admin")
                free = await client.call("create_key", name="free", role="viewer", owner=None)
                roots = await client.call("create_key", name="root's", role="viewer", owner="root")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=first["api_key"])
                second = await client.call("create_key", name="second", role="viewer")
                turned = await client.call("rotate_key", key_id=first["key_id"], grace_seconds=0)
            owners = [made.get("owner") for made in (first, free, roots, second)]
            assert owners == ["ann", None, "root", "ann"]
            async with daemon.local() as admin:
                await admin.call("update_user", name="ann", role="viewer")
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=turned["api_key"])
                    assert await reason(client, "list_keys") == "permission_denied"
                    assert (await client.call("get_camera_list"))["total"] == 2
                    await client.call("rotate_key", key_id=first["key_id"])
                await admin.call("update_user", name="ann", disabled=True)
                listed = (await admin.call("list_keys", owner="ann"))["keys"]
                assert {item["status"] for item in listed} == {"suspended"}
                assert len((await admin.call("list_keys", status="suspended"))["keys"]) == 2
                # To take a key from its owner is to give it more.
                given = await admin.call("update_key", key_id=second["key_id"], owner=None)
                assert (given["owner"], given["status"]) == (None, "active")
                taken = await admin.call("update_key", key_id=free["key_id"], owner="ann")
                assert taken["status"] == "suspended"
            _, auditor = await daemon.create_key("admin")
            for owner, names in (("root", ["root's"]), ("ann", ["first", "free"]), ("nobody", [])):
                listed = (await daemon.request("GET", f"/api/keys?owner={owner}", key=auditor)).json["keys"]
                assert [item["name"] for item in listed] == names
            for made, status in ((second, 200), (free, 401), (roots, 200)):
                got = await daemon.request("GET", f"/api/keys/{made['key_id']}", key=made["api_key"])
                assert got.status == status


# --- how it ends -------------------------------------------------------------

#: How → the call; whether the user's key goes on afterwards; whether it may still see pictures.
ENDS: dict[str, tuple[str, dict[str, object], bool, bool]] = {
    "disable": ("update_user", {"disabled": True}, False, False),
    "delete": ("delete_user", {}, False, False),
    "password": ("set_password", {"password": OTHER}, True, True),
    "demote": ("update_user", {"role": "monitor"}, True, False),
}


@pytest.mark.ffmpeg
@pytest.mark.parametrize("how", ENDS)
async def test_what_a_user_opened_ends_with_their_rights(tmp_path: Path, how: str) -> None:
    """A WebSocket and a picture by their login, and by their key: out, and refused on the very next call."""
    method, params, key_lives, key_sees = ENDS[how]
    with fail_after(90):
        async with running_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
            await add(daemon)
            token = await log_in(daemon)
            key_id, key = await daemon.create_key("operator", owner="ann")
            by_token, by_key = Picture(daemon, token), Picture(daemon, key)
            for picture in (by_token, by_key):
                nursery.start_soon(picture.watch)
                await picture.seen.wait()
            async with daemon.websocket() as mine, daemon.websocket() as keys, daemon.local() as admin:
                await mine.call("authenticate", auth_token=token)
                await keys.call("authenticate", auth_token=key)
                await admin.call(method, name="ann", **params)
                why = "auth_failed" if how == "disable" else "revoked"
                async with daemon.websocket() as again:
                    assert await reason(again, "authenticate", auth_token=token) == why
                    assert await reason(again, "authenticate", auth_token=key) == ("ok" if key_lives else "auth_failed")
                assert await ended(mine) == 4401
                await by_token.over.wait()
                if key_lives:
                    assert await reason(keys, "whoami") == "ok"
                    assert await reason(keys, "get_camera_list") == ("ok" if key_sees else "permission_denied")
                else:
                    assert await ended(keys) == 4401
                if not key_sees:
                    await by_key.over.wait()
            live = "/api/cameras/camera0/live.mjpeg"
            shown = {"Authorization": f"Bearer {token}"}
            assert (await daemon.request("GET", live, headers=shown)).status == 401
            if not key_sees:
                assert not by_key.is_open
                assert (await daemon.request("GET", live, key=key)).status == (403 if key_lives else 401)
            else:
                assert by_key.is_open
                await daemon.revoke_key(key_id)


class Picture:
    """Somebody who watches camera0 by edged itself."""

    def __init__(self, daemon: RunningDaemon, credential: str) -> None:
        self._services, self._credential = daemon, credential
        self.seen, self.over = trio.Event(), trio.Event()

    @property
    def is_open(self) -> bool:
        return not self.over.is_set()

    async def watch(self) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", self._services.port)
        head = (
            "GET /api/cameras/camera0/live.mjpeg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: Bearer {self._credential}\r\n\r\n"
        )
        async with stream:
            await stream.send_all(head.encode())
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some(65536):
                    if b"\xff\xd8" in data:
                        self.seen.set()
        self.over.set()


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
@pytest.mark.parametrize("how", ENDS)
async def test_a_viewer_at_mediamtx_is_out_with_the_user(tmp_path: Path, how: str) -> None:
    """Over RTSP by their login's token and by their key; and the next one is refused."""
    method, params, _, key_sees = ENDS[how]
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            await add(daemon)
            token = await log_in(daemon)
            _, key = await daemon.create_key("operator", owner="ann")
            by_token, by_key = (RtspReader(daemon.rtsp, "camera0", "ann", text) for text in (token, key))
            for viewer in (by_token, by_key):
                await viewer.play()
                await viewer.wait_packet()
            async with daemon.local() as admin:
                await admin.call(method, name="ann", **params)
            await by_token.wait_end()
            if key_sees:
                await by_key.wait_packet()
            else:
                await by_key.wait_end()
            for text in (token, PASSWORD, *(() if key_sees else (key,))):
                late = RtspReader(daemon.rtsp, "camera0", "ann", text)
                with pytest.raises(RtspRefused) as refused:
                    await late.play()
                assert refused.value.status == 401
                await late.aclose()
            for viewer in (by_token, by_key):
                await viewer.aclose()


async def test_a_wrong_password_is_told_what_to_do_about_a_password(tmp_path: Path) -> None:
    """The same for a user who is not there; no word of a JWT or an API key, which `login` does not take."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            await admin.call("create_user", name="ann", role="viewer", password=PASSWORD)
            told = [
                (await client.ask("login", username=name, password="no"))["error"]["data"] for name in ("ann", "bob")
            ]
            assert told[0] == told[1]
            assert told[0]["reason"] == "auth_failed"
            assert "user name and this password" in told[0]["hint"]
            assert not [word for word in ("JWT", "API key") if word in told[0]["hint"]]


async def test_what_came_of_a_login_by_refreshing_ends_with_it(tmp_path: Path) -> None:
    """The session goes on by the new token, which is as much the user's as the one before."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await add(daemon, "root", "admin")
            await add(daemon)
            async with daemon.websocket() as client, daemon.local() as admin:
                await client.call("authenticate", auth_token=await log_in(daemon))
                fresh = (await client.call("refresh_token"))["token"]
                assert claims_of(fresh)["username"] == "ann"
                assert (await client.call("whoami"))["user_id"] == "ann"
                await admin.call("update_user", name="ann", role="admin")
                assert await reason(client, "whoami") == "ok"
                assert await reason(client, "list_users") == "permission_denied"
                await admin.call("update_user", name="ann", role="viewer")
                assert await ended(client) == 4401
            async with daemon.websocket() as client:
                for method in ("authenticate", "refresh_token"):
                    assert await reason(client, method, auth_token=fresh) == "revoked"


@pytest.mark.mediamtx
async def test_a_users_password_opens_nothing_at_mediamtx(tmp_path: Path) -> None:
    """Neither to read nor to publish: everything else of MediaMTX would wait for a hash (contract 10.6)."""
    with fail_after(60):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            await add(daemon, role="admin")
            for name, password in (("ann", PASSWORD), ("", PASSWORD)):
                viewer = RtspReader(daemon.rtsp, "camera0", name, password)
                with pytest.raises(RtspRefused):
                    await viewer.play()
                headers = {"Content-Type": "application/sdp", "Content-Length": str(len(SDP))}
                with pytest.raises((RtspRefused, ConnectionResetError)):
                    await viewer.request("ANNOUNCE", viewer.url, headers)
                await viewer.aclose()


@pytest.mark.mediamtx
async def test_a_mediamtx_elsewhere_admits_what_the_user_was_given(tmp_path: Path) -> None:
    """By a token for their password and our JWKS: exactly their streams, read and published (contract S4-9, S4-10)."""
    with fail_after(90):
        async with running_daemon(tmp_path, config=(config := with_tokens(tmp_path, cameras=0))) as daemon:
            await add(daemon, "guest", "viewer", streams={"read": ["camera_one"], "publish": ["camera_two"]})
            async with elsewhere(tmp_path, port_of(config.listen.tokens)) as server:
                for alg in ("RS256", "ES256"):
                    asked = {"username": "guest", "password": PASSWORD}
                    made = await daemon.request("POST", f"/api/token?alg={alg}", body=asked)
                    paths = ("camera_one", "camera_one2", "camera_two")
                    questions = [(action, path) for action in ("read", "publish") for path in paths]
                    answers = await server.ask_all(made.json["token"], questions)
                    allowed = {ask for ask, yes in zip(questions, answers, strict=True) if yes}
                    assert allowed == {("read", "camera_one"), ("publish", "camera_two")}


# --- what may come in between ------------------------------------------------


async def test_users_outlive_the_daemon(tmp_path: Path) -> None:
    """After a restart passwords, tokens, owners and denials are what they were."""
    config = make_config(tmp_path)
    with fail_after(90):
        async with running_daemon(tmp_path, config=config) as daemon:
            for name in ("ann", "off", "gone", "low"):
                await add(daemon, name, camera_access=["camera1"])
            tokens = {name: await log_in(daemon, name) for name in ("ann", "off", "gone", "low")}
            _, key = await daemon.create_key("operator", owner="ann")
            _, resting = await daemon.create_key("operator", owner="off")
            async with daemon.local() as admin:
                await admin.call("update_user", name="off", disabled=True)
                await admin.call("delete_user", name="gone")
                await admin.call("update_user", name="low", role="viewer")
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            told = {name: await reason(client, "authenticate", auth_token=token) for name, token in tokens.items()}
            assert told == {"ann": "ok", "off": "auth_failed", "gone": "revoked", "low": "revoked"}
            assert await reason(client, "authenticate", auth_token=resting) == "auth_failed"
            await client.call("authenticate", auth_token=key)
            assert [row["device"] for row in (await client.call("get_camera_list"))["cameras"]] == ["camera1"]
            assert await log_in(daemon)
            assert claims_of(await log_in(daemon, "low"))["roles"] == ["viewer"]


@pytest.mark.parametrize("seed", range(times(6, least=2)))
async def test_whoever_hangs_up_while_setting_a_password_leaves_one_that_works(tmp_path: Path, seed: int) -> None:
    """At any moment: the old one or the new one, on disk as in memory, and never both."""
    dice, config = random.Random(seed), make_config(tmp_path, cameras=0)
    with fail_after(90):
        async with running_daemon(tmp_path, config=config, costly_passwords=True) as daemon:
            await add(daemon)
            token = await log_in(daemon)
            stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
            body = json.dumps({"password": OTHER, "old_password": PASSWORD})
            head = (
                "PUT /api/users/ann/password HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            await stream.send_all((head + body).encode())
            await trio.sleep(dice.random() * 0.4)
            await trio.aclose_forcefully(stream)
            works = await settled(partial(_which, daemon))
        async with running_daemon(tmp_path, config=config, costly_passwords=True) as daemon:
            assert await _which(daemon) == works
            async with daemon.websocket() as client:
                assert await reason(client, "authenticate", auth_token=token) == (
                    "ok" if works == [PASSWORD] else "revoked"
                )


async def _which(daemon: RunningDaemon) -> list[str]:
    """The passwords that open."""
    found = []
    for password in (PASSWORD, OTHER):
        reply = await daemon.request("POST", "/api/token", body={"username": "ann", "password": password})
        if reply.status == 200:
            found.append(password)
    return found


async def settled(ask: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What is found, once what was begun has come to its end: two hashes later nothing of it can be left."""
    while len(found := await ask()) != 1 or found != await ask():
        await trio.sleep(0.05)
    return found


async def test_the_demos_user_logs_in_on_this_machine(tmp_path: Path) -> None:
    """demo with demo; made on the unix socket only, by nobody else, and by nobody without being asked (C-48)."""
    sample = {"username": "demo", "password": "demo"}
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon:
            assert (await daemon.request("POST", "/api/token", body=sample)).status == 401
            _, key = await daemon.create_key("admin")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=key)
                assert await reason(client, "create_demo_login") == "permission_denied"
                assert (
                    await reason(client, "create_user", name="demo", role="viewer", password="demo") == "invalid_params"
                )
            async with daemon.local() as admin:
                assert (await admin.call("create_demo_login"))["role"] == "viewer"
            reply = await daemon.request("POST", "/api/token", body=sample)
            assert (reply.status, reply.json["permissions"]) == (
                200,
                {"read": ["camera0", "camera_one"], "publish": []},
            )
            token = reply.json["token"]
            claims = peek_claims(token)
            assert {"action": "read", "path": "camera_one"} in cast(list[Any], claims["mediamtx_permissions"])
            headers = {"Authorization": f"Bearer {token}"}
            assert (await daemon.request("HEAD", "/api/cameras/camera0/live.mjpeg", headers=headers)).status == 200
