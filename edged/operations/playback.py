"""Playback of recorded times: playlists, and links to them (contract 10.27).

A player sends no header for what a playlist names: each segment stands in it as a signed link in the name of whoever
asked for the playlist, and is judged as such a link is, before each piece of it (kept_files).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
import trio
from msgspec import UNSET, UnsetType

from edged.clock import iso_exact
from edged.credentials.callers import Caller, Transport
from edged.credentials.links import CAPABILITY, target_of
from edged.errors import CameraNotFound
from edged.library.playlists import Playlist, find_playlist, write_playlist
from edged.operations.catalogue import OperationCall, operation
from edged.operations.evidence import segment_url
from edged.operations.file_params import confirmation, may, resource_of
from edged.operations.links import end_of, sign_url
from edged.operations.params import read_interval
from edged.operations.rest import create
from edged.operations.services import Services
from edged.operations.timeline import find_recorded

#: Seconds that a link to a playlist is good for, unless it is said.
USUAL: Final = 3600
#: Seconds that the links to segments are good for beside the time that they play: players pause. And at most.
_PAUSE: Final = 3600.0
_LONGEST: Final = 43_200.0
#: Links of a list that is fetched again are the same for an hour.
_STEP: Final = 3600.0


class CreatePlaybackLinkParams(msgspec.Struct, frozen=True):
    """Of which camera, from when to when (ISO 8601 with a zone, or Unix seconds); `ttl` seconds in which the list can
    be fetched: a player fetches one that grows again and again."""

    device: str
    start: str | float
    end: str | float
    ttl: Annotated[int, msgspec.Meta(ge=5, le=43_200)] = USUAL


class PlaybackLink(msgspec.Struct, frozen=True):
    """A link to an HLS playlist: `url` absolute, or a path where edged cannot know by what name it is reached.

    `seconds` is what is recorded of the time; `growing`: it is being recorded, and the list grows; `continues_at`: the
    start of another list, where this one ends before the time since the codecs change.
    """

    device: str
    url: str
    expires_at: str
    seconds: float
    growing: bool
    continues_at: str | UnsetType = UNSET


@operation(CAPABILITY, rest=create("/api/cameras/{device}/playback"), counted_as="create_ticket")
async def create_playback_link(call: OperationCall, params: CreatePlaybackLinkParams) -> PlaybackLink:
    """A URL of an HLS playlist of a recorded time, for a player that takes nothing but a URL.

    What is played by it ends with the credential of this call.
    """
    services = call.services
    camera = await find_recorded(call, params.device)
    begin, end = read_interval(params.start, params.end)
    playlist = await find_playlist(services.recordings, camera, begin, end, services.clock.system)
    confirmation(call, CAPABILITY, camera)()
    caller = call.session.caller
    assert caller is not None, "the gate lets nobody in without a caller"
    url = sign_url(
        services, caller, call.session.peer, f"/api/cameras/{camera}/playback.m3u8",
        (("start", iso_exact(begin)), ("end", iso_exact(end))), params.ttl,
    )  # fmt: skip
    return PlaybackLink(
        device=camera, url=url, expires_at=end_of(services, caller, params.ttl),
        seconds=round(playlist.seconds, 3), growing=playlist.is_growing,
        continues_at=UNSET if playlist.changed_at is None else iso_exact(playlist.changed_at),
    )  # fmt: skip


async def write_list(
    services: Services, caller: Caller, transport: Transport, device: str, read_times: Callable[[], tuple[str, str]]
) -> str:
    """The playlist of a time of a camera, which may be gone; `read_times` says which (as `read_moment`).

    Raises CameraNotFound, InvalidParams, NotFound, Refused, RateLimited, Overloaded.
    """
    known = services.cameras.find(device)
    # The recordings of a camera that is gone stay with those who may see it.
    camera = known.name if known else device
    if not may(services, caller, CAPABILITY, camera):
        raise CameraNotFound(device)
    begin, end = read_interval(*read_times())
    if known is None and camera not in await services.recordings.list_cameras():
        raise CameraNotFound(device)
    playlist = await find_playlist(services.recordings, camera, begin, end, services.clock.system)
    # To find it has taken its time.
    services.gate.authorize(caller, CAPABILITY, transport, resource_of(services, camera))
    sign = services.gate.links.signer(caller, _find_life(playlist, services.clock.now()))

    def url_of(file: str) -> str:
        target = target_of(segment_url(file), ())
        return f"{target}{sign(target)}"

    return await trio.to_thread.run_sync(write_playlist, playlist, url_of)


def _find_life(playlist: Playlist, now: float) -> float:
    """Seconds that the links of a playlist are good for."""
    ends = now + min(playlist.seconds + _PAUSE, _LONGEST)
    # A link says whole seconds: half of one decides between none of them.
    return math.ceil(ends / _STEP) * _STEP - now + 0.5
