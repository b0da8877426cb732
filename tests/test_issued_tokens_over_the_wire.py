"""Tokens that somebody issued for others, on the running daemon: they are worth what their issuer is worth now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, ended, running_daemon
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused
from test_users_over_the_wire import ENDS, OTHER, Picture, add, claims_of, log_in, reason

#: How a user's tokens may end by a revocation → its params.
LINES: dict[str, dict[str, object]] = {"subject": {"subject": "ann"}, "cut-off": {"subject": "ann", "before": "now"}}


async def issue(daemon: RunningDaemon, credential: str, user_id: str, role: str = "admin", **params: object) -> str:
    """A token for `user_id`, issued by whoever has this credential."""
    async with daemon.websocket() as client:
        await client.call("authenticate", auth_token=credential)
        return str((await client.call("issue_token", user_id=user_id, role=role, **params))["token"])


async def change(admin: Conversation, how: str) -> str:
    """End ann's rights in one of the ways; what whoever comes by a token of hers hears then."""
    if how in LINES:
        await admin.call("revoke", **LINES[how])
        return "revoked"
    method, params, _, _ = ENDS[how]
    await admin.call(method, name="ann", **params)
    return "auth_failed" if how == "disable" else "revoked"


async def answers(daemon: RunningDaemon, tokens: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, token in tokens.items():
        async with daemon.websocket() as client:
            found[name] = await reason(client, "authenticate", auth_token=token)
    return found


@pytest.mark.ffmpeg
@pytest.mark.parametrize("how", [*ENDS, *LINES])
async def test_what_a_user_issued_for_others_ends_with_their_rights(tmp_path: Path, how: str) -> None:
    """For nobody's name, for another user, by a key pair, through another hand, refreshed: all refused on the very next
    call, and whoever is inside by one is out; what another administrator issued goes on."""
    with fail_after(120):
        async with running_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
            for name, role in (("root", "admin"), ("ann", "admin"), ("bob", "viewer")):
                await add(daemon, name, role)
            hers, roots = await log_in(daemon), await log_in(daemon, "root")
            tokens = {
                "guest": await issue(daemon, hers, "guest"),
                "bob": await issue(daemon, hers, "bob"),
                "key pair": await issue(daemon, hers, "guest", signing_key="RS256"),
            }
            tokens["second hand"] = await issue(daemon, tokens["guest"], "friend")
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=tokens["guest"])
                tokens["refreshed"] = (await client.call("refresh_token"))["token"]
            others = {"root's": await issue(daemon, roots, "guest"), "bob's own": await log_in(daemon, "bob")}
            assert {"user:ann", "user:guest"} < set(claims_of(tokens["second hand"])["issued_by"])
            assert set((await answers(daemon, tokens | others)).values()) == {"ok"}
            picture = Picture(daemon, tokens["second hand"])
            nursery.start_soon(picture.watch)
            await picture.seen.wait()
            async with daemon.websocket() as inside, daemon.websocket() as beside, daemon.local() as admin:
                await inside.call("authenticate", auth_token=tokens["guest"])
                await beside.call("authenticate", auth_token=others["root's"])
                why = await change(admin, how)
                assert set((await answers(daemon, tokens)).values()) == {why}
                assert set((await answers(daemon, others)).values()) == {"ok"}
                assert await ended(inside) == 4401
                await picture.over.wait()
                assert await reason(beside, "list_keys") == "ok"
                if how == "disable":
                    await admin.call("update_user", name="ann", disabled=False)
                    assert set((await answers(daemon, tokens)).values()) == {"ok"}


