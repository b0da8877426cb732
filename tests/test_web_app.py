"""The route table and its answers to everything that is not a good question."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.responses import Response
from web_helpers import LOCAL, REMOTE, UNIX, Site, loopback

import edged
from edged.credentials.callers import Peer
from edged.errors import (
    ConfigError,
    DependencyFailed,
    EdgedError,
    InvalidState,
    Overloaded,
    RateLimited,
    Refused,
    StoreFailed,
    UnknownMethod,
    Unsupported,
)
from edged.web.app import build_router
from edged.web.faults import sole
from edged.web.requests import Request, Route


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def nothing(_request: Request) -> Response:
    return Response()


def raising(site: Site, problem: Exception, **values: object) -> Site:
    """A site with one more route, whose answer is this error."""

    async def answer(_request: Request) -> Response:
        raise problem

    route = Route(method="GET", path="/x", answer=answer, **{"capability": "none", **values})  # type: ignore[arg-type]
    site.app = build_router([route], site.catalogue, site.services, site.counts)
    return site


def test_endpoints_hand_services_on_and_look_into_none_of_them() -> None:
    """Operations read `Services`; an endpoint asks them for what it needs."""
    folder, found = Path(edged.__file__).parent, []
    for path in (*(folder / "web").glob("*.py"), *(folder / "rpc").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = (
                    owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
                )
                if name.lstrip("_") == "services":
                    found.append(f"{path.parent.name}/{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"capability": "camera:fly"},
        {"operation": "no_such_operation"},
        {"operation": "ping", "capability": "none"},
    ],
)
async def test_a_route_without_a_capability_does_not_start(site: Site, values: dict[str, Any]) -> None:
    """Default deny: the daemon does not start with a route that forgot its capability."""
    with pytest.raises(ValueError, match="GET /x"):
        build_router(
            [Route(method="GET", path="/x", answer=nothing, **values)], site.catalogue, site.services, site.counts
        )


async def test_two_routes_have_not_the_same_method_and_path(site: Site) -> None:
    """The second would never be reached."""
    route = Route(method="GET", path="/x", answer=nothing, capability="self")
    with pytest.raises(ValueError, match="two routes"):
        build_router([route, route], site.catalogue, site.services, site.counts)


async def test_self_means_any_good_credential(site: Site) -> None:
    """Whoever is somebody may go there."""
    route = Route(method="GET", path="/x", answer=nothing, capability="self")
    site.app = build_router([route], site.catalogue, site.services, site.counts)
    assert (await site.ask("GET", "/x")).status == 401
    assert (await site.ask("GET", "/x", key=site.key("monitor")[1])).status == 200


@pytest.mark.parametrize(
    "path", ["/static/", "/nothing", "/api/keys/", "/api/keys/a/b", "/healthz/", "//api/keys", "/ws"]
)
async def test_a_path_without_a_route_is_404_in_json(site: Site, path: str) -> None:
    """No redirect to a path that would have been right, no page."""
    reply = await site.ask("GET", path, key=site.key()[1])
    assert (reply.status, reply.json["code"]) == (404, "not_found")
    assert "location" not in reply.headers


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "DELETE", "FLY"])
async def test_another_method_is_405_and_told_which(site: Site, method: str) -> None:
    """Allow names the ones that this path knows."""
    reply = await site.ask(method, "/api/keys", key=site.key()[1])
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD, POST"


async def test_head_is_there_for_every_get(site: Site) -> None:
    """The same head as GET's."""
    head, get = await site.ask("HEAD", "/health/live"), await site.ask("GET", "/health/live")
    assert (head.status, head.headers["content-length"]) == (200, get.headers["content-length"])
    assert (await site.ask("HEAD", "/api/keys")).status == 401


async def test_every_answer_is_counted_once(site: Site) -> None:
    """By its status, whatever became of the question."""
    await site.ask("GET", "/healthz")
    await site.ask("GET", "/nothing")
    await site.ask("PUT", "/healthz")
    await site.ask("GET", "/api/keys")
    assert site.counts.statuses == [200, 404, 405, 401]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (UnknownMethod("no"), 404, "unknown_method"),
        (InvalidState("no"), 409, "invalid_state"),
        (Unsupported("no"), 501, "unsupported"),
        (DependencyFailed("no"), 503, "dependency_failed"),
        (StoreFailed("no"), 503, "store_error"),
        (Overloaded("no"), 503, "overloaded"),
        (ConfigError("no"), 500, "internal"),
        (ExceptionGroup("", [DependencyFailed("no")]), 503, "dependency_failed"),
        (ExceptionGroup("", [DependencyFailed("no"), ValueError()]), 500, "internal"),
        (Refused("unknown_key"), 401, "auth_failed"),
        (Refused("bad_signature", "its alg is not ours"), 401, "auth_failed"),
        (Refused("expired"), 401, "expired"),
        (Refused("revoked"), 401, "revoked"),
        (Refused("role_denied"), 401, "auth_failed"),
        (Refused("missing_scope"), 403, "permission_denied"),
        (Refused("camera_denied"), 404, "camera_not_found"),
    ],
)
async def test_each_error_has_its_status_and_word(site: Site, problem: Exception, status: int, code: str) -> None:
    """One table; always JSON with error, detail and code."""
    reply = await raising(site, problem).ask("GET", "/x")
    assert (reply.status, reply.json["code"]) == (status, code)
    assert all(isinstance(reply.json[name], str) and reply.json[name] for name in ("error", "detail", "code"))


async def test_the_exact_reason_stays_inside(site: Site) -> None:
    """What the log says of a credential is not told to whoever tries credentials."""
    reply = await raising(site, Refused("bad_signature", "no shared secret verifies it")).ask("GET", "/x")
    assert b"signature" not in reply.body
    assert b"secret" not in reply.body


