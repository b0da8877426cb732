"""A whole daemon under guesses from many addresses: whom it holds up, whom not, and what a restart changes."""

from __future__ import annotations

import http.client
import json
from functools import partial
from pathlib import Path
from typing import Any

import trio
from daemon_helpers import RunningDaemon, running_daemon
from patience import fail_after
from planted import plant

PASSWORD = plant("what ann has chosen", "ann's password")
HOME, CAFE = "127.0.0.2", "127.0.0.3"


def ask(port: int, address: str, body: dict[str, str]) -> tuple[int, dict[str, str], Any]:
    """POST /api/token from one of the addresses of loopback, none of which is exempt for passwords."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(address, 0))
    connection.request("POST", "/api/token", json.dumps(body), {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        told = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return told


async def log_in(daemon: RunningDaemon, address: str, password: str = PASSWORD, name: str = "ann") -> int:
    """The status of the answer."""
    work = partial(ask, daemon.port, address, {"username": name, "password": password})
    return (await trio.to_thread.run_sync(work))[0]


async def make_ann(daemon: RunningDaemon) -> None:
    async with daemon.local() as admin:
        await admin.call("create_user", name="ann", role="viewer", password=PASSWORD)


async def test_a_user_under_attack_keeps_access_from_where_they_came_in_before(tmp_path: Path) -> None:
    """Ten addresses guess at ann's password, each of them once: a stranger waits, ann at home does not, nor after a
    restart, and the stranger no longer than before it."""
    with fail_after(80):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await make_ann(daemon)
            assert await log_in(daemon, HOME) == 200
            for number in range(10):
                assert await log_in(daemon, f"127.0.1.{number}", f"a guess {number}") == 401
            # However slow this machine is: each guess more doubles the wait, and each stranger is a new one.
            strangers = (f"127.0.2.{number}" for number in range(1, 30))
            while await log_in(daemon, stranger := next(strangers)) != 429:
                await log_in(daemon, stranger.replace("127.0.2", "127.0.3"), f"a guess from {stranger}")
            assert await log_in(daemon, stranger, name="bob") == 401
            assert await log_in(daemon, HOME) == 200
        async with running_daemon(tmp_path, config=daemon.config) as daemon:
            assert await log_in(daemon, HOME) == 200
            while await log_in(daemon, stranger) == 429:
                await trio.sleep(0.1)
            assert await log_in(daemon, stranger) == 200


async def test_one_mistyped_password_again_and_again_holds_nobody_up(tmp_path: Path) -> None:
    """A client with an old password in its settings does not lock its user out."""
    with fail_after(80):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await make_ann(daemon)
            for _ in range(25):
                assert await log_in(daemon, CAFE, "the old password") == 401
            assert await log_in(daemon, CAFE) == 200


async def test_an_address_that_guesses_waits_and_is_told_how_long(tmp_path: Path) -> None:
    """429 with Retry-After, whoever it names, in the metrics by axis; and a right password gets through later."""
    with fail_after(80):
        async with running_daemon(tmp_path, cameras=0) as daemon:
            await make_ann(daemon)
            for number in range(10):
                assert await log_in(daemon, CAFE, f"a guess {number}", f"user{number}") == 401
            status, number = 0, 10
            while status != 429:
                guess = {"username": "ann", "password": f"a guess {number}"}
                status, headers, _ = await trio.to_thread.run_sync(ask, daemon.port, CAFE, guess)
                number += 1
            assert int(headers["retry-after"]) >= 1
            assert await log_in(daemon, HOME) == 200
            told = await daemon.request("GET", "/metrics", port=int(daemon.config.listen.local[0].rpartition(":")[2]))
            assert b'edged_auth_throttled_total{axis="address"} 1.0' in told.body
            assert b'edged_auth_throttled_total{axis="subject"} 0.0' in told.body
            while await log_in(daemon, CAFE) == 429:
                await trio.sleep(0.1)
            assert await log_in(daemon, CAFE) == 200
