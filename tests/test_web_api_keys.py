"""/api/keys over the real gate and catalogue: names and codes of the contract, and the rule for local root."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import times
from web_helpers import REMOTE, UNIX, Site, loopback

from edged.credentials.callers import Peer

SEED_BODY = b'{"name": "Service Key", "role": "operator"}'
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_creating_a_key_shows_its_secret_once(site: Site) -> None:
    """201 with exactly the names of the guide; no later answer holds the secret."""
    _, admin = site.key()
    made = await site.ask("POST", "/api/keys", headers=JSON, body=SEED_BODY, key=admin)
    assert made.status == 201
    assert made.json.keys() == {"key_id", "api_key", "name", "role", "created_at"}
    assert made.headers["cache-control"] == "no-store"
    assert made.headers["content-type"] == "application/json"
    listed = await site.ask("GET", "/api/keys", key=admin)
    shown = await site.ask("GET", f"/api/keys/{made.json['key_id']}", key=admin)
    assert made.json["key_id"] in {item["key_id"] for item in listed.json["keys"]}
    assert shown.json["name"] == "Service Key"
    assert made.json["api_key"].encode() not in listed.body + shown.body


async def test_a_key_of_30_days_says_when_it_ends(site: Site) -> None:
    """`expires_at` is there when there is an end."""
    made = await site.ask(
        "POST", "/api/keys", key=site.key()[1], json_body={"name": "a", "role": "viewer", "expires_in_days": 30}
    )
    assert datetime.fromisoformat(made.json["expires_at"]) > datetime.now(UTC)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "name"),
        (b"{", "cannot be read"),
        (b"[]", "object"),
        (b'{"name": "", "role": "viewer"}', "name"),
        (b'{"name": "x", "role": "owner"}', "role"),
        (b'{"name": "x", "role": "viewer", "expires_at": "tomorrow"}', "expires_at"),
        (b'{"name": "\xff", "role": "viewer"}', ""),
    ],
)
async def test_a_bad_body_is_400_and_named(site: Site, body: bytes, says: str) -> None:
    """What is wrong stands in `detail`; 422 is never used."""
    reply = await site.ask("POST", "/api/keys", headers=JSON, body=body, key=site.key()[1])
    assert reply.status == 400
    assert reply.json.keys() == {"error", "detail", "code"}
    assert reply.json["code"] == "invalid_params"
    assert says in reply.json["detail"]


async def test_a_body_that_does_not_say_json_is_415(site: Site) -> None:
    """A form is not a request for a key, not even an administrator's."""
    for path in ("/api/keys", f"/api/keys/{site.key()[0]}/rotate"):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = await site.ask("POST", path, headers=form, body=SEED_BODY, key=site.key()[1])
        assert (reply.status, reply.json["code"]) == (415, "unsupported_media_type")


async def test_the_list_can_be_narrowed(site: Site) -> None:
    """?role, ?status and ?unused_days, each refused when it makes no sense."""
    _, admin = site.key()
    site.key("viewer")
    site.key("viewer", revoked_at=1.0)
    for query, number in (("role=viewer", 2), ("status=revoked", 1), ("unused_days=0", 3), ("unused_days=1", 0)):
        listed = await site.ask("GET", f"/api/keys?{query}", key=admin)
        assert len(listed.json["keys"]) == number, query
    for query in ("role=owner", "status=lost"):
        reply = await site.ask("GET", f"/api/keys?{query}", key=admin)
        assert reply.status == 400, query


@pytest.mark.parametrize("text", ["many", "", "-1", "-0.1", "nan", "-nan", "inf", "-inf", "Infinity", "1e400", "36501"])
async def test_days_that_are_no_number_of_days_are_refused_by_name(site: Site, text: str) -> None:
    """No list is empty, or fails, because of how long somebody asked."""
    reply = await site.ask("GET", f"/api/keys?unused_days={text}", key=site.key()[1])
    assert (reply.status, reply.json["code"]) == (400, "invalid_params")
    assert reply.json["detail"] == "unused_days must be a number of days from 0 to 36500"


async def test_rotation_gives_both_names_of_the_new_secret(site: Site) -> None:
    """The id stays, the new secret works, and the body may be left out (contract S1-34)."""
    key_id, old = site.key("viewer")
    reply = await site.ask("POST", f"/api/keys/{key_id}/rotate", key=site.key()[1])
    assert reply.status == 200
    assert reply.json["key_id"] == key_id
    assert reply.json["api_key"] == reply.json["new_api_key"] != old
    assert reply.json.keys() >= {"name", "role", "created_at", "rotated_at", "previous_valid_until"}
    own = await site.ask("GET", f"/api/keys/{key_id}", key=reply.json["api_key"])
    assert own.status == 200


