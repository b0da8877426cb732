"""Refresh on a running edged: over WebSocket in both dialects, over HTTP, and with streams of the real MediaMTX."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import SECRET, Conversation, RunningDaemon, ended, make_config, port_of, running_daemon
from patience import fail_after
from test_revocation import HlsViewer, WhepViewer, watch_rtsp

from edged.accounts import refreshes
from edged.credentials import tokens
from edged.operations import logins
from edged.signing import keyring

KEY = tokens.SharedSecret("test", SECRET)
#: What says that edged issued a token, for one that lives as long after a refresh as before.
OWN: dict[str, Any] = {"iss": "edged", "epoch": 0}
DAY = 86400


def sign(*, left: float = 600, life: float = 3600, **more: Any) -> str:
    """A token that was to live for so long, of which so much is left."""
    now = time.time()
    claims = {"sub": "ada", "role": "viewer", "iat": int(now + left - life), "exp": int(now + left), "jti": f"{now}"}
    return tokens.sign({name: value for name, value in (claims | more).items() if value is not None}, KEY)


async def refused(client: Conversation, method: str, **params: object) -> dict[str, Any]:
    """The error of a call."""
    error: dict[str, Any] = (await client.ask(method, **params))["error"]
    return error


async def counted(daemon: RunningDaemon) -> dict[str, float]:
    """What the metric says."""
    text = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("edged_token_refreshes_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


async def test_a_session_goes_on_by_the_token_that_it_refreshes(tmp_path: Path) -> None:
    """Contract 3 and 10.4: its own without saying which; what is pipelined behind it counts with the new one."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client:
            await client.call("authenticate", auth_token=sign(left=900))
            calls: list[tuple[str, dict[str, Any]]] = [
                ("refresh_token", {}),
                ("list_sessions", {}),
                ("refresh_token", {}),
            ]
            for number, (method, params) in enumerate(calls, 100):
                call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                await client.connection.send_message(json.dumps(call))
            answers = [json.loads(await client.connection.get_message()) for _ in calls]
            assert [answer["id"] for answer in answers] == [100, 101, 102]
            made, inside, again = (answer["result"] for answer in answers)
            assert made.keys() == {"token", "token_type", "expires_at", "expires_in", "jti", "permissions"}
            assert made["permissions"] == {"read": ["*"], "publish": []}
            assert made["token_type"] == "Bearer"
            assert DAY - 10 <= made["expires_in"] <= DAY
            assert [each["jti"] for each in inside["sessions"]] == [made["jti"]]
            assert inside["sessions"][0]["deadline"] >= made["expires_at"]
            # A second question is about the token that the session has by then, too young to have a successor.
            assert again["jti"] == made["jti"]
            assert (await client.call("whoami"))["claims"]["jti"] == again["jti"]
            assert await counted(daemon) == {"ok": 1, "replayed": 1, "denied": 0}


async def test_a_manager_that_refreshes_an_hour_before_the_end_does_not_ask_each_time(tmp_path: Path) -> None:
    """S0-13, S0-14: a token of an hour by the shared secret has a successor of a day; edged's own keep their hour."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            text, asked = sign(left=3600), 0
            for _ in range(5):
                if tokens.peek_claims(text)["exp"] < time.time() + 3600:  # type: ignore[operator]
                    text, asked = (await client.call("refresh_token", token=text))["token"], asked + 1
            assert asked == 1
            async with daemon.local() as admin:
                own = (await admin.call("issue_token", user_id="ada", expires_in=3600))["token"]
            assert (await client.call("refresh_token", token=own))["expires_in"] in (3599, 3600)


async def test_a_session_whose_token_has_just_expired_refreshes_it_and_goes_on(tmp_path: Path) -> None:
    """S0-16, S0-32: the socket stays open, with what it subscribed to; a failed authenticate ends that chance."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client, daemon.websocket() as other:
            for each in (client, other):
                await each.call("authenticate", auth_token=sign(left=3))
            await client.call("subscribe_events", topics=["camera_status_update"])
            await client.hear("auth_expired")
            while "error" not in (answer := await client.ask("get_camera_list")):
                await trio.sleep(0.05)
            assert answer["error"]["data"]["reason"] == "expired"
            await client.call("refresh_token")
            await client.call("get_camera_list")
            daemon.plug(0).unlink()
            assert (await client.hear("camera_status_update"))["device"] == "camera0"
            assert "error" in await other.ask("authenticate", auth_token="no token")
            assert (await refused(other, "refresh_token"))["data"]["reason"] == "auth_required"


