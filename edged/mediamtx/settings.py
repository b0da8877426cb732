"""Our settings → MediaMTX's configuration file, as JSON, for one version of it; pure.

Unknown keys are fatal to MediaMTX, so what an older version does not know is left out by version, and what a newer
one no longer knows may be left out if the file means the same without it (`OPTIONAL`). Lists and switches are stated
even where they are the default today, because defaults have changed between versions.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from edged.config.addresses import OFF, parse_address
from edged.config.model import MediaMTXSettings
from edged.mediamtx.sources import CameraSource, kind_of

#: (major, minor, patch).
Version: TypeAlias = tuple[int, int, int]
#: MediaMTX's configuration of one path.
PathConf: TypeAlias = Mapping[str, object]

#: Where the package, or scripts/get-mediamtx run by root, puts the program.
LIBRARY_FOLDER = "/usr/lib/edged"
#: Holds a reader while edged starts the encoder: it ends at once, so nothing of it can be left behind.
#: MediaMTX holds the reader all the same (tests/test_mediamtx_contract.py).
DO_NOTHING = "/bin/true"

#: Keys by the version that brought them.
_SINCE: Mapping[str, tuple[Version, object]] = {
    "apiAllowOrigins": ((1, 15, 4), []),
    "logStructured": ((1, 15, 6), True),
    "moq": ((1, 19, 0), False),
}
#: The user that edged and its children are to MediaMTX; the password is a secret made for one start, or one use.
USER: Final = "edged"
#: Keys that may be missing: the file means the same to a version that does not know them.
OPTIONAL = frozenset({*_SINCE, "pprof", "playback"})


def render(
    settings: MediaMTXSettings,
    *,
    hook_url: str,
    api_address: str,
    paths: Mapping[str, PathConf],
    version: Version,
    leave_out: Iterable[str] = (),
) -> str:
    """The whole configuration file, JSON text.

    `hook_url` is asked about every read, publish and API call; `leave_out` names keys of `OPTIONAL` that this
    program has refused. Keys and reasons: MediaMTX's mediamtx.yml of the version concerned.
    """
    document: dict[str, object] = {
        "logLevel": "info",
        "logDestinations": ["stdout"],
        "authMethod": "http",
        "authHTTPAddress": hook_url,
        # The default changed in 1.20.1. With nothing excluded the control API itself asks the hook.
        "authHTTPExclude": [],
        "api": True,
        "apiAddress": api_address,
        "metrics": False,
        "playback": False,
        "pprof": False,
        **_listener("rtsp", settings.rtsp),
        # TCP only: fewer ports, and a kicked client sees its connection close.
        "rtspTransports": ["tcp"],
        "rtspEncryption": "no",
        **_listener("hls", settings.hls),
        **_listener("webrtc", settings.webrtc),
        "webrtcLocalUDPAddress": "" if settings.webrtc_udp == OFF else settings.webrtc_udp,
        **_listener("rtmp", settings.rtmp),
        **_listener("srt", settings.srt),
        "pathDefaults": {"source": "publisher", "overridePublisher": True},
        "paths": {name: dict(conf) for name, conf in paths.items()},
    }
    document |= {key: value for key, (since, value) in _SINCE.items() if version >= since}
    for key in OPTIONAL.intersection(leave_out):
        document.pop(key, None)
    return json.dumps(document, indent=1)


#: How long MediaMTX writes to one file, as MediaMTX spells it; it is closed at the next key frame.
SEGMENT_DURATION: Final = "1m0s"
#: The same for a camera that is held in memory.
PIECE_DURATION: Final = "2s"


def path_conf(source: CameraSource, record_path: str = "", *, is_recorded: bool = False) -> PathConf:
    """The configuration of one camera's path: its encoder publishes there, a restarted one takes over.

    Every key is stated for every camera, because only stated keys are compared with what MediaMTX has; durations as
    MediaMTX writes them. `record_path` is where it records to, "" if nothing ever is. While a camera is recorded only
    `record` may change: any change of another of these keys closes the recorder and loses up to a group of pictures.
    """
    duration = PIECE_DURATION if source.is_held_in_memory else SEGMENT_DURATION
    return {
        **kind_of(source).path_keys(source),
        "overridePublisher": True,
        # Holds a reader until the encoder that edged starts for it publishes; nobody can wake whoever publishes from
        # outside, so that such a reader hears at once that there is no stream. The start time-out is shorter than
        # the last sweep after a revocation (12 s): an HLS reader is unlisted while it is held.
        "runOnDemand": "" if source.always_on or kind_of(source).is_pushed else DO_NOTHING,
        "runOnDemandRestart": False,
        "runOnDemandStartTimeout": "10s",
        "runOnDemandCloseAfter": "10s",
        **(_record_conf(record_path, duration, is_recorded) if record_path else {}),
    }


def _record_conf(path: str, duration: str, is_recorded: bool) -> PathConf:
    return {
        "record": is_recorded,
        "recordPath": path,
        "recordFormat": "fmp4",
        # What a power cut costs at most, and how often bytes are written.
        "recordPartDuration": "1s",
        "recordSegmentDuration": duration,
        # edged deletes, by a clock that it trusts: MediaMTX compares file names with the system clock.
        "recordDeleteAfter": "0s",
    }


#: MediaMTX's name for every path that is not listed, and its configuration. Without it MediaMTX would refuse an unknown
#: path without asking, in another way than a known one, and names could be probed without a credential. An allowed
#: reader gets "no stream"; the hook lets no one publish there.
ALL_OTHERS: Final = "all_others"
OTHERS_CONF: Final[PathConf] = MappingProxyType(
    {
        "source": "publisher",
        "overridePublisher": True,
        "runOnDemand": "",
        "runOnDemandRestart": False,
        "runOnDemandStartTimeout": "10s",
        "runOnDemandCloseAfter": "10s",
    }
)


class Binary(msgspec.Struct, frozen=True):
    """Where the program is, None if nowhere; `searched` says where it was looked for."""

    path: str | None
    searched: tuple[str, ...]


def find_binary(configured: str, search_path: str, is_program: Iterable[str] | None = None) -> Binary:
    """Look for `mediamtx`: the configured file alone if there is one, else PATH, else /usr/lib/edged.

    `search_path` is a PATH variable; `is_program` is a test's list of what exists, None to ask the file system.
    """
    folders = [folder for folder in search_path.split(":") if folder]
    candidates = [configured] if configured else [f"{folder}/mediamtx" for folder in (*folders, LIBRARY_FOLDER)]
    known = None if is_program is None else frozenset(is_program)
    for candidate in candidates:
        if candidate in known if known is not None else _is_program(candidate):
            return Binary(candidate, tuple(candidates))
    return Binary(None, tuple(candidates))


def parse_version(text: str) -> Version | None:
    """The first `v1.2.3` of what `mediamtx --version` prints; None if there is none."""
    found = re.search(r"\bv?(\d{1,6})\.(\d{1,6})\.(\d{1,6})", text, re.ASCII)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def show_version(version: Version) -> str:
    """`1.20.1`."""
    return ".".join(map(str, version))


def port_of(address: str) -> int | None:
    """The port of an address of [mediamtx], None if it is "off"."""
    return None if address == OFF else parse_address(address)[1]


def protocols(settings: MediaMTXSettings) -> tuple[str, ...]:
    """The protocols that viewers can use, as the control API spells them."""
    return tuple(name for name in ("rtsp", "webrtc", "hls", "rtmp", "srt") if getattr(settings, name) != OFF)


def _listener(name: str, address: str) -> dict[str, object]:
    return {name: False} if address == OFF else {name: True, f"{name}Address": address}


def _is_program(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)