async def test_rotation_with_no_grace_ends_the_old_secret(site: Site) -> None:
    """`grace_seconds` 0 in the body; the key may rotate itself."""
    key_id, old = site.key("viewer")
    reply = await site.ask("POST", f"/api/keys/{key_id}/rotate", key=old, json_body={"grace_seconds": 0})
    assert reply.status == 200
    again = await site.ask("GET", f"/api/keys/{key_id}", key=old)
    assert (again.status, again.json["code"]) == (401, "expired")


@pytest.mark.parametrize("query", ["role=viewer&role=admin", "unused_days=1&unused_days=2", "owner=ann&owner=ann"])
async def test_a_filter_that_stands_twice_is_refused(site: Site, query: str) -> None:
    """A list that leaves out what was asked for looks like one that has no more."""
    _, admin = site.key()
    reply = await site.ask("GET", f"/api/keys?{query}", key=admin)
    assert (reply.status, reply.json["code"]) == (400, "invalid_params")
    assert "stands twice" in reply.json["detail"]


async def test_a_key_with_two_ends_is_not_made(site: Site) -> None:
    """Neither wins without a word: the answer names both."""
    _, admin = site.key()
    ends = {"expires_at": "2099-01-31T00:00:00Z", "expires_in_days": 5}
    reply = await site.ask("POST", "/api/keys", key=admin, json_body={"name": "x", "role": "viewer", **ends})
    assert (reply.status, reply.json["code"]) == (400, "invalid_params")
    assert all(name in reply.json["detail"] for name in ends)


async def test_the_path_names_the_key_and_not_the_body(site: Site) -> None:
    """A key cannot rotate another one by naming it in the body: two names are refused, one said twice is fine."""
    own, secret = site.key("viewer")
    other, _ = site.key("viewer")
    reply = await site.ask("POST", f"/api/keys/{own}/rotate", key=secret, json_body={"key_id": other})
    assert (reply.status, reply.json["code"]) == (400, "invalid_params")
    assert "key_id in the body" in reply.json["detail"]
    same = await site.ask("POST", f"/api/keys/{own}/rotate", key=secret, json_body={"key_id": own})
    assert same.json["key_id"] == own
    foreign = await site.ask("POST", f"/api/keys/{other}/rotate", key=secret, json_body={"key_id": own})
    assert foreign.status == 400
    foreign = await site.ask("POST", f"/api/keys/{other}/rotate", key=secret, json_body={})
    assert foreign.status == 403


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b'{"grace_seconds": -1}', b'{"grace_seconds": "1"}'])
async def test_a_bad_rotation_is_400(site: Site, body: bytes) -> None:
    """The old secret stays when the question makes no sense."""
    key_id, secret = site.key("viewer")
    reply = await site.ask("POST", f"/api/keys/{key_id}/rotate", key=secret, headers=JSON, body=body)
    assert reply.status == 400
    assert site.ledger.keys[key_id].rotated_at is None


async def test_rotating_a_revoked_key_is_409(site: Site) -> None:
    """It exists, but nothing can be done with it."""
    key_id, _ = site.key("viewer", revoked_at=1.0)
    reply = await site.ask("POST", f"/api/keys/{key_id}/rotate", key=site.key()[1])
    assert (reply.status, reply.json["code"]) == (409, "invalid_state")


async def test_revoking_is_200_twice_and_404_for_a_stranger(site: Site) -> None:
    """Again is fine; an id that never was is not."""
    key_id, secret = site.key("viewer")
    _, admin = site.key()
    for _ in range(2):
        reply = await site.ask("DELETE", f"/api/keys/{key_id}", key=admin)
        assert reply.status == 200
        assert reply.json == {"message": "API key revoked successfully", "key_id": key_id}
    assert (await site.ask("GET", f"/api/keys/{key_id}", key=secret)).json["code"] == "revoked"
    unknown = await site.ask("DELETE", "/api/keys/key_0000000000000000", key=admin)
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")


async def test_a_key_that_revokes_itself_gets_its_reply(site: Site) -> None:
    """The request is one answer; it is not cut off by what it did."""
    key_id, secret = site.key()
    reply = await site.ask("DELETE", f"/api/keys/{key_id}", key=secret)
    assert reply.status == 200
    assert (await site.ask("GET", "/api/keys", key=secret)).status == 401


