"""Errors that lead somewhere: what is not built yet, unknown methods, and rights that a credential leaves out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from daemon_helpers import RunningDaemon, running_daemon
from patience import fail_after
from seed_clients import compat
from test_oauth_over_the_wire import bearer, sign

from edged.operations import gather
from edged.operations.not_built import METHODS, PATHS, WHERE, is_path
from edged.rpc.methods import ALIASES

METHODS_PAGE = (Path(__file__).parent.parent / "docs/methods.md").read_text()
#: The names of contract section 3, built or not.
CONTRACT = METHODS | {
    "ping", "authenticate", "refresh_token", "validate_token", "revoke_token", "get_camera_list", "get_camera_status",
    "take_snapshot", "get_snapshot", "create_clip", "start_recording", "stop_recording", "get_recording_status",
    "list_recordings", "get_recording_info", "get_recording_evidence", "delete_recording", "create_file_link",
    "protect_recording", "unprotect_recording", "list_snapshots",
    "get_snapshot_info", "delete_snapshot", "get_storage_info", "set_retention_policy", "cleanup_old_files",
    "get_streams", "get_stream_url", "get_system_status", "get_timeline", "create_playback_link",
    "subscribe_events", "unsubscribe_events",
    "create_key", "list_keys", "get_key", "rotate_key", "revoke_key", "whoami", "get_token_usage",
}  # fmt: skip


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningDaemon]:
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=1) as running:
            yield running


def test_the_page_of_methods_names_every_method() -> None:
    """Where the error of an unknown one sends its reader; the package installs that file."""
    assert "docs/methods.md" in WHERE
    named = set(re.findall(r"\w+", METHODS_PAGE))
    assert named >= CONTRACT
    assert set(gather().operations) - named == set()
    root = Path(__file__).parent.parent
    assert (root / "packaging/debian/edged.docs").read_text().split() == ["README.md", "docs"]


def test_what_is_not_built_is_told_apart_by_the_page() -> None:
    """Behind the words "Not built yet", and nothing that there is stands there."""
    told = set(re.findall(r"\w+", METHODS_PAGE.partition("Not built yet")[2].partition("##")[0]))
    there = gather().operations.keys() | {alias for alias, name in ALIASES.items() if name in gather().operations}
    assert METHODS - there == told & METHODS
    assert not told & there


async def test_a_method_that_is_not_built_says_so_in_both_dialects(server: RunningDaemon) -> None:
    """The codes of a feature that is off (contract 4b), with a reason of its own."""
    _, key = await server.create_key("viewer")
    there = gather().operations.keys()
    async with server.websocket(compat(server)) as old, server.websocket() as new:
        await old.call("authenticate", token=key)
        await new.call("authenticate", auth_token=key)
        for method in (name for name in sorted(METHODS) if name not in there and ALIASES.get(name) not in there):
            for client, code, message in (
                (old, -32008, "Camera capability not supported"), (new, -32030, "Unsupported"),
            ):  # fmt: skip
                error = (await client.ask(method, device="camera0"))["error"]
                assert (error["code"], error["message"]) == (code, message)
                assert error["data"]["reason"] == "not_built"
                assert error["data"]["detail"] == f"{method} is not built yet"
                assert error["data"]["hint"] == WHERE


async def test_an_unknown_method_leads_to_the_list_of_those_that_there_are(server: RunningDaemon) -> None:
    """As before -32601, in both dialects, with a place that exists."""
    async with server.websocket(compat(server)) as old, server.websocket() as new:
        for client in (old, new):
            error = (await client.ask("get_camera_lists"))["error"]
            assert (error["code"], error["data"]["hint"]) == (-32601, WHERE)


async def test_paths_that_are_not_built_are_501(server: RunningDaemon) -> None:
    """With any credential and without; whatever else there is not is 404, and what there is stays what it is."""
    _, key = await server.create_key("viewer")
    for path in (
        "/v1/files/all",
        "/v1/files/metadata/a/b",
        "/api/audit",
    ):
        for headers in ({}, {"X-API-Key": key}):
            reply = await server.request("GET", path, headers=headers)
            assert (reply.status, reply.json["code"], reply.json["error"]) == (501, "not_built", "Unsupported"), path
            assert WHERE in reply.json["detail"]
    for path in ("/files/recording", "/files/recordings", "/api/auditor", "/mcp", "/v1/filess/all"):
        assert (await server.request("GET", path)).status == 404
    assert (await server.request("GET", "/v1/files/generate-token")).status == 405
    assert all(is_path(path) for path in PATHS)
    _, monitor = await server.create_key("monitor")
    async with server.websocket() as client:
        await client.ask("get_stream_status", device="camera0")
    shown = (await server.request("GET", "/metrics", key=monitor)).body.decode()
    assert 'edged_rpc_errors_total{slug="not_built"} 1.0' in shown


async def denial(server: RunningDaemon, text: str, method: str, **params: object) -> Any:
    async with server.websocket() as client:
        await client.call("authenticate", auth_token=text)
        error = (await client.ask(method, **params))["error"]
        assert error["code"] == -32002
        return error["data"]


async def test_a_right_that_the_token_leaves_out_is_not_put_down_to_the_role(server: RunningDaemon) -> None:
    """An operator's token with permissions of its own: the role would do, so that no role is asked for."""
    told = await denial(
        server, sign(server.log.parent, role="operator", permissions=["camera:read"]), "take_snapshot", device="camera0"
    )
    assert (told["required"], told["required_role"], told["have_role"]) == ("camera:write", None, "operator")
    assert told["detail"].startswith("the role operator has camera:write, and this credential has not")
    assert told["hint"] == "use one whose permissions have camera:write"
    _, key = await server.create_key("admin", permissions=["camera:read"])
    told = await denial(server, key, "list_keys")
    assert (told["required"], told["required_role"], told["have_role"]) == ("keys:admin", None, "admin")
    # Where the role is what is missing, it is named as ever.
    told = await denial(server, sign(server.log.parent, role="viewer"), "take_snapshot", device="camera0")
    assert (told["required_role"], told["have_role"], "detail" in told) == ("operator", "viewer", False)
    reply = await server.request("GET", "/api/keys", key=key)
    assert (reply.status, reply.json["code"]) == (403, "permission_denied")
    assert reply.json["detail"].startswith("the role admin has keys:admin, and this credential has not")
    told = await denial(server, sign(server.log.parent, role="viewer"), "list_keys")
    assert told["required_role"] == "admin"


