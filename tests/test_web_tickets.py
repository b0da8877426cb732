"""POST /api/tickets, and the one HTTP endpoint that takes what it gives: the live picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio
from test_web_live import LIVE, Viewer, read_pictures
from trio.testing import MockClock
from web_helpers import REMOTE, UNIX, Site

from edged.credentials.tickets import is_ticket


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    state = site.mediamtx.state
    state.rtsp_port, state.hls_port, state.webrtc_port, state.rtmp_port, state.srt_port = 8554, 8888, None, None, None
    return site


async def ticket_of(site: Site, key: str, device: str = "camera0", **params: object) -> str:
    reply = await site.ask("POST", "/api/tickets", key=key, json_body={"device": device, **params})
    assert reply.status == 201, reply.body
    return str(reply.json["ticket"])


async def test_a_ticket_comes_with_urls_and_its_end(site: Site, autojump_clock: MockClock) -> None:
    """201, kept by nobody on the way; each URL is ready to be pasted."""
    reply = await site.ask("POST", "/api/tickets", key=site.key("viewer")[1], json_body={"device": "/dev/video0"})
    assert reply.status == 201
    assert reply.headers["cache-control"] == "no-store"
    told = reply.json
    assert told.keys() == {"ticket", "url", "expires_at", "urls"}
    assert is_ticket(told["ticket"])
    query = f"?ticket={told['ticket']}"
    assert told["urls"] == {
        "rtsp": f"rtsp://localhost:8554/camera0{query}",
        "hls": f"http://localhost:8888/camera0/index.m3u8{query}",
        "live": f"{LIVE}{query}",
    }
    assert told["url"] == told["urls"]["rtsp"]
    assert told["expires_at"].endswith("Z")


@pytest.mark.parametrize("host", ["localhost", "[::1]", "192.0.2.4"])
async def test_rtmp_and_srt_have_their_urls_where_they_are_switched_on(
    site: Site, autojump_clock: MockClock, host: str
) -> None:
    """RTMP takes the ticket as a query, SRT in its stream id; to publish as to read, and by an IPv6 address, too."""
    site.mediamtx.state.rtmp_port, site.mediamtx.state.srt_port = 1935, 8890
    key = site.key()[1]
    for action in ("read", "publish"):
        body = {"device": "camera0", "action": action}
        reply = await site.ask(
            "POST", "/api/tickets", key=key, json_body=body, peer=dataclasses.replace(REMOTE, host=host)
        )
        ticket, urls = reply.json["ticket"], reply.json["urls"]
        stream_id = f"{action}:camera0:x:{ticket}"
        assert list(urls) == (["rtsp", "hls", "rtmp", "srt", "live"] if action == "read" else ["rtsp", "rtmp", "srt"])
        assert urls["rtmp"] == f"rtmp://{host}:1935/camera0?ticket={ticket}"
        assert urls["srt"] == f"srt://{host}:8890?streamid={stream_id}"
        # mediamtx.md 3.5: a whole RTMP URL is cut at 1024, a stream id at 512 bytes.
        assert len(urls["rtmp"]) < 1024
        assert len(stream_id) < 512
        assert reply.json["url"] == urls["rtsp"]


async def test_without_mediamtx_there_is_edged_s_own_picture(site: Site, autojump_clock: MockClock) -> None:
    """And nothing to publish to."""
    site.mediamtx.state.status = "off"
    key = site.key()[1]
    for action, names in (("read", ["live"]), ("publish", [])):
        reply = await site.ask("POST", "/api/tickets", key=key, json_body={"device": "camera0", "action": action})
        assert list(reply.json["urls"]) == names
        assert reply.json["url"] == (f"{LIVE}?ticket={reply.json['ticket']}" if names else "")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_params"),
        ({"device": "camera0", "ttl": 4}, 400, "invalid_params"),
        ({"device": "camera0", "ttl": 3601}, 400, "invalid_params"),
        ({"device": "camera0", "action": "playback"}, 400, "invalid_params"),
        ({"device": "camera9"}, 404, "camera_not_found"),
        ({"device": "camera1"}, 404, "camera_not_found"),
        ({"device": "camera0", "action": "publish"}, 403, "permission_denied"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_the_reason(
    site: Site, autojump_clock: MockClock, body: dict[str, object], status: int, code: str
) -> None:
    """A viewer of camera0 alone; what it may not do itself no ticket does for it."""
    key = site.key("viewer", camera_access=("camera0",))[1]
    reply = await site.ask("POST", "/api/tickets", key=key, json_body=body)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert len(site.gate.tickets) == 0


async def test_a_ticket_needs_a_credential_and_json(site: Site, autojump_clock: MockClock) -> None:
    """Root's rule of /api/keys holds for keys only; a web page cannot post a form here."""
    assert (await site.ask("POST", "/api/tickets", json_body={"device": "camera0"})).status == 401
    form = {"Content-Type": "text/plain"}
    assert (await site.ask("POST", "/api/tickets", key=site.key()[1], body=b"{}", headers=form)).status == 415
    local = await site.ask("POST", "/api/tickets", peer=UNIX, json_body={"device": "camera0"})
    assert local.status == 201


