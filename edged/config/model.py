"""All settings: every section, its defaults and its help (contract section 11).

One frozen struct per section of the TOML files. The help is the description of the field, from which
`render` makes etc/defaults.toml. Empty paths are filled in here, so that `config.paths.media` is the folder in use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edged.config.addresses import OFF, parse_address
from edged.config.authentication import AuthSettings, IssuerSettings
from edged.config.cameras import CameraSettings, SourceSettings
from edged.config.listeners import LISTENERS, ListenerPolicy, ListenPolicies, ListenSettings
from edged.config.sections import Count, Seconds, Section, settings_of

__all__ = [
    "ADDRESSES", "LISTENERS", "OFF", "SECTIONS", "UDP_ADDRESSES", "AuthSettings", "CameraSettings", "Config",
    "IssuerSettings", "LimitSettings", "ListenPolicies", "ListenSettings", "ListenerPolicy", "LogSettings",
    "MediaMTXSettings", "MetricsSettings", "PathSettings", "SnapshotSettings", "SourceSettings", "settings_of",
]  # fmt: skip


class PathSettings(Section, frozen=True, kw_only=True):
    """Where edged keeps its things."""

    state: Annotated[Path, Meta(description="Databases and what must outlive a restart.")] = Path("/var/lib/edged")
    runtime: Annotated[Path, Meta(description="Sockets and what a restart may lose.")] = Path("/run/edged")
    media: Annotated[Path, Meta(description='Pictures and recordings; "" is the folder media in paths.state.')] = Path()

    def __post_init__(self) -> None:
        if self.media == Path():
            msgspec.structs.force_setattr(self, "media", self.state / "media")


class LimitSettings(Section, frozen=True, kw_only=True):
    """How much of everything, and how long."""

    connections: Annotated[Count, Meta(description="Connections at a time by the network, as open files allow.")] = 2048
    unauthenticated_per_address: Annotated[
        Count, Meta(description="Of these from one IPv4 address or IPv6 /64 without a credential; loopback is exempt.")
    ] = 32
    connections_per_credential: Annotated[
        Count, Meta(description="Of these with one key, or with one subject's tokens.")
    ] = 128
    head_bytes: Annotated[Count, Meta(description="The longest head of an HTTP request.")] = 16384
    message_bytes: Annotated[Count, Meta(description="The longest WebSocket message or HTTP body.")] = 1048576
    message_bytes_unauthenticated: Annotated[
        Count, Meta(description="The longest WebSocket message or HTTP body before authentication.")
    ] = 16384
    calls_in_flight: Annotated[Count, Meta(description="Calls that one WebSocket may have unanswered.")] = 32
    batch: Annotated[Count, Meta(description="Calls in one JSON-RPC batch.")] = 50
    outbox_messages: Annotated[Count, Meta(description="Messages that may wait for one slow reader.")] = 256
    outbox_bytes: Annotated[Count, Meta(description="Bytes that may wait for one slow reader.")] = 1048576
    stall_seconds: Annotated[Seconds, Meta(description="How long a reader may take nothing.")] = 10.0
    head_seconds: Annotated[
        Seconds,
        Meta(description="How long a request's head may take, or any message or body before authentication."),
    ] = 10.0
    keep_alive_seconds: Annotated[Seconds, Meta(description="How long an HTTP connection may idle.")] = 75.0
    ping_seconds: Annotated[Seconds, Meta(description="How often a WebSocket is pinged.")] = 30.0
    silence_seconds: Annotated[Seconds, Meta(description="How long a WebSocket may say nothing at all.")] = 75.0
    guesses: Annotated[
        Count, Meta(description="Different wrong credentials of one address or user after which it has to wait.")
    ] = 10
    guess_seconds: Annotated[
        Seconds, Meta(description="Within so many seconds; after as many without one all is forgotten.")
    ] = 60.0
    longest_backoff_seconds: Annotated[
        Seconds, Meta(description="The longest wait; the first is one second, each further wrong one doubles it.")
    ] = 60.0
    disk_low_mib: Annotated[
        Count,
        Meta(
            description="Free space, MiB, below which health is degraded; on a disk smaller than ten times this, a "
            "tenth of it."
        ),
    ] = 256


class MediaMTXSettings(Section, frozen=True, kw_only=True):
    """The MediaMTX that edged runs; each address is HOST:PORT, :PORT for every interface, or "off"."""

    enabled: Annotated[bool, Meta(description="Run it; without it pictures come straight from the source.")] = True
    binary: Annotated[str, Meta(description='The program; "" looks on PATH, then in /usr/lib/edged.')] = ""
    rtsp: Annotated[str, Meta(description="RTSP over TCP; the cameras are published through it.")] = ":8554"
    hls: Annotated[str, Meta(description="HLS, for browsers and players; a few seconds late.")] = ":8888"
    webrtc: Annotated[str, Meta(description="WebRTC: WHEP and the player page.")] = ":8889"
    webrtc_udp: Annotated[str, Meta(description="WebRTC's pictures, UDP.")] = ":8189"
    rtmp: Annotated[str, Meta(description="RTMP, for older players.")] = OFF
    srt: Annotated[str, Meta(description="SRT, for bad lines.")] = OFF
    minimum_version: Annotated[
        str, Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", description="An older MediaMTX is refused.")
    ] = "1.17.1"
    recommended: Annotated[
        str, Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", description="An older MediaMTX runs with a warning.")
    ] = "1.20.1"

    def __post_init__(self) -> None:
        for address in (self.rtsp, self.hls, self.webrtc, self.webrtc_udp, self.rtmp, self.srt):
            if address != OFF:
                parse_address(address)


class SnapshotSettings(Section, frozen=True, kw_only=True):
    """Pictures that somebody asked for."""

    folder: Annotated[Path, Meta(description='Their folder; "" is snapshots in paths.media.')] = Path()


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Numbers for Prometheus."""

    enabled: Annotated[bool, Meta(description="Answer on /metrics.")] = True


