"""Every metric of edged, named once, with every legal label set exported at 0 from the start.

An alert on a counter that first appears as 1 never fires, so nothing may appear later; and no label
takes a value from the wire, so nothing can be made to grow. What does not fit a table is counted
under the nearest entry of it: no event is lost. At most 500 series with 2 cameras and 5 keys.

Counting is one look-up and one addition. A cell belongs to one thread: the loop's, or for commits
that of the database's writer. The values of gauges are asked for when /metrics is read (`gauges.watch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from edged.metrics.gauges import Gauges
from edged.metrics.labels import (
    AUTH_FAILURES,
    CHILDREN,
    COMMIT_SECONDS,
    DELETIONS,
    HOOK_QUESTIONS,
    HOTPLUG_EVENTS,
    HOTPLUG_SECONDS,
    OTHER,
    PROPAGATION_SECONDS,
    REFRESHES,
    REVOCATIONS,
    SHARED_LABELS,
    SLUGS,
    TERMINATIONS,
    TOKEN_USES,
    TOKEN_WARNINGS,
)
from edged.metrics.tables import CounterTable, HistogramTable


class Metrics:
    """All metrics, in a registry of their own. Counting methods are called by the parts that the names say."""

    def __init__(self, operations: Mapping[str, str], *, version: str = "") -> None:
        """`operations`: registered name → the label it counts under; any other method counts as `unknown`."""
        names = sorted(set(operations.values()))
        self.gauges = Gauges(version)
        self._failures = CounterTable(
            "edged_auth_failures",
            "Refused credentials and requests, by reason.",
            ("reason", "method", "transport"),
            AUTH_FAILURES,
        )
        self._uses = CounterTable(
            "edged_token_uses", "Accepted credentials.", ("method", "transport", "role"), TOKEN_USES
        )
        self._token_warnings = CounterTable(
            "edged_token_warnings", "Warnings about accepted tokens.", ("kind",), [(kind,) for kind in TOKEN_WARNINGS]
        )
        self._rpc = CounterTable(
            "edged_rpc_requests", "JSON-RPC calls answered, by method and outcome.", ("method", "outcome"),
            [*product(names, ("ok", "error")), ("unknown", "error")],
        )  # fmt: skip
        self._rpc_ok = {name: self._rpc.counts[label, "ok"] for name, label in operations.items()}
        self._rpc_errors = {name: self._rpc.counts[label, "error"] for name, label in operations.items()}
        self._slugs = CounterTable(
            "edged_rpc_errors", "JSON-RPC calls that failed, by error.", ("slug",), [(slug,) for slug in SLUGS]
        )
        self._throttled = CounterTable(
            "edged_auth_throttled",
            "Authentication attempts refused by the rate limiter.",
            ("axis",),
            [("address",), ("subject",)],
        )
        self._terminated = CounterTable(
            "edged_sessions_terminated",
            "Sessions and streams ended by edged, by cause.",
            ("transport", "cause"),
            TERMINATIONS,
        )
        self._revocations = CounterTable(
            "edged_revocations", "Revocations made.", ("kind",), [(kind,) for kind in REVOCATIONS]
        )
        self._refreshes = CounterTable(
            "edged_token_refreshes", "Token refreshes, by result.", ("result",),
            [(result,) for result in REFRESHES],
        )  # fmt: skip
        self._deleted_files = CounterTable(
            "edged_recording_files_deleted", "Recorded files deleted, by reason.", ("reason",),
            [(reason,) for reason in DELETIONS],
        )  # fmt: skip
        self._deleted_bytes = CounterTable(
            "edged_recording_bytes_deleted", "Bytes of recorded files deleted.", (), [()]
        )
        self._restarts = CounterTable(
            "edged_child_restarts", "Restarts of child processes.", ("child",), [(child,) for child in CHILDREN]
        )
        self._intruders = CounterTable(
            "edged_publisher_intruders",
            "Connections refused by a relay that only a camera's own ffmpeg may use.",
            (),
            [()],
        )
        self._resyncs = CounterTable(
            "edged_udev_resyncs",
            "Enumerations of all cameras by udev, by cause.",
            ("cause",),
            [("start",), ("enobufs",), ("poll",)],
        )
        self._hotplug = CounterTable(
            "edged_hotplug_events", "Events of udev about video devices, by what came of them.", ("action", "outcome"),
            HOTPLUG_EVENTS,
        )  # fmt: skip
        self._hotplug_ready = HistogramTable(
            "edged_hotplug_ready_seconds", "Time from udev's event to a camera that is shown.", "kind", ("uvc",),
            HOTPLUG_SECONDS,
        )  # fmt: skip
        self._jumps = CounterTable(
            "edged_clock_jumps",
            "Steps of the system clock, by direction.",
            ("direction",),
            [("forward",), ("backward",)],
        )
        self._drops = CounterTable(
            "edged_ws_outbox_drops", "WebSockets closed because the client does not read.", (), [()]
        )
        self._http = CounterTable(
            "edged_http_requests",
            "HTTP responses, by status class.",
            ("code",),
            [("5xx",), ("4xx",), ("3xx",), ("2xx",), ("1xx",)],
        )
        self._hook = CounterTable(
            "edged_hook_questions",
            "Authentication requests of MediaMTX, by action and result.",
            ("action", "result"),
            HOOK_QUESTIONS,
        )
        self._propagation = HistogramTable(
            "edged_revocation_propagation_seconds", "Time from a revocation to the end of its sessions.",
            "transport", ("ws", "media"), PROPAGATION_SECONDS,
        )  # fmt: skip
        self._commits = HistogramTable(
            "edged_store_commit_duration_seconds",
            "Duration of database transactions.",
            "db",
            ("trust", "usage"),
            COMMIT_SECONDS,
        )
        self._render: Callable[[str], tuple[bytes, str]] | None = None

    # What happened -------------------------------------------------------------------------------------------------

    def auth_failed(self, reason: str, method: str, transport: str) -> None:
        """The gate refused a request."""
        transport = SHARED_LABELS.get(transport, transport)
        try:
            self._failures.counts[reason, method, transport].value += 1
        except KeyError:
            self._failures.find((str(reason), method, transport)).inc()

    def credential_used(self, method: str, transport: str, role: str) -> None:
        """The gate accepted a credential."""
        transport = SHARED_LABELS.get(transport, transport)
        try:
            self._uses.counts[method, transport, role].value += 1
        except KeyError:
            self._uses.find((method, transport, role)).inc()

    def auth_throttled(self, axis: str) -> None:
        """An authentication attempt was refused by the limiter: `axis` is "address" or "subject"."""
        self._throttled.find((axis,)).inc()

    def token_warned(self, kind: str) -> None:
        """An accepted token deserves a warning: one of TOKEN_WARNINGS."""
        self._token_warnings.find((kind,)).inc()

    def rpc_answered(self, method: str, outcome: str) -> None:
        """A call ended: `outcome` is "ok" or the slug of its error."""
        if outcome == "ok" and method in self._rpc_ok:
            self._rpc_ok[method].value += 1
            return
        (self._rpc_errors.get(method) or self._rpc.counts["unknown", "error"]).inc()
        self._slugs.counts.get((outcome,), self._slugs.counts[("internal",)]).inc()

    def session_ended(self, transport: str, cause: str, seconds: float) -> None:
        """An admission ended for `cause` (revoked, expired, suspended, ended); its termination took `seconds`.

        For MediaMTX's sessions `session_kicked` tells how long the termination took.
        """
        self._terminated.find((SHARED_LABELS.get(transport, transport), cause)).inc()
        if transport in ("ws", "uds", "http") and cause in ("revoked", "suspended"):
            self._propagation.observe("ws", seconds)

    def session_kicked(self, _protocol: str, seconds: float) -> None:
        """MediaMTX closed a session, `seconds` after edged asked for it."""
        self._propagation.observe("media", seconds)

    def revoked(self, kind: str) -> None:
        """Something was revoked: one of REVOCATIONS."""
        self._revocations.find((kind,)).inc()

    def token_refreshed(self, result: str) -> None:
        """Somebody asked for a token to be refreshed: one of REFRESHES."""
        self._refreshes.counts[(result,)].inc()

    def recording_deleted(self, reason: str, size: int) -> None:
        """A recorded file of so many bytes was deleted: `reason` is one of DELETIONS."""
        self._deleted_files.find((reason,)).inc()
        self._deleted_bytes.counts[()].inc(size)

    def child_restarted(self, child: str) -> None:
        """A child (mediamtx, publisher, frames) was started again."""
        self._restarts.find((child,)).inc()

    def publisher_intruded(self) -> None:
        """Somebody else connected where only a camera's own ffmpeg may publish, and was refused."""
        self._intruders.counts[()].inc()

    def udev_resynced(self, cause: str) -> None:
        """Cameras were enumerated: at the start, after an overflow (enobufs), or after a failed poll."""
        self._resyncs.find((cause,)).inc()

    def hotplug_event(self, action: str, outcome: str) -> None:
        """udev spoke of a device: the pair is one of HOTPLUG_EVENTS."""
        self._hotplug.find((action, outcome)).inc()

    def hotplug_ready(self, seconds: float) -> None:
        """A camera that was plugged in is shown, so many seconds after its event."""
        self._hotplug_ready.observe("uvc", seconds)

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
        self.gauges.connections = number

    def collect(self) -> Iterator[Any]:
        """For prometheus_client: everything but the process's own figures."""
        yield from self.gauges.collect()
        yield from (item.collect() for item in vars(self).values() if isinstance(item, (CounterTable, HistogramTable)))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its Content-Type: OpenMetrics if `accept` asks for it, else Prometheus text.

        The first call imports prometheus_client, which takes long: import edged.metrics.exposition in a thread before.
        """
        if self._render is None:
            from edged.metrics.exposition import make_renderer

            self._render = make_renderer(self)
        return self._render(accept)
