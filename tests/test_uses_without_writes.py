"""The running daemon: what whoever has a viewer's credential does again and again costs no write each time."""

from __future__ import annotations

from pathlib import Path

from daemon_helpers import RunningDaemon, running_daemon
from patience import fail_after
from test_users_over_the_wire import add, log_in

TIMES = 60


async def commits(daemon: RunningDaemon, key: str) -> dict[str, float]:
    """Transactions of each database so far."""
    shown = (await daemon.request("GET", "/metrics", key=key)).body.decode()
    name = "edged_store_commit_duration_seconds_count"
    lines = [line for line in shown.splitlines() if line.startswith(name)]
    return {line.partition('db="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_a_viewer_who_does_everything_again_and_again_costs_a_write_or_two(tmp_path: Path) -> None:
    """Shows its token and its key, is refreshed, asks for tickets, looks at itself, and is refused: over WebSocket and
    HTTP. A minute's counting is one write of the database that only counts, and a refresh one of the other."""
    with fail_after(80):
        async with running_daemon(tmp_path, cameras=1) as daemon:
            _, monitor = await daemon.create_key("monitor")
            _, key = await daemon.create_key("viewer")
            await add(daemon, "ann", "viewer")
            token = await log_in(daemon)
            before = await commits(daemon, monitor)
            assert before["trust"] > 0
            async with daemon.websocket() as client:
                for _ in range(TIMES):
                    await client.call("authenticate", auth_token=key)
                    await client.call("authenticate", auth_token=token)
                    token = (await client.call("refresh_token"))["token"]
                    await client.call("introspect_token", token=token)
                    await client.call("refresh_token", token=token)
                    await client.ask("create_ticket", device="camera0", ttl=5)
                    await client.call("whoami")
                    await client.call("list_sessions")
                    await client.ask("create_key", name="k", role="viewer")
                    await daemon.request("GET", "/api/cameras", key=key)
            after = await commits(daemon, monitor)
    # The refreshes took ten seconds or more only on a machine that is very slow: one more for each ten.
    assert after["trust"] - before["trust"] <= 4
    assert after["usage"] - before["usage"] <= 3


async def test_a_key_that_rotates_itself_in_a_loop_is_slowed_down(tmp_path: Path) -> None:
    """Each rotation is a commit that must be durable; an administrator, who may have to, is not held up."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            _, monitor = await daemon.create_key("monitor")
            key_id, key = await daemon.create_key("viewer")
            _, admin = await daemon.create_key("admin")
            path, body = f"/api/keys/{key_id}/rotate", {"grace_seconds": 0}
            before, statuses = await commits(daemon, monitor), []
            for _ in range(TIMES):
                told = await daemon.request("POST", path, key=key, body=body)
                statuses.append(told.status)
                key = told.json.get("api_key", key)
            after = await commits(daemon, monitor)
            assert 10 <= statuses.count(200) <= 20
            assert set(statuses) == {200, 429}
            assert after["trust"] - before["trust"] <= statuses.count(200)
            assert (await daemon.request("GET", "/api/cameras", key=key)).status == 200
            assert (await daemon.request("POST", path, key=admin, body=body)).status == 200