async def test_who_may_not_is_told_403_and_what_is_needed(site: Site) -> None:
    """A viewer sees its own key and no other, and makes none."""
    own, secret = site.key("viewer")
    other, _ = site.key("viewer")
    assert (await site.ask("GET", f"/api/keys/{own}", key=secret)).status == 200
    for method, path in (("GET", f"/api/keys/{other}"), ("GET", "/api/keys"), ("DELETE", f"/api/keys/{own}")):
        reply = await site.ask(method, path, key=secret)
        assert (reply.status, reply.json["code"]) == (403, "permission_denied")
        assert "keys:admin" in reply.json["detail"]
        assert "viewer" in reply.json["detail"]
        assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "auth_required"),
        ({"Authorization": "Basic YTpi"}, "auth_required"),
        ({"Authorization": "Bearer"}, "auth_required"),
        ({"X-API-Key": ""}, "auth_required"),
        ({"Authorization": "Bearer camera_service_sk_" + "0" * 64}, "auth_failed"),
        ({"X-API-Key": "camera_service_sk_" + "0" * 64}, "auth_failed"),
        ({"X-API-Key": "a.b.c"}, "auth_failed"),
        ({"Authorization": "Bearer a.b.c"}, "auth_failed"),
    ],
)
async def test_without_a_good_credential_it_is_401(site: Site, headers: dict[str, str], code: str) -> None:
    """One word that says what to do, coarser than the log, and the scheme to use."""
    reply = await site.ask("POST", "/api/keys", headers={**JSON, **headers}, body=SEED_BODY)
    assert (reply.status, reply.json["code"]) == (401, code)
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert len(site.counts.failures) == 1, "counted once"
    assert not site.ledger.keys


@pytest.mark.parametrize("scheme", ["Basic YTpi", "Token abc", "camera_service_sk_0"])
async def test_a_scheme_that_is_not_taken_is_told_as_that(site: Site, scheme: str) -> None:
    """Whoever sent something learns why it did not count."""
    detail = (await site.ask("GET", "/api/keys", headers={"Authorization": scheme})).json["detail"]
    assert "the scheme of its Authorization is not taken here: send Authorization: Bearer" in detail
    assert scheme not in detail
    assert "scheme" not in (await site.ask("GET", "/api/keys")).json["detail"]


async def test_a_token_and_each_header_are_accepted(site: Site) -> None:
    """Bearer takes tokens and keys, X-API-Key keys."""
    _, admin = site.key()
    for headers in (
        {"Authorization": f"Bearer {site.token()}"},
        {"authorization": f"bearer  {admin} "},
        {"X-API-Key": admin},
    ):
        assert (await site.ask("GET", "/api/keys", headers=headers)).status == 200


# --- the credential-free rule -----------------------------------------------------------------------------------------


async def test_root_on_this_machine_needs_no_credential(site: Site) -> None:
    """The exact lines of the guide, as root: make, list, rotate without a body, delete."""
    root = loopback(0)
    made = await site.ask("POST", "/api/keys", headers=JSON, body=SEED_BODY, peer=root)
    assert made.status == 201
    key_id = made.json["key_id"]
    assert (await site.ask("GET", "/api/keys", peer=root)).status == 200
    assert (await site.ask("POST", f"/api/keys/{key_id}/rotate", peer=root)).status == 200
    assert (await site.ask("DELETE", f"/api/keys/{key_id}", peer=root)).status == 200
    assert ("peercred", "http", "admin") in site.counts.uses


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8002", "127.0.0.1:80", "[::1]:8002"])
async def test_local_names_are_local(site: Site, host: str) -> None:
    """Host may be any of the three names, with or without a port."""
    assert (await site.ask("GET", "/api/keys", headers={"Host": host}, peer=loopback(0))).status == 200