async def test_what_only_the_box_itself_may_says_so_over_http(server: RunningDaemon) -> None:
    """Not "needs another credential; this credential has the role none", to an administrator."""
    _, key = await server.create_key("admin")
    _, issuer = await server.create_key("admin", permissions=["tokens:issue"])
    reply = await server.request("POST", "/api/tokens", key=issuer, body={"user_id": "ann", "role": "admin"})
    assert (reply.status, reply.json["detail"]) == (403, "nobody can hand on more than they may do themselves")
    told = await denial(server, key, "create_demo_login")
    assert told["detail"] == "the demo's user is made on this machine alone"
    assert told["hint"] == "sudo edged user demo-login"


@pytest.mark.parametrize(
    ("claims", "permissions"),
    [
        ({"role": "operator", "permissions": []}, []),
        ({"role": "operator", "permissions": ["camera:read"]}, ["view", "camera:read", "stream:read"]),
        ({"role": "admin", "permissions": ["keys:admin"]}, ["keys:admin"]),
        ({"role": "admin", "permissions": ["control"]}, ["control", "camera:write"]),
        ({"role": "user", "permissions": ["camera:read:camera1"]},
         ["view", "camera:read:camera1", "stream:read:camera1"]),
        ({"role": "user", "camera_access": []}, ["camera:read", "camera:write", "stream:read", "system:read"]),
        ({"role": "user"}, ["view", "control", "camera:read", "camera:write", "stream:read", "system:read"]),
        ({"role": "monitor"}, ["metrics:read", "system:read"]),
        ({"role": None, "scope": "camera:read read:posts"}, ["view", "camera:read", "stream:read"]),
    ],
)  # fmt: skip
async def test_authenticate_tells_permissions_that_hold(
    server: RunningDaemon, claims: dict[str, object], permissions: list[str]
) -> None:
    """The words of the guides where they are true, and the capabilities; a list of strings, in both dialects."""
    text = sign(server.log.parent, **claims)
    async with server.websocket(compat(server)) as old, server.websocket() as new:
        assert (await old.call("authenticate", token=text))["permissions"] == permissions
        assert (await new.call("authenticate", auth_token=text))["permissions"] == permissions
    assert (await server.request("GET", "/api/sessions", headers=bearer(text))).status == 200


async def test_an_administrator_is_told_all_three_words(server: RunningDaemon) -> None:
    """And stays what it was for the clients that look for them."""
    _, key = await server.create_key("admin")
    async with server.websocket() as client:
        told = await client.call("authenticate", auth_token=key)
    assert told["permissions"][:3] == ["view", "control", "admin"]
