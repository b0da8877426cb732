"""operations/clock.py on the running daemon: what is told of the clock, and who may say that it is right."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import datetime
from pathlib import Path

import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, make_config, port_of, running_daemon
from patience import fail_after

from edged import systemd
from edged.credentials.tokens import SharedSecret, sign

pytestmark = pytest.mark.ffmpeg

YEAR_2099 = 4_070_908_800.0


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def leave_mark(folder: Path, mark: float) -> None:
    """What a visit to `mark` has left behind in the database of a box that is not running."""
    connection = sqlite3.connect(folder / "state" / "trust.db")
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('high_water', ?)", (mark,))
    connection.commit()
    connection.close()


async def stop_in_2099(folder: Path) -> RunningDaemon:
    """A daemon that was told 2099 by its time server, and stopped."""
    config = make_config(folder, cameras=0)
    async with running_daemon(folder, config=config) as daemon:
        pass
    leave_mark(folder, YEAR_2099)
    return daemon


async def test_everybody_who_may_ask_for_the_status_is_told_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """get_clock and get_system_status say the same, and nothing is to be mended where a time server is followed."""
    monkeypatch.setattr(systemd, "is_clock_synchronized", lambda: True)
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            await client.call("authenticate", auth_token=(await daemon.create_key("monitor"))[1])
            told = await client.call("get_clock")
            assert told.keys() == (await client.call("get_system_status"))["clock"].keys()
            assert abs(seconds(told["time"]) - time.time()) < 10
            assert abs(seconds(told["high_water"]) - time.time()) < 10
            assert (told["synchronized"], told["trusted"], told["remedy"]) == (True, True, "")


async def test_metrics_tell_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that no server is followed by is 0 and 0, and its mark is the time at least."""
    monkeypatch.setattr(systemd, "is_clock_synchronized", lambda: False)
    with fail_after(30):
        daemon = await stop_in_2099(tmp_path)
        async with running_daemon(tmp_path, config=daemon.config) as daemon:
            text = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("edged_clock"))
    mark = float(lines.pop("edged_clock_high_water_timestamp_seconds"))
    assert YEAR_2099 <= mark < YEAR_2099 + 60
    assert lines == {
        "edged_clock_synchronized": "0.0",
        "edged_clock_trusted": "0.0",
        'edged_clock_jumps_total{direction="forward"}': "0.0",
        'edged_clock_jumps_total{direction="backward"}': "0.0",
    }