async def test_whoever_holds_a_token_may_have_it_refreshed(tmp_path: Path) -> None:
    """Over a socket that nobody has logged in on; that stays as it is, and in no dialect yet."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client:
            text = sign(left=-200)
            made = [(await client.call("refresh_token", **{name: text}))["jti"] for name in ("token", "auth_token")]
            assert made[0] == made[1]
            error = await refused(client, "get_camera_list")
            assert (error["code"], error["data"]["reason"]) == (-32001, "auth_required")
            assert (await refused(client, "refresh_token", token=sign(left=-301)))["data"]["reason"] == "expired"
            assert (await refused(client, "refresh_token", token="x"))["data"]["reason"] == "auth_failed"
            # The first authenticate settles the dialect: v1 here, by its auth_type.
            old = sign()
            await client.call("authenticate", token=old, auth_type="jwt")
            assert (await refused(client, "take_snapshot", device="camera0"))["code"] == -32003
            # Another's token is refreshed, and the session stays who it is.
            eve = await client.call("refresh_token", token=sign(sub="eve"))
            assert (await client.call("whoami"))["user_id"] == "ada"
            # Its own by its text: the same as without.
            own = await client.call("refresh_token", token=old)
            assert (await client.call("whoami"))["claims"]["jti"] == own["jti"] != eve["jti"]
            # And once more, which is the same again: the session has moved on, and is not moved back.
            assert (await client.call("refresh_token", token=old))["jti"] == own["jti"]
            assert (await client.call("whoami"))["claims"]["jti"] == own["jti"]


async def test_the_first_dialect_says_its_own_texts(tmp_path: Path) -> None:
    """Contract 4b, v1."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket(port_of(daemon.config.listen.compat)) as client:
            answer = await client.ask("refresh_token")
            assert answer["error"]["code"] == -32001
            assert answer["error"]["message"] == "Authentication required"
            answer = await client.ask("refresh_token", token=sign(left=-9999))
            assert (answer["error"]["code"], answer["error"]["message"]) == (-32001, "Authentication failed")
            assert answer["result"] is None


async def test_a_key_has_nothing_to_refresh_and_is_told_what_it_has(tmp_path: Path) -> None:
    """A key is rotated; so says the hint: of a session's key, of one that is sent as `token`, and to the local user."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client, daemon.local() as admin:
            key_id, key = await daemon.create_key()
            await client.call("authenticate", auth_token=key)
            async with daemon.websocket() as stranger:
                for asker, params in ((client, {}), (stranger, {"token": key}), (stranger, {"auth_token": key})):
                    error = await refused(asker, "refresh_token", **params)
                    assert error["code"] == -32020
                    assert "rotate_key" in json.dumps(error)
                assert (await refused(admin, "refresh_token"))["code"] == -32020
                assert await counted(daemon) == {"ok": 0, "replayed": 0, "denied": 4}
                await daemon.revoke_key(key_id)
                assert (await refused(stranger, "refresh_token", token=key))["data"]["reason"] == "revoked"
                error = await refused(stranger, "refresh_token", token="camera_service_sk_" + "0" * 64)
                assert error["data"]["reason"] == "auth_failed"


async def test_over_http_what_is_no_token_is_not_called_nothing(tmp_path: Path) -> None:
    """Contract 4b, 10.20: garbage fails, a good key hears that it is rotated, and only nothing at all is nothing."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            key_id, key = await daemon.create_key("admin")

            async def ask(**headers: str) -> tuple[int, str, str]:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                reply = await daemon.request("POST", "/api/token/refresh", headers=named)
                return reply.status, reply.json["code"], reply.json["detail"]

            for headers in ({"Authorization": f"Bearer {key}"}, {"X_API_Key": key}):
                status, code, detail = await ask(**headers)
                assert (status, code) == (409, "invalid_state")
                assert "rotate_key" in detail
            for bad in ("bad", "a.b", "a.b.c", "camera_service_sk_" + "0" * 64, "é", "."):
                for headers in ({"Authorization": f"Bearer {bad}"}, {"X_API_Key": bad}):
                    assert (await ask(**headers))[:2] == (401, "auth_failed"), headers
            for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"X_API_Key": ""}):
                assert (await ask(**headers))[:2] == (401, "auth_required"), headers
            await daemon.revoke_key(key_id)
            assert (await ask(X_API_Key=key))[:2] == (401, "revoked")