async def test_an_img_tag_shows_the_picture_by_a_ticket(site: Site, autojump_clock: MockClock) -> None:
    """It can send no header; the ticket's minute may pass while it looks."""
    ticket = await ticket_of(site, site.key("viewer")[1], ttl=5)
    viewer = Viewer(40)
    reply = await viewer.watch(site, f"{LIVE}?ticket={ticket}", key="")
    assert reply.status == 200
    assert len(read_pictures(reply.body, "edged-picture")) >= 39
    assert viewer.times[-1] - viewer.times[0] > 5
    again = await site.ask("GET", f"{LIVE}?ticket={ticket}")
    assert (again.status, again.json["code"]) == (401, "expired")


async def test_another_camera_s_picture_is_not_there(site: Site, autojump_clock: MockClock) -> None:
    """404, as for any camera that the caller may not see; also with a ticket to publish."""
    key = site.key()[1]
    ticket = await ticket_of(site, key)
    reply = await site.ask("GET", f"/api/cameras/camera1/live.mjpeg?ticket={ticket}")
    assert (reply.status, reply.json["code"]) == (404, "camera_not_found")
    publish = await ticket_of(site, key, action="publish")
    assert (await site.ask("GET", f"{LIVE}?ticket={publish}")).status == 404


async def test_the_revocation_of_the_key_ends_the_picture_of_its_ticket(site: Site, autojump_clock: MockClock) -> None:
    """At once, and the ticket opens nothing any more."""
    key_id, key = site.key("viewer")
    ticket = await ticket_of(site, key)
    async with trio.open_nursery() as nursery:

        async def revoke() -> None:
            await trio.sleep(3.05)
            assert (await site.ask("DELETE", f"/api/keys/{key_id}", key=site.key()[1])).status == 200

        nursery.start_soon(revoke)
        began = trio.current_time()
        reply = await site.ask("GET", f"{LIVE}?ticket={ticket}")
        assert trio.current_time() - began == pytest.approx(3.05, abs=0.01)
    assert reply.complete
    assert len(site.admissions) == 0
    assert (await site.ask("GET", f"{LIVE}?ticket={ticket}")).json["code"] == "revoked"


async def test_no_other_endpoint_takes_a_ticket(site: Site, autojump_clock: MockClock) -> None:
    """Neither in the query of another route, nor in a header anywhere, the live picture's included."""
    ticket = await ticket_of(site, site.key()[1])
    for path in ("/api/keys", "/metrics", "/files/snapshots/x.jpg"):
        assert (await site.ask("GET", f"{path}?ticket={ticket}")).status == 401
        assert (await site.ask("GET", path, key=ticket)).status == 401
        assert (await site.ask("GET", path, headers={"X-API-Key": ticket})).status == 401
    assert (await site.ask("GET", LIVE, key=ticket)).status == 401
    assert (await site.ask("POST", f"/api/tickets?ticket={ticket}", json_body={"device": "camera0"})).status == 401
    for other in ("token", "jwt", "key"):
        assert (await site.ask("GET", f"{LIVE}?{other}={ticket}")).status == 401


@pytest.mark.parametrize("shown", ["", "x", "edged_ticket_" + "A" * 43, "%00", "camera_service_sk_" + "0" * 64])
async def test_what_is_no_ticket_is_401(site: Site, autojump_clock: MockClock, shown: str) -> None:
    """A good key in the URL is none either: URLs end in logs."""
    assert (await site.ask("GET", f"{LIVE}?ticket={shown}")).status == 401
    assert (await site.ask("GET", f"{LIVE}?ticket={site.key()[1]}")).status == 401
