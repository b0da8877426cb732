"""The table of who may ask what, over the wire: every operation by WebSocket and every route by HTTP, of one daemon.

The rows are those of test_operations_matrix; askers come with real credentials, and more of them: a service token, a
token for files and a ticket open nothing but their own endpoints. What is asked hits nothing, so nothing changes.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlencode

import trio
from daemon_helpers import SECRET, RunningDaemon, running_daemon
from patience import fail_after
from test_operations_matrix import ASKERS, EXPECTED, OPEN, SEE_ALL, SEE_ONE
from test_operations_surface import SURFACE
from web_helpers import Counted

from edged.credentials import tokens
from edged.credentials.decision import OUTSIDE
from edged.operations import gather
from edged.web.routes import list_routes

PASSWORD = "a passphrase of the tests"
#: Whose credentials are for one endpoint each.
GUESTS = ("service", "files", "ticket")

#: Routes that ask no operation → what each of ASKERS gets, asking for camera0 and for a picture that is not there.
ALONE: dict[str, tuple[str, ...]] = {
    "GET /api/cameras/{camera}/live.mjpeg": SEE_ONE,
    "GET /api/cameras/{camera}/snapshot.jpg": SEE_ONE,
    "GET /api/cameras/{camera}/playback.m3u8": SEE_ONE,
    # The page and its files: it shows what a key opens, and nothing by itself.
    "GET /": OPEN,
    "GET /static/page.js": OPEN,
    "GET /static/page.css": OPEN,
    "GET /static/icon.svg": OPEN,
    "GET /files/snapshots/{name:path}": SEE_ALL,
    "GET /files/recordings/{name:path}": SEE_ALL,
    "GET /files/segments/{name:path}": SEE_ALL,
    "GET /metrics": (
        "missing", "ok", "missing_scope", "missing_scope", "ok", "missing_scope", "expired", "revoked", "suspended",
        "missing_scope",
    ),
    "GET /healthz": OPEN,
    "GET /health": OPEN,
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /jwks-path": OPEN,
    "GET /.well-known/jwks.json": OPEN,
}  # fmt: skip
#: Way → operation.
ASKS = {rest: name for name, row in SURFACE.items() for rest in row.rest}

#: Where an endpoint differs from the table. None of this allows what the table refuses, but for GUESTS at their own.
BY_HTTP: dict[tuple[str, str], str] = {
    # On a WebSocket there is no such method.
    **{("POST /api/claim", asker): "ok" for asker in (*ASKERS, *GUESTS)},
    ("POST /v1/files/generate-token", "service"): "ok",
    ("POST /v1/files/generate-token", "files"): "missing_scope",
    ("GET /api/cameras/{camera}/live.mjpeg", "ticket"): "ok",
    ("GET /api/cameras/{camera}/snapshot.jpg", "ticket"): "ok",
    # There is no file of that name here, which everybody is told alike.
    ("GET /api/snapshots/{filename}", "elsewhere"): "ok",
    ("GET /api/recordings/{filename}", "elsewhere"): "ok",
    ("POST /api/links", "elsewhere"): "ok",
    # A refusal that is none of a right.
    ("POST /api/cameras/{device}/forget", "admin"): "ok",
}
BY_WEBSOCKET: dict[tuple[str, str], str] = {
    ("forget_camera", "admin"): "ok",
    # A session that never had a credential has no token.
    **{("refresh_token", asker): "missing" for asker in ("revoked", "suspended", "service", "ticket")},
    **{("claim", asker): "unknown_method" for asker in GUESTS},
    **{
        (name, "elsewhere"): "ok"
        for name in ("get_snapshot_info", "get_recording_info", "get_recording_evidence", "create_file_link")
    },
}
#: Word → by HTTP and by WebSocket (contract 4b; these speak v2).
REFUSALS: Final[Mapping[str, tuple[int, int]]] = {
    "auth_required": (401, -32001),
    "auth_failed": (401, -32001),
    "expired": (401, -32001),
    "revoked": (401, -32001),
    "permission_denied": (403, -32002),
    "camera_not_found": (404, -32010),
}


@dataclass
class Box:
    """The running daemon, what everybody shows, and somebody's token to ask about."""

    daemon: RunningDaemon
    shown: dict[str, str]
    token: str

    def params(self, operation: str) -> dict[str, Any]:
        """Params that are good for whoever may ask, and change nothing: what they name is not there, or is refused."""
        known: dict[str, dict[str, Any]] = {
            "authenticate": {"token": self.shown["viewer"]},
            "get_camera_status": {"device": "camera0"},
            # None of these changes a camera: no source, nothing to change, one of the settings.
            "add_camera": {"name": "new", "source": "nowhere"},
            "update_camera": {"device": "camera0"},
            "remove_camera": {"device": "camera0"},
            # Of the settings, nothing at such a port, and no device.
            "rename_camera": {"device": "camera0", "name": "renamed"},
            "bind_camera": {"port": "nowhere"},
            "forget_camera": {"device": "camera0"},
            "release_camera_device": {"port": "nowhere"},
            # No name of a file: told once the camera has given its picture.
            "take_snapshot": {"device": "camera0", "filename": "../x"},
            "create_event": {"device": "camera0", "kind": "no kind"},
            # No time, no interval, no length, no name of a file, and nothing that runs.
            "get_snapshot": {"device": "camera0", "at": "then"},
            "create_clip": {"device": "camera0", "start": 2, "end": 1},
            "start_recording": {"device": "camera0", "duration": 1e9},
            "stop_recording": {"device": "camera0"},
            "get_recording_status": {"device": "camera0"},
            "get_timeline": {"device": "camera0"},
            # A time that ends before it begins.
            "create_playback_link": {
                "device": "camera0",
                "start": "1970-01-01T00:00:01Z",
                "end": "1970-01-01T00:00:00Z",
            },
            "get_snapshot_info": {"filename": "none"},
            "delete_snapshot": {"filename": "none"},
            "set_retention_policy": {"policy_type": "age", "enabled": True},
            "get_recording_info": {"filename": "none"},
            "get_recording_evidence": {"filename": "none"},
            "delete_recording": {"filename": "none"},
            "protect_recording": {"filename": "none"},
            "unprotect_recording": {"filename": "none"},
            "create_file_link": {"filename": "none"},
            "get_stream_url": {"device": "camera0"},
            "subscribe_events": {"topics": ["camera_status_update"]},
            "create_ticket": {"device": "camera0"},
            "claim": {"code": "ABCDEFGHJK", "username": "ada", "password": "a long passphrase"},
            "login": {"username": "ann", "password": PASSWORD},
            "create_stream_token": {"username": "ann", "password": PASSWORD},
            "create_user": {"name": "ann", "role": "viewer"},
            "get_user": {"name": "nobody"},
            "update_user": {"name": "nobody", "role": "viewer"},
            "set_password": {"name": "nobody", "password": PASSWORD},
            "delete_user": {"name": "nobody"},
            "create_key": {"name": "new", "role": "viewer", "permissions": ["no permission"]},
            "get_key": {"key_id": "nobody"},
            "update_key": {"key_id": "nobody", "name": "renamed"},
            "suspend_key": {"key_id": "nobody"},
            "resume_key": {"key_id": "nobody"},
            "rotate_key": {"key_id": "nobody"},
            "revoke_key": {"key_id": "nobody"},
            "import_keys": {"keys": [{"source_id": "1", "key": "short", "role": "viewer"}]},
            "revoke": {"before": "2999-01-01"},
            "end_session": {"session_id": "nobody"},
            "create_service_token": {"name": "uploads", "networks": ["nowhere"]},
            "import_service_token": {"service_token": "spaces are no header of any kind"},
            "rotate_service_token": {"token_id": "nobody"},
            "revoke_service_token": {"token_id": "nobody"},
            "generate_files_token": {"user_id": "ada"},
            "issue_token": {"user_id": "ada", "claims": {"sub": "eve"}},
            "create_signing_key": {"algorithm": "ES256"},
            "promote_signing_key": {"kid": "nobody"},
            "retire_signing_key": {"kid": "nobody"},
            "validate_token": {"token": self.token},
            "introspect_token": {"token": self.token},
            "revoke_token": {"token": self.token},
        }
        return known.get(operation, {})


