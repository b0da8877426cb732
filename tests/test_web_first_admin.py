"""web/first_admin.py and its rule: a new box is claimed by its code, and not through another site's page."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
from daemon_helpers import Reply, RunningDaemon, port_of, running_daemon
from patience import fail_after
from planted import plant
from starlette.datastructures import Headers

from edged.accounts.passwords import Passwords
from edged.operations.own_urls import list_names
from edged.web.credentials import is_own_page

OWN = frozenset({"box", "box.local"})


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "192.0.2.4:8002"},
        {"host": "192.0.2.4"},
        {"host": "[2001:db8::1]:8002"},
        {"host": "[2001:db8::1]"},
        {"host": "localhost:8002"},
        {"host": "LOCALHOST"},
        {"host": "Box.local.:8080"},
        {"host": "box"},
        {"host": "box:8002", "origin": "http://box:8002"},
        {"host": "192.0.2.4:8002", "origin": "http://192.0.2.4:8002", "sec-fetch-site": "same-origin"},
        {"host": "Box", "origin": "https://BOX"},
        {"host": "192.0.2.4", "sec-fetch-site": "none"},
    ],
)
def test_a_page_of_the_box_itself_may_ask(headers: dict[str, str]) -> None:
    """By an address, localhost or its own name, and programs without an Origin."""
    assert is_own_page(Headers(headers), OWN)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": ":8002"},
        {"host": "rebound.example:8002"},
        {"host": "rebound.example:8002", "origin": "http://rebound.example:8002", "sec-fetch-site": "same-origin"},
        {"host": "localhost.example"},
        {"host": "192.0.2.4.example"},
        {"host": "192.0.2.4@evil.example"},
        {"host": "box.example"},
        {"host": "evil.local"},
        {"host": "192.0.2.4:8002", "origin": "http://evil.example"},
        {"host": "192.0.2.4:8002", "origin": "http://192.0.2.4:8080"},
        {"host": "192.0.2.4:8002", "origin": "http://192.0.2.4"},
        {"host": "192.0.2.4:8002", "origin": "null"},
        {"host": "192.0.2.4:8002", "origin": "file://192.0.2.4:8002"},
        {"host": "192.0.2.4:8002", "origin": ""},
        {"host": "192.0.2.4:8002", "sec-fetch-site": "cross-site"},
        {"host": "192.0.2.4:8002", "sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_site_may_not_whatever_its_name_points_at_now(headers: dict[str, str]) -> None:
    """A name that DNS rebinds to this box is not the box's name."""
    assert not is_own_page(Headers(headers), OWN)


@pytest.mark.parametrize("name", ["host", "origin"])
def test_two_of_a_kind_are_refused(name: str) -> None:
    """Nobody knows which of them a proxy went by."""
    raw = [(b"host", b"box"), (name.encode(), b"box" if name == "host" else b"http://box")]
    twice = [*raw, raw[-1]]
    assert is_own_page(Headers(raw=raw[: 1 if name == "host" else 2]), OWN)
    assert not is_own_page(Headers(raw=twice), OWN)


