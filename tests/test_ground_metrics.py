"""Metrics: closed label sets, all at 0 from the start, and nothing that anybody sends can make them grow."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from edged import errors
from edged.credentials.callers import METHODS
from edged.credentials.callers import TRANSPORTS as CALLER_TRANSPORTS
from edged.credentials.decision import Reason
from edged.metrics import Metrics
from edged.metrics.labels import AUTH_FAILURES, MOST_CAMERAS, SLUGS, TOKEN_USES, TRANSPORTS
from edged.metrics.tables import nearest

OPERATIONS = {name: name for name in (f"operation_{number}" for number in range(17))}


def make() -> Metrics:
    metrics = Metrics(OPERATIONS, version="1.2.3")
    metrics.gauges.watch(
        cameras=lambda: {"camera0": True, "camera1": False},
        api_keys=lambda: {"active": 4, "revoked": 1},
        recorded=lambda: dict.fromkeys(["camera0", "camera1"], (0, 0.0, 0)),
        camera_restarts=lambda: {"camera0": 0, "camera1": 0},
        camera_flaps=lambda: {"camera0": 0, "camera1": 0},
        disks=lambda: dict.fromkeys(["state", "runtime", "media", "recording"], 1),
    )
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    body, _ = metrics.render("")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def own(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {key: number for key, number in samples(metrics).items() if key[0].startswith("edged_")}


def test_at_most_500_series_with_two_cameras_and_five_keys() -> None:
    """Rendering holds the loop, so the whole exposition stays small; the process's own figures included."""
    assert len(samples(make())) <= 500
    assert len(AUTH_FAILURES) <= 131
    assert len(TOKEN_USES) <= 58


def test_every_counter_is_there_at_0_from_the_start() -> None:
    """An alert on a counter that first appears as 1 never fires."""
    before = own(make())
    assert {number for (name, _), number in before.items() if name.endswith("_total")} == {0.0}
    for labels in AUTH_FAILURES:
        key = frozenset(zip(("reason", "method", "transport"), labels, strict=True))
        assert before["edged_auth_failures_total", key] == 0


def test_no_series_tells_when_it_was_made() -> None:
    """_created series would double the number of counters and say nothing."""
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        assert b"_created" not in make().render(accept)[0]


@pytest.mark.parametrize("transport", ["rtsp", "rtmp", "srt", "hls", "webrtc"])
def test_mediamtx_s_protocols_share_the_label_media(transport: str) -> None:
    """The log names the protocol; a label for each would be a hundred series that stay at 0."""
    metrics = make()
    metrics.auth_failed("bad_signature", "jwt_local", transport)
    metrics.credential_used("api_key", transport, "viewer")
    metrics.session_ended(transport, "revoked", 0.1)
    told = {key: number for key, number in own(metrics).items() if number and ("transport", "media") in key[1]}
    assert sorted(name for name, _ in told) == [
        "edged_auth_failures_total", "edged_sessions_terminated_total", "edged_token_uses_total",
    ]  # fmt: skip
    assert set(told.values()) == {1.0}


def test_tables_hold_no_label_twice() -> None:
    """A doubled entry would make the exposition invalid."""
    assert len(set(AUTH_FAILURES)) == len(AUTH_FAILURES)
    assert len(set(TOKEN_USES)) == len(TOKEN_USES)


def test_tables_speak_the_gates_words() -> None:
    """Each reason and method of the gate has a place in the tables, and they name nothing else."""
    assert TRANSPORTS == CALLER_TRANSPORTS
    assert {reason for reason, _, _ in AUTH_FAILURES} == set(map(str, Reason))
    assert {method for _, method, _ in AUTH_FAILURES} <= set(METHODS)
    assert {method for method, _, _ in TOKEN_USES} <= set(METHODS)


