"""Every metric of edged, named once, with every legal label set exported at 0 from the start.

An alert on a counter that first appears as 1 never fires, so nothing may appear later; and no label
takes a value from the wire, so nothing can be made to grow. What does not fit a table is counted
under the nearest entry of it: no event is lost. At most 500 series with 2 cameras and 5 keys.

Counting is one look-up and one addition. A cell belongs to one thread: the loop's, or for commits
that of the database's writer. Gauges are asked for when somebody scrapes (`watch`).
"""

from __future__ import annotations

import platform
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

#: The ways in, as contract 7 names them; the last five are MediaMTX's.
TRANSPORTS = ("ws", "http", "uds", "rtsp", "rtmp", "srt", "hls", "webrtc")
#: More cameras than this share the label `other`.
MOST_CAMERAS = 32
OTHER = "other"
#: What counters call them: RTMP and SRT are off unless somebody wants them, and are one label.
_SHARED = {"rtmp": OTHER, "srt": OTHER}
_DOORS = (*(transport for transport in TRANSPORTS if transport not in _SHARED), OTHER)
_FILES_DOORS = ("http", "uds")
_LOGIN_DOORS = ("ws", "http")
_TICKET_DOORS = ("http", "rtsp", "hls", "webrtc")
_ROLES = ("monitor", "viewer", "operator", "admin")

_ANY_CREDENTIAL = ("expired", "revoked", "missing_scope", "camera_denied")
_OUTSIDE = (
    "untrusted_issuer", "unknown_key", "bad_signature", "alg_not_allowed", "bad_audience", "missing_scope", "malformed",
    "no_expiry", "not_yet_valid", "expired", "revoked", "role_denied", "camera_denied",
)  # fmt: skip
_TOKEN_ONLY = ("malformed", "bad_signature", "alg_not_allowed", "no_expiry", "not_yet_valid", "role_denied")

#: (reason, method, transport) of refusals that can happen.
AUTH_FAILURES: tuple[tuple[str, ...], ...] = (
    *product(("missing",), ("none",), _DOORS),
    *product(("unknown_key", "suspended"), ("api_key",), _DOORS),
    *product(("suspended",), ("jwt_local",), _DOORS),
    *product(_ANY_CREDENTIAL, ("api_key", "jwt_local"), _DOORS),
    *product(_TOKEN_ONLY, ("jwt_local",), _DOORS),
    ("token_cut", "jwt_local", "rtsp"),
    *product(("bad_audience", "untrusted_issuer"), ("jwt_local",), ("ws", "http")),
    # Of outside issuers, whose tokens MediaMTX's protocols seldom carry: theirs count as HTTP's.
    *product(_OUTSIDE, ("jwt_federated",), ("http", "ws")),
    *product(("unknown_key", "expired", "revoked", "camera_denied"), ("ticket",), _TICKET_DOORS),
    *product(("unknown_key", "expired", "revoked", "address_denied"), ("service_token",), _FILES_DOORS),
    ("origin_denied", "none", "http"),
    # Outside of a listener's networks; whether it would have been a WebSocket nobody asked.
    ("address_denied", "none", "http"),
    ("unknown_key", "claim_code", "http"),
    *product(("unknown_key", "suspended"), ("password",), _LOGIN_DOORS),
    ("revoked", "password", "http"),
    ("malformed", "none", "ws"),
    ("malformed", "none", "http"),
    ("unknown_key", "internal", "http"),
    ("unknown_key", "internal", "rtsp"),
)
#: (method, transport, role) of credentials that were good. A monitor sees no streams.
TOKEN_USES: tuple[tuple[str, ...], ...] = (
    *product(("api_key", "jwt_local"), ("ws", "http", "uds"), ("monitor",)),
    *product(("api_key",), _DOORS, _ROLES[1:]),
    *product(("jwt_local",), _DOORS, (*_ROLES[1:], "none")),
    *product(("jwt_federated",), ("ws", "http"), (*_ROLES[1:], "none")),
    *product(("ticket",), _TICKET_DOORS, ("none",)),
    *product(("service_token",), _FILES_DOORS, ("none",)),
    ("peercred", "uds", "admin"),
    ("peercred", "http", "admin"),
    *product(("password",), _LOGIN_DOORS, _ROLES),
    ("internal", "http", "none"),
    ("internal", "rtsp", "none"),
)
#: (transport, cause) of sessions that were ended.
TERMINATIONS: tuple[tuple[str, ...], ...] = tuple(product(_DOORS, ("revoked", "expired", "suspended", "ended")))
#: What an operation can fail with (the slugs of edged.errors that a caller can be told).
SLUGS = (
    "invalid_params", "unknown_method", "refused", "not_found", "camera_not_found", "invalid_state", "rate_limited",
    "dependency_failed", "unsupported", "not_built", "store_error", "overloaded", "internal",
)  # fmt: skip
#: What can be revoked; a cut-off is everything before a time.
REVOCATIONS = ("key", "token", "service_token", "subject", "issuer", "cut_off")
#: What becomes of a refresh: a new token, the same once more, none.
REFRESHES = ("ok", "replayed", "denied")
#: What can be odd about a token that is good.
ODDITIES = ("suspicious", "old")
CHILDREN = ("mediamtx", "publisher", "frames")
_HOOK = (
    *product(("read", "publish", "playback", "api", "metrics", "pprof"), ("allowed", "refused")),
    (OTHER, "refused"),
)
_CAMERA_STATES = ("connected", "disconnected", "error")
_KEY_STATES = ("active", "expired", "suspended", "revoked")
_PROPAGATION = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_COMMIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_VERSION = re.compile(r"v?[0-9]{1,4}(\.[0-9]{1,4}){1,3}\Z")