async def test_over_http_the_bearer_is_what_is_refreshed(tmp_path: Path) -> None:
    """Contract 5.2: the shape of /api/token, also some minutes after the end; no other credential will do."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:

            async def ask(text: str = "", **given: Any) -> Any:
                head = {"Authorization": f"Bearer {text}"} if text else {}
                return await daemon.request("POST", "/api/token/refresh", headers=head, **given)

            named = sign(left=-100, role="admin", stream_access={"read": ["camera0"], "publish": ["*"]})
            reply = await ask(named)
            assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
            assert reply.json.keys() == {"token", "token_type", "expires_in", "permissions"}
            assert reply.json["permissions"] == {"read": ["camera0"], "publish": ["*"]}
            assert tokens.peek_claims((await ask(named)).json["token"]) == tokens.peek_claims(reply.json["token"])
            assert (await ask(reply.json["token"])).status == 200
            narrow = sign(role="admin", permissions=["stream:read:camera1", "camera:read"], camera_access=["camera1"])
            assert (await ask(narrow)).json["permissions"] == {"read": ["camera1"], "publish": []}
            _, key = await daemon.create_key("admin")
            assert [(await ask(sign(left=-400))).status, (await ask()).status, (await ask("a.b.c")).status] == [401] * 3
            assert [(await ask(key)).status, (await ask(key=key)).status] == [409] * 2
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=reply.json["token"])
                async with daemon.local() as admin:
                    await admin.call("revoke_token", token=named)
                    assert await ended(client) == 4401
                    listed = (await admin.call("list_revocations"))["revocations"]
            assert [each["family_id"] for each in listed if "family_id" in each] != []
            assert (await ask(reply.json["token"])).status == 401


async def test_nothing_that_edged_signs_carries_a_map_for_a_mediamtx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-30: issued, by a login, for streams, for files, refreshed from a map: `mediamtx_permissions` is a list, or not
    there; the map of the same stands in `stream_access`."""
    named: dict[str, Any] = {"mediamtx_permissions": {"read": ["camera0", "*"], "publish": ["dock"]}}
    streams = {"read": ["camera0"], "publish": ["dock"]}
    mapped = [sign(jti=str(number), role=None, **more) for number, more in enumerate((named, named, named | OWN))]
    really_sign, signed = tokens.sign, list[Any]()

    def record(claims: Any, key: Any) -> str:
        signed.append(dict(claims))
        return really_sign(claims, key)

    for module in (tokens, keyring, refreshes, logins):
        monkeypatch.setattr(module, "sign", record)
    with fail_after(120):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            await admin.call("create_user", name="ann", role="viewer", password="a long passphrase", streams=streams)
            who = {"username": "ann", "password": "a long passphrase"}
            service = (await admin.call("create_service_token", name="s"))["service_token"]
            made = [
                (await admin.call("login", **who))["token"],
                (await admin.call("create_stream_token", **who))["token"],
            ]
            for alg in ("RS256", "ES256"):
                made.append((await daemon.request("POST", f"/api/token?alg={alg}", body=who)).json["token"])
            for key in ("HS256", "RS256", "ES256"):
                issued = await admin.call("issue_token", user_id="x", streams=streams, signing_key=key)
                made.append(issued["token"])
                for claims in (named, {"stream_access": streams}):
                    refused_ = await admin.ask("issue_token", user_id="x", signing_key=key, claims=claims)
                    assert refused_["error"]["code"] == -32602
            files = await daemon.request(
                "POST", "/v1/files/generate-token?user_id=ann", headers={"X-Service-Token": service}
            )
            assert files.status == 200
            for text in (*made, *mapped):
                first = (await admin.call("refresh_token", token=text))["token"]
                bearer = {"Authorization": f"Bearer {first}"}
                assert (await daemon.request("POST", "/api/token/refresh", headers=bearer)).status == 200
            # What was a map opens the same as before, by the list as by the map.
            after = tokens.peek_claims(first)
            assert after["mediamtx_permissions"] == [
                {"action": "read", "path": ""}, {"action": "read", "path": "camera0"},
                {"action": "publish", "path": "dock"},
            ]  # fmt: skip
            assert after["stream_access"] == {"read": ["*", "camera0"], "publish": ["dock"]}
    assert len(signed) >= len(made) + 1 + len((*made, *mapped))
    shapes = {type(claims["mediamtx_permissions"]) for claims in signed if "mediamtx_permissions" in claims}
    assert shapes == {list}