async def furnish(daemon: RunningDaemon) -> Box:
    """Everybody's credentials, made as an administrator would make them."""
    shown = {"none": ""}
    async with daemon.local() as admin:
        for name in ("ann", "bob"):
            await admin.call("create_user", name=name, role="viewer", password=PASSWORD)
        keys = {role: await admin.call("create_key", name=role, role=role) for role in ASKERS[1:5]}
        keys |= {asker: await admin.call("create_key", name=asker, role="admin") for asker in ("revoked", "suspended")}
        keys["elsewhere"] = await admin.call("create_key", name="x", role="viewer", camera_access=["camera1"])
        await admin.call("revoke_key", key_id=keys["revoked"]["key_id"])
        await admin.call("suspend_key", key_id=keys["suspended"]["key_id"])
        shown |= {asker: made["api_key"] for asker, made in keys.items()}
        shown["another"] = (await admin.call("login", username="bob", password=PASSWORD))["token"]
        shown["service"] = (await admin.call("create_service_token", name="uploads"))["service_token"]
        shown["ticket"] = (await admin.call("create_ticket", device="camera0", ttl=3600))["ticket"]
        now = time.time()
        claims = tokens.issue_claims("eve", role="viewer", now=now, expires_in=3600)
        await admin.call("create_signing_key", algorithm="ES256")
    secret = tokens.SharedSecret("test", SECRET)
    late = tokens.issue_claims("ada", role="admin", now=now - 7200, expires_in=3600)
    shown["expired"] = tokens.sign(late, secret)
    made = await daemon.request(
        "POST", "/v1/files/generate-token?user_id=ada", headers={"X-Service-Token": shown["service"]}
    )
    shown["files"] = made.json["token"]
    return Box(daemon, shown, tokens.sign(claims, secret))


