"""Cameras as replies and notifications show them, and the lists that were made last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from edged.cameras.model import Camera, Status
from edged.credentials.callers import Caller
from edged.library.active_recordings import ActiveRecording
from edged.mediamtx.addresses import host_of
from edged.mediamtx.server_state import ServerState
from edged.urls import is_loopback

#: What a camera of edged can do for a caller, as the list of guide S1's clients (contract C-16).
_ABILITIES = ("snapshot", "stream")
_MOST_LISTS = 64


class CameraFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Members that every reply has of a camera; `resolution` is "WxH" in pixels, "unknown" until the stream tells
    it; `fps` frames a second, 0 likewise."""

    device: str
    device_path: str
    camera_id: str
    status: str
    name: str
    resolution: str
    fps: int
    streams: dict[str, str]
    stream_url: str
    recording: bool = False


class CameraRow(CameraFacts, frozen=True, kw_only=True):
    """One camera in a list or a notification."""

    capabilities: tuple[str, ...] = _ABILITIES
    recording_session: str | None = None
    current_file: str | None = None
    elapsed_time: float = 0.0


class CameraList(msgspec.Struct, frozen=True):
    """The cameras that the caller may see; the totals count only these (contract S0-6)."""

    cameras: tuple[CameraRow, ...]
    total: int
    connected: int
    next_cursor: str | UnsetType = UNSET


def list_streams(camera: Camera, host: str, server: ServerState) -> dict[str, str]:
    """Addresses of a camera's picture, by protocol, of those that are switched on; without credentials."""
    ports = (
        ("rtsp", "rtsp", server.rtsp_port),
        ("hls", "http", server.hls_port),
        ("webrtc", "http", server.webrtc_port),
        ("rtmp", "rtmp", server.rtmp_port),
    )
    if server.status != "ready":
        return {}
    found = {
        protocol: f"{scheme}://{_host_for(host, server.addresses.get(protocol))}:{port}/{camera.path}"
        for protocol, scheme, port in ports
        if port
    }
    if server.srt_port:
        where = _host_for(host, server.addresses.get("srt"))
        found["srt"] = f"srt://{where}:{server.srt_port}?streamid={srt_stream_id(camera)}"
    if (sub := camera.sub) is not None and "rtsp" in found:
        # Its rights are those of the camera, so that no client has to know it by a name of its own.
        found["sub"] = found["rtsp"].removesuffix(camera.path) + sub.path
    return found


def _host_for(host: str, address: str | None) -> str:
    """The host of a URL for a client that reached us at `host`: the address of the listener where it is bound to
    one.

    A loopback address is given to clients on this machine only; others may reach it by a relay.
    """
    where = f"[{host}]" if ":" in host and not host.startswith("[") else host
    own = host_of(address) if address else ""
    return own if own and (not is_loopback(own) or is_loopback(where)) else where


def srt_stream_id(camera: Camera, action: Literal["read", "publish"] = "read", credential: str = "") -> str:
    """The streamid of SRT in the syntax of MediaMTX, since SRT has no paths. At most 512 bytes of it arrive.

    A credential is the password of a user of any name; it must not contain a colon.
    """
    return f"{action}:{camera.path}" + (f":x:{credential}" if credential else "")


def row(
    camera: Camera, host: str, server: ServerState, active: ActiveRecording | None = None, now: float = 0.0
) -> CameraRow:
    """A camera as a list and a notification show it to a client that reached us at `host`; `active` is its recording,
    `now` Unix seconds."""
    shown = CameraRow(**facts(camera, host, server))  # type: ignore[arg-type]
    if active is None:
        return shown
    record = active.record
    return msgspec.structs.replace(
        shown, recording=True, recording_session=record.recording_id, current_file=record.filename,
        elapsed_time=max(0.0, round(now - record.began, 3)),
    )  # fmt: skip


def facts(camera: Camera, host: str, server: ServerState) -> dict[str, object]:
    """The members of CameraFacts."""
    streams = list_streams(camera, host, server)
    return {
        "device": camera.name,
        "device_path": camera.node or "",
        "camera_id": camera.name,
        "status": camera.status.value,
        "name": camera.label,
        "resolution": f"{camera.width}x{camera.height}" if camera.width and camera.height else "unknown",
        # Less than one picture a second is not none.
        "fps": max(1, round(camera.rate)) if camera.rate else 0,
        "streams": streams,
        "stream_url": streams.get("rtsp", ""),
    }


def _list(rows: Sequence[CameraRow]) -> CameraList:
    connected = sum(item.status == Status.CONNECTED for item in rows)
    return CameraList(cameras=tuple(rows), total=len(rows), connected=connected)


class _Listing(msgspec.Struct):
    """What a list was made from; it is the same object as long as this holds."""

    cameras: tuple[Camera, ...]
    server: ServerState
    made: CameraList


class Listings:
    """The last lists by rights and host name, since most calls ask for what did not change."""

    def __init__(self) -> None:
        self._kept: dict[object, _Listing] = {}

    def get(
        self,
        caller: Caller,
        host: str,
        cameras: tuple[Camera, ...],
        server: ServerState,
        may_see: Callable[[Camera], bool],
        active: Mapping[str, ActiveRecording],
        now: float,
    ) -> CameraList:
        """The list for `caller`, of whom `may_see` says which cameras it holds: the identical one while it is true.

        While anything is recorded each list is made anew: the time that a recording takes is in it.
        """
        if active:
            return _list([row(each, host, server, active.get(each.name), now) for each in cameras if may_see(each)])
        key = (host, caller.cameras, caller.grants, "camera:read" in caller.capabilities, caller.names_paths)
        kept = self._kept.get(key)
        if kept is not None and kept.cameras is cameras and kept.server is server:
            return kept.made
        made = _list([row(camera, host, server) for camera in cameras if may_see(camera)])
        if len(self._kept) >= _MOST_LISTS:
            self._kept.clear()
        self._kept[key] = _Listing(cameras, server, made)
        return made