async def test_all_that_came_of_ones_token_is_ones_own_to_revoke(tmp_path: Path) -> None:
    """A viewer ends the token that it had before, and with it the session; by name another's it may not."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client, daemon.websocket() as other:
            root, eve = sign(jti="root"), sign(sub="eve", jti="eve")
            for each, text in ((client, root), (other, eve)):
                await each.call("authenticate", auth_token=text)
                made = await each.call("refresh_token")
            _, key = await daemon.create_key()
            async with daemon.websocket() as viewer:
                await viewer.call("authenticate", auth_token=key)
                for asker in (client, viewer):
                    for params in ({"jti": "eve"}, {"jti": made["jti"]}, {"jti": "unknown"}):
                        assert (await refused(asker, "revoke_token", **params))["data"]["reason"] == "permission_denied"
            assert (await client.call("revoke_token", token=root)) == {"revoked": True}
            assert await ended(client) == 4401
            assert (await other.call("revoke_token", jti="eve")) == {"revoked": True}
            assert await ended(other) == 4401


async def test_a_successor_is_the_same_after_a_restart_and_ends_with_its_family(tmp_path: Path) -> None:
    """What was told is on the disk, what was revoked too."""
    config, text = make_config(tmp_path), sign()
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            first = await client.call("refresh_token", token=text)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            assert (await client.call("refresh_token", token=text))["token"] == first["token"]
            async with daemon.local() as admin:
                await admin.call("revoke_token", jti=first["jti"])
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            for each in (text, first["token"]):
                assert (await refused(client, "refresh_token", token=each))["data"]["reason"] == "revoked"
                assert "error" in await client.ask("authenticate", auth_token=each)


@pytest.mark.slow
@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_streams_of_short_tokens_go_on_for_as_long_as_somebody_refreshes_them(tmp_path: Path) -> None:
    """RTSP, HLS and MJPEG go through several lives of their token without one reconnect, and WebRTC is let; a token
    that nobody refreshes ends its stream meanwhile, and so do all at last."""
    life = 16.0
    with fail_after(240):
        async with running_daemon(tmp_path, mediamtx=True) as daemon, daemon.websocket() as client:
            await daemon.wait_media()
            text = sign(**OWN)
            hls, rtsp = HlsViewer(daemon.hls, "camera0", text), await watch_rtsp(daemon, text)
            assert await hls.read() == 200
            await client.call("authenticate", auth_token=text)
            # From here on the lives are short: a successor lives as long as its token was to live.
            short = sign(left=life, life=life, **OWN)
            stranger = await watch_rtsp(daemon, sign(left=life, life=life, jti="stranger", **OWN))
            family: list[Any] = [await watch_rtsp(daemon, short), HlsViewer(daemon.hls, "camera1", short)]
            assert (await family[1].read(), await WhepViewer(daemon, "camera0", short).play()) == (200, 201)
            async with daemon.websocket() as keeper, trio.open_nursery() as nursery:
                await keeper.call("authenticate", auth_token=short)
                parts, gone = [0], trio.Event()

                async def watch_live() -> None:
                    """The picture that edged itself shows, until it ends."""
                    stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
                    head = "GET /api/cameras/camera0/live.mjpeg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    await stream.send_all(f"{head}Authorization: Bearer {short}\r\n\r\n".encode())
                    async with stream:
                        while data := await stream.receive_some(65536):
                            parts[0] += data.count(b"Content-Type: image/jpeg")
                    gone.set()

                nursery.start_soon(watch_live)
                while not parts[0]:
                    await trio.sleep(0.05)
                made = await keeper.call("refresh_token")
                sessions = (await keeper.call("list_sessions"))["sessions"]
                ours = [each for each in sessions if each["jti"] == made["jti"]]
                # A WebRTC viewer without a picture is ended by MediaMTX soon; until then it may stay like the others.
                assert {each["transport"] for each in ours} == {"ws", "http", "rtsp", "hls", "webrtc"}
                assert {each["deadline"] for each in sessions} > {made["expires_at"]}
                assert all(each["deadline"] >= made["expires_at"] for each in ours)
                ends = trio.current_time() + 2.5 * life
                while trio.current_time() < ends:
                    await keeper.call("refresh_token")
                    with trio.move_on_after(life / 4):
                        while True:
                            await family[0].wait_packet()
                    assert [await each.read() for each in (hls, family[1])] == [200, 200]
                with fail_after(10):
                    await stranger.wait_end()
                seen = parts[0]
                assert seen > 0
                while parts[0] == seen:
                    await trio.sleep(0.05)
                assert not gone.is_set()
                # Nobody refreshes any more: they end with the last token, one life later.
                with fail_after(life + 20):
                    await family[0].wait_end()
                    await family[1].wait_end()
                    await gone.wait()
            # Those of the other token are as they were.
            await rtsp.wait_packet()
            assert await hls.read() == 200
            for viewer in (rtsp, stranger, family[0]):
                await viewer.aclose()
