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
    """Folders that edged uses."""

    state: Annotated[
        Path, Meta(description="Folder of the databases and of everything else that must survive a restart.")
    ] = Path("/var/lib/edged")
    runtime: Annotated[Path, Meta(description="Folder of sockets and temporary files.")] = Path("/run/edged")
    media: Annotated[
        Path, Meta(description='Folder of pictures and recordings; "" means the folder media in paths.state.')
    ] = Path()

    def __post_init__(self) -> None:
        if self.media == Path():
            msgspec.structs.force_setattr(self, "media", self.state / "media")


class LimitSettings(Section, frozen=True, kw_only=True):
    """Limits on connections, message sizes, waiting times and failed logins."""

    connections: Annotated[
        Count, Meta(description="Maximum number of network connections; lower if the process may open fewer files.")
    ] = 2048
    unauthenticated_per_address: Annotated[
        Count,
        Meta(
            description="Maximum number of unauthenticated connections per IPv4 address or IPv6 /64; loopback is "
            "exempt."
        ),
    ] = 32
    connections_per_credential: Annotated[
        Count, Meta(description="Maximum number of connections per API key, or per token subject.")
    ] = 128
    head_bytes: Annotated[Count, Meta(description="Maximum size of an HTTP request head.")] = 16384
    message_bytes: Annotated[Count, Meta(description="Maximum size of a WebSocket message or HTTP body.")] = 1048576
    message_bytes_unauthenticated: Annotated[
        Count, Meta(description="Maximum size of a WebSocket message or HTTP body before authentication.")
    ] = 16384
    calls_in_flight: Annotated[Count, Meta(description="Maximum number of unanswered calls per WebSocket.")] = 32
    batch: Annotated[Count, Meta(description="Maximum number of calls in one JSON-RPC batch.")] = 50
    outbox_messages: Annotated[
        Count, Meta(description="Maximum number of messages queued for a client that reads slowly.")
    ] = 256
    outbox_bytes: Annotated[
        Count, Meta(description="Maximum number of bytes queued for a client that reads slowly.")
    ] = 1048576
    stall_seconds: Annotated[
        Seconds,
        Meta(
            description="Write timeout for a stalled client: a connection whose client accepts no data for this "
            "long is closed."
        ),
    ] = 10.0
    head_seconds: Annotated[
        Seconds,
        Meta(description="Timeout for receiving a request head, and for any message or body before authentication."),
    ] = 10.0
    keep_alive_seconds: Annotated[Seconds, Meta(description="Idle timeout of an HTTP connection.")] = 75.0
    ping_seconds: Annotated[Seconds, Meta(description="Interval between WebSocket pings.")] = 30.0
    silence_seconds: Annotated[
        Seconds, Meta(description="Timeout of a WebSocket from which nothing is received, pongs included.")
    ] = 75.0
    guesses: Annotated[
        Count,
        Meta(
            description="Number of different wrong credentials per address or user before further attempts are delayed."
        ),
    ] = 10
    guess_seconds: Annotated[
        Seconds,
        Meta(
            description="Period in which wrong credentials are counted; they are forgotten after as long without "
            "a new one."
        ),
    ] = 60.0
    longest_backoff_seconds: Annotated[
        Seconds,
        Meta(
            description="Maximum delay after wrong credentials. The first delay is one second; each further "
            "wrong credential doubles it."
        ),
    ] = 60.0
    disk_low_mib: Annotated[
        Count,
        Meta(
            description="Free disk space, MiB, below which health is degraded; on a disk smaller than ten times "
            "this value, a tenth of the disk."
        ),
    ] = 256