def test_every_slug_of_a_caller_s_error_is_counted_by_name() -> None:
    """A new error class needs its entry: without one it would hide among the internal ones."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgedError)]
    slugs = {kind.slug for kind in kinds}
    assert slugs - {"config", "start"} == set(SLUGS)


def test_a_refusal_is_counted_under_its_reason() -> None:
    """The reason is the very word of the log; a StrEnum is as good as its text."""
    metrics = make()
    metrics.auth_failed(Reason.REVOKED, "api_key", "ws")
    metrics.auth_failed("revoked", "api_key", "ws")
    assert value(metrics, "edged_auth_failures_total", reason="revoked", method="api_key", transport="ws") == 2


def test_a_good_credential_is_counted_by_method_transport_and_role() -> None:
    """Who uses what, without saying who."""
    metrics = make()
    metrics.credential_used("jwt_local", "http", "operator")
    assert value(metrics, "edged_token_uses_total", method="jwt_local", transport="http", role="operator") == 1


def test_what_fits_no_table_counts_under_the_nearest_entry() -> None:
    """Nothing is lost and nothing new appears."""
    metrics = make()
    metrics.auth_failed(Reason.MISSING_SCOPE, "peercred", "uds")
    assert value(metrics, "edged_auth_failures_total", reason="missing_scope", method="api_key", transport="uds") == 1
    metrics.credential_used("internal", "ws", "none")
    assert value(metrics, "edged_token_uses_total", method="internal", transport="http", role="none") == 1
    metrics.session_ended("uds", "slow", 0.01)
    assert value(metrics, "edged_sessions_terminated_total", transport="uds", cause="revoked") == 1


def test_the_earlier_label_weighs_more() -> None:
    """A wrong transport still counts under its reason."""
    legal = [("a", "x", "1"), ("a", "y", "2"), ("b", "y", "3")]
    assert nearest(("a", "y", "3"), legal) == ("a", "y", "2")
    assert nearest(("b", "x", "1"), legal) == ("b", "y", "3")
    assert nearest(("c", "z", "0"), legal) == ("a", "x", "1")


def test_calls_are_counted_as_ok_or_error_with_the_slug() -> None:
    """Rates by method, and by slug what goes wrong."""
    metrics = make()
    metrics.rpc_answered("operation_3", "ok")
    metrics.rpc_answered("operation_3", "refused")
    metrics.rpc_answered("no such thing", "unknown_method")
    metrics.rpc_answered("no such thing", "ok")
    metrics.rpc_answered("operation_3", "no such slug")
    assert value(metrics, "edged_rpc_requests_total", method="operation_3", outcome="ok") == 1
    assert value(metrics, "edged_rpc_requests_total", method="operation_3", outcome="error") == 2
    assert value(metrics, "edged_rpc_requests_total", method="unknown", outcome="error") == 2
    assert value(metrics, "edged_rpc_errors_total", slug="refused") == 1
    assert value(metrics, "edged_rpc_errors_total", slug="unknown_method") == 1


def test_operations_of_one_label_are_counted_together() -> None:
    """Administration counts under what it is about."""
    metrics = Metrics({"create_key": "api_keys", "revoke_key": "api_keys", "ping": "ping"})
    for method, outcome in (("create_key", "ok"), ("revoke_key", "ok"), ("revoke_key", "not_found"), ("ping", "ok")):
        metrics.rpc_answered(method, outcome)
    assert value(metrics, "edged_rpc_requests_total", method="api_keys", outcome="ok") == 2
    assert value(metrics, "edged_rpc_requests_total", method="api_keys", outcome="error") == 1
    assert value(metrics, "edged_rpc_requests_total", method="ping", outcome="ok") == 1


@pytest.mark.parametrize(
    ("count", "name", "labels"),
    [
        (
            lambda m: m.session_ended("rtsp", "revoked", 0.0),
            "edged_sessions_terminated_total",
            "transport=media,cause=revoked",
        ),
        (lambda m: m.revoked("token"), "edged_revocations_total", "kind=token"),
        (lambda m: m.child_restarted("publisher"), "edged_child_restarts_total", "child=publisher"),
        (lambda m: m.udev_resynced("enobufs"), "edged_udev_resyncs_total", "cause=enobufs"),
        (lambda m: m.outbox_dropped(), "edged_ws_outbox_drops_total", ""),
        (lambda m: m.http_answered(204), "edged_http_requests_total", "code=2xx"),
        (lambda m: m.http_answered(999), "edged_http_requests_total", "code=5xx"),
        (lambda m: m.hook_asked("read", True), "edged_hook_questions_total", "action=read,result=allowed"),
        (lambda m: m.hook_asked("dance", True), "edged_hook_questions_total", "action=other,result=refused"),
        (lambda m: m.connections_changed(1), "edged_connections", ""),
    ],
)
def test_each_event_has_its_counter(count: Callable[[Metrics], None], name: str, labels: str) -> None:
    """One call, one more; strange values find a place."""
    metrics = make()
    count(metrics)
    assert value(metrics, name, **dict(pair.split("=") for pair in labels.split(",") if pair)) == 1


def test_durations_fall_into_buckets() -> None:
    """A histogram's buckets are cumulative, and its sum is in seconds."""
    metrics = make()
    for seconds in (0.005, 0.01, 0.2, 99.0):
        metrics.committed("trust", seconds)
    name = "edged_store_commit_duration_seconds"
    assert value(metrics, f"{name}_bucket", db="trust", le="0.005") == 1
    assert value(metrics, f"{name}_bucket", db="trust", le="0.01") == 2
    assert value(metrics, f"{name}_bucket", db="trust", le="1.0") == 3
    assert value(metrics, f"{name}_bucket", db="trust", le="+Inf") == 4
    assert value(metrics, f"{name}_count", db="trust") == 4
    assert value(metrics, f"{name}_sum", db="trust") == pytest.approx(99.215)
    assert value(metrics, f"{name}_count", db="usage") == 0
    metrics.committed("elsewhere", 0.1)
    assert value(metrics, f"{name}_count", db="trust") == 5


def test_revocations_reach_sockets_and_media() -> None:
    """The transport is one of two here: a histogram with more would be large."""
    metrics = make()
    metrics.session_ended("uds", "revoked", 0.01)
    metrics.session_ended("rtsp", "revoked", 0.01)
    metrics.session_kicked("webrtc", 0.05)
    metrics.session_kicked("hls", 0.05)
    assert value(metrics, "edged_revocation_propagation_seconds_count", transport="ws") == 1
    assert value(metrics, "edged_revocation_propagation_seconds_count", transport="media") == 2