@pytest.mark.parametrize("how", ["revoke", "suspend", "owner", "narrow"])
async def test_what_a_key_issued_ends_or_shrinks_with_the_key(tmp_path: Path, how: str) -> None:
    """And with its owner; a key that may do less leaves its tokens no more than that."""
    with fail_after(90):
        async with running_daemon(tmp_path) as daemon:
            for name in ("root", "ann"):
                await add(daemon, name, "admin")
            key_id, key = await daemon.create_key("admin", owner="ann")
            token = await issue(daemon, key, "guest")
            assert claims_of(token)["issued_by"] == [f"key:{key_id}"]
            async with daemon.websocket() as inside, daemon.local() as admin:
                await inside.call("authenticate", auth_token=token)
                assert await reason(inside, "list_keys") == "ok"
                if how == "narrow":
                    await admin.call("update_key", key_id=key_id, role="viewer")
                    assert await reason(inside, "list_keys") == "permission_denied"
                    assert await reason(inside, "get_camera_list") == "ok"
                    await admin.call("update_key", key_id=key_id, camera_access=["camera1"])
                    assert await reason(inside, "get_camera_status", device="camera0") == "not_found"
                    assert await reason(inside, "get_camera_status", device="camera1") == "ok"
                    return
                if how == "owner":
                    await admin.call("update_user", name="ann", disabled=True)
                else:
                    await admin.call(f"{how}_key", key_id=key_id)
                assert await ended(inside) == 4401
                why = "revoked" if how == "revoke" else "auth_failed"
                assert await answers(daemon, {"token": token}) == {"token": why}


async def test_a_key_made_by_such_a_token_is_its_issuers(tmp_path: Path) -> None:
    """Whoever issued the token that made a key owns the key, unless its maker or somebody is named."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            await add(daemon, "ann", "admin")
            await add(daemon, "bob", "admin")
            hers = await log_in(daemon)
            _, key = await daemon.create_key("admin", owner="ann")
            owners = {}
            for name, token in {
                "guest": await issue(daemon, hers, "guest"),
                "bob": await issue(daemon, hers, "bob"),
                "by key": await issue(daemon, key, "guest"),
            }.items():
                async with daemon.websocket() as client:
                    await client.call("authenticate", auth_token=token)
                    owners[name] = (await client.call("create_key", name="k", role="viewer"))["owner"]
            assert owners == {"guest": "ann", "bob": "bob", "by key": "ann"}


async def test_nobody_says_themselves_by_whom_a_token_was_issued(tmp_path: Path) -> None:
    """Root on the box leaves nothing behind by which a token could end; a foreign token's subject does; and what comes
    through too many hands is not issued."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            async with daemon.local() as admin:
                wrong = await admin.ask("issue_token", user_id="x", role="viewer", claims={"issued_by": ["user:x"]})
                assert "issued_by" in wrong["error"]["message"]
                token = str((await admin.call("issue_token", user_id="guest0", role="admin"))["token"])
            assert "issued_by" not in claims_of(token)
            for number in range(1, 9):
                token = await issue(daemon, token, f"guest{number}")
            assert sum(name.startswith("user:") for name in claims_of(token)["issued_by"]) == 8
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=token)
                refusal: Any = await client.ask("issue_token", user_id="guest9", role="viewer")
            assert "8 hands" in refusal["error"]["data"]["detail"]


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_a_viewer_at_mediamtx_by_such_a_token_is_out_with_its_issuer(tmp_path: Path) -> None:
    """Over RTSP, and the next one is refused; with a new password as with any other end."""
    with fail_after(90):
        async with running_daemon(tmp_path, mediamtx=True) as daemon:
            await daemon.wait_media()
            await add(daemon, "ann", "admin")
            token = await issue(daemon, await log_in(daemon), "guest", "viewer")
            viewer = RtspReader(daemon.rtsp, "camera0", "guest", token)
            await viewer.play()
            await viewer.wait_packet()
            async with daemon.local() as admin:
                await admin.call("set_password", name="ann", password=OTHER)
            await viewer.wait_end()
            late = RtspReader(daemon.rtsp, "camera0", "guest", token)
            with pytest.raises(RtspRefused):
                await late.play()
            for each in (viewer, late):
                await each.aclose()