class MediaMTXSettings(Section, frozen=True, kw_only=True):
    """The MediaMTX server that edged runs; an address is HOST:PORT, :PORT (all interfaces) or "off"."""

    enabled: Annotated[
        bool,
        Meta(
            description="Run MediaMTX; without it there are no RTSP, HLS and WebRTC streams, and pictures are "
            "read from the cameras directly."
        ),
    ] = True
    binary: Annotated[str, Meta(description='Path of the MediaMTX program; "" searches PATH, then /usr/lib/edged.')] = (
        ""
    )
    rtsp: Annotated[str, Meta(description="RTSP address (TCP); edged publishes the cameras here.")] = ":8554"
    hls: Annotated[str, Meta(description="HLS address, for browsers and players; a few seconds of delay.")] = ":8888"
    webrtc: Annotated[str, Meta(description="WebRTC address: WHEP and the player page.")] = ":8889"
    webrtc_udp: Annotated[str, Meta(description="UDP address of WebRTC media.")] = ":8189"
    rtmp: Annotated[str, Meta(description="RTMP address, for older players.")] = OFF
    srt: Annotated[str, Meta(description="SRT address (UDP), for unreliable networks.")] = OFF
    minimum_version: Annotated[
        str,
        Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", description="Minimum MediaMTX version; an older one is not started."),
    ] = "1.17.1"
    recommended: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$",
            description="Recommended MediaMTX version; an older one runs with a warning.",
        ),
    ] = "1.20.1"

    def __post_init__(self) -> None:
        for address in (self.rtsp, self.hls, self.webrtc, self.webrtc_udp, self.rtmp, self.srt):
            if address != OFF:
                parse_address(address)


class SnapshotSettings(Section, frozen=True, kw_only=True):
    """Stored snapshots."""

    folder: Annotated[Path, Meta(description='Folder of snapshots; "" means the folder snapshots in paths.media.')] = (
        Path()
    )


class RecordingSettings(Section, frozen=True, kw_only=True):
    """Recordings, and what of them is kept."""

    folder: Annotated[
        Path, Meta(description='Folder of recordings; "" means the folder recordings in paths.media.')
    ] = Path()
    pre_roll_folder: Annotated[
        Path,
        Meta(
            description='Folder of pre-rolls, in memory (tmpfs); "" means the folder pre-roll in paths.runtime. On a '
            "disk it is written to all the time."
        ),
    ] = Path()
    max_age_days: Annotated[
        float, Meta(ge=0, le=3650, description="Age at which recordings are deleted, days; 0 keeps them.")
    ] = 0.0
    max_size_gb: Annotated[
        float,
        Meta(ge=0, le=1_000_000, description="Size above which the oldest recordings are deleted, GB; 0: none."),
    ] = 0.0
    keep_free_mib: Annotated[
        int, Meta(ge=0, description="Free disk space below which the oldest recordings are deleted, MiB.")
    ] = 1024
    stop_free_mib: Annotated[
        int, Meta(ge=0, description="Free disk space below which recording stops until there is more, MiB.")
    ] = 256
    on_full: Annotated[
        Literal["oldest", "stop"],
        Meta(
            description="What happens where space runs out: the oldest recordings are deleted below keep_free_mib "
            "(oldest), or none is, and recording stops below stop_free_mib (stop)."
        ),
    ] = "oldest"
    removable: Annotated[
        bool,
        Meta(
            description="The folder is on a medium that may be taken out: nothing is written unless the file "
            ".edged-medium is in the folder and the folder is not on the file system of /."
        ),
    ] = False

    def __post_init__(self) -> None:
        if "%" in str(self.folder):
            raise ValueError("folder holds a %, which MediaMTX would read as a placeholder: choose another name")
        if "%" in str(self.pre_roll_folder):
            raise ValueError("pre_roll_folder holds a %, which MediaMTX would read as a placeholder")


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Prometheus metrics."""

    enabled: Annotated[bool, Meta(description="Serve /metrics.")] = True


class LogSettings(Section, frozen=True, kw_only=True):
    """Logging."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Minimum level of messages that are logged.")
    ] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; `Config()` is the defaults. Paths are filled in, `camera` has one entry for each [[camera]]."""

    paths: PathSettings = PathSettings()
    listen: ListenSettings = ListenSettings()
    limits: LimitSettings = LimitSettings()
    auth: AuthSettings = AuthSettings()
    mediamtx: MediaMTXSettings = MediaMTXSettings()
    camera: tuple[CameraSettings, ...] = ()
    snapshots: SnapshotSettings = SnapshotSettings()
    recording: RecordingSettings = RecordingSettings()
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
        if self.recording.folder == Path():
            folder = self.paths.media / "recordings"
            fill(self, "recording", msgspec.structs.replace(self.recording, folder=folder))
        if self.recording.pre_roll_folder == Path():
            folder = self.paths.runtime / "pre-roll"
            fill(self, "recording", msgspec.structs.replace(self.recording, pre_roll_folder=folder))


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
    "recording": RecordingSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
    "sources": SourceSettings,
}
