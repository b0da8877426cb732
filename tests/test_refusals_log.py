"""The log at three in the morning: who was refused what, from where; who made it; and a clock that is far off."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from daemon_helpers import RunningDaemon, make_config, port_of, running_daemon
from log_helpers import kept_log
from patience import fail_after

from edged.access.asking import RefusalLog, asked_by, asking
from edged.clock import Clock
from edged.credentials.callers import Caller, Peer
from edged.credentials.decision import Reason
from edged.reactions.clock_upkeep import watch_clock

WRONG = "camera_service_sk_" + "0" * 64
REMOTE = "192.0.2.7"


def lines_of(text: str, event: str) -> list[dict[str, str]]:
    """The fields of each line about an event, in its order."""
    found = [line.partition(f": {event} ")[2] for line in text.splitlines() if f": {event} " in line]
    return [
        {name: plain or quoted for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', line)}
        for line in found
    ]


async def via(daemon: RunningDaemon, method: str, path: str, client: str = REMOTE, **more: Any) -> int:
    """The status of a request that a trusted proxy makes for a client."""
    return (await daemon.request(method, path, headers={"X-Forwarded-For": client}, **more)).status


@asynccontextmanager
async def proxied(folder: Path) -> AsyncIterator[RunningDaemon]:
    """A daemon whose proxy is this machine."""
    config = make_config(folder, cameras=1)
    listen = msgspec.structs.replace(config.listen, trusted_proxies=("127.0.0.1",))
    async with running_daemon(folder, config=msgspec.structs.replace(config, listen=listen)) as daemon:
        yield daemon


@pytest.fixture
async def daemon(tmp_path: Path) -> Any:
    """The same, and its log."""
    with kept_log() as log:
        async with proxied(tmp_path) as daemon:
            daemon.log = log  # type: ignore[assignment]
            yield daemon


async def test_a_refusal_says_from_where_at_which_listener_and_for_what(daemon: RunningDaemon) -> None:
    """Over HTTP, WebSocket and with a key that is known but may not: its id, not its text."""
    key_id, secret = await daemon.create_key("viewer")
    with fail_after(60):
        assert await via(daemon, "GET", "/api/keys?x=1", key=WRONG) == 401
        assert await via(daemon, "GET", "/api/sessions", "198.51.100.1") == 401
        assert await via(daemon, "DELETE", f"/api/keys/{key_id}", key=secret) in (401, 403, 404)
        compat = port_of(daemon.config.listen.compat)
        async with daemon.websocket(compat, extra_headers=[(b"x-forwarded-for", b"203.0.113.9")]) as client:
            await client.ask("authenticate", auth_token=WRONG, auth_type="api_key")
            await client.ask("get_camera_list")
    log = daemon.log.getvalue()  # type: ignore[attr-defined]
    told = {(line["address"], line["listener"], line["doing"], line["reason"]) for line in lines_of(log, "refused")}
    assert told >= {
        (REMOTE, "main", "GET /api/keys", "unknown_key"),
        ("198.51.100.1", "main", "GET /api/sessions", "missing"),
        (REMOTE, "main", f"DELETE /api/keys/{key_id}", "missing_scope"),
        ("203.0.113.9", "compat", "authenticate", "unknown_key"),
        ("203.0.113.9", "compat", "get_camera_list", "missing"),
    }
    (known,) = [line for line in lines_of(log, "refused") if line["reason"] == "missing_scope"]
    assert (known["credential"], known["proxy"]) == (key_id, "127.0.0.1")
    assert secret not in log
    assert WRONG not in log


async def test_a_flood_of_refusals_is_a_line_a_minute(tmp_path: Path) -> None:
    """The first five as they come; what is left is written when the daemon ends; another client is told apart."""
    with fail_after(60), kept_log() as log:
        async with proxied(tmp_path) as daemon:
            for _ in range(40):
                assert await via(daemon, "GET", "/api/sessions") == 401
            assert await via(daemon, "GET", "/api/sessions", "198.51.100.1") == 401
            found = lines_of(log.getvalue(), "refused")
        (counted,) = lines_of(log.getvalue(), "refused")[len(found) :]
    assert [line["address"] for line in found] == [REMOTE] * 5 + ["198.51.100.1"]
    assert (counted["address"], counted["reason"], counted["times"]) == (REMOTE, "missing", "35")


async def test_what_was_made_and_ended_says_by_whom(daemon: RunningDaemon) -> None:
    """Keys, users, service tokens, signing keys, revocations: the actor, their key and where they asked from."""
    admin_id, secret = await daemon.create_key("admin")
    with fail_after(60):
        status = await via(daemon, "POST", "/api/keys", key=secret, body={"name": "dock", "role": "viewer"})
        assert status == 201
        async with daemon.local() as root:
            made = await root.call("create_key", name="yard", role="viewer")
            await root.call("create_user", name="ann", role="viewer")
            await root.call("revoke_key", key_id=made["key_id"])
    log = daemon.log.getvalue()  # type: ignore[attr-defined]
    lines = {line.get("name"): line for line in lines_of(log, "created")}
    assert (lines["dock"]["by_credential"], lines["dock"]["address"]) == (admin_id, REMOTE)
    assert lines["yard"]["by"].startswith("local:")
    assert lines["yard"]["listener"] == "unix"
    assert all("by" in line for name, line in lines.items() if name)
    (user,) = lines_of(log, "user_in_force")
    assert user["by"].startswith("local:")
    assert lines_of(log, "revoked")[-1]["by"].startswith("local:")


async def test_issued_and_refreshed_tokens_and_added_cameras_say_by_whom(daemon: RunningDaemon) -> None:
    """A token by its jti, which is no secret: it is what an administrator revokes it by."""
    admin_id, secret = await daemon.create_key("admin")
    with fail_after(60):
        headers = {"X-Forwarded-For": REMOTE}
        body: dict[str, str] = {"user_id": "ann", "role": "viewer"}
        told = await daemon.request("POST", "/api/tokens", key=secret, body=body, headers=headers)
        shown = headers | {"Authorization": f"Bearer {told.json['token']}"}
        assert (await daemon.request("POST", "/api/token/refresh", body={}, headers=shown)).status == 200
        camera = {"name": "Gate", "source": "rtsp://192.0.2.9/stream"}
        assert await via(daemon, "POST", "/api/cameras", key=secret, body=camera) in (200, 201)
    log = daemon.log.getvalue()  # type: ignore[attr-defined]
    ((issued,), (refreshed,), (added,)) = (
        lines_of(log, each) for each in ("token_issued", "refreshed", "camera_added")
    )
    assert issued["jti"] == refreshed["credential"] == told.json["jti"]
    assert issued["by_credential"] == added["by_credential"] == admin_id
    assert {line["address"] for line in (issued, refreshed, added)} == {REMOTE}


async def test_mediamtx_viewers_have_an_address_too() -> None:
    """The hook's question names it; a job of the registrar carries along who asked."""
    from edged.operations.streams import StreamRequest, _Viewer

    viewer = _Viewer(StreamRequest(action="read", path="camera0", ip="192.0.2.9"))
    assert (viewer.peer.address, viewer.peer.listener, viewer.doing) == ("192.0.2.9", "mediamtx", "read camera0")