def test_the_box_knows_its_names_without_asking_dns() -> None:
    """What `hostname` says, without its domain, and as mDNS tells it."""
    name = os.uname().nodename.lower()
    names = list_names(os.uname().nodename)
    assert {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"} == names
    assert list_names("Gate.Example.net") == {"gate.example.net", "gate", "gate.local"}
    assert list_names("") == frozenset()


# --- the whole way ------------------------------------------------------------------------------------------------

GOOD = {"username": "ada", "password": "a long passphrase"}


def code_of(daemon: RunningDaemon) -> str:
    return plant((daemon.config.paths.runtime / "claim").read_text().strip(), "the claim code")


async def claim(daemon: RunningDaemon, code: str, **params: object) -> Reply:
    return await daemon.request("POST", "/api/claim", body={"code": code, **GOOD, **params})


async def test_a_new_box_is_claimed_once(tmp_path: Path) -> None:
    """The code makes an administrator who can log in; the file is gone, and the code is worth nothing any more."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            code = code_of(daemon)
            told = await claim(daemon, code)
            assert (told.status, told.json) == (201, {"username": "ada", "role": "admin"})
            assert not (tmp_path / "run" / "claim").exists()
            again = await claim(daemon, code, username="eve")
            assert again.status == 401
            async with daemon.local() as admin:
                (user,) = (await admin.call("list_users"))["users"]
                assert (user["name"], user["role"]) == ("ada", "admin")
                assert (await admin.ask("create_claim_code"))["error"]["data"]["reason"] == "invalid_state"
        async with running_daemon(tmp_path, config=daemon.config):
            assert not (tmp_path / "run" / "claim").exists()


async def test_of_two_that_have_the_code_one_becomes_administrator(tmp_path: Path) -> None:
    """Both right, at the same moment: whoever is second is told that there is one."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            code, told = code_of(daemon), []

            async def run(name: str) -> None:
                told.append(await claim(daemon, code, username=name))

            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(run, f"user{number}")
            assert sorted(each.status for each in told).count(201) == 1
            assert {each.status for each in told} <= {201, 401, 409}
            async with daemon.local() as admin:
                assert len((await admin.call("list_users"))["users"]) == 1


async def test_whatever_is_wrong_with_a_code_is_told_in_the_same_words(tmp_path: Path) -> None:
    """Wrong, used up, never made: nobody learns which; and it stands under its own name in the metrics."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            code = code_of(daemon)
            told = [await claim(daemon, f"WRONG{number}") for number in range(5)]
            told.append(await claim(daemon, code))
            assert {(each.status, each.body) for each in told} == {(401, told[0].body)}
            assert "edged claim --new" in told[0].json["detail"]
            metrics = await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))
            assert _counted(metrics.body) == 6
            async with daemon.local() as admin:
                assert (await admin.call("list_users"))["users"] == []
                made = await admin.call("create_claim_code")
                assert made == {"path": str(tmp_path / "run" / "claim"), "expires_in": made["expires_in"]}
                assert 890 <= made["expires_in"] <= 900
            assert (await claim(daemon, code_of(daemon).lower())).status == 201


def _counted(body: bytes) -> int:
    """Refused claim codes in an exposition."""
    lines = [line for line in body.decode().splitlines() if "claim_code" in line and "auth_failures" in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"password": "short"}, "shorter than 8"),
        ({"password": "password123"}, "tried first"),
        ({"username": "a_lovely_name", "password": "A_Lovely_Name"}, "user name"),
        ({"username": "../etc"}, "no name for a user"),
    ],
)
async def test_a_right_code_survives_a_bad_name_or_password(tmp_path: Path, params: dict[str, str], said: str) -> None:
    """They are told what is wrong, and try again with the same code."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            code = code_of(daemon)
            told = await claim(daemon, code, **params)
            assert told.status == 400
            assert said in told.json["detail"]
            assert (await claim(daemon, code)).status == 201


async def test_a_page_that_rebound_its_name_cannot_claim_the_box(tmp_path: Path) -> None:
    """Not even with the right code; nor can a form, which needs no permission of the browser."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            code = code_of(daemon)
            for headers in (
                {"Host": f"rebound.example:{daemon.port}", "Origin": f"http://rebound.example:{daemon.port}"},
                {"Origin": "http://evil.example"},
            ):
                told = await daemon.request("POST", "/api/claim", body={"code": code, **GOOD}, headers=headers)
                assert (told.status, told.json["code"]) == (403, "origin_denied")
                assert "through a page of another site" in told.json["detail"]
                assert "by its own name" in told.json["detail"]
                assert "credential" not in told.body.decode(), "none would help"
                assert "www-authenticate" not in told.headers
            form = {"Content-Type": "text/plain"}
            assert (await daemon.request("POST", "/api/claim", body={"code": code, **GOOD}, headers=form)).status == 415
            own = {"Origin": f"http://127.0.0.1:{daemon.port}"}
            assert (await daemon.request("POST", "/api/claim", body={"code": code, **GOOD}, headers=own)).status == 201


async def test_on_the_unix_socket_no_code_is_needed(tmp_path: Path) -> None:
    """Strangers have used it up: the box is claimed all the same, once."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            for number in range(5):
                assert (await claim(daemon, f"WRONG{number}")).status == 401
            assert (await admin.call("claim", **GOOD))["role"] == "admin"
            again = await admin.ask("claim", **GOOD | {"username": "eve"})
            assert again["error"]["data"]["reason"] == "invalid_state"
            assert (await daemon.request("POST", "/api/claim", body=GOOD)).status == 401


async def test_a_code_that_is_withdrawn_while_the_password_is_hashed_makes_nobody_administrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code leaked, and root makes another: whoever was on the way with the old one is too late."""
    hashing, go_on, plain = trio.Event(), trio.Event(), Passwords.hash

    async def held_up(self: Passwords, text: str) -> str:
        hashing.set()
        await go_on.wait()
        return await plain(self, text)

    monkeypatch.setattr(Passwords, "hash", held_up)
    told: list[Reply] = []
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.local() as admin:
            old = code_of(daemon)
            async with trio.open_nursery() as nursery:

                async def run() -> None:
                    told.append(await claim(daemon, old))

                nursery.start_soon(run)
                await hashing.wait()
                await admin.call("create_claim_code")
                go_on.set()
            assert told[0].status == 409
            assert (await admin.call("list_users"))["users"] == []
            assert (await claim(daemon, code_of(daemon))).status == 201


async def test_a_box_is_not_claimed_on_a_websocket(tmp_path: Path) -> None:
    """Any page may open one (contract 10.14)."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon, daemon.websocket() as client:
            told = await client.ask("claim", code=code_of(daemon), **GOOD)
            assert told["error"]["code"] == -32601
            assert (await client.ask("create_claim_code"))["error"]["data"]["reason"] == "auth_required"


async def test_guessing_codes_costs_time_on_loopback_too(tmp_path: Path) -> None:
    """A proxy may sit there; a new code does not begin a new count of the address."""
    with fail_after(60):
        async with running_daemon(tmp_path) as daemon:
            statuses = []
            for number in range(12):
                statuses.append((await claim(daemon, f"GUESS{number:05}")).status)
            assert statuses[:10] == [401] * 10
            assert 429 in statuses[10:]


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 0.4])
async def test_whoever_hangs_up_has_claimed_the_box_or_not(tmp_path: Path, seconds: float) -> None:
    """Nothing between: an administrator and no code any more, or none, and the code is as good as before."""
    with fail_after(60):
        async with running_daemon(tmp_path, costly_passwords=True) as daemon:
            code = code_of(daemon)
            body = json.dumps({"code": code, **GOOD})
            head = ["POST /api/claim HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
            request = "\r\n".join([*head, f"Content-Length: {len(body)}", "", body])
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                await stream.send_all(request.encode())
                await trio.sleep(seconds)
            assert (await claim(daemon, code)).status in (201, 401, 409)
            async with daemon.local() as admin:
                (user,) = (await admin.call("list_users"))["users"]
                assert (user["name"], user["role"]) == ("ada", "admin")
            assert not (tmp_path / "run" / "claim").exists()