async def test_a_mark_in_2099_locks_out_nobody_whose_key_has_no_end(tmp_path: Path) -> None:
    """The key of before works, a new one can be made, the unix socket answers; a token signed elsewhere does not."""
    with fail_after(30):
        config = make_config(tmp_path, cameras=0)
        async with running_daemon(tmp_path, config=config) as daemon:
            _, key = await daemon.create_key("viewer")
            async with daemon.local() as admin:
                token = (await admin.call("issue_token", user_id="ada", expires_in=3600))["token"]
        leave_mark(tmp_path, YEAR_2099)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            assert (await client.ask("authenticate", auth_token=token))["error"]["data"]["reason"] == "expired"
            await client.call("authenticate", auth_token=key)
            await client.call("authenticate", auth_token=(await daemon.create_key("viewer"))[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
async def test_root_takes_the_system_clock_for_right(tmp_path: Path) -> None:
    """Tokens that only the wrong time had ended are good again at once, and after a restart."""
    with fail_after(30):
        config = make_config(tmp_path, cameras=0)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            token = (await admin.call("issue_token", user_id="ada", expires_in=3600))["token"]
        leave_mark(tmp_path, YEAR_2099)
        async with running_daemon(tmp_path, config=config) as daemon:
            async with daemon.local() as admin:
                done = await admin.call("reset_clock")
                assert done["before"]["high_water"].startswith("2099-")
                assert abs(seconds(done["after"]["high_water"]) - time.time()) < 10
                assert done["after"]["trusted"] is True
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=token)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            await client.call("authenticate", auth_token=token)


async def test_nobody_resets_the_clock_over_the_network(tmp_path: Path) -> None:
    """An administrator's key is not root: it is told who may."""
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.websocket() as client:
            await client.call("authenticate", auth_token=(await daemon.create_key("admin"))[1])
            refused = (await client.ask("reset_clock"))["error"]["data"]
            assert refused["reason"] == "permission_denied"
            assert refused["hint"] == "as root, on this machine: edged clock reset"


async def test_a_jump_by_hand_ends_nothing_and_a_time_server_s_word_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture by a token of an hour: the clock set to 2099 by hand does not touch it, a correction of two hours by a
    time server ends it within seconds, and the session that asks is expired; a key without an end sees it all."""
    real, ahead, synchronized, ended = time.time, 0.0, True, trio.Event()
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    monkeypatch.setattr(systemd, "is_clock_synchronized", lambda: synchronized)

    async def look(daemon: RunningDaemon, token: str) -> None:
        reply = await daemon.request(
            "GET", "/api/cameras/camera0/live.mjpeg", headers={"Authorization": f"Bearer {token}"}
        )
        assert (reply.status, reply.headers["content-type"][:19]) == (200, "multipart/x-mixed-r")
        ended.set()

    with fail_after(60):
        async with (
            running_daemon(tmp_path, cameras=1) as daemon,
            trio.open_nursery() as nursery,
            daemon.local() as admin,
            daemon.websocket() as keyed,
            daemon.websocket() as client,
        ):
            token = (await admin.call("issue_token", user_id="ada", expires_in=3600))["token"]
            await keyed.call("authenticate", auth_token=(await daemon.create_key("viewer"))[1])
            await client.call("authenticate", auth_token=token)
            nursery.start_soon(look, daemon, token)
            await trio.sleep(2.5)
            synchronized, ahead = False, YEAR_2099 - real()
            assert (await client.call("get_clock"))["trusted"] is True
            await trio.sleep(2.5)
            await client.call("get_camera_list")
            assert not ended.is_set()
            synchronized, ahead = True, 7200.0
            await ended.wait()
            assert (await client.ask("get_camera_list"))["error"]["code"] == -32001
            await keyed.call("get_camera_list")
            told = await admin.call("get_clock")
            assert (told["trusted"], told["remedy"]) == (True, "")


async def test_a_line_that_no_trusted_clock_has_seen_is_shown_as_one_until_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty days behind, all is revoked up to now; a time server is heard: the line is where it was drawn, and a
    shared-secret token of a week before does not get in, also after a restart."""
    real, behind, synchronized = time.time, 30 * 86400.0, False
    monkeypatch.setattr(time, "time", lambda: real() - behind)
    monkeypatch.setattr(systemd, "is_clock_synchronized", lambda: synchronized)
    config = make_config(tmp_path, cameras=0)
    at = int(real()) - 7 * 86400
    secret = SharedSecret("test", SECRET)
    text = sign({"sub": "ann", "role": "viewer", "iat": at, "exp": at + 30 * 86400}, secret)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            done = await admin.call("revoke", subject="ann", before="now")
            assert done["provisional"] is True
            assert abs(seconds(done["before"]) - (real() - behind)) < 30
            (line,) = (await admin.call("list_revocations"))["revocations"]
            assert (line["subject"], line["provisional"]) == ("ann", True)
            drawn, synchronized, behind = real(), True, 0.0
            while "provisional" in (line := (await admin.call("list_revocations"))["revocations"][0]):
                await trio.sleep(0.1)
            assert abs(seconds(line["before"]) - drawn) < 30
            async with daemon.websocket() as client:
                assert (await client.ask("authenticate", auth_token=text))["error"]["data"]["reason"] == "revoked"
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            assert (await client.ask("authenticate", auth_token=text))["error"]["data"]["reason"] == "revoked"
