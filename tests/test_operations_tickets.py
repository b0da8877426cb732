"""operations/tickets.py: for whom a ticket is made, how long it is good, and in which addresses it stands."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from msgspec.structs import replace
from operations_helpers import GATE, NOW, YARD, Bench
from web_helpers import REMOTE

from edged.clock import iso
from edged.credentials.callers import Peer, Resource, Ticket
from edged.mediamtx.server_state import ServerState
from edged.operations.own_urls import OwnUrls

READY = ServerState(
    "ready", rtsp_port=8554, hls_port=8888, webrtc_port=8889, rtmp_port=1935, srt_port=8890,
    addresses={"rtsp": ":8554"},
)  # fmt: skip
HERE = dataclasses.replace(REMOTE, host="192.0.2.1", reached="192.0.2.1:8002")


class Box:
    """A bench with all protocols."""

    def __init__(self, state: ServerState = READY, public_url: str = "") -> None:
        self.bench = Bench(GATE, YARD, mediamtx=SimpleNamespace(state=state), own_urls=OwnUrls(public_url, 8002))

    async def make(self, caller: Any, peer: Peer = HERE, **params: Any) -> Any:
        given = {"device": "camera0", **params}
        return await self.bench.ask(self.bench.session(caller, peer), "create_ticket", **given)

    def may(self, ticket: str, capability: str, camera: str) -> bool:
        """Whether whoever comes with a ticket may do this to a camera."""
        holder = self.bench.gate.authenticate_viewer(Ticket(ticket), "rtsp")
        return self.bench.gate.judge(holder, capability, Resource.of_camera(camera)).allowed


async def test_a_ticket_permits_one_action_on_one_camera() -> None:
    """Each is another."""
    box = Box()
    caller = box.bench.caller("admin")
    first, second = await box.make(caller, device="gate"), await box.make(caller, action="publish")
    assert first.ticket != second.ticket
    for ticket, action, other in ((first.ticket, "stream:read", "stream:publish"),
                                  (second.ticket, "stream:publish", "stream:read")):  # fmt: skip
        assert box.may(ticket, action, "camera0")
        assert not box.may(ticket, action, "camera1")
        assert not box.may(ticket, other, "camera0")
        assert not box.may(ticket, "camera:read", "camera0")


@pytest.mark.parametrize(
    ("role", "values", "params", "outcome"),
    [
        ("viewer", {}, {}, "ok"),
        ("viewer", {"camera_access": ("camera1",)}, {"device": "camera1"}, "ok"),
        ("viewer", {"camera_access": ("camera1",)}, {}, "camera_not_found"),
        ("viewer", {}, {"device": "camera9"}, "camera_not_found"),
        ("viewer", {}, {"action": "publish"}, "missing_scope"),
        ("monitor", {}, {}, "missing_scope"),
        ("admin", {}, {"action": "delete"}, "invalid_params"),
        ("admin", {}, {"ttl": 4}, "invalid_params"),
        ("admin", {}, {"ttl": 3601}, "invalid_params"),
    ],
)
async def test_a_ticket_is_for_whoever_may_do_that_to_the_camera(
    role: str, values: Any, params: dict[str, Any], outcome: str
) -> None:
    box = Box()
    given = {"device": "camera0", **params}
    assert await box.bench.outcome(box.bench.caller(role, **values), "create_ticket", **given) == outcome


async def test_a_ticket_ends_after_its_time_and_no_later_than_its_credential() -> None:
    box = Box()
    assert (await box.make(box.bench.caller(), ttl=300)).expires_at == iso(NOW + 300)
    made = await box.make(box.bench.caller(expires_at=NOW + 30), ttl=300)
    assert made.expires_at == iso(NOW + 30)
    assert box.may(made.ticket, "stream:read", "camera0")
    box.bench.time += 31
    with pytest.raises(Exception, match="expired"):
        box.may(made.ticket, "stream:read", "camera0")


async def test_every_address_to_read_holds_the_ticket_where_its_protocol_takes_it() -> None:
    """In the query, or as the password of SRT's stream id; HLS at the playlist that players want."""
    box = Box()
    made = await box.make(box.bench.caller())
    assert list(made.urls) == ["rtsp", "hls", "webrtc", "rtmp", "srt", "live"]
    assert made.url == made.urls["rtsp"]
    for name, url in made.urls.items():
        parts = urlsplit(url)
        assert parts.netloc.partition(":")[0] == ("" if name == "live" else "192.0.2.1")
        if name == "srt":
            assert parts.query == f"streamid=read:gate:x:{made.ticket}"
        else:
            assert dict(parse_qsl(parts.query)) == {"ticket": made.ticket}
    assert urlsplit(made.urls["hls"]).path == "/gate/index.m3u8"
    assert urlsplit(made.urls["live"]).path == "/api/cameras/camera0/live.mjpeg"


async def test_addresses_to_publish_to_are_of_protocols_that_take_publishers() -> None:
    box = Box()
    made = await box.make(box.bench.caller("admin"), action="publish")
    assert list(made.urls) == ["rtsp", "rtmp", "srt", "whip"]
    assert urlsplit(made.urls["whip"]).path == "/gate/whip"
    assert "streamid=publish:gate:x:" in made.urls["srt"]


@pytest.mark.parametrize(
    ("peer", "state", "public"),
    [
        (dataclasses.replace(HERE, host="evil.example", proxy="192.0.2.9"), READY, ""),
        (HERE, replace(READY, status="off"), ""),
    ],
)
async def test_where_no_address_is_ours_the_ticket_stands_in_that_of_the_live_picture_alone(
    peer: Peer, state: ServerState, public: str
) -> None:
    """A path on the listener of the call: it goes to nobody else."""
    box = Box(state, public)
    made = await box.make(box.bench.caller(), peer)
    assert list(made.urls) == ["live"]
    assert (await box.make(box.bench.caller("admin"), peer, action="publish")).urls == {}


async def test_a_ticket_is_sent_to_the_public_name_where_there_is_one() -> None:
    box = Box(public_url="https://box.example")
    made = await box.make(box.bench.caller(), dataclasses.replace(HERE, host="evil.example"))
    assert urlsplit(made.url).hostname == "box.example"