class LogSettings(Section, frozen=True, kw_only=True):
    """What is written to the journal."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is written.")] = (
        "info"
    )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; `Config()` is the defaults. Paths are filled in, `camera` has one entry for each [[camera]]."""

    paths: PathSettings = PathSettings()
    listen: ListenSettings = ListenSettings()
    limits: LimitSettings = LimitSettings()
    auth: AuthSettings = AuthSettings()
    mediamtx: MediaMTXSettings = MediaMTXSettings()
    camera: tuple[CameraSettings, ...] = ()
    snapshots: SnapshotSettings = SnapshotSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    sources: SourceSettings = SourceSettings()
    #: Where each of `camera` stands: file and line.
    camera_places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fill = msgspec.structs.force_setattr
        if not self.listen.unix:
            socket = str(self.paths.runtime / "edged.sock")
            fill(self, "listen", msgspec.structs.replace(self.listen, unix=socket))
        if self.snapshots.folder == Path():
            folder = self.paths.media / "snapshots"
            fill(self, "snapshots", msgspec.structs.replace(self.snapshots, folder=folder))


#: The addresses of [mediamtx]; those over UDP do not meet the others.
ADDRESSES = ("rtsp", "hls", "webrtc", "webrtc_udp", "rtmp", "srt")
UDP_ADDRESSES = frozenset({"webrtc_udp", "srt"})

#: The sections by name, in the order in which they are shown; `camera` is an array of them.
SECTIONS: dict[str, type[Section]] = {
    "paths": PathSettings,
    "listen": ListenSettings,
    "limits": LimitSettings,
    "auth": AuthSettings,
    "mediamtx": MediaMTXSettings,
    "camera": CameraSettings,
    "snapshots": SnapshotSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
    "sources": SourceSettings,
}
