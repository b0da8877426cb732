"""At the endpoints: ten wrong keys or tokens of one address, and the next has to wait, as each endpoint words it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from rpc_helpers import Box, Client
from web_helpers import Site, loopback

from edged.access.limiter import GUESSES
from edged.credentials.callers import Peer
from edged.operations import streams
from edged.operations.streams import StreamRequest

STRANGER = "198.51.100.7"


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def box(time: Time) -> Box:
    box = Box()
    box.services.limiter._now = time
    return box


@pytest.fixture
async def site(tmp_path: Path, time: Time) -> Site:
    site = Site(tmp_path)
    site.services.limiter._now = time
    return site


def guess(box: Box, count: int = GUESSES, **where: Any) -> Client:
    """Wrong keys on connections of their own; then a new client from there."""
    where = where or {"address": STRANGER}
    for number in range(count):
        box.open(**where).ask("authenticate", {"token": f"wrong-key-{number}"})
    return box.open(**where)


@pytest.mark.parametrize(("member", "code"), [("token", -32002), ("auth_token", -32040)])
def test_a_guesser_on_websockets_is_told_to_wait_in_its_dialect(box: Box, time: Time, member: str, code: int) -> None:
    """New sockets help nothing, and the wait is no ban; a right key of the same address need not wait."""
    client, key = guess(box), box.make_key()
    answer = client.ask("authenticate", {member: "another-wrong-key"})
    assert answer["error"]["code"] == code
    assert answer["error"]["data"]["retry_after_ms"] == 1000
    assert box.open(address=STRANGER).enter(key)["authenticated"]
    time.now += 1.0
    told = box.open(address=STRANGER).ask("authenticate", {"auth_token": "another-wrong-key"})
    assert told["error"]["data"]["reason"] == "auth_failed"


def test_a_client_that_retries_one_bad_key_on_new_sockets_is_never_held_up(box: Box) -> None:
    """Clients of the guides try three times, and again every few seconds (contract C-43)."""
    for _ in range(100):
        told = box.open(address=STRANGER).ask("authenticate", {"auth_token": "the-old-key"})
        assert told["error"]["data"]["reason"] == "auth_failed"
    assert box.open(address=STRANGER).enter(box.make_key())["authenticated"]


def test_a_bad_credential_in_the_head_of_the_upgrade_is_no_guess(box: Box) -> None:
    """The client will be told by its own authenticate (contract C-42)."""
    for number in range(100):
        box.open(address=STRANGER, headers={"x-api-key": f"wrong-{number}", "authorization": f"Bearer wrong-{number}"})
    assert box.open(address=STRANGER).enter(box.make_key())["authenticated"]


def test_a_credential_with_each_call_is_a_guess_too(box: Box, time: Time) -> None:
    """Stateless clients are held up as others are."""
    for number in range(GUESSES):
        box.open(address=STRANGER).ask("get_camera_list", {"auth_token": f"wrong-{number}"})
    answer = box.open(address=STRANGER).ask("get_camera_list", {"auth_token": "wrong-again"})
    assert answer["error"]["code"] in (-32002, -32040)
    assert "result" not in answer
    assert "result" in box.open(address=STRANGER).ask("get_camera_list", {"auth_token": box.make_key()})


@pytest.mark.parametrize("where", [{"address": "127.0.0.1"}, {"address": "::1"}])
def test_wrong_keys_from_this_machine_hold_nobody_up(box: Box, where: dict[str, Any]) -> None:
    """Its clients are ours, or a proxy's many."""
    assert guess(box, 50, **where).enter(box.make_key())["authenticated"]


def test_a_session_that_is_in_stays_in_when_its_next_credential_comes_too_soon(box: Box) -> None:
    """A neighbour's guesses do not throw out who renews a token, nor who mistypes one just then."""
    client = box.open(address=STRANGER)
    assert client.enter(box.make_key())["authenticated"]
    guess(box)
    assert "error" in client.ask("authenticate", {"token": "mistyped"})
    assert "result" in client.ask("whoami")
    assert client.enter(box.make_token())["authenticated"]


async def test_a_guesser_over_http_gets_429_and_when_to_come_back(site: Site, time: Time) -> None:
    """Wrong ones are 401 until then; a right one is let in meanwhile."""
    _, key = site.key("viewer")
    for number in range(GUESSES):
        assert (await site.ask("GET", "/api/sessions", key=f"wrong-{number}")).status == 401
    told = await site.ask("GET", "/api/sessions", key="wrong-again")
    assert (told.status, told.headers["retry-after"]) == (429, "1")
    assert told.json["code"] == "rate_limited"
    assert (await site.ask("GET", "/api/sessions", key=key)).status == 200
    for elsewhere in (Peer("main", "203.0.113.9", 1), loopback(1000)):
        assert (await site.ask("GET", "/api/sessions", key="wrong-again", peer=elsewhere)).status == 401
    time.now += 1.0
    assert (await site.ask("GET", "/api/sessions", key="wrong-again")).status == 401


async def test_asking_without_a_credential_is_no_guess(site: Site) -> None:
    """Browsers do, before they ask their user."""
    for _ in range(50):
        assert (await site.ask("GET", "/api/sessions")).status == 401
    _, key = site.key("viewer")
    assert (await site.ask("GET", "/api/sessions", key=key)).status == 200


async def test_mediamtx_is_never_told_to_wait(site: Site) -> None:
    """All players share its questions, and it would hold up every one of them."""
    _, key = site.key("viewer")
    for number in range(50):
        question = StreamRequest("read", "camera0", "rtsp", password=f"wrong-{number}", ip=STRANGER)
        assert not streams.admit(site.services, question).allowed
    cast(Any, site.services.publishers).wake = lambda _path: None
    assert streams.admit(site.services, StreamRequest("read", "camera0", "rtsp", password=key, ip=STRANGER)).allowed
