"""Stream tickets: URLs for players that take nothing but a URL (contract 10.1, 10.12)."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

import msgspec

from edged.cameras.model import Camera
from edged.clock import iso
from edged.credentials.tickets import CAPABILITIES, Action
from edged.operations.catalogue import OperationCall, find_camera, operation
from edged.operations.listings import list_streams, srt_stream_id
from edged.operations.rest import create

#: Seconds: enough to hand a URL to a player; the longest is for displays that reconnect by themselves.
_USUAL: Final = 60
_SHORTEST: Final = 5
_LONGEST: Final = 3600
#: Protocols whose address also takes publishers; WHIP has one of its own beside WebRTC's (RFC 9725).
_TAKES_PUBLISHERS: Final = ("rtsp", "rtmp", "srt")


class CreateTicketParams(msgspec.Struct, frozen=True):
    """A camera, an action, and the life of the ticket in seconds (5 to 3600)."""

    device: str
    action: Action = "read"
    ttl: Annotated[int, msgspec.Meta(ge=_SHORTEST, le=_LONGEST)] = _USUAL


class NewTicket(msgspec.Struct, frozen=True):
    """The only reply with this ticket. `expires_at` ISO 8601; `url` is the first of `urls` by protocol.

    `urls` has the protocols that are switched on: rtsp, hls, webrtc, rtmp and srt to read; rtsp, rtmp, srt and whip to
    publish to. `live` is edged's own picture: a path on the listener of this call. It stands alone where a relay in
    between calls the box by a name that `listen.public_url` does not say.
    """

    ticket: str
    url: str
    expires_at: str
    urls: dict[str, str]


@operation("self", rest=create("/api/tickets"))
def create_ticket(call: OperationCall, params: CreateTicketParams) -> NewTicket:
    """A short text that permits one action on one camera, any number of times during its life, to whoever has it.

    Streams that it opened go on as long as the credential of this call is good, and end with it.
    """
    services, session, gate = call.services, call.session, call.services.gate
    camera = find_camera(CAPABILITIES[params.action], params.device, services, session)
    caller = session.caller
    assert caller is not None, "the gate lets nobody ask this without a caller"
    ticket = gate.tickets.make(caller, params.action, camera.name, params.ttl, session.id)
    left = gate.seconds_left(caller)
    urls = _urls(call, camera, params.action, ticket)
    return NewTicket(
        ticket=ticket,
        url=next(iter(urls.values()), ""),
        expires_at=iso(services.clock.now() + min(params.ttl, params.ttl if left is None else left)),
        urls=urls,
    )


def _urls(call: OperationCall, camera: Camera, action: Action, ticket: str) -> dict[str, str]:
    services, query = call.services, urlencode({"ticket": ticket})
    # A ticket goes to no host but ours.
    host = services.own_urls.ticket_host(call.session.peer)
    streams = list_streams(camera, host, services.mediamtx.state) if host else {}
    urls = {name: f"{url}?{query}" for name, url in streams.items()}
    if "srt" in streams:
        urls["srt"] = f"{streams['srt'].partition('?')[0]}?streamid={srt_stream_id(camera, action, ticket)}"
    if action == "publish":
        whip = {"whip": f"{streams['webrtc']}/whip?{query}"} if "webrtc" in streams else {}
        return {name: url for name, url in urls.items() if name in _TAKES_PUBLISHERS} | whip
    if "hls" in streams:
        # MediaMTX shows a page at the HLS address; players want the playlist.
        urls["hls"] = f"{streams['hls']}/index.m3u8?{query}"
    return {**urls, "live": f"/api/cameras/{camera.name}/live.mjpeg?{query}"}