def expected(
    rows: Mapping[str, tuple[str, ...]], name: str, asker: str, endpoint: Mapping[tuple[str, str], str]
) -> str:
    """What the table says, as it is told outside."""
    row, found = rows[name], endpoint.get((name, asker))
    if found is None:
        found = row[ASKERS.index(asker)] if asker in ASKERS else "ok" if row is OPEN else "unknown_key"
    # The file that is asked for here is there for nobody, so that "not found" is no refusal.
    return "ok" if found == "not_found" else str(OUTSIDE.get(found, found))


async def ask_all(box: Box, asker: str) -> dict[str, str]:
    """Every operation on one WebSocket that this asker has authenticated on, or tried to."""
    found = {}
    async with box.daemon.websocket() as socket:
        if asker != "none":
            await socket.ask("authenticate", auth_token=box.shown[asker])
        for operation in sorted(EXPECTED, key=lambda name: name == "authenticate"):
            params = box.params(operation)
            if asker != "none" and operation not in ("authenticate", "refresh_token"):
                # As stateless clients do; it counts where the session has no credential, and says which it is.
                params = {**params, "auth_token": box.shown[asker]}
            if operation == "refresh_token" and box.shown[asker].count(".") == 2:
                params = {"token": box.shown[asker]}
            found[operation] = word_of(await socket.ask(operation, **params), operation)
    return found


def word_of(reply: dict[str, Any], operation: str) -> str:
    """A reply → what it says of the asker; "ok" for whatever else became of the question."""
    if "error" not in reply:
        return "ok"
    code, reason = reply["error"]["code"], reply["error"]["data"]["reason"]
    if reason == "not_found" and operation in {name for name, row in EXPECTED.items() if row[5] == "camera_not_found"}:
        reason = "camera_not_found"
    if reason in REFUSALS:
        assert code == REFUSALS[reason][1]
        return str(reason)
    assert code not in (-32001, -32002, -32003, -32603), reply
    return reason if reason == "unknown_method" or (reason, operation) == ("invalid_state", "refresh_token") else "ok"