class Cell:
    """One number that rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by


class Tally:
    """A counter with a closed table of label sets. `counts[labels].inc()` where they are known to be legal."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], legal: Iterable[tuple[str, ...]]) -> None:
        self.name = name
        self._help = help_text
        self._labels = tuple(labels)
        self.counts: dict[tuple[str, ...], Cell] = {labels: Cell() for labels in legal}

    def find(self, labels: tuple[str, ...]) -> Cell:
        """The cell of these labels, or of the nearest legal ones: earlier labels weigh more."""
        return self.counts.get(labels) or self.counts[nearest(labels, self.counts)]

    def collect(self) -> CounterMetricFamily:
        family = CounterMetricFamily(self.name, self._help, labels=self._labels)
        for labels, cell in self.counts.items():
            family.add_metric(labels, cell.value)
        return family


class Durations:
    """A histogram of seconds with a closed table of label values."""

    def __init__(self, name: str, help_text: str, label: str, legal: Iterable[str], buckets: Sequence[float]) -> None:
        self._name, self._help, self._label = name, help_text, label
        self._buckets = tuple(buckets)
        self._counts = {value: [0] * (len(self._buckets) + 1) for value in legal}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def observe(self, value: str, seconds: float) -> None:
        """Note one; an unknown label value counts under the first."""
        key = value if value in self._counts else next(iter(self._counts))
        self._counts[key][bisect_left(self._buckets, seconds)] += 1
        self._sums[key] += seconds

    def collect(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(self._name, self._help, labels=[self._label])
        bounds = [*map(str, self._buckets), "+Inf"]
        for value, counts in self._counts.items():
            total, rising = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                rising.append((bound, float(total)))
            family.add_metric([value], buckets=rising, sum_value=self._sums[value])
        return family


def nearest(labels: tuple[str, ...], legal: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The legal label set that agrees with most of `labels`, the earlier ones first; ties: the first in the table."""
    return max(legal, key=lambda known: tuple(a == b for a, b in zip(known, labels, strict=False)))


class Metrics(Collector):
    """All of them, in a registry of their own; the gate and the catalogue call the first three methods."""

    def __init__(self, operations: Mapping[str, str], *, version: str = "") -> None:
        """`operations`: registered name → the label it counts under; any other method counts as `unknown`."""
        names = sorted(set(operations.values()))
        self._version = version
        self._asked: dict[str, Callable[[], Any]] = {}
        self._connections = 0
        self._failures = Tally(
            "edged_auth_failures", "Refusals by the gate.", ("reason", "method", "transport"), AUTH_FAILURES
        )
        self._uses = Tally(
            "edged_token_uses", "Credentials that were good.", ("method", "transport", "role"), TOKEN_USES
        )
        self._oddities = Tally(
            "edged_token_warnings", "Odd tokens that were good.", ("kind",), [(kind,) for kind in ODDITIES]
        )
        self._rpc = Tally(
            "edged_rpc_requests", "Calls answered.", ("method", "outcome"),
            [*product(names, ("ok", "error")), ("unknown", "error")],
        )  # fmt: skip
        self._rpc_ok = {name: self._rpc.counts[label, "ok"] for name, label in operations.items()}
        self._rpc_errors = {name: self._rpc.counts[label, "error"] for name, label in operations.items()}
        self._slugs = Tally("edged_rpc_errors", "Calls that failed.", ("slug",), [(slug,) for slug in SLUGS])
        self._throttled = Tally(
            "edged_auth_throttled",
            "Tries that came too soon after wrong ones.",
            ("axis",),
            [("address",), ("subject",)],
        )
        self._terminated = Tally(
            "edged_sessions_terminated", "Sessions whose right to be there ended.", ("transport", "cause"), TERMINATIONS
        )
        self._revocations = Tally(
            "edged_revocations", "What was revoked.", ("kind",), [(kind,) for kind in REVOCATIONS]
        )
        self._refreshes = Tally(
            "edged_token_refreshes", "Tokens that were to be refreshed.", ("result",),
            [(result,) for result in REFRESHES],
        )  # fmt: skip
        self._restarts = Tally(
            "edged_child_restarts", "Children started again.", ("child",), [(child,) for child in CHILDREN]
        )
        self._intruders = Tally(
            "edged_publisher_intruders", "Connections refused where only a camera's own ffmpeg may publish.", (), [()]
        )
        self._resyncs = Tally(
            "edged_udev_resyncs", "Cameras enumerated anew.", ("cause",), [("start",), ("enobufs",), ("poll",)]
        )
        self._jumps = Tally(
            "edged_clock_jumps", "Steps of the system clock.", ("direction",), [("forward",), ("backward",)]
        )
        self._drops = Tally("edged_ws_outbox_drops", "Slow WebSockets cut off.", (), [()])
        self._http = Tally(
            "edged_http_requests", "HTTP answers.", ("code",), [("5xx",), ("4xx",), ("3xx",), ("2xx",), ("1xx",)]
        )
        self._hook = Tally("edged_hook_questions", "Questions of MediaMTX.", ("action", "result"), _HOOK)
        self._propagation = Durations(
            "edged_revocation_propagation_seconds", "From the end of a right to the end of the session that it opened.",
            "transport", ("ws", "media"), _PROPAGATION,
        )  # fmt: skip
        self._commits = Durations(
            "edged_store_commit_duration_seconds", "One transaction.", "db", ("trust", "usage"), _COMMIT
        )
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    # What happened -------------------------------------------------------------------------------------------------

    def auth_failed(self, reason: str, method: str, transport: str) -> None:
        """The gate said no."""
        try:
            self._failures.counts[reason, method, transport].value += 1
        except KeyError:
            self._failures.find((str(reason), method, _SHARED.get(transport, transport))).inc()

    def credential_used(self, method: str, transport: str, role: str) -> None:
        """The gate knows who it is."""
        try:
            self._uses.counts[method, transport, role].value += 1
        except KeyError:
            self._uses.find((method, _SHARED.get(transport, transport), role)).inc()

    def auth_throttled(self, axis: str) -> None:
        """Somebody who guesses was told to wait: by their address, or by the subject that they named."""
        self._throttled.find((axis,)).inc()

    def token_warned(self, kind: str) -> None:
        """A token was good and odd: one of ODDITIES."""
        self._oddities.find((kind,)).inc()

    def rpc_answered(self, method: str, outcome: str) -> None:
        """A call ended: `outcome` is "ok" or the slug of its error."""
        if outcome == "ok" and method in self._rpc_ok:
            self._rpc_ok[method].value += 1
            return
        (self._rpc_errors.get(method) or self._rpc.counts["unknown", "error"]).inc()
        self._slugs.counts.get((outcome,), self._slugs.counts[("internal",)]).inc()

    def session_ended(self, transport: str, cause: str, seconds: float) -> None:
        """An admission was ended (revoked, expired, suspended, ended) and its way out taken, which took so long.

        What MediaMTX's sessions take is told by `session_kicked`, once it has let go of them.
        """
        self._terminated.find((_SHARED.get(transport, transport), cause)).inc()
        if transport in ("ws", "uds", "http") and cause in ("revoked", "suspended"):
            self._propagation.observe("ws", seconds)

    def session_kicked(self, _protocol: str, seconds: float) -> None:
        """MediaMTX has put out a session, so many seconds after it was asked to."""
        self._propagation.observe("media", seconds)

    def revoked(self, kind: str) -> None:
        """Something was revoked: one of REVOCATIONS."""
        self._revocations.find((kind,)).inc()

    def token_refreshed(self, result: str) -> None:
        """Somebody asked for a token to be refreshed: one of REFRESHES."""
        self._refreshes.counts[(result,)].inc()

    def child_restarted(self, child: str) -> None:
        """A child (mediamtx, publisher, frames) was started again."""
        self._restarts.find((child,)).inc()

    def publisher_intruded(self) -> None:
        """Somebody else connected where only a camera's own ffmpeg may publish, and was refused."""
        self._intruders.counts[()].inc()

    def udev_resynced(self, cause: str) -> None:
        """Cameras were enumerated: at the start, after an overflow (enobufs), or after a failed poll."""
        self._resyncs.find((cause,)).inc()

    def clock_jumped(self, direction: str) -> None:
        """The system clock was set forward or backward."""
        self._jumps.find((direction,)).inc()

    def outbox_dropped(self) -> None:
        """A WebSocket read too slowly and was closed with 1013."""
        self._drops.counts[()].inc()

    def peer_refused(self) -> None:
        """A listener does not take connections from there; nothing was read of it."""
        self.auth_failed("address_denied", "none", "http")

    def http_answered(self, status: int) -> None:
        """An HTTP answer went out."""
        self._http.find((f"{status // 100}xx",)).inc()

    def hook_asked(self, action: str, allowed: bool) -> None:
        """MediaMTX asked whether somebody may do something."""
        known = action if (action, "allowed") in self._hook.counts else OTHER
        self._hook.find((known, "allowed" if allowed else "refused")).inc()

    def committed(self, db: str, seconds: float) -> None:
        """A transaction of the trust or the usage database took so long."""
        self._commits.observe(db, seconds)

    def connections_changed(self, number: int) -> None:
        """So many sockets are open now."""
        self._connections = number

    # What is now ---------------------------------------------------------------------------------------------------

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
        denials_owed: Callable[[], int] | None = None,
        health: Callable[[], Mapping[str, int]] | None = None,
        restore_unconfirmed: Callable[[], bool] | None = None,
        disks: Callable[[], Mapping[str, int]] | None = None,
        camera_causes: Callable[[], Mapping[str, int]] | None = None,
        camera_restarts: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """Where to ask for what is now, each time somebody scrapes; app.py says so once.

        `sessions` by transport; `cameras` by name: True connected, False disconnected, None error; `children`
        (mediamtx, publisher, frames) running; `api_keys` by status; `clock`: synchronized, trusted, mark;
        `issuers`: name in the settings (eight at most) → when its keys were read last, Unix seconds, 0.0 never;
        `denials_owed`: how many are in force and not on disk; `health`: problems by part (operations.health); `disks`:
        free bytes of the file systems that edged writes to, by the setting in [paths] that leads there;
        `restore_unconfirmed`: the trust database is an older one, and nobody has confirmed it;
        `camera_causes`: every cause why a source gives no picture → cameras; `camera_restarts`: by camera.
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
            "denials_owed": denials_owed,
            "health": health,
            "restore_unconfirmed": restore_unconfirmed,
            "disks": disks,
            "camera_causes": camera_causes,
            "camera_restarts": camera_restarts,
        }
        self._asked |= {name: ask for name, ask in given.items() if ask is not None}

    def _ask(self, name: str, nothing: Any) -> Any:
        ask = self._asked.get(name)
        return nothing if ask is None else ask()

    def _gauges(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        cameras: Mapping[str, bool | None] = self._ask("cameras", {})
        states = [{True: "connected", False: "disconnected", None: "error"}[state] for state in cameras.values()]
        mediamtx = self._ask("mediamtx_version", "")
        info = GaugeMetricFamily("edged_build_info", "What runs here.", labels=("version", "mediamtx", "python"))
        shown = mediamtx if _VERSION.match(mediamtx) else "none"
        info.add_metric((self._version, shown, platform.python_version()), 1)
        yield info
        yield _gauge(
            "edged_sessions",
            "WebSockets, viewers and live pictures now.",
            "transport",
            TRANSPORTS,
            self._ask("sessions", {}),
        )
        yield GaugeMetricFamily("edged_connections", "Sockets open.", value=self._ask("connections", self._connections))
        counted = {state: states.count(state) for state in _CAMERA_STATES}
        yield _gauge("edged_cameras", "Known cameras.", "state", _CAMERA_STATES, counted)
        up = {name: int(state is True) for name, state in list(cameras.items())[:MOST_CAMERAS]}
        rest = [int(state is True) for state in list(cameras.values())[MOST_CAMERAS:]]
        if rest:
            up[OTHER] = sum(rest)
        yield _gauge("edged_camera_up", "Connected and without error.", "camera", tuple(up), up)
        causes = self._ask("camera_causes", {})
        yield _gauge(
            "edged_cameras_without_picture",
            "Cameras that give none, by cause; a cause that no camera has is not shown.",
            "cause",
            tuple(causes),
            causes,
        )
        restarts = CounterMetricFamily("edged_camera_restarts", "Failures of a camera's publisher.", labels=("camera",))
        for name, count in list(self._ask("camera_restarts", {}).items())[:MOST_CAMERAS]:
            restarts.add_metric((name,), count)
        yield restarts
        yield _gauge("edged_child_up", "Children running now.", "child", CHILDREN, self._ask("children", {}))
        synchronized, trusted, mark = self._ask("clock", (False, False, 0.0))
        yield GaugeMetricFamily("edged_clock_synchronized", "A time server is followed.", value=int(synchronized))
        yield GaugeMetricFamily("edged_clock_trusted", "The time told can be relied on.", value=int(trusted))
        yield GaugeMetricFamily(
            "edged_clock_high_water_timestamp_seconds", "What time it is at least.", value=float(mark)
        )
        if issuers := self._ask("issuers", {}):
            yield _gauge(
                "edged_trust_last_success_timestamp_seconds", "When the keys of an outside issuer were read last.",
                "issuer", tuple(issuers), issuers,
            )  # fmt: skip
        yield _gauge("edged_api_keys", "Keys on record.", "state", _KEY_STATES, self._ask("api_keys", {}))
        owed = self._ask("denials_owed", 0)
        yield GaugeMetricFamily(
            "edged_denials_owed", "In force and not on disk: a restart would undo them.", value=owed
        )
        parts = self._ask("health", {})
        yield _gauge("edged_health_problems", "What does not work, as /health judges it.", "part", tuple(parts), parts)
        yield GaugeMetricFamily(
            "edged_restore_unconfirmed", "A restored trust database waits: edged trust confirm-restore.",
            value=int(self._ask("restore_unconfirmed", False)),
        )  # fmt: skip
        disks = self._ask("disks", {})
        yield _gauge("edged_disk_free_bytes", "Free where edged writes.", "disk", tuple(disks), disks)

    def collect(self) -> Iterator[Any]:
        """For prometheus_client: everything but the process's own figures."""
        yield from self._gauges()
        yield from (item.collect() for item in vars(self).values() if isinstance(item, (Tally, Durations)))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its Content-Type: OpenMetrics if `accept` asks for it, else Prometheus text."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _gauge(
    name: str, help_text: str, label: str, legal: Sequence[str], values: Mapping[str, float]
) -> GaugeMetricFamily:
    """One value for each legal label, 0 where none was given."""
    family = GaugeMetricFamily(name, help_text, labels=(label,))
    for key in legal:
        family.add_metric((key,), float(values.get(key, 0)))
    return family