def test_gauges_are_asked_for_when_somebody_scrapes() -> None:
    """No part keeps a gauge up to date; the answer is what is true now."""
    metrics = make()
    open_now = {"ws": 2}
    metrics.gauges.watch(
        pending_revocations=lambda: 2,
        sessions=lambda: open_now, connections=lambda: 7, children=lambda: {"mediamtx": 1, "unheard": 9},
        cameras=lambda: {"camera0": True, "camera1": None, "camera2": False}, mediamtx_version=lambda: "v1.20.1",
    )  # fmt: skip
    open_now["ws"] = 3
    assert value(metrics, "edged_sessions", transport="ws") == 3
    assert value(metrics, "edged_sessions", transport="uds") == 0
    assert value(metrics, "edged_connections") == 7
    assert value(metrics, "edged_revocations_pending") == 2
    assert value(metrics, "edged_child_up", child="mediamtx") == 1
    assert value(metrics, "edged_camera_up", camera="camera1") == 0
    assert [value(metrics, "edged_cameras", state=state) for state in ("connected", "disconnected", "error")] == [
        1,
        1,
        1,
    ]
    assert value(metrics, "edged_api_keys", state="active") == 4
    (info,) = [dict(labels) for name, labels in samples(metrics) if name == "edged_build_info"]
    assert (info["version"], info["mediamtx"]) == ("1.2.3", "v1.20.1")


def test_a_strange_version_is_no_label() -> None:
    """What a child prints as its version is not trusted to be one."""
    metrics = make()
    metrics.gauges.watch(mediamtx_version=lambda: "v1 \n evil")
    assert b'mediamtx="none"' in metrics.render("")[0]


def test_many_cameras_share_a_label() -> None:
    """The 33rd camera brings one more series, the 34th none."""
    metrics = make()
    metrics.gauges.watch(cameras=lambda: {f"camera{number}": True for number in range(MOST_CAMERAS + 5)})
    shown = [dict(labels)["camera"] for name, labels in samples(metrics) if name == "edged_camera_up"]
    assert len(shown) == MOST_CAMERAS + 1
    assert value(metrics, "edged_camera_up", camera="other") == 5


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("edged_recorded_bytes_total", 1000), ("edged_recorded_seconds_total", 60.5), ("edged_recording_gaps_total", 2),
        ("edged_camera_restarts_total", 3),
    ],
)  # fmt: skip
def test_what_is_counted_of_many_cameras_is_counted_together_and_not_lost(name: str, most: float) -> None:
    metrics, cameras = make(), [f"camera{number}" for number in range(MOST_CAMERAS + 5)]
    metrics.gauges.watch(
        recorded=lambda: dict.fromkeys(cameras, (1000, 60.5, 2)), camera_restarts=lambda: dict.fromkeys(cameras, 3)
    )
    shown = [number for (found, _), number in samples(metrics).items() if found == name]
    assert sorted(shown) == [most] * MOST_CAMERAS + [5 * most]


def test_text_and_openmetrics_on_request() -> None:
    """Prometheus asks for what it likes best; either parses."""
    metrics = make()
    metrics.auth_failed("missing", "none", "ws")
    body, content_type = metrics.render("text/plain")
    assert content_type.startswith("text/plain")
    assert list(parse_text(body.decode()))
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert list(parse_openmetrics(body.decode()))


@given(st.text(max_size=80))
def test_any_accept_header_is_answered(accept: str) -> None:
    """A scraper's header is the wire's; it never makes an error."""
    body, content_type = Metrics({"ping": "ping"}).render(accept)
    assert b"edged_build_info" in body
    assert re.match(r"(text/plain|application/openmetrics-text)", content_type)


@given(st.lists(st.tuples(*[st.text(max_size=12) | st.sampled_from([*map(str, Reason), *METHODS, *TRANSPORTS])] * 3)))
def test_nothing_that_is_counted_makes_a_new_series(events: list[tuple[str, str, str]]) -> None:
    """A fuzz of every counter leaves the same label sets, and each event counts exactly once."""
    metrics = make()
    before = own(metrics)
    for one, two, three in events:
        metrics.auth_failed(one, two, three)
        metrics.credential_used(one, two, three)
        metrics.rpc_answered(one, two)
        metrics.session_ended(one, two, 0.0)
        metrics.hook_asked(one, bool(two))
        metrics.child_restarted(one)
        metrics.udev_resynced(one)
        metrics.revoked(one)
    after = own(metrics)
    assert after.keys() == before.keys()
    for name in ("edged_auth_failures_total", "edged_token_uses_total", "edged_hook_questions_total"):
        assert sum(number for (known, _), number in after.items() if known == name) == len(events)


def test_two_registries_know_nothing_of_each_other() -> None:
    """No global state: a second daemon in one process counts for itself."""
    one, other = make(), make()
    one.auth_failed("missing", "none", "ws")
    assert value(other, "edged_auth_failures_total", reason="missing", method="none", transport="ws") == 0
