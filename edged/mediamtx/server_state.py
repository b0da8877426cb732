"""What is known of the MediaMTX that edged runs, and how its end is described. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import msgspec

from edged.mediamtx.output import Diagnosis, Line

ServerStatus: TypeAlias = Literal[
    "missing", "refused_version", "starting", "ready", "port_taken", "config_refused", "unhealthy", "waiting",
    "stopped", "off",
]  # fmt: skip


class ServerState(msgspec.Struct, frozen=True):
    """How MediaMTX is. `detail` says what happened, `remedy` what to do; ports are None where off or unknown.

    `answers` is False while a MediaMTX that is ready does not answer a health check. `addresses` are those of the
    protocols that are on (`rtsp` → `127.0.0.2:8554`), with the ports that were picked.
    """

    status: ServerStatus
    detail: str = ""
    remedy: str = ""
    version: str = ""
    pid: int | None = None
    rtsp_port: int | None = None
    hls_port: int | None = None
    webrtc_port: int | None = None
    rtmp_port: int | None = None
    srt_port: int | None = None
    answers: bool = True
    addresses: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether it is logged as information, and not as a warning."""
        return self.status in ("starting", "ready", "stopped") and self.answers


def describe_end(code: int, lines: Iterable[Line]) -> str:
    """How a process ended, with the error that it logged last. `code` as subprocess.Popen.returncode."""
    listed = list(lines)
    last = next((line.text for line in reversed(listed) if line.level == "error"), listed[-1].text if listed else "")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"MediaMTX {how}" + (f": {last}" if last else "")


def describe_taken(found: Diagnosis, holder: str) -> tuple[str, str]:
    """Detail and remedy for a port that another process has; `holder` as ports.find_holder says it."""
    port = f"port {found.port}/{found.transport}"
    remedy = f"stop it, or set another address than {port} under [mediamtx]"
    return f"{port} is taken by {holder or 'another process'}", remedy