async def test_rate_limited_says_when_to_come_back(site: Site) -> None:
    """429 with Retry-After in whole seconds, at least one."""
    reply = await raising(site, RateLimited("too many", retry_after_ms=1200)).ask("GET", "/x")
    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    again = await raising(site, RateLimited("too many", retry_after_ms=0)).ask("GET", "/x")
    assert again.headers["retry-after"] == "1"


async def test_a_mistake_of_ours_is_500_with_an_incident(site: Site) -> None:
    """The caller gets a number; the log gets the same number and the story."""
    with structlog.testing.capture_logs() as lines:
        reply = await raising(site, RuntimeError("secret inside")).ask("GET", "/x")
    assert reply.status == 500
    assert b"secret inside" not in reply.body
    incident = next(line["incident"] for line in lines if line["event"] == "request_failed")
    assert incident in reply.json["detail"]


def test_a_group_of_one_is_its_one() -> None:
    """Nurseries wrap; endpoints look inside."""
    inner = EdgedError("x")
    assert sole(ExceptionGroup("", [ExceptionGroup("", [inner])])) is inner
    pair = ExceptionGroup("", [inner, inner])
    assert sole(pair) is pair


# --- health -----------------------------------------------------------------------------------------------------------


async def test_health_needs_nothing_and_names_nothing(site: Site) -> None:
    """Anonymous askers get states and times, no camera and no path."""
    for path, names in {
        "/healthz": {"status", "disk_free_gb", "writable", "version"},
        "/health": {"status", "timestamp", "version", "uptime", "denials_owed", "denial_room_bytes"},
        "/health/live": {"alive", "status", "timestamp", "message"},
        "/health/ready": {"status", "ready", "timestamp", "message", "denials_owed"},
    }.items():
        reply = await site.ask("GET", path, headers={"Authorization": "Bearer wrong"})
        assert reply.status == 200, path
        assert reply.json.keys() == names
    assert site.counts.failures == []


async def test_health_is_healthy_degraded_or_unhealthy(site: Site, tmp_path: Path) -> None:
    """Without MediaMTX degraded and still 200; without a disk to write to unhealthy and 503."""
    assert (await site.ask("GET", "/healthz")).json["status"] == "healthy"
    site.mediamtx.state.status = "missing"
    for path in ("/healthz", "/health"):
        degraded = await site.ask("GET", path)
        assert (degraded.status, degraded.json["status"]) == (200, "degraded")
    gone = Site(tmp_path / "gone")
    for path in ("/healthz", "/health"):
        reply = await gone.ask("GET", path)
        assert (reply.status, reply.json["status"]) == (503, "unhealthy")


async def test_health_says_how_many_denials_a_restart_would_undo(site: Site) -> None:
    """Degraded and still ready: they are in force. One that is just on its way to the disk is no cause for alarm."""
    site.registrar.pending = 1
    assert (await site.ask("GET", "/health")).json["status"] == "healthy"
    site.registrar.pending, site.registrar.is_late = 3, True
    for path in ("/healthz", "/health"):
        reply = await site.ask("GET", path)
        assert (reply.status, reply.json["status"]) == (200, "degraded")
    assert (await site.ask("GET", "/health")).json["denials_owed"] == 3
    ready = await site.ask("GET", "/health/ready")
    assert (ready.status, ready.json["ready"], ready.json["denials_owed"]) == (200, True, 3)
    assert "a restart would undo them: 3 of what was denied" in ready.json["message"]


async def test_not_ready_is_503(tmp_path: Path) -> None:
    """While starting and stopping traffic goes elsewhere; alive it is all the same."""
    site = Site(tmp_path, is_ready=lambda: False)
    reply = await site.ask("GET", "/health/ready")
    assert (reply.status, reply.json["ready"], reply.json["status"]) == (503, False, "not_ready")
    assert (await site.ask("GET", "/health/live")).status == 200


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_prometheus_on_this_machine_needs_no_credential(site: Site) -> None:
    """On the local listener, in the format that was asked for."""
    text = await site.ask("GET", "/metrics", peer=LOCAL)
    assert (text.status, text.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert text.body.startswith(b"edged_")
    openmetrics = await site.ask("GET", "/metrics", peer=LOCAL, headers={"Accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (REMOTE, {}),
        (loopback(0), {}),
        (loopback(0, "compat"), {}),
        (Peer("local", "192.0.2.7"), {}),
        (LOCAL, {"Host": "box.example:8003"}),
        (LOCAL, {"Origin": "http://localhost:8003"}),
        (LOCAL, {"X-Forwarded-For": "192.0.2.7"}),
    ],
)
async def test_metrics_elsewhere_need_the_right(site: Site, peer: Peer, headers: dict[str, str]) -> None:
    """401 without a credential, 403 for a viewer, 200 for a monitor, by either header."""
    assert (await site.ask("GET", "/metrics", peer=peer, headers=headers)).status == 401
    assert (await site.ask("GET", "/metrics", peer=peer, headers=headers, key=site.key("viewer")[1])).status == 403
    assert (await site.ask("GET", "/metrics", peer=peer, headers=headers, key=site.key("monitor")[1])).status == 200
    key = {"X-API-Key": site.key("monitor")[1]}
    assert (await site.ask("GET", "/metrics", peer=peer, headers={**headers, **key})).status == 200


async def test_the_local_socket_sees_metrics(site: Site) -> None:
    """Its user is admin."""
    assert (await site.ask("GET", "/metrics", peer=UNIX)).status == 200


async def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    """Then there is nothing at this path."""
    assert (await Site(tmp_path, show_metrics=False).ask("GET", "/metrics", peer=LOCAL)).status == 404
