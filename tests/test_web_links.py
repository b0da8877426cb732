"""Signed links over HTTP: what they open, for whom, and what ends them."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from web_helpers import REMOTE, UNIX, Site

from edged.access.links import MOST_OF_ONE, Links
from edged.credentials.callers import Link
from edged.credentials.identities import Identity
from edged.credentials.links import target_of
from edged.errors import RateLimited
from edged.library.snapshots import Snapshots
from edged.operations.caller_sessions import Session
from edged.operations.links import with_links

PICTURE = b"\xff\xd8" + bytes(range(256)) * 800 + b"\xff\xd9"


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def site(tmp_path: Path, time: Time) -> Site:
    snapshots = Snapshots(tmp_path / "snapshots")
    site = Site(tmp_path, now=time, snapshots=snapshots)
    for name, camera in (("gate.jpg", "camera0"), ("path.jpg", "camera0"), ("yard.jpg", "camera1")):
        await snapshots.save(name, camera, PICTURE, "jpg", 1_800_000_000.0)
    return site


async def link_of(site: Site, key: str, name: str = "gate", **params: Any) -> str:
    body = {"filename": name, "kind": "snapshot", **params}
    reply = await site.ask("POST", "/api/links", key=key, json_body=body)
    assert reply.status == 201, reply.body
    assert reply.headers["cache-control"] == "no-store"
    return str(reply.json["url"])


def jti_of(token: str) -> str:
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])


async def test_a_link_opens_its_file_without_a_header(site: Site) -> None:
    """Any number of times, in ranges, and for HEAD; and it is told to no other site."""
    url = await link_of(site, site.key("viewer")[1])
    assert url.startswith("/files/snapshots/gate.jpg?exp=")
    for _ in range(2):
        reply = await site.ask("GET", url)
        assert (reply.status, reply.body) == (200, PICTURE)
        assert reply.headers["referrer-policy"] == "no-referrer"
    part = await site.ask("GET", url, headers={"Range": "bytes=2-5"})
    assert (part.status, part.body) == (206, PICTURE[2:6])
    head = await site.ask("HEAD", url)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(PICTURE)), b"")
    assert len(site.admissions) == 0


async def test_a_link_opens_nothing_else(site: Site) -> None:
    """No other file, no other method, no other route."""
    url = await link_of(site, site.key()[1])
    query = urlsplit(url).query
    for target in ("/files/snapshots/path.jpg", "/files/snapshots/gate", "/files/recordings/gate.jpg"):
        reply = await site.ask("GET", f"{target}?{query}")
        assert (reply.status, reply.json["code"]) == (401, "auth_failed")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await site.ask(method, url)).status == 405
    for target in ("/api/cameras", "/api/snapshots", "/api/cameras/camera0/snapshot.jpg"):
        assert (await site.ask("GET", f"{target}?{query}")).status == 401


PAGE = {"origin": "https://page.example"}
CORS = "access-control-allow-origin"


async def test_scripts_of_other_pages_may_read_what_a_link_opens_and_why_it_opens_nothing(site: Site) -> None:
    url = await link_of(site, site.key()[1])
    for method, headers, status in (
        ("GET", PAGE, 200), ("HEAD", PAGE, 200), ("GET", {**PAGE, "range": "bytes=0-9"}, 206),
        ("GET", {**PAGE, "range": "bytes=999999999-"}, 416),
    ):  # fmt: skip
        reply = await site.ask(method, url, headers=headers)
        assert (reply.status, reply.headers[CORS]) == (status, "*")
        assert reply.headers["access-control-expose-headers"] == "Accept-Ranges, Content-Length, Content-Range, ETag"
        assert "access-control-allow-credentials" not in reply.headers
    for wrong in (url[:-1], url.replace("gate", "yard")):
        reply = await site.ask("GET", wrong, headers=PAGE)
        assert (reply.status, reply.headers[CORS]) == (401, "*")
    asking = {**PAGE, "access-control-request-method": "GET", "access-control-request-headers": "range"}
    reply = await site.ask("OPTIONS", url, headers=asking)
    assert (reply.status, reply.headers[CORS], reply.body) == (204, "*", b"")
    assert reply.headers["access-control-allow-methods"] == "GET, HEAD"
    assert reply.headers["access-control-allow-headers"] == "Range, If-Range"


async def test_no_other_answer_is_for_the_scripts_of_other_pages(site: Site) -> None:
    """Neither by another credential, whether a link stands beside it or not, nor at another path."""
    key = site.key()[1]
    url = await link_of(site, key)
    path, _, query = url.partition("?")
    asking = {**PAGE, "access-control-request-method": "GET"}
    for method, target, headers, status in (
        ("GET", path, {**PAGE, "x-api-key": key}, 200), ("GET", url, {**PAGE, "x-api-key": key}, 200),
        ("GET", url, {**PAGE, "authorization": f"Bearer {key}"}, 200), ("GET", url, {**PAGE, "cookie": "a=b"}, 200),
        ("GET", path, PAGE, 401), ("GET", f"/api/cameras?{query}", PAGE, 401), ("GET", f"/api/keys?{query}", PAGE, 401),
        ("DELETE", url, PAGE, 405), ("OPTIONS", url, PAGE, 405), ("OPTIONS", path, asking, 405),
        ("OPTIONS", f"/api/cameras?{query}", asking, 405), ("OPTIONS", f"/nothing?{query}", asking, 404),
    ):  # fmt: skip
        reply = await site.ask(method, target, headers=headers)
        assert (reply.status, CORS in reply.headers) == (status, False), (method, target)


async def test_a_member_that_stands_twice_is_refused(site: Site) -> None:
    url = await link_of(site, site.key()[1])
    assert (await site.ask("GET", f"{url}&sig=x")).status == 400


@pytest.mark.parametrize("cut", [1, 20, 60])
async def test_a_link_that_was_cut_is_refused(site: Site, cut: int) -> None:
    url = await link_of(site, site.key()[1])
    assert (await site.ask("GET", url[:-cut])).status == 401


async def test_a_link_ends_after_its_time(site: Site, time: Time) -> None:
    url = await link_of(site, site.key()[1], ttl=60)
    time.now += 59
    assert (await site.ask("GET", url)).status == 200
    time.now += 1
    reply = await site.ask("GET", url)
    assert (reply.status, reply.json["code"]) == (401, "expired")


async def test_a_link_ends_with_the_key_that_made_it(site: Site) -> None:
    key_id, key = site.key("viewer")
    url = await link_of(site, key)
    other = await link_of(site, site.key("viewer")[1])
    assert (await site.ask("DELETE", f"/api/keys/{key_id}", key=site.key()[1])).status == 200
    reply = await site.ask("GET", url)
    assert (reply.status, reply.json["code"]) == (401, "revoked")
    assert (await site.ask("GET", other)).status == 200


async def test_a_transfer_by_a_link_ends_with_the_key_that_made_it(site: Site) -> None:
    key_id, key = site.key("viewer")
    url, admin = await link_of(site, key), site.key()[1]

    async def revoke(_reply: object) -> None:
        await site.ask("DELETE", f"/api/keys/{key_id}", key=admin)

    reply = await site.ask("GET", url, on_part=revoke)
    assert reply.status == 200
    assert not reply.complete
    assert len(reply.body) < len(PICTURE)


@pytest.mark.parametrize(
    "names", [lambda jti: Identity.of_jti("", jti), lambda _jti: Identity.of_user("ada"), Identity.of_any_jti]
)
async def test_a_link_ends_with_the_token_that_made_it(site: Site, names: Callable[[str], Identity]) -> None:
    token = site.token("viewer")
    url = await link_of(site, token)
    assert (await site.ask("GET", url)).status == 200
    site.ledger.deny([names(jti_of(token))])
    assert (await site.ask("GET", url)).json["code"] == "revoked"


async def test_a_link_ends_with_the_family_of_the_token_that_made_it(site: Site) -> None:
    """Its successor is revoked; the token itself was not named."""
    token = site.token("viewer")
    first, second = Identity.of_jti("", jti_of(token)), Identity.of_jti("", "j2")
    url = await link_of(site, token)
    site.ledger.denials.join(Identity.of_family("f"), 0.0, 2e9, [first])
    site.ledger.denials.join(Identity.of_family("f"), 0.0, 2e9, [second])
    assert (await site.ask("GET", url)).status == 200
    site.ledger.deny([second])
    assert (await site.ask("GET", url)).json["code"] == "revoked"


async def test_a_link_ends_with_the_life_of_the_token_that_made_it(site: Site, time: Time) -> None:
    body = {"filename": "gate", "kind": "snapshot", "ttl": 600}
    reply = await site.ask("POST", "/api/links", key=site.token("viewer", expires_in=60), json_body=body)
    assert reply.json["expires_at"] == "2027-01-15T08:01:00Z"
    time.now += 61
    assert (await site.ask("GET", reply.json["url"])).json["code"] == "expired"


async def test_a_link_ends_with_the_right_of_its_maker_to_see_the_camera(site: Site) -> None:
    key_id, key = site.key("viewer")
    url = await link_of(site, key)
    site.ledger.put_key(replace(site.ledger.keys[key_id], camera_access=("camera1",)))
    assert (await site.ask("GET", url)).status == 404
    site.ledger.put_key(replace(site.ledger.keys[key_id], camera_access=None, role="monitor"))
    assert (await site.ask("GET", url)).status == 403


async def test_nobody_makes_a_link_to_what_they_may_not_see(site: Site) -> None:
    key = site.key("viewer", camera_access=("camera1",))[1]
    for name, status in (("gate", 404), ("none", 404), ("../x", 400), ("yard", 201)):
        reply = await site.ask("POST", "/api/links", key=key, json_body={"filename": name, "kind": "snapshot"})
        assert reply.status == status
    assert (await site.ask("POST", "/api/links", key=site.key("monitor")[1], json_body={"filename": "x"})).status == 403


async def test_a_good_header_counts_before_a_link(site: Site) -> None:
    key = site.key("viewer")[1]
    assert (await site.ask("GET", "/files/snapshots/gate.jpg?exp=1&by=x&sig=y", key=key)).status == 200
    url = await link_of(site, key)
    assert (await site.ask("GET", url, key="wrong")).status == 401


async def test_links_of_another_start_are_nobody_s(site: Site, time: Time) -> None:
    """The key and the makers live as long as the process."""
    key_id, _ = site.key()
    caller = site.ledger.find_key(site.ledger.keys[key_id].digest)
    assert caller is not None
    before, after = Links(time), Links(time)
    target = target_of("/files/snapshots/gate.jpg", ())
    said = dict(pair.split("=") for pair in before.signer(caller, 60)(target).split("&"))
    link = Link(target, said["exp"], said["by"], said["sig"])
    after.signer(caller, 60)
    assert before.find(link) is not None
    assert after.find(link) is None


async def test_links_by_too_many_credentials_are_refused_until_the_first_have_ended(site: Site, time: Time) -> None:
    key_id, _ = site.key()
    caller = site.ledger.find_key(site.ledger.keys[key_id].digest)
    assert caller is not None
    made = Links(time)
    callers = [
        dataclasses.replace(caller, identities=frozenset({Identity.of_user(str(at))})) for at in range(MOST_OF_ONE + 1)
    ]
    for each in callers[:-1]:
        made.signer(each, 60)
        made.signer(each, 60)
    with pytest.raises(RateLimited):
        made.signer(callers[-1], 60)
    time.now += 60
    made.signer(callers[-1], 60)


async def test_clients_that_open_links_as_they_are_get_signed_ones(site: Site) -> None:
    """One file and a list; on the unix socket, and of other results, nothing changes."""
    key_id, _ = site.key("viewer")
    session = Session(dataclasses.replace(REMOTE, reached="192.0.2.1:8002"), "ws")
    session.caller = site.ledger.find_key(site.ledger.keys[key_id].digest)

    async def call(operation: str, **params: Any) -> Any:
        return await site.catalogue.call(operation, params, site.services, session)

    listed = await call("list_snapshots")
    shown = await with_links(listed, site.services, session)
    assert len(shown.files) == 3
    one = await with_links(await call("get_snapshot_info", filename="gate"), site.services, session)
    for row in (one, *shown.files):
        url = urlsplit(row.download_url)
        assert (url.scheme, url.netloc) == ("http", "192.0.2.1:8002")
        assert (await site.ask("GET", f"{url.path}?{url.query}")).status == 200
    whoami = await call("whoami")
    assert await with_links(whoami, site.services, session) is whoami
    local = Session(UNIX, "uds")
    local.caller = session.caller
    assert await with_links(listed, site.services, local) is listed
