"""Rights that name streams by how they begin (`cam*`), on the running daemon: given, handed on, shown and asked."""

from __future__ import annotations

import time
from pathlib import Path

from daemon_helpers import SECRET, Conversation, running_daemon
from patience import fail_after

from edged.credentials import tokens

CAM = r"~^cam[0-9A-Za-z_\-/.]*$"


async def reason(client: Conversation, method: str, **params: object) -> str:
    """Why a call fails; "" if it does not."""
    reply = await client.ask(method, **params)
    return str(reply["error"]["data"]["reason"]) if "error" in reply else ""


async def test_a_beginning_is_given_to_keys_users_and_tokens_and_shown_as_it_was(tmp_path: Path) -> None:
    """In a token it is what MediaMTX can read, too. What is neither a name, nor a beginning, nor all, is refused."""
    streams = {"read": ["cam*", "door"], "publish": ["a/b-*"]}
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            key = (await admin.call("create_key", name="k", role="viewer", streams=streams))["key_id"]
            assert (await admin.call("get_key", key_id=key))["streams"] == streams
            await admin.call("update_key", key_id=key, streams={"read": ["x*"]})
            assert (await admin.call("get_key", key_id=key))["streams"] == {"read": ["x*"], "publish": []}
            await admin.call("create_user", name="ann", role="viewer", streams=streams)
            assert (await admin.call("get_user", name="ann"))["streams"] == streams
            text = (await admin.call("issue_token", user_id="bob", streams=streams))["token"]
            claims = (await admin.call("validate_token", token=text))["payload"]
            assert claims["stream_access"] == streams
            assert claims["mediamtx_permissions"] == [
                {"action": "read", "path": CAM}, {"action": "read", "path": "door"},
                {"action": "publish", "path": r"~^a/b-[0-9A-Za-z_\-/.]*$"},
            ]  # fmt: skip
            for odd in ("**", "*cam", "c*m", "cam**", "cam* ", "cam.*$", "~^cam", CAM, "ü*", "", "x" * 129 + "*"):
                for method, more in (
                    ("create_key", {"name": "k", "role": "viewer"}), ("update_key", {"key_id": key}),
                    ("issue_token", {"user_id": "bob"}), ("update_user", {"name": "ann"}),
                ):  # fmt: skip
                    assert await reason(admin, method, **more, streams={"read": [odd]}) == "invalid_params", odd


async def test_nobody_hands_on_a_wider_beginning_than_theirs(tmp_path: Path) -> None:
    """`cam*` gives `camera*`, `camera0` and itself; not `ca*`, not all, nothing else, and not to publish."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            made = await admin.call("create_key", name="k", role="admin", streams={"read": ["cam*"]})
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=made["api_key"])
                for read, publish, found in (
                    ("cam*", [], ""), ("camera*", [], ""), ("camera0", [], ""), ("ca*", [], "permission_denied"),
                    ("*", [], "permission_denied"), ("door", [], "permission_denied"),
                    ("cam*", ["cam*"], "permission_denied"),
                ):  # fmt: skip
                    streams = {"read": [read], "publish": publish}
                    for method, more in (
                        ("issue_token", {"user_id": "bob"}), ("create_key", {"name": "x", "role": "viewer"}),
                    ):  # fmt: skip
                        assert await reason(client, method, **more, streams=streams) == found


async def test_a_beginning_opens_the_cameras_that_begin_so(tmp_path: Path) -> None:
    """By a key, by a token of edged's, and by one that others signed with the map or with MediaMTX's own expression."""
    secret, now = tokens.SharedSecret("test", SECRET), int(time.time())
    claims = {"sub": "bob", "role": "viewer", "iat": now, "exp": now + 60, "jti": "x"}
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as daemon, daemon.local() as admin:

            async def opens(credential: str) -> bool:
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=credential)
                    return await reason(client, "create_ticket", device="camera0") == ""

            for begins, opened in (("cam*", True), ("camera0*", True), ("camera00*", False), ("door*", False)):
                streams = {"read": [begins]}
                key = await admin.call("create_key", name="k", role="viewer", streams=streams)
                token = await admin.call("issue_token", user_id="bob", role="viewer", streams=streams)
                listed = [{"action": "read", "path": CAM.replace("cam", begins[:-1])}]
                for credential in (
                    key["api_key"], token["token"], tokens.sign({**claims, "stream_access": streams}, secret),
                    tokens.sign({**claims, "mediamtx_permissions": streams}, secret),
                    tokens.sign({**claims, "mediamtx_permissions": listed}, secret),
                ):  # fmt: skip
                    assert await opens(credential) is opened
            for path in ("cam*", "~^cam", "~.*", CAM.removesuffix("$")):
                listed = [{"action": "read", "path": path}]
                assert not await opens(tokens.sign({**claims, "mediamtx_permissions": listed}, secret))