def go_all(box: Box, asker: str) -> dict[str, str]:
    """Every route by HTTP on one connection, with this asker's credential in each request."""
    connection = http.client.HTTPConnection("127.0.0.1", box.daemon.port, timeout=30)
    found = {}
    for route in (*ASKS, *ALONE):
        method, target, headers, body = request_of(box, asker, route)
        connection.request(method, target, body=body, headers=headers)
        with connection.getresponse() as response:
            status, text = response.status, response.read()
        code = json.loads(text)["code"] if status >= 400 and text.startswith(b"{") and b'"code"' in text else "ok"
        if code in REFUSALS:
            assert status == REFUSALS[code][0], route
        else:
            assert status not in (401, 403, 500), route
        refused = code in REFUSALS or (code == "invalid_state" and route.endswith("refresh"))
        found[route] = code if refused else "ok"
    connection.close()
    return found


def request_of(box: Box, asker: str, route: str) -> tuple[str, str, dict[str, str], bytes | None]:
    """Method, target, headers and body of one question."""
    method, path = route.split()
    params = box.params(ASKS.get(route, ""))
    if route == "POST /api/claim":
        params = {}  # a code that is wrong is refused as a credential is
    params |= {"camera": "camera0"} if "{camera}" in path else {"name": "nobody"} if "{name:path}" in path else {}
    names = re.findall(r"{(\w+)(?::path)?}", path)
    target = re.sub(r"{(\w+)(?::path)?}", lambda found: str(params[found[1]]), path)
    rest = {name: value for name, value in params.items() if name not in names}
    # Root without a credential is another table (contract 5.1): whoever came through a proxy is not on this machine.
    headers = {"X-Forwarded-For": "192.0.2.7"}
    # Refused behind the gate, instead of a picture.
    query = {"fps": "0"} if "live.mjpeg" in path else {"quality": "0"} if "snapshot.jpg" in path else {}
    if asker == "service" and path.startswith("/v1/files"):
        headers["X-Service-Token"] = box.shown[asker]
    elif asker == "ticket" and path.endswith(("live.mjpeg", "snapshot.jpg")):
        query["ticket"] = box.shown[asker]
    elif asker != "none":
        headers["Authorization"] = f"Bearer {box.shown[asker]}"
    body = None
    if path.startswith("/v1/files"):
        query |= rest
    elif path.startswith("/oauth"):
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(rest).encode()
    elif method in ("POST", "PUT", "PATCH"):
        headers["Content-Type"] = "application/json"
        body = json.dumps(rest).encode()
    return method, target + ("?" + urlencode(query) if query else ""), headers, body


def test_every_route_has_a_row() -> None:
    """Whoever adds a route says here, or in the table of operations, who may send it; nothing is left over."""
    daemon: Any = SimpleNamespace(clock=SimpleNamespace(monotonic=float))
    found = [f"{route.method} {route.path}" for route in list_routes(gather(), daemon, Counted())]
    assert sorted(found) == sorted([*ASKS, *ALONE])


async def test_everybody_gets_over_the_wire_what_the_table_says(tmp_path: Path) -> None:
    """Every asker, every operation by WebSocket, every route by HTTP; afterwards the keys and users are as before."""
    with fail_after(120):
        async with running_daemon(tmp_path) as daemon:
            box = await furnish(daemon)
            before = await look(daemon)
            rows = {**{route: EXPECTED[name] for route, name in ASKS.items()}, **ALONE}
            wrong: dict[str, Any] = {}
            for asker in (*ASKERS, *GUESTS):
                told = await ask_all(box, asker)
                told |= await trio.to_thread.run_sync(partial(go_all, box, asker))
                meant = {name: expected(EXPECTED, name, asker, BY_WEBSOCKET) for name in EXPECTED}
                meant |= {route: expected(rows, route, asker, BY_HTTP) for route in rows}
                assert told.keys() == meant.keys()
                wrong |= {(asker, name): (told[name], meant[name]) for name in meant if told[name] != meant[name]}
            assert wrong == {}
            assert await look(daemon) == before


async def look(daemon: RunningDaemon) -> list[Any]:
    """Everything that somebody could have changed, but for what is counted."""
    async with daemon.local() as admin:
        found = [
            await admin.call(name) for name in ("list_users", "list_keys", "list_service_tokens", "list_signing_keys")
        ]
    for item in (*found[1]["keys"], *found[2]["service_tokens"]):
        del item["usage_count"], item["last_used"]
    return found