REFUSED = [
    ("another user", loopback(1000), {}),
    ("a user who cannot be known", loopback(None), {}),
    ("a remote peer", REMOTE, {}),
    ("root of another machine", Peer("main", "192.0.2.7", find_uid=lambda: 0), {}),
    ("no address", Peer("main", "", find_uid=lambda: 0), {}),
    ("a rebound name", loopback(0), {"Host": "box.example"}),
    ("a name that only begins right", loopback(0), {"Host": "localhost.example:80"}),
    ("no name", loopback(0), {"Host": ""}),
    ("a web page", loopback(0), {"Origin": "http://localhost:8002"}),
    ("a page of no origin", loopback(0), {"Origin": "null"}),
    ("a browser's own fetch", loopback(0), {"Sec-Fetch-Site": "none"}),
    ("a proxy", loopback(0), {"X-Forwarded-For": "192.0.2.7"}),
    ("a proxy that says its host", loopback(0), {"x-forwarded-host": "localhost"}),
    ("a proxy by Via", loopback(0), {"Via": "1.1 cache"}),
    ("a proxy by Forwarded", loopback(0), {"Forwarded": "for=192.0.2.7"}),
    ("a proxy by X-Real-IP", loopback(0), {"X-Real-IP": "192.0.2.7"}),
    ("a bad credential", loopback(0), {"Authorization": "Bearer camera_service_sk_" + "0" * 64}),
    ("an empty credential", loopback(0), {"X-API-Key": ""}),
]


@pytest.mark.parametrize(("peer", "headers"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_everybody_else_needs_one(site: Site, peer: Peer, headers: dict[str, str]) -> None:
    """Each of the five conditions alone is enough to be refused, on every method."""
    key_id, _ = site.key()
    for method, path in (("POST", "/api/keys"), ("GET", "/api/keys"), ("DELETE", f"/api/keys/{key_id}")):
        given = {**(JSON if method == "POST" else {}), **headers}
        reply = await site.ask(method, path, headers=given, body=SEED_BODY if method == "POST" else b"", peer=peer)
        assert reply.status == 401
    assert site.ledger.keys[key_id].revoked_at is None
    assert len(site.ledger.keys) == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
async def test_a_post_that_a_page_could_send_is_refused(site: Site, kind: str) -> None:
    """Only application/json, which a page cannot send across origins without asking first."""
    key_id, _ = site.key()
    for path, body in (("/api/keys", SEED_BODY), (f"/api/keys/{key_id}/rotate", b"")):
        reply = await site.ask("POST", path, headers={"Content-Type": kind}, body=body, peer=loopback(0))
        assert reply.status == 401
    assert (await site.ask("POST", f"/api/keys/{key_id}/rotate", body=b"{}", peer=loopback(0))).status == 401


async def test_two_hosts_are_nobodys(site: Site) -> None:
    """A request with two Host lines is not taken for local root's."""
    two = [("Host", "localhost"), ("Host", "evil.example")]
    assert (await site.ask("GET", "/api/keys", headers=two, peer=loopback(0))).status == 401


async def test_root_must_still_be_there_when_it_takes_effect(site: Site) -> None:
    """A socket that changed hands or was closed between the question and the effect has no authority."""
    answers = iter([0, None])
    gone = Peer("main", "127.0.0.1", find_uid=lambda: next(answers))
    reply = await site.ask("POST", "/api/keys", headers=JSON, body=SEED_BODY, peer=gone)
    assert (reply.status, reply.json["code"]) == (401, "auth_required")
    assert "sudo" in reply.json["detail"]
    assert not site.ledger.keys


async def test_root_has_no_such_right_elsewhere(site: Site) -> None:
    """Over TCP local authority exists for /api/keys only."""
    for path in ("/metrics", "/api/cameras/camera0/live.mjpeg"):
        assert (await site.ask("GET", path, peer=loopback(0))).status == 401


async def test_the_local_socket_is_admin_without_a_credential(site: Site) -> None:
    """The file mode has decided; a credential that is shown there counts before that."""
    assert (await site.ask("POST", "/api/keys", headers=JSON, body=SEED_BODY, peer=UNIX)).status == 201
    assert ("peercred", "uds", "admin") in site.counts.uses
    assert (await site.ask("GET", "/api/keys", peer=UNIX, key=site.key("viewer")[1])).status == 403
    assert (await site.ask("GET", "/api/keys", peer=UNIX, key="camera_service_sk_wrong")).status == 401
    assert (await site.ask("GET", "/api/keys", peer=UNIX, headers={"Authorization": "Basic eA=="})).status == 401
    assert (await site.ask("GET", "/api/keys", peer=Peer("unix"))).status == 200


@settings(max_examples=times(60, least=25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_no_body_is_an_exception(tmp_path: Path, body: bytes) -> None:
    """Whatever is posted, the answer is 201 or 400 and an object."""

    async def ask() -> None:
        site = Site(tmp_path)
        reply = await site.ask("POST", "/api/keys", headers=JSON, body=body, key=site.key()[1])
        assert reply.status in (201, 400)
        assert isinstance(reply.json, dict)

    trio.run(ask)
