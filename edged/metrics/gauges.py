"""Gauges: current values, asked for whenever /metrics is read."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edged.metrics.labels import CAMERA_STATES, CHILDREN, KEY_STATES, MOST_CAMERAS, OTHER, TRANSPORTS

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

#: Counters of what was recorded of a camera, in the order of `recorded`.
_RECORDED = (
    ("edged_recorded_bytes", "Bytes of recorded files that were closed."),
    ("edged_recorded_seconds", "Seconds in recorded files that were closed."),
    ("edged_recording_gaps", "Gaps in recordings that ran."),
)
_VERSION = re.compile(r"v?[0-9]{1,4}(\.[0-9]{1,4}){1,3}\Z")


class Gauges:
    """The gauges, and the functions that give their values."""

    def __init__(self, version: str) -> None:
        """`version`: edged's own, for edged_build_info."""
        self._version = version
        self._sources: dict[str, Callable[[], Any]] = {}
        #: Open sockets, where no `connections` function was given.
        self.connections = 0

    def watch(
        self,
        *,
        sessions: Callable[[], Mapping[str, int]] | None = None,
        connections: Callable[[], int] | None = None,
        cameras: Callable[[], Mapping[str, bool | None]] | None = None,
        children: Callable[[], Mapping[str, int]] | None = None,
        api_keys: Callable[[], Mapping[str, int]] | None = None,
        mediamtx_version: Callable[[], str] | None = None,
        clock: Callable[[], tuple[bool, bool, float]] | None = None,
        issuers: Callable[[], Mapping[str, float]] | None = None,
        pending_revocations: Callable[[], int] | None = None,
        health: Callable[[], Mapping[str, int]] | None = None,
        restore_unconfirmed: Callable[[], bool] | None = None,
        disks: Callable[[], Mapping[str, int]] | None = None,
        camera_causes: Callable[[], Mapping[str, int]] | None = None,
        camera_restarts: Callable[[], Mapping[str, int]] | None = None,
        recorded: Callable[[], Mapping[str, tuple[int, float, int]]] | None = None,
        oldest_recording: Callable[[], float] | None = None,
        camera_flaps: Callable[[], Mapping[str, int]] | None = None,
        identity_conflicts: Callable[[], int] | None = None,
        quarantined_ports: Callable[[], int] | None = None,
    ) -> None:
        """Where to ask for what is now, each time somebody scrapes; app.py says so once.

        `sessions` by transport; `cameras` by name: True connected, False disconnected, None error; `children`
        (mediamtx, publisher, frames) running; `api_keys` by status; `clock`: synchronized, trusted, mark;
        `issuers`: name in the settings (eight at most) → when its keys were read last, Unix seconds, 0.0 never;
        `pending_revocations`: how many are in force and not on disk; `health`: problems by part (operations.health);
        `disks`: free bytes of the file systems that edged writes to, by the setting in [paths] that leads there;
        `restore_unconfirmed`: the trust database is an older one, and nobody has confirmed it;
        `camera_causes`: every cause why a source gives no picture → cameras; `camera_restarts`: by camera;
        `recorded`: by camera, bytes and seconds of files that were closed, and gaps, since the start;
        `camera_flaps`: by camera, how often it went and came back; `identity_conflicts`: devices of which nobody can
        tell which camera they are; `quarantined_ports`: ports that are left alone;
        `oldest_recording`: when the oldest recorded file began, Unix seconds, 0.0 where there is none.
        """
        given: dict[str, Callable[[], Any] | None] = {
            "sessions": sessions,
            "connections": connections,
            "cameras": cameras,
            "children": children,
            "api_keys": api_keys,
            "mediamtx_version": mediamtx_version,
            "clock": clock,
            "issuers": issuers,
            "pending_revocations": pending_revocations,
            "health": health,
            "restore_unconfirmed": restore_unconfirmed,
            "disks": disks,
            "camera_causes": camera_causes,
            "camera_restarts": camera_restarts,
            "recorded": recorded,
            "oldest_recording": oldest_recording,
            "camera_flaps": camera_flaps,
            "identity_conflicts": identity_conflicts,
            "quarantined_ports": quarantined_ports,
        }
        self._sources |= {name: ask for name, ask in given.items() if ask is not None}

    def _ask(self, name: str, nothing: Any) -> Any:
        ask = self._sources.get(name)
        return nothing if ask is None else ask()

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        cameras: Mapping[str, bool | None] = self._ask("cameras", {})
        states = [{True: "connected", False: "disconnected", None: "error"}[state] for state in cameras.values()]
        mediamtx = self._ask("mediamtx_version", "")
        info = GaugeMetricFamily(
            "edged_build_info", "Versions of edged, MediaMTX and Python.", labels=("version", "mediamtx", "python")
        )
        shown = mediamtx if _VERSION.match(mediamtx) else "none"
        info.add_metric((self._version, shown, platform.python_version()), 1)
        yield info
        yield _gauge(
            "edged_sessions",
            "Active sessions: WebSockets, viewers and live pictures.",
            "transport",
            TRANSPORTS,
            self._ask("sessions", {}),
        )
        yield GaugeMetricFamily(
            "edged_connections", "Open connections.", value=self._ask("connections", self.connections)
        )
        counted = {state: states.count(state) for state in CAMERA_STATES}
        yield _gauge("edged_cameras", "Cameras, by state.", "state", CAMERA_STATES, counted)
        up = {name: int(state is True) for name, state in list(cameras.items())[:MOST_CAMERAS]}
        rest = [int(state is True) for state in list(cameras.values())[MOST_CAMERAS:]]
        if rest:
            up[OTHER] = sum(rest)
        yield _gauge("edged_camera_up", "1 if the camera is connected and has no error.", "camera", tuple(up), up)
        causes = self._ask("camera_causes", {})
        yield _gauge(
            "edged_cameras_without_picture",
            "Cameras without a picture, by cause; causes without a camera are not exported.",
            "cause",
            tuple(causes),
            causes,
        )
        yield _by_camera("edged_camera_restarts", "Failures of a camera's publisher.", self._ask("camera_restarts", {}))
        yield _by_camera(
            "edged_camera_flaps", "Times that a camera was unplugged and came back.", self._ask("camera_flaps", {})
        )
        yield GaugeMetricFamily(
            "edged_camera_identity_conflicts", "Devices that wait, since nobody can tell which cameras they are.",
            value=float(self._ask("identity_conflicts", 0)),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "edged_camera_quarantined_ports", "Ports that are left alone, since their contact comes and goes.",
            value=float(self._ask("quarantined_ports", 0)),
        )  # fmt: skip
        recorded = self._ask("recorded", {})
        for at, (name, what) in enumerate(_RECORDED):
            yield _by_camera(name, what, {camera: figures[at] for camera, figures in recorded.items()})
        yield GaugeMetricFamily(
            "edged_recording_oldest_timestamp_seconds", "When the oldest recorded file began; 0 if there is none.",
            value=float(self._ask("oldest_recording", 0.0)),
        )  # fmt: skip
        yield _gauge("edged_child_up", "Running child processes.", "child", CHILDREN, self._ask("children", {}))
        synchronized, trusted, mark = self._ask("clock", (False, False, 0.0))
        yield GaugeMetricFamily(
            "edged_clock_synchronized", "1 if the system clock is synchronised.", value=int(synchronized)
        )
        yield GaugeMetricFamily("edged_clock_trusted", "1 if expiry is judged by the system clock.", value=int(trusted))
        yield GaugeMetricFamily(
            "edged_clock_high_water_timestamp_seconds", "High-water mark of the clock.", value=float(mark)
        )
        if issuers := self._ask("issuers", {}):
            yield _gauge(
                "edged_trust_last_success_timestamp_seconds", "Last successful fetch of the issuer's keys.",
                "issuer", tuple(issuers), issuers,
            )  # fmt: skip
        yield _gauge("edged_api_keys", "API keys, by state.", "state", KEY_STATES, self._ask("api_keys", {}))
        pending = self._ask("pending_revocations", 0)
        yield GaugeMetricFamily(
            "edged_revocations_pending",
            "Revocations in force that are not yet on disk: a restart would undo them.",
            value=pending,
        )
        parts = self._ask("health", {})
        yield _gauge("edged_health_problems", "Problems that /health reports, by part.", "part", tuple(parts), parts)
        yield GaugeMetricFamily(
            "edged_restore_unconfirmed", "1 if a restored trust database waits for edged trust confirm-restore.",
            value=int(self._ask("restore_unconfirmed", False)),
        )  # fmt: skip
        disks = self._ask("disks", {})
        yield _gauge(
            "edged_disk_free_bytes", "Free space of the file systems that edged writes to.", "disk", tuple(disks), disks
        )


def _by_camera(name: str, help_text: str, values: Mapping[str, float]) -> CounterMetricFamily:
    """A counter by camera; more cameras than MOST_CAMERAS share a label."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, help_text, labels=("camera",))
    shown = list(values.items())
    for camera, value in shown[:MOST_CAMERAS]:
        family.add_metric((camera,), value)
    if rest := shown[MOST_CAMERAS:]:
        family.add_metric((OTHER,), sum(value for _, value in rest))
    return family


def _gauge(
    name: str, help_text: str, label: str, legal: Sequence[str], values: Mapping[str, float]
) -> GaugeMetricFamily:
    """One value for each legal label, 0 where none was given."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, help_text, labels=(label,))
    for key in legal:
        family.add_metric((key,), float(values.get(key, 0)))
    return family