class Somebody:
    """An asker."""

    peer = Peer("main", REMOTE)
    caller = Caller("api_key", "ann", frozenset(), frozenset(), credential_id="key_1")
    doing = "x" * 5000


def test_without_an_asker_a_line_has_no_such_field() -> None:
    """What edged does by itself is nobody's."""
    token = asking.set(None)
    assert asked_by() == {}
    asking.set(Somebody())
    assert asked_by() == {"by": "ann", "by_credential": "key_1", "address": REMOTE, "listener": "main"}
    asking.reset(token)


def test_a_long_path_is_cut() -> None:
    """A head of 16 KiB is no line of 16 KiB."""
    token = asking.set(Somebody())
    with kept_log() as log:
        RefusalLog(lambda: 1.0).note(Reason.MISSING, "none", "http", credential="", capability="", detail="")
    asking.reset(token)
    assert len(log.getvalue()) < 400


@pytest.mark.parametrize(("days", "level"), [(400, "warning"), (0.5, "info")])
async def test_a_clock_far_behind_what_was_known_is_a_warning(
    days: float, level: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Also while nobody confirms it, as after a start without a network; the remedy is in the line."""
    clock = Clock(
        lambda: 1_800_000_000.0, system=lambda: 1_800_000_000.0 - days * 86400 + trio.current_time(),
        synchronized=lambda: False,
    )  # fmt: skip
    with kept_log() as log:
        with trio.move_on_after(3):
            await watch_clock(clock, lambda: None)
    (line,) = [line for line in log.getvalue().splitlines() if "clock_state" in line]
    assert f" {level} " in line
    assert ("behind_days=400" in line, "set the clock" in line) == (days == 400, days == 400)
